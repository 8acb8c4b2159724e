//! What a run came to, in the fields of Flower's `History`.
//!
//! Means are weighted by examples, over the metrics that every client of a stage sent. Nothing is evaluated at the server, so the
//! centralised fields are empty. Source: `flwr/server/history.py`, flwr 1.42.0.

use std::collections::BTreeMap;

use serde::Serialize;
use sheaf_domain::{Metrics, RunStatus};

use super::scalars::without_loss;

/// A metric, by round.
pub type Series = Vec<(u32, f64)>;

/// Losses and metrics of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct History {
    /// The clients' losses.
    pub losses_distributed: Series,
    /// Losses found at the server: none.
    pub losses_centralized: Series,
    /// Metrics of training.
    pub metrics_distributed_fit: BTreeMap<String, Series>,
    /// Metrics of evaluation at the clients.
    pub metrics_distributed: BTreeMap<String, Series>,
    /// Metrics found at the server: none.
    pub metrics_centralized: BTreeMap<String, Series>,
}

impl History {
    /// The history of a run so far.
    pub fn of(status: &RunStatus) -> History {
        let mut history = History::default();
        for record in &status.history {
            match record.stage.as_str() {
                "train" => add(&mut history.metrics_distributed_fit, record.round, record.metrics.clone()),
                "evaluate" => {
                    let (loss, metrics) = without_loss(&record.metrics);
                    history.losses_distributed.extend(loss.map(|loss| (record.round, loss)));
                    add(&mut history.metrics_distributed, record.round, metrics);
                }
                _ => {}
            }
        }
        history
    }
}

fn add(series: &mut BTreeMap<String, Series>, round: u32, metrics: Metrics) {
    for (name, value) in metrics {
        series.entry(name).or_default().push((round, value));
    }
}
