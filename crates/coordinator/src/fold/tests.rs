//! Folds of orders that no plan makes yet: differences, and several lineages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use sheaf_blob::{BlobStore, Hold, MemoryBlobs};
use sheaf_domain::{
    ByteSize, ByteSpan, ClipBound, Digest, FoldRule, LineageName, Manifest, ModelHasher, RunId, ServerStep,
    SiteName, SlotName, StageFold, StageName, SubmittedSlot, TaskId, Weight,
};
use sheaf_engine::{FoldInput, FoldOrder, NewVersion, StageKey};
use sheaf_runtime::Compute;
use sheaf_tensor::{Dtype, TensorSpec};

use super::Folder;
use crate::models;

mod aggregations;

struct World {
    blob: MemoryBlobs,
    compute: Compute,
}

impl World {
    fn new() -> World {
        World { blob: MemoryBlobs::new(ByteSize::from_bytes(16 << 20)), compute: Compute::new(1) }
    }

    /// Stores a model of one tensor.
    async fn model(&self, values: &[f32]) -> (Arc<Manifest>, Digest) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let spec = TensorSpec::new("w", Dtype::F32, [values.len() as u64]).unwrap();
        let mut writer = self.blob.writer(&Hold::new("test").unwrap(), bytes.len() as u64).await.unwrap();
        writer.write(Bytes::from(bytes.clone())).await.unwrap();
        let piece = writer.finish(None).await.unwrap().digest;
        let mut hasher = ModelHasher::new();
        hasher.tensor(&spec);
        hasher.bytes(&bytes);
        let pieces = if bytes.is_empty() { Vec::new() } else { vec![piece] };
        let manifest = Manifest::over_pieces(vec![spec], 1 << 20, &pieces).unwrap();
        (Arc::new(manifest), hasher.finish())
    }

    async fn named(&self, name: &str, values: &[f32]) -> Manifest {
        let mut manifest = self.model(values).await.0.as_ref().clone();
        for tensor in &mut manifest.tensors {
            tensor.spec.name = name.to_owned();
        }
        manifest
    }

    async fn values(&self, manifest: &Manifest) -> Vec<f32> {
        let span = ByteSpan { offset: 0, len: manifest.byte_len() };
        let bytes = models::read(&self.blob, &models::Layout::of(manifest), span).await.unwrap();
        bytes.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
    }

    /// Folds differences from version 3 of the model onto version 4.
    async fn fold_differences(
        &self,
        rule: FoldRule,
        step: ServerStep,
        differences: &[(&[f32], f64)],
    ) -> Vec<NewVersion> {
        let (handed_out, newest) = (self.model(&[100.0, 200.0]).await, self.model(&[101.0, 202.0]).await);
        let mut handed_in = Vec::new();
        for (values, num_examples) in differences {
            handed_in.push((self.model(values).await.0.as_ref().clone(), *num_examples));
        }
        let mut order = order(handed_in, (rule, step), newest);
        order.bases = BTreeMap::from([(slot(), (3, handed_out.0, handed_out.1))]);
        let hold = |_: &LineageName, _| Ok(Hold::new("made").unwrap());
        Folder::new(&self.blob, &self.compute, 1 << 16).fold(&order, hold).await.unwrap()
    }
}

fn slot() -> SlotName {
    SlotName::new("model").unwrap()
}

/// An order to fold what was handed in, each with its examples, into the version after the fourth.
fn order(
    handed_in: Vec<(Manifest, f64)>,
    (rule, step): (FoldRule, ServerStep),
    current: (Arc<Manifest>, Digest),
) -> FoldOrder {
    let (run, stage) = (RunId::new(1).unwrap(), StageName::new("train").unwrap());
    let inputs = handed_in.into_iter().enumerate().map(|(idx, (manifest, num_examples))| {
        let site = SiteName::new(format!("site-{idx}")).unwrap();
        let task = TaskId::derive(run, 4, &stage, &site, 1);
        FoldInput { task, site, num_examples, slots: vec![SubmittedSlot { slot: slot(), manifest }] }
    });
    let (inputs, target) = (inputs.collect(), LineageName::global());
    let fold = StageFold { slot: slot(), rule, weight: Weight::NumExamples, step, target: target.clone() };
    FoldOrder {
        run,
        key: StageKey { round: 9, stage },
        inputs,
        folds: vec![fold],
        current: BTreeMap::from([(target, (4, current.0, current.1))]),
        bases: BTreeMap::new(),
        loose: BTreeSet::new(),
    }
}

#[tokio::test]
async fn differences_are_folded_onto_the_version_they_are_from() {
    let world = World::new();
    let differences: [(&[f32], f64); 2] = [(&[1.0, -4.0], 3.0), (&[5.0, 4.0], 1.0)];
    let made = world.fold_differences(FoldRule::WeightedMean, ServerStep::Replace, &differences).await;
    assert_eq!((made.len(), made[0].version), (1, 5));
    assert_eq!(world.values(&made[0].manifest).await, [102.0, 198.0]);
}

#[tokio::test]
async fn a_difference_is_clipped_by_its_own_length() {
    let world = World::new();
    let rule = FoldRule::NormClippedMean { bound: ClipBound::NormMax(5.0) };
    let differences: [(&[f32], f64); 2] = [(&[3.0, 4.0], 1.0), (&[30.0, 40.0], 1.0)];
    let made = world.fold_differences(rule, ServerStep::Replace, &differences).await;
    assert_eq!(world.values(&made[0].manifest).await, [103.0, 204.0]);
}

#[tokio::test]
async fn moments_are_named_after_what_they_step_and_numbered_with_it() {
    let world = World::new();
    let step = ServerStep::Momentum { learning_rate: 1.0, momentum: 0.5 };
    let made = world.fold_differences(FoldRule::WeightedMean, step, &[(&[1.0, 2.0], 1.0)]).await;
    let named: Vec<_> = made.iter().map(|new| (new.lineage.as_str(), new.version)).collect();
    assert_eq!(named, [("global", 5), ("global.opt.m", 5)]);
    // The step is from the newest version, 101 and 202, to 100 + 1 and 200 + 2.
    assert_eq!(world.values(&made[0].manifest).await, [101.0, 202.0]);
}

/// Folds weights onto version 4 of a model, told in some way; the versions made and their values, in order.
async fn told(
    as_difference: bool,
    codec: Option<&str>,
    loose: bool,
    rows: &[(&str, &[f32], f64)],
) -> Vec<(String, Vec<(String, Vec<f32>)>)> {
    let world = World::new();
    let current = world.named("w", &[1.0, 16_777_216.0]).await;
    let mut handed_in = Vec::new();
    for (name, values, num_examples) in rows {
        handed_in.push((world.named(name, values).await, *num_examples));
    }
    let step = ServerStep::Told { as_difference, codec: codec.map(str::to_owned), optimiser: None };
    let mut order = order(handed_in, (FoldRule::CompatibleMean, step), (Arc::new(current), Digest::of(b"4")));
    order.loose.extend(loose.then(slot));
    let hold = |_: &LineageName, _| Ok(Hold::new("made").unwrap());
    let folder = Folder::new(&world.blob, &world.compute, 1 << 16).with_coder(Some(Arc::new(Halves)));
    let mut told = Vec::new();
    for new in folder.fold(&order, hold).await.unwrap() {
        assert_eq!(new.version, 5);
        let values = world.values(&new.manifest).await;
        let mut values = values.into_iter();
        let tensors = new.manifest.specs().map(|spec| {
            let len = usize::try_from(spec.shape.num_elements()).unwrap();
            (spec.name.clone(), values.by_ref().take(len).collect())
        });
        told.push((new.lineage.to_string(), tensors.collect()));
    }
    told
}

/// A codec by which half of everything is lost.
#[derive(Debug)]
struct Halves;

impl super::Coder for Halves {
    fn told(&self, codec: &str, _: &TensorSpec, bytes: Bytes, _: u64) -> Result<Vec<u8>, String> {
        assert_eq!(codec, "halves");
        let values = bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw) / 2.0);
        Ok(values.flat_map(f32::to_le_bytes).collect())
    }
}

fn one(lineage: &str, name: &str, values: &[f32]) -> (String, Vec<(String, Vec<f32>)>) {
    (lineage.to_owned(), vec![(name.to_owned(), values.to_vec())])
}

#[tokio::test]
async fn a_version_that_is_told_as_a_difference_is_what_it_is_added_to() {
    let rows: [(&str, &[f32], f64); 2] = [("w", &[2.0, 1.0], 1.0), ("w", &[4.0, 2.0], 1.0)];
    let made = told(true, None, false, &rows).await;
    // 1.5 less 2^24 is no float32: the nearest is told, and added up.
    let expected = [one("global", "w", &[3.0, 2.0]), one("global.difference", "w", &[2.0, -16_777_214.0])];
    assert_eq!(made, expected);
    assert_eq!(told(false, None, false, &rows).await, [one("global", "w", &[3.0, 1.5])]);
}

#[tokio::test]
async fn a_version_that_a_codec_tells_is_what_is_made_of_it() {
    let rows: [(&str, &[f32], f64); 1] = [("w", &[3.0, 16_777_216.0], 7.0)];
    let made = told(true, Some("halves"), false, &rows).await;
    let expected = [one("global", "w", &[2.0, 16_777_216.0]), one("global.difference", "w", &[2.0, 0.0])];
    assert_eq!(made, expected);
    assert_eq!(told(false, Some("halves"), false, &rows).await, [one("global", "w", &[1.5, 8_388_608.0])]);
}

#[tokio::test]
async fn what_may_be_left_out_is_folded_where_all_have_it() {
    let rows: [(&str, &[f32], f64); 2] = [("w", &[2.0, 16_777_216.0], 1.0), ("w", &[4.0, 16_777_216.0], 1.0)];
    let made = told(true, None, true, &rows).await;
    let expected = [one("global", "w", &[3.0, 16_777_216.0]), one("global.difference", "w", &[2.0, 0.0])];
    assert_eq!(made, expected);
    // Nothing of that name is there yet: it begins with what it is folded to.
    let rows: [(&str, &[f32], f64); 2] = [("m", &[2.0], 1.0), ("m", &[4.0], 3.0)];
    assert_eq!(told(true, None, true, &rows).await, [one("global", "m", &[3.5])]);
    let rows: [(&str, &[f32], f64); 2] = [("m", &[2.0], 1.0), ("n", &[4.0], 3.0)];
    assert_eq!(told(true, None, true, &rows).await, [("global".to_owned(), Vec::new())]);
    // Whoever hands nothing in changes nothing.
    assert_eq!(told(true, None, true, &[]).await, [one("global", "w", &[1.0, 16_777_216.0])]);
}
