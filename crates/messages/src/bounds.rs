//! Every bound of the native protocol, in one place. A receiver refuses what exceeds them.

/// The longest token of an enrolment, in bytes.
pub const TOKEN_LEN_MAX: usize = 256;
/// The longest certificate request, in bytes.
pub const CSR_LEN_MAX: usize = 16 * 1024;
/// The longest certificate chain a reply may carry, in bytes.
pub const CERTIFICATE_LEN_MAX: usize = 64 * 1024;
/// The most tasks in one beat or one wait for work.
pub const TASKS_MAX: usize = 1_024;
/// The longest name and version of a client, in bytes.
pub const CLIENT_LEN_MAX: usize = 128;
/// The most digests one question for missing pieces may name.
pub const DIGESTS_MAX: usize = 65_536;
/// The longest stretch of a version one call reads, in bytes.
pub const READ_LEN_MAX: u64 = 4 * 1024 * 1024;
/// The longest piece, in bytes.
pub const PIECE_LEN_MAX: u64 = 16 * 1024 * 1024;
/// The longest chunk of a piece in one gRPC message, in bytes.
pub const CHUNK_LEN_MAX: usize = 256 * 1024;
/// The longest reason of a failure, in bytes.
pub const REASON_LEN_MAX: usize = 4 * 1024;
/// The most input or output slots of one assignment or submission.
pub const SLOTS_MAX: usize = 64;
/// The most metrics of one submission.
pub const METRICS_MAX: usize = 256;
/// The longest name of a metric or a configuration key, in bytes.
pub const KEY_LEN_MAX: usize = 128;
/// The most values in one list of a configuration, and the most keys of a configuration.
pub const CONFIG_VALUES_MAX: usize = 10_000;
/// The longest text value in a configuration, in bytes.
pub const CONFIG_TEXT_LEN_MAX: usize = 64 * 1024;
/// The deepest nesting of lists in a configuration.
pub const CONFIG_DEPTH_MAX: usize = 8;
/// The largest enrolment request, in bytes: the only body read before its sender is known.
pub const ENROL_BODY_LEN_MAX: usize = 64 * 1024;
/// The largest control message with no list of its own, in bytes.
pub const CONTROL_BODY_LEN_MAX: usize = 1024 * 1024;
/// The largest control message that may list pieces or tensors, in bytes.
pub const LIST_BODY_LEN_MAX: usize = 16 * 1024 * 1024;
/// The most memory the lists of a message may take for each byte of it, in bytes, before it is decoded.
pub const UNFOLD_MAX: usize = 12;
/// Lists that take no more than this many bytes are not held to [`UNFOLD_MAX`].
pub const UNFOLD_EXEMPT_BYTES: usize = 16 * 1024;
/// The deepest nesting of messages.
pub const DEPTH_MAX: usize = 64;
