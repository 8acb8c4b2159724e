//! The state stores as their callers see them: the suite for each, that they agree, and what a file must survive.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do the functions its cases share")]

mod agreement;
mod memory;
mod sqlite;
