//! Folds of slots that may be left out: whatever tensors all of those have who hand some in.
//!
//! A tensor that the current version has with the same shape is stepped from that; any other begins with what it is folded to. A version is
//! made in every round, also where nobody hands anything in: then it is the one before.

use std::collections::BTreeMap;
use std::sync::Arc;

use sheaf_blob::Hold;
use sheaf_domain::{Digest, LineageName, Manifest, ServerStep, StageFold};
use sheaf_engine::{FoldOrder, NewVersion};

use super::{Folder, contribution, digest_of};
use crate::{Error, models};

impl Folder<'_> {
    pub(super) async fn loose(
        &self,
        order: &FoldOrder,
        fold: &StageFold,
        hold_for: &impl Fn(&LineageName) -> Result<Hold, Error>,
    ) -> Result<Vec<NewVersion>, Error> {
        let version = order.next(&fold.target);
        let current = order.current.get(&fold.target).map(|(_, manifest, _)| Arc::clone(manifest));
        let current = current.unwrap_or_else(|| Arc::new(part(&Manifest::empty(), |_| true)));
        let given: Vec<_> = order.inputs.iter().filter_map(|input| contribution(input, fold)).collect();
        let Some(first) = given.first().map(|(manifest, _)| *manifest) else {
            return self.carry(fold, version, &current, hold_for).await.map(|made| vec![made]);
        };
        let names: Vec<BTreeMap<&str, &sheaf_tensor::TensorSpec>> =
            given.iter().map(|(manifest, _)| named(manifest)).collect();
        let (all, before) = (
            part(first, |spec| names.iter().all(|of| of.get(spec.name.as_str()) == Some(&spec))),
            named(&current),
        );
        let known = part(&all, |spec| before.get(spec.name.as_str()) == Some(&spec));
        let fresh = part(&all, |spec| before.get(spec.name.as_str()) != Some(&spec));
        let mut made = Vec::new();
        let mut target = Manifest::empty();
        for (like, is_known) in [(known, true), (fresh, false)] {
            if like.tensors.is_empty() {
                continue;
            }
            let rows: Vec<(Manifest, f64)> =
                given.iter().map(|(manifest, weight)| (in_order(manifest, &like), *weight)).collect();
            let base = if is_known { in_order(&current, &like) } else { like.clone() };
            let step = loose_step(&fold.step, is_known);
            let (fold, order) = (StageFold { step, ..fold.clone() }, based(order, fold, base));
            let contributions =
                rows.iter().map(|(manifest, weight)| super::Contribution::of(manifest, *weight)).collect();
            for new in self.step(&order, &fold, contributions, hold_for).await? {
                if new.lineage == fold.target {
                    target.tensors.extend(new.manifest.tensors);
                } else {
                    made.push(new);
                }
            }
        }
        let digest = models::digest(self.blob, self.compute, &target).await?;
        let lineage = fold.target.clone();
        made.insert(0, NewVersion { lineage, version, manifest: target, digest });
        debug_assert!(digest_of(&made, &fold.target).is_some());
        Ok(made)
    }

    /// The version before once more.
    async fn carry(
        &self,
        fold: &StageFold,
        version: u32,
        current: &Manifest,
        hold_for: &impl Fn(&LineageName) -> Result<Hold, Error>,
    ) -> Result<NewVersion, Error> {
        let hold = hold_for(&fold.target)?;
        for object in current.objects() {
            if !self.blob.hold(&object, &hold).await? {
                return Err(Error::internal(format!("object {} is gone", object.short())));
            }
        }
        let digest = models::digest(self.blob, self.compute, current).await?;
        Ok(NewVersion { lineage: fold.target.clone(), version, manifest: current.clone(), digest })
    }
}

/// The step of tensors that may be left out: no optimiser keeps anything of them, and those that have no version yet differ from nothing.
fn loose_step(step: &ServerStep, is_known: bool) -> ServerStep {
    match step {
        ServerStep::Told { as_difference, codec, .. } => {
            let as_difference = *as_difference && is_known;
            ServerStep::Told { as_difference, codec: codec.clone(), optimiser: None }
        }
        step if is_known => step.clone(),
        _ => ServerStep::Replace,
    }
}

/// The order, with another version of what a fold makes to stand on.
fn based(order: &FoldOrder, fold: &StageFold, base: Manifest) -> FoldOrder {
    let mut order = order.clone();
    let newest = order
        .current
        .get(&fold.target)
        .map_or((0, Digest::from_bytes([0; 32])), |(newest, _, digest)| (*newest, *digest));
    order.current.insert(fold.target.clone(), (newest.0, Arc::new(base), newest.1));
    order
}

fn named(manifest: &Manifest) -> BTreeMap<&str, &sheaf_tensor::TensorSpec> {
    manifest.specs().map(|spec| (spec.name.as_str(), spec)).collect()
}

fn part(manifest: &Manifest, keep: impl Fn(&sheaf_tensor::TensorSpec) -> bool) -> Manifest {
    let tensors = manifest.tensors.iter().filter(|tensor| keep(&tensor.spec)).cloned().collect();
    Manifest { codec: manifest.codec, tensors }
}

/// The tensors of `like`, as `manifest` has them.
fn in_order(manifest: &Manifest, like: &Manifest) -> Manifest {
    let places: BTreeMap<&str, usize> = manifest.specs().map(|spec| spec.name.as_str()).zip(0..).collect();
    let place = |name: &str| places.get(name).and_then(|at| manifest.tensors.get(*at)).cloned();
    let tensors = like.specs().filter_map(|spec| place(&spec.name)).collect();
    Manifest { codec: manifest.codec, tensors }
}
