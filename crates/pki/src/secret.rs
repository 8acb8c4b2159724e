//! A secret in memory: shown by nothing, compared in constant time, overwritten when dropped.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes or text that must not be shown.
///
/// It has no `Display` and no serde form, and `Debug` prints none of it; whoever needs the content says so by name.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps bytes; the vector itself is taken over, not copied.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// The content as bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The content as text, if it is text.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    /// Takes a time that depends on the lengths only.
    fn eq(&self, other: &Secret) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_and_compares_by_content() {
        let secret = Secret::from("open sesame".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret, Secret::new(b"open sesame".to_vec()));
        assert_ne!(secret, Secret::new(b"open sesamf".to_vec()));
        assert_ne!(secret, Secret::new(b"open".to_vec()));
        assert_eq!(secret.expose_text(), Some("open sesame"));
        assert_eq!(Secret::new(vec![0xff]).expose_text(), None);
    }
}
