//! The sums of one tile of pairs over one block, in registers: exact in f64, quick in float32.
//!
//! Loops, not closures: the library's functions that take these are not always inlined, and what is not is compiled for
//! no [`sheaf_tensor::cpu::Level`] but the plain one.

use std::marker::PhantomData;

use super::vector::Vector;
use super::{Lanes, NUM_LANES, QUICK_LANES};
use crate::ahead::Dealt;
use crate::staging::{BLOCK_LEN, Row};

/// How the squares of one pair of rows are added up over a block.
pub(super) trait Sum {
    type Float;
    type Vector: Copy;
    /// Vectors in a row of a block.
    const STEPS: usize;
    /// One vector of a row.
    fn load(row: &Row<Self::Float>, step: usize) -> Self::Vector;
    /// The sum before the block.
    fn open(lanes: &Lanes) -> Self::Vector;
    /// Adds the squares of one vector of either row.
    fn take(sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Writes the sum after the block.
    fn close(sum: Self::Vector, lanes: &mut Lanes);
}

/// Exact sums in vectors of eight f64.
pub(super) struct Exact<V>(PhantomData<V>);

impl<V: Vector<Lane = f64, Lanes = Lanes>> Sum for Exact<V> {
    type Float = f64;
    type Vector = V;
    const STEPS: usize = BLOCK_LEN / NUM_LANES;

    #[inline(always)]
    fn load(row: &Row<f64>, step: usize) -> V {
        V::load(&row.0.as_chunks::<NUM_LANES>().0[step])
    }

    #[inline(always)]
    fn open(lanes: &Lanes) -> V {
        V::load(lanes)
    }

    #[inline(always)]
    fn take(sum: V, a: V, b: V) -> V {
        let difference = a.sub(b);
        sum.add(difference.mul(difference))
    }

    #[inline(always)]
    fn close(sum: V, lanes: &mut Lanes) {
        *lanes = sum.store();
    }
}

/// Quick sums in vectors of sixteen float32.
pub(super) struct Quick<V>(PhantomData<V>);

impl<V: Vector<Lane = f32, Lanes = [f32; QUICK_LANES]>> Sum for Quick<V> {
    type Float = f32;
    type Vector = V;
    const STEPS: usize = BLOCK_LEN / QUICK_LANES;

    #[inline(always)]
    fn load(row: &Row<f32>, step: usize) -> V {
        V::load(&row.0.as_chunks::<QUICK_LANES>().0[step])
    }

    #[inline(always)]
    fn open(_: &Lanes) -> V {
        V::load(&[0.0; QUICK_LANES])
    }

    #[inline(always)]
    fn take(sum: V, a: V, b: V) -> V {
        let difference = a.sub(b);
        difference.mul_add(difference, sum)
    }

    #[inline(always)]
    fn close(sum: V, lanes: &mut Lanes) {
        let sum = sum.store();
        for lane in 0..NUM_LANES {
            lanes[lane] += f64::from(sum[lane] + sum[lane + NUM_LANES]);
        }
    }
}

/// Adds the squares of `A` rows against `B` over a block.
#[inline(always)]
pub(super) fn add_between<S: Sum, const A: usize, const B: usize, const N: usize>(
    a: [&Row<S::Float>; A],
    b: [&Row<S::Float>; B],
    sums: [&mut [Lanes; B]; A],
    next: Option<Dealt<'_, N>>,
) {
    let mut acc = [[S::open(&sums[0][0]); B]; A];
    for row in 0..A {
        for column in 0..B {
            acc[row][column] = S::open(&sums[row][column]);
        }
    }
    let mut left = [acc[0][0]; A];
    for step in 0..S::STEPS {
        if let Some(next) = &next {
            next.ask(step, S::STEPS);
        }
        for row in 0..A {
            left[row] = S::load(a[row], step);
        }
        for column in 0..B {
            let right = S::load(b[column], step);
            for row in 0..A {
                acc[row][column] = S::take(acc[row][column], left[row], right);
            }
        }
    }
    for row in 0..A {
        for column in 0..B {
            S::close(acc[row][column], &mut sums[row][column]);
        }
    }
}

/// Adds the squares of `A` rows against one another over a block; `sums[row]` is of the row with those after it.
#[inline(always)]
pub(super) fn add_within<S: Sum, const A: usize, const N: usize>(
    rows: [&Row<S::Float>; A],
    sums: [&mut [Lanes]; A],
    next: Option<Dealt<'_, N>>,
) {
    let none = S::open(&Lanes::default());
    let mut acc = [[none; A]; A];
    for low in 0..A {
        for high in low + 1..A {
            acc[low][high] = S::open(&sums[low][high - low - 1]);
        }
    }
    let mut values = [none; A];
    for step in 0..S::STEPS {
        if let Some(next) = &next {
            next.ask(step, S::STEPS);
        }
        for row in 0..A {
            values[row] = S::load(rows[row], step);
        }
        for low in 0..A {
            for high in low + 1..A {
                acc[low][high] = S::take(acc[low][high], values[low], values[high]);
            }
        }
    }
    for low in 0..A {
        for high in low + 1..A {
            S::close(acc[low][high], &mut sums[low][high - low - 1]);
        }
    }
}
