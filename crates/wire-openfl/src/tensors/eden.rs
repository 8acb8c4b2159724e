//! Eden: a random rotation, after which the elements are as good as normal, and a few bits for each.
//!
//! The vector is cut into slices of a power of two; each is multiplied twice by signs drawn from the seed and transformed by
//! Walsh–Hadamard, then rounded to the nearest of the centroids. Bits travel plane by plane, eight elements a byte. Decoding does
//! with single float32 numbers what upstream's code does, in its order, so it gives the same bits.
//!
//! Source: Vargaftik et al. 2022, EDEN; layout, seeds and order of operations observed in openfl 1.9.

mod centroids;

use std::collections::BTreeMap;

/// How often a slice is rotated.
const ROTATIONS: i64 = 2;
/// The most slices: each but the last halves, at least, what is left.
const SLICES_MAX: usize = 64;

/// What the metadata says of a rotated tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Params {
    n_bits: u8,
    seed: i64,
    elements: usize,
    slices: Vec<Slice>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Slice {
    scale: f32,
    dim: usize,
}

impl Params {
    /// Reads seed, count, and scale and size of each slice.
    pub(super) fn read(values: &[f32], n_bits: u8, elements: u64) -> Result<Params, &'static str> {
        let [seed, total, rest @ ..] = values else { return Err("it lacks the seed") };
        let seed = whole(*seed, 65_536).ok_or("its seed is none")?;
        #[expect(clippy::cast_precision_loss, reason = "upstream sends it rounded as well")]
        if *total != elements as f32 {
            return Err("its count is not that of its shape");
        }
        let elements = usize::try_from(elements).map_err(|_| "its shape is too large")?;
        let (pairs, odd) = rest.as_chunks::<2>();
        if pairs.is_empty() || pairs.len() > SLICES_MAX || !odd.is_empty() {
            return Err("its slices are none");
        }
        let slices: Option<Vec<Slice>> = pairs
            .iter()
            .map(|[scale, dim]| {
                let dim = whole(*dim, 1 << 40).and_then(|dim| usize::try_from(dim).ok())?;
                (dim.is_power_of_two() && dim >= 8).then_some(Slice { scale: *scale, dim })
            })
            .collect();
        let slices = slices.ok_or("the size of a slice is none")?;
        let sum = slices.iter().try_fold(0usize, |sum, slice| sum.checked_add(slice.dim));
        match sum {
            // Upstream pads by a tenth, and small slices to eight.
            Some(sum) if sum >= elements && sum <= elements.saturating_mul(2).saturating_add(64) => {
                Ok(Params { n_bits, seed, elements, slices })
            }
            _ => Err("its slices do not come to its shape"),
        }
    }

    /// How many bytes the bits take.
    pub(super) fn bits_len(&self) -> u64 {
        self.padded() as u64 / 8 * u64::from(self.n_bits)
    }

    fn padded(&self) -> usize {
        self.slices.iter().map(|slice| slice.dim).sum()
    }

    /// Appends the elements as float32; `bits` are as many as [`Params::bits_len`] says.
    pub(super) fn decode(&self, bits: &[u8], out: &mut Vec<u8>) {
        let table = table(self.n_bits);
        let planes: Vec<&[u8]> = bits.chunks(self.padded() / 8).collect();
        let (mut from, mut left) = (0, self.elements);
        for Slice { scale, dim } in &self.slices {
            let mut vec: Vec<f32> = (from..from + dim)
                .map(|at| table.get(code(&planes, at)).copied().unwrap_or_default())
                .collect();
            for rotation in (0..ROTATIONS).rev() {
                hadamard(&mut vec);
                flip(&mut vec, self.seed + rotation);
            }
            for element in vec.iter().take(left) {
                out.extend_from_slice(&(scale * element).to_le_bytes());
            }
            left = left.saturating_sub(*dim);
            from += dim;
        }
    }
}

/// Rotates and rounds `values`: what the metadata says, and the bits.
pub(super) fn encode(values: &[f32], n_bits: u8, seed: u64) -> (BTreeMap<i32, f32>, Vec<u8>) {
    let seed = u16::try_from(seed & 0xffff).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "as upstream sends it")]
    let mut numbers = vec![f32::from(seed), values.len() as f32];
    let mut codes: Vec<u8> = Vec::new();
    for slice in cut(values) {
        let mut vec = vec![0.0; slice.len().next_power_of_two().max(8)];
        vec.iter_mut().zip(slice).for_each(|(to, from)| *to = *from);
        for rotation in 0..ROTATIONS {
            flip(&mut vec, i64::from(seed) + rotation);
            hadamard(&mut vec);
        }
        let scale = quantise(&vec, n_bits, &mut codes);
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        numbers.extend([scale, vec.len() as f32]);
    }
    ((0..).zip(numbers).collect(), planes(&codes, n_bits))
}

/// Slices of a power of two while padding what is left would cost more than a tenth.
fn cut(values: &[f32]) -> Vec<&[f32]> {
    let mut slices = Vec::new();
    let mut left = values;
    // Below eight a slice is padded all the same, and cutting further would misplace what follows.
    while left.len() > 8 && (left.len().next_power_of_two() - left.len()) * 10 > values.len() {
        let (slice, rest) = left.split_at(1 << left.len().ilog2());
        slices.push(slice);
        left = rest;
    }
    if !left.is_empty() {
        slices.push(left);
    }
    slices
}

/// Rounds to the centroids; the scale that makes the result unbiased.
fn quantise(vec: &[f32], n_bits: u8, codes: &mut Vec<u8>) -> f32 {
    let table = table(n_bits);
    let norm_sq: f64 = vec.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    #[expect(clippy::cast_precision_loss, reason = "a size")]
    let to_normal = (vec.len() as f64 / norm_sq).sqrt();
    let mut dot = 0.0;
    let before = codes.len();
    for element in vec {
        let normal = f64::from(*element) * to_normal;
        let code = table.partition_point(|centroid| f64::from(*centroid) < normal);
        let code = nearer(&table, code, normal);
        dot += f64::from(table.get(code).copied().unwrap_or_default()) * f64::from(*element);
        codes.push(u8::try_from(code).unwrap_or_default());
    }
    let scale = norm_sq / dot;
    if scale.is_finite() {
        #[expect(clippy::cast_possible_truncation, reason = "what travels is float32")]
        return scale as f32;
    }
    codes.truncate(before);
    codes.resize(before + vec.len(), 0);
    0.0
}

fn nearer(table: &[f32], above: usize, normal: f64) -> usize {
    let distance =
        |at: usize| table.get(at).map_or(f64::INFINITY, |value| (f64::from(*value) - normal).abs());
    let below = above.saturating_sub(1);
    if distance(below) <= distance(above) { below } else { above }
}

fn table(n_bits: u8) -> Vec<f32> {
    let half = centroids::HALVES.get(usize::from(n_bits.saturating_sub(1))).copied().unwrap_or_default();
    half.iter().rev().map(|value| -value).chain(half.iter().copied()).collect()
}

fn code(planes: &[&[u8]], at: usize) -> usize {
    let bit = |plane: &&[u8]| plane.get(at / 8).map_or(0, |byte| usize::from(byte >> (at % 8) & 1));
    planes.iter().enumerate().map(|(place, plane)| bit(plane) << place).sum()
}

fn planes(codes: &[u8], n_bits: u8) -> Vec<u8> {
    let mut bits = Vec::with_capacity(codes.len() / 8 * usize::from(n_bits));
    for plane in 0..n_bits {
        for eight in codes.chunks(8) {
            bits.push(eight.iter().rev().fold(0, |byte, code| byte << 1 | (code >> plane & 1)));
        }
    }
    bits
}

/// Walsh–Hadamard, normalised. Each step as upstream has it, or the last bits would differ.
fn hadamard(vec: &mut [f32]) {
    let mut half = 1;
    while half < vec.len() {
        for pair in vec.chunks_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                *a += *b;
                *b = *a - 2.0 * *b;
            }
        }
        half *= 2;
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as upstream rounds it")]
    let root = (vec.len() as f64).sqrt() as f32;
    vec.iter_mut().for_each(|element| *element /= root);
}

/// Multiplies by signs: eight planes of four-bit numbers from a hash of seed and place.
fn flip(vec: &mut [f32], seed: i64) {
    const MASK: i64 = 0xffff_ffff;
    let seed = (seed * 1_664_525 + 1_013_904_223) & MASK;
    let seed = (seed * 8_121 + 28_411) & MASK;
    let words = vec.len().div_ceil(8);
    let hash = |place: usize| {
        let place = i64::try_from(place).unwrap_or_default();
        let r = (place + seed).wrapping_mul(1_103_515_245).wrapping_add(12_345 + seed) & MASK;
        let r = r.wrapping_mul(1_140_671_485).wrapping_add(12_820_163 + seed) & MASK;
        let r = r + 0x9e37_79b9;
        let r = (r ^ (r >> 16)).wrapping_mul(0x85eb_ca6b) & MASK;
        let r = (r ^ (r >> 13)).wrapping_mul(0xc2b2_ae35) & MASK;
        (r ^ (r >> 16)) & MASK
    };
    let hashes: Vec<i64> = (0..words).map(hash).collect();
    for (plane, elements) in vec.chunks_mut(words.max(1)).enumerate() {
        for (hash, element) in hashes.iter().zip(elements) {
            if hash >> (4 * plane) & 0xf < 8 {
                *element = -*element;
            }
        }
    }
}

/// A float as the whole number it is, when it is one below `bound`.
fn whole(value: f32, bound: i64) -> Option<i64> {
    #[expect(clippy::cast_precision_loss, reason = "bounds are powers of two")]
    let is_whole = value >= 0.0 && value < bound as f32 && value.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within bounds")]
    is_whole.then_some(value as i64)
}
