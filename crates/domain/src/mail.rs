//! Mail: bounded, durable messages between two principals, which the engine never looks into.
//!
//! Relayed runs are made of mail alone. Bodies are references to stored objects; a mail itself is small.

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, RunId, SiteName, Timestamp};

/// One end of a mail.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Principal {
    /// A participant.
    Participant(SiteName),
    /// The application that decides in a relayed run.
    ServerApp(RunId),
    /// An operator.
    Operator(SiteName),
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Principal::Participant(name) => write!(f, "participant:{name}"),
            Principal::ServerApp(run) => write!(f, "server-app:{run}"),
            Principal::Operator(name) => write!(f, "operator:{name}"),
        }
    }
}

/// A mail's number: unique in the store, ascending in the order of posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MailId(pub u64);

/// A mail not yet posted.
///
/// # Examples
/// ```
/// use sheaf_domain::{MailDraft, Principal, RunId, SiteName, Timestamp};
///
/// let run = RunId::new(1).ok_or("zero")?;
/// let draft = MailDraft {
///     run,
///     from: Principal::ServerApp(run),
///     to: Principal::Participant(SiteName::new("berlin")?),
///     kind: "train".to_owned(),
///     correlation: "round-1".to_owned(),
///     expires_at: Timestamp::from_millis(60_000),
///     body: None,
///     header: String::new(),
/// };
/// assert!(draft.check().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailDraft {
    /// The run it belongs to.
    pub run: RunId,
    /// Who sends it.
    pub from: Principal,
    /// Who is to have it.
    pub to: Principal,
    /// What sort of mail it is, in the words of the front-end that posts it.
    pub kind: String,
    /// Groups a question with its answer; posting the same (run, from, to, kind, correlation) again is the same mail.
    pub correlation: String,
    /// When it stops being handed out.
    pub expires_at: Timestamp,
    /// The stored object that is its body, if it has one.
    pub body: Option<Digest>,
    /// A small header of the front-end's own, at most [`MailDraft::HEADER_LEN_MAX`] bytes of text.
    pub header: String,
}

impl MailDraft {
    /// The longest `kind` and `correlation`, in bytes.
    pub const TAG_LEN_MAX: usize = 256;
    /// The longest header, in bytes.
    pub const HEADER_LEN_MAX: usize = 16 * 1024;

    /// Checks the bounds of the texts.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] naming the field.
    pub fn check(&self) -> Result<(), Error> {
        let fields = [
            ("kind", self.kind.len(), Self::TAG_LEN_MAX),
            ("correlation", self.correlation.len(), Self::TAG_LEN_MAX),
            ("header", self.header.len(), Self::HEADER_LEN_MAX),
        ];
        for (field, len, len_max) in fields {
            if len > len_max {
                return Err(Error::OutOfBounds(format!(
                    "mail {field} of {len} bytes exceeds the limit of {len_max}"
                )));
            }
        }
        Ok(())
    }
}

/// A posted mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// Its number.
    pub id: MailId,
    /// What was posted.
    #[serde(flatten)]
    pub draft: MailDraft,
    /// When it was posted.
    pub posted_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(kind: usize, correlation: usize, header: usize) -> MailDraft {
        let run = RunId::new(1).unwrap();
        MailDraft {
            run,
            from: Principal::ServerApp(run),
            to: Principal::Participant(SiteName::new("berlin").unwrap()),
            kind: "k".repeat(kind),
            correlation: "c".repeat(correlation),
            expires_at: Timestamp::from_millis(1),
            body: None,
            header: "h".repeat(header),
        }
    }

    #[test]
    fn texts_have_bounds_and_the_refusal_names_the_field() {
        let (tag, header) = (MailDraft::TAG_LEN_MAX, MailDraft::HEADER_LEN_MAX);
        assert_eq!(draft(tag, tag, header).check(), Ok(()));
        for (mail, field) in [
            (draft(tag + 1, 0, 0), "mail kind of 257 bytes"),
            (draft(0, tag + 1, 0), "mail correlation of 257 bytes"),
            (draft(0, 0, header + 1), "mail header of 16385 bytes"),
        ] {
            let error = mail.check().unwrap_err();
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }

    #[test]
    fn principals_are_told_apart_in_text_and_json() {
        let name = SiteName::new("x").unwrap();
        let all = [
            Principal::Participant(name.clone()),
            Principal::Operator(name),
            Principal::ServerApp(RunId::new(1).unwrap()),
        ];
        let texts: std::collections::BTreeSet<String> = all.iter().map(Principal::to_string).collect();
        assert_eq!(texts.len(), 3);
        for principal in all {
            let json = serde_json::to_string(&principal).unwrap();
            assert_eq!(serde_json::from_str::<Principal>(&json).unwrap(), principal);
        }
    }
}
