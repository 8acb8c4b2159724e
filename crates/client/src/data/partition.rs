//! How examples are shared out among sites, and what is held back: pure functions of labels and a seed.

use sheaf_domain::rng::SeededRng;

use super::Error;

/// The fewest examples a site is left with.
pub const EXAMPLES_MIN: usize = 10;
/// How many splits are drawn before giving up.
const DRAWS_MAX: u32 = 10_000;

/// Shares examples out so that sites differ in their mix of classes: for each class, the shares of the sites are drawn
/// from a symmetric Dirichlet distribution. Small `alpha` makes sites differ more.
///
/// A split that leaves a site under [`EXAMPLES_MIN`] is redrawn with a seed derived from the first.
///
/// Gives the rows of each site, in ascending order; every row belongs to one site.
///
/// # Errors
/// [`Error::TooManySites`] when no split can exist, [`Error::NoSplit`] when none was found, [`Error::Parameter`].
///
/// # Examples
/// ```
/// let labels: Vec<usize> = (0..200).map(|row| row % 4).collect();
/// let sites = sheaf_client::data::dirichlet(&labels, 3, 0.5, 7)?;
/// assert_eq!(sites.iter().map(Vec::len).sum::<usize>(), 200);
/// assert!(sites.iter().all(|rows| rows.len() >= 10));
/// # Ok::<(), sheaf_client::data::Error>(())
/// ```
/// # Source
/// Hsu 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification"
/// (<https://arxiv.org/abs/1909.06335>), in the per-class form of Yurochkin 2019, "Bayesian Nonparametric Federated
/// Learning of Neural Networks" (<https://arxiv.org/abs/1905.12022>), section 4.
pub fn dirichlet(
    labels: &[usize],
    num_sites: usize,
    alpha: f64,
    seed: u64,
) -> Result<Vec<Vec<usize>>, Error> {
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(Error::Parameter { name: "alpha", value: alpha, range: "a positive number" });
    }
    if num_sites == 0 {
        return Err(Error::Parameter { name: "sites", value: 0.0, range: "at least 1" });
    }
    let sites_max = labels.len() / EXAMPLES_MIN;
    if num_sites > sites_max {
        return Err(Error::TooManySites { sites: num_sites, examples: labels.len(), sites_max });
    }
    let by_class = rows_by_class(labels);
    for draw in 0..DRAWS_MAX {
        let mut rng = SeededRng::new(seed, &format!("partition/dirichlet/{draw}"));
        let mut sites = share_out(&by_class, num_sites, alpha, &mut rng);
        if sites.iter().all(|rows| rows.len() >= EXAMPLES_MIN) {
            sites.iter_mut().for_each(|rows| rows.sort_unstable());
            return Ok(sites);
        }
    }
    Err(Error::NoSplit { draws: DRAWS_MAX, examples: labels.len(), sites: num_sites, alpha })
}

/// Splits `num_rows` rows into those to train on and `share` of them held back, both in ascending order.
///
/// # Errors
/// [`Error::Parameter`] for a share that leaves nothing on one side.
pub fn split_holdout(num_rows: usize, share: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>), Error> {
    let bad = Error::Parameter {
        name: "holdout share",
        value: share,
        range: "a share that leaves rows on both sides",
    };
    if !(0.0..1.0).contains(&share) {
        return Err(bad);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share in [0, 1) of a count"
    )]
    let num_held = (share * num_rows as f64).round() as usize;
    if num_held == 0 || num_held >= num_rows {
        return Err(bad);
    }
    let mut rows: Vec<usize> = (0..num_rows).collect();
    SeededRng::new(seed, "partition/holdout").shuffle(&mut rows);
    let mut held = rows.split_off(num_rows - num_held);
    rows.sort_unstable();
    held.sort_unstable();
    Ok((rows, held))
}

fn rows_by_class(labels: &[usize]) -> Vec<Vec<usize>> {
    let num_classes = labels.iter().max().map_or(0, |label| label + 1);
    let mut by_class = vec![Vec::new(); num_classes];
    for (row, label) in labels.iter().enumerate() {
        if let Some(rows) = by_class.get_mut(*label) {
            rows.push(row);
        }
    }
    by_class
}

fn share_out(by_class: &[Vec<usize>], num_sites: usize, alpha: f64, rng: &mut SeededRng) -> Vec<Vec<usize>> {
    let mut sites = vec![Vec::new(); num_sites];
    for rows in by_class {
        let mut rows = rows.clone();
        rng.shuffle(&mut rows);
        let shares: Vec<f64> = (0..num_sites).map(|_| rng.gamma(alpha)).collect();
        let total: f64 = shares.iter().sum();
        let (mut sum, mut from) = (0.0, 0);
        for (idx, (site, share)) in sites.iter_mut().zip(&shares).enumerate() {
            sum += share;
            // Cuts are rounded cumulative shares; the last site takes what is left.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
            let cut = (sum / total * rows.len() as f64).round() as usize;
            let to = if idx + 1 == num_sites { rows.len() } else { cut.clamp(from, rows.len()) };
            site.extend_from_slice(rows.get(from..to).unwrap_or_default());
            from = to;
        }
    }
    sites
}
