//! Writing a model: its canonical byte stream cut into pieces, hashed on the way.

use bytes::Bytes;
use sheaf_blob::{BlobStore, Hold, ObjectWriter};
use sheaf_domain::{Digest, Manifest, ModelHasher, PIECE_LEN_DEFAULT};
use sheaf_runtime::Compute;
use sheaf_runtime::crash::{self, Point};
use sheaf_tensor::TensorSpec;

use crate::{Error, models};

/// Writes the tensors of one model, in order, under one hold.
pub(crate) struct ModelWriter<'a> {
    blob: &'a dyn BlobStore,
    compute: &'a Compute,
    hold: Hold,
    specs: Vec<TensorSpec>,
    left: u64,
    piece_left: u64,
    piece: Option<Box<dyn ObjectWriter>>,
    pieces: Vec<Digest>,
    hasher: ModelHasher,
}

impl<'a> ModelWriter<'a> {
    /// Begins a model of the given tensors.
    pub(crate) fn new(
        blob: &'a dyn BlobStore,
        compute: &'a Compute,
        hold: Hold,
        specs: Vec<TensorSpec>,
    ) -> ModelWriter<'a> {
        let left = specs.iter().map(TensorSpec::byte_len).sum();
        ModelWriter {
            blob,
            compute,
            hold,
            specs,
            left,
            piece_left: 0,
            piece: None,
            pieces: Vec::new(),
            hasher: ModelHasher::new(),
        }
    }

    /// Begins the next tensor; its bytes follow through [`ModelWriter::write`].
    pub(crate) fn tensor(&mut self, spec: &TensorSpec) {
        self.hasher.tensor(spec);
    }

    /// Takes in the next bytes.
    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        let hasher = std::mem::take(&mut self.hasher);
        self.hasher = models::hash(self.compute, hasher, bytes.clone()).await?;
        while !bytes.is_empty() {
            if self.piece.is_none() {
                self.piece_left = PIECE_LEN_DEFAULT.min(self.left);
                self.piece = Some(self.blob.writer(&self.hold, self.piece_left).await?);
            }
            let take = usize::try_from(self.piece_left).unwrap_or(usize::MAX).min(bytes.len());
            let part = bytes.split_to(take);
            self.piece_left -= part.len() as u64;
            self.left = self.left.saturating_sub(part.len() as u64);
            if let Some(piece) = &mut self.piece {
                piece.write(part).await?;
            }
            if self.piece_left == 0
                && let Some(piece) = self.piece.take()
            {
                self.pieces.push(piece.finish(None).await?.digest);
                crash::reached(Point::VersionPieceWritten);
            }
        }
        Ok(())
    }

    /// Ends the model; all its pieces are durable.
    pub(crate) fn finish(self) -> Result<(Manifest, Digest), Error> {
        let manifest = Manifest::over_pieces(self.specs, PIECE_LEN_DEFAULT, &self.pieces)?;
        Ok((manifest, self.hasher.finish()))
    }
}
