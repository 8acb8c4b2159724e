//! The driver: draws an input, changes it, tries it, and keeps it when the decoder did something it had not done before.
//!
//! There is no instrumentation. What tells behaviours apart is the sort of the verdict (its words, with numbers reduced to
//! their length) and how often the decode asked for memory. Everything follows from the seed but the moment the time is up.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use sheaf_runtime::Clock;

use crate::mutate::Mutator;
use crate::shrink;
use crate::target::{Target, Verdict};
use crate::trace::Trace;
use crate::trial::{self, Finding, Trial};

/// An input that shows a fault, as small as it could be made.
#[derive(Debug, Clone)]
pub struct Crash {
    /// The input.
    pub input: Vec<u8>,
    /// What is wrong.
    pub finding: Finding,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Inputs tried.
    pub inputs: u64,
    /// Of these, accepted by the decoder.
    pub accepted: u64,
    /// Behaviours told apart.
    pub behaviours: usize,
    /// The longest time of one decode.
    pub slowest: Duration,
    /// The greatest share of its ceiling that a decode took.
    pub heap_share: f64,
}

/// One run against one decoder.
#[derive(Debug)]
pub struct Driver<'a> {
    target: &'a Target,
    clock: &'a dyn Clock,
    mutator: Mutator,
    corpus: Vec<Vec<u8>>,
    /// How many of the corpus were there at the beginning.
    given: usize,
    corpus_bytes: usize,
    seen: HashSet<u64>,
    tally: Tally,
    trace: Option<Trace>,
}

/// The most inputs kept in memory, and their bytes.
const KEPT_MAX: usize = 20_000;
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most behaviours remembered; after that nothing counts as new.
const SEEN_MAX: usize = 2_000_000;
/// How many inputs are tried between two looks at the clock.
const LOOK_EVERY_INPUTS: u64 = 64;

impl<'a> Driver<'a> {
    /// A driver that begins with the target's samples and `corpus`; with a trace, each input is written down before it is tried.
    pub fn new(
        target: &'a Target,
        corpus: Vec<Vec<u8>>,
        seed: u64,
        clock: &'a dyn Clock,
        trace: Option<Trace>,
    ) -> Driver<'a> {
        let mut given = (target.samples)();
        given.extend(corpus);
        Driver {
            target,
            clock,
            mutator: Mutator::new(seed, target.name),
            given: given.len(),
            corpus_bytes: given.iter().map(Vec::len).sum(),
            corpus: given,
            seen: HashSet::new(),
            tally: Tally::default(),
            trace,
        }
    }

    /// Tries everything it was given.
    ///
    /// # Errors
    /// The first input that shows a fault, as it is.
    pub fn replay(&mut self) -> Result<(), Box<Crash>> {
        let given = self.corpus.clone();
        for input in given {
            if let Err(finding) = self.attempt(&input).outcome {
                return Err(Box::new(Crash { input, finding }));
            }
        }
        Ok(())
    }

    /// Changes and tries inputs until `time` is up.
    ///
    /// # Errors
    /// The first input that shows a fault, minimised.
    pub fn run(&mut self, time: Duration) -> Result<(), Box<Crash>> {
        let from = self.clock.monotonic();
        while self.clock.monotonic().saturating_sub(from) < time {
            for _ in 0..LOOK_EVERY_INPUTS {
                self.step()?;
            }
        }
        Ok(())
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        Tally { behaviours: self.seen.len(), ..self.tally.clone() }
    }

    /// The inputs that showed something new, in the order they were found.
    pub fn found(&self) -> &[Vec<u8>] {
        self.corpus.get(self.given..).unwrap_or_default()
    }

    fn step(&mut self) -> Result<(), Box<Crash>> {
        let input = self.next_input();
        let is_new_before = self.seen.len();
        if let Err(finding) = self.attempt(&input).outcome {
            let input = shrink::minimise(self.target, input, &finding);
            let finding = trial::attempt(self.target, &input).outcome.err().unwrap_or(finding);
            return Err(Box::new(Crash { input, finding }));
        }
        let has_room = self.corpus.len() < KEPT_MAX && self.corpus_bytes + input.len() < KEPT_BYTES_MAX;
        if self.seen.len() > is_new_before && has_room {
            self.corpus_bytes += input.len();
            self.corpus.push(input);
        }
        Ok(())
    }

    fn next_input(&mut self) -> Vec<u8> {
        let count = self.corpus.len();
        // Half of the time one of the newest: that is where unknown behaviour is near.
        let newest = self.mutator.below((count / 8).max(1));
        let parent = if self.mutator.once_in(2) { count - 1 - newest } else { self.mutator.below(count) };
        let other = self.mutator.below(count);
        let parent = self.corpus.get(parent).map(Vec::as_slice).unwrap_or_default();
        let other = self.corpus.get(other).map(Vec::as_slice).unwrap_or_default();
        let mut input = self.target.form.mutate(&mut self.mutator, parent, other);
        input.truncate(self.target.len_max);
        input
    }

    fn attempt(&mut self, input: &[u8]) -> Trial {
        if let Some(trace) = &self.trace {
            trace.note(input);
        }
        let trial = trial::attempt(self.target, input);
        self.tally.inputs += 1;
        self.tally.slowest = self.tally.slowest.max(trial.time);
        #[expect(clippy::cast_precision_loss, reason = "a share, for people")]
        let share = trial.taken.peak_bytes as f64 / self.target.ceiling.of(input.len()) as f64;
        self.tally.heap_share = self.tally.heap_share.max(share);
        if let Ok(verdict) = &trial.outcome {
            self.tally.accepted += u64::from(verdict.is_accepted());
            if self.seen.len() < SEEN_MAX {
                self.seen.insert(behaviour(verdict, trial.taken.calls));
            }
        }
        trial
    }
}

/// What one behaviour is told from another by.
fn behaviour(verdict: &Verdict, calls: u64) -> u64 {
    let (is_accepted, text) = match verdict {
        Verdict::Accepted(text) => (true, text),
        Verdict::Refused(text) => (false, text),
    };
    let mut hasher = DefaultHasher::new();
    is_accepted.hash(&mut hasher);
    skeleton(text).hash(&mut hasher);
    // Exact while it is small, then by its order of magnitude.
    let calls = if calls < 24 { calls } else { 24 + u64::from(calls.ilog2()) };
    calls.hash(&mut hasher);
    hasher.finish()
}

/// A text without what was quoted in it, and with each number reduced to how long it is.
fn skeleton(text: &str) -> String {
    let mut skeleton = String::with_capacity(text.len());
    for (idx, part) in text.split(['"', '`']).enumerate() {
        if idx % 2 == 0 {
            skeleton.extend(part.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }));
        }
        skeleton.push('"');
    }
    skeleton
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_differ_by_words_and_sizes_and_not_by_names() {
        let of = |text: &str, calls| behaviour(&Verdict::refused(text), calls);
        assert_eq!(of("line 3: no key `a`", 7), of("line 5: no key `bb`", 7));
        assert_ne!(of("line 3: no key `a`", 7), of("line 30: no key `a`", 7));
        assert_ne!(of("line 3", 7), of("line 3", 8));
        assert_eq!(of("line 3", 70), of("line 3", 80));
        assert_ne!(behaviour(&Verdict::Accepted("x".into()), 1), of("x", 1));
    }
}
