//! How the run goes: one live line, and one that stays for every round.

use std::io::{IsTerminal as _, Write as _};

use sheaf_domain::{RoundRecord, RunId, RunStatus, Wait};

use crate::follow::{Follower, Hold, is_away, status};
use crate::operator::Operator;
use crate::output;

/// What has been told so far.
pub(super) struct Progress {
    run: RunId,
    rounds: u32,
    sites: u32,
    follower: Follower,
    told: u32,
    live: bool,
}

impl Progress {
    pub(super) fn new(run: RunId, rounds: u32, sites: u32) -> Progress {
        let live = std::io::stderr().is_terminal();
        Progress { run, rounds, sites, follower: Follower::new(run.to_string()), told: 0, live }
    }

    /// Waits for something to happen and tells it; returns the run's state once it is over.
    pub(super) async fn step(&mut self, operator: &mut Operator) -> anyhow::Result<Option<RunStatus>> {
        self.follower.next(operator, Hold::Short).await?;
        let now = match status(operator, self.run).await {
            Ok(now) => now,
            // The supervisor brings the server back.
            Err(error) if is_away(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.tell_rounds(&now);
        self.tell_live(&now);
        Ok(now.phase.is_over().then_some(now))
    }

    fn tell_rounds(&mut self, now: &RunStatus) {
        while self.told < self.rounds {
            let round = self.told + 1;
            let stage =
                |name: &str| now.history.iter().find(|r| r.round == round && r.stage.as_str() == name);
            let (Some(train), Some(evaluate)) = (stage("train"), stage("evaluate")) else { return };
            self.clear();
            eprintln!("{}", line(round, self.rounds, train, evaluate));
            self.told = round;
        }
    }

    fn tell_live(&self, now: &RunStatus) {
        if !self.live || now.phase.is_over() {
            return;
        }
        let doing = match now.waits.first() {
            Some(Wait::Submissions { stage, accepted, .. }) => {
                format!("{stage} {accepted}/{} sites", self.sites)
            }
            Some(wait) => wait.to_string(),
            None => String::new(),
        };
        let doing: String = doing.chars().take(70).collect();
        eprint!("\r\x1b[2Kround {:>2}/{}  {doing}", now.round, self.rounds);
        std::io::stderr().flush().ok();
    }

    fn clear(&self) {
        if self.live {
            eprint!("\r\x1b[2K");
        }
    }
}

fn line(round: u32, rounds: u32, train: &RoundRecord, evaluate: &RoundRecord) -> String {
    let metric = |record: &RoundRecord, name: &str| {
        record.metrics.get(name).map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
    };
    format!(
        "round {round:>2}/{rounds}  {}/{} sites  loss {}  accuracy {}  {}",
        train.accepted.len(),
        train.cohort,
        metric(evaluate, "loss"),
        metric(evaluate, "accuracy"),
        output::bytes(train.bytes)
    )
}
