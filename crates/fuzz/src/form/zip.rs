//! Zip archives changed entry by entry, with checksums, lengths and the directory put right; then at times one lie is told.

use super::framed;
use crate::mutate::Mutator;

/// An entry as the directory of an archive has it.
#[derive(Clone, Default)]
struct Entry {
    name: Vec<u8>,
    /// 0 stored, 8 deflated.
    method: u16,
    crc: u32,
    size: u32,
    content: Vec<u8>,
}

/// Changes one entry, or which entries there are.
pub(super) fn change(mutator: &mut Mutator, parent: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut entries = parse(parent)?;
    let donors = parse(other).unwrap_or_default();
    let at = mutator.below(entries.len());
    match mutator.below(8) {
        0 => entries.extend(mutator.pick(&donors).cloned()),
        1 if !entries.is_empty() => {
            entries.remove(at);
        }
        2 => {
            let copy = entries.get(at)?.clone();
            let times = if mutator.once_in(4) { mutator.times(300, copy.content.len()) } else { 1 };
            for _ in 0..times {
                let name = format!("{}.npy", mutator.number()).into_bytes();
                entries.push(Entry { name, ..copy.clone() });
            }
        }
        3 => mutator.bytes(&mut entries.get_mut(at)?.name, b"../x.npy", &[".npy", "/"]),
        4 => {
            let entry = entries.get_mut(at)?;
            entry.method = *mutator.pick(&[0, 8, 12, 99])?;
        }
        5 => {
            let entry = entries.get_mut(at)?;
            entry.size = mutator.number().to_le_bytes()[0].into();
        }
        _ => change_content(mutator, entries.get_mut(at)?, donors.first()),
    }
    Some(print(mutator, &entries))
}

fn change_content(mutator: &mut Mutator, entry: &mut Entry, donor: Option<&Entry>) {
    let donor = donor.map(|donor| donor.content.as_slice()).unwrap_or_default();
    let as_array = framed::change_npy(mutator, &entry.content, donor);
    match as_array.filter(|_| entry.method == 0) {
        Some(content) => entry.content = content,
        None => mutator.bytes(&mut entry.content, donor, &[]),
    }
    if entry.method == 0 {
        entry.crc = crc32fast::hash(&entry.content);
        entry.size = u32::try_from(entry.content.len()).unwrap_or(u32::MAX);
    }
}

/// The entries of an archive whose directory ends the file.
fn parse(file: &[u8]) -> Option<Vec<Entry>> {
    let end = file.last_chunk::<22>().filter(|end| end.starts_with(b"PK\x05\x06"))?;
    let mut at = usize::try_from(u32_at(end, 16)?).ok()?;
    let mut entries = Vec::new();
    while let Some(head) = file.get(at..).filter(|head| head.starts_with(b"PK\x01\x02")) {
        let (name_len, extra_len, comment_len) = (u16_at(head, 28)?, u16_at(head, 30)?, u16_at(head, 32)?);
        let name = head.get(46..46 + usize::from(name_len))?.to_vec();
        let local = file.get(usize::try_from(u32_at(head, 42)?).ok()?..)?;
        let start = 30 + usize::from(u16_at(local, 26)?) + usize::from(u16_at(local, 28)?);
        let len = usize::try_from(u32_at(head, 20)?).ok()?;
        let content = local.get(start..start.checked_add(len)?)?.to_vec();
        let (method, crc, size) = (u16_at(head, 10)?, u32_at(head, 16)?, u32_at(head, 24)?);
        entries.push(Entry { name, method, crc, size, content });
        at += 46 + usize::from(name_len) + usize::from(extra_len) + usize::from(comment_len);
    }
    Some(entries)
}

fn print(mutator: &mut Mutator, entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = u32::try_from(file.len()).unwrap_or(u32::MAX);
        let shared = shared_head(entry);
        file.extend_from_slice(b"PK\x03\x04");
        file.extend_from_slice(&shared);
        file.extend_from_slice(&entry.name);
        file.extend_from_slice(&entry.content);
        directory.extend_from_slice(b"PK\x01\x02\x14\x03");
        directory.extend_from_slice(&shared);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(&entry.name);
    }
    if mutator.once_in(4) {
        mutator.bytes(&mut directory, &[0xff; 8], &[]);
    }
    let count = u16::try_from(entries.len()).unwrap_or(u16::MAX).to_le_bytes();
    let (directory_len, directory_at) = (directory.len(), file.len());
    file.append(&mut directory);
    file.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    file.extend_from_slice(&[count, count].concat());
    for number in [directory_len, directory_at] {
        file.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }
    file.extend_from_slice(&[0, 0]);
    file
}

/// What local header and directory have alike, from the version to the length of the extra field.
fn shared_head(entry: &Entry) -> Vec<u8> {
    let mut head = vec![0x14, 0, 0, 0];
    head.extend_from_slice(&entry.method.to_le_bytes());
    head.extend_from_slice(&[0, 0, 0x21, 0]);
    let content_len = u32::try_from(entry.content.len()).unwrap_or(u32::MAX);
    for number in [entry.crc, content_len, entry.size] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&u16::try_from(entry.name.len()).unwrap_or(u16::MAX).to_le_bytes());
    head.extend_from_slice(&[0, 0]);
    head
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}
