//! The rules of a run, by event lists, by random sequences against a plain reference model, and by exploring every state of small runs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

mod explore;
mod journal;
mod models;
mod plans;
mod random;
mod reference;
mod rounds;
mod seats;
mod stops;
mod world;
