//! The folds of a model's tensors: tensors of one rule share theirs, unless the rule looks at every tensor by itself.
//!
//! Used as a [`Fold`] is. Tiles are observed tensor by tensor: what a prepass holds is held for one tensor at a time, and of each that is
//! done one coefficient an update is left.

use sheaf_aggregate::{Fold, Rule, TileSet};
use sheaf_domain::{FoldRule, Manifest};

use super::fold_error;
use crate::Error;

/// The folds of a cohort's tensors.
#[derive(Debug)]
pub(super) struct Folds {
    folds: Vec<Fold>,
    /// Which of them folds each tensor; none yet where `each` makes it with the first tile observed.
    places: Vec<Option<usize>>,
    each: Option<Each>,
}

/// A rule that looks at every tensor by itself.
#[derive(Debug)]
struct Each {
    rule: Rule,
    weights: Vec<f64>,
    /// What the prepass of a tensor holds; nothing when it is over.
    prepass_bytes: u64,
}

impl Folds {
    /// Binds a plan's rule to the weights of a cohort and the tensors of a model.
    pub(super) fn new(rule: &FoldRule, weights: &[f64], model: &Manifest) -> Result<Folds, Error> {
        let (mut rules, mut folds, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for spec in model.specs() {
            let rule = sheaf_strategy::fold_rule(rule, &spec.name).map_err(fold_error)?;
            let place = rules.iter().position(|known| *known == rule);
            if place.is_none() {
                folds.push(Fold::new(rule, weights).map_err(fold_error)?);
                rules.push(rule);
            }
            places.push(place.or(Some(rules.len() - 1)));
        }
        let ([rule @ Rule::GeometricMedian], [fold]) = (rules.as_slice(), folds.as_slice()) else {
            return Ok(Folds { folds, places, each: None });
        };
        let each = Each { rule: *rule, weights: weights.to_vec(), prepass_bytes: fold.held_bytes(1) };
        Ok(Folds { folds: Vec::new(), places: vec![None; places.len()], each: Some(each) })
    }

    pub(super) fn needs_prepass(&self) -> bool {
        match &self.each {
            Some(each) => each.prepass_bytes > 0,
            None => self.folds.iter().any(Fold::needs_prepass),
        }
    }

    /// Takes in one tile of a tensor; every tile once and in order.
    pub(super) fn observe(&mut self, tensor_idx: usize, tiles: &TileSet<'_>) -> Result<(), Error> {
        let place = self.places.get_mut(tensor_idx).ok_or_else(no_tensor)?;
        if let (None, Some(each)) = (&place, &self.each) {
            seal(self.folds.last_mut())?;
            *place = Some(self.folds.len());
            self.folds.push(Fold::new(each.rule, &each.weights).map_err(fold_error)?);
        }
        let fold = place.and_then(|place| self.folds.get_mut(place)).ok_or_else(no_tensor)?;
        fold.observe(tiles).map_err(fold_error)
    }

    /// Ends a prepass.
    pub(super) fn seal(&mut self) -> Result<(), Error> {
        match &mut self.each {
            Some(each) => {
                each.prepass_bytes = 0;
                seal(self.folds.last_mut())
            }
            None => seal(&mut self.folds),
        }
    }

    /// The fold of a tensor that has elements.
    pub(super) fn of(&self, tensor_idx: usize) -> Result<&Fold, Error> {
        let place = self.places.get(tensor_idx).copied().flatten();
        place.and_then(|place| self.folds.get(place)).ok_or_else(no_tensor)
    }

    /// How many bytes they hold beside their tiles while `threads` fold at once, in the pass to come.
    pub(super) fn held_bytes(&self, threads: usize) -> u64 {
        let shared = self.folds.iter().map(|fold| fold.held_bytes(threads)).sum::<u64>();
        let each = self.each.as_ref().map_or(0, |each| {
            // The weights, and what became of them.
            each.prepass_bytes + 2 * size_of_val(&each.weights[..]) as u64 * self.places.len() as u64
        });
        shared + each
    }
}

fn seal<'f>(folds: impl IntoIterator<Item = &'f mut Fold>) -> Result<(), Error> {
    folds.into_iter().try_for_each(Fold::seal).map_err(fold_error)
}

fn no_tensor() -> Error {
    Error::internal("a tile of no tensor")
}
