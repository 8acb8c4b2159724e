//! Folding a closed stage: tiles of every update in canonical order, the strategy's step, new versions.
//!
//! Holds one tile of every update at a time. The result depends only on the fold order: sites by name, tensors by manifest,
//! sums in f64.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use sheaf_aggregate::{Fold, TileSet, tile_len};
use sheaf_blob::{BlobStore, Hold};
use sheaf_domain::{ByteSpan, Digest, FoldRule, LineageName, Manifest, SiteName, StageFold, TaskId, Weight};
use sheaf_engine::{FoldOrder, NewVersion};
use sheaf_runtime::Compute;
use sheaf_strategy::ServerOptimiser;
use sheaf_tensor::{Dtype, TensorSpec, element};

use crate::models::Layout;
use crate::pieces::ModelWriter;
use crate::{Error, models};

mod drive;
#[cfg(test)]
mod tests;

pub(crate) use drive::drive;

/// Folds over one blob store; also what replay rebuilds with.
pub(crate) struct Folder<'a> {
    blob: &'a dyn BlobStore,
    compute: &'a Compute,
    budget: u64,
}

/// One submission's part in a fold.
struct Contribution<'a> {
    manifest: &'a Manifest,
    layout: Layout,
    weight: f64,
}

impl<'a> Folder<'a> {
    pub(crate) fn new(blob: &'a dyn BlobStore, compute: &'a Compute, budget: u64) -> Folder<'a> {
        Folder { blob, compute, budget }
    }

    /// Carries out a fold order; the new versions' bytes are kept under the holds `hold_for` names.
    pub(crate) async fn fold(
        &self,
        order: &FoldOrder,
        hold_for: impl Fn(&LineageName, u32) -> Result<Hold, Error>,
    ) -> Result<Vec<NewVersion>, Error> {
        let mut versions = Vec::new();
        for fold in &order.folds {
            let contributions = contributions(order, fold)?;
            let version = order.next(&fold.target);
            let hold_for = |lineage: &LineageName| hold_for(lineage, version);
            if fold.rule == FoldRule::Adopt {
                versions.push(self.adopt(fold, version, &contributions, &hold_for).await?);
            } else {
                versions.extend(self.step(order, fold, &contributions, &hold_for).await?);
            }
        }
        Ok(versions)
    }

    async fn adopt(
        &self,
        fold: &StageFold,
        version: u32,
        contributions: &[Contribution<'_>],
        hold_for: &impl Fn(&LineageName) -> Result<Hold, Error>,
    ) -> Result<NewVersion, Error> {
        let [only] = contributions else {
            return Err(Error::internal("only a single submission can be adopted as it is"));
        };
        let hold = hold_for(&fold.target)?;
        for object in only.manifest.objects() {
            if !self.blob.hold(&object, &hold).await? {
                return Err(Error::internal(format!("object {} is gone", object.short())));
            }
        }
        let digest = models::digest(self.blob, self.compute, only.manifest).await?;
        Ok(NewVersion { lineage: fold.target.clone(), version, manifest: only.manifest.clone(), digest })
    }

    async fn step(
        &self,
        order: &FoldOrder,
        fold: &StageFold,
        contributions: &[Contribution<'_>],
        hold_for: &impl Fn(&LineageName) -> Result<Hold, Error>,
    ) -> Result<Vec<NewVersion>, Error> {
        let (_, current, _) = order
            .current
            .get(&fold.target)
            .ok_or_else(|| Error::internal(format!("lineage {} has no version to step from", fold.target)))?;
        let version = order.next(&fold.target);
        let optimiser = Arc::new(ServerOptimiser::new(&fold.step, version).map_err(fold_error)?);
        let moments = moments_of(&fold.target, &optimiser)?;
        let base_layout = Layout::of(current);
        let delta_base = order.bases.get(&fold.slot).map(|(_, manifest, _)| Layout::of(manifest));
        // A difference is measured from zero.
        let measured_from = if delta_base.is_some() { None } else { Some(&base_layout) };
        let prepared = Arc::new(self.prepare(fold, current, measured_from, contributions).await?);

        let mut writers = Vec::new();
        let model_specs: Vec<TensorSpec> = current.specs().cloned().collect();
        let state_specs = model_specs.iter().map(moment_spec).collect::<Result<Vec<_>, _>>()?;
        writers.push(ModelWriter::new(self.blob, self.compute, hold_for(&fold.target)?, model_specs));
        for moment in &moments {
            writers.push(ModelWriter::new(self.blob, self.compute, hold_for(moment)?, state_specs.clone()));
        }
        let sources: Vec<Option<MomentSource>> =
            moments.iter().map(|moment| MomentSource::of(order, moment)).collect();
        let mut offset = 0;
        for (tensor, state_spec) in current.tensors.iter().zip(&state_specs) {
            for (writer_idx, writer) in writers.iter_mut().enumerate() {
                writer.tensor(if writer_idx == 0 { &tensor.spec } else { state_spec });
            }
            for tile in self.tiles(&tensor.spec, offset, contributions.len()) {
                let rows = self.rows(contributions, tile.span).await?;
                let base = models::read(self.blob, &base_layout, tile.span).await?;
                let delta_base = match &delta_base {
                    Some(layout) => Some(models::read(self.blob, layout, tile.span).await?),
                    None => None,
                };
                let mut state = Vec::with_capacity(moments.len());
                for source in &sources {
                    state.push(self.moment_tile(source.as_ref(), &tensor.spec.name, &tile).await?);
                }
                let (prepared, optimiser) = (Arc::clone(&prepared), Arc::clone(&optimiser));
                let stepped = self
                    .compute
                    .run(move || {
                        step_tile(&prepared, &optimiser, tile.dtype, &rows, &base, delta_base.as_ref(), state)
                    })
                    .await??;
                for (writer, bytes) in writers.iter_mut().zip(stepped) {
                    writer.write(bytes).await?;
                }
            }
            offset += tensor.spec.byte_len();
        }
        let lineages = std::iter::once(&fold.target).chain(&moments);
        let mut versions = Vec::new();
        for (lineage, writer) in lineages.zip(writers) {
            let (manifest, digest) = writer.finish()?;
            versions.push(NewVersion { lineage: lineage.clone(), version, manifest, digest });
        }
        Ok(versions)
    }

    /// Makes the fold, with its first pass over all tiles where the rule needs one.
    async fn prepare(
        &self,
        fold: &StageFold,
        current: &Manifest,
        measured_from: Option<&Layout>,
        contributions: &[Contribution<'_>],
    ) -> Result<Fold, Error> {
        let rule = sheaf_strategy::fold_rule(&fold.rule).map_err(fold_error)?;
        let weights: Vec<f64> = contributions.iter().map(|contribution| contribution.weight).collect();
        let mut prepared = Fold::new(rule, &weights).map_err(fold_error)?;
        if !prepared.needs_prepass() {
            return Ok(prepared);
        }
        let mut offset = 0;
        for tensor in &current.tensors {
            for tile in self.tiles(&tensor.spec, offset, contributions.len()) {
                let rows = self.rows(contributions, tile.span).await?;
                let base = match measured_from {
                    Some(layout) => models::read(self.blob, layout, tile.span).await?,
                    None => zeros(&tile.span),
                };
                prepared = self
                    .compute
                    .run(move || {
                        let rows: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
                        let tiles = TileSet { dtype: tile.dtype, rows: &rows, base: Some(&base) };
                        prepared.observe(&tiles).map(|()| prepared)
                    })
                    .await?
                    .map_err(fold_error)?;
            }
            offset += tensor.spec.byte_len();
        }
        prepared.seal().map_err(fold_error)?;
        Ok(prepared)
    }

    /// The tiles of a tensor that begins at `offset` of the byte stream, in order.
    fn tiles(&self, spec: &TensorSpec, offset: u64, rows: usize) -> impl Iterator<Item = Tile> + use<> {
        let dtype = spec.dtype;
        let elements = (tile_len(self.budget, rows, dtype) as u64).max(1);
        let total = spec.shape.num_elements();
        let size = dtype.size() as u64;
        (0..total.div_ceil(elements)).map(move |tile_idx| {
            let start = tile_idx * elements;
            let len = elements.min(total - start);
            Tile { dtype, span: ByteSpan { offset: offset + start * size, len: len * size }, start, len }
        })
    }

    async fn rows(&self, contributions: &[Contribution<'_>], span: ByteSpan) -> Result<Vec<Bytes>, Error> {
        let layouts: Vec<&Layout> = contributions.iter().map(|contribution| &contribution.layout).collect();
        models::read_rows(self.blob, &layouts, span).await
    }

    /// A tile of an optimiser moment; zeros while there is no version of it.
    async fn moment_tile(
        &self,
        source: Option<&MomentSource>,
        tensor: &str,
        tile: &Tile,
    ) -> Result<Vec<f64>, Error> {
        let mut values = vec![0.0; usize::try_from(tile.len).unwrap_or(usize::MAX)];
        if let Some(source) = source {
            let start = source.starts.get(tensor);
            let start =
                start.ok_or_else(|| Error::internal(format!("optimiser state lacks tensor {tensor:?}")))?;
            let size = Dtype::F64.size() as u64;
            let span = ByteSpan { offset: start + tile.start * size, len: tile.len * size };
            let bytes = models::read(self.blob, &source.layout, span).await?;
            element::to_f64(Dtype::F64, &bytes, &mut values)
                .map_err(|error| Error::internal(error.to_string()))?;
        }
        Ok(values)
    }
}

/// Where an optimiser moment is read from.
struct MomentSource {
    layout: Layout,
    /// Where each tensor begins in the moment's byte stream.
    starts: HashMap<String, u64>,
}

impl MomentSource {
    /// Nothing while there is no version of the moment.
    fn of(order: &FoldOrder, moment: &LineageName) -> Option<MomentSource> {
        let (_, manifest, _) = order.current.get(moment)?;
        let mut offset = 0;
        let starts = manifest.specs().map(|spec| {
            let start = offset;
            offset += spec.byte_len();
            (spec.name.clone(), start)
        });
        Some(MomentSource { starts: starts.collect(), layout: Layout::of(manifest) })
    }
}

/// A stretch of one tensor.
#[derive(Debug, Clone, Copy)]
struct Tile {
    dtype: Dtype,
    span: ByteSpan,
    /// Where it begins in its tensor, in elements.
    start: u64,
    /// How many elements it has.
    len: u64,
}

fn contributions<'a>(order: &'a FoldOrder, fold: &StageFold) -> Result<Vec<Contribution<'a>>, Error> {
    let of = |site: &SiteName, task: TaskId| {
        Error::internal(format!("task {task} of {site} lacks slot {}", fold.slot))
    };
    order
        .inputs
        .iter()
        .map(|input| {
            let submitted = input
                .slots
                .iter()
                .find(|slot| slot.slot == fold.slot)
                .ok_or_else(|| of(&input.site, input.task))?;
            let weight = match fold.weight {
                Weight::NumExamples => input.num_examples,
                Weight::Uniform => 1.0,
            };
            let manifest = &submitted.manifest;
            Ok(Contribution { manifest, layout: Layout::of(manifest), weight })
        })
        .collect()
}

/// Folds one tile and takes the optimiser's step: the bytes of the next model, then of each moment.
fn step_tile(
    fold: &Fold,
    optimiser: &ServerOptimiser,
    dtype: Dtype,
    rows: &[Bytes],
    base: &Bytes,
    delta_base: Option<&Bytes>,
    mut state: Vec<Vec<f64>>,
) -> Result<Vec<Bytes>, Error> {
    let internal = |error: sheaf_tensor::Error| Error::internal(error.to_string());
    let len = base.len() / dtype.size();
    let rows: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
    let mut current = vec![0.0; len];
    element::to_f64(dtype, base, &mut current).map_err(internal)?;
    let mut folded = vec![0.0; len];
    match delta_base {
        None => {
            fold.fold(&TileSet { dtype, rows: &rows, base: Some(base) }, &mut folded).map_err(fold_error)?
        }
        Some(from) => {
            let zeros = vec![0; base.len()];
            fold.fold(&TileSet { dtype, rows: &rows, base: Some(&zeros) }, &mut folded)
                .map_err(fold_error)?;
            let mut values = vec![0.0; len];
            element::to_f64(dtype, from, &mut values).map_err(internal)?;
            folded.iter_mut().zip(values).for_each(|(folded, from)| *folded += from);
        }
    }
    let mut next = vec![0.0; len];
    let mut moments: Vec<&mut [f64]> = state.iter_mut().map(|moment| &mut moment[..]).collect();
    optimiser.step(&current, &folded, &mut moments, &mut next).map_err(fold_error)?;
    let mut out = Vec::with_capacity(1 + state.len());
    for (dtype, values) in
        std::iter::once((dtype, &next)).chain(state.iter().map(|moment| (Dtype::F64, moment)))
    {
        let mut bytes = vec![0; values.len() * dtype.size()];
        element::from_f64(dtype, values, &mut bytes).map_err(internal)?;
        if let Some(index) = element::first_non_finite(dtype, &bytes) {
            return Err(Error::internal(format!(
                "the folded model is not finite at index {index} of a tile"
            )));
        }
        out.push(Bytes::from(bytes));
    }
    Ok(out)
}

/// The lineages of an optimiser's moments, in the optimiser's order.
fn moments_of(target: &LineageName, optimiser: &ServerOptimiser) -> Result<Vec<LineageName>, Error> {
    let moments = optimiser.moments().iter();
    Ok(moments.map(|moment| LineageName::optimiser(target, moment)).collect::<Result<_, _>>()?)
}

/// A tile of nothing; all zero bytes are zero in every dtype.
fn zeros(span: &ByteSpan) -> Bytes {
    Bytes::from(vec![0; usize::try_from(span.len).unwrap_or(usize::MAX)])
}

fn moment_spec(spec: &TensorSpec) -> Result<TensorSpec, Error> {
    TensorSpec::new(spec.name.clone(), Dtype::F64, spec.shape.dims().to_vec())
        .map_err(|error| Error::internal(error.to_string()))
}

fn fold_error(error: impl std::fmt::Display) -> Error {
    Error::internal(error.to_string())
}

/// The digest of the global model among the versions a fold made.
pub(crate) fn digest_of(versions: &[NewVersion], lineage: &LineageName) -> Option<Digest> {
    versions.iter().find(|version| version.lineage == *lineage).map(|version| version.digest)
}
