//! A task's results as stock serialised them, whole and cut, then what is wrong with them in one way each.

use std::path::Path;

use super::*;
use crate::proto::openfl::aggregator::TaskResults;
use crate::proto::{MetadataProto, NamedTensor};
use crate::tensors::Fault;

fn stock() -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/openfl-1.9/results.bin");
    std::fs::read(file).expect("the golden")
}

type Read = (Option<Sent>, Vec<(Head, Vec<u8>)>);

/// What the reader gives, put together again.
fn read(message: &[u8], cut: usize) -> Result<Read, ResultsError> {
    let mut reader = ResultsReader::new(Limits::default());
    let (mut sent, mut tensors, mut open) = (None, Vec::new(), None);
    for piece in message.chunks(cut) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(part) = reader.next(&mut piece)? {
            match part {
                Part::Sent(before) => sent = Some(before),
                Part::Tensor(head) => assert!(open.replace((head, Vec::new())).is_none()),
                Part::Bytes(bytes) => open.as_mut().expect("a tensor").1.extend_from_slice(&bytes),
                Part::End => tensors.push(open.take().expect("a tensor")),
            }
        }
    }
    let late = reader.finish()?;
    assert!(late.is_none() || sent.is_none());
    Ok((sent.or(late), tensors))
}

#[test]
fn stock_results_are_read_however_they_are_cut() {
    let message = stock();
    let whole = TaskResults::decode(message.as_slice()).expect("a message");
    let wanted: Vec<(Head, Vec<u8>)> = whole
        .tensors
        .into_iter()
        .map(|tensor| {
            let (head, bytes) = Head::split(tensor);
            (head, bytes.to_vec())
        })
        .collect();
    assert_eq!(wanted.len(), 12);
    for cut in [1, 2, 7, 100, 1_000_000] {
        let (sent, tensors) = read(&message, cut).expect("it is read");
        let sent = sent.expect("what comes before the tensors");
        assert_eq!((sent.task_name.as_str(), sent.round_number, sent.data_size), ("train", 3, 320));
        assert_eq!(sent.header.sender, "col1");
        assert_eq!(tensors, wanted, "cut {cut}");
    }
}

#[test]
fn a_stream_that_ends_early_is_refused_wherever_that_is() {
    let message = stock();
    let mut ends = 0;
    for len in 0..message.len() {
        match read(&message[..len], 64) {
            Err(ResultsError::Empty) => assert_eq!(len, 0),
            Err(ResultsError::Encoding(FieldError::Truncated)) => {}
            // Between two fields a message may end; it is then another one.
            Ok((_, tensors)) => ends += usize::from(tensors.len() < 12),
            Err(error) => panic!("{len}: {error}"),
        }
    }
    assert!((12..=20).contains(&ends), "{ends}");
}

fn results(tensor: NamedTensor) -> Vec<u8> {
    TaskResults { task_name: "train".into(), tensors: vec![tensor], ..TaskResults::default() }.encode_to_vec()
}

fn fault(tensor: NamedTensor) -> Fault {
    match read(&results(tensor), 9) {
        Err(ResultsError::Tensor(refusal)) => {
            assert_eq!(refusal.tensor, "w");
            refusal.fault
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn w() -> NamedTensor {
    NamedTensor { name: "w".into(), ..NamedTensor::default() }
}

#[test]
fn a_tensor_without_bytes_begins_and_ends() {
    let (_, tensors) = read(&results(w()), 1).expect("it is read");
    assert_eq!(tensors, [(Head { name: "w".into(), ..Head::default() }, Vec::new())]);
    let (sent, none) = read(&[0x1a, 1, b't'], 1).expect("it is read");
    assert_eq!((sent.map(|sent| sent.task_name), none.len()), (Some("t".to_owned()), 0));
}

#[test]
fn counts_and_lengths_over_their_bound_are_refused_by_name() {
    let tags = vec![String::new(); 33];
    assert_eq!(fault(NamedTensor { tags, ..w() }), Fault::TooMany { field: "tags", max: 32 });
    let transformer_metadata = vec![MetadataProto::default(); 9];
    let many = NamedTensor { transformer_metadata, ..w() };
    assert_eq!(fault(many), Fault::TooMany { field: "transformer_metadata", max: 8 });
    let tags = vec!["t".repeat(513)];
    assert_eq!(fault(NamedTensor { tags, ..w() }), Fault::TooLong { field: "tags", len: 513, max: 512 });
}

#[test]
fn a_length_of_four_gib_is_refused_before_its_bytes() {
    // tensors, 4 GiB.
    let claim = [0x2a, 0x80, 0x80, 0x80, 0x80, 0x10];
    let refused = read(&claim, 1).expect_err("it is refused");
    assert!(
        matches!(refused, ResultsError::TooLong { field: "tensors", len: 0x1_0000_0000, .. }),
        "{refused}"
    );
    // A tensor of 100 bytes, named w, whose bytes claim 4 GiB.
    let claim = [0x2a, 100, 0x0a, 1, b'w', 0x3a, 0x80, 0x80, 0x80, 0x80, 0x10];
    let refused = read(&claim, 1).expect_err("it is refused").to_string();
    assert!(
        refused.contains("tensor \"w\"") && refused.contains("data_bytes claims 4294967296"),
        "{refused}"
    );
}

#[test]
fn fields_that_come_twice_or_after_the_bytes_are_refused() {
    // name after data_bytes
    let late = [0x2a, 6, 0x3a, 1, 0, 0x0a, 1, b'w'];
    let refused = read(&late, 1).expect_err("it is refused");
    assert!(matches!(
        refused,
        ResultsError::Tensor(Refusal { fault: Fault::Misplaced { field: "name" }, .. })
    ));
    // task_name twice, and after a tensor
    for twice in [&[0x1a, 1, b'a', 0x1a, 1, b'b'][..], &[0x2a, 0, 0x1a, 1, b'a']] {
        assert_eq!(read(twice, 1), Err(ResultsError::Misplaced { field: "task_name" }));
    }
}
