//! HMAC with SHA-256, verified in constant time.

use aws_lc_rs::hmac;

/// A key for HMAC with SHA-256; its `Debug` shows nothing of it.
#[derive(Debug, Clone)]
pub struct HmacKey(hmac::Key);

impl HmacKey {
    /// A key of any length.
    pub fn new(key: &[u8]) -> HmacKey {
        HmacKey(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The code of a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        for (to, from) in out.iter_mut().zip(hmac::sign(&self.0, message).as_ref()) {
            *to = *from;
        }
        out
    }

    /// Whether the code is the message's, in constant time.
    pub fn verify(&self, message: &[u8], code: &[u8]) -> bool {
        hmac::verify(&self.0, message, code).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_case_of_rfc_4231_holds() {
        let key = HmacKey::new(b"Jefe");
        let code = key.sign(b"what do ya want for nothing?");
        assert_eq!(hex::encode(code), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(key.verify(b"what do ya want for nothing?", &code));
        assert!(!key.verify(b"what do ya want for nothing!", &code));
    }
}
