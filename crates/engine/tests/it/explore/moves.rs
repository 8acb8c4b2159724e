//! What can happen next in a state, and which of it is a fault.

use sheaf_domain::{Refusal, SiteName, TaskId};
use sheaf_engine::{Action, Event, FoldOrder, RunState};

use super::configs::Config;
use crate::plans::{accuracy, site};
use crate::world::{fold_of, submitted};

/// The participants.
pub(super) const SITES: [&str; 3] = ["a", "b", "c"];

/// What does not happen in a good run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A participant falls silent; it may come back.
    Lose,
    /// A participant is shut out for good.
    Revoke,
    /// A participant's attempt fails.
    Fail,
    /// A submission does not pass the gate.
    Refuse,
    /// A stage's deadline passes.
    Deadline,
    /// A fold fails for a passing reason.
    FoldFails,
    /// An operator ends the run.
    Stop,
    /// An operator asks for another round.
    Extend,
}

/// Something that happens; numbers count the open tasks, deadlines and folds in the order of the state's outstanding actions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Move {
    Create,
    Arrive(u8),
    Submit { task_idx: u8, value: f64 },
    Fold(u8),
    Disturb(Fault, u8),
}

/// What a state waits for others to do.
#[derive(Default)]
pub(super) struct Open {
    pub(super) tasks: Vec<(TaskId, SiteName)>,
    pub(super) deadlines: Vec<sheaf_engine::StageKey>,
    pub(super) folds: Vec<FoldOrder>,
}

impl Open {
    pub(super) fn of(state: &RunState) -> Open {
        let mut open = Open::default();
        for action in state.outstanding() {
            match action {
                Action::Assign(assignment) => open.tasks.push((assignment.task, assignment.site)),
                Action::Arm { stage, .. } => open.deadlines.push(stage),
                Action::Fold(order) => open.folds.push(*order),
                other => panic!("{other:?} is outstanding"),
            }
        }
        open
    }
}

/// Everything that can happen in a state but faults that have happened too often.
pub(super) fn moves(config: &Config, state: &RunState, left: impl Fn(Fault) -> bool) -> Vec<Move> {
    let open = Open::of(state);
    let mut moves = Vec::new();
    let status = state.status();
    let over = status.phase.is_over();
    let revoked = |name: &SiteName| status.sites.iter().any(|s| s.site == *name && s.presence == "revoked");
    for (idx, name) in (0u8..).zip(SITES.map(site)) {
        let present = state.present().contains(&name);
        if !over && !present && !revoked(&name) {
            moves.push(Move::Arrive(idx));
        }
        if !over && present && left(Fault::Lose) {
            moves.push(Move::Disturb(Fault::Lose, idx));
        }
        if !over && present && left(Fault::Revoke) {
            moves.push(Move::Disturb(Fault::Revoke, idx));
        }
    }
    for (task_idx, _) in (0u8..).zip(&open.tasks) {
        moves.extend(config.values.iter().map(|value| Move::Submit { task_idx, value: *value }));
        for fault in [Fault::Fail, Fault::Refuse].into_iter().filter(|fault| left(*fault)) {
            moves.push(Move::Disturb(fault, task_idx));
        }
    }
    for (idx, _) in (0u8..).zip(&open.deadlines).filter(|_| left(Fault::Deadline)) {
        moves.push(Move::Disturb(Fault::Deadline, idx));
    }
    for (idx, _) in (0u8..).zip(&open.folds) {
        moves.push(Move::Fold(idx));
        if left(Fault::FoldFails) {
            moves.push(Move::Disturb(Fault::FoldFails, idx));
        }
    }
    if !over && left(Fault::Stop) {
        moves.push(Move::Disturb(Fault::Stop, 0));
    }
    if status.phase.name() == "finished" && left(Fault::Extend) {
        moves.push(Move::Disturb(Fault::Extend, 0));
    }
    moves
}

/// The event a move is in a state in which it can happen.
pub(super) fn event_of(config: &Config, state: &RunState, step: Move) -> Event {
    let open = Open::of(state);
    let task = |idx: u8| open.tasks[usize::from(idx)].clone();
    let reason = || "why".to_owned();
    match step {
        Move::Create => config.created.clone(),
        Move::Arrive(idx) => Event::SitePresent { site: site(SITES[usize::from(idx)]) },
        Move::Submit { task_idx, value } => {
            let (task, site) = task(task_idx);
            submitted(task, site, 10.0, accuracy(value))
        }
        Move::Fold(idx) => fold_of(&open.folds[usize::from(idx)]),
        Move::Disturb(fault, idx) => match fault {
            Fault::Lose => Event::SiteLost { site: site(SITES[usize::from(idx)]), reason: reason() },
            Fault::Revoke => Event::SiteRevoked { site: site(SITES[usize::from(idx)]), reason: reason() },
            Fault::Fail => {
                let (task, site) = task(idx);
                Event::Failed { task, site, reason: reason() }
            }
            Fault::Refuse => {
                let (task, site) = task(idx);
                Event::Refused { task, site, refusal: Refusal::Slots { message: reason() } }
            }
            Fault::Deadline => {
                let key = open.deadlines[usize::from(idx)].clone();
                Event::DeadlinePassed { round: key.round, stage: key.stage }
            }
            Fault::FoldFails => {
                let key = open.folds[usize::from(idx)].key.clone();
                Event::FoldFailed { round: key.round, stage: key.stage, reason: reason(), permanent: false }
            }
            Fault::Stop => Event::StopRequested { reason: reason() },
            Fault::Extend => Event::Extended { rounds: 1 },
        },
    }
}
