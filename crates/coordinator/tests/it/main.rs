//! The coordinator as its front-ends see it: whole runs driven by hand over memory and over SQLite with a disk store.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, in its helpers too")]

mod apps;
mod at_once;
mod faults;
mod faulty;
mod gate;
mod logins;
mod mail;
mod membership;
mod power;
mod quarantine;
mod records;
mod relays;
mod relays_leaving;
mod relays_room;
mod removal;
mod restarts;
mod runs;
mod world;
