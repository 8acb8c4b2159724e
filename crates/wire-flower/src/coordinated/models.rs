//! Models as Flower's objects: laid out once for all nodes that are handed a version, and streamed from where the version is stored.
//!
//! Of a model its layout is held: names of objects, and for each chunk the stretch of the version that it carries. Its bytes are never
//! together. The layout costs one reading of the version; the last few are remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sheaf_coordinator::{Error, Handle, READ_LEN_MAX};
use sheaf_domain::{ByteSpan, Digest, Hasher, Identity, Manifest, VersionRef};
use sheaf_relay::ObjectDraft;
use sheaf_tensor::{TensorSpec, npy};
use tokio::sync::{OnceCell, Semaphore};

use super::records::{Object, array_body, frame, named, object};

/// The longest stretch of an array's file in one chunk, in bytes. Observed: upstream's own.
const CHUNK_LEN: u64 = 5_242_880;
/// How many versions' layouts are remembered.
const REMEMBERED_MAX: usize = 8;
/// How much of a version is read at a time.
const READ_LEN: u64 = if READ_LEN_MAX < (1 << 20) { READ_LEN_MAX } else { 1 << 20 };

/// The versions that were laid out last.
#[derive(Debug, Default)]
pub(super) struct Models(Mutex<Vec<(VersionRef, Arc<Model>)>>);

/// A version, and whose turn it is to bring its objects.
#[derive(Debug)]
pub(super) struct Model {
    layout: OnceCell<Layout>,
    /// Nodes of a round share the objects: who comes second finds them there.
    pub(super) turn: Semaphore,
}

/// A model as objects.
#[derive(Debug)]
pub(super) struct Layout {
    version: VersionRef,
    /// The `ArrayRecord`.
    pub(super) record: Digest,
    /// Every object, children before parents.
    pub(super) objects: Vec<ObjectDraft>,
    places: HashMap<Digest, Place>,
}

/// Where the bytes of an object are.
#[derive(Debug)]
enum Place {
    /// Here.
    Held(Bytes),
    /// What comes before the elements, and where those are in the version.
    Stored { before: Bytes, elements: ByteSpan },
}

impl Models {
    /// The version, which may be laid out already.
    pub(super) fn of(&self, version: &VersionRef) -> Arc<Model> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, model)) = remembered.iter().find(|(known, _)| known == version) {
            return Arc::clone(model);
        }
        if remembered.len() == REMEMBERED_MAX {
            remembered.remove(0);
        }
        let model = Arc::new(Model { layout: OnceCell::new(), turn: Semaphore::new(1) });
        remembered.push((version.clone(), Arc::clone(&model)));
        model
    }
}

impl Model {
    /// How the version lies in objects.
    ///
    /// # Errors
    /// When it cannot be read, or has a tensor that no array can carry.
    pub(super) async fn layout(
        &self,
        handle: &Handle,
        reader: &Identity,
        version: &VersionRef,
    ) -> Result<&Layout, Error> {
        self.layout.get_or_try_init(|| lay_out(handle, reader, version)).await
    }
}

async fn lay_out(handle: &Handle, reader: &Identity, version: &VersionRef) -> Result<Layout, Error> {
    let manifest = handle.manifest(reader, version).await?;
    let mut layout = Layout {
        version: version.clone(),
        record: Digest::of(b""),
        objects: Vec::new(),
        places: HashMap::new(),
    };
    let mut arrays = Vec::with_capacity(manifest.tensors.len());
    let mut position = 0;
    for spec in manifest.specs() {
        arrays.push(layout.array(handle, reader, spec, position).await?);
        position += spec.byte_len();
    }
    layout.record(&manifest, &arrays);
    Ok(layout)
}

impl Layout {
    /// Lays out one array, whose elements begin at `position` of the version.
    async fn array(
        &mut self,
        handle: &Handle,
        reader: &Identity,
        spec: &TensorSpec,
        position: u64,
    ) -> Result<Digest, Error> {
        let header = npy::header(spec)
            .map_err(|error| Error::new(sheaf_domain::ErrorKind::InvalidArgument, error.to_string()))?;
        let header_len = header.len() as u64;
        let file_len = header_len + spec.byte_len();
        let (mut children, mut chunks): (Vec<Digest>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut start = 0;
        while start < file_len {
            let len = CHUNK_LEN.min(file_len - start);
            let mut before = frame("ArrayChunk", &[], len);
            // The file's header lies in the first chunk.
            let of_header = if start == 0 { header_len } else { 0 };
            before.extend_from_slice(if start == 0 { &header } else { &[] });
            let offset = position + (start + of_header - header_len);
            let elements = ByteSpan { offset, len: len - of_header };
            let id = self.hash(handle, reader, &before, elements).await?;
            let child_idx = children.iter().position(|child| *child == id).unwrap_or(children.len());
            if child_idx == children.len() {
                children.push(id);
            }
            chunks.push(child_idx);
            self.put(id, Vec::new(), Place::Stored { before: before.into(), elements });
            start += len;
        }
        let array = object("Array", &children, array_body(spec.dtype, spec.shape.dims(), &chunks).as_bytes());
        Ok(self.keep(array))
    }

    fn record(&mut self, manifest: &Manifest, arrays: &[Digest]) {
        let names = manifest.specs().map(|spec| spec.name.as_str());
        let body = named(names.zip(arrays.iter().copied()));
        let mut children: Vec<Digest> = Vec::with_capacity(arrays.len());
        let mut seen = std::collections::HashSet::with_capacity(arrays.len());
        children.extend(arrays.iter().filter(|array| seen.insert(**array)));
        self.record = self.keep(object("ArrayRecord", &children, body.as_bytes()));
    }

    fn keep(&mut self, object: Object) -> Digest {
        self.put(object.id, object.children, Place::Held(object.bytes));
        object.id
    }

    fn put(&mut self, id: Digest, children: Vec<Digest>, place: Place) {
        if self.places.insert(id, place).is_none() {
            self.objects.push(ObjectDraft { id, children });
        }
    }

    async fn hash(
        &self,
        handle: &Handle,
        reader: &Identity,
        before: &[u8],
        elements: ByteSpan,
    ) -> Result<Digest, Error> {
        let mut hasher = Hasher::new();
        hasher.update(before);
        let mut stretch = Stretch { version: &self.version, elements };
        while let Some(bytes) = stretch.next(handle, reader).await? {
            let hashing = handle.compute().run(move || {
                hasher.update(&bytes);
                hasher
            });
            hasher = hashing.await?;
        }
        Ok(hasher.finish())
    }

    /// The bytes of an object, if it is one of the model's.
    pub(super) fn bytes_of(&self, object: &Digest) -> Option<ObjectBytes<'_>> {
        Some(match self.places.get(object)? {
            Place::Held(bytes) => ObjectBytes { held: Some(bytes.clone()), stretch: None },
            Place::Stored { before, elements } => ObjectBytes {
                held: Some(before.clone()),
                stretch: Some(Stretch { version: &self.version, elements: *elements }),
            },
        })
    }
}

/// The bytes of an object on their way out of the version.
#[derive(Debug)]
pub(super) struct ObjectBytes<'l> {
    held: Option<Bytes>,
    stretch: Option<Stretch<'l>>,
}

impl ObjectBytes<'_> {
    /// An object that is held whole.
    pub(super) fn held(bytes: Bytes) -> ObjectBytes<'static> {
        ObjectBytes { held: Some(bytes), stretch: None }
    }

    pub(super) fn len(&self) -> u64 {
        let held = self.held.as_ref().map_or(0, |bytes| bytes.len() as u64);
        held + self.stretch.as_ref().map_or(0, |stretch| stretch.elements.len)
    }

    pub(super) async fn next(&mut self, handle: &Handle, reader: &Identity) -> Result<Option<Bytes>, Error> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        match &mut self.stretch {
            Some(stretch) => stretch.next(handle, reader).await,
            None => Ok(None),
        }
    }
}

/// What is still to be read of a stretch of a version.
#[derive(Debug)]
struct Stretch<'v> {
    version: &'v VersionRef,
    elements: ByteSpan,
}

impl Stretch<'_> {
    async fn next(&mut self, handle: &Handle, reader: &Identity) -> Result<Option<Bytes>, Error> {
        if self.elements.len == 0 {
            return Ok(None);
        }
        let span = ByteSpan { offset: self.elements.offset, len: READ_LEN.min(self.elements.len) };
        let bytes = handle.read_version(reader, self.version, span).await?;
        if bytes.len() as u64 != span.len {
            let message = format!("version {} ends too early", self.version);
            return Err(Error::new(sheaf_domain::ErrorKind::Internal, message));
        }
        self.elements.offset += span.len;
        self.elements.len -= span.len;
        Ok(Some(bytes))
    }
}
