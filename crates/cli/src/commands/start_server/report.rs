//! A History as a table: a line for each stage of each round.

use std::collections::BTreeMap;

use sheaf_domain::RunStatus;
use sheaf_wire_flower::legacy::{History, Series};

use crate::output;

/// Prints the History of a run, and what the run came to.
pub(crate) fn print(history: &History, status: &RunStatus) {
    output::table(&["round", "stage", "clients", "loss", "metrics"], rows(history, status));
    let reason = status.phase.reason().unwrap_or_default();
    output::line(format!("{}: {reason}", status.phase.name()));
}

fn rows(history: &History, status: &RunStatus) -> Vec<Vec<String>> {
    let stages = status.history.iter().filter_map(|record| {
        let (stage, loss, series) = match record.stage.as_str() {
            "train" => ("fit", None, &history.metrics_distributed_fit),
            "evaluate" => {
                let loss = at(&history.losses_distributed, record.round);
                ("evaluate", loss, &history.metrics_distributed)
            }
            _ => return None,
        };
        Some(vec![
            record.round.to_string(),
            stage.to_owned(),
            format!("{} of {}", record.accepted.len(), record.cohort),
            loss.map_or_else(String::new, |loss| format!("{loss:.6}")),
            metrics(series, record.round),
        ])
    });
    stages.collect()
}

fn at(series: &Series, round: u32) -> Option<f64> {
    series.iter().find(|(of, _)| *of == round).map(|(_, value)| *value)
}

fn metrics(series: &BTreeMap<String, Series>, round: u32) -> String {
    let told = series.iter().filter_map(|(name, series)| Some(format!("{name} {:.6}", at(series, round)?)));
    told.collect::<Vec<_>>().join(", ")
}
