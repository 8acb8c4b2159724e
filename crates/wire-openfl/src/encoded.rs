//! Tensors that a pipeline encoded, each once for all collaborators, as long as there is room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::error::CallError;
use crate::tensors::Encoded;

/// The most bytes that are kept.
const BYTES_MAX: usize = 64 << 20;
/// The most tensors that are kept.
const TENSORS_MAX: usize = 4_096;

/// What was encoded: lineage and version, tensor, codec.
pub(crate) type Key = (String, String, &'static str);
type Cell = Arc<OnceCell<Arc<Encoded>>>;

/// The tensors encoded last.
#[derive(Debug, Default)]
pub(crate) struct EncodedCache(Mutex<VecDeque<(Key, Cell)>>);

impl EncodedCache {
    /// What was encoded for this key, or what `encode` makes of it; several that ask at once wait for the first.
    pub(crate) async fn get<F>(&self, key: Key, encode: F) -> Result<Arc<Encoded>, CallError>
    where
        F: AsyncFnOnce() -> Result<Encoded, CallError>,
    {
        let cell = self.cell(key);
        cell.get_or_try_init(async || Ok(Arc::new(encode().await?))).await.map(Arc::clone)
    }

    fn cell(&self, key: Key) -> Cell {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = kept.iter().find(|(of, _)| *of == key) {
            return Arc::clone(cell);
        }
        let len = |(_, cell): &(Key, Cell)| cell.get().map_or(0, |encoded| encoded.bytes.len());
        while kept.len() >= TENSORS_MAX || kept.iter().map(len).sum::<usize>() > BYTES_MAX {
            kept.pop_front();
        }
        let cell = Cell::default();
        kept.push_back((key, Arc::clone(&cell)));
        cell
    }
}
