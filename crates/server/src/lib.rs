//! The server: configuration, the data directory, listeners, and the order in which they start and stop.
//!
//! The composition root. It decides nothing about runs; it opens the stores, starts the coordinator, puts every front-end on
//! one TLS port, and takes all of it down again without losing what was acknowledged.

mod arenas;
mod config;
mod data_dir;
mod descriptors;
mod error;
mod flower;
mod health;
mod join;
mod listen;
mod names;
mod openfl;
mod serve;
mod tls;

pub use arenas::bound_arenas;
pub use config::{
    Config, FlowerSection, IdentitySection, Layer, LimitsSection, ListenSection, LogFormat, LogSection,
    LoopbackAddr, Origin, Resolved, ServerAppsMode, StoreSection, TelemetrySection,
};
pub use data_dir::{DATA_FORMAT, DataDir, OPERATOR_DIR, PKI_DIR};
pub use error::Error;
pub use join::JoinListener;
pub use listen::{Listener, serve_connection};
pub use serve::{Ready, Server};
pub use tls::{
    OPERATOR_ADDRESS_FILE, OPERATOR_CA_FILE, OPERATOR_CERTIFICATE_FILE, OPERATOR_KEY_FILE,
    PLAINTEXT_ADDRESS_FILE, init_pki,
};
