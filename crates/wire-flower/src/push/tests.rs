//! PushObject in pieces, out of order, and wrong.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::proto::{Node, PullObjectResponse, PushObjectRequest};

fn read(body: &[u8], step: usize) -> Result<(Vec<u8>, Tail), PushError> {
    let mut reader = PushReader::new(1_000);
    let mut content = Vec::new();
    for piece in body.chunks(step) {
        for part in reader.feed(Bytes::copy_from_slice(piece))? {
            if let Part::Content(bytes) = part {
                content.extend_from_slice(&bytes);
            }
        }
    }
    Ok((content, reader.finish()?))
}

fn request(content: &[u8]) -> PushObjectRequest {
    PushObjectRequest {
        node: Some(Node { node_id: u64::MAX }),
        run_id: 42,
        object_id: "ab".repeat(32),
        object_content: Bytes::copy_from_slice(content),
        session_id: "session".to_owned(),
    }
}

#[test]
fn wrong_requests_are_refused_by_name() {
    let good = request(b"content").encode_to_vec();
    let early =
        PushObjectRequest { object_content: Bytes::from_static(b"c"), ..Default::default() }.encode_to_vec();
    assert_eq!(read(&early, 9), Err(PushError::ContentTooEarly { field: "run_id" }));
    let twice = [&good[..], &good[..]].concat();
    assert_eq!(read(&twice, 9), Err(PushError::Repeated { field: "node" }));
    assert_eq!(
        read(&[0x10, 1, 0x1a, 0, 0x22, 0xff, 0xff, 3], 9).unwrap_err(),
        PushError::TooLong { field: "object_content", len: 65_535, max: 1_000 }
    );
    assert_eq!(read(&[0x20, 1], 9), Err(PushError::WrongType { field: "object_content" }));
    assert_eq!(read(&[0x1a, 2, 0xff, 0xff], 9), Err(PushError::Malformed { field: "object_id" }));
    assert_eq!(read(&[0x10; 1], 9), Err(PushError::Truncated { field: "run_id" }));
    assert_eq!(read(&[0x10, 1], 9), Err(PushError::Missing { field: "object_id" }));
    assert_eq!(read(&[0xff; 11], 9), Err(PushError::Malformed { field: "a field's key" }));
    let endless = [0x32, 0].repeat(usize::try_from(UNKNOWN_LEN_MAX).unwrap() + 1);
    assert!(matches!(read(&endless, 4_096), Err(PushError::TooLong { .. })));
    for end in 1..good.len() {
        if let Ok((content, tail)) = read(&good[..end], 7) {
            assert!(content.is_empty() || content == b"content", "{end}");
            assert_eq!(tail.session_id, "", "{end}");
        }
    }
}

#[test]
fn the_prefix_and_the_content_are_the_answer() {
    for len in [0usize, 1, 127, 128, 70_000] {
        let whole = [&pull_prefix(len as u64)[..], &vec![7; len]].concat();
        let expected = PullObjectResponse {
            object_found: true,
            object_available: true,
            object_content: vec![7; len].into(),
        };
        assert_eq!(whole, expected.encode_to_vec());
    }
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_request(
        content in proptest::collection::vec(any::<u8>(), 0..300),
        step in 1usize..50,
        unknown in 0u8..20,
    ) {
        let mut body = [&[0x32, unknown][..], &vec![9; usize::from(unknown)]].concat();
        body.extend(request(&content).encode_to_vec());
        let (got, tail) = read(&body, step).unwrap();
        prop_assert_eq!(got, content);
        prop_assert_eq!(tail.session_id, "session");
        prop_assert_eq!(tail.head.run_id, 42);
        prop_assert_eq!(tail.node_id, Some(u64::MAX));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
        let _ = read(&bytes, step);
    }
}
