//! Tiles of what is being handed out: N readers of one model, or of one object of a relayed run, share one copy of its bytes.
//!
//! A tile is a stretch of a version's canonical byte stream, or of an object, read from the store once and given out as shared bytes. Every tile
//! in memory has its length reserved from a budget, until its last reader has sent it; the newest rest here for those who come
//! next, in at most half of the budget. What slow readers hold is bounded where they come in, by how much one of them reads at once. When the
//! budget is used up, readers wait their turn and are told to come again after a while.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use sheaf_blob::BlobStore;
use sheaf_domain::{ByteSize, ByteSpan, Digest, Manifest, Segment, Span, VersionRef};
use tokio::sync::OnceCell;

use crate::Error;
use crate::budget::{Budget, Reservation};
use crate::outbox::lock;

/// The length of a tile, in bytes: that of a piece, so that a tile is one read of one object.
pub(crate) const TILE_LEN: u64 = sheaf_domain::PIECE_LEN_DEFAULT;

/// The tiles in memory.
#[derive(Debug)]
pub(crate) struct Tiles {
    budget: Budget,
    resting_max: usize,
    /// The one asked for last stands last.
    resting: Mutex<VecDeque<(Key, Arc<OnceCell<Bytes>>)>>,
}

/// Which tile of what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    of: Of,
    tile_idx: u64,
}

/// What a tile is of; the bytes of neither ever change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Of {
    Version(VersionRef),
    Object(Digest),
}

/// Bytes that give their share of the budget back with their last reader.
struct Held {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Tiles {
    /// Room for `size` bytes of tiles; whoever finds none waits for `wait` at most.
    pub(crate) fn new(size: ByteSize, wait: Span) -> Tiles {
        let resting_max = usize::try_from(size.as_bytes() / TILE_LEN / 2).unwrap_or(usize::MAX).max(1);
        Tiles { budget: Budget::new(size, wait), resting_max, resting: Mutex::default() }
    }

    /// Reads a stretch of a version's canonical byte stream; shorter where the stream ends.
    ///
    /// # Errors
    /// When the bytes cannot be read; [`sheaf_domain::ErrorKind::Exhausted`] when no room becomes free in time.
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn read(
        &self,
        blob: &dyn BlobStore,
        version: &VersionRef,
        manifest: &Manifest,
        span: ByteSpan,
    ) -> Result<Bytes, Error> {
        let total = manifest.byte_len();
        let end = span.offset.saturating_add(span.len).min(total);
        if span.offset >= end {
            return Ok(Bytes::new());
        }
        let (first, last) = (span.offset / TILE_LEN, (end - 1) / TILE_LEN);
        if first == last {
            let tile = self.tile(blob, version, manifest, first).await?;
            return cut(&tile, first, span.offset, end);
        }
        // Not as the tiles lie: put together in memory of its own, which counts as well.
        let len = end - span.offset;
        let reservation = self.budget.reserve(len).await?;
        let mut joined = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
        for tile_idx in first..=last {
            let tile = self.tile(blob, version, manifest, tile_idx).await?;
            let start = tile_idx * TILE_LEN;
            joined.extend_from_slice(&cut(
                &tile,
                tile_idx,
                span.offset.max(start),
                end.min(start + TILE_LEN),
            )?);
        }
        Ok(Bytes::from_owner(Held { bytes: joined.freeze(), _reservation: reservation }))
    }

    /// Reads an object of `len` bytes from `offset` on: to the end of a tile at most.
    ///
    /// # Errors
    /// As [`Tiles::read`].
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn read_object(
        &self,
        blob: &dyn BlobStore,
        object: &Digest,
        len: u64,
        offset: u64,
    ) -> Result<Bytes, Error> {
        let tile_idx = offset / TILE_LEN;
        let key = Key { of: Of::Object(*object), tile_idx };
        let whole = |span: ByteSpan| vec![Segment { object: *object, offset: span.offset, len: span.len }];
        let tile = self.tile_of(blob, key, len, whole).await?;
        cut(&tile, tile_idx, offset, len.min((tile_idx + 1) * TILE_LEN))
    }

    async fn tile(
        &self,
        blob: &dyn BlobStore,
        version: &VersionRef,
        manifest: &Manifest,
        tile_idx: u64,
    ) -> Result<Bytes, Error> {
        let key = Key { of: Of::Version(version.clone()), tile_idx };
        self.tile_of(blob, key, manifest.byte_len(), |span| joined(manifest.locate(span))).await
    }

    /// A tile of something of `total` bytes, whose stretches lie where `locate` says.
    async fn tile_of(
        &self,
        blob: &dyn BlobStore,
        key: Key,
        total: u64,
        locate: impl Fn(ByteSpan) -> Vec<Segment>,
    ) -> Result<Bytes, Error> {
        let offset = key.tile_idx * TILE_LEN;
        let cell = self.cell(key);
        // Whoever comes first reads; the others wait for it. When it fails or leaves, the next one reads.
        let read = cell.get_or_try_init(async || {
            let len = TILE_LEN.min(total.saturating_sub(offset));
            let reservation = self.budget.reserve(len).await?;
            let parts = blob.read_many(&locate(ByteSpan { offset, len })).await?;
            let bytes = match <[Bytes; 1]>::try_from(parts) {
                Ok([whole]) => whole,
                Err(parts) => Bytes::from(parts.concat()),
            };
            Ok::<_, Error>(Bytes::from_owner(Held { bytes, _reservation: reservation }))
        });
        read.await.cloned()
    }

    /// The place of a tile, which becomes the newest; the oldest one makes way.
    fn cell(&self, key: Key) -> Arc<OnceCell<Bytes>> {
        let mut resting = lock(&self.resting);
        let known = resting.iter().position(|(known, _)| *known == key).and_then(|idx| resting.remove(idx));
        let (key, cell) = known.unwrap_or_else(|| (key, Arc::default()));
        while resting.len() >= self.resting_max {
            resting.pop_front();
        }
        resting.push_back((key, Arc::clone(&cell)));
        cell
    }
}

/// What of the byte stream from `from` to `to` lies in a tile.
fn cut(tile: &Bytes, tile_idx: u64, from: u64, to: u64) -> Result<Bytes, Error> {
    let start = tile_idx * TILE_LEN;
    let place = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
    if place(to) > tile.len() {
        return Err(Error::internal("a tile is shorter than what it is of"));
    }
    Ok(tile.slice(place(from)..place(to)))
}

/// Neighbours in one object become one stretch: tensors of a model mostly lie one behind the other.
fn joined(segments: Vec<Segment>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    for segment in segments {
        match joined.last_mut() {
            Some(last) if last.object == segment.object && last.offset + last.len == segment.offset => {
                last.len += segment.len;
            }
            _ => joined.push(segment),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use sheaf_blob::{Hold, MemoryBlobs};
    use sheaf_domain::{ErrorKind, LineageName, RunId};
    use sheaf_tensor::{Dtype, TensorSpec};

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn version(version: u32) -> VersionRef {
        VersionRef { run: RunId::new(7).unwrap(), lineage: LineageName::global(), version }
    }

    fn stream(len: u64) -> Vec<u8> {
        (0..len).map(|idx| (idx / 3 % 253) as u8).collect()
    }

    async fn model(blob: &MemoryBlobs, len: u64, piece_len: u64) -> Manifest {
        let hold = Hold::new("model").unwrap();
        let bytes = stream(len);
        let mut pieces: Vec<Digest> = Vec::new();
        for piece in bytes.chunks(usize::try_from(piece_len).unwrap()) {
            let mut writer = blob.writer(&hold, piece.len() as u64).await.unwrap();
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            pieces.push(writer.finish(None).await.unwrap().digest);
        }
        let specs = vec![
            TensorSpec::new("a", Dtype::U8, [len / 3]).unwrap(),
            TensorSpec::new("b", Dtype::U8, [len - len / 3]).unwrap(),
        ];
        Manifest::over_pieces(specs, piece_len, &pieces).unwrap()
    }

    fn place(offset: u64) -> usize {
        usize::try_from(offset).unwrap()
    }

    #[tokio::test]
    async fn every_stretch_is_that_of_the_stream_however_it_lies_to_tiles_and_pieces() {
        let len = 2 * TILE_LEN + 12_345;
        for piece_len in [TILE_LEN, TILE_LEN / 2 + 1] {
            let blob = MemoryBlobs::new(ByteSize::from_mib(64));
            let manifest = model(&blob, len, piece_len).await;
            let tiles = Tiles::new(ByteSize::from_mib(32), Span::from_millis(1));
            let whole = stream(len);
            for (offset, wanted) in [
                (0, TILE_LEN),
                (1, 10),
                (TILE_LEN, TILE_LEN),
                (TILE_LEN - 1, 2),
                (TILE_LEN / 2, TILE_LEN),
                (0, len),
                (2 * TILE_LEN, TILE_LEN),
                (len, 5),
                (len + 9, 5),
            ] {
                let span = ByteSpan { offset, len: wanted };
                let read = tiles.read(&blob, &version(1), &manifest, span).await.unwrap();
                let end = len.min(offset + wanted);
                let expected = whole.get(place(offset)..place(end)).unwrap_or_default();
                assert!(read == expected, "pieces of {piece_len}, {span:?}");
            }
        }
    }

    #[tokio::test]
    async fn readers_of_one_tile_share_its_bytes_and_versions_are_kept_apart() {
        let blob = MemoryBlobs::new(ByteSize::from_mib(64));
        let (first, second) =
            (model(&blob, TILE_LEN, TILE_LEN).await, model(&blob, TILE_LEN, TILE_LEN / 4).await);
        let tiles = Tiles::new(ByteSize::from_mib(32), Span::from_millis(1));
        let whole = ByteSpan { offset: 0, len: TILE_LEN };
        let one = tiles.read(&blob, &version(1), &first, whole).await.unwrap();
        let other = tiles.read(&blob, &version(1), &first, whole).await.unwrap();
        assert_eq!(one.as_ptr(), other.as_ptr());
        let apart = tiles.read(&blob, &version(2), &second, whole).await.unwrap();
        assert_ne!(one.as_ptr(), apart.as_ptr());
        assert_eq!(one, apart);
        assert_eq!(tiles.budget.reserved(), 2 * TILE_LEN);
    }

    #[tokio::test]
    async fn an_object_is_read_tile_by_tile_and_shared() {
        let blob = MemoryBlobs::new(ByteSize::from_mib(64));
        let whole = stream(TILE_LEN + 1_024);
        let mut writer = blob.writer(&Hold::new("object").unwrap(), whole.len() as u64).await.unwrap();
        writer.write(Bytes::from(whole.clone())).await.unwrap();
        let object = writer.finish(None).await.unwrap().digest;
        let tiles = Tiles::new(ByteSize::from_mib(32), Span::from_millis(1));
        let read =
            async |offset| tiles.read_object(&blob, &object, whole.len() as u64, offset).await.unwrap();
        for offset in [0, 7, TILE_LEN - 1, TILE_LEN, TILE_LEN + 1_023] {
            let end = if offset < TILE_LEN { TILE_LEN } else { TILE_LEN + 1_024 };
            assert!(read(offset).await == whole[place(offset)..place(end)], "from {offset}");
        }
        assert_eq!(read(0).await.as_ptr(), read(0).await.as_ptr());
        assert_eq!(tiles.budget.reserved(), TILE_LEN + 1_024);
    }

    #[tokio::test]
    async fn tiles_never_exceed_their_budget_and_are_there_again_when_a_slow_reader_lets_go() {
        let blob = MemoryBlobs::new(ByteSize::from_mib(128));
        let manifest = model(&blob, 12 * TILE_LEN, TILE_LEN).await;
        let tiles = Tiles::new(ByteSize::from_bytes(16 * MIB), Span::from_millis(1));
        let span = |tile_idx: u64| ByteSpan { offset: tile_idx * TILE_LEN, len: TILE_LEN };
        for tile_idx in 0..12 {
            tiles.read(&blob, &version(1), &manifest, span(tile_idx)).await.unwrap();
            assert!(tiles.budget.reserved() <= 8 * MIB, "at most half of it rests");
        }
        let mut slow = Vec::new();
        let refused = loop {
            match tiles.read(&blob, &version(1), &manifest, span(slow.len() as u64)).await {
                Ok(bytes) => slow.push(bytes),
                Err(error) => break error,
            }
            assert!(tiles.budget.reserved() <= 16 * MIB);
        };
        assert_eq!(refused.kind(), ErrorKind::Exhausted);
        assert_eq!(slow.len(), 4);
        slow.clear();
        tiles.read(&blob, &version(1), &manifest, span(11)).await.unwrap();
    }
}
