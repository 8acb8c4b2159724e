//! Tensors of a peer's answer on their way into an update: cut into pieces, each durable before the next is begun.
//!
//! What was uploaded before under the same task, by a server that was killed meanwhile, is not uploaded again. Refused by name: a tensor
//! with more or fewer bytes than its dtype and shape say, a name that a model cannot have. Whether the tensors are the model's and
//! finite is the gate's to say. Invariant: no more than one piece is held, in room of the budget for uploads that was waited for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sheaf_domain::{Digest, ErrorKind, Identity, Manifest, PIECE_LEN_DEFAULT, TaskId};
use sheaf_tensor::TensorSpec;

use crate::{Error, Handle, Room};

/// How long to wait before a piece that could not be stored now is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why an update did not come into being.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The peer's tensors cannot be those of a model; the attempt is to be refused.
    #[error("{0}")]
    Malformed(String),
    /// The coordinator did not take a piece.
    #[error(transparent)]
    Coordinator(#[from] Error),
}

/// Writes the update of one task.
#[derive(Debug)]
pub struct UpdateWriter {
    handle: Handle,
    who: Identity,
    task: TaskId,
    specs: Vec<TensorSpec>,
    /// What is still to come of the tensor begun last, in bytes.
    tensor_left: u64,
    piece: BytesMut,
    /// Where pieces are gathered, from the first tensor on.
    room: Option<Room>,
    pieces: Vec<Digest>,
    /// Whether pieces of this update were uploaded before; not known before the first one is full.
    resumed: Option<bool>,
}

impl UpdateWriter {
    /// Begins the update of a task of `who`'s.
    pub fn new(handle: Handle, who: Identity, task: TaskId) -> UpdateWriter {
        UpdateWriter {
            handle,
            who,
            task,
            specs: Vec::new(),
            tensor_left: 0,
            piece: BytesMut::new(),
            room: None,
            pieces: Vec::new(),
            resumed: None,
        }
    }

    /// Begins the next tensor; its bytes, row-major and little-endian, follow through [`UpdateWriter::write`].
    ///
    /// # Errors
    /// [`UpdateError::Malformed`] when the tensor before it is not complete, or there are too many.
    /// # Cancel safety
    /// Not safe: drop the writer too.
    pub async fn tensor(&mut self, spec: TensorSpec) -> Result<(), UpdateError> {
        self.check_complete()?;
        if self.room.is_none() {
            // Before anything else is waited for, so that nobody who waits for room keeps others from what they wait for.
            self.room = Some(self.handle.room(PIECE_LEN_DEFAULT).await?);
        }
        if self.specs.len() == Manifest::TENSORS_MAX {
            let message = format!("there are more than {} tensors", Manifest::TENSORS_MAX);
            return Err(UpdateError::Malformed(message));
        }
        spec.check_name().map_err(|error| UpdateError::Malformed(error.to_string()))?;
        self.tensor_left = spec.byte_len();
        self.specs.push(spec);
        Ok(())
    }

    /// Takes in the next bytes of the tensor begun last.
    ///
    /// # Errors
    /// [`UpdateError::Malformed`] when they are more than it has; as the coordinator says.
    /// # Cancel safety
    /// Not safe: drop the writer too. What it uploaded is found again by the next one.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), UpdateError> {
        self.tensor_left = self.tensor_left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            UpdateError::Malformed(format!("tensor {} has more bytes than its shape says", self.current()))
        })?;
        let piece_len = usize::try_from(PIECE_LEN_DEFAULT).unwrap_or(usize::MAX);
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(piece_len - self.piece.len()));
            self.piece.extend_from_slice(&part);
            if self.piece.len() == piece_len {
                self.upload().await?;
            }
        }
        Ok(())
    }

    /// Ends the update; every byte of it is durable.
    ///
    /// # Errors
    /// [`UpdateError::Malformed`] when the last tensor is not complete; as the coordinator says.
    /// # Cancel safety
    /// As [`UpdateWriter::write`].
    pub async fn finish(mut self) -> Result<Manifest, UpdateError> {
        self.check_complete()?;
        if !self.piece.is_empty() {
            self.upload().await?;
        }
        let manifest = Manifest::over_pieces(self.specs, PIECE_LEN_DEFAULT, &self.pieces);
        manifest.map_err(|error| UpdateError::Coordinator(error.into()))
    }

    fn check_complete(&self) -> Result<(), UpdateError> {
        if self.tensor_left == 0 {
            return Ok(());
        }
        let (name, left) = (self.current(), self.tensor_left);
        Err(UpdateError::Malformed(format!("tensor {name} lacks {left} of the bytes its shape says")))
    }

    fn current(&self) -> String {
        self.specs.last().map_or_else(|| "none".to_owned(), |spec| format!("{:?}", spec.name))
    }

    /// Uploads the piece that is full, or the last; what hinders it for a while is waited out.
    async fn upload(&mut self) -> Result<(), UpdateError> {
        let piece = self.piece.split().freeze();
        loop {
            match self.put(&piece).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(site = %self.who.name, task = %self.task, %error, "a piece of an answer waits");
                    tokio::time::sleep(PAUSE).await;
                }
                put => {
                    self.pieces.push(put?);
                    return Ok(());
                }
            }
        }
    }

    async fn put(&mut self, piece: &Bytes) -> Result<Digest, Error> {
        let Some(room) = &self.room else {
            return Err(Error::new(ErrorKind::Internal, "a piece was gathered without room"));
        };
        let len = piece.len() as u64;
        if self.resumed == Some(false) {
            let mut upload = self.handle.upload_gathered(&self.who, self.task, len, room).await?;
            upload.write(piece.clone()).await?;
            return upload.seal().await;
        }
        let hashed = piece.clone();
        let digest = self.handle.compute().run(move || Digest::of(&hashed)).await?;
        let there = self.handle.missing(&self.who, self.task, &[digest]).await?.is_empty();
        self.resumed.get_or_insert(there);
        if !there {
            let mut upload = self.handle.upload_gathered(&self.who, self.task, len, room).await?;
            upload.write(piece.clone()).await?;
            upload.finish(digest).await?;
        }
        Ok(digest)
    }
}
