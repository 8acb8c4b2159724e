//! Settings in SQL.

use sqlx::SqliteConnection;

use super::column::text;
use crate::Error;

pub(super) async fn get(connection: &mut SqliteConnection, key: &str) -> Result<Option<String>, Error> {
    let row =
        sqlx::query("SELECT value FROM settings WHERE key = $1").bind(key).fetch_optional(connection).await?;
    row.map(|row| text(&row, "value")).transpose()
}

pub(super) async fn put(
    connection: &mut SqliteConnection,
    (key, value): &(String, String),
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(key)
    .bind(value)
    .execute(connection)
    .await?;
    Ok(())
}
