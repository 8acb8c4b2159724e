//! Small models written by hand: softmax regression and a multilayer perceptron with one hidden layer, trained by SGD.
//!
//! Plain slices, f64 inside; parameters come and go as f32. The order of every sum is fixed in the source, so one binary
//! gives the same bits for the same data and seed. Gradients are checked against finite differences.

mod error;
mod kernel;
mod network;
mod sgd;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use network::{Network, Score};
pub use sgd::Sgd;
