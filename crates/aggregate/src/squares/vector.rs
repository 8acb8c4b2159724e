//! Vectors of eight f64 or sixteen float32: one register, two halves of one, or a plain array.
//!
//! Every operation rounds each lane as the scalar one does, so all forms give the same bits.

/// A vector of floats.
pub(super) trait Vector: Copy {
    /// A float of it.
    type Lane;
    /// Its floats in memory.
    type Lanes;
    fn load(lanes: &Self::Lanes) -> Self;
    fn store(self) -> Self::Lanes;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self × factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
}

macro_rules! plain {
    ($lane:ident, $len:literal) => {
        impl Vector for [$lane; $len] {
            type Lane = $lane;
            type Lanes = [$lane; $len];
            #[inline(always)]
            fn load(lanes: &[$lane; $len]) -> Self {
                *lanes
            }
            #[inline(always)]
            fn store(self) -> [$lane; $len] {
                self
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                std::array::from_fn(|lane| self[lane] + other[lane])
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                std::array::from_fn(|lane| self[lane] - other[lane])
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                std::array::from_fn(|lane| self[lane] * other[lane])
            }
            #[inline(always)]
            fn mul_add(self, factor: Self, term: Self) -> Self {
                std::array::from_fn(|lane| self[lane].mul_add(factor[lane], term[lane]))
            }
        }
    };
}

plain!(f64, 8);
plain!(f32, 16);

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Narrow256, Narrow512, Wide256, Wide512};

/// The registers of x86-64. Used only inside kernels of a level that has them.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    macro_rules! vector {
        ($name:ident, $lane:ident, $len:literal, $register:ident; $parts:literal, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $fma:ident) => {
            #[derive(Clone, Copy)]
            pub(in super::super) struct $name([$register; $parts]);

            #[expect(unsafe_code, reason = "instructions of a processor feature, and loads from arrays")]
            impl Vector for $name {
                type Lane = $lane;
                type Lanes = [$lane; $len];

                #[inline(always)]
                fn load(lanes: &[$lane; $len]) -> Self {
                    let lanes = lanes.as_ptr();
                    // SAFETY: the parts together are the array; the kernel runs at a level with the instructions.
                    $name(std::array::from_fn(|part| unsafe { $load(lanes.add(part * $len / $parts)) }))
                }

                #[inline(always)]
                fn store(self) -> [$lane; $len] {
                    let mut lanes = [0.0; $len];
                    let to = lanes.as_mut_ptr();
                    for part in 0..$parts {
                        // SAFETY: as of `load`.
                        unsafe { $store(to.add(part * $len / $parts), self.0[part]) };
                    }
                    lanes
                }

                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    // SAFETY: the kernel runs at a level with the instruction.
                    $name(std::array::from_fn(|part| unsafe { $add(self.0[part], other.0[part]) }))
                }

                #[inline(always)]
                fn sub(self, other: Self) -> Self {
                    // SAFETY: the kernel runs at a level with the instruction.
                    $name(std::array::from_fn(|part| unsafe { $sub(self.0[part], other.0[part]) }))
                }

                #[inline(always)]
                fn mul(self, other: Self) -> Self {
                    // SAFETY: the kernel runs at a level with the instruction.
                    $name(std::array::from_fn(|part| unsafe { $mul(self.0[part], other.0[part]) }))
                }

                #[inline(always)]
                fn mul_add(self, factor: Self, term: Self) -> Self {
                    // SAFETY: the kernel runs at a level with the instruction.
                    $name(std::array::from_fn(|part| unsafe {
                        $fma(self.0[part], factor.0[part], term.0[part])
                    }))
                }
            }
        };
    }

    vector!(Wide512, f64, 8, __m512d; 1, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_add_pd, _mm512_sub_pd, _mm512_mul_pd, _mm512_fmadd_pd);
    vector!(Wide256, f64, 8, __m256d; 2, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_add_pd, _mm256_sub_pd, _mm256_mul_pd, _mm256_fmadd_pd);
    vector!(Narrow512, f32, 16, __m512; 1, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps, _mm512_fmadd_ps);
    vector!(Narrow256, f32, 16, __m256; 2, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps, _mm256_fmadd_ps);
}
