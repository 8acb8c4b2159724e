//! What people and tools see on standard output.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use sheaf_domain::{Span, Timestamp};

/// Prints a value as one JSON document on one line.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?);
    Ok(())
}

/// Prints a line.
pub(crate) fn line(text: impl std::fmt::Display) {
    self::text(&format!("{text}\n"));
}

/// Prints text that brings its own line ends.
pub(crate) fn text(text: &str) {
    let written = std::io::stdout().write_all(text.as_bytes());
    if written.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        // Whoever reads has seen enough, as `head` does.
        std::process::exit(0);
    }
}

/// Prints rows under a head.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(|cell| cell.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for row in table.lines() {
        // Without frames the first column's padding and the last one's are only in the way.
        line(row.strip_prefix(' ').unwrap_or(&row).trim_end());
    }
}

/// Bytes for people, such as `1.2 MB`.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match units.into_iter().find(|(_, size)| bytes as f64 >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes as f64 / size),
        None => format!("{bytes} B"),
    }
}

/// How long before `now` an instant was, such as `3m ago`.
pub(crate) fn ago(now: Timestamp, at: Timestamp) -> String {
    format!("{} ago", rough(now.since(at)))
}

/// A length of time with one unit.
pub(crate) fn rough(span: Span) -> String {
    let secs = span.as_millis() / 1000;
    match secs {
        0..=119 => format!("{secs}s"),
        120..=7199 => format!("{}m", secs / 60),
        7200..=172_799 => format!("{}h", secs / 3600),
        _ => format!("{}d", secs / 86_400),
    }
}

/// An instant as UTC, such as `2026-11-21 07:12:46`.
pub(crate) fn utc(at: Timestamp) -> String {
    let secs = i64::try_from(at.as_millis() / 1000).unwrap_or(i64::MAX);
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    time::OffsetDateTime::from_unix_timestamp(secs)
        .ok()
        .and_then(|instant| instant.format(format).ok())
        .unwrap_or_else(|| format!("{} ms", at.as_millis()))
}
