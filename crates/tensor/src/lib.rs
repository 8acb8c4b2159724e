//! Tensors as views over shared bytes, sets of them, and the containers they travel in.
//!
//! Pure: no files, no clock, no threads. Containers are decoded without copying tensor bytes where the
//! format allows it, and every length, shape and name in them is checked before it is believed. Pickled
//! (object) arrays are refused: there is no unpickler here.

pub mod cpu;
mod dtype;
pub mod element;
mod error;
pub mod npy;
pub mod npz;
pub mod raw;
pub mod safetensors;
mod shape;
mod tensor;

pub use dtype::Dtype;
pub use error::Error;
pub use shape::{NAME_LEN_MAX, RANK_MAX, Shape, TensorSpec};
pub use tensor::{ParamSet, Tensor};
