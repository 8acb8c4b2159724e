//! What holds for every server step: tiles do not matter, nothing moves without a difference, and the signs are right.

use proptest::prelude::*;
use sheaf_domain::{AdaptiveKind, GradientOptimiser, ServerStep};
use sheaf_strategy::ServerOptimiser;

fn steps() -> Vec<ServerStep> {
    let mut steps = vec![ServerStep::Replace, ServerStep::Momentum { learning_rate: 0.5, momentum: 0.9 }];
    for kind in [AdaptiveKind::Adagrad, AdaptiveKind::Adam, AdaptiveKind::Yogi] {
        steps.push(ServerStep::Adaptive { kind, learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 });
    }
    let (learning_rate, start) = (0.1, 0.0);
    for optimiser in [
        GradientOptimiser::Adagrad { learning_rate, start, epsilon: 1e-10 },
        GradientOptimiser::Adam { learning_rate, beta1: 0.9, beta2: 0.99, start, epsilon: 1e-8 },
    ] {
        steps.push(ServerStep::Told { as_difference: false, codec: None, optimiser: Some(optimiser) });
    }
    steps
}

/// Steps a model in tiles of `tile_len`, twice towards `folded`; the next model and the moments.
fn two_rounds(step: &ServerStep, start: &[f64], folded: &[f64], tile_len: usize) -> Vec<Vec<f64>> {
    let num_moments = ServerOptimiser::new(step, 1).unwrap().moments().len();
    let mut state = vec![start.to_vec()];
    state.resize(1 + num_moments, vec![0.0; start.len()]);
    for round in 1..=2 {
        let optimiser = ServerOptimiser::new(step, round).unwrap();
        let current = state[0].clone();
        let mut tiles: Vec<_> = state.iter_mut().map(|values| values.chunks_mut(tile_len)).collect();
        for (current, folded) in current.chunks(tile_len).zip(folded.chunks(tile_len)) {
            let mut slices: Vec<&mut [f64]> = tiles.iter_mut().filter_map(Iterator::next).collect();
            let (next, moments) = slices.split_first_mut().unwrap();
            optimiser.step(current, folded, moments, next).unwrap();
        }
    }
    state
}

proptest! {
    #[test]
    fn tiles_do_not_change_a_bit(
        pairs in prop::collection::vec((-10.0f64..10.0, -10.0f64..10.0), 1..200),
        tile_len in 1usize..70,
    ) {
        let (start, folded): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        for step in steps() {
            let whole = two_rounds(&step, &start, &folded, start.len());
            prop_assert_eq!(whole, two_rounds(&step, &start, &folded, tile_len), "{:?}", step);
        }
    }

    #[test]
    fn a_first_step_goes_towards_the_folded_value(start in -10.0f64..10.0, folded in -10.0f64..10.0, round in 1u32..1000) {
        prop_assume!((folded - start).abs() > 1e-6);
        for step in steps() {
            let optimiser = ServerOptimiser::new(&step, round).unwrap();
            let mut zeros = vec![vec![0.0]; optimiser.moments().len()];
            let mut moments: Vec<&mut [f64]> = zeros.iter_mut().map(Vec::as_mut_slice).collect();
            let mut next = [f64::NAN];
            optimiser.step(&[start], &[folded], &mut moments, &mut next).unwrap();
            prop_assert!((next[0] - start) * (folded - start) > 0.0, "{:?}: {} to {}", step, start, next[0]);
        }
    }
}

#[test]
fn nothing_moves_without_a_difference() {
    let model = [1.5, -2.0, 0.0];
    for step in steps() {
        let state = two_rounds(&step, &model, &model, 2);
        assert_eq!(state[0], model, "{step:?}");
        assert!(state[1..].iter().flatten().all(|value| *value == 0.0), "{step:?}");
    }
}

#[test]
fn yogi_leaves_a_second_moment_that_equals_the_square() {
    let step = ServerStep::Adaptive {
        kind: AdaptiveKind::Yogi,
        learning_rate: 0.1,
        beta1: 0.0,
        beta2: 0.5,
        tau: 1e-3,
    };
    let optimiser = ServerOptimiser::new(&step, 1).unwrap();
    for (square, expected) in [(4.0, 4.0), (9.0, 7.0), (1.0, 3.0)] {
        let (mut m, mut v, mut next) = ([0.0], [square], [f64::NAN]);
        optimiser.step(&[1.0], &[3.0], &mut [&mut m, &mut v], &mut next).unwrap();
        assert_eq!((m, v), ([2.0], [expected]));
    }
}
