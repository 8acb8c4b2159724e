//! The state machine of a run: event in, actions out. It owns every rule of a round.
//!
//! Pure: no clock, no tasks, no files, no sockets; time and every decision of the outside world come in as [`Event`]s, in the
//! order of the run's journal. [`RunState::apply`] either takes an event whole or refuses it and leaves the state as it was.
//! [`Action`]s are derived, never stored, and idempotent: after a restart [`RunState::outstanding`] derives those that still
//! stand. The engine sees manifests, never bytes.

mod action;
mod advance;
mod apply;
mod evaluate;
mod event;
mod fold;
mod program;
mod seat;
mod select;
mod stage;
mod state;
mod status;
mod submit;
#[cfg(test)]
mod tests;
mod together;

pub use action::{Action, FoldInput, FoldOrder, StageKey};
pub use event::{Event, NewVersion, Rejected, Start, StartVersion};
pub use state::{RunState, TaskStanding, Version};
