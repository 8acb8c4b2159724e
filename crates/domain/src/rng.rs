//! Seeded randomness that is the same on every machine and in every release: ChaCha8 and distributions of our own.
//!
//! Not for secrets. Nothing here reads entropy; the seed is always handed in.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::Hasher;

/// A seeded generator.
///
/// # Examples
/// ```
/// use sheaf_domain::rng::SeededRng;
///
/// let mut order = [1, 2, 3, 4, 5];
/// SeededRng::new(7, "batches/1").shuffle(&mut order);
/// let mut again = [1, 2, 3, 4, 5];
/// SeededRng::new(7, "batches/1").shuffle(&mut again);
/// assert_eq!(order, again);
/// ```
#[derive(Debug, Clone)]
pub struct SeededRng(ChaCha8Rng);

impl SeededRng {
    /// A generator for the purpose `label` under `seed`; different labels give independent streams.
    pub fn new(seed: u64, label: &str) -> SeededRng {
        let mut hasher = Hasher::new();
        hasher.update(b"sheaf rng 1\0");
        hasher.update(&seed.to_le_bytes());
        hasher.update(label.as_bytes());
        SeededRng(ChaCha8Rng::from_seed(*hasher.finish().as_bytes()))
    }

    /// A uniform 64-bit number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // Rejection keeps the distribution exactly uniform.
        let limit = u64::MAX - u64::MAX % bound;
        loop {
            let value = self.next_u64();
            if value < limit {
                return value % bound;
            }
        }
    }

    /// A uniform real number in [0, 1), of 53 random bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in an f64")]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A normal number of mean 0 and standard deviation 1, by the polar method.
    ///
    /// # Source
    /// Marsaglia and Bray 1964, "A convenient method for generating normal variables".
    pub fn normal(&mut self) -> f64 {
        loop {
            let (u, v) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                return u * (-2.0 * s.ln() / s).sqrt();
            }
        }
    }

    /// A Gamma number of the given shape and scale 1; `shape` must be positive.
    ///
    /// # Source
    /// Marsaglia and Tsang 2000, "A simple method for generating gamma variables", with its boost for shapes below 1.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// Shuffles `items` uniformly (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let bound = last as u64 + 1;
            // `below` returns at most `last`, which is a usize.
            let other = usize::try_from(self.below(bound)).unwrap_or(last);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_never_changes() {
        let mut rng = SeededRng::new(7, "pin");
        let first: Vec<u64> = (0..3).map(|_| rng.below(1000)).collect();
        let mut again = SeededRng::new(7, "pin");
        let second: Vec<u64> = (0..3).map(|_| again.below(1000)).collect();
        assert_eq!(first, [372, 176, 162]);
        assert_eq!(first, second);
        assert_ne!(SeededRng::new(7, "a").next_u64(), SeededRng::new(7, "b").next_u64());
    }

    #[test]
    fn gamma_has_its_mean() {
        let mut rng = SeededRng::new(1, "gamma");
        for shape in [0.5, 2.0] {
            let mean = (0..20_000).map(|_| rng.gamma(shape)).sum::<f64>() / 20_000.0;
            assert!((mean - shape).abs() < 0.05 * shape.max(1.0), "{shape}: {mean}");
        }
    }
}
