//! The deadlines of open stages, soonest first. Bounded: of each run only those of its present round are kept.

use std::collections::BTreeSet;

use sheaf_domain::{RunId, Span, Timestamp};
use sheaf_engine::StageKey;

/// What is due when.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeSet<(Timestamp, RunId, StageKey)>);

impl Deadlines {
    /// Notes a deadline and forgets those of the run's earlier rounds.
    pub(crate) fn arm(&mut self, run: RunId, stage: StageKey, at: Timestamp) {
        self.0.retain(|(_, other, key)| *other != run || key.round >= stage.round);
        self.0.insert((at, run, stage));
    }

    /// How long until the next one is due; nothing while there is none.
    pub(crate) fn wait(&self, now: Timestamp) -> Option<Span> {
        self.0.first().map(|(at, ..)| at.since(now))
    }

    /// Takes out those that are due.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<(RunId, StageKey)> {
        let mut due = Vec::new();
        while self.0.first().is_some_and(|(at, ..)| *at <= now) {
            due.extend(self.0.pop_first().map(|(_, run, stage)| (run, stage)));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_domain::StageName;

    #[test]
    fn the_soonest_comes_first_and_earlier_rounds_are_forgotten() {
        let run = |n| RunId::new(n).unwrap();
        let key = |round| StageKey { round, stage: StageName::new("train").unwrap() };
        let at = Timestamp::from_millis;
        let mut deadlines = Deadlines::default();
        deadlines.arm(run(1), key(1), at(50));
        deadlines.arm(run(2), key(1), at(20));
        deadlines.arm(run(1), key(2), at(90));
        assert_eq!(deadlines.wait(at(5)), Some(Span::from_millis(15)));
        assert_eq!(deadlines.due(at(19)), []);
        assert_eq!(deadlines.due(at(60)), [(run(2), key(1))]);
        assert_eq!(deadlines.due(at(90)), [(run(1), key(2))]);
        assert_eq!(deadlines.wait(at(90)), None);
    }
}
