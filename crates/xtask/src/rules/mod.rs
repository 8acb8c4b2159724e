//! The house rules, one file per sort of thing they are about. Each is a function from files to a report.

pub(crate) mod catalogue;
pub(crate) mod manifest;
pub(crate) mod source;
pub(crate) mod text;
