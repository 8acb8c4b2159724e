//! Measures Sheaf against what the machine allows: loads, physical limits, and the figures of processes.
//!
//! Nothing here decides whether a figure is good. Every limit is a small fixed program that runs beside the load it is
//! compared with, on the same machine in the same run; a figure without its limit says little about the program.
//! Generators are deterministic: the same arguments make the same bytes.

pub mod durability;
mod error;
pub mod fold;
pub mod histogram;
pub mod limits;
pub mod load;
pub mod model;
pub mod piece;
pub mod process;
pub mod spool;

pub use error::Error;
