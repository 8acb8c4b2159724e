//! The text files of the working tree: everything but build output, environments and what is not UTF-8.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Files larger than this are data, not text that people write.
const BYTES_MAX: u64 = 2 * 1024 * 1024;

/// One text file of the project.
#[derive(Debug, Clone)]
pub(crate) struct TextFile {
    /// Relative to the workspace, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The folder under `crates/` it belongs to, if any.
    pub(crate) fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }
}

/// Reads every text file below `root`, sorted by path.
pub(crate) fn read_all(root: &Path) -> anyhow::Result<Vec<TextFile>> {
    let mut found = Vec::new();
    visit(root, root, &mut found)?;
    found.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

fn visit(root: &Path, folder: &Path, found: &mut Vec<TextFile>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let kind = entry.file_type().with_context(|| format!("cannot read {}", entry.path().display()))?;
        if kind.is_dir() && !is_skipped(&entry.file_name().to_string_lossy()) {
            visit(root, &entry.path(), found)?;
        } else if kind.is_file() {
            found.extend(read(root, entry.path())?);
        }
    }
    Ok(())
}

/// Folders that the project does not keep.
fn is_skipped(name: &str) -> bool {
    matches!(name, ".git" | "target" | "__pycache__" | "node_modules") || name.starts_with(".venv")
}

fn read(root: &Path, path: PathBuf) -> anyhow::Result<Option<TextFile>> {
    let told = || format!("cannot read {}", path.display());
    if fs::metadata(&path).with_context(told)?.len() > BYTES_MAX {
        return Ok(None);
    }
    let bytes = fs::read(&path).with_context(told)?;
    let relative = path.strip_prefix(root).unwrap_or(&path);
    let relative = relative.to_string_lossy().replace('\\', "/");
    Ok(String::from_utf8(bytes).ok().map(|text| TextFile { path: relative, text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_knows_its_crate() {
        let file = |path: &str| TextFile { path: path.to_owned(), text: String::new() };
        assert_eq!(file("crates/blob/src/lib.rs").crate_name(), Some("blob"));
        assert_eq!(file("docs/plan.md").crate_name(), None);
        assert!(file("crates/blob/src/lib.rs").is_rust());
    }

    #[test]
    fn this_crate_is_found_and_build_output_is_not_entered() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = read_all(root).unwrap();
        assert!(files.iter().any(|file| file.path == "src/files.rs"));
        assert!(is_skipped("target") && is_skipped(".venv-3.11") && !is_skipped("src"));
    }
}
