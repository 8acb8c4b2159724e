//! Files of our format, of a newer one, and of somebody else.

use std::path::Path;

use sheaf_domain::ErrorKind;
use sheaf_store::{APPLICATION_ID, Error, FORMAT_VERSION, OpenOptions, SqliteStore, StateStore};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use super::{open, path_in, stored};

/// Where SQLite's file header keeps a program's own version, and the program's mark; 4 bytes each, big-endian.
const USER_VERSION: usize = 60;
const APPLICATION_MARK: usize = 68;

async fn refusal(path: &Path) -> Error {
    SqliteStore::open(path, OpenOptions::default()).await.unwrap_err()
}

async fn closed_store(path: &Path) -> Vec<u8> {
    let store = open(path).await;
    store.put_setting("instance", "one").await.unwrap();
    store.close().await;
    std::fs::read(path).unwrap()
}

fn with_header(bytes: &[u8], offset: usize, value: u32) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed.splice(offset..offset + 4, value.to_be_bytes());
    changed
}

#[tokio::test]
async fn a_store_carries_its_mark_and_version() {
    let dir = TempDir::new().unwrap();
    let bytes = closed_store(&path_in(&dir)).await;
    assert_eq!(bytes, with_header(&bytes, USER_VERSION, FORMAT_VERSION));
    assert_eq!(bytes, with_header(&bytes, APPLICATION_MARK, APPLICATION_ID));
}

#[tokio::test]
async fn a_newer_format_is_refused_with_both_versions_and_a_remedy() {
    let dir = TempDir::new().unwrap();
    let path = path_in(&dir);
    let newer = with_header(&closed_store(&path).await, USER_VERSION, FORMAT_VERSION + 1);
    std::fs::write(&path, &newer).unwrap();
    let refused = refusal(&path).await;
    let (found, supported) = (FORMAT_VERSION + 1, FORMAT_VERSION);
    assert!(
        matches!(refused, Error::Newer { found: of, supported: knows, .. } if (of, knows) == (found, supported))
    );
    let text = refused.to_string();
    let versions = format!("written by a newer sheaf (format {found}, this binary knows up to {supported})");
    assert!(text.contains(&versions), "{text}");
    assert!(text.contains("`sheaf serve`") && text.contains("`sheaf restore`"), "{text}");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_eq!(std::fs::read(&path).unwrap(), newer);
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = path_in(&dir);
    let ours = closed_store(&path).await;
    let cases = [
        (with_header(&ours, APPLICATION_MARK, 0x1234_5678), "the mark 0x12345678"),
        (with_header(&ours, APPLICATION_MARK, 0), "a database without our mark"),
        (with_header(&ours, USER_VERSION, u32::MAX), "its version is negative"),
        (b"[run]\nname = \"digits\"\n".repeat(100), "it is not a database"),
        (b"short".to_vec(), "it is not a database"),
    ];
    for (bytes, why) in cases {
        std::fs::write(&path, &bytes).unwrap();
        let refused = refusal(&path).await;
        assert!(matches!(refused, Error::Foreign { .. }), "{why}: {refused:?}");
        assert!(refused.to_string().contains(why), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{why}");
    }
}

#[tokio::test]
async fn a_database_with_tables_of_somebody_else_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = path_in(&dir);
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE theirs (id BIGINT)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert!(matches!(refusal(&path).await, Error::Foreign { .. }));
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let dir = TempDir::new().unwrap();
    std::fs::write(path_in(&dir), b"").unwrap();
    closed_store(&path_in(&dir)).await;
    let again = open(&path_in(&dir)).await;
    assert_eq!(again.setting("instance").await.unwrap().as_deref(), Some("one"));
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_a_clear_error() {
    let dir = TempDir::new().unwrap();
    let refused = refusal(&dir.path().join("no-directory/state.sqlite")).await;
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_stored_bytes_of_format_1_are_read() {
    let dir = TempDir::new().unwrap();
    let bytes = include_bytes!("../../../testdata/format-1.sqlite");
    std::fs::write(path_in(&dir), bytes).unwrap();
    let store = open(&path_in(&dir)).await;
    stored::check(&store).await;
    store.close().await;
}

#[tokio::test]
async fn what_the_stored_bytes_hold_can_still_be_written() {
    let dir = TempDir::new().unwrap();
    let store = open(&path_in(&dir)).await;
    stored::fill(&store).await;
    stored::check(&store).await;
    store.close().await;
}
