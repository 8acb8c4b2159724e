//! Versions as participants make them who are told them through a codec.
//!
//! A first pass folds and leaves, element by element, what is to be told: the folded value, or what it differs by from the current version.
//! Where the codec loses something, a second pass asks for every tensor what participants make of it, and that is the version. It
//! holds one tensor whole, as a codec needs it; the first pass holds tiles.

use std::sync::Arc;

use bytes::Bytes;
use sheaf_blob::Hold;
use sheaf_domain::{ByteSpan, Digest, ErrorKind, LineageName, Manifest, RunId, ServerStep};
use sheaf_engine::{FoldOrder, NewVersion};
use sheaf_tensor::{Dtype, TensorSpec};

use super::{Folder, Output};
use crate::Error;
use crate::models::{self, Layout};

/// Who has the codecs that programs name.
pub trait Coder: Send + Sync + std::fmt::Debug {
    /// What participants make of a tensor that they are told through a codec: as many float32.
    ///
    /// Equal arguments give equal bytes, at any time: who tells the tensor uses the same seed.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn told(&self, codec: &str, spec: &TensorSpec, bytes: Bytes, seed: u64) -> Result<Vec<u8>, String>;
}

/// What a codec draws from for a tensor of a version.
pub fn codec_seed(run: RunId, version: u32, tensor: &str) -> u64 {
    let digest = Digest::of(format!("codec/{run}/{version}/{tensor}").as_bytes());
    digest.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// What a fold leaves behind for those who tell it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The version, and nothing else.
    Version,
    /// The version and its difference from the one before, by which it was made.
    Both,
    /// The difference; the version is made of it afterwards.
    Difference,
}

impl Told {
    /// What the first pass of a step leaves behind.
    pub(super) fn of(step: &ServerStep) -> Told {
        match step {
            ServerStep::Told { as_difference: true, codec: None, .. } => Told::Both,
            ServerStep::Told { as_difference: true, codec: Some(_), .. } => Told::Difference,
            _ => Told::Version,
        }
    }

    /// The lineages that it leaves behind, in order.
    pub(super) fn lineages(self, target: &LineageName) -> Result<Vec<LineageName>, Error> {
        Ok(match self {
            Told::Version => vec![target.clone()],
            Told::Both => vec![target.clone(), LineageName::difference(target)?],
            Told::Difference => vec![LineageName::difference(target)?],
        })
    }
}

/// Refuses models that differences in float32 cannot be taken of.
pub(super) fn check_single(step: &ServerStep, model: &Manifest) -> Result<(), Error> {
    let ServerStep::Told { .. } = step else { return Ok(()) };
    match model.specs().find(|spec| spec.dtype != Dtype::F32) {
        Some(spec) => Err(Error::internal(format!("tensor {:?} is {}, not float32", spec.name, spec.dtype))),
        None => Ok(()),
    }
}

/// The version and the difference of a strip: `next = current + (stepped − current)`, each rounded to float32; `stepped` is the folded
/// value, or what an optimiser made of it.
///
/// # Shapes
/// `current`: the bytes of as many float32 as `stepped` has values; `next` and `difference` as long.
#[expect(clippy::cast_possible_truncation, reason = "what is told is rounded to float32 here")]
pub(super) fn take_difference(current: &[u8], stepped: &[f64], next: &mut [u8], difference: &mut [u8]) {
    let current = current.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw));
    let next = next.as_chunks_mut::<4>().0.iter_mut();
    let difference = difference.as_chunks_mut::<4>().0.iter_mut();
    for (((current, stepped), next), difference) in current.zip(stepped).zip(next).zip(difference) {
        let differs_by = *stepped as f32 - current;
        *difference = differs_by.to_le_bytes();
        *next = (current + differs_by).to_le_bytes();
    }
}

impl Folder<'_> {
    /// The second pass, where a codec loses something: the version of what was folded.
    pub(super) async fn tell(
        &self,
        order: &FoldOrder,
        step: &ServerStep,
        target: &LineageName,
        folded: NewVersion,
        hold_for: &impl Fn(&LineageName) -> Result<Hold, Error>,
    ) -> Result<Vec<NewVersion>, Error> {
        let ServerStep::Told { as_difference, codec: Some(codec), .. } = step else {
            return Ok(vec![folded]);
        };
        let coder = self.coder.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("nobody here has the codec {codec:?} yet"))
        })?;
        let current = order.current.get(target).map(|(_, manifest, _)| Layout::of(manifest));
        let current = current.filter(|_| *as_difference);
        let source = Layout::of(&folded.manifest);
        let specs: Vec<TensorSpec> = folded.manifest.specs().cloned().collect();
        let mut output = Output::new();
        output.add(self.blob, self.compute, hold_for(target)?, specs.clone());
        let mut offset = 0;
        for (tensor_idx, spec) in specs.into_iter().enumerate() {
            let span = ByteSpan { offset, len: spec.byte_len() };
            offset += span.len;
            let bytes = models::read(self.blob, &source, span).await?;
            let seed = codec_seed(order.run, folded.version, &spec.name);
            let (coder, codec, of) = (Arc::clone(coder), codec.clone(), spec.clone());
            let told = self.compute.run(move || coder.told(&codec, &of, bytes, seed)).await?;
            let told = Bytes::from(told.map_err(Error::internal)?);
            if told.len() as u64 != span.len {
                return Err(Error::internal(format!("a codec made {} bytes of {:?}", told.len(), spec.name)));
            }
            self.put(&mut output, tensor_idx, &spec, told, current.as_ref().map(|current| (current, span)))
                .await?;
        }
        let made = output.finish()?.into_iter().next();
        let (manifest, digest) = made.ok_or_else(|| Error::internal("no version was written"))?;
        let version = NewVersion { lineage: target.clone(), version: folded.version, manifest, digest };
        Ok(if *as_difference { vec![version, folded] } else { vec![version] })
    }

    /// Writes what participants have of a tensor: what they were told, added to what they had.
    async fn put(
        &self,
        output: &mut Output<'_>,
        tensor_idx: usize,
        spec: &TensorSpec,
        told: Bytes,
        onto: Option<(&Layout, ByteSpan)>,
    ) -> Result<(), Error> {
        let mut at = 0;
        while at < told.len() {
            let part = told.slice(at..told.len().min(at + PART_LEN));
            let base = match onto {
                Some((layout, span)) => {
                    let part = ByteSpan { offset: span.offset + at as u64, len: part.len() as u64 };
                    Some(models::read(self.blob, layout, part).await?)
                }
                None => None,
            };
            let start = (at / 4) as u64;
            at += part.len();
            let next = base.map_or_else(|| part.clone(), |base| sum(&base, &part));
            super::step::refuse_non_finite(spec, &next, start)?;
            output.write(tensor_idx, vec![next]).await?;
        }
        Ok(())
    }
}

/// How much of a tensor is added up at once, in bytes.
const PART_LEN: usize = 1024 * 1024;

fn sum(base: &[u8], told: &[u8]) -> Bytes {
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
    };
    let sums = floats(base).into_iter().zip(floats(told)).map(|(base, told)| base + told);
    sums.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into()
}
