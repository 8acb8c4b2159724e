//! Inputs on disk: `fuzz/corpus/<target>/` for what is worth starting from, `fuzz/crashes/<target>/` for what once showed a
//! fault. Both are tried in full by the suite. A found file is named after its SHA-256.

use std::io;
use std::path::{Path, PathBuf};

use sheaf_domain::Digest;

/// The longest found input that is kept on disk, in bytes.
pub const KEPT_LEN_MAX: usize = 2_048;

/// Where the inputs of the workspace lie.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Every committed input of a target, corpus before crashes, by name.
///
/// # Errors
/// Those of reading a directory; one that is not there is empty.
pub fn load(home: &Path, target: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut inputs = Vec::new();
    for part in ["corpus", "crashes"] {
        for path in files(&home.join(part).join(target))? {
            inputs.push(std::fs::read(path)?);
        }
    }
    Ok(inputs)
}

/// Writes an input that shows a fault; its path.
///
/// # Errors
/// Those of writing a file.
pub fn keep_crash(home: &Path, target: &str, input: &[u8]) -> io::Result<PathBuf> {
    keep(&home.join("crashes").join(target), input)
}

/// Writes the shortest `count` of the inputs found; how many were written.
///
/// # Errors
/// Those of writing a file.
pub fn keep_found(home: &Path, target: &str, found: &[Vec<u8>], count: usize) -> io::Result<usize> {
    let mut short: Vec<&Vec<u8>> = found.iter().filter(|input| input.len() <= KEPT_LEN_MAX).collect();
    short.sort_by_key(|input| input.len());
    // Spread over the lengths there are: the shortest alone would be the dullest.
    let stride = short.len().div_ceil(count.max(1)).max(1);
    let mut written = 0;
    for input in short.into_iter().step_by(stride).take(count) {
        keep(&home.join("corpus").join(target), input)?;
        written += 1;
    }
    Ok(written)
}

fn keep(folder: &Path, input: &[u8]) -> io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(Digest::of(input).short());
    std::fs::write(&path, input)?;
    Ok(path)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}
