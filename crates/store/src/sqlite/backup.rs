//! Copies of the live file: `VACUUM INTO` a partial file, then its bytes, its name and the directory made durable.
//!
//! The copy is a store of the same format, as of one moment. A file that exists is never overwritten; a partial one left
//! by a crash is.

use std::io;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::fs;

use crate::Error;

/// Copies the store at `from` to a new file `to`.
pub(super) async fn copy(from: PathBuf, to: PathBuf) -> Result<(), Error> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    if fs::try_exists(&to).await.map_err(refused(&to))? {
        return Err(refused(&to)(io::ErrorKind::AlreadyExists.into()));
    }
    let partial = partial_of(&to)?;
    match fs::remove_file(&partial).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(&partial)(error)),
        _ => {}
    }
    vacuum_into(&from, &partial).await?;
    fs::File::open(&partial).await.map_err(refused(&partial))?.sync_all().await.map_err(refused(&partial))?;
    fs::rename(&partial, &to).await.map_err(refused(&to))?;
    sync_directory_of(&to).await
}

/// Makes the names in the directory of `path` durable.
pub(super) async fn sync_directory_of(path: &Path) -> Result<(), Error> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let refused = |source| Error::Io { path: directory.to_owned(), source };
    fs::File::open(directory).await.map_err(refused)?.sync_all().await.map_err(refused)
}

fn partial_of(to: &Path) -> Result<PathBuf, Error> {
    let name = to.file_name().and_then(|name| name.to_str()).ok_or_else(|| Error::Io {
        path: to.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "it does not end in a file name"),
    })?;
    Ok(to.with_file_name(format!(".{name}.partial")))
}

async fn vacuum_into(from: &Path, to: &Path) -> Result<(), Error> {
    let target = to.to_str().ok_or_else(|| Error::Io {
        path: to.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "it is not valid UTF-8"),
    })?;
    let options = SqliteConnectOptions::new().filename(from).disable_statement_logging();
    let mut connection = options.connect().await?;
    let copied = sqlx::query("VACUUM INTO $1").bind(target).execute(&mut connection).await;
    connection.close().await?;
    copied?;
    Ok(())
}
