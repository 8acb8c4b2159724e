//! A bundle made of an app's directory, with the files that upstream's command would take.
//!
//! Which those are: sources and texts by their endings, without what `.gitignore` names, tests, build products and the directories of
//! tools (`.git`, `.venv` and the like); `fab-include` and `fab-exclude` of the app narrow it. Links are not followed. `[tool.flwr.federations]` stays here. The
//! archive is the same for the same files. Source: `flwr/cli/build.py`, 1.42.0; the bytes differ, and with them the hash.

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::path::Path;

use sheaf_domain::Digest;
use toml::{Table, Value};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::patterns::Patterns;

/// The file that says what the app is.
const PROJECT: &str = "pyproject.toml";
/// How deep files may lie.
const DEPTH_MAX: usize = 10;
/// The most files.
const FILES_MAX: usize = 1000;
/// The longest file, in bytes.
const FILE_LEN_MAX: u64 = 10 * 1024 * 1024;

const INCLUDED: [&str; 8] =
    ["**/*.py", "**/*.toml", "**/*.md", "**/*.yaml", "**/*.yml", "**/*.json", "**/*.jsonl", "/LICENSE"];
const EXCLUDED: [&str; 18] = [
    ".flwr/**",
    "**/__pycache__/**",
    PROJECT,
    "**/*_test.py",
    "**/test_*.py",
    "build/**",
    "eggs/**",
    ".eggs/**",
    "lib/**",
    "lib64/**",
    "parts/**",
    "*.egg",
    ".venv/**",
    "env/**",
    "venv/**",
    "ENV/**",
    "env.bak/**",
    "venv.bak/**",
];

/// Makes the bundle of an app's directory.
///
/// # Errors
/// Why it has none, for people.
pub fn build(dir: &Path) -> Result<Vec<u8>, String> {
    let read = |path: &str| {
        std::fs::read_to_string(dir.join(path)).map_err(|error| format!("{path} cannot be read: {error}"))
    };
    let text = read(PROJECT)?;
    let mut project: Table = text.parse().map_err(|error| format!("{PROJECT} cannot be read: {error}"))?;
    let ignored = read(".gitignore").unwrap_or_default();
    let ignored = Patterns::of(ignored.lines());
    let (wanted, unwanted) = (patterns(&project, "fab-include")?, patterns(&project, "fab-exclude")?);
    let (included, excluded) = (Patterns::of(INCLUDED), Patterns::of(EXCLUDED));
    let mut paths = Vec::new();
    walk(dir, "", 1, &mut paths)?;
    paths.retain(|path| {
        let asked_for = wanted.as_ref().is_none_or(|wanted| wanted.fit(path));
        let ruled_out = unwanted.as_ref().is_some_and(|unwanted| unwanted.fit(path));
        asked_for && !ruled_out && included.fit(path) && !excluded.fit(path) && !ignored.fit(path)
    });
    paths.sort();
    let mut files = vec![(PROJECT.to_owned(), without_federations(&mut project, text)?.into_bytes())];
    for path in paths {
        let file = dir.join(&path);
        let bytes = std::fs::read(&file).map_err(|error| format!("{path} cannot be read: {error}"))?;
        if bytes.len() as u64 > FILE_LEN_MAX {
            return Err(format!("{path} has {} bytes, at most {FILE_LEN_MAX} are taken", bytes.len()));
        }
        files.push((path, bytes));
    }
    archive(&files)
}

/// The text of the project without the addresses of federations.
fn without_federations(project: &mut Table, text: String) -> Result<String, String> {
    let flower = project.get_mut("tool").and_then(|tool| tool.get_mut("flwr")).and_then(Value::as_table_mut);
    match flower.and_then(|flower| flower.remove("federations")) {
        None => Ok(text),
        Some(_) => toml::to_string(project).map_err(|error| format!("{PROJECT} cannot be written: {error}")),
    }
}

fn patterns(project: &Table, key: &str) -> Result<Option<Patterns>, String> {
    let app = ["tool", "flwr", "app"].iter().try_fold(project, |table, key| table.get(*key)?.as_table());
    let Some(list) = app.and_then(|app| app.get(key)) else { return Ok(None) };
    let lines = list.as_array().map(|lines| lines.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    match lines.flatten() {
        Some(lines) if !lines.is_empty() => Ok(Some(Patterns::of(lines))),
        _ => Err(format!("`{key}` in {PROJECT} is no list of patterns")),
    }
}

/// Every file below `dir`, by its path with slashes.
fn walk(dir: &Path, above: &str, depth: usize, paths: &mut Vec<String>) -> Result<(), String> {
    let unread = |error: std::io::Error| format!("{} cannot be read: {error}", dir.display());
    for entry in std::fs::read_dir(dir).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
        let kind = entry.file_type().map_err(unread)?;
        if kind.is_dir() {
            // They hold much and nothing that is taken.
            if [".git", ".venv", ".flwr", "__pycache__", "node_modules"].contains(&name.as_str()) {
                continue;
            }
            if depth == DEPTH_MAX {
                return Err(format!("{path} lies deeper than {DEPTH_MAX} directories"));
            }
            walk(&entry.path(), &path, depth + 1, paths)?;
        } else if kind.is_file() {
            if paths.len() == FILES_MAX * 10 {
                return Err(format!("there are more than {} files", FILES_MAX * 10));
            }
            paths.push(path);
        }
    }
    Ok(())
}

fn archive(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>, String> {
    if files.len() > FILES_MAX {
        return Err(format!("{} files would be taken, at most {FILES_MAX} are", files.len()));
    }
    let unwritten = |error: &dyn std::fmt::Display| format!("the bundle cannot be written: {error}");
    let day = DateTime::from_date_and_time(2024, 10, 1, 0, 0, 0).map_err(|error| unwritten(&error))?;
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(day)
        .unix_permissions(0o600);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut lines = BTreeMap::new();
    for (number, (path, bytes)) in files.iter().enumerate() {
        zip.start_file(path, options).map_err(|error| unwritten(&error))?;
        zip.write_all(bytes).map_err(|error| unwritten(&error))?;
        lines.insert(number, format!("{path},{},{}", Digest::of(bytes), bytes.len() * 8));
    }
    zip.start_file(".info/CONTENT", options).map_err(|error| unwritten(&error))?;
    let content = lines.into_values().collect::<Vec<_>>().join("\n");
    zip.write_all(content.as_bytes()).map_err(|error| unwritten(&error))?;
    Ok(zip.finish().map_err(|error| unwritten(&error))?.into_inner())
}
