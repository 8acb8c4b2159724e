//! The demo's data: the handwritten digits, a held-out test set, and one unequal shard a site.

use anyhow::Context as _;
use sheaf_client::data::{Dataset, ReadOptions, dirichlet, split_holdout};
use sheaf_domain::{ErrorKind, SiteName};

use crate::exit::Failure;

const DIGITS: &str = include_str!("../../../../../data/digits/digits.csv");
/// Pixels go from 0 to 16.
pub(super) const SCALE: f64 = 1.0 / 16.0;
/// The digits.
pub(super) const CLASSES: usize = 10;
/// The share of images nobody trains on.
const TEST_SHARE: f64 = 0.2;
/// How unequal the shards are: the smaller, the fewer classes a site has plenty of.
const ALPHA: f64 = 0.5;

/// The data, dealt out.
pub(super) struct Shards {
    names: Vec<SiteName>,
    train: Vec<Dataset>,
    test: Dataset,
}

impl Shards {
    pub(super) fn split(num_sites: u32, seed: u64) -> anyhow::Result<Shards> {
        let options = ReadOptions { num_classes: Some(CLASSES), scale: SCALE, ..ReadOptions::default() };
        let all = Dataset::from_csv(DIGITS, &options).context("the digits that come with this program")?;
        let (train_rows, test_rows) = split_holdout(all.len(), TEST_SHARE, seed)?;
        let pool = all.subset(&train_rows)?;
        let parts = dirichlet(pool.labels(), num_sites as usize, ALPHA, seed)
            .map_err(|error| Failure::new(ErrorKind::InvalidArgument, error.to_string()))?;
        let names =
            (1..=num_sites).map(|idx| SiteName::new(format!("site-{idx:02}"))).collect::<Result<_, _>>()?;
        let train = parts.iter().map(|rows| pool.subset(rows)).collect::<Result<_, _>>()?;
        Ok(Shards { names, train, test: all.subset(&test_rows)? })
    }

    pub(super) fn names(&self) -> &[SiteName] {
        &self.names
    }

    /// Every site with its shard.
    pub(super) fn sites(&self) -> impl Iterator<Item = (&SiteName, &Dataset)> {
        self.names.iter().zip(&self.train)
    }

    /// What nobody trains on.
    pub(super) fn test(&self) -> &Dataset {
        &self.test
    }
}

/// A shard as the CSV its site reads: raw pixels and the label, with a header.
pub(super) fn csv(data: &Dataset) -> String {
    let header: Vec<String> = (0..data.num_features()).map(|idx| format!("pixel{idx}")).collect();
    let mut text = header.join(",") + ",label\n";
    for (idx, label) in data.labels().iter().enumerate() {
        for value in data.row(idx) {
            // Pixels are whole numbers; the scale is a power of two, so this is exact.
            text.push_str(&format!("{},", value / SCALE));
        }
        text.push_str(&format!("{label}\n"));
    }
    text
}
