//! What an operator sees of a running process: logs, metrics, health.
//!
//! Refuses to record a metric that is not in [`names`], and more than [`SERIES_MAX`] label sets of one that is:
//! memory stays bounded whatever labels are built from. Opens no socket; the routes belong to the front-ends.
//! Nothing here reads a configuration value that may be secret, and callers never pass one.

mod bounded;
mod error;
mod health;
mod log;
mod metrics;
pub mod names;

pub use bounded::SERIES_MAX;
pub use error::Error;
pub use health::{CheckState, Health, HealthReport, REASON_CHARS_MAX};
pub use log::{LogFormat, LogOptions, init};
pub use metrics::Metrics;
