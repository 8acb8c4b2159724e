//! What a federation writes of its rounds: `aggregator_metrics.txt`, one JSON object a line, and TensorBoard's event files.
//!
//! Each round is one object: `round_number`, `elapsed_seconds`, and `aggregator/<task>/<metric>` for each metric. The file is appended to,
//! and only what a federation that goes on wrote last and did not note is taken away, so that no round stands in it twice. A value that is
//! not finite is `null` in the file, and left out of the event files. Refused: directories that cannot be written.
//!
//! Source: observed with openfl 1.9, its `MetricWriter`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::events::EventFile;

mod events;

const LINES: &str = "aggregator_metrics.txt";
const EVENTS_DIR: &str = "aggregator_tensorboard";
const ROUND: &str = "round_number";
const ELAPSED: &str = "elapsed_seconds";

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
    /// Opens the files in `dir`, which is made. A federation that goes on says how long the file was when it last noted that; what was
    /// written after that is taken away. `board_since_s` asks for event files too, the first record of which bears that time of day.
    ///
    /// # Errors
    /// [`MetricsLogError`].
    pub fn open(
        dir: &Path,
        noted_len: Option<u64>,
        board_since_s: Option<f64>,
    ) -> Result<MetricsLog, MetricsLogError> {
        let path = dir.join(LINES);
        let failed = |source| MetricsLogError { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let lines = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        if let Some(noted) = noted_len
            && noted < lines.metadata().map_err(failed)?.len()
        {
            lines.set_len(noted).map_err(failed)?;
        }
        let events = board_since_s.map(|since_s| EventFile::create(&dir.join(EVENTS_DIR), since_s));
        Ok(MetricsLog { path, lines, events: events.transpose()? })
    }

    /// How long the file of lines in `dir` is before a federation begins to write there; 0 for one that is not there.
    pub fn len_in(dir: &Path) -> u64 {
        fs::metadata(dir.join(LINES)).map_or(0, |file| file.len())
    }

    /// How long the file of lines is, in bytes: to be noted with the rounds that stand in it.
    ///
    /// # Errors
    /// [`MetricsLogError`].
    pub fn written_len(&self) -> Result<u64, MetricsLogError> {
        let failed = |source| MetricsLogError { path: self.path.clone(), source };
        Ok(self.lines.metadata().map_err(failed)?.len())
    }

    /// Writes a round down.
    ///
    /// # Errors
    /// [`MetricsLogError`].
    pub fn write(&mut self, round: RoundMetrics<'_>) -> Result<(), MetricsLogError> {
        let mut line = round.line();
        line.push('\n');
        // One call: a reader never sees a part of a line.
        self.lines
            .write_all(line.as_bytes())
            .map_err(|source| MetricsLogError { path: self.path.clone(), source })?;
        if let Some(events) = &mut self.events {
            let fields = round.fields();
            let finite = fields.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_f64()?)));
            events.write(round.at_s, round.round, finite)?;
        }
        Ok(())
    }
}

impl RoundMetrics<'_> {
    /// The round as one JSON object.
    pub fn line(&self) -> String {
        let object: Map<String, Value> = self.fields().into_iter().collect();
        Value::Object(object).to_string()
    }

    /// Its fields; JSON has no word for what is not finite.
    fn fields(&self) -> Vec<(String, Value)> {
        let metrics = self.metrics.iter();
        let metrics = metrics.map(|(name, value)| (format!("aggregator/{name}"), Value::from(*value)));
        let round = (ROUND.to_owned(), Value::from(self.round));
        let elapsed = (ELAPSED.to_owned(), Value::from(self.elapsed_s));
        [round, elapsed].into_iter().chain(metrics).collect()
    }
}

#[cfg(test)]
mod tests;
