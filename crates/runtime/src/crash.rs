//! Named places at which a test may have this process killed, as by the machine's power switch.
//!
//! A place costs one read of a value that never changes and one branch. Nothing is armed but by [`arm`], which the program
//! calls only when its command line says so in a flag that help does not show: an inherited variable alone does nothing, and
//! no peer has a say in either.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use thiserror::Error;

/// The environment variable that says where and when: `PLACE` or `PLACE:N` for the N-th time that place is reached.
pub const VARIABLE: &str = "SHEAF_CRASH_AT";

macro_rules! points {
    ($($variant:ident = $name:literal: $doc:literal,)+) => {
        /// A place in the program, between two steps whose order matters after a crash.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Point { $(#[doc = $doc] $variant),+ }

        impl Point {
            /// Every place.
            pub const ALL: &[Point] = &[$(Point::$variant),+];

            /// Its name, as [`arm`] takes it.
            pub fn name(self) -> &'static str {
                match self { $(Point::$variant => $name),+ }
            }
        }
    };
}

points! {
    DirectoryMade = "directory-made": "The data directory is there; keys and stores are not yet.",
    KeyFileWritten = "key-file-written": "A key or certificate is written beside its place; it is not renamed yet.",
    KeysMade = "keys-made": "The CA, the journal key and the operator's credential are there.",
    StoresOpened = "stores-opened": "Both stores are open; runs are not rebuilt yet.",
    HoldSwept = "hold-swept": "The sweep at the start is about to free something that no journal explains.",
    Recovered = "recovered": "Runs are rebuilt and the sweep is through; nothing is taken up yet.",
    Listening = "listening": "The server listens; its address is not written down yet.",
    InviteSpent = "invite-spent": "A token is spent; its site is not kept yet.",
    SiteKept = "site-kept": "A site is kept with its certificate; the journal does not say so yet.",
    SiteJournalled = "site-journalled": "The journal says that a site is in; the site has not heard of it yet.",
    RunPrepared = "run-prepared": "What a new run starts from is kept; the run is not handed to the writer yet.",
    RunLeased = "run-leased": "A new run's journal is leased and empty.",
    RunCreated = "run-created": "A new run is durable; its creator has not heard of it yet.",
    SpoolFileMade = "spool-file-made": "A spool file has its room; its header is not written yet.",
    PieceWritten = "piece-written": "An object's bytes are written and checked, not flushed.",
    PiecesFlushed = "pieces-flushed": "New objects are flushed; the index does not know them yet.",
    IndexAppended = "index-appended": "The index has a new frame, flushed; nobody has been told.",
    IndexPrepared = "index-prepared": "A new index lies beside the present one.",
    IndexReplaced = "index-replaced": "A new index is in the place of the old one.",
    GatePassed = "gate-passed": "A submission passed the gate; no event of it is journalled.",
    BatchApplied = "batch-applied": "Events are applied to engines; they are not appended to journals yet.",
    CommitBegun = "commit-begun": "A transaction of the state store is about to be committed.",
    Committed = "committed": "A transaction of the state store is committed; nobody has been told.",
    BatchDurable = "batch-durable": "Events are appended; nothing is acted on and nobody has been told.",
    BatchAnswered = "batch-answered": "Events are appended, acted on and answered for.",
    FoldBegun = "fold-begun": "A fold begins; nothing of its versions is written.",
    VersionPieceWritten = "version-piece-written": "A piece of a new version is stored.",
    VersionWritten = "version-written": "A fold's versions are stored; no event says so.",
    FoldTold = "fold-told": "The event of a fold is durable.",
    ReleaseBegun = "release-begun": "Bytes that nothing needs any more are about to be freed.",
    BackupStateCopied = "backup-state-copied": "A backup has the journals, and no objects.",
    BackupObjectCopied = "backup-object-copied": "A backup has some of its objects.",
    BackupFilesCopied = "backup-files-copied": "A backup has everything but the mark that it is finished.",
    BackupMarked = "backup-marked": "A backup is finished; its asker has not heard of it.",
    ResultStored = "result-stored": "A participant has a result on disk and has handed in nothing of it.",
    PieceUploaded = "piece-uploaded": "A participant heard that a piece is stored; the result is not handed in.",
    ResultAnswered = "result-answered": "A participant heard what became of its result, and still has it on disk.",
}

impl Point {
    /// The place of this name.
    pub fn named(name: &str) -> Option<Point> {
        Point::ALL.iter().copied().find(|point| point.name() == name)
    }
}

/// What was asked for is no place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} names no place to crash at; it is PLACE or PLACE:N, and N counts from 1")]
pub struct CrashPointError {
    text: String,
}

/// Where this process is to be killed.
#[derive(Debug)]
struct Armed {
    point: Point,
    left: AtomicU64,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Arms this process: it is killed when it reaches the place that `text` names. The first call counts.
///
/// # Errors
/// [`CrashPointError`] when `text` names no place.
pub fn arm(text: &str) -> Result<(), CrashPointError> {
    let armed = Armed::parse(text).ok_or_else(|| CrashPointError { text: text.to_owned() })?;
    tracing::warn!(point = armed.point.name(), "this process is armed to be killed");
    drop(ARMED.set(armed));
    Ok(())
}

/// Says that a place is reached. Returns, unless this process is armed for it.
#[inline]
pub fn reached(point: Point) {
    if let Some(armed) = ARMED.get()
        && armed.is_due(point)
    {
        die();
    }
}

impl Armed {
    fn parse(text: &str) -> Option<Armed> {
        let (name, times) = text.split_once(':').unwrap_or((text, "1"));
        let times: u64 = times.parse().ok().filter(|times| *times > 0)?;
        Some(Armed { point: Point::named(name)?, left: AtomicU64::new(times) })
    }

    /// Counts; true exactly once.
    fn is_due(&self, point: Point) -> bool {
        let count = || self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        point == self.point && count() == Ok(1)
    }
}

/// Ends the process as a crash does: no destructor, no flush, no answer.
#[cold]
fn die() -> ! {
    // A process may always signal itself; should the signal be refused after all, it aborts.
    kill_process(getpid(), Signal::KILL).ok();
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_name_of_its_own() {
        for point in Point::ALL {
            assert_eq!(Point::named(point.name()), Some(*point));
        }
        assert_eq!(Point::named("nowhere"), None);
    }

    #[test]
    fn a_place_is_due_once_at_the_time_asked_for() {
        let armed = Armed::parse("committed:3").unwrap();
        let due: Vec<bool> = (0..5).map(|_| armed.is_due(Point::Committed)).collect();
        assert_eq!(due, [false, false, true, false, false]);
        let armed = Armed::parse("recovered").unwrap();
        assert!(!armed.is_due(Point::Committed));
        assert!(armed.is_due(Point::Recovered));
    }

    #[test]
    fn what_is_no_place_is_refused_and_arms_nothing() {
        for text in ["", "nowhere", "committed:0", "committed:-1", "committed:x", "committed:1:1"] {
            let refused = arm(text).unwrap_err();
            assert!(refused.to_string().contains(&format!("{text:?}")), "{refused}");
        }
        // This process lives on: nothing is armed in it.
        Point::ALL.iter().copied().for_each(reached);
    }
}
