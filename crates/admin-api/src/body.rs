//! The JSON bodies of the API, shared with the command line. Unknown fields in requests are refused.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sheaf_domain::{Digest, JournalEntry, Manifest, RunId, SiteName, Span, Timestamp, VersionRef};
use sheaf_tensor::TensorSpec;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What failed.
    pub error: ErrorDetail,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// What sort of failure it is, such as `not_found`.
    pub kind: String,
    /// One sentence for people.
    pub message: String,
    /// When to try again, in milliseconds, where that makes sense.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
}

/// A plan to check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// The plan as TOML.
    pub plan: String,
}

/// What a plan would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// For people, on several lines.
    pub summary: String,
    /// What the plan would wait for with the participants present now, if for anything.
    pub waits: Vec<String>,
}

/// A run to create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRunBody {
    /// The plan as TOML.
    pub plan: String,
    /// The first model, if the plan names a file; its pieces were uploaded before.
    #[serde(default)]
    pub init: Option<Manifest>,
    /// The name they were uploaded under.
    #[serde(default)]
    pub upload: Option<String>,
    /// The bundle of the app, if the plan names one; it was uploaded before, under the same name.
    #[serde(default)]
    pub app: Option<Digest>,
    /// The run to start from instead: id, beginning of an id, or name.
    #[serde(default)]
    pub from: Option<String>,
}

/// A run that was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedRun {
    /// The run.
    pub run: RunId,
}

/// A reason, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    /// The reason.
    #[serde(default)]
    pub reason: String,
}

/// Rounds to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendBody {
    /// How many.
    pub rounds: u32,
}

/// How a run is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveBody {
    /// Whether a run that goes on is stopped first, and one that is set aside goes as it is.
    #[serde(default)]
    pub force: bool,
}

/// Entries of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalBody {
    /// The entries, oldest first.
    pub entries: Vec<JournalEntry>,
}

/// The signed end of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadBody {
    /// The journal: a run's id or `federation`.
    pub journal: String,
    /// The number of its last entry.
    pub seq: u64,
    /// That entry's hash.
    pub hash: Digest,
    /// The signature, in hexadecimal digits.
    pub signature: String,
    /// When it was signed.
    pub at: Timestamp,
    /// The public key it verifies with, as PEM.
    pub public_key: String,
}

/// A model of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelBody {
    /// Its version.
    pub version: VersionRef,
    /// Its digest.
    pub digest: Digest,
    /// Its tensors, in order.
    pub tensors: Vec<TensorSpec>,
    /// The length of all their bytes.
    pub bytes: u64,
}

/// A site to invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteBody {
    /// Its name.
    pub site: SiteName,
    /// How long the token may be used.
    pub ttl: Span,
    /// Whether an operator has to compare the key's fingerprint.
    #[serde(default)]
    pub approve: bool,
}

/// A kit for a site; it holds a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitBody {
    /// The kit as TOML.
    pub kit: String,
}

/// A site to let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveBody {
    /// The fingerprint of its key, as the site reads it out.
    pub fingerprint: Digest,
}

/// A login to approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginBody {
    /// What to call the operator.
    pub name: SiteName,
    /// How long the login lasts.
    pub validity: Span,
}

/// A backup to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupBody {
    /// The directory to make on the server's machine.
    pub dir: PathBuf,
}
