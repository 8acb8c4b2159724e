//! The file's format: whose it is (`application_id`), which version (`user_version`), and how one version becomes the next.
//!
//! A file that is not ours is never written to. A migration and the version it leads to become durable together.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use super::column::number;
use crate::Error;

/// The mark in the header of a state store's file: `Shef`.
pub const APPLICATION_ID: u32 = 0x5368_6566;

/// The format version this binary writes, and the newest it knows.
pub const FORMAT_VERSION: u32 = 2;

/// The way from one format version to the next, and back.
#[derive(Debug)]
pub(super) struct Migration {
    /// The version it leads to.
    pub(super) version: u32,
    pub(super) up: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the way back is checked, and never taken by a server")
    )]
    pub(super) down: &'static str,
}

/// Every migration, in order.
pub(super) const MIGRATIONS: [Migration; 2] = [
    Migration {
        version: 1,
        up: include_str!("../../../../migrations/sqlite/0001_state.up.sql"),
        down: include_str!("../../../../migrations/sqlite/0001_state.down.sql"),
    },
    Migration {
        version: 2,
        up: include_str!("../../../../migrations/sqlite/0002_site_label.up.sql"),
        down: include_str!("../../../../migrations/sqlite/0002_site_label.down.sql"),
    },
];

/// The format version of the file at `path`; 0 for one without content. The file is not changed.
pub(super) async fn inspect(options: &SqliteConnectOptions, path: &Path) -> Result<u32, Error> {
    let foreign = |found: String| Error::Foreign { path: path.to_owned(), found };
    let not_a_database = |error: sqlx::Error| match error.as_database_error().and_then(|error| error.code()) {
        Some(code) if code == SQLITE_NOTADB => foreign("it is not a database".to_owned()),
        _ => error.into(),
    };
    let mut connection = options.connect().await.map_err(not_a_database)?;
    let header = read_header(&mut connection).await.map_err(not_a_database);
    connection.close().await?;
    match header? {
        Header { application_id: 0, version: 0, num_tables: 0 } => Ok(0),
        Header { application_id: 0, .. } => Err(foreign("it is a database without our mark".to_owned())),
        Header { application_id, version, .. } if application_id == i64::from(APPLICATION_ID) => {
            let version =
                u32::try_from(version).map_err(|_| foreign("its version is negative".to_owned()))?;
            if version > FORMAT_VERSION {
                return Err(Error::Newer {
                    path: path.to_owned(),
                    found: version,
                    supported: FORMAT_VERSION,
                });
            }
            Ok(version)
        }
        Header { application_id, .. } => {
            Err(foreign(format!("it is a database with the mark {application_id:#010x}")))
        }
    }
}

/// Takes the file from version `found` through each later migration, all in one transaction.
pub(super) async fn migrate(
    connection: &mut SqliteConnection,
    found: u32,
    migrations: &[Migration],
) -> Result<(), Error> {
    let missing: Vec<&Migration> = migrations.iter().filter(|migration| migration.version > found).collect();
    let Some(last) = missing.last() else {
        return Ok(());
    };
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for migration in &missing {
        tracing::info!(version = migration.version, "bringing the state store to a newer format");
        sqlx::raw_sql(migration.up).execute(&mut *transaction).await?;
    }
    // A pragma takes no parameters; both values are numbers of ours.
    let mark = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {};", last.version);
    sqlx::raw_sql(AssertSqlSafe(mark)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

#[derive(Debug)]
struct Header {
    application_id: i64,
    version: i64,
    num_tables: u64,
}

async fn read_header(connection: &mut SqliteConnection) -> Result<Header, sqlx::Error> {
    let application_id =
        sqlx::query("PRAGMA application_id").fetch_one(&mut *connection).await?.try_get(0)?;
    let version = sqlx::query("PRAGMA user_version").fetch_one(&mut *connection).await?.try_get(0)?;
    let row = sqlx::query("SELECT COUNT(*) AS num_tables FROM sqlite_master").fetch_one(connection).await?;
    let num_tables = number(&row, "num_tables").unwrap_or(u64::MAX);
    Ok(Header { application_id, version, num_tables })
}

const SQLITE_NOTADB: &str = "26";

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: Migration = Migration {
        version: 3,
        up: "CREATE TABLE notes (note TEXT NOT NULL); INSERT INTO notes VALUES ('kept');",
        down: "DROP TABLE notes;",
    };

    async fn in_memory() -> SqliteConnection {
        SqliteConnectOptions::new().in_memory(true).connect().await.unwrap()
    }

    async fn header(connection: &mut SqliteConnection) -> (i64, i64, u64) {
        let header = read_header(connection).await.unwrap();
        (header.application_id, header.version, header.num_tables)
    }

    #[tokio::test]
    async fn the_last_migration_leads_to_the_version_written() {
        assert_eq!(MIGRATIONS.last().map(|migration| migration.version), Some(FORMAT_VERSION));
        assert!(MIGRATIONS.iter().zip(1..).all(|(migration, version)| migration.version == version));
    }

    #[tokio::test]
    async fn an_older_format_is_brought_forward_by_what_it_lacks() {
        let mut connection = in_memory().await;
        migrate(&mut connection, 0, &MIGRATIONS).await.unwrap();
        let (mark, version, num_tables) = header(&mut connection).await;
        assert_eq!((mark, version), (i64::from(APPLICATION_ID), 2));
        let [first, second] = MIGRATIONS;
        migrate(&mut connection, 2, &[first, second, NEXT]).await.unwrap();
        assert_eq!(header(&mut connection).await, (mark, 3, num_tables + 1));
    }

    #[tokio::test]
    async fn a_migration_that_fails_changes_nothing() {
        let mut connection = in_memory().await;
        let broken = Migration { version: 4, up: "CREATE TABLE more (id BIGINT); CREATE TABLE (;", down: "" };
        let [first, second] = MIGRATIONS;
        assert!(migrate(&mut connection, 0, &[first, second, NEXT, broken]).await.is_err());
        assert_eq!(header(&mut connection).await, (0, 0, 0));
    }

    #[tokio::test]
    async fn each_migration_can_be_taken_back() {
        let mut connection = in_memory().await;
        migrate(&mut connection, 0, &MIGRATIONS).await.unwrap();
        for migration in MIGRATIONS.iter().rev() {
            sqlx::raw_sql(migration.down).execute(&mut connection).await.unwrap();
        }
        let query = "SELECT COUNT(*) AS num FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'";
        let row = sqlx::query(query).fetch_one(&mut connection).await.unwrap();
        assert_eq!(number(&row, "num").unwrap(), 0);
    }
}
