//! What a tile is folded from: the rows of all updates, the current model and the optimiser's moments, in one request.

use std::collections::HashMap;

use bytes::Bytes;
use sheaf_blob::BlobStore;
use sheaf_domain::{ByteSpan, LineageName};
use sheaf_engine::FoldOrder;
use sheaf_tensor::Dtype;

use super::tiles::Tile;
use crate::models::Layout;
use crate::{Error, models};

/// Where the bytes of a fold are.
pub(super) struct Source {
    /// The updates, in canonical order.
    pub(super) rows: Vec<Layout>,
    /// The current model.
    pub(super) base: Layout,
    /// For differences: the version they are from.
    pub(super) delta_base: Option<Layout>,
    /// The moments; nothing for one of which there is no version yet.
    pub(super) moments: Vec<Option<MomentSource>>,
}

/// The bytes of a tile.
pub(super) struct Loaded {
    pub(super) tile: Tile,
    /// The updates' bytes.
    pub(super) rows: Vec<Bytes>,
    /// The current model's.
    pub(super) base: Bytes,
    /// For differences: the bytes of the version they are from.
    pub(super) delta_base: Option<Bytes>,
    /// The moments' bytes, f64; nothing for one that has no version yet.
    pub(super) moments: Vec<Option<Bytes>>,
}

impl Source {
    /// Reads a tile of the tensor of this name.
    pub(super) async fn load(&self, blob: &dyn BlobStore, tile: Tile, tensor: &str) -> Result<Loaded, Error> {
        let mut stretches: Vec<(&Layout, ByteSpan)> =
            Vec::with_capacity(self.rows.len() + 1 + self.moments.len());
        stretches.extend(self.rows.iter().map(|layout| (layout, tile.span)));
        stretches.push((&self.base, tile.span));
        stretches.extend(self.delta_base.iter().map(|layout| (layout, tile.span)));
        for moment in self.moments.iter().flatten() {
            stretches.push((&moment.layout, moment.span(&tile, tensor)?));
        }
        let mut read = models::read_each(blob, &stretches).await?.into_iter();
        let rows = read.by_ref().take(self.rows.len()).collect();
        let base = read.next().unwrap_or_default();
        let delta_base = self.delta_base.as_ref().and_then(|_| read.next());
        let moments = self.moments.iter().map(|moment| moment.as_ref().and_then(|_| read.next())).collect();
        Ok(Loaded { tile, rows, base, delta_base, moments })
    }
}

impl Loaded {
    /// What distances are measured from: the current model, or zero where the rows are differences.
    pub(super) fn measured_from(&self) -> Bytes {
        match self.delta_base {
            // All zero bytes are zero in every dtype.
            Some(_) => Bytes::from(vec![0; self.base.len()]),
            None => self.base.clone(),
        }
    }
}

/// Where an optimiser moment is read from.
pub(super) struct MomentSource {
    layout: Layout,
    /// Where each tensor begins in the moment's byte stream.
    starts: HashMap<String, u64>,
}

impl MomentSource {
    /// Nothing while there is no version of the moment.
    pub(super) fn of(order: &FoldOrder, moment: &LineageName) -> Option<MomentSource> {
        let (_, manifest, _) = order.current.get(moment)?;
        let mut offset = 0;
        let starts = manifest.specs().map(|spec| {
            let start = offset;
            offset += spec.byte_len();
            (spec.name.clone(), start)
        });
        Some(MomentSource { starts: starts.collect(), layout: Layout::of(manifest) })
    }

    fn span(&self, tile: &Tile, tensor: &str) -> Result<ByteSpan, Error> {
        let start = self.starts.get(tensor);
        let start =
            start.ok_or_else(|| Error::internal(format!("optimiser state lacks tensor {tensor:?}")))?;
        let size = Dtype::F64.size() as u64;
        Ok(ByteSpan { offset: start + tile.start * size, len: tile.len * size })
    }
}
