//! The state of a run as people and tools see it.

use sheaf_domain::{LineageName, RunStatus, SiteStatus, Wait};

use crate::state::RunState;

impl RunState {
    /// What the run is doing and what it waits for.
    pub fn status(&self) -> RunStatus {
        RunStatus {
            run: self.run,
            name: self.plan.name.clone(),
            phase: self.phase.clone(),
            round: self.round,
            rounds: self.rounds,
            waits: self.waits(),
            history: self.history.clone(),
            sites: self.site_statuses(),
            notices: Vec::new(),
            model: self.newest(&LineageName::global()).map(|(_, version)| version.digest),
            best: self.best.map(|(version, metric)| (self.round_of_version(version), metric)),
            created_at: self.created_at,
            ended_at: self.ended_at,
        }
    }

    fn waits(&self) -> Vec<Wait> {
        if self.phase.is_over() {
            return Vec::new();
        }
        let participants = self.awaiting.map(|needed| Wait::Participants {
            present: u32::try_from(self.present.len()).unwrap_or(u32::MAX),
            needed,
        });
        self.stages.iter().filter_map(|stage| stage.wait()).chain(participants).collect()
    }

    fn site_statuses(&self) -> Vec<SiteStatus> {
        self.sites
            .iter()
            .map(|(site, facts)| SiteStatus {
                site: site.clone(),
                presence: if facts.revoked {
                    "revoked".to_owned()
                } else if self.present.contains(site) {
                    "present".to_owned()
                } else {
                    "lost".to_owned()
                },
                accepted: facts.accepted,
                refused: facts.refused,
                last_error: facts.last_error.clone(),
            })
            .collect()
    }
}
