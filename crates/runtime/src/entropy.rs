//! Entropy for tokens, ids and nonces: the operating system's, or a seeded stand-in for simulations.

use std::sync::{Arc, Mutex, PoisonError};

use sheaf_domain::rng::SeededRng;

/// A source of unpredictable bytes.
pub trait Entropy: std::fmt::Debug + Send + Sync + 'static {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`EntropyError`] when the operating system gives none; never partly filled.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError>;
}

/// The operating system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct EntropyError;

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl OsEntropy {
    /// The operating system's generator, shared.
    pub fn shared() -> Arc<dyn Entropy> {
        Arc::new(OsEntropy)
    }
}

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| EntropyError)
    }
}

/// A seeded stream, for simulations only: whoever knows the seed knows every token.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<SeededRng>);

impl SeededEntropy {
    /// The stream of `seed`.
    pub fn shared(seed: u64) -> Arc<dyn Entropy> {
        Arc::new(SeededEntropy(Mutex::new(SeededRng::new(seed, "entropy"))))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            let random = rng.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        Ok(())
    }
}
