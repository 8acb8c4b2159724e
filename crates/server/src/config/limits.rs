//! `[limits]`: what the server holds at once.

use serde::{Deserialize, Serialize};
use sheaf_domain::{ByteSize, Span};

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Bytes of uploads in flight, over all participants.
    pub inflight: ByteSize,
    /// Bytes of models on their way out, over all readers; those who read the same stretch share it.
    pub handing_out: ByteSize,
    /// Bytes of tiles a fold holds.
    pub fold: ByteSize,
    /// How long a participant may make no progress before it counts as lost.
    pub liveness: Span,
    /// How often participants beat.
    pub beat_every: Span,
    /// The longest a request for work is held.
    pub hold_max: Span,
    /// Runs that may go on at once.
    pub running_max: usize,
    /// Sites that may be enrolled.
    pub sites_max: usize,
}

impl Default for LimitsSection {
    fn default() -> LimitsSection {
        LimitsSection {
            inflight: ByteSize::from_mib(128),
            handing_out: ByteSize::from_mib(32),
            fold: ByteSize::from_mib(32),
            liveness: Span::from_secs(60),
            beat_every: Span::from_secs(10),
            hold_max: Span::from_secs(30),
            running_max: 64,
            sites_max: 100_000,
        }
    }
}
