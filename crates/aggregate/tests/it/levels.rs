//! Every level of the processor gives the same bits, and a quick pass never decides what an exact one would not.

use proptest::prelude::*;
use sheaf_aggregate::{Clip, Error, Fold, Rule, TileSet};
use sheaf_domain::rng::SeededRng;
use sheaf_tensor::cpu::Level;
use sheaf_tensor::{Dtype, element};

use crate::Column;

/// A tensor of every dtype with finite values of both signs, zeros of both signs among them.
fn cohort(seed: u64, k: usize, len: usize) -> Vec<Column> {
    let mut rng = SeededRng::new(seed, "levels");
    let column = |dtype: Dtype| {
        let mut row = || {
            let values: Vec<f64> = (0..len)
                .map(|_| if rng.unit() < 0.1 { -0.0 * rng.normal() } else { rng.normal() * 50.0 })
                .collect();
            let mut bytes = vec![0; len * dtype.size()];
            element::from_f64(dtype, &values, &mut bytes).unwrap();
            bytes
        };
        Column { dtype, base: row(), rows: (0..k).map(|_| row()).collect() }
    };
    Dtype::ALL.into_iter().map(column).collect()
}

/// Everything a fold says, as bits, and how many prepasses it took.
fn folded(rule: Rule, weights: &[f64], columns: &[Column], level: Level) -> Result<(Vec<u64>, u32), Error> {
    let mut fold = Fold::new(rule, weights)?.at(level);
    let mut passes = 0;
    while fold.needs_prepass() {
        for column in columns {
            column.tiles(321, |tiles| fold.observe(tiles))?;
        }
        fold.seal()?;
        passes += 1;
    }
    let mut bits: Vec<u64> = fold.selected().into_iter().map(|row| row as u64).collect();
    bits.extend(fold.scales().into_iter().map(f64::to_bits));
    for column in columns {
        column.tiles(777, |tiles: &TileSet<'_>| {
            let mut out = vec![f64::NAN; tiles.rows[0].len() / tiles.dtype.size()];
            fold.fold(tiles, &mut out)?;
            bits.extend(out.into_iter().map(f64::to_bits));
            Ok(())
        })?;
    }
    Ok((bits, passes))
}

fn rules(k: usize) -> Vec<Rule> {
    let byzantine = u32::try_from((k - 3) / 3).unwrap();
    vec![
        Rule::WeightedMean,
        Rule::CompatibleMean,
        Rule::CompatibleSum,
        Rule::GeometricMedian,
        Rule::NormClippedMean(Clip::NormRatio(0.9)),
        Rule::Median,
        Rule::TrimmedMean { share: 0.2 },
        Rule::Krum { byzantine, keep: 1 },
        Rule::Krum { byzantine, keep: 3 },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_level_gives_the_same_bits(seed: u64, k in 3usize..40, len in 1usize..1500) {
        let columns = cohort(seed, k, len);
        let weights: Vec<f64> = (0..k).map(|row| 0.3 + row as f64 * 1.7).collect();
        for rule in rules(k) {
            let (plain, _) = folded(rule, &weights, &columns, Level::Plain).unwrap();
            for level in Level::available() {
                let (bits, _) = folded(rule, &weights, &columns, level).unwrap();
                prop_assert!(plain == bits, "{:?} at {:?}", rule, level);
            }
        }
    }
}

#[test]
fn a_mean_of_many_rows_and_blocks_is_the_plain_sum_in_row_order() {
    let (k, len) = (37, 40_001);
    let mut rng = SeededRng::new(7, "rows");
    let rows: Vec<Vec<f64>> = (0..k).map(|_| (0..len).map(|_| rng.normal()).collect()).collect();
    let weights: Vec<f64> = (0..k).map(|_| 0.1 + rng.unit() * 9.0).collect();
    let total: f64 = weights.iter().sum();
    let column = Column::f64(&vec![0.0; len], &rows);
    let rows_bytes: Vec<&[u8]> = column.rows.iter().map(|row| &row[..]).collect();
    for level in Level::available() {
        let fold = Fold::new(Rule::WeightedMean, &weights).unwrap().at(level);
        let mut out = vec![0.0; len];
        fold.fold(&TileSet { dtype: Dtype::F64, rows: &rows_bytes, base: None }, &mut out).unwrap();
        for (place, value) in out.iter().enumerate() {
            let mut sum = 0.0;
            for (row, weight) in rows.iter().zip(&weights) {
                sum += weight * row[place];
            }
            assert_eq!(value.to_bits(), (sum / total).to_bits(), "{level:?}, element {place}");
        }
    }
}

fn f32_rows(rows: &[Vec<f32>]) -> Column {
    let bytes = |row: &Vec<f32>| row.iter().flat_map(|value| value.to_le_bytes()).collect();
    let base = vec![0; rows[0].len() * 4];
    Column { dtype: Dtype::F32, base, rows: rows.iter().map(bytes).collect() }
}

/// Twenty updates on a line; the second and the third best score differ by less than float32 can tell.
#[test]
fn scores_too_close_for_the_quick_pass_are_measured_again() {
    let k: usize = 20;
    let mut rows: Vec<Vec<f32>> = (0..k).map(|row| vec![1.0 + row as f32; 600]).collect();
    rows[10] = rows[9].clone();
    rows[10][17] += 1e-6;
    let (columns, weights) = ([f32_rows(&rows)], vec![1.0; k]);
    let rule = Rule::Krum { byzantine: 2, keep: 2 };
    let (plain, _) = folded(rule, &weights, &columns, Level::Plain).unwrap();
    assert_eq!(plain[..2], [8, 9]);
    for level in Level::available() {
        let (bits, passes) = folded(rule, &weights, &columns, level).unwrap();
        assert_eq!(passes, if level > Level::Plain { 2 } else { 1 }, "{level:?}");
        assert_eq!(bits, plain);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Updates of which several are alike but for the last bits: who is kept is who an exact pass alone keeps.
    #[test]
    fn whoever_is_measured_again_the_choice_is_that_of_exact_distances(
        seed: u64,
        k in 9usize..40,
        len in 1usize..1_400,
        groups in 1usize..5,
        keep in 1u32..10,
    ) {
        let mut rng = SeededRng::new(seed, "close");
        let mut below = |bound: u64| u16::try_from(rng.below(bound)).unwrap();
        let centres: Vec<Vec<f32>> =
            (0..groups).map(|_| (0..len).map(|_| f32::from(below(1_000)) / 64.0 - 7.0).collect()).collect();
        let mut near = |value: &f32| f32::from_bits(value.to_bits() ^ u32::from(below(3)));
        let rows: Vec<Vec<f32>> = (0..k)
            .map(|row| centres[row % groups].iter().map(&mut near).collect())
            .collect();
        let (columns, weights) = ([f32_rows(&rows)], vec![1.0; k]);
        let rule = Rule::Krum { byzantine: u32::try_from((k - 3) / 3).unwrap(), keep };
        let (plain, _) = folded(rule, &weights, &columns, Level::Plain).unwrap();
        for level in Level::available() {
            let (bits, _) = folded(rule, &weights, &columns, level).unwrap();
            prop_assert_eq!(&plain, &bits, "{:?}", level);
        }
    }
}

/// Two updates are one and the same in every dtype: whoever keeps one of them alone must have looked at them exactly.
#[test]
fn a_second_pass_takes_in_every_dtype() {
    let k = 20;
    let mut columns = cohort(11, k, 700);
    for column in &mut columns {
        column.rows[k - 1] = column.rows[9].clone();
    }
    let weights = vec![1.0; k];
    for level in Level::available() {
        let mut passes_of_keep = Vec::new();
        for keep in 1..20 {
            let rule = Rule::Krum { byzantine: 5, keep };
            let (plain, _) = folded(rule, &weights, &columns, Level::Plain).unwrap();
            let (bits, passes) = folded(rule, &weights, &columns, level).unwrap();
            assert_eq!(bits, plain, "{level:?}, {keep} kept");
            passes_of_keep.push(passes);
        }
        let again = passes_of_keep.iter().filter(|passes| **passes == 2).count();
        assert_eq!(again, usize::from(level > Level::Plain), "{level:?}: {passes_of_keep:?}");
    }
}

#[test]
fn clear_scores_need_one_pass_and_huge_values_an_exact_one() {
    let k = 12;
    // One update in the middle of all others, so that nothing comes near its score.
    let rows = |scale: f32| -> Vec<Vec<f32>> {
        (0..k)
            .map(|row| (0..600).map(|i| if row == 4 || i % k != row { 0.0 } else { scale }).collect())
            .collect()
    };
    let rule = Rule::Krum { byzantine: 1, keep: 1 };
    for level in Level::available().into_iter().filter(|level| *level > Level::Plain) {
        let (bits, passes) = folded(rule, &vec![1.0; k], &[f32_rows(&rows(1.0))], level).unwrap();
        assert_eq!((bits[0], passes), (4, 1), "{level:?}");
        let (bits, passes) = folded(rule, &vec![1.0; k], &[f32_rows(&rows(1e30))], level).unwrap();
        assert_eq!((bits[0], passes), (4, 2), "{level:?}");
    }
}
