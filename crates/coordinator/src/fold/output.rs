//! What a fold writes: the next model, and beside it a version of every moment of the optimiser.

use bytes::Bytes;
use sheaf_blob::{BlobStore, Hold};
use sheaf_domain::{Digest, Manifest};
use sheaf_runtime::Compute;
use sheaf_tensor::TensorSpec;

use crate::Error;
use crate::pieces::ModelWriter;

/// The models being written, in step.
pub(super) struct Output<'a> {
    models: Vec<(ModelWriter<'a>, Vec<TensorSpec>)>,
    /// How many tensors have been begun.
    begun: usize,
}

impl<'a> Output<'a> {
    /// Nothing yet.
    pub(super) fn new() -> Output<'a> {
        Output { models: Vec::new(), begun: 0 }
    }

    /// Adds a model of the given tensors.
    pub(super) fn add(
        &mut self,
        blob: &'a dyn BlobStore,
        compute: &'a Compute,
        hold: Hold,
        specs: Vec<TensorSpec>,
    ) {
        self.models.push((ModelWriter::new(blob, compute, hold, specs.clone()), specs));
    }

    /// Takes in the next bytes of every model; they belong to the tensor in this place.
    pub(super) async fn write(&mut self, tensor_idx: usize, bytes: Vec<Bytes>) -> Result<(), Error> {
        self.begin(tensor_idx.saturating_add(1));
        for ((writer, _), bytes) in self.models.iter_mut().zip(bytes) {
            writer.write(bytes).await?;
        }
        Ok(())
    }

    /// Ends the models, in the order they were added.
    pub(super) fn finish(mut self) -> Result<Vec<(Manifest, Digest)>, Error> {
        self.begin(usize::MAX);
        self.models.into_iter().map(|(writer, _)| writer.finish()).collect()
    }

    /// Begins the tensors before the `end`th, those without an element too.
    fn begin(&mut self, end: usize) {
        for (writer, specs) in &mut self.models {
            for spec in specs.iter().take(end).skip(self.begun) {
                writer.tensor(spec);
            }
        }
        self.begun = self.begun.max(end);
    }
}
