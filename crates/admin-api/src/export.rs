//! An exported journal: JSON lines, an entry each, and as the last line its signed end.
//!
//! Checked without a server and without trust in who hands it in: the chain of hashes, then the signature over its end. Lines
//! are read one at a time and each is bounded, so that a file of any length takes no more memory than its longest line.

use std::io::{BufRead, Read as _, Seek};

use serde::{Deserialize, Serialize};
use sheaf_domain::{ErrorKind, GENESIS, JournalEntry, JournalId};
use sheaf_pki::PublicKey;

use crate::HeadBody;

/// The longest line read, in bytes.
pub const EXPORT_LINE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// The longest signed end, in bytes: the longest signature and key there are, and some.
pub const HEAD_LINE_LEN_MAX: usize = 8 * 1024;

/// The last line of an exported journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadLine {
    /// The signed end.
    pub head: HeadBody,
}

/// Why an exported journal is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is no export, or one that was changed.
    #[error("{0}")]
    Broken(String),
    /// The key cannot be read, or the signature is not its own.
    #[error(transparent)]
    Key(#[from] sheaf_pki::Error),
}

impl ExportError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ExportError::Read(_) => ErrorKind::Unavailable,
            ExportError::Broken(_) | ExportError::Key(_) => ErrorKind::Conflict,
        }
    }
}

/// A journal whose chain and signature hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedExport {
    /// Its end.
    pub head: HeadBody,
    /// The key that signed it.
    pub key: PublicKey,
}

/// Checks an exported journal against `key`, or without one against the key it names itself.
///
/// The file is read twice: which journal it is stands at its end, and every hash covers that.
///
/// # Errors
/// [`ExportError`].
pub fn check_export(
    mut file: impl BufRead + Seek,
    key: Option<PublicKey>,
) -> Result<CheckedExport, ExportError> {
    let mut last = Vec::new();
    let mut line = Vec::new();
    let mut num_entries = 0u64;
    while read_line(&mut file, &mut line)? {
        num_entries += u64::from(!last.is_empty());
        std::mem::swap(&mut last, &mut line);
    }
    if last.is_empty() {
        return Err(broken("it is empty"));
    }
    if last.len() > HEAD_LINE_LEN_MAX {
        let message = format!("its last line is longer than {HEAD_LINE_LEN_MAX} bytes: it is no signed end");
        return Err(broken(message));
    }
    let HeadLine { head } =
        serde_json::from_slice(&last).map_err(|_| broken("its last line is no signed end"))?;
    let journal: JournalId = head.journal.parse().map_err(broken)?;
    let mut end = (0, GENESIS);
    file.rewind()?;
    for line_idx in 1..=num_entries {
        read_line(&mut file, &mut line)?;
        let entry = entry_of(&line).ok_or_else(|| broken(format!("line {line_idx} is no entry")))?;
        entry.check_follows(journal, end).map_err(broken)?;
        end = (entry.seq, entry.hash);
    }
    if end != (head.seq, head.hash) {
        return Err(broken("its end is not the one that was signed"));
    }
    let key = key.map_or_else(|| PublicKey::from_pem(&head.public_key), Ok)?;
    let signature = hex::decode(&head.signature).map_err(|_| broken("its signature is not hexadecimal"))?;
    sheaf_pki::verify_head(&key, journal, head.seq, &head.hash, &signature)?;
    Ok(CheckedExport { head, key })
}

/// The entry of a line as it is exported: its numbers come first. That is looked at before anything is parsed, because the parser's
/// refusal of a text in a number's place quotes all of it, escaped to many times its length.
fn entry_of(line: &[u8]) -> Option<JournalEntry> {
    let rest = after_number(line.strip_prefix(b"{\"seq\":")?)?;
    let rest = after_number(rest.strip_prefix(b",\"at\":")?)?;
    rest.starts_with(b",\"kind\":\"").then(|| serde_json::from_slice(line).ok())?
}

fn after_number(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    text.split_at_checked(end).map(|(_, rest)| rest)
}

/// Reads the next line without its end; false when there is none. An empty line counts as one of white space.
fn read_line(file: &mut (impl BufRead + ?Sized), line: &mut Vec<u8>) -> Result<bool, ExportError> {
    line.clear();
    let got = file.take(EXPORT_LINE_LEN_MAX).read_until(b'\n', line)? as u64;
    if got == EXPORT_LINE_LEN_MAX && line.last() != Some(&b'\n') {
        return Err(broken(format!("a line is longer than {EXPORT_LINE_LEN_MAX} bytes")));
    }
    Ok(got > 0)
}

fn broken(reason: impl std::fmt::Display) -> ExportError {
    ExportError::Broken(reason.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use sheaf_domain::{EntryDraft, Timestamp};
    use sheaf_pki::JournalSigner;

    fn export(signer: &JournalSigner, entries: u64) -> String {
        let (mut text, mut end) = (String::new(), (0, GENESIS));
        for seq in 1..=entries {
            let draft = EntryDraft { at: Timestamp::default(), kind: "note".into(), body: "{}".into() };
            let entry = JournalEntry::chain(JournalId::Federation, seq, end.1, draft);
            end = (entry.seq, entry.hash);
            text += &(serde_json::to_string(&entry).unwrap() + "\n");
        }
        let head = HeadBody {
            journal: "federation".into(),
            seq: end.0,
            hash: end.1,
            signature: hex::encode(signer.sign_head(JournalId::Federation, end.0, &end.1).unwrap()),
            at: Timestamp::default(),
            public_key: signer.public_key_pem(),
        };
        text + &serde_json::to_string(&HeadLine { head }).unwrap() + "\n"
    }

    fn check(text: &str) -> Result<CheckedExport, ExportError> {
        check_export(Cursor::new(text.as_bytes()), None)
    }

    #[test]
    fn an_export_holds_as_it_was_written_and_in_no_other_form() {
        let signer = JournalSigner::generate().unwrap();
        let text = export(&signer, 3);
        assert_eq!(check(&text).unwrap().head.seq, 3);
        assert_eq!(check(text.trim_end()).unwrap().head.seq, 3);
        assert_eq!(check(&export(&signer, 0)).unwrap().head.seq, 0);
        let lines: Vec<&str> = text.lines().collect();
        for changed in [
            String::new(),
            lines[1..].join("\n"),
            lines[..3].join("\n"),
            [lines[0], lines[2], lines[1], lines[3]].join("\n"),
            text.replace("note", "nota"),
            text.replace("\"journal\":\"federation\"", "\"journal\":\"0000000000000007\""),
            format!("{text}\n"),
            "null\n".to_owned() + &text,
        ] {
            assert!(matches!(check(&changed), Err(ExportError::Broken(_))), "{changed}");
        }
    }

    #[test]
    fn an_export_is_held_against_the_key_that_is_given() {
        let (signer, other) = (JournalSigner::generate().unwrap(), JournalSigner::generate().unwrap());
        let text = export(&signer, 2);
        let with =
            |key: &JournalSigner| check_export(Cursor::new(text.as_bytes()), Some(key.public_key().clone()));
        assert!(with(&signer).is_ok());
        assert!(matches!(with(&other), Err(ExportError::Key(_))));
    }
}
