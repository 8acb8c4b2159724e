//! The state machine of a relayed run: an application outside decides, and its letters travel through this server.
//!
//! Pure: no clock, no tasks, no files, no sockets. [`Relay::apply`] takes an [`Event`] whole or refuses it and leaves the state as it
//! was; events stand in the run's journal, in order. Which bytes are there is the blob store's knowledge: the state is told by
//! [`Relay::bring`], and told again after a restart. It sees names of objects, never bytes, and knows no words of any
//! stack: headers are texts it only keeps.
//!
//! That a letter has arrived is therefore not an event; an event about a letter that had says so.
//!
//! Invariants: a letter waits only when every object below it was brought by its sender; it is handed out again until its
//! recipient confirms or answers it; the first complete answer counts and no other does; an object is needed exactly while
//! a living letter is above it.

mod application;
mod error;
mod event;
mod letter;
mod objects;
mod post;
mod state;
#[cfg(test)]
mod tests;

pub use application::{Application, Phase};
pub use error::Rejected;
pub use event::{Event, LetterDraft, Loss, ObjectDraft, Outcome};
pub use letter::{Letter, Standing};
pub use objects::Freed;
pub use post::Wanted;
pub use state::{Answer, Effects, Relay};

/// The most letters a run holds at once.
pub const LETTERS_MAX: usize = 100_000;
/// The most objects a run holds at once.
pub const OBJECTS_MAX: usize = 1_000_000;
/// The most uploads under way in a run at once.
pub const SESSIONS_MAX: usize = 10_000;
/// The longest header of a letter or a run, in bytes.
pub const HEADER_LEN_MAX: usize = 64 * 1024;
/// The longest other text, in bytes.
pub const TEXT_LEN_MAX: usize = 4 * 1024;
