//! The rules of folding and what each asks of its parameters and its cohort.
//!
//! A rule is checked against a cohort when a [`crate::Fold`] is made, so that folding cannot meet a bad one.

use crate::Error;

/// How the updates of a cohort become one set of tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Sum of weight × value over sum of weights.
    ///
    /// # Source
    /// McMahan 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data"
    /// (<https://arxiv.org/abs/1602.05629>), Algorithm 1, weights n_k / n.
    WeightedMean,
    /// The same in float32 throughout, for the bits of programs that have nothing else; see the numerics of its module.
    CompatibleMean,
    /// The sum in float32, in row order and starting from +0. Weights do not count.
    CompatibleSum,
    /// The point whose weighted distances (L2 over all that is shown) from the updates are the least, after four steps of the
    /// smoothed Weiszfeld algorithm from the weighted mean; see the numerics of its module.
    ///
    /// # Source
    /// Pillutla 2019, "Robust Aggregation for Federated Learning" (<https://arxiv.org/abs/1912.13445>), algorithm 2, as
    /// openfl 1.9 has it (`GeometricMedian`).
    GeometricMedian,
    /// A weighted mean in which the distance of each update from the current model is bounded first:
    /// `base + sum w_k s_k (x_k - base) / sum w_k` with `s_k = min(1, bound / |x_k - base|)`, the L2 norm over
    /// all tensors.
    ///
    /// # Source
    /// Sun 2019, "Can You Really Backdoor Federated Learning?" (<https://arxiv.org/abs/1911.07963>),
    /// norm thresholding; the bound relative to the cohort's median is ours.
    NormClippedMean(Clip),
    /// The median of each coordinate; for an even number of updates the mean of the two middle values. Weights
    /// do not count.
    ///
    /// # Source
    /// Yin 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates"
    /// (<https://arxiv.org/abs/1803.01498>), definition 1.
    Median,
    /// The mean of each coordinate without its `floor(share × k)` smallest and as many largest values. Weights do
    /// not count.
    ///
    /// # Source
    /// Yin 2018, definition 2. The product is rounded as an f64 before the floor, as NumPy code does it.
    TrimmedMean {
        /// The share cut off at each end, in [0, 0.5).
        share: f64,
    },
    /// The mean of the `keep` updates with the smallest Krum score: the sum of the squared L2 distances (over all
    /// tensors) to the `k - byzantine - 2` nearest other updates. Equal scores rank in canonical order. Weights do
    /// not count.
    ///
    /// # Source
    /// Blanchard 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent"
    /// (<https://arxiv.org/abs/1703.02757>), Krum and Multi-Krum: `n` is the cohort, `f` is `byzantine`, `m` is `keep`.
    Krum {
        /// How many faulty updates are to be withstood; the cohort must have `2 × byzantine + 3` at least.
        byzantine: u32,
        /// How many updates are averaged: 1 is Krum, more is Multi-Krum.
        keep: u32,
    },
}

/// How far an update may be from the current model (L2 norm over all tensors).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// This many times the median of the cohort's distances.
    NormRatio(f64),
    /// This distance.
    NormMax(f64),
}

impl Rule {
    /// Checks the parameters, and that a cohort of `num_updates` can be folded.
    ///
    /// # Errors
    /// [`Error::NoUpdates`], [`Error::BadBound`], [`Error::BadShare`], [`Error::TooFewUpdates`] or [`Error::BadKeep`].
    pub fn check(&self, num_updates: usize) -> Result<(), Error> {
        if num_updates == 0 {
            return Err(Error::NoUpdates);
        }
        match *self {
            Rule::WeightedMean
            | Rule::CompatibleMean
            | Rule::CompatibleSum
            | Rule::GeometricMedian
            | Rule::Median => Ok(()),
            Rule::NormClippedMean(Clip::NormRatio(bound) | Clip::NormMax(bound)) => {
                if bound.is_finite() && bound > 0.0 { Ok(()) } else { Err(Error::BadBound { bound }) }
            }
            Rule::TrimmedMean { share } => {
                // Below one half, what is cut at both ends is always less than the whole.
                if (0.0..0.5).contains(&share) { Ok(()) } else { Err(Error::BadShare { share }) }
            }
            Rule::Krum { byzantine, keep } => {
                let needed = 2 * u64::from(byzantine) + 3;
                if (num_updates as u64) < needed {
                    return Err(Error::TooFewUpdates { byzantine, needed, got: num_updates });
                }
                if keep == 0 || u64::from(keep) > num_updates as u64 {
                    return Err(Error::BadKeep { keep, updates: num_updates });
                }
                Ok(())
            }
        }
    }
}
