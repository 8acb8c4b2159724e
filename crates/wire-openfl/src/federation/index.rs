//! Where the tensors of a version are in its byte stream; of the versions asked for last.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sheaf_domain::{Manifest, VersionRef};
use sheaf_tensor::TensorSpec;

/// How many versions are remembered.
const VERSIONS_MAX: usize = 6;

/// Where each tensor of a version is.
#[derive(Debug)]
pub(crate) struct Index(HashMap<String, (u64, TensorSpec)>);

impl Index {
    /// Of no tensors.
    pub(crate) fn none() -> Index {
        Index(HashMap::new())
    }

    pub(crate) fn of(manifest: &Manifest) -> Index {
        let mut offset = 0;
        let places = manifest.specs().map(|spec| {
            let at = offset;
            offset += spec.byte_len();
            (spec.name.clone(), (at, spec.clone()))
        });
        Index(places.collect())
    }

    /// Where a tensor begins, and what it is.
    pub(crate) fn find(&self, tensor: &str) -> Option<&(u64, TensorSpec)> {
        self.0.get(tensor)
    }
}

/// The indices of the versions asked for last.
#[derive(Debug, Default)]
pub(crate) struct Indices(Mutex<VecDeque<(VersionRef, Arc<Index>)>>);

impl Indices {
    pub(crate) fn get(&self, version: &VersionRef) -> Option<Arc<Index>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(of, _)| of == version).map(|(_, index)| Arc::clone(index))
    }

    pub(crate) fn put(&self, version: VersionRef, manifest: &Manifest) -> Arc<Index> {
        let index = Arc::new(Index::of(manifest));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_back((version, Arc::clone(&index)));
        if known.len() > VERSIONS_MAX {
            known.pop_front();
        }
        index
    }
}
