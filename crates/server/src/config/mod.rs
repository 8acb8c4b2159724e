//! Configuration: defaults < file < environment < flags. Unknown keys are errors that name where they stand.
//!
//! [`Config`] is what the server runs by, already checked; [`Resolved`] also knows where each value came from.

mod flower;
mod identity;
mod layer;
mod limits;
mod listen;
mod log;
mod loopback;
mod store;
mod telemetry;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use flower::{FlowerSection, ServerAppsMode};
pub use identity::IdentitySection;
pub use layer::{Layer, Origin, Resolved};
pub use limits::LimitsSection;
pub use listen::ListenSection;
pub use log::{LogFormat, LogSection};
pub use loopback::LoopbackAddr;
pub use store::StoreSection;
pub use telemetry::TelemetrySection;

/// A server's configuration. The default is a working single-node server on loopback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where participants and operators connect.
    pub listen: ListenSection,
    /// Where state and bytes are kept, and how many.
    pub store: StoreSection,
    /// Names, certificates, invitations.
    pub identity: IdentitySection,
    /// Bounds.
    pub limits: LimitsSection,
    /// Logs.
    pub log: LogSection,
    /// Metrics and health.
    pub telemetry: TelemetrySection,
    /// Flower's SuperNodes, ServerApps and command line.
    pub flower: FlowerSection,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("sheaf-data"),
            listen: ListenSection::default(),
            store: StoreSection::default(),
            identity: IdentitySection::default(),
            limits: LimitsSection::default(),
            log: LogSection::default(),
            telemetry: TelemetrySection::default(),
            flower: FlowerSection::default(),
        }
    }
}
