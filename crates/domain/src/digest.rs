//! SHA-256 digests of bytes and of models.

use serde::{Deserialize, Serialize};
use sheaf_tensor::TensorSpec;

use crate::Error;

/// A SHA-256 digest, shown as 64 hexadecimal digits.
///
/// # Examples
/// ```
/// use sheaf_domain::{Digest, Hasher};
///
/// let mut hasher = Hasher::new();
/// hasher.update(b"ab");
/// hasher.update(b"c");
/// assert_eq!(hasher.finish(), Digest::of(b"abc"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }
    /// Wraps 32 bytes that are a digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl std::str::FromStr for Digest {
    type Err = Error;
    fn from_str(value: &str) -> Result<Digest, Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(value, &mut bytes).map_err(|_| Error::BadId {
            what: "digest",
            value: value.chars().take(72).collect(),
            rule: "it must be 64 hexadecimal digits",
        })?;
        Ok(Digest(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;
    fn try_from(value: String) -> Result<Digest, Error> {
        value.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Hashes bytes piece by piece into a [`Digest`].
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Starts with no bytes.
    pub fn new() -> Hasher {
        Hasher::default()
    }
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }
    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        Digest(sha2::Digest::finalize(self.0).into())
    }
}

/// Hashes a model: (name, dtype, shape, little-endian bytes) of every tensor in order.
///
/// The digest does not depend on container, chunking or codec. Per tensor it takes in: the name's length
/// (u32) and bytes, the dtype's name's length (u32) and bytes, the rank (u32), each extent (u64), the byte
/// length (u64), the bytes; all numbers little-endian.
#[derive(Clone, Default)]
pub struct ModelHasher(Hasher);

impl ModelHasher {
    /// Starts with no tensors.
    pub fn new() -> ModelHasher {
        ModelHasher::default()
    }

    /// Begins the next tensor; all its bytes must follow through [`ModelHasher::bytes`].
    pub fn tensor(&mut self, spec: &TensorSpec) {
        self.text(&spec.name);
        self.text(spec.dtype.name());
        self.length(spec.shape.dims().len());
        for dim in spec.shape.dims() {
            self.0.update(&dim.to_le_bytes());
        }
        self.0.update(&spec.byte_len().to_le_bytes());
    }

    /// Takes in the next bytes of the tensor begun last.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The model's digest.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.update(text.as_bytes());
    }

    fn length(&mut self, len: usize) {
        // Names and ranks are bounded far below 2^32 by TensorSpec.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.0.update(&len.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_from_its_text() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        assert!("xyz".parse::<Digest>().is_err());
    }

    #[test]
    fn the_digest_of_a_model_never_changes_between_releases() {
        let spec = TensorSpec::new("w", sheaf_tensor::Dtype::F32, [2]).unwrap();
        let bytes = [1.0f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat();
        let mut hasher = ModelHasher::new();
        hasher.tensor(&spec);
        hasher.bytes(&bytes[..3]);
        hasher.bytes(&bytes[3..]);
        assert_eq!(
            hasher.finish().to_string(),
            "062cb4ff0b900c64ae1d91126d4166f617be026ca1c0c0bd6a31f5c44970efcb"
        );
    }
}
