//! Folds: how the updates of a cohort become one set of tensors, one tile of every update at a time.
//!
//! Pure: no files, no clock, no threads, and never all updates at once. A [`Fold`] is made for a [`Rule`] and
//! the weights of a cohort; rules that look at whole updates ([`Fold::needs_prepass`]) are shown every tile
//! once before the first is folded. All sums are f64 in row order (canonical participant order), so the result
//! depends on the set of updates alone: not on arrival, tile length or thread.
//!
//! # Examples
//! ```
//! use sheaf_aggregate::{Fold, Rule, TileSet};
//! use sheaf_tensor::Dtype;
//!
//! let (a, b) = (1.0f32.to_le_bytes(), 4.0f32.to_le_bytes());
//! let fold = Fold::new(Rule::WeightedMean, &[2.0, 1.0])?;
//! let mut out = [0.0];
//! fold.fold(&TileSet { dtype: Dtype::F32, rows: &[&a, &b], base: None }, &mut out)?;
//! assert_eq!(out, [2.0]);
//! # Ok::<(), sheaf_aggregate::Error>(())
//! ```

mod ahead;
mod clip;
mod compatible;
mod error;
mod fold;
mod geometric;
mod key;
mod krum;
mod mean;
mod median;
mod network;
mod rule;
mod squares;
mod staging;
mod tile;
mod trimmed;

pub use error::Error;
pub use fold::Fold;
pub use rule::{Clip, Rule};
pub use tile::{TileSet, tile_len};
