//! The coordinator's settings, already checked.

use sheaf_domain::{ByteSize, Span};

/// What bounds and paces the coordinator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a participant may show no sign of life before it counts as lost.
    pub liveness: Span,
    /// How often participants are asked to beat.
    pub beat_every: Span,
    /// The longest a request for work is held.
    pub hold_max: Span,
    /// Bytes of uploads in flight, over all participants; a push reserves its length before its body is read.
    pub inflight: ByteSize,
    /// How long a push waits for its share of `inflight` before it is told to come again.
    pub inflight_wait: Span,
    /// Bytes of models on their way out, over all readers; those who read the same stretch share it.
    pub handing_out: ByteSize,
    /// Bytes of tiles a fold holds at once.
    pub fold_budget: ByteSize,
    /// The first wait before a fold that failed for a passing reason is tried again; doubled each time, up to 30 s.
    pub fold_retry: Span,
    /// The largest model a participant's initialiser or an operator may hand in.
    pub init_model_max: ByteSize,
    /// Runs that may go on at once.
    pub running_max: usize,
    /// Participants that may be enrolled or invited.
    pub sites_max: usize,
    /// How long a participant's certificate is valid.
    pub certificate_validity: Span,
    /// How long after its end a certificate may still be renewed.
    pub renewal_grace: Span,
    /// The addresses kits tell participants to dial, `host:port`.
    pub advertised: Vec<String>,
    /// What paces relayed runs.
    pub relay: crate::RelaySettings,
    /// Files copied into a backup beside state and bytes: where from, and under which name.
    pub backup_files: Vec<(std::path::PathBuf, String)>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            liveness: Span::from_secs(60),
            beat_every: Span::from_secs(10),
            hold_max: Span::from_secs(30),
            inflight: ByteSize::from_mib(128),
            inflight_wait: Span::from_secs(20),
            handing_out: ByteSize::from_mib(32),
            fold_budget: ByteSize::from_mib(32),
            fold_retry: Span::from_secs(1),
            init_model_max: ByteSize::from_mib(16 * 1024),
            running_max: 64,
            sites_max: 100_000,
            certificate_validity: Span::from_secs(24 * 3600),
            renewal_grace: Span::from_secs(14 * 24 * 3600),
            advertised: Vec::new(),
            relay: crate::RelaySettings::default(),
            backup_files: Vec::new(),
        }
    }
}
