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
    compute: &'a Compute,
    specs: Vec<TensorSpec>,
    pieces: Pieces<'a>,
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
        let pieces = Pieces { blob, hold, left, piece: None, written: Vec::new() };
        ModelWriter { compute, specs, pieces, hasher: ModelHasher::new() }
    }

    /// Begins the next tensor; its bytes follow through [`ModelWriter::write`].
    pub(crate) fn tensor(&mut self, spec: &TensorSpec) {
        self.hasher.tensor(spec);
    }

    /// Takes in the next bytes.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        // The model's digest and the pieces' are worked out side by side.
        let hashing = models::hash(self.compute, std::mem::take(&mut self.hasher), bytes.clone());
        (self.hasher, ()) = tokio::try_join!(hashing, self.pieces.write(bytes))?;
        Ok(())
    }

    /// Ends the model; all its pieces are durable.
    pub(crate) fn finish(self) -> Result<(Manifest, Digest), Error> {
        let manifest = Manifest::over_pieces(self.specs, PIECE_LEN_DEFAULT, &self.pieces.written)?;
        Ok((manifest, self.hasher.finish()))
    }
}

/// The byte stream of a model, on its way into pieces.
struct Pieces<'a> {
    blob: &'a dyn BlobStore,
    hold: Hold,
    /// How many bytes of the model are still to come.
    left: u64,
    /// The piece under way, and how many bytes of it are still to come.
    piece: Option<(Box<dyn ObjectWriter>, u64)>,
    written: Vec<Digest>,
}

impl Pieces<'_> {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (mut writer, piece_left) = match self.piece.take() {
                Some(under_way) => under_way,
                None => {
                    let len = PIECE_LEN_DEFAULT.min(self.left);
                    (self.blob.writer(&self.hold, len).await?, len)
                }
            };
            let take = usize::try_from(piece_left).unwrap_or(usize::MAX).min(bytes.len());
            let part = bytes.split_to(take);
            let part_len = part.len() as u64;
            self.left = self.left.saturating_sub(part_len);
            writer.write(part).await?;
            if piece_left > part_len {
                self.piece = Some((writer, piece_left - part_len));
                continue;
            }
            self.written.push(writer.finish(None).await?.digest);
            crash::reached(Point::VersionPieceWritten);
        }
        Ok(())
    }
}
