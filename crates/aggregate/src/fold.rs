//! The fold: a rule bound to a cohort, its prepass, and the folding of tiles.
//!
//! Order of use: [`Fold::new`]; where [`Fold::needs_prepass`], every tile of every tensor to [`Fold::observe`] once
//! and in order, then [`Fold::seal`]; then any tiles to [`Fold::fold`], in any order and from any thread.

use std::ops::Range;

use sheaf_tensor::cpu::Level;

use crate::krum::{Choice, Pairs, Recount};
use crate::network::Network;
use crate::{
    Clip, Error, Rule, TileSet, clip, clip::Norms, compatible, geometric, mean, median, network, trimmed,
};

/// A rule bound to the weights of a cohort.
///
/// # Examples
/// ```
/// use sheaf_aggregate::{Fold, Rule, TileSet};
/// use sheaf_tensor::Dtype;
///
/// let rows: [&[u8]; 3] = [&[7], &[200], &[9]];
/// let tiles = TileSet { dtype: Dtype::U8, rows: &rows, base: None };
/// let mut fold = Fold::new(Rule::Krum { byzantine: 0, keep: 2 }, &[1.0; 3])?;
/// fold.observe(&tiles)?;
/// fold.seal()?;
/// let mut out = [0.0];
/// fold.fold(&tiles, &mut out)?;
/// assert_eq!((fold.selected(), out), (vec![0, 2], [8.0]));
/// # Ok::<(), sheaf_aggregate::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Fold {
    weights: Vec<f64>,
    total: f64,
    level: Level,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Mean,
    Compatible,
    CompatibleSum,
    /// The pairs for a geometric median, and the weighted mean that it has become.
    Spanning(Pairs),
    Centred {
        coefficients: Vec<f64>,
    },
    Measuring {
        norms: Norms,
        clip: Clip,
    },
    Clipped {
        scales: Vec<f64>,
        coefficients: Vec<f64>,
    },
    Median(Network),
    Trimmed {
        network: Network,
        ranks: Range<usize>,
    },
    Comparing {
        pairs: Pairs,
        byzantine: u32,
        keep: u32,
    },
    /// Some of Krum's scores are measured again.
    Recounting {
        recount: Recount,
        byzantine: u32,
    },
    Chosen {
        rows: Vec<usize>,
        weights: Vec<f64>,
    },
}

impl State {
    fn chosen(rows: Vec<usize>) -> State {
        State::Chosen { weights: vec![1.0; rows.len()], rows }
    }
}

impl Fold {
    /// Binds `rule` to a cohort: one weight for each update, in canonical order.
    ///
    /// # Errors
    /// [`Error::NoUpdates`], [`Error::BadWeight`] or [`Error::WeightSum`]; a parameter or a cohort size the rule
    /// refuses, as of [`Rule::check`].
    pub fn new(rule: Rule, weights: &[f64]) -> Result<Fold, Error> {
        let num_updates = weights.len();
        rule.check(num_updates)?;
        let bad = |weight: &&f64| !(weight.is_finite() && **weight > 0.0);
        if let Some((row, value)) = weights.iter().enumerate().find(|(_, weight)| bad(weight)) {
            return Err(Error::BadWeight { row, value: *value });
        }
        let total: f64 = weights.iter().sum();
        if !total.is_finite() {
            return Err(Error::WeightSum);
        }
        let state = match rule {
            Rule::WeightedMean => State::Mean,
            Rule::CompatibleMean => State::Compatible,
            Rule::CompatibleSum => State::CompatibleSum,
            Rule::GeometricMedian => State::Spanning(Pairs::exact(num_updates)),
            Rule::NormClippedMean(clip) => State::Measuring { norms: Norms::new(num_updates), clip },
            Rule::Median => State::Median(Network::new(num_updates, median::ranks(num_updates))),
            Rule::TrimmedMean { share } => {
                let ranks = trimmed::ranks(num_updates, share);
                State::Trimmed { network: Network::new(num_updates, ranks.clone()), ranks }
            }
            Rule::Krum { byzantine, keep } => {
                State::Comparing { pairs: Pairs::new(num_updates, Level::best()), byzantine, keep }
            }
        };
        Ok(Fold { weights: weights.to_vec(), total, level: Level::best(), state })
    }

    /// Uses the instructions of `level` in place of the best there are; the bits are the same.
    ///
    /// To be called before the first tile is observed.
    #[must_use]
    pub fn at(mut self, level: Level) -> Fold {
        if let State::Comparing { pairs, .. } = &mut self.state {
            *pairs = Pairs::new(self.weights.len(), level);
        }
        self.level = level;
        self
    }

    /// Whether all tiles must be observed, and the fold sealed, before one is folded.
    pub fn needs_prepass(&self) -> bool {
        matches!(
            self.state,
            State::Spanning(_) | State::Measuring { .. } | State::Comparing { .. } | State::Recounting { .. }
        )
    }

    /// Takes in one tile of the prepass; rules without one ignore it.
    ///
    /// After an error the fold is of no more use.
    ///
    /// # Errors
    /// Lengths that do not agree; [`Error::MissingBase`]; [`Error::NonFinite`], [`Error::BaseNonFinite`] or
    /// [`Error::DistanceOverflow`]; [`Error::Sealed`] after [`Fold::seal`].
    pub fn observe(&mut self, tiles: &TileSet<'_>) -> Result<(), Error> {
        tiles.check(self.weights.len())?;
        match &mut self.state {
            State::Measuring { norms, .. } => norms.observe(self.level, tiles),
            State::Spanning(pairs) | State::Comparing { pairs, .. } => pairs.observe(self.level, tiles),
            State::Recounting { recount, .. } => {
                recount.observe(self.level, tiles);
                Ok(())
            }
            State::Clipped { .. } | State::Chosen { .. } | State::Centred { .. } => Err(Error::Sealed),
            _ => Ok(()),
        }
    }

    /// Ends the prepass: settles the scales, the selection or the coefficients. Rules without a prepass ignore it.
    ///
    /// # Errors
    /// [`Error::DistanceOverflow`]; [`Error::Sealed`] the second time.
    pub fn seal(&mut self) -> Result<(), Error> {
        let level = self.level;
        self.state = match &mut self.state {
            State::Measuring { norms, clip } => {
                norms.finish(level);
                let scales = norms.scales(*clip)?;
                let coefficients =
                    self.weights.iter().zip(&scales).map(|(weight, scale)| weight * scale).collect();
                State::Clipped { scales, coefficients }
            }
            State::Spanning(pairs) => {
                pairs.finish(level);
                State::Centred { coefficients: geometric::coefficients(pairs, &self.weights)? }
            }
            State::Comparing { pairs, byzantine, keep } => match pairs.choose(level, *byzantine, *keep)? {
                Choice::Kept(rows) => State::chosen(rows),
                Choice::Close(unclear) => {
                    let recount = Recount::new(self.weights.len(), unclear);
                    State::Recounting { recount, byzantine: *byzantine }
                }
                Choice::Open => {
                    let pairs = Pairs::exact(self.weights.len());
                    State::Comparing { pairs, byzantine: *byzantine, keep: *keep }
                }
            },
            State::Recounting { recount, byzantine } => State::chosen(recount.choose(level, *byzantine)),
            State::Clipped { .. } | State::Chosen { .. } | State::Centred { .. } => {
                return Err(Error::Sealed);
            }
            _ => return Ok(()),
        };
        Ok(())
    }

    /// Folds one tile into `out`.
    ///
    /// # Shapes
    /// `tiles.rows: [K][P]`, `out: [P]`.
    /// # Numerics
    /// f64 throughout, whatever the dtype; 64-bit integers beyond 2^53 are rounded to f64 first. Means propagate NaN
    /// and infinity to their coordinate; the median and the trimmed mean refuse them. A finite f64 update can still
    /// give an infinite mean, where the weighted sum leaves the range.
    /// # Errors
    /// Lengths that do not agree; [`Error::NotSealed`], [`Error::MissingBase`] or [`Error::NonFinite`]. What `out`
    /// holds after an error is unspecified.
    pub fn fold(&self, tiles: &TileSet<'_>, out: &mut [f64]) -> Result<(), Error> {
        let num_elements = tiles.check(self.weights.len())?;
        if out.len() != num_elements {
            return Err(Error::OutLength { expected: num_elements, got: out.len() });
        }
        match &self.state {
            State::Mean => mean::fold(self.level, tiles.dtype, tiles.rows, &self.weights, out),
            State::Compatible => compatible::fold(self.level, tiles.dtype, tiles.rows, &self.weights, out),
            State::CompatibleSum => compatible::sum(self.level, tiles.dtype, tiles.rows, out),
            State::Centred { coefficients } => {
                mean::fold(self.level, tiles.dtype, tiles.rows, coefficients, out);
            }
            State::Clipped { coefficients, .. } => {
                return clip::fold(self.level, tiles, coefficients, self.total, out);
            }
            State::Median(network) => return median::fold(self.level, network, tiles, out),
            State::Trimmed { network, ranks } => {
                return trimmed::fold(self.level, network, ranks, tiles, out);
            }
            State::Chosen { rows, weights } => {
                let kept: Vec<&[u8]> = rows.iter().filter_map(|row| tiles.rows.get(*row).copied()).collect();
                mean::fold(self.level, tiles.dtype, &kept, weights, out);
            }
            State::Spanning(_)
            | State::Measuring { .. }
            | State::Comparing { .. }
            | State::Recounting { .. } => return Err(Error::NotSealed),
        }
        Ok(())
    }

    /// How many bytes the fold holds beside its tiles while `threads` fold at once: what a prepass keeps, and the rows a
    /// network works on.
    pub fn held_bytes(&self, threads: usize) -> u64 {
        let num_updates = self.weights.len() as u64;
        match &self.state {
            State::Measuring { norms, .. } => norms.held_bytes(),
            State::Spanning(pairs) | State::Comparing { pairs, .. } => pairs.held_bytes(),
            State::Recounting { recount, .. } => recount.held_bytes(),
            State::Median(_) | State::Trimmed { .. } => {
                network::WORK_ROW_BYTES * num_updates * threads as u64
            }
            _ => 0,
        }
    }

    /// The updates that count, in canonical order: all, or those Krum chose (none before [`Fold::seal`]).
    pub fn selected(&self) -> Vec<usize> {
        match &self.state {
            State::Chosen { rows, .. } => rows.clone(),
            State::Comparing { .. } | State::Recounting { .. } => Vec::new(),
            _ => (0..self.weights.len()).collect(),
        }
    }

    /// The scale of every update: 1, or what the norm clip made of it (1 for all before [`Fold::seal`]).
    pub fn scales(&self) -> Vec<f64> {
        match &self.state {
            State::Clipped { scales, .. } => scales.clone(),
            _ => vec![1.0; self.weights.len()],
        }
    }
}
