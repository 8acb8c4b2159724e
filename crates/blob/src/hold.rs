//! Holds: why an object is kept.
//!
//! A hold is a short checked text; it refuses anything that could not be read in a log or would need escaping. An
//! object lives while at least one hold on it does.

use std::sync::Arc;

use crate::Error;

/// Why an object is kept, e.g. `task/<id>` or `run/<id>/version/global/3`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hold(Arc<str>);

impl Hold {
    /// The longest a hold may be, in bytes.
    pub const LEN_MAX: usize = 255;

    /// Checks and wraps a hold: ASCII letters, digits, `.`, `_`, `-` and `/`, starting with a letter or digit.
    ///
    /// # Errors
    /// [`Error::BadHold`] naming the rule that is broken.
    pub fn new(value: impl Into<String>) -> Result<Hold, Error> {
        let value = value.into();
        match broken_rule(&value) {
            None => Ok(Hold(value.into())),
            Some(rule) => Err(Error::BadHold { value: value.chars().take(64).collect(), rule }),
        }
    }

    /// The hold as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The length of the text; [`Hold::LEN_MAX`] fits a byte.
    pub(crate) fn len_byte(&self) -> u8 {
        u8::try_from(self.0.len()).unwrap_or(u8::MAX)
    }
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn broken_rule(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        return Some("it must not be empty");
    }
    if value.len() > Hold::LEN_MAX {
        return Some("it must have at most 255 characters");
    }
    if !value.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Some("it must start with a letter or digit");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    (!value.chars().all(allowed)).then_some("it may have letters, digits, '.', '_', '-' and '/' only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_texts_are_holds() {
        for good in ["task/0a", "run/12/version/opt.m/3", "x", &"a".repeat(Hold::LEN_MAX)] {
            assert_eq!(Hold::new(good).map(|hold| hold.to_string()).ok().as_deref(), Some(good));
        }
        for bad in ["", "/task", "task 1", "täsk", "a\n", &"a".repeat(Hold::LEN_MAX + 1)] {
            assert!(matches!(Hold::new(bad), Err(Error::BadHold { .. })), "{bad:?} was taken");
        }
    }
}
