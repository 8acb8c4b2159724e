//! Strategies: which fold a plan's rule is, and how a folded value becomes the next version of a model.
//!
//! Pure arithmetic on f64 slices: no tensors are held here, no state is kept between calls. What an optimiser
//! remembers from round to round (its moments) is a lineage of the run, handed in and out by the caller.

mod error;
mod optimiser;
mod rule;

pub use error::Error;
pub use optimiser::ServerOptimiser;
pub use rule::fold_rule;
