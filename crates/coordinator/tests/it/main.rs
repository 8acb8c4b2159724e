//! The coordinator as its front-ends see it: whole runs driven by hand over memory and over SQLite with a disk store.

mod faults;
mod faulty;
mod gate;
mod mail;
mod membership;
mod records;
mod restarts;
mod runs;
mod world;
