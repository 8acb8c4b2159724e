//! The walk over all states.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::rc::Rc;

use sheaf_domain::{Timestamp, Wait};
use sheaf_engine::{Event, RunState};

use super::configs::Config;
use super::moves::{Fault, Move, SITES, event_of, moves};
use super::rules;

/// The time of every event.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_000);

/// What a walk came to.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) states: usize,
    pub(super) steps: usize,
    /// The most events on the shortest way to a state.
    pub(super) depth: usize,
    /// How runs ended.
    pub(super) ends: BTreeSet<&'static str>,
}

/// How a state was first reached.
#[derive(Clone, Copy)]
struct Origin {
    from: u32,
    by: Move,
}

/// How often each fault has happened.
type Happened = [u8; 8];

/// A state whose neighbours are not known yet.
struct Pending {
    idx: u32,
    state: RunState,
    happened: Happened,
    journal: Journal,
}

/// The events that led to a state, the last one first.
type Journal = Option<Rc<Entry>>;

struct Entry {
    event: Event,
    before: Journal,
}

/// What is known of the states that were reached.
struct Known<'a> {
    config: &'a Config,
    /// The first event, as it is read from a journal.
    created: Event,
    by_print: HashMap<(u64, u64), u32>,
    origins: Vec<Origin>,
    /// States from which the run has ended, or needs an operator and says so.
    at_rest: Vec<u32>,
    /// Steps that are no faults.
    fair: Vec<(u32, u32)>,
}

/// Walks over all states in which each fault happened at most `each` times.
pub(super) fn walk(config: &Config, each: u8) -> Walked {
    let (first, _) = RunState::create(NOW, &config.created).unwrap();
    let mut known = Known {
        config,
        created: written_and_read(&config.created),
        by_print: HashMap::new(),
        origins: Vec::new(),
        at_rest: Vec::new(),
        fair: Vec::new(),
    };
    let mut walked = Walked { states: 0, steps: 0, depth: 0, ends: BTreeSet::new() };
    let origin = Origin { from: 0, by: Move::Create };
    let (idx, _) = known.reach(&first, [0; 8], origin);
    let mut level = vec![Pending { idx, state: first, happened: [0; 8], journal: None }];
    while !level.is_empty() {
        let mut next = Vec::new();
        for pending in level {
            known.check(&pending);
            if let Some(end) = end_of(&pending.state) {
                walked.ends.insert(end);
            }
            walked.steps += known.neighbours(&pending, each, &mut next);
        }
        walked.depth += usize::from(!next.is_empty());
        level = next;
    }
    known.check_ends();
    walked.states = known.origins.len();
    walked
}

fn end_of(state: &RunState) -> Option<&'static str> {
    state.phase().is_over().then(|| state.phase().name())
}

impl Known<'_> {
    /// Notes a state; returns its number and whether it is new.
    fn reach(&mut self, state: &RunState, happened: Happened, origin: Origin) -> (u32, bool) {
        let number = u32::try_from(self.origins.len()).unwrap();
        let found = *self.by_print.entry(fingerprint(state, happened)).or_insert(number);
        if found == number {
            self.origins.push(origin);
        }
        (found, found == number)
    }

    /// Takes every step from a state; returns how many there are.
    fn neighbours(&mut self, pending: &Pending, each: u8, next: &mut Vec<Pending>) -> usize {
        let left =
            |fault: Fault| self.config.faults.contains(&fault) && pending.happened[fault as usize] < each;
        let steps = moves(self.config, &pending.state, left);
        let taken = steps.len();
        for step in steps {
            let event = event_of(self.config, &pending.state, step);
            let mut state = pending.state.clone();
            let outcome = state.apply(NOW, &event);
            let checked = std::panic::AssertUnwindSafe(|| {
                let actions = outcome.unwrap_or_else(|error| panic!("{step:?} is refused: {error}"));
                rules::check_step(&pending.state, &event, &actions, &state);
            });
            self.explained(pending.idx, Some(step), checked);
            let mut happened = pending.happened;
            if let Move::Disturb(fault, _) = step {
                happened[fault as usize] += 1;
            }
            let (idx, is_new) = self.reach(&state, happened, Origin { from: pending.idx, by: step });
            if !matches!(step, Move::Disturb(..)) {
                self.fair.push((pending.idx, idx));
            }
            if is_new {
                let entry = Entry { event: written_and_read(&event), before: pending.journal.clone() };
                next.push(Pending { idx, state, happened, journal: Some(Rc::new(entry)) });
            }
        }
        taken
    }

    /// Checks what must hold in a state, and that a crash leads back to it.
    fn check(&mut self, pending: &Pending) {
        let state = &pending.state;
        let checked = std::panic::AssertUnwindSafe(|| {
            rules::check_state(self.config, state);
            let again = self.replay(&pending.journal);
            assert!(again == *state, "the event list makes another state");
            assert!(
                again.outstanding() == state.outstanding(),
                "after a crash other actions are outstanding"
            );
        });
        self.explained(pending.idx, None, checked);
        if state.phase().is_over() || lacks_participants(state) {
            self.at_rest.push(pending.idx);
        }
    }

    /// The moves that first led to a state.
    fn trace(&self, mut idx: u32) -> Vec<Move> {
        let mut trace = Vec::new();
        while idx != 0 {
            let origin = self.origins[idx as usize];
            trace.push(origin.by);
            idx = origin.from;
        }
        trace.reverse();
        trace
    }

    /// The state that a list of events makes from the beginning.
    fn replay(&self, journal: &Journal) -> RunState {
        let mut events = Vec::new();
        let mut last = journal;
        while let Some(entry) = last {
            events.push(&entry.event);
            last = &entry.before;
        }
        let (mut state, _) = RunState::create(NOW, &self.created).unwrap();
        for event in events.into_iter().rev() {
            state.apply(NOW, event).unwrap();
        }
        state
    }

    /// Runs a check; when it fails, says by which moves its state is reached.
    fn explained(&self, idx: u32, last: Option<Move>, check: impl FnOnce() + std::panic::UnwindSafe) {
        if let Err(panic) = std::panic::catch_unwind(check) {
            let moves: Vec<Move> = self.trace(idx).into_iter().chain(last).collect();
            eprintln!("{}: state {idx}, reached by {moves:#?}", self.config.name);
            std::panic::resume_unwind(panic);
        }
    }

    /// From every state an end can be reached by steps that are no faults.
    fn check_ends(&self) {
        let mut backwards: Vec<Vec<u32>> = vec![Vec::new(); self.origins.len()];
        for (from, to) in &self.fair {
            backwards[*to as usize].push(*from);
        }
        let mut ends = vec![false; self.origins.len()];
        let mut found = self.at_rest.clone();
        while let Some(idx) = found.pop() {
            if !std::mem::replace(&mut ends[idx as usize], true) {
                found.extend(&backwards[idx as usize]);
            }
        }
        if let Some(stuck) = ends.iter().position(|ends| !ends) {
            self.explained(u32::try_from(stuck).unwrap(), None, || panic!("from here the run never ends"));
        }
    }
}

/// Whether a run waits for more participants than are left, and says so.
fn lacks_participants(state: &RunState) -> bool {
    let status = state.status();
    let revoked = status.sites.iter().filter(|site| site.presence == "revoked").count();
    status.waits.iter().any(|wait| match wait {
        Wait::Participants { needed, .. } => *needed as usize > SITES.len() - revoked,
        _ => false,
    })
}

fn written_and_read(event: &Event) -> Event {
    serde_json::from_str(&serde_json::to_string(event).unwrap()).unwrap()
}

/// A fingerprint of every field of a state and of the faults that happened.
fn fingerprint(state: &RunState, happened: Happened) -> (u64, u64) {
    struct Both(DefaultHasher, DefaultHasher);
    impl std::fmt::Write for Both {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            self.1.write(text.as_bytes());
            Ok(())
        }
    }
    let mut both = Both(DefaultHasher::new(), DefaultHasher::new());
    both.1.write_u8(1);
    write!(both, "{happened:?}{state:?}").unwrap();
    (both.0.finish(), both.1.finish())
}
