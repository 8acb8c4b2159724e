//! The blob stores against their suite, and the disk store against faults.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod disk;
mod faults;
mod full_disk;
mod kill;
mod power;
mod suite;
