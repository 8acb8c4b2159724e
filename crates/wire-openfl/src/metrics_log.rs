//! What a federation writes of its rounds: `aggregator_metrics.txt`, one JSON object a line, and TensorBoard's event files.
//!
//! Each round is one object: `round_number`, `elapsed_seconds`, and `aggregator/<task>/<metric>` for each metric. The file is appended to,
//! never rewritten, except for a line that a crash cut off, which is taken away when the federation goes on. A value that is not finite
//! is `null` in the file, and left out of the event files. Refused: directories that cannot be written.
//!
//! Source: observed with openfl 1.9, its `MetricWriter`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::events::EventFile;

mod events;

const LINES: &str = "aggregator_metrics.txt";
const EVENTS_DIR: &str = "aggregator_tensorboard";
const ROUND: &str = "round_number";
const ELAPSED: &str = "elapsed_seconds";
/// How much of a file's end is looked at for its last lines, in bytes.
const TAIL_LEN: u64 = 1024 * 1024;

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
#[allow(missing_docs)]
pub struct MetricsLogError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Where metrics go.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    lines: File,
    events: Option<EventFile>,
    /// The last round that stands in the file already.
    last: Option<u64>,
}

/// The metrics of one round.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct RoundMetrics<'a> {
    pub round: u64,
    /// Since the round before, or the start; seconds.
    pub elapsed_s: f64,
    /// The time of day, in seconds since the Unix epoch.
    pub at_s: f64,
    /// By `<task>/<metric>`, in the order they are written.
    pub metrics: &'a [(String, f64)],
}

impl MetricsLog {
    /// Opens the files in `dir`, which is made. A federation that `goes_on` writes no round twice; a new one appends to what others wrote.
    /// `board_since_s` asks for event files too, the first record of which bears that time of day.
    ///
    /// # Errors
    /// [`MetricsLogError`].
    pub fn open(
        dir: &Path,
        goes_on: bool,
        board_since_s: Option<f64>,
    ) -> Result<MetricsLog, MetricsLogError> {
        let path = dir.join(LINES);
        let failed = |source| MetricsLogError { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut lines =
            OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed)?;
        let last = if goes_on { repaired(&mut lines).map_err(failed)? } else { None };
        let events = board_since_s.map(|since_s| EventFile::create(&dir.join(EVENTS_DIR), since_s));
        Ok(MetricsLog { path, lines, events: events.transpose()?, last })
    }

    /// Writes a round down, unless it stands there.
    ///
    /// # Errors
    /// [`MetricsLogError`].
    pub fn write(&mut self, round: RoundMetrics<'_>) -> Result<(), MetricsLogError> {
        if self.last.is_some_and(|last| round.round <= last) {
            return Ok(());
        }
        let fields = fields(round);
        let object: Map<String, Value> = fields.iter().cloned().collect();
        let mut line = Value::Object(object).to_string();
        line.push('\n');
        // One call: a reader never sees a part of a line.
        self.lines
            .write_all(line.as_bytes())
            .map_err(|source| MetricsLogError { path: self.path.clone(), source })?;
        self.last = Some(round.round);
        if let Some(events) = &mut self.events {
            let finite = fields.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_f64()?)));
            events.write(round.at_s, round.round, finite)?;
        }
        Ok(())
    }
}

/// The fields of a round; JSON has no word for what is not finite.
fn fields(round: RoundMetrics<'_>) -> Vec<(String, Value)> {
    let metrics =
        round.metrics.iter().map(|(name, value)| (format!("aggregator/{name}"), Value::from(*value)));
    let own =
        [(ROUND.to_owned(), Value::from(round.round)), (ELAPSED.to_owned(), Value::from(round.elapsed_s))];
    own.into_iter().chain(metrics).collect()
}

/// Takes away a line that was cut off; gives the round of the last whole one.
fn repaired(lines: &mut File) -> io::Result<Option<u64>> {
    let len = lines.metadata()?.len();
    let from = len.saturating_sub(TAIL_LEN);
    lines.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    lines.take(TAIL_LEN).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        // Not one whole line: if this is the whole file, nothing of it is one.
        if from == 0 {
            lines.set_len(0)?;
        }
        return Ok(None);
    };
    lines.set_len(from + end as u64 + 1)?;
    let (whole, _) = tail.split_at(end);
    let last = whole.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let object: Option<Value> = serde_json::from_slice(last).ok();
    Ok(object.and_then(|object| object.get(ROUND)?.as_u64()))
}

#[cfg(test)]
mod tests;
