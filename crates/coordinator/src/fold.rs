//! Folding a closed stage: tiles of every update in canonical order, the strategy's step, new versions.
//!
//! Holds one tile of every update at a time, and the next one, read ahead; tiles are as long as the budget allows for
//! all of it. The result depends only on the fold order: sites by name, tensors by manifest, sums in f64; not on tiles,
//! threads or what is read when.

use std::sync::Arc;

use futures_util::future::try_join_all;
use sheaf_aggregate::TileSet;
use sheaf_blob::{BlobStore, Hold};
use sheaf_domain::{Digest, FoldRule, LineageName, Manifest, SiteName, StageFold, TaskId, Weight};
use sheaf_engine::{FoldInput, FoldOrder, NewVersion};
use sheaf_runtime::Compute;
use sheaf_strategy::ServerOptimiser;
use sheaf_tensor::{Dtype, TensorSpec};

use crate::models::Layout;
use crate::{Error, models};

#[cfg(test)]
mod tests;

mod drive;
mod folds;
mod loose;
mod output;
mod source;
mod step;
mod tiles;
mod told;

pub(crate) use drive::drive;
use folds::Folds;
use output::Output;
use source::{Loaded, MomentSource, Source};
use step::Step;
use tiles::{Budget, Tile};
use told::Told;
pub use told::{Coder, codec_seed};

/// Folds over one blob store; also what replay rebuilds with.
pub(crate) struct Folder<'a> {
    blob: &'a dyn BlobStore,
    compute: &'a Compute,
    budget: u64,
    threads: usize,
    coder: Option<Arc<dyn Coder>>,
}

/// One submission's part in a fold.
struct Contribution<'a> {
    manifest: &'a Manifest,
    layout: Layout,
    weight: f64,
}

impl<'a> Contribution<'a> {
    fn of(manifest: &'a Manifest, weight: f64) -> Contribution<'a> {
        Contribution { manifest, layout: Layout::of(manifest), weight }
    }
}

impl<'a> Folder<'a> {
    pub(crate) fn new(blob: &'a dyn BlobStore, compute: &'a Compute, budget: u64) -> Folder<'a> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Folder { blob, compute, budget, threads: threads.min(THREADS_MAX), coder: None }
    }

    /// With the codecs that steps name.
    pub(crate) fn with_coder(self, coder: Option<Arc<dyn Coder>>) -> Folder<'a> {
        Folder { coder, ..self }
    }

    /// Carries out a fold order; the new versions' bytes are kept under the holds `hold_for` names.
    pub(crate) async fn fold(
        &self,
        order: &FoldOrder,
        hold_for: impl Fn(&LineageName, u32) -> Result<Hold, Error>,
    ) -> Result<Vec<NewVersion>, Error> {
        let mut versions = Vec::new();
        for fold in &order.folds {
            let version = order.next(&fold.target);
            let hold_for = |lineage: &LineageName| hold_for(lineage, version);
            if order.loose.contains(&fold.slot) {
                versions.extend(self.loose(order, fold, &hold_for).await?);
            } else if fold.rule == FoldRule::Adopt {
                let contributions = contributions(order, fold)?;
                versions.push(self.adopt(fold, version, &contributions, &hold_for).await?);
            } else {
                let contributions = contributions(order, fold)?;
                versions.extend(self.step(order, fold, contributions, &hold_for).await?);
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
        contributions: Vec<Contribution<'_>>,
        hold_for: &impl Fn(&LineageName) -> Result<Hold, Error>,
    ) -> Result<Vec<NewVersion>, Error> {
        let (_, current, _) = order
            .current
            .get(&fold.target)
            .ok_or_else(|| Error::internal(format!("lineage {} has no version to step from", fold.target)))?;
        let version = order.next(&fold.target);
        let optimiser = ServerOptimiser::new(&fold.step, version).map_err(fold_error)?;
        let moments = moments_of(&fold.target, &optimiser)?;
        let weights: Vec<f64> = contributions.iter().map(|contribution| contribution.weight).collect();
        let mut source = Source {
            rows: contributions.into_iter().map(|contribution| contribution.layout).collect(),
            base: Layout::of(current),
            delta_base: order.bases.get(&fold.slot).map(|(_, manifest, _)| Layout::of(manifest)),
            moments: Vec::new(),
        };
        let prepared = self.prepare(fold, current, &source, &weights).await?;
        source.moments = moments.iter().map(|moment| MomentSource::of(order, moment)).collect();

        told::check_single(&fold.step, current)?;
        let (told, made) = (Told::of(&fold.step), Told::of(&fold.step).lineages(&fold.target)?);
        let model_specs: Vec<TensorSpec> = current.specs().cloned().collect();
        let state_specs = model_specs.iter().map(moment_spec).collect::<Result<Vec<_>, _>>()?;
        let mut output = Output::new();
        for lineage in &made {
            output.add(self.blob, self.compute, hold_for(lineage)?, model_specs.clone());
        }
        for moment in &moments {
            output.add(self.blob, self.compute, hold_for(moment)?, state_specs.clone());
        }
        let step = Arc::new(Step { folds: prepared, optimiser, told });
        let budget = self.budget(&step.folds, &source);
        let mut tiles = budget.tiles(current);
        let mut ahead = self.load(&source, current, tiles.next()).await?;
        while let Some(loaded) = ahead {
            // The next tile is read while this one is folded and written.
            let folding = self.advance(&step, loaded, current, &mut output);
            (ahead, ()) = tokio::try_join!(self.load(&source, current, tiles.next()), folding)?;
        }
        let lineages = made.iter().chain(&moments);
        let made = lineages.zip(output.finish()?);
        let new = |(lineage, (manifest, digest)): (&LineageName, _)| NewVersion {
            lineage: lineage.clone(),
            version,
            manifest,
            digest,
        };
        let mut made = made.map(new).collect::<Vec<_>>().into_iter();
        let first = made.next().ok_or_else(|| Error::internal("a fold made nothing"))?;
        let mut versions = self.tell(order, &fold.step, &fold.target, first, hold_for).await?;
        versions.extend(made);
        Ok(versions)
    }

    /// Makes the folds, with as many passes over all tiles as its rule needs before.
    async fn prepare(
        &self,
        fold: &StageFold,
        current: &Manifest,
        source: &Source,
        weights: &[f64],
    ) -> Result<Folds, Error> {
        let mut prepared = Folds::new(&fold.rule, weights, current)?;
        while prepared.needs_prepass() {
            let budget = self.budget(&prepared, source);
            let mut tiles = budget.tiles(current);
            let mut ahead = self.load(source, current, tiles.next()).await?;
            while let Some(loaded) = ahead {
                let dtype = dtype_of(current, &loaded.tile)?;
                let observing = self.compute.run(move || {
                    let rows: Vec<&[u8]> = loaded.rows.iter().map(|row| &row[..]).collect();
                    let tiles = TileSet { dtype, rows: &rows, base: Some(&loaded.measured_from()) };
                    prepared.observe(loaded.tile.tensor_idx, &tiles).map(|()| prepared)
                });
                let (observed, next) = tokio::join!(observing, self.load(source, current, tiles.next()));
                prepared = observed??;
                ahead = next?;
            }
            prepared.seal()?;
        }
        Ok(prepared)
    }

    fn budget(&self, folds: &Folds, source: &Source) -> Budget {
        Budget {
            bytes: self.budget.saturating_sub(folds.held_bytes(self.threads)),
            rows: source.rows.len() + source.delta_base.as_ref().map_or(0, |_| DELTA_ROWS),
            moments: source.moments.len(),
            threads: self.threads,
        }
    }

    /// Reads what a tile is folded from.
    async fn load(
        &self,
        source: &Source,
        current: &Manifest,
        tile: Option<Tile>,
    ) -> Result<Option<Loaded>, Error> {
        let Some(tile) = tile else { return Ok(None) };
        let spec = spec_of(current, &tile)?;
        Ok(Some(source.load(self.blob, tile, &spec.name).await?))
    }

    /// Folds one tile, a part of it on every thread, and writes what it became.
    async fn advance(
        &self,
        step: &Arc<Step>,
        loaded: Loaded,
        current: &Manifest,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        let tile = loaded.tile;
        let spec = spec_of(current, &tile)?;
        let loaded = Arc::new(loaded);
        let parts = tile.parts(self.threads).map(|part| {
            let (step, loaded, spec) = (Arc::clone(step), Arc::clone(&loaded), spec.clone());
            self.compute.run(move || step.part(&loaded, &spec, part))
        });
        for part in try_join_all(parts).await? {
            output.write(tile.tensor_idx, part?).await?;
        }
        Ok(())
    }
}

/// The lineages of an optimiser's moments, in the optimiser's order.
fn moments_of(target: &LineageName, optimiser: &ServerOptimiser) -> Result<Vec<LineageName>, Error> {
    let moments = optimiser.moments().iter();
    Ok(moments.map(|moment| LineageName::optimiser(target, moment)).collect::<Result<_, _>>()?)
}

fn spec_of<'m>(manifest: &'m Manifest, tile: &Tile) -> Result<&'m TensorSpec, Error> {
    let tensor = manifest.tensors.get(tile.tensor_idx);
    tensor.map(|tensor| &tensor.spec).ok_or_else(|| Error::internal("a tile of no tensor"))
}

fn dtype_of(manifest: &Manifest, tile: &Tile) -> Result<Dtype, Error> {
    Ok(spec_of(manifest, tile)?.dtype)
}

/// A submission's part in the fold of a slot that may be left out.
fn contribution<'a>(input: &'a FoldInput, fold: &StageFold) -> Option<(&'a Manifest, f64)> {
    let submitted = input.slots.iter().find(|slot| slot.slot == fold.slot)?;
    let weight = match fold.weight {
        Weight::NumExamples => input.num_examples,
        Weight::Uniform => 1.0,
    };
    Some((&submitted.manifest, weight))
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

fn moment_spec(spec: &TensorSpec) -> Result<TensorSpec, Error> {
    TensorSpec::new(spec.name.clone(), Dtype::F64, spec.shape.dims().to_vec())
        .map_err(|error| Error::internal(error.to_string()))
}

fn fold_error(error: impl std::fmt::Display) -> Error {
    Error::internal(error.to_string())
}

/// What a fold of differences holds more: the version they are from, and the zeros they are measured from.
const DELTA_ROWS: usize = 2;
/// More threads than this do not fold faster than memory allows.
const THREADS_MAX: usize = 8;

/// The digest of the global model among the versions a fold made.
pub(crate) fn digest_of(versions: &[NewVersion], lineage: &LineageName) -> Option<Digest> {
    versions.iter().find(|version| version.lineage == *lineage).map(|version| version.digest)
}
