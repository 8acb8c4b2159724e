//! Makes an input that shows a fault smaller while it shows the same fault: ranges are left out, then bytes made plain.
//!
//! # Source
//! Zeller and Hildebrandt 2002, "Simplifying and isolating failure-inducing input"; here with halving steps only.

use crate::target::Target;
use crate::trial::{self, Finding};

/// The most trials spent on one input.
const TRIALS_MAX: usize = 20_000;

/// The smallest input found that shows a finding like `finding`.
pub(crate) fn minimise(target: &Target, input: Vec<u8>, finding: &Finding) -> Vec<u8> {
    let still_shows = |candidate: &[u8]| {
        let found = trial::attempt(target, candidate).outcome;
        found.is_err_and(|found| found.is_like(finding))
    };
    smaller(input, still_shows)
}

/// Leaves out and plains down while `still_shows` holds.
fn smaller(mut input: Vec<u8>, still_shows: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut trials = 0;
    let mut step = input.len().div_ceil(2);
    while step > 0 && trials < TRIALS_MAX {
        let mut at = 0;
        let len_before = input.len();
        while at < input.len() && trials < TRIALS_MAX {
            let mut candidate = input.clone();
            candidate.drain(at..(at + step).min(input.len()));
            trials += 1;
            if still_shows(&candidate) {
                input = candidate;
            } else {
                at += step;
            }
        }
        // At the finest step once more, as long as that helps.
        step = if step == 1 && input.len() < len_before { 1 } else { step / 2 };
    }
    for at in 0..input.len().min(TRIALS_MAX.saturating_sub(trials)) {
        let mut candidate = input.clone();
        if let Some(byte) = candidate.get_mut(at).filter(|byte| **byte != b'0') {
            *byte = b'0';
            if still_shows(&candidate) {
                input = candidate;
            }
        }
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_matters() {
        let input = b"some text with a needle and more, and another needle".to_vec();
        let shows = |candidate: &[u8]| candidate.windows(6).any(|window| window == b"needle");
        assert_eq!(smaller(input, shows), b"needle");
        assert_eq!(smaller(b"abcdef".to_vec(), |candidate| candidate.len() >= 3), b"000");
    }
}
