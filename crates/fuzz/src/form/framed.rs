//! Files with a length, a header of text and data: the header is changed and its length put right.

use super::words;
use crate::mutate::Mutator;

/// Changes header and data of a `.npy` file.
pub(super) fn change_npy(mutator: &mut Mutator, parent: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let (head, text, data) = npy(parent)?;
    let (text, data) = (text.to_vec(), data.to_vec());
    let (_, other_text, other_data) = npy(other).unwrap_or_default();
    let (text, data) = parts(mutator, (text, data), (other_text, other_data), words::NPY);
    let mut file = head.to_vec();
    if head.get(6) == Some(&1) {
        file.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
    } else {
        file.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
    }
    file.extend_from_slice(&text);
    file.extend_from_slice(&data);
    Some(file)
}

/// Changes header and data of a safetensors file.
pub(super) fn change_safetensors(mutator: &mut Mutator, parent: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let (text, data) = safetensors(parent)?;
    let (other_text, other_data) = safetensors(other).unwrap_or_default();
    let by_tree = mutator.once_in(2).then(|| super::json::change(mutator, text, other_text)).flatten();
    let (text, data) = match by_tree {
        Some(text) => (text, data.to_vec()),
        None => {
            let given = (text.to_vec(), data.to_vec());
            parts(mutator, given, (other_text, other_data), words::SAFETENSORS)
        }
    };
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(&text);
    file.extend_from_slice(&data);
    Some(file)
}

type Parts = (Vec<u8>, Vec<u8>);

fn parts(
    mutator: &mut Mutator,
    (mut text, mut data): Parts,
    (other_text, other_data): (&[u8], &[u8]),
    words: &[&str],
) -> Parts {
    if mutator.once_in(3) {
        mutator.bytes(&mut data, other_data, &[]);
    } else {
        mutator.bytes(&mut text, other_text, words);
    }
    (text, data)
}

/// Magic and version, the header, the data.
fn npy(file: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (head, rest) = file.split_at_checked(8)?;
    let (len, rest) = if head.get(6) == Some(&1) {
        let (len, rest) = rest.split_first_chunk()?;
        (usize::from(u16::from_le_bytes(*len)), rest)
    } else {
        let (len, rest) = rest.split_first_chunk()?;
        (usize::try_from(u32::from_le_bytes(*len)).ok()?, rest)
    };
    let (text, data) = rest.split_at_checked(len)?;
    Some((head, text, data))
}

fn safetensors(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = file.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)
}
