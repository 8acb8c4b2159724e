//! Keys: integers in the order of the values they stand for, so that one instruction finds the smaller of two.
//!
//! The key of a float has its bits, all but the sign turned over where the sign is set: an order in which -0 comes
//! before 0 and everything that is not finite lies beyond all that is. Types of up to 32 bits have 32-bit keys.

use std::ops::RangeInclusive;

use crate::tile::Element;

/// An integer that values are ordered by.
pub(crate) trait Key: Copy + Ord + Default {
    /// One key of each of a run of columns: 256 bytes, so that a hundred rows stay in the first-level cache.
    type Columns: Columns<Self>;
}

/// The keys of a run of columns of one row.
pub(crate) trait Columns<K>: Clone {
    /// How many columns there are.
    const LEN: usize;
    /// All of them the same key.
    fn filled(key: K) -> Self;
    /// The keys.
    fn keys(&self) -> &[K];
    /// Takes in as many elements as there are columns, or fewer at the end of a row; `least` and `most` are kept
    /// the smallest and largest key each column has seen.
    fn load<E: Element<Key = K>>(&mut self, row: &[E::Raw], least: &mut Self, most: &mut Self);
    /// Leaves the smaller key of every column in `self`, the larger in `high`.
    fn exchange(&mut self, high: &mut Self);
}

/// Keys that begin at a line of the cache: half of all accesses would touch two lines otherwise.
#[derive(Clone)]
#[repr(align(64))]
pub(crate) struct Aligned<A>(A);

macro_rules! key {
    ($key:ident, $len:literal) => {
        impl Key for $key {
            type Columns = Aligned<[$key; $len]>;
        }

        impl Columns<$key> for Aligned<[$key; $len]> {
            const LEN: usize = $len;

            #[inline(always)]
            fn filled(key: $key) -> Self {
                Aligned([key; $len])
            }

            #[inline(always)]
            fn keys(&self) -> &[$key] {
                &self.0
            }

            #[inline(always)]
            fn load<E: Element<Key = $key>>(&mut self, row: &[E::Raw], least: &mut Self, most: &mut Self) {
                let places = self.0.iter_mut().zip(&mut least.0).zip(&mut most.0);
                let take = |(((key, least), most), raw): (((&mut $key, &mut $key), &mut $key), &E::Raw)| {
                    *key = E::key(*raw);
                    *least = (*least).min(*key);
                    *most = (*most).max(*key);
                };
                // The same loop twice: of a fixed length wherever there are as many.
                match row.first_chunk::<$len>() {
                    Some(row) => places.zip(row).for_each(take),
                    None => places.zip(row).for_each(take),
                }
            }

            #[inline(always)]
            fn exchange(&mut self, high: &mut Self) {
                for (a, b) in self.0.iter_mut().zip(&mut high.0) {
                    (*a, *b) = ((*a).min(*b), (*a).max(*b));
                }
            }
        }
    };
}

key!(i32, 64);
key!(i64, 32);

/// The keys of the finite float32 values, and of all integers.
pub(crate) const FINITE_F32: RangeInclusive<i32> = of_f32(f32::MIN)..=of_f32(f32::MAX);
pub(crate) const FINITE_F64: RangeInclusive<i64> = of_f64(f64::MIN)..=of_f64(f64::MAX);
pub(crate) const ALL_32: RangeInclusive<i32> = i32::MIN..=i32::MAX;

/// The key of a float32.
#[inline(always)]
pub(crate) const fn of_f32(value: f32) -> i32 {
    turn_32(value.to_bits().cast_signed())
}

/// The value of a key; of either zero it is the positive one, so that the order of rows cannot show.
#[inline(always)]
pub(crate) fn to_f32(key: i32) -> f32 {
    f32::from_bits(turn_32(key).cast_unsigned()) + 0.0
}

/// The key of an f64.
#[inline(always)]
pub(crate) const fn of_f64(value: f64) -> i64 {
    turn_64(value.to_bits().cast_signed())
}

/// The value of a key, zeros as of [`to_f32`].
#[inline(always)]
pub(crate) fn to_f64(key: i64) -> f64 {
    f64::from_bits(turn_64(key).cast_unsigned()) + 0.0
}

/// Its own inverse.
#[inline(always)]
const fn turn_32(bits: i32) -> i32 {
    bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed()
}

#[inline(always)]
const fn turn_64(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_values_and_give_them_back() {
        let least = f32::from_bits(1);
        let values =
            [f32::NEG_INFINITY, f32::MIN, -1.5, -1.0, -least, -0.0, 0.0, least, 1.0, f32::MAX, f32::INFINITY];
        assert!(values.windows(2).all(|pair| of_f32(pair[0]) < of_f32(pair[1])));
        assert!(values.windows(2).all(|pair| of_f64(pair[0].into()) < of_f64(pair[1].into())));
        for value in values {
            assert_eq!(to_f32(of_f32(value)), value);
            assert_eq!(to_f64(of_f64(value.into())), f64::from(value));
        }
        assert_eq!(to_f32(of_f32(-0.0)).to_bits(), 0);
        assert_eq!(to_f64(of_f64(-0.0)).to_bits(), 0);
    }

    #[test]
    fn what_is_not_finite_lies_beyond() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!FINITE_F32.contains(&of_f32(bad)));
            assert!(!FINITE_F64.contains(&of_f64(bad.into())));
        }
        assert!(FINITE_F32.contains(&of_f32(-0.0)) && FINITE_F64.contains(&of_f64(f64::MIN)));
    }
}
