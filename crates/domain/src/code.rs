//! Codes of the failures that an operator sees: every one there is, each with a page `docs/errors/SHEAF-NNN.md`.
//!
//! A code stands in brackets at the end of the error's text and never changes its meaning. `cargo xtask tidy` holds this list
//! against the pages, and allows no code that is written anywhere else.

/// The port is taken.
pub const PORT_IN_USE: &str = "SHEAF-001";
/// Another server has the data directory.
pub const DATA_DIR_LOCKED: &str = "SHEAF-002";
/// The data was written in a format this program does not read.
pub const FOREIGN_FORMAT: &str = "SHEAF-003";
/// The data directory was in use and has lost a part.
pub const DATA_DIR_INCOMPLETE: &str = "SHEAF-004";
/// The bytes of models and updates have reached their limit.
pub const STORE_FULL: &str = "SHEAF-005";
/// No space is left on the disk of the data directory.
pub const DISK_FULL: &str = "SHEAF-006";
/// A run is set aside: its journal cannot be followed.
pub const JOURNAL_BROKEN: &str = "SHEAF-007";
/// A request came with a certificate whose time is over.
pub const CERTIFICATE_ENDED: &str = "SHEAF-008";
/// A site that was shut out tried to come in.
pub const SITE_REVOKED: &str = "SHEAF-009";
/// A token was used twice, with two keys.
pub const TOKEN_REUSED: &str = "SHEAF-010";
/// A kit was used after its time.
pub const TOKEN_EXPIRED: &str = "SHEAF-011";
/// A plan cannot be carried out as it stands.
pub const PLAN_REFUSED: &str = "SHEAF-012";
/// Nothing would keep a program that is to be started from our keys.
pub const NO_WALLS: &str = "SHEAF-013";
/// The walls around a program would leave open what is hidden from it.
pub const WALLS_OPEN: &str = "SHEAF-014";
/// A program could not be started.
pub const PROGRAM_NOT_STARTED: &str = "SHEAF-015";
