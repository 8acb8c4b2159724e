//! What is attacked: a decoder, its well-formed samples, and how much memory an input may cost.

use std::time::Duration;

use sheaf_runtime::Clock;

use crate::form::Form;
use crate::heap::{self, Taken};

/// One decoder under attack.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What `cargo xtask fuzz` and the folders of the corpus call it.
    pub name: &'static str,
    /// What it decodes, for people.
    pub about: &'static str,
    /// The shape of its inputs, which the mutations know about.
    pub form: Form,
    /// The longest input tried, in bytes.
    pub len_max: usize,
    /// How much memory a decode may take.
    pub ceiling: Ceiling,
    /// Inputs that a correct decoder accepts.
    pub samples: fn() -> Vec<Vec<u8>>,
    /// Decodes an input and panics when an invariant does not hold.
    pub body: fn(&[u8], &mut Probe<'_>) -> Verdict,
}

/// The most bytes a decode may hold at once: so many for each byte of the input, and so many for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// For each byte of the input.
    pub per_byte: u64,
    /// For any input, in bytes.
    pub constant: u64,
}

impl Ceiling {
    /// The ceiling for an input of `len` bytes.
    pub const fn of(self, len: usize) -> u64 {
        self.per_byte.saturating_mul(len as u64).saturating_add(self.constant)
    }
}

/// What a decoder made of an input, in words whose sort (not their numbers) tells behaviours apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken; the text says what for.
    Accepted(String),
    /// It was refused; the text is the error.
    Refused(String),
}

impl Verdict {
    /// A refusal.
    pub fn refused(error: impl std::fmt::Display) -> Verdict {
        Verdict::Refused(error.to_string())
    }

    /// Whether the input was taken.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Verdict::Accepted(_))
    }
}

/// Measures the decode itself; what a body checks afterwards does not count.
#[derive(Debug)]
pub struct Probe<'a> {
    clock: &'a dyn Clock,
    taken: Taken,
    time: Duration,
}

impl<'a> Probe<'a> {
    /// A probe that has measured nothing yet.
    pub fn new(clock: &'a dyn Clock) -> Probe<'a> {
        Probe { clock, taken: Taken::default(), time: Duration::ZERO }
    }

    /// Measures `decode`.
    pub fn watch<T>(&mut self, decode: impl FnOnce() -> T) -> T {
        let from = self.clock.monotonic();
        let (done, taken) = heap::watch(decode);
        self.time += self.clock.monotonic().saturating_sub(from);
        self.taken.peak_bytes = self.taken.peak_bytes.max(taken.peak_bytes);
        self.taken.calls += taken.calls;
        done
    }

    /// What was measured: memory and time.
    pub fn reading(&self) -> (Taken, Duration) {
        (self.taken, self.time)
    }
}
