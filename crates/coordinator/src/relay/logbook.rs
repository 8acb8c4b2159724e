//! The log of a relayed run's application: lines with the time they came, appended to a file, read by whoever follows it.
//!
//! What was written outlives this process but not the machine: a log is not worth a sync a line. It has an end: what comes beyond its bound
//! is dropped, and its last line says so.

use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use sheaf_domain::{RunId, Timestamp};
use tokio::sync::watch;

use super::Relays;
use crate::Error;
use crate::outbox::lock;

/// The most lines one read returns.
const LINES_MAX: usize = 1024;
/// The longest line read back, in bytes.
const LINE_LEN_MAX: u64 = 1 << 20;
/// The longest text kept as one line, in bytes.
const TEXT_LEN_MAX: usize = 64 * 1024;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it came; later lines have later times.
    pub at: Timestamp,
    /// The text, as it came.
    pub text: String,
}

/// Where somebody has read to.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogCursor {
    offset: u64,
    after: Timestamp,
}

impl LogCursor {
    /// Begins with the first line after `after`.
    pub fn after(after: Timestamp) -> LogCursor {
        LogCursor { offset: 0, after }
    }
}

/// The log of one run.
#[derive(Debug)]
pub(super) struct Logbook {
    path: Option<PathBuf>,
    len_max: u64,
    end: Mutex<End>,
    grown: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct End {
    len: u64,
    last: Timestamp,
    full: bool,
}

impl Logbook {
    pub(super) fn new(path: Option<PathBuf>, len_max: u64) -> Logbook {
        let len = path.as_ref().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |found| found.len());
        let end = End { len, full: len >= len_max, ..End::default() };
        Logbook { path, len_max, end: Mutex::new(end), grown: watch::Sender::new(0) }
    }

    /// Removes the file, and with it the lines.
    pub(super) fn remove(&self) {
        let Some(path) = &self.path else { return };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a log could not be removed");
            }
            _ => {}
        }
    }

    fn append(&self, now: Timestamp, text: &str) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut end = lock(&self.end);
        if end.full {
            return Ok(());
        }
        let at = now.max(Timestamp::from_millis(end.last.as_millis() + 1));
        let mut lines = Vec::new();
        for part in parts(text) {
            write_line(&mut lines, at, part)?;
        }
        end.full = end.len + lines.len() as u64 >= self.len_max;
        if end.full {
            lines.clear();
            write_line(
                &mut lines,
                at,
                &format!("[the log has reached its limit of {} bytes]\n", self.len_max),
            )?;
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(&lines)?;
        end.len += lines.len() as u64;
        end.last = at;
        drop(end);
        self.grown.send_modify(|version| *version += 1);
        Ok(())
    }

    fn read(&self, mut from: LogCursor) -> std::io::Result<(Vec<LogLine>, LogCursor)> {
        let mut lines = Vec::new();
        let Some(path) = &self.path else { return Ok((lines, from)) };
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((lines, from)),
            opened => opened?,
        };
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(from.offset))?;
        while lines.len() < LINES_MAX {
            let mut line = String::new();
            let len = std::io::Read::take(&mut reader, LINE_LEN_MAX).read_line(&mut line)?;
            // What is cut off is still being written.
            if !line.ends_with('\n') {
                break;
            }
            from.offset += len as u64;
            // A line torn by a crash is passed over.
            let Ok(read) = serde_json::from_str::<LogLine>(&line) else { continue };
            if read.at > from.after {
                from.after = read.at.max(from.after);
                lines.push(read);
            } else if lines.last().is_some_and(|last: &LogLine| last.at == read.at) {
                lines.push(read);
            }
        }
        Ok((lines, from))
    }
}

/// A text in parts that are short enough for a line, cut between characters.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut cut = rest.len().min(TEXT_LEN_MAX);
        while !rest.is_char_boundary(cut) {
            cut -= 1;
        }
        let (part, left) = rest.split_at(cut);
        rest = left;
        Some(part)
    })
}

fn write_line(lines: &mut Vec<u8>, at: Timestamp, text: &str) -> std::io::Result<()> {
    serde_json::to_writer(&mut *lines, &LogLine { at, text: text.to_owned() })?;
    lines.push(b'\n');
    Ok(())
}

impl Relays {
    /// Puts a text into the log of a run's application.
    ///
    /// # Errors
    /// Not found; unavailable when the log cannot be written.
    /// # Cancel safety
    /// A dropped call may still write the text.
    pub async fn log(&self, run: RunId, text: String) -> Result<(), Error> {
        let slot = self.slot(run)?;
        let now = self.shared.clock.now();
        let written = self.shared.compute.run(move || slot.log.append(now, &text)).await?;
        written.map_err(|error| {
            tracing::warn!(%run, %error, "the log of an application cannot be written");
            Error::unavailable("the log cannot be written now")
        })
    }

    /// The next lines of a run's log, and where they end; holds the request while there are none and the run is not over.
    /// `None` when the run is over and everything was read.
    ///
    /// # Errors
    /// Not found; unavailable when the log cannot be read.
    /// # Cancel safety
    /// Safe.
    pub async fn log_lines(
        &self,
        run: RunId,
        from: LogCursor,
    ) -> Result<Option<(Vec<LogLine>, LogCursor)>, Error> {
        let slot = self.slot(run)?;
        let (mut grown, mut changed) = (slot.log.grown.subscribe(), slot.changed.subscribe());
        loop {
            grown.mark_unchanged();
            changed.mark_unchanged();
            let over = slot.read(|state| state.application().phase.is_over())?;
            let reading = std::sync::Arc::clone(&slot);
            let read = self.shared.compute.run(move || reading.log.read(from)).await?;
            let (lines, cursor) = read.map_err(|error| {
                tracing::warn!(%run, %error, "the log of an application cannot be read");
                Error::unavailable("the log cannot be read now")
            })?;
            if !lines.is_empty() {
                return Ok(Some((lines, cursor)));
            }
            if over {
                return Ok(None);
            }
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Err(Error::shutting_down()),
                grown = grown.changed() => grown.map_err(|_| Error::shutting_down())?,
                changed = changed.changed() => changed.map_err(|_| Error::shutting_down())?,
            }
        }
    }
}
