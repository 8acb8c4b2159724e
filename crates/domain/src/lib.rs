//! The nouns of a federation: identifiers, plans, stages, assignments, submissions, manifests, waits.
//!
//! Pure facts: no bytes of models, no clock, no I/O. Randomness is a seed handed in. Everything a peer or a
//! file may bring into being is checked on construction, so that a value of these types can be believed.

mod assignment;
pub mod code;
mod config;
mod digest;
mod error;
mod id;
mod identity;
mod journal;
mod mail;
mod manifest;
pub mod plan;
mod quantity;
pub mod rng;
mod stage;
mod status;
mod toml_text;

pub use assignment::{
    Assignment, InputSlot, Metrics, Outcome, OutputSlot, Refusal, SlotRole, Submission, SubmitOutcome,
    SubmittedSlot,
};
pub use config::{ConfigMap, ConfigValue};
pub use digest::{Digest, Hasher, ModelHasher};
pub use error::{Error, ErrorKind};
pub use id::{LineageName, RunId, SiteName, SlotName, StageName, TaskId, VersionRef};
pub use identity::{Identity, Role};
pub use journal::{ChainError, EntryDraft, GENESIS, JournalEntry, JournalId};
pub use mail::{Mail, MailDraft, MailId, Principal};
pub use manifest::{ByteSpan, Codec, Manifest, ManifestTensor, PIECE_LEN_DEFAULT, Segment};
pub use quantity::{ByteSize, Span, Timestamp};
pub use stage::{
    AdaptiveKind, Arithmetic, ClipBound, CloseRule, FoldRule, GradientOptimiser, Judge, Program, Selector,
    ServerStep, StageFold, StageInput, StageOutput, StageSpec, StageStart, Weight,
};
pub use status::{Missing, RoundRecord, RunPhase, RunStatus, SiteStatus, Wait};
pub use toml_text::{TOML_MARKS_MAX, TooManyMarks, check_toml_marks, check_toml_marks_to};
