//! What the engine asks of the world. Every action is idempotent: doing it twice is doing it once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sheaf_domain::{
    Assignment, Digest, LineageName, Manifest, RunId, SiteName, SlotName, StageFold, StageName,
    SubmittedSlot, TaskId, Timestamp,
};

/// A stage of a round.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageKey {
    /// The round.
    pub round: u32,
    /// The stage.
    pub stage: StageName,
}

/// Something the world is to do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Put the assignment into its participant's outbox.
    Assign(Box<Assignment>),
    /// Take the assignment out of the outbox; tell the participant to drop it if it has it.
    Withdraw {
        /// Whose it was.
        site: SiteName,
        /// The assignment.
        task: TaskId,
        /// Why, for people.
        reason: String,
    },
    /// Report [`crate::Event::DeadlinePassed`] at this time.
    Arm {
        /// The stage.
        stage: StageKey,
        /// When.
        at: Timestamp,
    },
    /// Fold and report [`crate::Event::Folded`] or [`crate::Event::FoldFailed`].
    Fold(Box<FoldOrder>),
    /// The bytes uploaded under this task are not needed any more.
    ReleaseTask(TaskId),
    /// The bytes of this version are not needed any more.
    ReleaseVersion {
        /// The lineage.
        lineage: LineageName,
        /// The version's number.
        version: u32,
    },
    /// The run has ended.
    Ended,
}

/// Everything a fold needs.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldOrder {
    /// The run.
    pub run: RunId,
    /// The stage it closes.
    pub key: StageKey,
    /// The accepted submissions in canonical order.
    pub inputs: Vec<FoldInput>,
    /// What is made of which slot.
    pub folds: Vec<StageFold>,
    /// The newest version of every lineage.
    pub current: BTreeMap<LineageName, (u32, Arc<Manifest>, Digest)>,
    /// For slots of differences: the version they are from, which every assignment of the stage handed out.
    pub bases: BTreeMap<SlotName, (u32, Arc<Manifest>, Digest)>,
    /// Slots that may be left out, and hold whatever tensors their owners have.
    pub loose: BTreeSet<SlotName>,
}

impl FoldOrder {
    /// The number of the version the fold makes of `lineage`: one more than the newest, 0 for the first.
    pub fn next(&self, lineage: &LineageName) -> u32 {
        self.current.get(lineage).map_or(0, |(newest, ..)| newest.saturating_add(1))
    }
}

/// One accepted submission.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldInput {
    /// Whose it is.
    pub site: SiteName,
    /// The assignment it answers.
    pub task: TaskId,
    /// What it weighs.
    pub num_examples: f64,
    /// Its outputs.
    pub slots: Vec<SubmittedSlot>,
}
