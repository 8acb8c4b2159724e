//! TensorBoard's event files: records framed with their length and two checksums, each a protobuf `Event`.
//!
//! Source: the format of TFRecord files; read back with tensorboardX in the tests.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

use super::MetricsLogError;

/// What a reader expects in the first record.
const FILE_VERSION: &str = "brain.Event:2";
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// An event, as far as it is written.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    #[prost(string, optional, tag = "3")]
    pub(super) file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub(super) summary: Option<Summary>,
}

/// Values of one step.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<Scalar>,
}

/// One value.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Scalar {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(float, tag = "2")]
    pub(super) simple_value: f32,
}

/// A file of events; each start of a federation has one of its own, and a reader takes all in the directory together.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    pub(super) fn create(dir: &Path, since_s: f64) -> Result<EventFile, MetricsLogError> {
        let process = std::process::id();
        // Whole seconds and the process tell starts apart; a file that is there is appended to.
        let path = dir.join(format!("events.out.tfevents.{since_s:.0}.sheaf.{process}"));
        let failed = |source| MetricsLogError { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let file = File::options().append(true).create(true).open(&path).map_err(failed)?;
        let mut events = EventFile { path, file };
        let first =
            Event { wall_time: since_s, file_version: Some(FILE_VERSION.to_owned()), ..Event::default() };
        events.append(&first)?;
        Ok(events)
    }

    /// Writes the values of a step.
    #[expect(clippy::cast_possible_truncation, reason = "a scalar of an event file is a float32")]
    pub(super) fn write<'v>(
        &mut self,
        at_s: f64,
        step: u64,
        values: impl Iterator<Item = (&'v str, f64)>,
    ) -> Result<(), MetricsLogError> {
        let value = values.map(|(tag, value)| Scalar { tag: tag.to_owned(), simple_value: value as f32 });
        let summary = Some(Summary { value: value.collect() });
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.append(&Event { wall_time: at_s, step, file_version: None, summary })
    }

    fn append(&mut self, event: &Event) -> Result<(), MetricsLogError> {
        let written = self.file.write_all(&record(&event.encode_to_vec()));
        written.map_err(|source: io::Error| MetricsLogError { path: self.path.clone(), source })
    }
}

fn record(body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(body.len() + 16);
    record.extend_from_slice(&len);
    record.extend_from_slice(&masked(&len).to_le_bytes());
    record.extend_from_slice(body);
    record.extend_from_slice(&masked(body).to_le_bytes());
    record
}

/// A checksum turned and moved, so that one over checksums is no checksum of them.
fn masked(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_as_readers_check_it() {
        // An empty body: its length, and the checksums of those eight bytes and of none.
        let record = hex::encode(record(b""));
        assert_eq!((&record[..16], &record[24..]), ("0000000000000000", "d8ea82a2"));
    }
}
