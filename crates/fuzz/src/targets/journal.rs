//! Exported journals: JSON lines with a signed end.

use std::io::Cursor;

use sheaf_admin_api::{HeadBody, HeadLine, check_export};
use sheaf_domain::{EntryDraft, GENESIS, JournalEntry, JournalId, RunId, Timestamp};
use sheaf_pki::JournalSigner;

use crate::form::Form;
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `check_export`. One line is held at a time, with the one before it.
pub(super) const TARGET: Target = Target {
    name: "journal",
    about: "an exported journal",
    form: Form::JsonLines,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 16, constant: 64 * 1024 },
    samples,
    body,
};

fn body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    match probe.watch(|| check_export(Cursor::new(input), None)) {
        Ok(checked) => {
            let line = HeadLine { head: checked.head.clone() };
            let printed = serde_json::to_vec(&line).unwrap_or_else(|error| panic!("no JSON form: {error}"));
            let again = serde_json::from_slice::<HeadLine>(&printed).map_err(|error| error.to_string());
            assert_eq!(again, Ok(line), "what was printed is another end");
            // The same entries under any other key are refused.
            if let Ok(other) = JournalSigner::generate() {
                let key = other.public_key().clone();
                assert!(check_export(Cursor::new(input), Some(key)).is_err(), "any key will do");
            }
            Verdict::Accepted(format!("{} entries", checked.head.seq))
        }
        Err(error) => Verdict::refused(error),
    }
}

fn samples() -> Vec<Vec<u8>> {
    let run = RunId::new(7).map_or(JournalId::Federation, JournalId::Run);
    [(JournalId::Federation, 0), (JournalId::Federation, 1), (run, 4)]
        .into_iter()
        .filter_map(|(journal, entries)| sample(journal, entries))
        .collect()
}

fn sample(journal: JournalId, entries: u64) -> Option<Vec<u8>> {
    let signer = JournalSigner::generate().ok()?;
    let (mut text, mut end) = (Vec::new(), (0, GENESIS));
    for seq in 1..=entries {
        let body = "{\"event\":\"extended\",\"rounds\":3}".to_owned();
        let draft = EntryDraft { at: Timestamp::from_millis(seq), kind: "extended".to_owned(), body };
        let entry = JournalEntry::chain(journal, seq, end.1, draft);
        end = (entry.seq, entry.hash);
        serde_json::to_writer(&mut text, &entry).ok()?;
        text.push(b'\n');
    }
    let head = HeadBody {
        journal: journal.to_string(),
        seq: end.0,
        hash: end.1,
        signature: hex::encode(signer.sign_head(journal, end.0, &end.1).ok()?),
        at: Timestamp::from_millis(9),
        public_key: signer.public_key_pem(),
    };
    serde_json::to_writer(&mut text, &HeadLine { head }).ok()?;
    Some(text)
}
