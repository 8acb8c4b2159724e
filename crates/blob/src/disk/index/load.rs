//! Reading the index back.
//!
//! Believes nothing it has not checked: a torn tail is left out and reported, damage before it is refused with file
//! and offset, and so is another format version.

use std::path::Path;

use super::{HEADER_LEN, INDEX_NAME, MAGIC, Record, encode_header, frame};
use crate::Error;
use crate::disk::header::{FORMAT_VERSION, Fields};
use crate::files::Files;
use crate::table::Table;

/// Where the index says an object lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) offset: u64,
}

/// What an index says.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) table: Table<Place>,
    /// Where the last whole frame ends.
    pub(crate) tail: u64,
    /// The number of the last whole frame.
    pub(crate) last_seq: u64,
    /// How many records were read.
    pub(crate) records: usize,
}

/// What the index in `dir` says.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::Format`], or an I/O error.
pub(crate) fn load(files: &dyn Files, dir: &Path) -> Result<Loaded, Error> {
    let path = dir.join(INDEX_NAME);
    let failed = |action| {
        let path = path.clone();
        move |source| Error::io(action, &path, source)
    };
    let raw = files.open(&path).map_err(failed("open"))?;
    let len = raw.byte_len().map_err(failed("measure"))?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    raw.read_at(&mut bytes, 0).map_err(failed("read"))?;
    parse(&bytes, &path)
}

fn parse(bytes: &[u8], path: &Path) -> Result<Loaded, Error> {
    let sealed_len = parse_header(bytes, path)?;
    let mut loaded = Loaded { table: Table::default(), tail: HEADER_LEN, last_seq: 0, records: 0 };
    let mut rest = Fields(bytes);
    rest.take_slice(usize::try_from(HEADER_LEN).unwrap_or(usize::MAX));
    while !rest.0.is_empty() {
        let offset = loaded.tail;
        let corrupt = |what| Error::Corrupt { path: path.to_owned(), offset, what };
        let Some((seq, body)) = frame::decode(rest.0) else {
            if offset < sealed_len || frame::any_within(rest.0) {
                return Err(corrupt("this is not a whole frame"));
            }
            tracing::warn!(?path, offset, bytes = rest.0.len(), "a torn frame is cut off the index");
            break;
        };
        if seq != loaded.last_seq + 1 {
            return Err(corrupt("the frame is not the next one"));
        }
        loaded.records += replay(body, &mut loaded.table).map_err(corrupt)?;
        loaded.last_seq = seq;
        let frame_len = frame::FRAME_HEADER_LEN + body.len();
        rest.take_slice(frame_len);
        loaded.tail += frame_len as u64;
    }
    if loaded.tail < sealed_len {
        return Err(Error::Corrupt {
            path: path.to_owned(),
            offset: loaded.tail,
            what: "the file is cut short",
        });
    }
    Ok(loaded)
}

/// Checks the header; returns how many bytes of the file were durable before anything was appended.
fn parse_header(bytes: &[u8], path: &Path) -> Result<u64, Error> {
    let corrupt = |what| Error::Corrupt { path: path.to_owned(), offset: 0, what };
    let mut fields = Fields(bytes);
    if fields.take::<8>() != Some(*MAGIC) {
        return Err(corrupt("this is not an index of blobs"));
    }
    let version = fields.take_u32().ok_or_else(|| corrupt("the header is cut short"))?;
    if version != FORMAT_VERSION {
        return Err(Error::Format { path: path.to_owned(), found: version, supported: FORMAT_VERSION });
    }
    let sealed_len = fields.take_u64().ok_or_else(|| corrupt("the header is cut short"))?;
    if !bytes.starts_with(&encode_header(sealed_len)) {
        return Err(corrupt("the header's checksum is wrong"));
    }
    Ok(sealed_len)
}

/// Applies the records of a frame; returns how many there were.
fn replay(body: &[u8], table: &mut Table<Place>) -> Result<usize, &'static str> {
    let mut fields = Fields(body);
    let mut records = 0;
    while !fields.0.is_empty() {
        match Record::decode(&mut fields).ok_or("this frame has a record that is none")? {
            Record::Put { digest, file, offset, len, hold } => {
                if table.put(digest, Place { file, offset }, len, &hold).is_some() {
                    return Err("this frame stores an object a second time");
                }
            }
            Record::Hold { digest, hold } => {
                if !table.hold(&digest, &hold) {
                    return Err("this frame holds an object that is not stored");
                }
            }
            Record::Release { hold } => drop(table.release(&hold)),
        }
        records += 1;
    }
    Ok(records)
}
