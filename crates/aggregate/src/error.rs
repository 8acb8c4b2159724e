//! What can be wrong with a rule, a cohort or the tiles it is shown. Updates are named by their row, from 0.

/// A fold that cannot be made or cannot go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to fold.
    #[error("a fold needs at least one update")]
    NoUpdates,
    /// A weight that is not a positive finite number.
    #[error("the weight {value} of update {row} is not a positive finite number")]
    BadWeight {
        /// The update.
        row: usize,
        /// Its weight.
        value: f64,
    },
    /// The weights are finite but their sum is not.
    #[error("the sum of the weights is not finite")]
    WeightSum,
    /// A share to trim that is not in [0, 0.5).
    #[error("a trimmed share of {share} is not in [0, 0.5)")]
    BadShare {
        /// The share given.
        share: f64,
    },
    /// A clip bound that is not a positive finite number.
    #[error("a clip bound of {bound} is not a positive finite number")]
    BadBound {
        /// The bound or ratio given.
        bound: f64,
    },
    /// Too few updates to withstand as many faulty ones.
    #[error("krum with {byzantine} faulty updates needs {needed} updates, got {got}")]
    TooFewUpdates {
        /// How many faulty updates are to be withstood.
        byzantine: u32,
        /// The least number of updates.
        needed: u64,
        /// Updates there are.
        got: usize,
    },
    /// A number of updates to average that is zero or more than there are.
    #[error("krum cannot keep {keep} of {updates} updates")]
    BadKeep {
        /// How many are to be kept.
        keep: u32,
        /// Updates there are.
        updates: usize,
    },
    /// A tile set of another cohort.
    #[error("expected a tile of each of {expected} updates, got {got}")]
    RowCount {
        /// Updates of the fold.
        expected: usize,
        /// Rows given.
        got: usize,
    },
    /// A tile that is not as long as the others, or no whole number of elements.
    #[error("the tile of {what} has {got} bytes where {expected} are expected")]
    TileLength {
        /// `update N` or `the current model`.
        what: String,
        /// Bytes expected.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// An output that does not have one place for each element.
    #[error("the output has {got} places for {expected} elements")]
    OutLength {
        /// Elements of the tile.
        expected: usize,
        /// Places given.
        got: usize,
    },
    /// The rule measures from the current model, which was not given.
    #[error("the rule needs the current model's tile")]
    MissingBase,
    /// A tile was observed after the prepass ended.
    #[error("the prepass has ended")]
    Sealed,
    /// A tile was to be folded before the prepass ended.
    #[error("the prepass has not ended")]
    NotSealed,
    /// A NaN or an infinity, where values are put in order or distances are measured.
    #[error("update {row} is not finite at element {element} of the tile")]
    NonFinite {
        /// The update.
        row: usize,
        /// The element, counted from the start of the tile.
        element: usize,
    },
    /// A NaN or an infinity in the current model, where distances are measured.
    #[error("the current model is not finite at element {element} of the tile")]
    BaseNonFinite {
        /// The element, counted from the start of the tile.
        element: usize,
    },
    /// Values are finite, but a sum of squared differences is not.
    #[error("the distance of update {row} overflows")]
    DistanceOverflow {
        /// The update (the first of a pair).
        row: usize,
    },
}
