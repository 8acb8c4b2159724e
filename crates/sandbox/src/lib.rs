//! Programs of others, started with walls around them.
//!
//! A [`Program`] is started by a [`Launcher`] through a second process, the *confiner*: this program again, which makes the
//! directory, sets the limits, raises the walls, looks whether they hold, and then becomes the program. The program has a session
//! of its own, writes its log to a file and is tied to us by nothing, so that it lives on when we are killed; its [`Identity`] is
//! what a journal keeps to find it again with [`Process::adopt`].
//!
//! Walls are what the kernel offers: Landlock, another account, or both ([`Protection`]). Without any, starting is refused unless
//! asked for by name.
//!
//! Does not: limit the disk a program fills in its own directory; follow processes that leave its process group; tell addresses of
//! one port apart; hold what this kernel's Landlock has no rules for (`Protection` says which); keep what a service manager or a
//! container ends together with us (systemd does, but for `KillMode=process`).

mod confine;
mod error;
mod identity;
mod kernel;
mod launch;
mod log;
mod order;
mod paths;
mod process;
mod program;
mod protection;
mod secret;
mod walls;

pub use confine::confine_main;
pub use error::Error;
pub use identity::Identity;
pub use launch::{Held, Launcher, Unwalled};
pub use log::{Chunk, LOG_READ_BYTES_MAX, Tail, Trimmed, trim};
pub use order::CONFINE;
pub use process::{Exit, Process};
pub use program::{Limits, Network, PlacedFile, Program};
pub use protection::{Account, Protection};
pub use secret::Secret;
