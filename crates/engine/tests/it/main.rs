//! The rules of a run, by event lists and by random sequences against a plain reference model.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

mod journal;
mod models;
mod plans;
mod random;
mod reference;
mod rounds;
mod seats;
mod stops;
mod world;
