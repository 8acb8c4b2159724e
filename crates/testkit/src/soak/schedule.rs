//! Which kill comes next: places in turn, shuffled by the seed, or a random moment.

use std::collections::BTreeMap;

use sheaf_domain::rng::SeededRng;
use sheaf_runtime::crash::Point;

use super::Places;

/// A stretch of a life in which some places can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// A server starts for the first time.
    Start,
    /// Sites are invited and enrol.
    Enrolment,
    /// A run is created.
    Creation,
    /// Rounds go on.
    Rounds,
    /// A server starts again.
    Restart,
    /// A backup is made.
    Backup,
    /// A site works.
    Site,
}

/// A kill to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kill {
    /// At a place, the time it is reached that the number says.
    At(Point, u64),
    /// At a random moment.
    Random,
}

/// Draws kills.
#[derive(Debug)]
pub(super) struct Schedule {
    rng: SeededRng,
    places: Places,
    waiting: BTreeMap<Phase, Vec<Point>>,
}

impl Schedule {
    pub(super) fn new(seed: u64, places: Places) -> Schedule {
        Schedule { rng: SeededRng::new(seed, "schedule"), places, waiting: BTreeMap::new() }
    }

    /// The next kill of a phase. All places of the phase come before one comes again.
    pub(super) fn next(&mut self, phase: Phase) -> Kill {
        let random = match self.places {
            Places::Named => false,
            Places::Random => true,
            Places::Both => self.rng.below(3) == 0,
        };
        if random {
            return Kill::Random;
        }
        let waiting = self.waiting.entry(phase).or_default();
        if waiting.is_empty() {
            waiting.extend(Point::ALL.iter().filter(|point| is_in(**point, phase)));
        }
        let idx = usize::try_from(self.rng.below(waiting.len() as u64)).unwrap();
        let point = waiting.swap_remove(idx);
        Kill::At(point, 1 + self.rng.below(times(point, phase)))
    }
}

impl Kill {
    /// What the program is told.
    pub(super) fn place(self) -> Option<String> {
        match self {
            Kill::At(point, times) => Some(format!("{}:{times}", point.name())),
            Kill::Random => None,
        }
    }
}

/// Whether a place is reached in a phase, as far as nothing special has happened.
fn is_in(point: Point, phase: Phase) -> bool {
    use Point::*;
    match phase {
        Phase::Start => matches!(
            point,
            DirectoryMade
                | KeyFileWritten
                | KeysMade
                | StoresOpened
                | Recovered
                | Listening
                | IndexPrepared
                | IndexReplaced
                | CommitBegun
                | Committed
        ),
        Phase::Enrolment => {
            matches!(point, InviteSpent | SiteKept | SiteJournalled | CommitBegun | Committed | BatchDurable)
        }
        Phase::Creation => {
            matches!(
                point,
                RunPrepared
                    | RunLeased
                    | RunCreated
                    | BatchApplied
                    | BatchDurable
                    | BatchAnswered
                    | SpoolFileMade
            )
        }
        Phase::Rounds => matches!(
            point,
            PieceWritten
                | PiecesFlushed
                | IndexAppended
                | GatePassed
                | BatchApplied
                | CommitBegun
                | Committed
                | BatchDurable
                | BatchAnswered
                | FoldBegun
                | VersionPieceWritten
                | VersionWritten
                | FoldTold
                | ReleaseBegun
        ),
        Phase::Restart => matches!(
            point,
            DirectoryMade
                | KeysMade
                | StoresOpened
                | HoldSwept
                | Recovered
                | Listening
                | IndexPrepared
                | IndexReplaced
        ),
        Phase::Backup => {
            matches!(point, BackupStateCopied | BackupObjectCopied | BackupFilesCopied | BackupMarked)
        }
        Phase::Site => matches!(point, ResultStored | PieceUploaded | ResultAnswered),
    }
}

/// How many times a place is reached at most before a kill that is drawn for it.
fn times(point: Point, phase: Phase) -> u64 {
    match (phase, point) {
        (Phase::Start, Point::KeyFileWritten) => 4,
        (Phase::Start | Phase::Creation | Phase::Restart, _) => 1,
        (Phase::Enrolment, _) => 3,
        (_, Point::BackupStateCopied | Point::BackupFilesCopied | Point::BackupMarked) => 1,
        (Phase::Rounds, _) => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 7] = [
        Phase::Start,
        Phase::Enrolment,
        Phase::Creation,
        Phase::Rounds,
        Phase::Restart,
        Phase::Backup,
        Phase::Site,
    ];

    #[test]
    fn every_place_has_a_phase_and_comes_in_its_turn() {
        for point in Point::ALL {
            assert!(PHASES.iter().any(|phase| is_in(*point, *phase)), "{point:?} is never armed");
        }
        for phase in PHASES {
            let count = Point::ALL.iter().filter(|point| is_in(**point, phase)).count();
            let mut schedule = Schedule::new(7, Places::Named);
            let mut drawn: Vec<String> = (0..count)
                .map(|_| match schedule.next(phase) {
                    Kill::At(point, _) => point.name().to_owned(),
                    Kill::Random => "random".to_owned(),
                })
                .collect();
            drawn.sort();
            drawn.dedup();
            assert_eq!(drawn.len(), count, "{phase:?}: {drawn:?}");
        }
    }
}
