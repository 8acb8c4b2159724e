//! What a program is given to keep secret: shown by nothing, overwritten when dropped.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The content of a placed file. `Debug` prints none of it.
///
/// Its serde form is plain hex: it exists for the pipe to the confiner and is written nowhere else.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps bytes; the vector itself is taken over, not copied.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// The content.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(self.expose())))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        hex::decode(text.as_str()).map(Secret::new).map_err(|_| serde::de::Error::custom("not hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_crosses_the_pipe_and_is_not_shown() {
        let secret = Secret::new(b"token\0\xff".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        let back: Secret = serde_json::from_str(&serde_json::to_string(&secret).unwrap()).unwrap();
        assert_eq!(back.expose(), secret.expose());
    }
}
