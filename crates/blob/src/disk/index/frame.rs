//! Frames: what is appended to the index in one piece, whole or not at all.
//!
//! Only one frame at a time is on its way to the disk, so a crash can damage the last frame only. A damaged stretch
//! that a whole frame follows is therefore no torn tail, and is refused.

use crate::disk::header::Fields;

const MAGIC: [u8; 4] = *b"SFRM";
/// The length of what stands before a frame's body, in bytes.
pub(crate) const FRAME_HEADER_LEN: usize = 24;
/// The longest body of a frame, in bytes.
pub(crate) const BODY_LEN_MAX: usize = 16 * 1024 * 1024;

/// The bytes of frame number `seq` around `body`.
pub(crate) fn encode(seq: u64, body: &[u8]) -> Vec<u8> {
    let body_len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(FRAME_HEADER_LEN + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(&body_len.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The frame at the front of `bytes`: its number and body; `None` when there is no whole one.
pub(crate) fn decode(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut fields = Fields(bytes);
    let head = fields.take_slice(FRAME_HEADER_LEN)?;
    let (checked, crc) = head.split_last_chunk::<4>()?;
    if !head.starts_with(&MAGIC) || crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut head = Fields(head.split_at_checked(MAGIC.len())?.1);
    let seq = head.take_u64()?;
    let body_len = usize::try_from(head.take_u32()?).ok().filter(|len| *len <= BODY_LEN_MAX)?;
    let body_crc = head.take_u32()?;
    let body = fields.take_slice(body_len)?;
    (crc32fast::hash(body) == body_crc).then_some((seq, body))
}

/// Whether a whole frame begins anywhere in `bytes`.
pub(crate) fn any_within(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.windows(MAGIC.len()).position(|window| window == MAGIC) {
        let Some((_, found)) = rest.split_at_checked(at) else { return false };
        if decode(found).is_some() {
            return true;
        }
        rest = found.split_at_checked(1).map_or(&[], |(_, rest)| rest);
    }
    false
}
