//! The arithmetic of one part of a tile: fold, server step, rounding to the model's dtype.
//!
//! Works strip by strip over buffers that are used again, so that the f64 values between the steps stay in the cache.
//! Integers and booleans have no gradient: an adaptive or momentum step replaces them by the folded value, rounded, and
//! leaves their moments as they are.

use std::ops::Range;

use bytes::Bytes;
use sheaf_aggregate::{Fold, TileSet};
use sheaf_strategy::ServerOptimiser;
use sheaf_tensor::{Dtype, TensorSpec, element};

use super::fold_error;
use super::folds::Folds;
use super::source::Loaded;
use super::tiles::STRIP_LEN;
use super::told::{self, Told};
use crate::Error;

/// Folds that are ready, and the step that follows them.
pub(super) struct Step {
    pub(super) folds: Folds,
    pub(super) optimiser: ServerOptimiser,
    pub(super) told: Told,
}

/// The f64 values of a strip.
struct Strip {
    folded: Vec<f64>,
    current: Vec<f64>,
    next: Vec<f64>,
    moments: Vec<Vec<f64>>,
}

impl Step {
    /// Folds a part of a tile and takes the step: the bytes of the next model and of its difference, as far as they are told, then of each
    /// moment.
    pub(super) fn part(
        &self,
        loaded: &Loaded,
        spec: &TensorSpec,
        part: Range<usize>,
    ) -> Result<Vec<Bytes>, Error> {
        let (fold, size) = (self.folds.of(loaded.tile.tensor_idx)?, spec.dtype.size());
        let steps = !self.optimiser.moments().is_empty() && spec.dtype.is_float();
        let mut model = vec![0; part.len() * size];
        let mut difference = vec![0; if self.told == Told::Version { 0 } else { model.len() }];
        let mut moments = vec![vec![0; part.len() * F64_SIZE]; loaded.moments.len()];
        let mut strip = Strip::new(part.len().min(STRIP_LEN), if steps { moments.len() } else { 0 });
        for start in part.clone().step_by(STRIP_LEN) {
            let elements = start..part.end.min(start + STRIP_LEN);
            strip.resize(elements.len());
            fold_strip(fold, loaded, spec.dtype, &elements, &mut strip.folded)?;
            let to = start - part.start..elements.end - part.start;
            let next = if steps {
                self.step_strip(loaded, spec.dtype, &elements, &mut strip)?;
                for (values, moment) in strip.moments.iter().zip(&mut moments) {
                    encode(Dtype::F64, values, moment, &to)?;
                }
                &strip.next
            } else {
                for (before, moment) in loaded.moments.iter().zip(&mut moments) {
                    keep(before.as_ref(), &elements, moment, &to);
                }
                &strip.folded
            };
            if self.told == Told::Version {
                encode(spec.dtype, next, &mut model, &to)?;
            } else {
                let current = stretch(&loaded.base, &elements, size);
                let bytes = to.start * size..to.end * size;
                let version = model.get_mut(bytes.clone()).unwrap_or_default();
                let difference = difference.get_mut(bytes).unwrap_or_default();
                told::take_difference(current, next, version, difference);
            }
        }
        refuse_non_finite(spec, &model, loaded.tile.start + part.start as u64)?;
        let state_spec = TensorSpec { dtype: Dtype::F64, ..spec.clone() };
        for moment in &moments {
            refuse_non_finite(&state_spec, moment, loaded.tile.start + part.start as u64)?;
        }
        refuse_non_finite(spec, &difference, loaded.tile.start + part.start as u64)?;
        let made = match self.told {
            Told::Version => vec![model],
            Told::Both => vec![model, difference],
            Told::Difference => vec![difference],
        };
        Ok(made.into_iter().chain(moments).map(Bytes::from).collect())
    }

    fn step_strip(
        &self,
        loaded: &Loaded,
        dtype: Dtype,
        elements: &Range<usize>,
        strip: &mut Strip,
    ) -> Result<(), Error> {
        let base = stretch(&loaded.base, elements, dtype.size());
        element::to_f64(dtype, base, &mut strip.current).map_err(fold_error)?;
        for (before, values) in loaded.moments.iter().zip(&mut strip.moments) {
            match before {
                Some(before) => {
                    let before = stretch(before, elements, F64_SIZE);
                    element::to_f64(Dtype::F64, before, values).map_err(fold_error)?;
                }
                None => values.fill(self.optimiser.start()),
            }
        }
        let mut moments: Vec<&mut [f64]> = strip.moments.iter_mut().map(|moment| &mut moment[..]).collect();
        self.optimiser.step(&strip.current, &strip.folded, &mut moments, &mut strip.next).map_err(fold_error)
    }
}

fn fold_strip(
    fold: &Fold,
    loaded: &Loaded,
    dtype: Dtype,
    elements: &Range<usize>,
    folded: &mut [f64],
) -> Result<(), Error> {
    let rows: Vec<&[u8]> = loaded.rows.iter().map(|row| stretch(row, elements, dtype.size())).collect();
    let fold = |base: &[u8], folded: &mut [f64]| {
        fold.fold(&TileSet { dtype, rows: &rows, base: Some(base) }, folded).map_err(fold_error)
    };
    let Some(delta_base) = &loaded.delta_base else {
        return fold(stretch(&loaded.base, elements, dtype.size()), folded);
    };
    fold(&vec![0; elements.len() * dtype.size()], folded)?;
    let mut from = vec![0.0; folded.len()];
    element::to_f64(dtype, stretch(delta_base, elements, dtype.size()), &mut from).map_err(fold_error)?;
    for (folded, from) in folded.iter_mut().zip(from) {
        *folded += from;
    }
    Ok(())
}

impl Strip {
    fn new(len: usize, moments: usize) -> Strip {
        let values = || vec![0.0; len];
        let stepped = if moments > 0 { len } else { 0 };
        Strip {
            folded: values(),
            current: vec![0.0; stepped],
            next: vec![0.0; stepped],
            moments: (0..moments).map(|_| values()).collect(),
        }
    }

    /// Shortens it for the last strip; the first is the longest.
    fn resize(&mut self, len: usize) {
        for values in
            [&mut self.folded, &mut self.current, &mut self.next].into_iter().chain(&mut self.moments)
        {
            values.truncate(len);
        }
    }
}

/// The bytes of some elements; fewer where there are fewer, which the fold then refuses.
fn stretch<'b>(bytes: &'b [u8], elements: &Range<usize>, size: usize) -> &'b [u8] {
    let end = bytes.len().min(elements.end * size);
    bytes.get(elements.start * size..end).unwrap_or_default()
}

fn encode(dtype: Dtype, values: &[f64], out: &mut [u8], to: &Range<usize>) -> Result<(), Error> {
    let out = out.get_mut(to.start * dtype.size()..to.end * dtype.size()).unwrap_or_default();
    element::from_f64(dtype, values, out).map_err(fold_error)
}

/// Carries a moment over as it is; it is zeros where there is none.
fn keep(before: Option<&Bytes>, elements: &Range<usize>, out: &mut [u8], to: &Range<usize>) {
    let Some(before) = before else { return };
    let out = out.get_mut(to.start * F64_SIZE..to.end * F64_SIZE).unwrap_or_default();
    for (out, byte) in out.iter_mut().zip(stretch(before, elements, F64_SIZE)) {
        *out = *byte;
    }
}

pub(super) fn refuse_non_finite(spec: &TensorSpec, bytes: &[u8], start: u64) -> Result<(), Error> {
    match element::first_non_finite(spec.dtype, bytes) {
        Some(index) => {
            let index = start + index;
            Err(Error::internal(format!("the folded tensor {:?} is not finite at index {index}", spec.name)))
        }
        None => Ok(()),
    }
}

const F64_SIZE: usize = Dtype::F64.size();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::tiles::Tile;
    use sheaf_domain::{AdaptiveKind, ByteSpan, Digest, FoldRule, GradientOptimiser, Manifest, ServerStep};

    fn bytes(dtype: Dtype, values: &[f64]) -> Bytes {
        let mut bytes = vec![0; values.len() * dtype.size()];
        element::from_f64(dtype, values, &mut bytes).unwrap();
        Bytes::from(bytes)
    }

    fn values(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
        let mut values = vec![0.0; bytes.len() / dtype.size()];
        element::to_f64(dtype, bytes, &mut values).unwrap();
        values
    }

    fn loaded(dtype: Dtype, base: &[f64], rows: &[&[f64]], moments: Vec<Option<Bytes>>) -> Loaded {
        let len = base.len() as u64;
        let span = ByteSpan { offset: 0, len: len * dtype.size() as u64 };
        let rows = rows.iter().map(|row| bytes(dtype, row)).collect();
        let tile = Tile { tensor_idx: 0, span, start: 0, len };
        Loaded { tile, rows, base: bytes(dtype, base), delta_base: None, moments }
    }

    fn step(step: &ServerStep, weights: &[f64]) -> Step {
        let spec = TensorSpec::new("w", Dtype::F32, [1]).unwrap();
        let model = Manifest::over_pieces(vec![spec], 4, &[Digest::of(b"w")]).unwrap();
        let folds = Folds::new(&FoldRule::WeightedMean, weights, &model).unwrap();
        Step { folds, optimiser: ServerOptimiser::new(step, 1).unwrap(), told: Told::of(step) }
    }

    const ADAM: ServerStep = ServerStep::Adaptive {
        kind: AdaptiveKind::Adam,
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        tau: 1e-3,
    };
    const MOMENTUM: ServerStep = ServerStep::Momentum { learning_rate: 0.5, momentum: 0.9 };

    #[test]
    fn integers_and_booleans_are_replaced_by_the_folded_value_whatever_the_step() {
        for server_step in [&ADAM, &MOMENTUM] {
            let step = step(server_step, &[1.0, 3.0]);
            let kept = bytes(Dtype::F64, &[0.5, -1.0, 7.0]);
            let num_moments = step.optimiser.moments().len();
            for (dtype, expected) in [
                (Dtype::I64, [8.0, 4.0, 100.0]),
                (Dtype::I8, [8.0, 4.0, 100.0]),
                (Dtype::U32, [8.0, 4.0, 100.0]),
                (Dtype::Bool, [1.0, 1.0, 1.0]),
            ] {
                let spec = TensorSpec::new("counter", dtype, [3]).unwrap();
                // (5 + 3×9) / 4 = 8, (1 + 3×5) / 4 = 4, (100 + 3×100) / 4 = 100
                let rows: [&[f64]; 2] = [&[5.0, 1.0, 100.0], &[9.0, 5.0, 100.0]];
                let mut moments = vec![Some(kept.clone()); num_moments];
                moments[0] = None;
                let made = step.part(&loaded(dtype, &[0.0; 3], &rows, moments), &spec, 0..3).unwrap();
                assert_eq!(values(dtype, &made[0]), expected, "{dtype}");
                assert_eq!(values(Dtype::F64, &made[1]), [0.0; 3], "{dtype}: moments stay as they are");
                for moment in &made[2..] {
                    assert_eq!(moment, &kept, "{dtype}: moments stay as they are");
                }
            }
        }
    }

    #[test]
    fn floats_are_stepped_with_their_moments() {
        let step = step(&MOMENTUM, &[1.0]);
        let spec = TensorSpec::new("w", Dtype::F32, [2]).unwrap();
        let moment = Some(bytes(Dtype::F64, &[10.0, 0.0]));
        let made =
            step.part(&loaded(Dtype::F32, &[1.0, 1.0], &[&[2.0, 3.0]], vec![moment]), &spec, 0..2).unwrap();
        assert_eq!(values(Dtype::F64, &made[1]), [10.0, 2.0]);
        assert_eq!(values(Dtype::F32, &made[0]), [6.0, 2.0]);
    }

    #[test]
    fn parts_and_strips_do_not_change_a_bit() {
        let len = 2 * STRIP_LEN + 1000;
        let row = |seed: usize| -> Vec<f64> {
            (0..len).map(|idx| ((idx * 7919 + seed * 104_729) % 1009) as f64 / 31.0 - 16.0).collect()
        };
        let spec = TensorSpec::new("w", Dtype::F32, [len as u64]).unwrap();
        let (learning_rate, beta1, beta2) = (0.1, 0.9, 0.99);
        let optimiser = GradientOptimiser::Adam { learning_rate, beta1, beta2, start: 0.5, epsilon: 1e-8 };
        let told = ServerStep::Told { as_difference: true, codec: None, optimiser: Some(optimiser) };
        for server_step in [&ServerStep::Replace, &MOMENTUM, &ADAM, &told] {
            let step = step(server_step, &[1.5, 2.0, 0.7]);
            let before = Some(bytes(Dtype::F64, &row(9).iter().map(|value| value.abs()).collect::<Vec<_>>()));
            let moments = vec![before; step.optimiser.moments().len()];
            let loaded = loaded(Dtype::F32, &row(0), &[&row(1), &row(2), &row(3)], moments);
            let whole = step.part(&loaded, &spec, 0..len).unwrap();
            for parts in [2, 3, 8] {
                let mut joined = vec![Vec::new(); whole.len()];
                for part in loaded.tile.parts(parts) {
                    for (joined, bytes) in joined.iter_mut().zip(step.part(&loaded, &spec, part).unwrap()) {
                        joined.extend_from_slice(&bytes);
                    }
                }
                assert_eq!(joined, whole, "{parts} parts");
            }
        }
    }

    #[test]
    fn a_result_that_is_not_finite_names_tensor_and_index() {
        let step = step(&ServerStep::Replace, &[1.0]);
        let spec = TensorSpec::new("w", Dtype::F32, [4]).unwrap();
        let mut loaded = loaded(Dtype::F32, &[0.0; 4], &[&[1.0, 2.0, f64::INFINITY, 4.0]], Vec::new());
        loaded.tile.start = 1000;
        let error = step.part(&loaded, &spec, 1..4).unwrap_err().to_string();
        assert!(error.contains("\"w\" is not finite at index 1002"), "{error}");
    }
}
