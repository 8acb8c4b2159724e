//! What a command writes to its standard output and error: kept in a file up to a bound, its last lines in memory.
//!
//! A write that fails ends the keeping, never the job. Old files are pruned.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Where the output of one job goes.
pub(super) struct Log {
    state: Mutex<State>,
}

struct State {
    /// None once the bound is reached or writing failed.
    file: Option<File>,
    left: u64,
    tail: VecDeque<u8>,
}

/// Which of a command's outputs it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

impl Log {
    /// A log of at most `len_max` bytes.
    pub(super) fn create(path: &Path, len_max: u64) -> std::io::Result<Log> {
        let file = Some(File::create(path)?);
        Ok(Log { state: Mutex::new(State { file, left: len_max, tail: VecDeque::new() }) })
    }

    /// Takes in a stream to its end; also what is not kept is read, so that the command is never held up.
    ///
    /// Cancel safety: what was read by then is kept.
    pub(super) async fn take_in(&self, mut from: impl AsyncRead + Unpin, stream: Stream) {
        let mut chunk = vec![0; 8 * 1024];
        while let Ok(len) = from.read(&mut chunk).await {
            match chunk.get(..len) {
                Some(bytes) if len > 0 => self.write(bytes, stream),
                _ => return,
            }
        }
    }

    /// The last lines of the standard error, on one line.
    pub(super) fn last_lines(&self) -> String {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(state.tail.make_contiguous()).into_owned();
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let from = lines.len().saturating_sub(LINES_KEPT);
        let joined = lines.get(from..).unwrap_or_default().join(" | ");
        joined.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn write(&self, bytes: &[u8], stream: Stream) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if stream == Stream::Error {
            state.tail.extend(bytes);
            let excess = state.tail.len().saturating_sub(TAIL_LEN_MAX);
            state.tail.drain(..excess);
        }
        let State { file: Some(file), left, .. } = &mut *state else { return };
        let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        let kept = bytes.get(..len).unwrap_or(bytes);
        let written = file.write_all(kept);
        *left -= kept.len() as u64;
        if kept.len() < bytes.len() {
            // The bound is on what the command says, not on this note.
            let _ = file.write_all(b"\n[the rest is not kept]\n");
            state.file = None;
        } else if written.is_err() {
            state.file = None;
        }
    }
}

/// Removes the oldest logs of a directory, so that one more makes [`FILES_MAX`].
pub(super) fn prune(dir: &Path) -> std::io::Result<()> {
    let mut logs: Vec<(SystemTime, std::path::PathBuf)> = std::fs::read_dir(dir)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    logs.sort();
    let excess = (logs.len() + 1).saturating_sub(FILES_MAX);
    logs.iter().take(excess).try_for_each(|(_, path)| std::fs::remove_file(path))
}

/// The most logs kept in a directory.
pub(super) const FILES_MAX: usize = 100;
const TAIL_LEN_MAX: usize = 2 * 1024;
const LINES_KEPT: usize = 10;
