//! Every way a small run can go: breadth-first over all states that three participants and two rounds can bring about, with each
//! fault at most once on the way.
//!
//! Every event carries the same time, which the engine only writes down, so that states differ by what they are and not by when
//! they came about. Two states are one when they are equal in every field and the same faults are left; they are told apart by a
//! 128-bit fingerprint of all their fields. After every step the invariants of [`rules`] are checked; in every state, late and
//! repeated submissions must change nothing, and a crash (the event list applied again from its beginning) must lead to
//! the same state with the same outstanding actions. From every state the run must be able to come to an end without an operator,
//! unless too few participants are left, which its waits must then say.
//!
//! `SHEAF_EXPLORE_FAULTS=2` lets every fault happen up to twice: many times the states, for a run of minutes to hours and
//! gigabytes. The default is 1.

mod configs;
mod moves;
mod rules;
mod walk;

use crate::explore::configs::Config;
use crate::explore::walk::{Walked, walk};

/// Explores one configuration; prints what it came to.
fn explore(config: &Config) -> Walked {
    let each = std::env::var("SHEAF_EXPLORE_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let walked = walk(config, each);
    #[expect(clippy::print_stdout, reason = "the count of states is what an exploration has to show")]
    {
        println!("{}: {walked:?}", config.name);
    }
    assert!(walked.ends.contains("finished"), "no trace finishes the run");
    walked
}

/// One test a configuration, so that they run beside each other, with the least number of states it must have.
macro_rules! explored {
    ($($name:ident: $at_least:expr;)+) => {
        $(#[test] fn $name() {
            let walked = explore(&configs::$name());
            assert!(walked.states >= $at_least, "{walked:?}");
        })+

        /// What the configurations have together.
        const AT_LEAST: usize = 0 $(+ $at_least)+;
    };
}

explored! {
    everybody_is_needed: 75_000;
    a_quorum_with_a_deadline: 25_000;
    two_of_three_are_drawn: 75_000;
    stages_handed_out_together: 3_000;
    an_evaluation_beside_the_training: 70_000;
    it_may_stop_early_and_be_extended: 60_000;
    a_participant_makes_the_first_model: 15_000;
    two_stages_make_the_model_in_turn: 1_500;
}

const _: () = assert!(AT_LEAST >= 300_000);
