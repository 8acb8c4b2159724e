//! Sums of squared differences between rows, in blocks that stay in the cache, several rows by several at a time.
//!
//! Exact sums are f64, difference, product and sum rounded apart: element number `i` of the stream goes to sum
//! `i mod 8`, whatever the tiles, and the eight are added in order at the end. Quick sums ([`add_quick`]) work in
//! float32 with fused products over one block and in f64 across blocks: see [`QUICK_ERROR`].

use sheaf_tensor::cpu::{Kernel, Level};

use crate::ahead::{Ahead, Deal};
use crate::staging::Row;

mod sum;
mod vector;

use sum::{Exact, Quick, Sum, add_between, add_within};

/// Eight interleaved sums.
pub(crate) type Lanes = [f64; NUM_LANES];

/// The largest relative error of a quick sum against an exact one.
///
/// In a block each of 16 float32 sums takes 32 fused products of a rounded difference and two are added: at most 35
/// roundings of 2^-24, 2.1e-6 in all, and nothing cancels because no term is negative. The rest covers the f64 sums of either kind, for
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
pub(crate) fn add_exact(level: Level, block: &[Row<f64>], ahead: &Ahead<'_>, squares: &mut [Lanes]) {
    match level.min(Level::best()) {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => level.run(Pairs::<Exact<vector::Wide512>, 4>::new(block, ahead, squares)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => level.run(Pairs::<Exact<vector::Wide256>, 2>::new(block, ahead, squares)),
        Level::Plain => level.run(Pairs::<Exact<[f64; 8]>, 1>::new(block, ahead, squares)),
    }
}

/// Adds the quick squares of a block to the sums of every pair of rows.
pub(crate) fn add_quick(level: Level, block: &[Row<f32>], ahead: &Ahead<'_>, squares: &mut [Lanes]) {
    match level.min(Level::best()) {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => level.run(Pairs::<Quick<vector::Narrow512>, 4>::new(block, ahead, squares)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => level.run(Pairs::<Quick<vector::Narrow256>, 2>::new(block, ahead, squares)),
        Level::Plain => level.run(Pairs::<Quick<[f32; 16]>, 1>::new(block, ahead, squares)),
    }
}

/// Adds the exact squares of a block to the sums of the first row with each of the others.
pub(crate) fn add_from_first(level: Level, block: &[Row<f64>], ahead: &Ahead<'_>, squares: &mut [Lanes]) {
    match level.min(Level::best()) {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => level.run(FromFirst::<Exact<vector::Wide512>, 4>::new(block, ahead, squares)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => level.run(FromFirst::<Exact<vector::Wide256>, 2>::new(block, ahead, squares)),
        Level::Plain => level.run(FromFirst::<Exact<[f64; 8]>, 1>::new(block, ahead, squares)),
    }
}

/// Adds the exact squares of a block to the sums of some of its rows with every row: `squares` has those of one after another.
pub(crate) fn add_from_some(
    level: Level,
    some: &[usize],
    block: &[Row<f64>],
    ahead: &Ahead<'_>,
    squares: &mut [Lanes],
) {
    match level.min(Level::best()) {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => level.run(FromSome::<Exact<vector::Wide512>, 4>::new(some, block, ahead, squares)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => level.run(FromSome::<Exact<vector::Wide256>, 2>::new(some, block, ahead, squares)),
        Level::Plain => level.run(FromSome::<Exact<[f64; 8]>, 1>::new(some, block, ahead, squares)),
    }
}

/// All pairs of rows of a block, in tiles of `SIDE` by `SIDE`.
struct Pairs<'a, S: Sum, const SIDE: usize> {
    block: &'a [Row<S::Float>],
    ahead: &'a Ahead<'a>,
    squares: &'a mut [Lanes],
}

impl<'a, S: Sum, const SIDE: usize> Pairs<'a, S, SIDE> {
    fn new(block: &'a [Row<S::Float>], ahead: &'a Ahead<'a>, squares: &'a mut [Lanes]) -> Self {
        Pairs { block, ahead, squares }
    }

    /// The sums of `A` rows from `a` on; `runs` says with which row those of a row begin, and how many there are.
    #[inline(always)]
    fn sums<const A: usize>(
        &mut self,
        a: usize,
        runs: impl Fn(usize) -> (usize, usize),
    ) -> [&mut [Lanes]; A] {
        let num_rows = self.block.len();
        let mut rest = &mut *self.squares;
        let mut at = 0;
        std::array::from_fn(|row| {
            let (b, len) = runs(a + row);
            let place = pair_place(num_rows, a + row, b);
            let (_, tail) = std::mem::take(&mut rest).split_at_mut(place - at);
            let (sums, tail) = tail.split_at_mut(len);
            (rest, at) = (tail, place + len);
            sums
        })
    }

    #[inline(always)]
    fn between<const A: usize, const B: usize>(&mut self, a: usize, b: usize, deal: &mut Deal<'_>) {
        let block = self.block;
        let sums = self.sums::<A>(a, |_| (b, B)).map(|sums| {
            sums.first_chunk_mut().unwrap_or_else(|| unreachable!("it was split off with that length"))
        });
        let rows = |from: usize| move |row| &block[from + row];
        let (a, b) = (std::array::from_fn(rows(a)), std::array::from_fn(rows(b)));
        // Compiled twice: most parts have nothing to ask for.
        match deal.next::<ASKED>() {
            None => add_between::<S, A, B, ASKED>(a, b, sums, None),
            next => add_between::<S, A, B, ASKED>(a, b, sums, next),
        }
    }

    #[inline(always)]
    fn within<const A: usize>(&mut self, a: usize, deal: &mut Deal<'_>) {
        let block = self.block;
        let sums = self.sums::<A>(a, |row| (row + 1, a + A - row - 1));
        add_within::<S, A, ASKED>(std::array::from_fn(|row| &block[a + row]), sums, deal.next::<ASKED>());
    }
}

impl<S: Sum, const SIDE: usize> Kernel for Pairs<'_, S, SIDE> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let num_rows = self.block.len();
        let whole = num_rows / SIDE * SIDE;
        let (groups, rest) = (num_rows / SIDE, usize::from(whole < num_rows));
        let deal = &mut self.ahead.deal(groups * (groups + 1) / 2 + groups * rest);
        for a in (0..whole).step_by(SIDE) {
            self.within::<SIDE>(a, deal);
            for b in (a + SIDE..whole).step_by(SIDE) {
                self.between::<SIDE, SIDE>(a, b, deal);
            }
            match num_rows - whole {
                3 => self.between::<SIDE, 3>(a, whole, deal),
                2 => self.between::<SIDE, 2>(a, whole, deal),
                1 => self.between::<SIDE, 1>(a, whole, deal),
                _ => {}
            }
        }
        match num_rows - whole {
            3 => self.within::<3>(whole, deal),
            2 => self.within::<2>(whole, deal),
            _ => {}
        }
    }
}

/// The first row of a block with each of the others, `SIDE` at a time.
struct FromFirst<'a, S: Sum, const SIDE: usize> {
    block: &'a [Row<S::Float>],
    ahead: &'a Ahead<'a>,
    squares: &'a mut [Lanes],
}

impl<'a, S: Sum, const SIDE: usize> FromFirst<'a, S, SIDE> {
    fn new(block: &'a [Row<S::Float>], ahead: &'a Ahead<'a>, squares: &'a mut [Lanes]) -> Self {
        FromFirst { block, ahead, squares }
    }
}

impl<S: Sum, const SIDE: usize> Kernel for FromFirst<'_, S, SIDE> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Some((first, rows)) = self.block.split_first() else { return };
        let (groups, rest) = rows.as_chunks::<SIDE>();
        let (group_squares, rest_squares) = self.squares.as_chunks_mut::<SIDE>();
        let mut deal = self.ahead.deal(groups.len() + rest.len());
        for (rows, squares) in groups.iter().zip(group_squares) {
            add_between::<S, 1, SIDE, ASKED_FROM_FIRST>(
                [first],
                rows.each_ref(),
                [squares],
                deal.next::<ASKED_FROM_FIRST>(),
            );
        }
        for (row, squares) in rest.iter().zip(rest_squares) {
            add_between::<S, 1, 1, ASKED_FROM_FIRST>(
                [first],
                [row],
                [std::array::from_mut(squares)],
                deal.next::<ASKED_FROM_FIRST>(),
            );
        }
    }
}

/// Some rows of a block with every row of it, two by `SIDE` at a time.
struct FromSome<'a, S: Sum, const SIDE: usize> {
    some: &'a [usize],
    block: &'a [Row<S::Float>],
    ahead: &'a Ahead<'a>,
    squares: &'a mut [Lanes],
}

impl<'a, S: Sum, const SIDE: usize> FromSome<'a, S, SIDE> {
    fn new(
        some: &'a [usize],
        block: &'a [Row<S::Float>],
        ahead: &'a Ahead<'a>,
        squares: &'a mut [Lanes],
    ) -> Self {
        FromSome { some, block, ahead, squares }
    }

    /// The sums of `A` rows, `sums[row]` those of one of them with every row.
    #[inline(always)]
    fn with_all<const A: usize>(
        &self,
        rows: [&Row<S::Float>; A],
        sums: [&mut [Lanes]; A],
        deal: &mut Deal<'_>,
    ) {
        let (groups, rest) = self.block.as_chunks::<SIDE>();
        let mut sums = sums.map(|sums| sums.as_chunks_mut::<SIDE>());
        for (place, group) in groups.iter().enumerate() {
            let sums = sums.each_mut().map(|(groups, _)| &mut groups[place]);
            add_between::<S, A, SIDE, ASKED>(rows, group.each_ref(), sums, deal.next::<ASKED>());
        }
        for (place, row) in rest.iter().enumerate() {
            let sums = sums.each_mut().map(|(_, rest)| std::array::from_mut(&mut rest[place]));
            add_between::<S, A, 1, ASKED>(rows, [row], sums, deal.next::<ASKED>());
        }
    }
}

impl<S: Sum, const SIDE: usize> Kernel for FromSome<'_, S, SIDE> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let num_rows = self.block.len();
        let mut squares = std::mem::take(&mut self.squares);
        let deal = &mut self.ahead.deal(self.some.len().div_ceil(2) * (num_rows / SIDE + num_rows % SIDE));
        let (twos, one) = self.some.as_chunks::<2>();
        for &[first, second] in twos {
            let (first_sums, rest) = squares.split_at_mut(num_rows);
            let (second_sums, rest) = rest.split_at_mut(num_rows);
            let rows = [&self.block[first], &self.block[second]];
            self.with_all(rows, [first_sums, second_sums], deal);
            squares = rest;
        }
        if let &[last] = one {
            self.with_all([&self.block[last]], [squares], deal);
        }
    }
}

const NUM_LANES: usize = 8;
const QUICK_LANES: usize = 16;
/// Rows of the next block one tile can ask for: small cohorts have fewer tiles than rows.
const ASKED: usize = 2;
const ASKED_FROM_FIRST: usize = 5;

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
