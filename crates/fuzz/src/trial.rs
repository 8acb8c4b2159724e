//! One input against one decoder: what came of it, and whether that is a finding.
//!
//! Findings are a panic (of the decoder, or of an invariant its body checks), a decode that held more than its ceiling, and a
//! decode that takes out of all proportion. Time is that of the processor, and judged against a fixed piece of work done right then on the
//! same machine.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use sheaf_domain::Digest;
use sheaf_runtime::Clock as _;

use crate::heap::Taken;
use crate::processor::OwnTime;
use crate::target::{Probe, Target, Verdict};

/// What is wrong with a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It panicked, or broke an invariant.
    Panicked(String),
    /// It held more bytes than its ceiling.
    TooMuchMemory {
        /// What it held.
        peak_bytes: u64,
        /// What it may hold.
        ceiling: u64,
    },
    /// It took longer than [`SLOW_PIECES`] pieces of reference work.
    TooSlow {
        /// The shortest of its times.
        took: Duration,
        /// The time of one piece of reference work beside it.
        reference: Duration,
    },
}

impl Finding {
    /// Whether two findings are of one sort: what minimising keeps.
    pub fn is_like(&self, other: &Finding) -> bool {
        match (self, other) {
            (Finding::Panicked(one), Finding::Panicked(two)) => place(one) == place(two),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Panicked(message) => write!(f, "panicked: {message}"),
            Finding::TooMuchMemory { peak_bytes, ceiling } => {
                write!(f, "held {peak_bytes} bytes at once, more than its ceiling of {ceiling}")
            }
            Finding::TooSlow { took, reference } => {
                write!(f, "took {took:?}, more than {SLOW_PIECES} pieces of reference work of {reference:?}")
            }
        }
    }
}

/// What came of a trial.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What the decoder said, or what is wrong with it.
    pub outcome: Result<Verdict, Finding>,
    /// What the decode took.
    pub taken: Taken,
    /// How long it took.
    pub time: Duration,
}

/// A decode may take as long as this many pieces of reference work (SHA-256 over 1 MiB).
pub const SLOW_PIECES: u32 = 300;
/// Below this, nobody asks whether it is slow.
const UNSUSPICIOUS: Duration = Duration::from_millis(50);

/// Tries one input.
pub fn attempt(target: &Target, input: &[u8]) -> Trial {
    let mut trial = once(target, input);
    if trial.outcome.is_ok() && trial.time > UNSUSPICIOUS {
        let reference = reference_time();
        // The shortest of three: another process may have had the caches.
        let again = (0..2).map(|_| once(target, input).time).min().unwrap_or_default();
        let took = trial.time.min(again);
        if took > reference * SLOW_PIECES {
            trial.outcome = Err(Finding::TooSlow { took, reference });
        }
    }
    trial
}

fn once(target: &Target, input: &[u8]) -> Trial {
    listen_to_panics();
    let mut probe = Probe::new(&OwnTime);
    IS_TRYING.set(true);
    let caught = catch_unwind(AssertUnwindSafe(|| (target.body)(input, &mut probe)));
    IS_TRYING.set(false);
    let (taken, time) = probe.reading();
    let ceiling = target.ceiling.of(input.len());
    let outcome = match caught {
        Err(_) => Err(Finding::Panicked(LAST_PANIC.take())),
        Ok(_) if taken.peak_bytes > ceiling => {
            Err(Finding::TooMuchMemory { peak_bytes: taken.peak_bytes, ceiling })
        }
        Ok(verdict) => Ok(verdict),
    };
    Trial { outcome, taken, time }
}

fn reference_time() -> Duration {
    let block = vec![0x5a; 1 << 20];
    let from = OwnTime.monotonic();
    std::hint::black_box(Digest::of(std::hint::black_box(&block)));
    OwnTime.monotonic().saturating_sub(from)
}

/// Where a panic happened: what its message begins with.
fn place(message: &str) -> &str {
    message.split_once(": ").map_or(message, |(place, _)| place)
}

thread_local! {
    static IS_TRYING: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the words of a panic under trial instead of printing them; other panics are told as ever.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_TRYING.get() {
                return told(panic);
            }
            let words = panic.payload_as_str().unwrap_or("a panic without words");
            let place = panic.location().map_or_else(String::new, ToString::to_string);
            LAST_PANIC.set(format!("{place}: {words}"));
        }));
    });
}
