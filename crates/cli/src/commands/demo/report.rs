//! What came of it: the federated model and what each site gets alone, on images nobody trained on.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use sheaf_client::data::Dataset;
use sheaf_client::nn::{Network, Sgd};
use sheaf_domain::rng::SeededRng;
use sheaf_domain::{Digest, ErrorKind, RunId, RunStatus, SiteName};
use sheaf_tensor::safetensors;

use super::children::Layout;
use super::shards::Shards;
use super::{BATCH_SIZE, HIDDEN, LEARNING_RATE, LOCAL_EPOCHS};
use crate::exit::Failure;
use crate::output;

/// The figures.
pub(super) struct Report {
    digest: Digest,
    federated: f64,
    alone: BTreeMap<SiteName, Alone>,
}

/// What a site gets without the others.
struct Alone {
    examples: usize,
    accuracy: f64,
}

impl Report {
    pub(super) fn make(
        shards: &Shards,
        layout: &Layout,
        status: &RunStatus,
        rounds: u32,
        seed: u64,
    ) -> anyhow::Result<Report> {
        let digest =
            status.model.ok_or_else(|| Failure::new(ErrorKind::Internal, "the run ended without a model"))?;
        let model =
            safetensors::read(Bytes::from(std::fs::read(layout.model())?)).context("the final model")?;
        let federated = Network::from_params(&model)?.evaluate(shards.test())?.accuracy;
        let mut alone = BTreeMap::new();
        for (site, shard) in shards.sites() {
            let accuracy = train_alone(site, shard, shards.test(), rounds, seed)?;
            alone.insert(site.clone(), Alone { examples: shard.len(), accuracy });
        }
        Ok(Report { digest, federated, alone })
    }

    fn alone_mean(&self) -> f64 {
        let sum: f64 = self.alone.values().map(|alone| alone.accuracy).sum();
        #[expect(clippy::cast_precision_loss, reason = "at most a hundred sites")]
        let count = self.alone.len() as f64;
        sum / count
    }

    pub(super) fn print(&self, run: RunId, layout: &Layout, status: &RunStatus, seconds: f64) {
        let rows = self.alone.iter().map(|(site, alone)| {
            vec![
                site.to_string(),
                alone.examples.to_string(),
                format!("{:.4}", alone.accuracy),
                format!("{:.4}", self.federated),
                format!("{:+.4}", self.federated - alone.accuracy),
            ]
        });
        output::table(&["site", "examples", "alone", "federated", "gain"], rows);
        output::line("");
        output::line(format!("accuracy on images nobody trained on   {:.4}", self.federated));
        output::line(format!("mean of the sites alone                {:.4}", self.alone_mean()));
        output::line(format!("digest of the final model              {}", self.digest));
        output::line(format!(
            "run                                    {run}, {} rounds, {seconds:.1} s",
            status.round
        ));
        output::line(format!("model                                  {}", layout.model().display()));
        output::line(format!("metrics                                {}", layout.metrics().display()));
        output::line(format!("journal                                {}", layout.journal().display()));
    }

    pub(super) fn to_json(&self, layout: &Layout, rounds: u32, seconds: f64) -> serde_json::Value {
        let alone: BTreeMap<&SiteName, f64> =
            self.alone.iter().map(|(site, alone)| (site, alone.accuracy)).collect();
        serde_json::json!({
            "rounds": rounds,
            "final_accuracy": self.federated,
            "alone_accuracy": alone,
            "final_digest": self.digest,
            "seconds": seconds,
            "data_dir": layout.root(),
        })
    }
}

/// The accuracy a site reaches on its own shard, with as many epochs as it trains in the federation.
fn train_alone(
    site: &SiteName,
    shard: &Dataset,
    test: &Dataset,
    rounds: u32,
    seed: u64,
) -> anyhow::Result<f64> {
    let mut network = Network::mlp(shard.num_features(), HIDDEN as usize, shard.num_classes(), seed)?;
    let sgd = Sgd {
        epochs: LOCAL_EPOCHS * rounds,
        batch_size: BATCH_SIZE as usize,
        learning_rate: LEARNING_RATE,
        ..Sgd::default()
    };
    sgd.fit(&mut network, shard, &mut SeededRng::new(seed, &format!("alone/{site}")))?;
    Ok(network.evaluate(test)?.accuracy)
}
