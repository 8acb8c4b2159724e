//! Results on disk, from the end of training until the server has answered for them: a restart goes on where it was.
//!
//! `tasks/<task>/<slot>.bin` holds the canonical byte stream of an output; `result.json` says the rest and is written last, so
//! that a directory without it is an unfinished task whose work is handed out again.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sheaf_domain::{
    Digest, Hasher, Manifest, Metrics, PIECE_LEN_DEFAULT, SlotName, Submission, SubmittedSlot, TaskId,
};
use sheaf_tensor::{ParamSet, TensorSpec};

use super::home::write_whole;
use crate::Error;

/// A result that is not handed in yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredResult {
    format: u32,
    task: TaskId,
    num_examples: f64,
    metrics: Metrics,
    slots: Vec<StoredSlot>,
}

/// One output: what it is, and the pieces its byte stream is cut into.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSlot {
    slot: SlotName,
    tensors: Vec<TensorSpec>,
    piece_len: u64,
    pieces: Vec<Digest>,
}

/// A piece and where its bytes are on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its digest.
    pub(crate) digest: Digest,
    file: PathBuf,
    offset: u64,
    len: usize,
}

impl StoredResult {
    /// Writes a result into `dir`; it is durable when this returns. Blocks: for the pool.
    pub(crate) fn store(
        dir: &Path,
        task: TaskId,
        outputs: &[(SlotName, ParamSet)],
        num_examples: f64,
        metrics: Metrics,
    ) -> Result<StoredResult, Error> {
        std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        let slots = outputs.iter().map(|(slot, params)| store_slot(dir, slot, params));
        let slots = slots.collect::<Result<Vec<_>, Error>>()?;
        let result = StoredResult { format: FORMAT, task, num_examples, metrics, slots };
        let json = serde_json::to_vec(&result).map_err(|error| Error::Internal(error.to_string()))?;
        write_whole(&dir.join(RESULT), &json)?;
        Ok(result)
    }

    /// The results of earlier processes in `tasks_dir`. What is unfinished or cannot be used is removed.
    pub(crate) fn left_over(tasks_dir: &Path) -> Result<Vec<StoredResult>, Error> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(tasks_dir).map_err(Error::file("read", tasks_dir))? {
            let path = entry.map_err(Error::file("read", tasks_dir))?.path();
            match StoredResult::load(&path) {
                Some(result) => found.push(result),
                None => discard(&path),
            }
        }
        found.sort_by_key(|result| result.task);
        Ok(found)
    }

    /// The result in a task's directory, if there is a whole one.
    pub(crate) fn load(dir: &Path) -> Option<StoredResult> {
        let json = std::fs::read(dir.join(RESULT)).ok()?;
        let result: StoredResult = serde_json::from_slice(&json).ok()?;
        let named = dir.file_name()?.to_str()? == result.task.to_string();
        (named && result.format == FORMAT && result.submission().is_ok()).then_some(result)
    }

    /// The task it answers.
    pub(crate) fn task(&self) -> TaskId {
        self.task
    }

    /// The submission it makes.
    pub(crate) fn submission(&self) -> Result<Submission, Error> {
        let slots = self.slots.iter().map(|stored| {
            let manifest = Manifest::over_pieces(stored.tensors.clone(), stored.piece_len, &stored.pieces)
                .map_err(|error| Error::Internal(error.to_string()))?;
            Ok(SubmittedSlot { slot: stored.slot.clone(), manifest })
        });
        Ok(Submission {
            task: self.task,
            slots: slots.collect::<Result<Vec<_>, Error>>()?,
            num_examples: self.num_examples,
            metrics: self.metrics.clone(),
        })
    }

    /// Its distinct pieces, in order.
    pub(crate) fn pieces(&self, dir: &Path) -> Vec<Piece> {
        let mut seen = std::collections::HashSet::new();
        let mut pieces = Vec::new();
        for stored in &self.slots {
            let mut left: u64 = stored.tensors.iter().map(TensorSpec::byte_len).sum();
            let mut offset = 0;
            for digest in &stored.pieces {
                let len = left.min(stored.piece_len);
                if seen.insert(*digest) {
                    let file = slot_file(dir, &stored.slot);
                    pieces.push(Piece {
                        digest: *digest,
                        file,
                        offset,
                        len: usize::try_from(len).unwrap_or(0),
                    });
                }
                offset += len;
                left -= len;
            }
        }
        pieces
    }

    /// The bytes of all outputs.
    pub(crate) fn byte_len(&self) -> u64 {
        self.slots.iter().flat_map(|stored| &stored.tensors).map(TensorSpec::byte_len).sum()
    }
}

impl Piece {
    /// Reads the piece. Blocks: for the pool.
    pub(crate) fn read(&self) -> Result<Bytes, Error> {
        let mut bytes = vec![0; self.len];
        let read = File::open(&self.file).and_then(|file| file.read_exact_at(&mut bytes, self.offset));
        read.map_err(Error::file("read", &self.file))?;
        Ok(Bytes::from(bytes))
    }
}

/// Removes what a task left on disk. That it stays is a nuisance, not a failure.
pub(crate) fn discard(dir: &Path) {
    let removed = if dir.is_dir() { std::fs::remove_dir_all(dir) } else { std::fs::remove_file(dir) };
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %dir.display(), "a task's files cannot be removed");
    }
}

fn store_slot(dir: &Path, slot: &SlotName, params: &ParamSet) -> Result<StoredSlot, Error> {
    let path = slot_file(dir, slot);
    let write = || -> std::io::Result<Vec<Digest>> {
        let mut file = BufWriter::new(File::create(&path)?);
        let mut cut = Cutter::default();
        for tensor in params.iter() {
            file.write_all(&tensor.bytes)?;
            cut.take(&tensor.bytes);
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(cut.finish())
    };
    let pieces = write().map_err(Error::file("write", &path))?;
    let tensors = params.iter().map(|tensor| tensor.spec.clone()).collect();
    Ok(StoredSlot { slot: slot.clone(), tensors, piece_len: PIECE_LEN_DEFAULT, pieces })
}

fn slot_file(dir: &Path, slot: &SlotName) -> PathBuf {
    dir.join(format!("{slot}.bin"))
}

/// Cuts a byte stream into pieces and names each by its digest.
#[derive(Default)]
struct Cutter {
    hasher: Hasher,
    filled: usize,
    pieces: Vec<Digest>,
}

impl Cutter {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = bytes.len().min(PIECE_LEN - self.filled);
            let (piece, rest) = bytes.split_at(len);
            self.hasher.update(piece);
            self.filled += len;
            bytes = rest;
            if self.filled == PIECE_LEN {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        self.pieces.push(std::mem::take(&mut self.hasher).finish());
        self.filled = 0;
    }

    fn finish(mut self) -> Vec<Digest> {
        if self.filled > 0 {
            self.cut();
        }
        self.pieces
    }
}

const FORMAT: u32 = 1;
const RESULT: &str = "result.json";
#[expect(clippy::cast_possible_truncation, reason = "4 MiB fits every usize")]
const PIECE_LEN: usize = PIECE_LEN_DEFAULT as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_tensor::{Dtype, Tensor};

    fn params(len: u64) -> ParamSet {
        let first = TensorSpec::new("a", Dtype::U8, [len]).unwrap();
        let second = TensorSpec::new("b", Dtype::U8, [3]).unwrap();
        let bytes: Vec<u8> = (0..len).map(|idx| u8::try_from(idx % 251).unwrap()).collect();
        ParamSet::new(vec![
            Tensor::new(first, Bytes::from(bytes)).unwrap(),
            Tensor::new(second, Bytes::from_static(b"xyz")).unwrap(),
        ])
        .unwrap()
    }

    fn task() -> TaskId {
        "00112233445566778899aabbccddeeff".parse().unwrap()
    }

    #[test]
    fn a_result_survives_a_restart_and_its_pieces_are_what_they_are_named() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join(task().to_string());
        let slot = SlotName::new("model").unwrap();
        let outputs = [(slot, params(PIECE_LEN_DEFAULT + 10))];
        let metrics = Metrics::from([("loss".to_owned(), 0.1)]);
        let stored = StoredResult::store(&dir, task(), &outputs, 7.0, metrics).unwrap();
        let found = StoredResult::left_over(home.path()).unwrap();
        assert_eq!(found, std::slice::from_ref(&stored));
        let pieces = stored.pieces(&dir);
        assert_eq!(pieces.len(), 2);
        for piece in &pieces {
            assert_eq!(Digest::of(&piece.read().unwrap()), piece.digest);
        }
        let submission = stored.submission().unwrap();
        assert_eq!(submission.slots[0].manifest.check(), Ok(()));
        assert_eq!(submission.slots[0].manifest.byte_len(), PIECE_LEN_DEFAULT + 13);
    }

    #[test]
    fn what_is_unfinished_or_spoilt_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let unfinished = home.path().join("unfinished");
        std::fs::create_dir(&unfinished).unwrap();
        std::fs::write(unfinished.join("model.bin"), b"half").unwrap();
        let spoilt = home.path().join(task().to_string());
        std::fs::create_dir(&spoilt).unwrap();
        std::fs::write(spoilt.join(RESULT), b"{\"format\":1").unwrap();
        assert!(StoredResult::left_over(home.path()).unwrap().is_empty());
        assert!(!unfinished.exists() && !spoilt.exists());
    }

    #[test]
    fn a_result_without_outputs_needs_no_pieces() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join(task().to_string());
        let stored = StoredResult::store(&dir, task(), &[], 5.0, Metrics::new()).unwrap();
        assert!(stored.pieces(&dir).is_empty());
        assert_eq!(StoredResult::left_over(home.path()).unwrap(), [stored]);
    }
}
