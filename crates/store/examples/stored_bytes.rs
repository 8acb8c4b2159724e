//! Writes the file of the present format that tests keep and read again: one of everything.
//!
//! `cargo run -p sheaf-store --example stored_bytes -- crates/store/testdata/format-N.sqlite`; it overwrites nothing.

#[expect(clippy::unwrap_used, dead_code, reason = "shared with the tests, which also check what it writes")]
#[path = "../tests/it/sqlite/stored.rs"]
mod stored;

use std::path::PathBuf;

use sheaf_store::{OpenOptions, SqliteStore, StateStore as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("name the file to write")?);
    if path.exists() {
        return Err(format!("{} exists", path.display()).into());
    }
    let store = SqliteStore::open(&path, OpenOptions::default()).await?;
    stored::fill(&store).await;
    let journals = store.journals().await?;
    store.close().await;
    let store = SqliteStore::open(&path, OpenOptions::default()).await?;
    for journal in journals {
        let (seq, hash) = store.head(journal).await?;
        eprintln!("journal {journal}: entry {seq}, hash {hash}");
    }
    store.close().await;
    Ok(())
}
