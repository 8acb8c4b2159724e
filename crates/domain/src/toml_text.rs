//! The text of a TOML file before it is parsed: how many tables it can have.
//!
//! Every dot and every opening bracket or brace may begin a table, which takes a thousand times its one byte, and they nest as deep as there are
//! many. So texts with more of them than any file of ours needs are refused unread, wherever the marks stand.

/// The most dots and opening brackets and braces in a text.
pub const TOML_MARKS_MAX: usize = 1024;

/// A text that could have too many tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it has {marks} dots and opening brackets; at most {marks_max} are read, so that its tables stay few"
)]
pub struct TooManyMarks {
    /// How many it has.
    pub marks: usize,
    /// How many it may have.
    pub marks_max: usize,
}

/// Refuses a text that could have too many tables.
///
/// # Errors
/// [`TooManyMarks`].
///
/// # Examples
/// ```
/// assert!(sheaf_domain::check_toml_marks("[run]\nshare = 0.5\n").is_ok());
/// assert!(sheaf_domain::check_toml_marks(&"x = [".repeat(2000)).is_err());
/// ```
pub fn check_toml_marks(text: &str) -> Result<(), TooManyMarks> {
    check_toml_marks_to(text, TOML_MARKS_MAX)
}

/// The same with another bound, for files that are not ours.
///
/// # Errors
/// [`TooManyMarks`].
pub fn check_toml_marks_to(text: &str, marks_max: usize) -> Result<(), TooManyMarks> {
    let marks = text.bytes().filter(|byte| matches!(byte, b'.' | b'[' | b'{')).count();
    if marks > marks_max { Err(TooManyMarks { marks, marks_max }) } else { Ok(()) }
}
