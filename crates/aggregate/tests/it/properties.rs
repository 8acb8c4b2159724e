//! What holds for every cohort: tiles, weights and order do not matter beyond rounding, and faulty updates are
//! withstood.

use proptest::prelude::*;
use sheaf_aggregate::{Clip, Rule};
use sheaf_domain::rng::SeededRng;
use sheaf_tensor::Dtype;

use crate::{Column, close, fold_all};

/// Every rule that can fold `k` updates.
fn rules(k: usize) -> Vec<Rule> {
    let mut rules = vec![
        Rule::WeightedMean,
        Rule::GeometricMedian,
        Rule::NormClippedMean(Clip::NormRatio(0.8)),
        Rule::NormClippedMean(Clip::NormMax(1.5)),
        Rule::Median,
        Rule::TrimmedMean { share: 0.3 },
    ];
    if k >= 3 {
        let byzantine = u32::try_from((k - 3) / 2).unwrap();
        rules.push(Rule::Krum { byzantine, keep: 1 });
        rules.push(Rule::Krum { byzantine, keep: 2 });
    }
    rules
}

/// A cohort of `k` updates of two f64 tensors and one f32 tensor of odd lengths.
fn cohort(seed: u64, k: usize) -> (Vec<f64>, Vec<Column>) {
    let mut rng = SeededRng::new(seed, "cohort");
    let weights = (0..k).map(|_| 1.0 + rng.unit() * 100.0).collect();
    let mut columns: Vec<Column> = [301, 67].into_iter().map(|len| random_f64(&mut rng, k, len)).collect();
    let mut row = || -> Vec<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "any float32 will do")]
        (0..129).flat_map(|_| (rng.normal() as f32).to_le_bytes()).collect()
    };
    columns.push(Column { dtype: Dtype::F32, base: row(), rows: (0..k).map(|_| row()).collect() });
    (weights, columns)
}

fn random_f64(rng: &mut SeededRng, k: usize, len: usize) -> Column {
    let mut row = || -> Vec<f64> { (0..len).map(|_| rng.normal()).collect() };
    let base = row();
    let rows: Vec<Vec<f64>> = (0..k).map(|_| row()).collect();
    Column::f64(&base, &rows)
}

fn permute<T: Clone>(items: &[T], order: &[usize]) -> Vec<T> {
    order.iter().map(|idx| items[*idx].clone()).collect()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn tiles_do_not_change_a_bit(seed: u64, k in 1usize..8, tile_len in 1usize..400) {
        let (weights, columns) = cohort(seed, k);
        for rule in rules(k).into_iter().chain([Rule::CompatibleMean, Rule::CompatibleSum]) {
            let whole = fold_all(rule, &weights, &columns, usize::MAX / 8).unwrap();
            let tiled = fold_all(rule, &weights, &columns, tile_len).unwrap();
            let bits = |tensors: &[Vec<f64>]| tensors.concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&whole.tensors), bits(&tiled.tensors), "{:?}", rule);
            prop_assert_eq!(&whole, &tiled);
        }
    }

    #[test]
    fn only_the_ratio_of_weights_counts(seed: u64, k in 1usize..8, factor in 1e-6f64..1e6) {
        let (weights, columns) = cohort(seed, k);
        let scaled: Vec<f64> = weights.iter().map(|weight| weight * factor).collect();
        for rule in rules(k) {
            let a = fold_all(rule, &weights, &columns, 64).unwrap();
            let b = fold_all(rule, &scaled, &columns, 64).unwrap();
            for (a, b) in a.tensors.concat().into_iter().zip(b.tensors.concat()) {
                prop_assert!(close(a, b), "{:?}: {} and {}", rule, a, b);
            }
        }
    }

    #[test]
    fn the_order_of_rows_is_rounding_to_means_and_nothing_to_ranks(seed: u64, k in 1usize..8) {
        let (weights, columns) = cohort(seed, k);
        let mut order: Vec<usize> = (0..k).collect();
        SeededRng::new(seed, "order").shuffle(&mut order);
        let shuffled: Vec<Column> = columns
            .iter()
            .map(|c| Column { dtype: c.dtype, base: c.base.clone(), rows: permute(&c.rows, &order) })
            .collect();
        for rule in rules(k) {
            // With three updates each score is one distance, and the two nearest have the same: order decides.
            if k == 3 && matches!(rule, Rule::Krum { .. }) {
                continue;
            }
            let ranks = matches!(rule, Rule::Median | Rule::TrimmedMean { .. });
            let a = fold_all(rule, &weights, &columns, 64).unwrap();
            let b = fold_all(rule, &permute(&weights, &order), &shuffled, 64).unwrap();
            for (a, b) in a.tensors.concat().into_iter().zip(b.tensors.concat()) {
                let same = if ranks { a.to_bits() == b.to_bits() } else { close(a, b) };
                prop_assert!(same, "{:?}: {} and {}", rule, a, b);
            }
        }
    }

    #[test]
    fn equal_rows_fold_to_that_row(
        row in prop::collection::vec(-1e30f32..1e30, 1..80),
        weights in prop::collection::vec(1u16..5000, 1..10),
    ) {
        let k = weights.len();
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        let columns = [Column { dtype: Dtype::F32, base: vec![0; bytes.len()], rows: vec![bytes; k] }];
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let exactly: Vec<f64> = row.into_iter().map(f64::from).collect();
        for rule in rules(k) {
            if matches!(rule, Rule::NormClippedMean(_)) {
                continue;
            }
            let folded = fold_all(rule, &weights, &columns, 64).unwrap();
            if matches!(rule, Rule::TrimmedMean { .. } | Rule::GeometricMedian) {
                prop_assert!(folded.tensors[0].iter().zip(&exactly).all(|(a, b)| close(*a, *b)));
            } else {
                prop_assert_eq!(&folded.tensors[0], &exactly, "{:?}", rule);
            }
        }
    }

    #[test]
    fn krum_withstands_as_many_faulty_updates_as_it_says(seed: u64, byzantine in 1u32..4, spare in 0usize..3) {
        let f = byzantine as usize;
        let k = 2 * f + 3 + spare;
        let mut rng = SeededRng::new(seed, "krum");
        let mut order: Vec<usize> = (0..k).collect();
        rng.shuffle(&mut order);
        let faulty = &order[..f];
        let row = |rng: &mut SeededRng, offset: f64| -> Vec<f64> { (0..40).map(|_| offset + rng.normal()).collect() };
        // The faulty ones agree with one another, far from the others.
        let rows: Vec<Vec<f64>> =
            (0..k).map(|idx| row(&mut rng, if faulty.contains(&idx) { 50.0 } else { 0.0 })).collect();
        let columns = [Column::f64(&[0.0; 40], &rows)];
        for keep in [1, u32::try_from(k - f).unwrap()] {
            let folded = fold_all(Rule::Krum { byzantine, keep }, &vec![1.0; k], &columns, 64).unwrap();
            prop_assert_eq!(folded.selected.len(), keep as usize);
            prop_assert!(folded.selected.iter().all(|row| !faulty.contains(row)), "{:?}", folded.selected);
            prop_assert!(folded.tensors[0].iter().all(|value| value.abs() < 10.0));
        }
    }

    #[test]
    fn ranks_withstand_a_minority(seed: u64, k in 3usize..12) {
        let mut rng = SeededRng::new(seed, "minority");
        let mut rows: Vec<Vec<f64>> = (0..k).map(|_| (0..40).map(|_| rng.normal()).collect()).collect();
        for row in rows.iter_mut().take((k - 1) / 2) {
            row.fill(1e9 * rng.normal());
        }
        rng.shuffle(&mut rows);
        let columns = [Column::f64(&[0.0; 40], &rows)];
        for rule in [Rule::Median, Rule::TrimmedMean { share: 0.4999 }] {
            let cut_enough = rule == Rule::Median || k % 2 == 1;
            if cut_enough {
                let folded = fold_all(rule, &vec![1.0; k], &columns, 64).unwrap();
                prop_assert!(folded.tensors[0].iter().all(|value| value.abs() < 10.0), "{:?}", rule);
            }
        }
    }

    #[test]
    fn a_clip_bounds_the_distance_of_the_result(seed: u64, k in 1usize..8, bound in 0.01f64..20.0) {
        let (weights, columns) = cohort(seed, k);
        let folded = fold_all(Rule::NormClippedMean(Clip::NormMax(bound)), &weights, &columns, 64).unwrap();
        let zeros = columns.iter().map(|c| Column { dtype: c.dtype, base: c.base.clone(), rows: vec![c.base.clone()] });
        let base = fold_all(Rule::WeightedMean, &[1.0], &zeros.collect::<Vec<_>>(), 64).unwrap();
        let moved = folded.tensors.concat().into_iter().zip(base.tensors.concat()).map(|(a, b)| a - b);
        let distance = norm(moved);
        prop_assert!(distance <= bound * (1.0 + 1e-9), "moved {} of {}", distance, bound);
        prop_assert!(folded.scales.iter().all(|scale| *scale > 0.0 && *scale <= 1.0));
    }
}

#[test]
fn an_update_at_the_current_model_is_not_scaled() {
    let base = vec![1.0, -2.0, 3.0];
    let columns = [Column::f64(&base, &[base.clone(), base.clone(), vec![1.0, -2.0, 1e12]])];
    for clip in [Clip::NormRatio(4.0), Clip::NormMax(1e-3)] {
        let folded = fold_all(Rule::NormClippedMean(clip), &[1.0; 3], &columns, 64).unwrap();
        assert_eq!(folded.scales[..2], [1.0, 1.0]);
        assert!((folded.tensors[0][2] - 3.0).abs() <= 1e-3, "{:?}", folded.tensors);
    }
    let still = [Column::f64(&base, &[base.clone(), base.clone()])];
    let folded = fold_all(Rule::NormClippedMean(Clip::NormRatio(1.0)), &[1.0; 2], &still, 64).unwrap();
    assert_eq!((folded.tensors, folded.scales), (vec![base], vec![1.0, 1.0]));
}

#[test]
fn equal_krum_scores_rank_in_canonical_order() {
    // Two tight pairs, whose four scores are equal, and one between, whose score is larger.
    let rows = [[0.0], [0.0], [5.0], [10.0], [10.0]].map(Vec::from);
    let columns = [Column::f64(&[0.0], &rows)];
    let keep = |keep| fold_all(Rule::Krum { byzantine: 1, keep }, &[1.0; 5], &columns, 64).unwrap().selected;
    assert_eq!(keep(1), [0]);
    assert_eq!(keep(3), [0, 1, 3]);
    let even = [Column::f64(&[0.0], &[vec![1.0], vec![2.0], vec![3.0]])];
    let chosen = fold_all(Rule::Krum { byzantine: 0, keep: 2 }, &[1.0; 3], &even, 64).unwrap().selected;
    assert_eq!(chosen, [0, 1]);
}
