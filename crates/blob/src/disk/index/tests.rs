//! Frames and records against arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::Hold;
use crate::disk::header::Fields;

fn any_hold() -> impl Strategy<Value = Hold> {
    "[a-z0-9][a-z0-9/._-]{0,254}".prop_map(|text| Hold::new(text).unwrap())
}

fn any_record() -> impl Strategy<Value = Record> {
    let digest = || any::<[u8; 32]>().prop_map(sheaf_domain::Digest::from_bytes);
    prop_oneof![
        (digest(), any::<u32>(), any::<u64>(), any::<u64>(), any_hold())
            .prop_map(|(digest, file, offset, len, hold)| Record::Put { digest, file, offset, len, hold }),
        (digest(), any_hold()).prop_map(|(digest, hold)| Record::Hold { digest, hold }),
        any_hold().prop_map(|hold| Record::Release { hold }),
    ]
}

proptest! {
    #[test]
    fn records_read_back(records in prop::collection::vec(any_record(), 0..20)) {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        let mut fields = Fields(&bytes);
        for record in records {
            prop_assert_eq!(Record::decode(&mut fields), Some(record));
        }
        prop_assert!(fields.0.is_empty());
    }

    #[test]
    fn arbitrary_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut fields = Fields(&bytes);
        while Record::decode(&mut fields).is_some() {}
        prop_assert!(frame::decode(&bytes).is_none());
        prop_assert!(!frame::any_within(&bytes));
    }

    #[test]
    fn a_frame_reads_back_whole_or_not_at_all(
        seq: u64,
        body in prop::collection::vec(any::<u8>(), 0..100),
        before in prop::collection::vec(any::<u8>(), 0..50),
        cut: prop::sample::Index,
        flip: prop::sample::Index,
    ) {
        let bytes = frame::encode(seq, &body);
        prop_assert_eq!(frame::decode(&bytes), Some((seq, body.as_slice())));
        prop_assert!(frame::decode(&bytes[..cut.index(bytes.len())]).is_none());
        let mut damaged = bytes.clone();
        damaged[flip.index(bytes.len())] ^= 1;
        prop_assert!(frame::decode(&damaged).is_none());
        prop_assert!(frame::any_within(&[before, bytes].concat()));
    }
}
