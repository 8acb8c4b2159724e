//! Folds of orders that no plan makes yet: differences, and several lineages.

use std::collections::BTreeMap;
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

struct World {
    blob: MemoryBlobs,
    compute: Compute,
}

impl World {
    fn new() -> World {
        World { blob: MemoryBlobs::new(ByteSize::from_bytes(1 << 20)), compute: Compute::new(1) }
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
        let manifest = Manifest::over_pieces(vec![spec], 1 << 20, &[piece]).unwrap();
        (Arc::new(manifest), hasher.finish())
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
        let slot = SlotName::new("model").unwrap();
        let (run, stage) = (RunId::new(1).unwrap(), StageName::new("train").unwrap());
        let mut inputs = Vec::new();
        for (idx, (values, num_examples)) in differences.iter().enumerate() {
            let site = SiteName::new(format!("site-{idx}")).unwrap();
            let manifest = self.model(values).await.0.as_ref().clone();
            inputs.push(FoldInput {
                task: TaskId::derive(run, 4, &stage, &site, 1),
                site,
                num_examples: *num_examples,
                slots: vec![SubmittedSlot { slot: slot.clone(), manifest }],
            });
        }
        let target = LineageName::global();
        let order = FoldOrder {
            run,
            key: StageKey { round: 9, stage },
            inputs,
            folds: vec![StageFold {
                slot: slot.clone(),
                rule,
                weight: Weight::NumExamples,
                step,
                target: target.clone(),
            }],
            current: BTreeMap::from([(target, (4, newest.0, newest.1))]),
            bases: BTreeMap::from([(slot, (3, handed_out.0, handed_out.1))]),
        };
        let hold = |_: &LineageName, _| Ok(Hold::new("made").unwrap());
        Folder::new(&self.blob, &self.compute, 1 << 16).fold(&order, hold).await.unwrap()
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
