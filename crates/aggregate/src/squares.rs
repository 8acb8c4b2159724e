//! Sums of squared differences between rows, in blocks that stay in the cache, several rows by several at a time.
//!
//! Exact sums are f64, difference, product and sum rounded apart: element number `i` of the stream goes to sum
//! `i mod 8`, whatever the tiles, and the eight are added in order at the end. Quick sums ([`add_quick`]) work in
//! float32 with fused products over one block and in f64 across blocks: see [`QUICK_ERROR`].

use std::marker::PhantomData;

use sheaf_tensor::cpu::{Kernel, Level};

use crate::staging::{BLOCK_LEN, Row};

mod vector;

use vector::Vector;

/// Eight interleaved sums.
pub(crate) type Lanes = [f64; NUM_LANES];

/// The largest relative error of a quick sum against an exact one.
///
/// In a block each of 16 float32 sums takes 32 fused products of a rounded difference: at most 34 roundings of 2^-24,
/// 2.1e-6 in all, and nothing cancels because no term is negative. The rest covers the f64 sums of either kind, for
/// models of up to 10^10 elements.
pub(crate) const QUICK_ERROR: f64 = 2.5e-6;

/// What float32 may lose of one squared difference by underflow.
pub(crate) const QUICK_UNDERFLOW: f64 = f64::from_bits((1023 - 148) << 52);

/// The sum over all elements.
pub(crate) fn total(lanes: &Lanes) -> f64 {
    lanes.iter().sum()
}

/// The place of a pair of rows among all pairs: (0, 1), (0, 2) … (1, 2) …
#[inline(always)]
pub(crate) fn pair_place(num_rows: usize, low: usize, high: usize) -> usize {
    low * (2 * num_rows - low - 1) / 2 + high - low - 1
}

/// Adds the exact squares of a block to the sums of every pair of rows.
pub(crate) fn add_exact(level: Level, block: &[Row<f64>], squares: &mut [Lanes]) {
    match level.min(Level::best()) {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => level.run(Pairs::<Exact<vector::Wide512>, 4>::new(block, squares)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => level.run(Pairs::<Exact<vector::Wide256>, 2>::new(block, squares)),
        Level::Plain => level.run(Pairs::<Exact<[f64; 8]>, 1>::new(block, squares)),
    }
}

/// Adds the quick squares of a block to the sums of every pair of rows.
pub(crate) fn add_quick(level: Level, block: &[Row<f32>], squares: &mut [Lanes]) {
    match level.min(Level::best()) {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => level.run(Pairs::<Quick<vector::Narrow512>, 4>::new(block, squares)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => level.run(Pairs::<Quick<vector::Narrow256>, 2>::new(block, squares)),
        Level::Plain => level.run(Pairs::<Quick<[f32; 16]>, 1>::new(block, squares)),
    }
}

/// Adds the exact squares of a block to the sums of the first row with each of the others.
pub(crate) fn add_from_first(level: Level, block: &[Row<f64>], squares: &mut [Lanes]) {
    match level.min(Level::best()) {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => level.run(FromFirst::<Exact<vector::Wide512>, 4>::new(block, squares)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => level.run(FromFirst::<Exact<vector::Wide256>, 2>::new(block, squares)),
        Level::Plain => level.run(FromFirst::<Exact<[f64; 8]>, 1>::new(block, squares)),
    }
}

/// How the squares of `A` rows against `B` are added up over a block.
trait Tile {
    type Float;
    fn add<const A: usize, const B: usize>(
        a: [&Row<Self::Float>; A],
        b: [&Row<Self::Float>; B],
        sums: [&mut [Lanes; B]; A],
    );
}

/// Exact sums in vectors of eight f64.
struct Exact<V>(PhantomData<V>);

impl<V: Vector<Lane = f64, Lanes = Lanes>> Tile for Exact<V> {
    type Float = f64;

    #[inline(always)]
    fn add<const A: usize, const B: usize>(a: [&Row<f64>; A], b: [&Row<f64>; B], sums: [&mut [Lanes; B]; A]) {
        let a = a.map(|row| row.0.as_chunks::<NUM_LANES>().0);
        let b = b.map(|row| row.0.as_chunks::<NUM_LANES>().0);
        let mut acc: [[V; B]; A] = std::array::from_fn(|row| sums[row].map(|lanes| V::load(&lanes)));
        for step in 0..BLOCK_LEN / NUM_LANES {
            let a = a.map(|row| V::load(&row[step]));
            for column in 0..B {
                let b = V::load(&b[column][step]);
                for row in 0..A {
                    let difference = a[row].sub(b);
                    acc[row][column] = acc[row][column].add(difference.mul(difference));
                }
            }
        }
        for (sums, acc) in sums.into_iter().zip(acc) {
            *sums = acc.map(V::store);
        }
    }
}

/// Quick sums in vectors of sixteen float32.
struct Quick<V>(PhantomData<V>);

impl<V: Vector<Lane = f32, Lanes = [f32; QUICK_LANES]>> Tile for Quick<V> {
    type Float = f32;

    #[inline(always)]
    fn add<const A: usize, const B: usize>(a: [&Row<f32>; A], b: [&Row<f32>; B], sums: [&mut [Lanes; B]; A]) {
        let a = a.map(|row| row.0.as_chunks::<QUICK_LANES>().0);
        let b = b.map(|row| row.0.as_chunks::<QUICK_LANES>().0);
        let mut acc = [[V::load(&[0.0; QUICK_LANES]); B]; A];
        for step in 0..BLOCK_LEN / QUICK_LANES {
            let a = a.map(|row| V::load(&row[step]));
            for column in 0..B {
                let b = V::load(&b[column][step]);
                for row in 0..A {
                    let difference = a[row].sub(b);
                    acc[row][column] = difference.mul_add(difference, acc[row][column]);
                }
            }
        }
        for (sums, acc) in sums.into_iter().zip(acc) {
            for (sums, acc) in sums.iter_mut().zip(acc) {
                let acc = acc.store();
                for lane in 0..NUM_LANES {
                    sums[lane] += f64::from(acc[lane]) + f64::from(acc[lane + NUM_LANES]);
                }
            }
        }
    }
}

/// All pairs of rows of a block, in tiles of `SIDE` by `SIDE`.
struct Pairs<'a, T: Tile, const SIDE: usize> {
    block: &'a [Row<T::Float>],
    squares: &'a mut [Lanes],
}

impl<'a, T: Tile, const SIDE: usize> Pairs<'a, T, SIDE> {
    fn new(block: &'a [Row<T::Float>], squares: &'a mut [Lanes]) -> Self {
        Pairs { block, squares }
    }

    #[inline(always)]
    fn tile<const A: usize, const B: usize>(&mut self, a: usize, b: usize) {
        let block = self.block;
        let mut rest = &mut *self.squares;
        let mut at = 0;
        let sums = std::array::from_fn(|row| {
            let place = pair_place(block.len(), a + row, b);
            let (_, tail) = std::mem::take(&mut rest).split_at_mut(place - at);
            let (sums, tail) = tail.split_at_mut(B);
            (rest, at) = (tail, place + B);
            sums.first_chunk_mut().unwrap_or_else(|| unreachable!("it was split off with that length"))
        });
        T::add::<A, B>(
            std::array::from_fn(|row| &block[a + row]),
            std::array::from_fn(|row| &block[b + row]),
            sums,
        );
    }
}

impl<T: Tile, const SIDE: usize> Kernel for Pairs<'_, T, SIDE> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let num_rows = self.block.len();
        let mut a = 0;
        while a < num_rows {
            let side = SIDE.min(num_rows - a);
            for low in a..a + side {
                for high in low + 1..a + side {
                    self.tile::<1, 1>(low, high);
                }
            }
            let mut b = a + side;
            while b + SIDE <= num_rows {
                self.tile::<SIDE, SIDE>(a, b);
                b += SIDE;
            }
            while b < num_rows {
                // Only a whole group of rows has others beyond it.
                self.tile::<SIDE, 1>(a, b);
                b += 1;
            }
            a += side;
        }
    }
}

/// The first row of a block with each of the others, `SIDE` at a time.
struct FromFirst<'a, T: Tile, const SIDE: usize> {
    block: &'a [Row<T::Float>],
    squares: &'a mut [Lanes],
}

impl<'a, T: Tile, const SIDE: usize> FromFirst<'a, T, SIDE> {
    fn new(block: &'a [Row<T::Float>], squares: &'a mut [Lanes]) -> Self {
        FromFirst { block, squares }
    }
}

impl<T: Tile, const SIDE: usize> Kernel for FromFirst<'_, T, SIDE> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Some((first, rows)) = self.block.split_first() else { return };
        let (groups, rest) = rows.as_chunks::<SIDE>();
        let (group_squares, rest_squares) = self.squares.as_chunks_mut::<SIDE>();
        for (rows, squares) in groups.iter().zip(group_squares) {
            T::add::<1, SIDE>([first], rows.each_ref(), [squares]);
        }
        for (row, squares) in rest.iter().zip(rest_squares) {
            T::add::<1, 1>([first], [row], [std::array::from_mut(squares)]);
        }
    }
}

const NUM_LANES: usize = 8;
const QUICK_LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_its_place() {
        for num_rows in 0..12 {
            let pairs = (0..num_rows).flat_map(|low| (low + 1..num_rows).map(move |high| (low, high)));
            for (place, (low, high)) in pairs.enumerate() {
                assert_eq!(pair_place(num_rows, low, high), place);
            }
        }
    }
}
