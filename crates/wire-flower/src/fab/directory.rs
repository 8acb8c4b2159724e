//! The directory of a bundle's archive, read before the archive is opened.
//!
//! Refused by name: comments, zip64 records, parts, more than [`ENTRIES_MAX`] entries, bytes between directory and end
//! record, names that are not UTF-8 or not said to be, names and sizes given twice, encrypted entries, other ways of
//! compression than stored and deflated. Invariant: what passes has one directory, whoever looks for it.

use super::FabError;
use super::archive::refused;

/// The most entries.
const ENTRIES_MAX: u64 = 10_000;

/// Checks that the directory is the only one, and that no entry has a name or a size that readers could understand differently.
pub(super) fn check(bytes: &[u8]) -> Result<(), FabError> {
    let mut directory = end(bytes)?;
    while !directory.is_empty() {
        let mut take = |len: u64| -> Result<&[u8], FabError> {
            let split = usize::try_from(len).ok().and_then(|len| directory.split_at_checked(len));
            let (taken, rest) = split.ok_or_else(|| wrong("its directory ends early"))?;
            directory = rest;
            Ok(taken)
        };
        let header = take(DIRECTORY_HEADER_LEN)?;
        let name = take(number(header, 28, 2))?;
        let extra = take(number(header, 30, 2))?;
        take(number(header, 32, 2))?;
        let shown = String::from_utf8_lossy(name);
        let (flags, method) = (number(header, 8, 2), number(header, 10, 2));
        let said_utf8 = flags & UTF8_FLAG != 0;
        if std::str::from_utf8(name).is_err() || !(name.is_ascii() || said_utf8) {
            return Err(refused(&shown, "its name is not UTF-8"));
        }
        if flags & ENCRYPTED_FLAG != 0 {
            return Err(refused(&shown, "it is encrypted"));
        }
        if !matches!(method, STORED | DEFLATED) {
            return Err(refused(&shown, "it is neither stored nor deflated"));
        }
        if has_second_form(extra) {
            return Err(refused(&shown, "it gives its name or its size twice"));
        }
    }
    Ok(())
}

/// Checks the end record before anything is sized by it: no comment, no zip64, and the directory right before it. Then
/// no reader finds another directory. Returns the directory.
fn end(bytes: &[u8]) -> Result<&[u8], FabError> {
    let end = bytes.len().checked_sub(END_LEN).and_then(|at| bytes.split_at_checked(at));
    let (before, end) = end
        .filter(|(_, end)| end.starts_with(b"PK\x05\x06"))
        .ok_or_else(|| wrong("it does not end as a zip file"))?;
    if number(end, 20, 2) != 0 {
        return Err(wrong("it has a comment"));
    }
    let locator_at = before.len().saturating_sub(ZIP64_LOCATOR_LEN);
    if before.get(locator_at..).is_some_and(|locator| locator.starts_with(b"PK\x06\x07")) {
        return Err(wrong("it has a zip64 directory"));
    }
    let count = number(end, 10, 2);
    if number(end, 4, 4) != 0 || number(end, 8, 2) != count {
        return Err(wrong("it has several parts"));
    }
    if count > ENTRIES_MAX {
        return Err(FabError::TooManyEntries { count, max: ENTRIES_MAX });
    }
    let (len, at) = (number(end, 12, 4), number(end, 16, 4));
    let directory = usize::try_from(at).ok().and_then(|at| before.get(at..));
    directory
        .filter(|directory| directory.len() as u64 == len)
        .ok_or_else(|| wrong("its directory is not at its end"))
}

/// Whether extra fields hold a zip64 size or a Unicode path, which not every reader heeds.
fn has_second_form(mut extra: &[u8]) -> bool {
    while !extra.is_empty() {
        if matches!(number(extra, 0, 2), 0x0001 | 0x7075) {
            return true;
        }
        let len = usize::try_from(number(extra, 2, 2)).unwrap_or(usize::MAX);
        extra = extra.get(len.saturating_add(4)..).unwrap_or_default();
    }
    false
}

/// A little-endian number of a record; 0 beyond its end.
fn number(record: &[u8], at: usize, len: usize) -> u64 {
    let bytes = record.get(at..at + len).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn wrong(reason: &str) -> FabError {
    FabError::Archive { reason: reason.to_owned() }
}

const END_LEN: usize = 22;
const ZIP64_LOCATOR_LEN: usize = 20;
const DIRECTORY_HEADER_LEN: u64 = 46;
const ENCRYPTED_FLAG: u64 = 1;
const UTF8_FLAG: u64 = 1 << 11;
const STORED: u64 = 0;
const DEFLATED: u64 = 8;
