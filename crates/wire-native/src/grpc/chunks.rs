//! The messages of `PutPiece` without a decoder's copies: a chunk's bytes are handed on in the frames they came in.
//!
//! The generated service would gather every message in a buffer of its own before anybody sees it. Here only the header and a
//! message of an unusual shape are gathered, each within its bound. Refuses a compressed message, one that is longer than a
//! chunk may be, a header in a later message, and a body that ends inside a message.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message"; Protocol Buffers encoding, length-delimited fields.

use axum::body::Body;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use prost::Message as _;
use sheaf_messages::{self as messages, bounds, v1};

use crate::Error;

/// The path that is answered here.
pub(super) const PUT_PATH: &str = "/sheaf.native.v1.Participant/PutPiece";
/// A flag and a length stand before a message.
const PREFIX_LEN: usize = 5;
/// What a message may have beside its chunk, in bytes: a header, or fields nobody knows.
const BESIDE_LEN_MAX: usize = 4 * 1024;
/// The number of the field `chunk`, and that it is length-delimited.
const CHUNK_KEY: u8 = 2 << 3 | 2;
/// A key and the longest length of a chunk within its bound.
const FIELD_HEAD_LEN: usize = 4;

/// The messages of an upload.
pub(super) struct Chunks {
    body: Body,
    /// What came and was not taken yet.
    frame: Bytes,
    /// Bytes of the chunk under way that were not taken yet.
    left: usize,
    /// Bytes of chunks that were taken.
    received: u64,
}

impl Chunks {
    pub(super) fn of(body: Body) -> Chunks {
        Chunks { body, frame: Bytes::new(), left: 0, received: 0 }
    }

    /// The first message's header.
    pub(super) async fn header(&mut self) -> Result<v1::PieceHeader, Error> {
        let missing = Error::Protocol("the first message of an upload must have the header");
        let Some(len) = self.prefix().await? else { return Err(missing) };
        if len > BESIDE_LEN_MAX {
            return Err(Error::Protocol("the first message of an upload is its header alone"));
        }
        self.whole(&[], len).await?.header.ok_or(missing)
    }

    /// The next bytes of the piece, as they came; none when it is over.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.left == 0 {
            let Some(len) = self.prefix().await? else { return Ok(None) };
            let limit = u64::try_from(bounds::CHUNK_LEN_MAX).unwrap_or(u64::MAX);
            let too_large = messages::Error::TooLarge { field: "chunk", limit };
            if len > bounds::CHUNK_LEN_MAX + BESIDE_LEN_MAX {
                return Err(too_large.into());
            }
            let mut head = [0; FIELD_HEAD_LEN];
            let head = head.get_mut(..len.min(FIELD_HEAD_LEN)).unwrap_or_default();
            self.fill(head).await?;
            if let Some(in_head) = chunk_alone(head, len) {
                self.left = len - head.len();
                if !in_head.is_empty() {
                    return Ok(Some(self.taken(Bytes::copy_from_slice(in_head))));
                }
                continue;
            }
            let message = self.whole(head, len).await?;
            if message.header.is_some() {
                return Err(Error::Protocol("only the first message of an upload may have a header"));
            }
            if message.chunk.len() > bounds::CHUNK_LEN_MAX {
                return Err(too_large.into());
            }
            return Ok(Some(self.taken(message.chunk)));
        }
        self.frame_or_break().await?;
        let part = self.frame.split_to(self.frame.len().min(self.left));
        self.left -= part.len();
        Ok(Some(self.taken(part)))
    }

    fn taken(&mut self, part: Bytes) -> Bytes {
        self.received = self.received.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        part
    }

    /// The length of the next message; none when the body is over.
    async fn prefix(&mut self) -> Result<Option<usize>, Error> {
        if !self.frame().await? {
            return Ok(None);
        }
        let mut prefix = [0; PREFIX_LEN];
        self.fill(&mut prefix).await?;
        let [flag, len @ ..] = prefix;
        if flag != 0 {
            return Err(Error::Protocol("a message of an upload is not compressed"));
        }
        Ok(Some(usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX)))
    }

    /// Gathers a message that begins with `head`; the caller has bounded its length.
    async fn whole(&mut self, head: &[u8], len: usize) -> Result<v1::PutPieceRequest, Error> {
        let mut gathered = BytesMut::from(head);
        while gathered.len() < len {
            self.frame_or_break().await?;
            let part = self.frame.split_to(self.frame.len().min(len - gathered.len()));
            gathered.extend_from_slice(&part);
        }
        let malformed = |_| Error::Protocol("a message of an upload is not what the protocol says");
        v1::PutPieceRequest::decode(gathered.freeze()).map_err(malformed)
    }

    /// Takes the next few bytes.
    async fn fill(&mut self, mut bytes: &mut [u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            self.frame_or_break().await?;
            let len = bytes.len().min(self.frame.len());
            let (now, later) = bytes.split_at_mut(len);
            self.frame.copy_to_slice(now);
            bytes = later;
        }
        Ok(())
    }

    async fn frame_or_break(&mut self) -> Result<(), Error> {
        match self.frame().await? {
            true => Ok(()),
            false => Err(Error::Truncated { received: self.received }),
        }
    }

    /// Sees to it that something is there to be taken; `false` when the body is over.
    async fn frame(&mut self) -> Result<bool, Error> {
        while self.frame.is_empty() {
            let Some(frame) = self.body.frame().await else { return Ok(false) };
            let frame = frame.map_err(|_| Error::Truncated { received: self.received })?;
            self.frame = frame.into_data().unwrap_or_default();
        }
        Ok(true)
    }
}

/// What of the chunk is in the first bytes of a message of `len` bytes that is a chunk within its bound and nothing else.
fn chunk_alone(head: &[u8], len: usize) -> Option<&[u8]> {
    let (&CHUNK_KEY, mut rest) = head.split_first()? else { return None };
    let chunk_len = usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?;
    let alone = chunk_len.checked_add(head.len() - rest.len()) == Some(len);
    (alone && chunk_len <= bounds::CHUNK_LEN_MAX).then_some(rest)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn framed(message: &v1::PutPieceRequest) -> Vec<u8> {
        let message = message.encode_to_vec();
        let len = u32::try_from(message.len()).unwrap();
        [&[0][..], &len.to_be_bytes(), &message].concat()
    }

    fn header() -> v1::PutPieceRequest {
        let header = v1::PieceHeader { task: "t".to_owned(), digest: "d".to_owned(), length: 9 };
        v1::PutPieceRequest { header: Some(header), chunk: Bytes::new() }
    }

    fn chunk(len: usize) -> v1::PutPieceRequest {
        let chunk = (0..=250).cycle().take(len).collect::<Vec<u8>>();
        v1::PutPieceRequest { header: None, chunk: Bytes::from(chunk) }
    }

    /// The header and all bytes of a body that comes in frames of `frame_len` bytes.
    async fn read(body: &[u8], frame_len: usize) -> Result<(v1::PieceHeader, Vec<u8>), Error> {
        let frames: Vec<_> = body
            .chunks(frame_len)
            .map(|part| Ok::<_, Error>(Frame::data(Bytes::copy_from_slice(part))))
            .collect();
        let mut chunks = Chunks::of(Body::new(StreamBody::new(stream::iter(frames))));
        let header = chunks.header().await?;
        let mut bytes = Vec::new();
        while let Some(part) = chunks.next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok((header, bytes))
    }

    #[tokio::test]
    async fn messages_cut_into_frames_anywhere_are_what_was_sent() {
        // A field of a number nobody knows makes a message that is gathered.
        let mut unusual = chunk(300).encode_to_vec();
        unusual.extend([9 << 3, 1]);
        let len = u32::try_from(unusual.len()).unwrap();
        let unusual = [&[0][..], &len.to_be_bytes(), &unusual].concat();
        let lens = [0, 1, 2, 3, 127, 128, 5_000, bounds::CHUNK_LEN_MAX];
        let body = lens.iter().fold(framed(&header()), |body, len| [body, framed(&chunk(*len))].concat());
        let body = [body, unusual].concat();
        let sent: Vec<u8> = lens.iter().chain([&300]).flat_map(|len| chunk(*len).chunk.to_vec()).collect();
        for frame_len in [1, 2, 3, 7, 1_000, 16 * 1024, body.len()] {
            let (read_header, bytes) = read(&body, frame_len).await.unwrap();
            assert_eq!(Some(read_header), header().header);
            assert!(bytes == sent, "frames of {frame_len} bytes");
        }
    }

    #[tokio::test]
    async fn a_body_that_ends_inside_a_message_is_cut_off() {
        let body = [framed(&header()), framed(&chunk(40))].concat();
        let first = framed(&header()).len();
        for end in 1..body.len() {
            let result = read(&body[..end], 7).await;
            match end == first {
                true => assert!(result.unwrap().1.is_empty()),
                false => assert!(matches!(result, Err(Error::Truncated { .. })), "{end} bytes"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_upload_is_refused_by_name_before_it_is_gathered() {
        let with_header = |rest: &[u8]| [&framed(&header())[..], rest].concat();
        // Lengths that are claimed and never come.
        let claimed = |len: u32| [&[0][..], &len.to_be_bytes()].concat();
        let cases = [
            (Vec::new(), "must have the header"),
            (framed(&chunk(3)), "must have the header"),
            (claimed(u32::MAX), "its header alone"),
            (vec![1, 0, 0, 0, 0], "not compressed"),
            (with_header(&claimed(u32::MAX)), "chunk"),
            (with_header(&framed(&chunk(bounds::CHUNK_LEN_MAX + 1))), "chunk"),
            (with_header(&framed(&header())), "only the first message"),
            (with_header(&[1, 0, 0, 0, 0]), "not compressed"),
            (with_header(&[0, 0, 0, 0, 2, 0xff, 0xff]), "not what the protocol says"),
        ];
        for (idx, (body, words)) in cases.into_iter().enumerate() {
            let error = read(&body, 64).await.unwrap_err();
            assert_eq!(error.kind(), sheaf_domain::ErrorKind::InvalidArgument, "case {idx}: {error}");
            assert!(error.to_string().contains(words), "case {idx}: {error}");
        }
    }
}
