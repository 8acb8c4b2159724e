//! What a federation leaves behind as it goes: model files as upstream writes them, the final model, metrics by round.
//!
//! Follows the journal, so nothing that calls do waits for a file. That the run is over is told to collaborators only when its files are
//! written. The last model lags a round, as upstream's does: at the end of round *n* it is the one that round began with.
//! After a restart the files of the round done last are written again, with the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sheaf_coordinator::Which;
use sheaf_domain::{
    ErrorKind, JournalId, LineageName, RoundRecord, RunPhase, RunStatus, Span, Timestamp, VersionRef,
};
use sheaf_tensor::{ParamSet, Tensor};

use super::{Ending, Federation, Inner};
use crate::error::{CallError, Sort};
use crate::metrics_log::{MetricsLog, MetricsLogError, RoundMetrics};
use crate::state::{self, Model, ModelFile};
use crate::tensors::Pipeline;

/// How long the journal is waited for at once.
const HOLD: Span = Span::from_secs(20);
/// How long to wait before a file that could not be written is tried again.
const PAUSE: Duration = Duration::from_secs(2);
/// How much of a model is read at once, in bytes.
const READ_LEN: u64 = 1 << 20;
/// Where it is noted how many rounds' metrics were told, and how long their file was then.
const TOLD_FILE: &str = "rounds-told";
/// Where upstream logs metrics, in the workspace.
const LOGS_DIR: &str = "logs";

/// What was done already.
#[derive(Debug, Default)]
struct Done {
    /// The rounds whose files were written, and whose metrics were told.
    rounds: u32,
    told: u32,
    best: Option<u32>,
    /// Where metrics are written, once there are some.
    log: Option<MetricsLog>,
}

fn failed(error: impl std::fmt::Display) -> CallError {
    CallError::new(Sort::NotNow, error)
}

impl Federation {
    /// Follows the run until it is over; then collaborators are told to quit.
    ///
    /// # Cancel safety
    /// Files are replaced as a whole or not at all.
    pub async fn follow(self) {
        let of = self.inner();
        let mut done = Done { told: of.noted().map_or(0, |(rounds, _)| rounds), ..Done::default() };
        if of.noted().is_none()
            && let Err(error) = of.note(0, MetricsLog::len_in(&of.workspace.join(LOGS_DIR)))
        {
            tracing::warn!(%error, "where metrics begin cannot be noted; after a restart a round may be told twice");
        }
        let mut after = 0;
        let ending = loop {
            match self.step(&mut done).await {
                Ok(Some(ending)) => break ending,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "what the federation leaves behind could not be written now");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            match of.handle.journal(&of.operator, JournalId::Run(of.run), after, 1_000, HOLD).await {
                Ok(entries) => after = entries.last().map_or(after, |entry| entry.seq),
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be read now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        of.ending.send_replace(Some(ending));
    }

    /// Does what the rounds done since ask for; how the run ended, once it has.
    async fn step(&self, done: &mut Done) -> Result<Option<Ending>, CallError> {
        let of = self.inner();
        let progress = of.handle.progress(&of.operator, of.run).await?;
        let rounds = match progress.phase {
            RunPhase::Finished { .. } => progress.round,
            _ => progress.round.saturating_sub(1),
        };
        if rounds > done.rounds || progress.phase.is_over() {
            let status = of.handle.status(&of.operator, of.run).await?;
            self.tell_metrics(&status, rounds, done)?;
            if !of.plan.is_evaluation {
                self.write_models(&status, rounds, done).await?;
            }
            done.rounds = rounds;
        }
        Ok(match progress.phase {
            RunPhase::Running => None,
            RunPhase::Finished { .. } => {
                if !of.plan.is_evaluation {
                    self.write_final(rounds).await?;
                }
                Some(Ending::Finished)
            }
            phase => Some(Ending::Failed(phase.reason().unwrap_or_default().to_owned())),
        })
    }

    async fn write_models(&self, status: &RunStatus, rounds: u32, done: &mut Done) -> Result<(), CallError> {
        let of = self.inner();
        let best = status.best.map(|(version_round, _)| version_round);
        if best.is_some() && best != done.best {
            let model = of.handle.model(&of.operator, of.run, Which::Best).await?;
            let path = of.workspace.join(&of.plan.aggregator.best_state_path);
            let round = of.told_round(model.version.version.saturating_add(1));
            self.write(&path, &model.version, round).await?;
            done.best = best;
            tracing::info!(round, path = %path.display(), "the best model is written");
        }
        // What the last round made stands on the version before it.
        let made =
            status.history.iter().rev().find(|record| record.round == rounds && record.version.is_some());
        let begun_with = made.and_then(|record| record.version?.checked_sub(1));
        let Some(version) = begun_with.filter(|_| rounds > done.rounds) else { return Ok(()) };
        let version = VersionRef { run: of.run, lineage: LineageName::global(), version };
        let path = of.workspace.join(&of.plan.aggregator.last_state_path);
        self.write(&path, &version, of.told_round(rounds)).await
    }

    /// Writes a version as upstream writes model files.
    async fn write(&self, path: &Path, version: &VersionRef, round_number: i32) -> Result<(), CallError> {
        let of = self.inner();
        let manifest = match of.handle.manifest(&of.operator, version).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!(%version, path = %path.display(), "a model was not kept long enough to be written");
                return Ok(());
            }
            found => found?,
        };
        if of.plan.pipeline != Pipeline::NoCompression {
            let params = self.read(version).await?;
            let (pipeline, path, seed) = (of.plan.pipeline, path.to_owned(), u64::from(version.version));
            let model = Model { round_number, params };
            let writing = of.compute.run(move || state::write(&path, &model, pipeline, seed));
            return writing.await.map_err(failed)?.map_err(failed);
        }
        let mut file = ModelFile::begin(path).map_err(failed)?;
        let mut offset = 0;
        for spec in manifest.specs() {
            file.tensor(spec, round_number).map_err(failed)?;
            let end = offset + spec.byte_len();
            while offset < end {
                let span = sheaf_domain::ByteSpan { offset, len: READ_LEN.min(end - offset) };
                let bytes = of.handle.read_version(&of.operator, version, span).await?;
                if bytes.is_empty() {
                    return Err(failed("a model ended before its end"));
                }
                offset += bytes.len() as u64;
                file.bytes(&bytes).map_err(failed)?;
            }
        }
        of.compute.run(move || file.finish()).await.map_err(failed)?.map_err(failed)
    }

    async fn read(&self, version: &VersionRef) -> Result<ParamSet, CallError> {
        let of = self.inner();
        let manifest = of.handle.manifest(&of.operator, version).await?;
        let (mut tensors, mut offset) = (Vec::new(), 0);
        for spec in manifest.specs() {
            let mut bytes = Vec::new();
            let end = offset + spec.byte_len();
            while offset < end {
                let span = sheaf_domain::ByteSpan { offset, len: READ_LEN.min(end - offset) };
                let part = of.handle.read_version(&of.operator, version, span).await?;
                if part.is_empty() {
                    return Err(failed("a model ended before its end"));
                }
                offset += part.len() as u64;
                bytes.extend_from_slice(&part);
            }
            tensors.push(Tensor::new(spec.clone(), bytes.into()).map_err(failed)?);
        }
        ParamSet::new(tensors).map_err(failed)
    }

    /// The model that all rounds came to, without loss.
    async fn write_final(&self, rounds: u32) -> Result<(), CallError> {
        let of = self.inner();
        let model = of.handle.model(&of.operator, of.run, Which::Last).await?;
        let params = self.read(&model.version).await?;
        let round_number = of.told_round(rounds.saturating_add(1));
        let path = final_path(&of.workspace.join(&of.plan.aggregator.last_state_path));
        let (at, model) = (path.clone(), Model { round_number, params });
        let writing = of.compute.run(move || state::write_safetensors(&at, &model));
        writing.await.map_err(failed)?.map_err(failed)?;
        tracing::info!(path = %path.display(), "the final model is written");
        Ok(())
    }

    /// Tells the metrics of the rounds done since, in the log and where the plan wants them.
    fn tell_metrics(&self, status: &RunStatus, rounds: u32, done: &mut Done) -> Result<(), CallError> {
        let of = self.inner();
        for round in done.told + 1..=rounds {
            let records: Vec<&RoundRecord> =
                status.history.iter().filter(|record| record.round == round).collect();
            let told_round = of.told_round(round);
            let started = records.iter().map(|record| record.started_at).min();
            let closed = records.iter().map(|record| record.closed_at).max();
            let elapsed_s =
                started.zip(closed).map_or(0.0, |(from, to)| to.since(from).as_duration().as_secs_f64());
            let named: BTreeMap<String, f64> = records
                .iter()
                .filter_map(|record| Some((self.task_of(record.stage.as_str())?, &record.metrics)))
                .flat_map(|(task, values)| {
                    values.iter().map(move |(name, value)| (format!("{task}/{name}"), *value))
                })
                .collect();
            let metrics: Vec<(String, f64)> = named.into_iter().collect();
            let at_s =
                closed.unwrap_or_default().since(Timestamp::from_millis(0)).as_duration().as_secs_f64();
            let of_round = RoundMetrics {
                round: u64::try_from(told_round).unwrap_or_default(),
                elapsed_s,
                at_s,
                metrics: &metrics,
            };
            tracing::info!("Round {told_round}: Metrics: {}", of_round.line());
            let mut noted_len = 0;
            if of.plan.aggregator.write_logs {
                let log = match &mut done.log {
                    Some(log) => log,
                    log => log.insert(of.metrics_log(at_s).map_err(failed)?),
                };
                log.write(of_round).map_err(failed)?;
                noted_len = log.written_len().map_err(failed)?;
            }
            done.told = round;
            of.note(round, noted_len).map_err(failed)?;
        }
        Ok(())
    }
}

impl Inner {
    fn told_file(&self) -> Option<PathBuf> {
        self.notes.as_ref().map(|notes| notes.join(TOLD_FILE))
    }

    /// How many rounds' metrics were told, and how long their file was then.
    fn noted(&self) -> Option<(u32, u64)> {
        let text = std::fs::read_to_string(self.told_file()?).ok()?;
        let (rounds, len) = text.trim().split_once(' ')?;
        Some((rounds.parse().ok()?, len.parse().ok()?))
    }

    fn note(&self, rounds: u32, len: u64) -> std::io::Result<()> {
        let Some(path) = self.told_file() else { return Ok(()) };
        let beside = path.with_extension("partial");
        std::fs::write(&beside, format!("{rounds} {len}"))?;
        std::fs::rename(beside, path)
    }

    /// Opens where metrics are written. What it finds there counts as far as it was noted.
    fn metrics_log(&self, now_s: f64) -> Result<MetricsLog, MetricsLogError> {
        MetricsLog::open(&self.workspace.join(LOGS_DIR), self.noted().map(|(_, len)| len), Some(now_s))
    }
}

/// Where the model goes that all rounds came to: beside the last one.
fn final_path(last: &Path) -> PathBuf {
    let stem = last.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    last.with_file_name(format!("{stem}.final.safetensors"))
}
