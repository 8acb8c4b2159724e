//! The signature on a journal's head: an Ed25519 key of its own, in a file of mode 0600.
//!
//! What is signed: the text `sheaf journal head 1` and a zero byte; the journal's name's length (u32) and bytes; seq (u64);
//! the hash of the entry `seq` (32 bytes); all numbers little-endian.

use std::path::Path;

use sheaf_domain::{Digest, JournalId};

use crate::key::KeyPair;
use crate::{Error, PublicKey};

/// Signs heads of journals.
#[derive(Debug)]
pub struct JournalSigner(KeyPair);

impl JournalSigner {
    /// Makes a key in memory.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn generate() -> Result<JournalSigner, Error> {
        KeyPair::generate_ed25519().map(JournalSigner)
    }

    /// Creates the key file with mode 0600.
    ///
    /// # Errors
    /// [`Error::Exists`] rather than overwriting; [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        self.0.save(path)
    }

    /// Reads the key file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::ReadableByOthers`] naming the remedy, [`Error::Malformed`].
    pub fn load(path: &Path) -> Result<JournalSigner, Error> {
        KeyPair::load(path).map(JournalSigner)
    }

    /// Signs that entry `seq` of `journal` has the hash `hash`.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn sign_head(&self, journal: JournalId, seq: u64, hash: &Digest) -> Result<Vec<u8>, Error> {
        self.0.sign(&head_bytes(journal, seq, hash))
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        self.0.public()
    }

    /// The public half in PEM, for whoever checks an exported journal.
    pub fn public_key_pem(&self) -> String {
        self.0.public().to_pem()
    }
}

/// Checks the signature on a journal's head.
///
/// # Errors
/// [`Error::BadSignature`].
pub fn verify_head(
    key: &PublicKey,
    journal: JournalId,
    seq: u64,
    hash: &Digest,
    signature: &[u8],
) -> Result<(), Error> {
    key.verify("the journal's head", &head_bytes(journal, seq, hash), signature)
}

fn head_bytes(journal: JournalId, seq: u64, hash: &Digest) -> Vec<u8> {
    let name = journal.to_string();
    let mut bytes = b"sheaf journal head 1\0".to_vec();
    bytes.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use sheaf_domain::RunId;

    use super::*;

    #[test]
    fn a_head_verifies_as_signed_and_in_no_other_form() {
        let signer = JournalSigner::generate().unwrap();
        let journal = JournalId::Run(RunId::new(7).unwrap());
        let hash = Digest::of(b"entry");
        let signature = signer.sign_head(journal, 3, &hash).unwrap();
        let key = PublicKey::from_pem(&signer.public_key_pem()).unwrap();
        assert!(verify_head(&key, journal, 3, &hash, &signature).is_ok());
        assert!(verify_head(&key, JournalId::Federation, 3, &hash, &signature).is_err());
        assert!(verify_head(&key, journal, 4, &hash, &signature).is_err());
        assert!(verify_head(&key, journal, 3, &Digest::of(b"other"), &signature).is_err());
        assert!(verify_head(&key, journal, 3, &hash, &signature[1..]).is_err());
        let other = JournalSigner::generate().unwrap();
        assert!(verify_head(other.public_key(), journal, 3, &hash, &signature).is_err());
    }

    #[test]
    fn the_key_reads_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.key.pem");
        let signer = JournalSigner::generate().unwrap();
        signer.save(&path).unwrap();
        assert!(matches!(signer.save(&path), Err(Error::Exists { .. })));
        assert_eq!(JournalSigner::load(&path).unwrap().public_key(), signer.public_key());
    }
}
