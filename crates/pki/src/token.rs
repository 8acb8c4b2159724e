//! The enrolment token: 256 random bits, stored by the server as a hash only.
//!
//! Text form: `sheaf1-` and 43 characters of unpadded base64url. The hash is SHA-256 over the text
//! `sheaf enrolment token 1`, a zero byte, and the 32 bytes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sheaf_domain::{Digest, Hasher};
use sheaf_runtime::Entropy;
use zeroize::Zeroizing;

use crate::{Error, Secret};

/// What the text of every token starts with; a scanner for leaked secrets may look for it.
pub const TOKEN_PREFIX: &str = "sheaf1-";

const TOKEN_TEXT_LEN: usize = TOKEN_PREFIX.len() + 43;

/// An enrolment token. Bound by the server to one site's name, spent by the first key that uses it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Secret);

impl Token {
    /// Draws a token.
    ///
    /// # Errors
    /// [`Error::Entropy`].
    pub fn generate(entropy: &dyn Entropy) -> Result<Token, Error> {
        let mut bytes = vec![0; 32];
        entropy.fill(&mut bytes).map_err(|source| Error::Entropy("a token", source))?;
        Ok(Token(Secret::new(bytes)))
    }

    /// Reads the text form; surrounding white space is ignored.
    ///
    /// # Errors
    /// [`Error::Malformed`]; the text given is not repeated in it.
    pub fn parse(text: &str) -> Result<Token, Error> {
        let malformed = || Error::malformed("the token", "it is `sheaf1-` and 43 characters of base64url");
        let text = text.trim();
        if text.len() != TOKEN_TEXT_LEN {
            return Err(malformed());
        }
        let encoded = text.strip_prefix(TOKEN_PREFIX).ok_or_else(malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?;
        if bytes.len() != 32 {
            return Err(malformed());
        }
        Ok(Token(Secret::new(bytes)))
    }

    /// The text form.
    pub fn to_text(&self) -> Secret {
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0.expose()));
        Secret::from(format!("{TOKEN_PREFIX}{}", encoded.as_str()))
    }

    /// What the server stores instead of the token.
    pub fn hash(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(b"sheaf enrolment token 1\0");
        hasher.update(self.0.expose());
        hasher.finish()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sheaf_runtime::{OsEntropy, SeededEntropy};

    use super::*;

    #[test]
    fn a_token_reads_back_from_its_text_and_keeps_its_hash() {
        let token = Token::generate(&OsEntropy).unwrap();
        let text = token.to_text();
        let text = text.expose_text().unwrap();
        assert!(text.starts_with(TOKEN_PREFIX));
        assert_eq!(text.len(), TOKEN_TEXT_LEN);
        let read = Token::parse(&format!("  {text}\n")).unwrap();
        assert_eq!(read, token);
        assert_eq!(read.hash(), token.hash());
        assert!(!format!("{token:?}").contains(&text[7..]));
    }

    #[test]
    fn the_hash_is_bound_to_its_purpose() {
        let token = Token::generate(SeededEntropy::shared(1).as_ref()).unwrap();
        assert_ne!(token.hash(), Digest::of(token.0.expose()));
        assert_ne!(token.hash(), Token::generate(SeededEntropy::shared(2).as_ref()).unwrap().hash());
    }

    #[test]
    fn a_token_cut_short_or_changed_in_form_is_refused_without_being_repeated() {
        let text = Token::generate(&OsEntropy).unwrap().to_text();
        let text = text.expose_text().unwrap();
        for bad in [&text[..text.len() - 1], &text[1..], "", "sheaf1-", &text.replace("sheaf1", "sheaf2")] {
            let error = Token::parse(bad).unwrap_err();
            assert!(bad.is_empty() || bad == "sheaf1-" || !error.to_string().contains(bad));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*", tail in "[ -~]{43}") {
            let _ = Token::parse(&text);
            let _ = Token::parse(&format!("{TOKEN_PREFIX}{tail}"));
        }
    }
}
