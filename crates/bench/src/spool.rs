//! How fast updates are folded from the disk: read from a blob store, tile by tile, while the tile before is folded.
//!
//! The store is the server's own. What it wrote is dropped from memory first, so that the disk is read.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sheaf_aggregate::{Fold, Rule, TileSet, tile_len};
use sheaf_blob::{BlobStore, DiskBlobs, Hold, OpenOptions};
use sheaf_domain::{ByteSpan, Digest, Manifest, Segment};
use sheaf_runtime::{Compute, SystemClock};
use sheaf_tensor::Dtype;

use crate::limits::{disk, gb};
use crate::piece::{Origin, Pieces};
use crate::process::process_cpu;
use crate::{Error, fold, model};

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Updates folded.
    pub updates: usize,
    /// Bytes of all updates.
    pub bytes: u64,
    /// Wall seconds of reading and folding.
    pub seconds: f64,
    /// CPU seconds of reading and folding.
    pub cpu_seconds: f64,
    /// Input per wall second.
    pub gb_per_s: f64,
    /// Writing the updates into the store, per wall second: hashed and durable.
    pub written_gb_per_s: f64,
}

/// Stores about `total_bytes` of `updates` updates below `dir`, then reads them back and folds their weighted mean.
///
/// # Errors
/// [`Error::Blob`], [`Error::Fold`], [`Error::Io`].
/// # Cancel safety
/// Dropped, it leaves the store's files in `dir`.
pub async fn measure(
    dir: &Path,
    updates: usize,
    total_bytes: u64,
    budget_bytes: u64,
) -> Result<Figure, Error> {
    let compute = Compute::for_this_machine();
    let store = DiskBlobs::open(dir, OpenOptions::default()).await?;
    let clock = SystemClock::shared();
    let started = clock.monotonic();
    let pieces = Pieces::new(model::of_size(total_bytes / updates.max(1) as u64)?)?;
    let mut manifests = Vec::with_capacity(updates);
    for client in (1..).take(updates) {
        manifests.push(put(&store, &pieces, client).await?);
    }
    let written = clock.monotonic().saturating_sub(started).as_secs_f64();
    for file in std::fs::read_dir(dir).map_err(Error::io("list a store"))? {
        disk::forget_cached(&file.map_err(Error::io("list a store"))?.path())?;
    }
    let (started, cpu) = (clock.monotonic(), process_cpu());
    fold_all(&store, &compute, &manifests, pieces.byte_len(), budget_bytes).await?;
    let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
    let cpu_seconds = process_cpu().saturating_sub(cpu).as_secs_f64();
    store.close().await;
    let bytes = pieces.byte_len() * updates as u64;
    Ok(Figure {
        updates,
        bytes,
        seconds,
        cpu_seconds,
        gb_per_s: gb(bytes) / seconds,
        written_gb_per_s: gb(bytes) / written,
    })
}

async fn put(store: &DiskBlobs, pieces: &Pieces, client: u32) -> Result<Manifest, Error> {
    let hold = Hold::new(format!("bench/{client}"))?;
    let origin = Origin { seed: 0, client, round: 0 };
    let mut digests: Vec<Digest> = Vec::new();
    for piece_idx in 0..pieces.count() {
        let piece = pieces.piece(origin, piece_idx);
        let mut writer = store.writer(&hold, piece.len() as u64).await?;
        writer.write(piece).await?;
        digests.push(writer.finish(None).await?.digest);
    }
    pieces.manifest(&digests)
}

async fn fold_all(
    store: &DiskBlobs,
    compute: &Compute,
    manifests: &[Manifest],
    byte_len: u64,
    budget_bytes: u64,
) -> Result<(), Error> {
    let fold = Fold::new(Rule::WeightedMean, &fold::weights(manifests.len()))?;
    let tile = tile_len(budget_bytes, fold::element_bytes(manifests.len())) as u64 * Dtype::F32.size() as u64;
    let spans = (0..byte_len.div_ceil(tile)).map(|idx| {
        let offset = idx * tile;
        ByteSpan { offset, len: tile.min(byte_len - offset) }
    });
    let mut spans = spans.peekable();
    let mut ahead = match spans.next() {
        Some(first) => read(store, manifests, first).await?,
        None => return Ok(()),
    };
    loop {
        let (rows, fold) = (std::mem::take(&mut ahead), fold.clone());
        let folded = compute.run(move || fold_tile(&fold, &rows));
        let next = async {
            match spans.next() {
                Some(span) => read(store, manifests, span).await.map(Some),
                None => Ok(None),
            }
        };
        let (folded, next) = tokio::join!(folded, next);
        folded??;
        match next? {
            Some(rows) => ahead = rows,
            None => return Ok(()),
        }
    }
}

fn fold_tile(fold: &Fold, rows: &[Bytes]) -> Result<(), Error> {
    let rows: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
    let mut out = vec![0.0; rows.first().map_or(0, |row| row.len() / Dtype::F32.size())];
    fold.fold(&TileSet { dtype: Dtype::F32, rows: &rows, base: None }, &mut out)?;
    std::hint::black_box(out);
    Ok(())
}

async fn read(store: &DiskBlobs, manifests: &[Manifest], span: ByteSpan) -> Result<Vec<Bytes>, Error> {
    let located: Vec<Vec<Segment>> = manifests.iter().map(|manifest| manifest.locate(span)).collect();
    let segments: Vec<Segment> = located.iter().flatten().copied().collect();
    let mut parts = store.read_many(&segments).await?.into_iter();
    let rows = located.iter().map(|row| {
        let mut own: Vec<Bytes> = parts.by_ref().take(row.len()).collect();
        match own.len() {
            1 => own.swap_remove(0),
            _ => own
                .iter()
                .fold(BytesMut::new(), |mut all, part| {
                    all.extend_from_slice(part);
                    all
                })
                .freeze(),
        }
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn updates_are_written_read_and_folded() {
        let dir = tempfile::tempdir().unwrap();
        let figure = measure(dir.path(), 3, 30 << 20, 1 << 20).await.unwrap();
        assert_eq!((figure.updates, figure.bytes), (3, 30 << 20));
        assert!(figure.gb_per_s.is_finite() && figure.gb_per_s > 0.0 && figure.written_gb_per_s > 0.0);
    }
}
