//! Columns into values and back. What does not fit is damage, never a panic.

use sheaf_domain::{Digest, Role, SiteName, Timestamp};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::Error;

pub(super) fn text(row: &SqliteRow, column: &'static str) -> Result<String, Error> {
    row.try_get(column).map_err(|error| Error::damaged(column, error))
}

pub(super) fn optional_text(row: &SqliteRow, column: &'static str) -> Result<Option<String>, Error> {
    row.try_get(column).map_err(|error| Error::damaged(column, error))
}

pub(super) fn bytes(row: &SqliteRow, column: &'static str) -> Result<Vec<u8>, Error> {
    row.try_get(column).map_err(|error| Error::damaged(column, error))
}

pub(super) fn flag(row: &SqliteRow, column: &'static str) -> Result<bool, Error> {
    row.try_get(column).map_err(|error| Error::damaged(column, error))
}

pub(super) fn number(row: &SqliteRow, column: &'static str) -> Result<u64, Error> {
    optional_number(row, column)?.ok_or_else(|| Error::damaged(column, "it is missing"))
}

pub(super) fn optional_number(row: &SqliteRow, column: &'static str) -> Result<Option<u64>, Error> {
    let number: Option<i64> = row.try_get(column).map_err(|error| Error::damaged(column, error))?;
    number.map(u64::try_from).transpose().map_err(|_| Error::damaged(column, "it is negative"))
}

pub(super) fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, Error> {
    number(row, column).map(Timestamp::from_millis)
}

pub(super) fn optional_time(row: &SqliteRow, column: &'static str) -> Result<Option<Timestamp>, Error> {
    Ok(optional_number(row, column)?.map(Timestamp::from_millis))
}

pub(super) fn digest(row: &SqliteRow, column: &'static str) -> Result<Digest, Error> {
    optional_digest(row, column)?.ok_or_else(|| Error::damaged(column, "it is missing"))
}

pub(super) fn optional_digest(row: &SqliteRow, column: &'static str) -> Result<Option<Digest>, Error> {
    let bytes: Option<Vec<u8>> = row.try_get(column).map_err(|error| Error::damaged(column, error))?;
    bytes
        .map(|bytes| <[u8; 32]>::try_from(bytes).map(Digest::from_bytes))
        .transpose()
        .map_err(|_| Error::damaged(column, "it is not 32 bytes long"))
}

pub(super) fn site_name(row: &SqliteRow, column: &'static str) -> Result<SiteName, Error> {
    parsed(row, column)
}

pub(super) fn role(row: &SqliteRow, column: &'static str) -> Result<Role, Error> {
    let name = text(row, column)?;
    [Role::Participant, Role::Operator]
        .into_iter()
        .find(|role| role.name() == name)
        .ok_or_else(|| Error::damaged(column, format!("{name:?} is no role")))
}

pub(super) fn parsed<T>(row: &SqliteRow, column: &'static str) -> Result<T, Error>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text(row, column)?.parse().map_err(|error| Error::damaged(column, error))
}

/// A number as a database keeps it; one that it cannot keep is a bound broken by the caller.
pub(super) fn signed(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::InvalidArgument(format!("{number} is out of range")))
}

/// An instant as a database keeps it.
pub(super) fn millis(at: Timestamp) -> Result<i64, Error> {
    signed(at.as_millis())
}

/// An instant to compare with: one beyond what a database keeps is as good as the last it does.
pub(super) fn millis_at_most(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn hash(digest: &Digest) -> &[u8] {
    digest.as_bytes().as_slice()
}
