//! What a process needs to run: a clock, entropy, scopes for tasks, a pool for computation, an order of shutdown.
//!
//! The only crate that reads the clock, draws randomness, or spawns.

pub mod crash;

mod clock;
mod compute;
mod entropy;
mod scope;
mod shutdown;

pub use clock::{Clock, ManualClock, SystemClock};
pub use compute::{Compute, ComputeError};
pub use entropy::{Entropy, EntropyError, OsEntropy, SeededEntropy};
pub use scope::TaskScope;
pub use shutdown::{EXIT_SECOND_SIGNAL, Shutdown, ShutdownPhase, on_signals};
