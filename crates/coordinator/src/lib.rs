//! The service that drives runs: it feeds the engine from the journal and serves every front-end through one [`Handle`].
//!
//! One writer task owns all transitions: it collects what has queued up, applies it to the engines, commits it as one durable
//! transaction, and only then acts and answers. What a caller is told is therefore always durable. It speaks no wire and
//! knows no upstream's words; identities come in established, and every id in a call is checked against its owner here.

mod budget;
mod command;
mod deadlines;
mod error;
mod fold;
mod gate;
mod handle;
mod housekeeping;
mod incidents;
mod logins;
mod membership;
mod models;
mod outbox;
mod pieces;
mod presence;
mod quarantine;
mod recover;
mod registry;
mod relay;
mod replay;
mod service;
mod settings;
mod shared;
mod tasks;
mod tiles;
mod update;
mod vetted;
mod writer;

pub use error::Error;
pub use fold::{Coder, codec_seed};
pub use gate::{METRIC_NAME_LEN_MAX, METRICS_MAX};
pub use handle::{
    AppHost, BLOBS_DIR, BackupReport, Beat, BeatReply, COMPLETE_FILE, Certificate, CreateProgram, CreateRun,
    Delivery, Enrolment, Force, Handle, InviteRequest, ModelRef, Progress, RemovedRun, Room, STATE_FILE,
    SiteOverview, Upload, Which, WorkOrder,
};
pub use logins::{LoginOverview, LoginRequest};
pub use outbox::Withdrawn;
pub use registry::SiteKeyFacts;
pub use relay::{
    Answered, Bring, Claimed, Found, Handed, Intake, KeyCard, KeyFacts, KeyOverview, LogCursor, LogLine,
    NewRelay, OBJECT_LEN_MAX, ObjectReader, Posted, Question, RelayOverview, RelaySettings, Relays, Reply,
    Seat, Token,
};
pub use replay::{ReplayReport, ReplayRound, ReplayVerdict};
pub use service::{Coordinator, Dependencies};
pub use settings::Settings;
pub use update::{UpdateError, UpdateWriter};

/// The most bytes one read of a version returns.
pub const READ_LEN_MAX: u64 = 4 * 1024 * 1024;
/// The longest piece an upload may declare, in bytes.
pub const PIECE_LEN_MAX: u64 = 16 * 1024 * 1024;
/// The most objects one question for missing pieces may name.
pub const MISSING_MAX: usize = 65_536;
