//! The run-time choice of vector instructions: one kernel, compiled once for each level of the processor.
//!
//! A kernel is ordinary safe Rust; a level only says with how wide instructions the compiler may write it. Nothing
//! is reassociated or fused for a wider one, so all levels give the same bits.

/// How wide the vector instructions of a kernel are.
///
/// # Examples
/// ```
/// use sheaf_tensor::cpu::{Kernel, Level};
///
/// struct Sum<'a>(&'a [u32]);
/// impl Kernel for Sum<'_> {
///     type Output = u32;
///     #[inline(always)]
///     fn run(self) -> u32 {
///         self.0.iter().fold(0, |sum, value| sum.wrapping_add(*value))
///     }
/// }
/// for level in Level::available() {
///     assert_eq!(level.run(Sum(&[1, 2, 3])), 6);
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of the target has.
    Plain,
    /// 256-bit vectors: AVX2, FMA, F16C and BMI2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors: AVX-512 F, BW, DQ and VL beside all of the level below.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// A loop that is compiled for every [`Level`].
///
/// `run`, and every function of ours it calls, should be `#[inline(always)]`: what is not inlined is compiled for
/// [`Level::Plain`], right but slow.
pub trait Kernel {
    /// What the loop gives back.
    type Output;
    /// Runs it.
    fn run(self) -> Self::Output;
}

impl Level {
    /// The best level this processor has.
    #[inline]
    pub fn best() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx512() {
                return Level::Avx512;
            }
            if has_avx2() {
                return Level::Avx2;
            }
        }
        Level::Plain
    }

    /// Every level this processor has, the plain one first.
    pub fn available() -> Vec<Level> {
        let best = Level::best();
        let all = [
            Level::Plain,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512,
        ];
        all.into_iter().filter(|level| *level <= best).collect()
    }

    /// Runs a kernel at this level, or at the best below it that the processor has.
    #[expect(
        unsafe_code,
        reason = "functions of a processor feature are called once it is known to be there"
    )]
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.min(Level::best()) {
            Level::Plain => kernel.run(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level is at most the best one, which was chosen by asking the processor for each feature.
            Level::Avx2 => unsafe { avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512 => unsafe { avx512(kernel) },
        }
    }
}

/// Asks for the line of `slice[place]` to be brought near; beyond the end, and where there is no such instruction,
/// nothing happens.
#[inline(always)]
#[expect(unsafe_code, reason = "the instruction takes a raw pointer")]
pub fn prefetch<T>(slice: &[T], place: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE; a prefetch reads nothing a program can see and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(slice.as_ptr().wrapping_add(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, place);
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi2")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi2")]
fn avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")]
fn avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}
