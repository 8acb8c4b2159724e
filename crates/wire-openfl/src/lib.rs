//! The OpenFL front-end: what stock collaborators say, in our words.
//!
//! Translates and nothing else. The words of the stack (plan, task, tensor key, pipeline) live here and nowhere below.
//!
//! Source: observed with openfl 1.9.

pub mod fields;
pub mod header;
pub mod metrics_log;
pub mod plan;
pub mod proto;
pub mod results;
pub mod state;
pub mod tensors;
