//! Blocks of a stream of elements: the same run of every row as floats, full whatever the tiles were.
//!
//! A block begins at a multiple of its length, counted over all tiles of the prepass, so what is computed from one
//! does not depend on how the stream was cut. What is not finite is refused on the way in.

use std::ops::BitOr;

use sheaf_tensor::cpu::{Kernel, Level};

use crate::ahead::Ahead;
use crate::tile::Element;

/// Elements in a block.
pub(crate) const BLOCK_LEN: usize = 512;

/// One row of a block.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(crate) struct Row<T>(pub(crate) [T; BLOCK_LEN]);

/// A float that elements are staged as.
pub(crate) trait Float: Copy {
    /// An integer as wide, for what is found out about a run of floats.
    type Mark: Copy + Default + Eq + BitOr<Output = Self::Mark>;
    /// What a block is filled up with.
    const ZERO: Self;
    /// The value of an element; exact where the caller has chosen a float that can hold it.
    fn of(value: f64) -> Self;
    /// Zero, unless the float is not finite or, as float32, too large for sums of squares.
    fn beyond(self) -> Self::Mark;
}

impl Float for f64 {
    type Mark = u64;
    const ZERO: f64 = 0.0;
    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }
    #[inline(always)]
    fn beyond(self) -> u64 {
        u64::from(self.to_bits() << 1 > f64::MAX.to_bits() << 1)
    }
}

impl Float for f32 {
    type Mark = u32;
    const ZERO: f32 = 0.0;
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the value came from a float32 or something narrower"
    )]
    fn of(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn beyond(self) -> u32 {
        u32::from(self.to_bits() << 1 > NARROW_MAX.to_bits() << 1)
    }
}

/// Up to it no sum of squared differences over a block leaves the range of a float32.
const NARROW_MAX: f32 = (1_u64 << 55) as f32;

/// The block being filled.
#[derive(Debug, Clone)]
pub(crate) struct Staging<T> {
    rows: Vec<Row<T>>,
    filled: usize,
}

impl<T: Float> Staging<T> {
    pub(crate) fn new(num_rows: usize) -> Staging<T> {
        Staging { rows: vec![Row([T::ZERO; BLOCK_LEN]); num_rows], filled: 0 }
    }

    /// How many bytes it holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        size_of_val(&self.rows[..]) as u64
    }

    /// Takes in the next tile and hands every block that becomes full to `visit`.
    ///
    /// Returns whether no value was [`Float::beyond`] its range.
    pub(crate) fn take<E: Element>(
        &mut self,
        level: Level,
        bytes: &[&[u8]],
        mut visit: impl FnMut(&[Row<T>], &Ahead<'_>),
    ) -> bool {
        let rows: Vec<&[E::Raw]> = bytes.iter().map(|row| E::raw(row)).collect();
        let len = rows.first().map_or(0, |row| row.len());
        let mut beyond = false;
        let mut from = 0;
        while from < len {
            let take = (BLOCK_LEN - self.filled).min(len - from);
            let filling = Filling::<E, T> { rows: &rows, from, take, to: &mut self.rows, at: self.filled };
            beyond |= level.run(filling);
            (self.filled, from) = (self.filled + take, from + take);
            if self.filled == BLOCK_LEN {
                let line = from * size_of::<E::Raw>();
                visit(&self.rows, &Ahead { rows: bytes, from: line, len: BLOCK_LEN * size_of::<E::Raw>() });
                self.filled = 0;
            }
        }
        !beyond
    }

    /// Hands out the last block, filled up with zeros.
    pub(crate) fn finish(&mut self, visit: impl FnOnce(&[Row<T>], &Ahead<'_>)) {
        if self.filled > 0 {
            for row in &mut self.rows {
                row.0[self.filled..].fill(T::ZERO);
            }
            visit(&self.rows, &Ahead::nothing());
            self.filled = 0;
        }
    }
}

/// The copying of one run of every row.
struct Filling<'a, E: Element, T> {
    rows: &'a [&'a [E::Raw]],
    from: usize,
    take: usize,
    to: &'a mut [Row<T>],
    at: usize,
}

impl<E: Element, T: Float> Kernel for Filling<'_, E, T> {
    /// Whether a value was beyond.
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let mut beyond = T::Mark::default();
        for (to, row) in self.to.iter_mut().zip(self.rows) {
            let from = &row[self.from..self.from + self.take];
            if let (0, Some(from)) = (self.at, from.first_chunk::<BLOCK_LEN>()) {
                // A whole block: a loop of fixed length.
                beyond = beyond | copy::<E, T>(&mut to.0, from);
            } else {
                beyond = beyond | copy::<E, T>(&mut to.0[self.at..self.at + self.take], from);
            }
        }
        beyond != T::Mark::default()
    }
}

#[inline(always)]
fn copy<E: Element, T: Float>(to: &mut [T], from: &[E::Raw]) -> T::Mark {
    let mut beyond = T::Mark::default();
    for (to, raw) in to.iter_mut().zip(from) {
        *to = T::of(E::value(*raw));
        beyond = beyond | to.beyond();
    }
    beyond
}
