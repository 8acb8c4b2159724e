//! Which tiles a model is folded in: as long as a budget allows for everything a fold holds of one, and of the next.
//!
//! Tiles cut no element and no tensor apart but at multiples of 64 elements, and end where stored pieces do, so that a
//! row is mostly one stretch of one object. What is folded does not depend on them.

use std::ops::Range;

use sheaf_aggregate::tile_len;
use sheaf_domain::{ByteSpan, Manifest, PIECE_LEN_DEFAULT};

/// Elements of a part that are folded at once, so that the f64 values between two steps stay in the cache.
pub(super) const STRIP_LEN: usize = 16 * 1024;

/// A stretch of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    /// The tensor, by its place in the manifest.
    pub(super) tensor_idx: usize,
    /// Where its bytes are in the canonical byte stream.
    pub(super) span: ByteSpan,
    /// Where it begins in its tensor, in elements.
    pub(super) start: u64,
    /// How many elements it has.
    pub(super) len: u64,
}

impl Tile {
    /// Cuts it into one part a thread, in elements from its start; fewer where a part would be shorter than a strip.
    pub(super) fn parts(&self, threads: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        let strips = len.div_ceil(STRIP_LEN);
        let part_len = (strips.div_ceil(threads.max(1)) * STRIP_LEN).max(1);
        (0..len).step_by(part_len).map(move |start| start..len.min(start.saturating_add(part_len)))
    }
}

/// What one fold may hold, and what it holds for every element of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Bytes left when what does not grow with the tile is taken off.
    pub(super) bytes: u64,
    /// Updates.
    pub(super) rows: usize,
    /// Moments of the optimiser.
    pub(super) moments: usize,
    /// Parts of a tile that are folded at once.
    pub(super) threads: usize,
}

impl Budget {
    /// The tiles of a model, in order.
    pub(super) fn tiles(self, model: &Manifest) -> impl Iterator<Item = Tile> + use<'_> {
        let mut offset = 0;
        model.tensors.iter().enumerate().flat_map(move |(tensor_idx, tensor)| {
            let size = tensor.spec.dtype.size() as u64;
            let (begin, total) = (offset, tensor.spec.shape.num_elements());
            offset += tensor.spec.byte_len();
            let longest = self.elements(size);
            let mut start = 0;
            std::iter::from_fn(move || {
                if start >= total {
                    return None;
                }
                let at = begin + start * size;
                let len = up_to_piece_end(at, longest.min(total - start), size);
                let tile = Tile { tensor_idx, span: ByteSpan { offset: at, len: len * size }, start, len };
                start += len;
                Some(tile)
            })
        })
    }

    /// How many elements of `size` bytes a tile may have.
    ///
    /// Every element is held as rows, base and moments twice (the tile being folded and the one read ahead), and as
    /// output once; as f64 (folded, current, next, moments) only in the strips at work.
    fn elements(&self, size: u64) -> u64 {
        let (rows, moments) = (self.rows as u64, self.moments as u64);
        let read = rows.saturating_add(1).saturating_mul(size) + moments * 8;
        let held = read.saturating_mul(2) + size + moments * 8;
        let at_work = (3 + moments) * 8;
        let strips = self.threads as u64 * STRIP_LEN as u64;
        let short = tile_len(self.bytes, held.saturating_add(at_work)) as u64;
        if short <= strips {
            return short;
        }
        tile_len(self.bytes.saturating_sub(strips * at_work), held) as u64
    }
}

/// Shortens a tile that would reach beyond the end of a stored piece, where an element ends there.
fn up_to_piece_end(at: u64, len: u64, size: u64) -> u64 {
    let left = PIECE_LEN_DEFAULT - at % PIECE_LEN_DEFAULT;
    if left.is_multiple_of(size) { len.min(left / size) } else { len }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_domain::Digest;
    use sheaf_tensor::{Dtype, TensorSpec};

    fn model(tensors: &[(Dtype, u64)]) -> Manifest {
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .enumerate()
            .map(|(idx, (dtype, len))| TensorSpec::new(format!("t{idx}"), *dtype, [*len]).unwrap())
            .collect();
        let bytes: u64 = specs.iter().map(TensorSpec::byte_len).sum();
        let pieces: Vec<Digest> =
            (0..bytes.div_ceil(PIECE_LEN_DEFAULT)).map(|idx| Digest::of(&idx.to_le_bytes())).collect();
        Manifest::over_pieces(specs, PIECE_LEN_DEFAULT, &pieces).unwrap()
    }

    #[test]
    fn tiles_cover_every_element_once_and_in_order() {
        let model =
            model(&[(Dtype::F32, 3_000_001), (Dtype::U8, 0), (Dtype::F16, 77), (Dtype::F64, 640_000)]);
        for bytes in [0, 4096, 1 << 20, 32 << 20] {
            let budget = Budget { bytes, rows: 10, moments: 2, threads: 2 };
            let mut offset = 0;
            for tile in budget.tiles(&model) {
                let size = model.tensors[tile.tensor_idx].spec.dtype.size() as u64;
                assert_eq!((tile.span.offset, tile.span.len), (offset, tile.len * size));
                assert!(tile.len > 0);
                offset += tile.span.len;
                let parts: Vec<Range<usize>> = tile.parts(3).collect();
                assert!(parts.len() <= 3 && parts[0].start == 0);
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert_eq!(parts[parts.len() - 1].end as u64, tile.len);
            }
            assert_eq!(offset, model.byte_len());
        }
    }

    #[test]
    fn a_tile_with_all_that_is_held_for_it_stays_within_the_budget() {
        let bytes = 32_u64 << 20;
        let mut last = u64::MAX;
        for rows in [1, 10, 100, 1000] {
            for moments in [0, 2] {
                let budget = Budget { bytes, rows, moments, threads: 2 };
                let len = budget.elements(4);
                let (rows, moments) = (rows as u64, moments as u64);
                let twice = 2 * ((rows + 1) * 4 + moments * 8);
                let output = 4 + moments * 8;
                let floats = (3 + moments) * 8 * len.min(2 * STRIP_LEN as u64);
                assert!(len * (twice + output) + floats <= bytes, "{rows} rows, {moments} moments: {len}");
                assert!(len < last || moments > 0);
                last = len;
            }
        }
        assert_eq!(Budget { bytes: 0, rows: 3, moments: 0, threads: 2 }.elements(8), 64);
    }
}
