//! `[store]`: where state and bytes are kept, and how many.

use serde::{Deserialize, Serialize};
use sheaf_domain::ByteSize;

/// `[store]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// The most bytes the blob store may take on disk; uploads beyond it are refused by name.
    pub max_bytes: ByteSize,
    /// Whether models and updates go past the page cache, where the filesystem allows it.
    pub direct_io: bool,
}

impl Default for StoreSection {
    fn default() -> StoreSection {
        StoreSection { max_bytes: ByteSize::from_bytes(100 << 30), direct_io: true }
    }
}
