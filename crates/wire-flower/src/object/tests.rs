//! Objects of the stock library in every split, and headers with one thing wrong.

use proptest::prelude::*;

use super::*;

const GOLDEN: &str = include_str!("../../testdata/flower/1.42.0/objects.txt");

fn golden() -> Vec<(&'static str, Digest, Vec<u8>)> {
    let lines = GOLDEN.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.map(|part| (part[0], part[1].parse().unwrap(), hex::decode(part[2]).unwrap())).collect()
}

/// What an object's own header names.
fn children_of(object: &[u8]) -> Vec<Digest> {
    let header = object.split(|byte| *byte == 0).next().unwrap();
    let ids = std::str::from_utf8(header).unwrap().split(' ').nth(1).unwrap();
    ids.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().unwrap()).collect()
}

fn check(object: &[u8], children: &[Digest], total_len: usize, step: usize) -> Result<(), ObjectError> {
    let mut check = ObjectCheck::new(children, total_len as u64);
    for piece in object.chunks(step) {
        check.feed(piece)?;
        assert!(check.held.len() <= 65 * children.len() + FRAME_LEN_MAX);
    }
    check.finish()
}

#[test]
fn objects_of_the_stock_library_pass_in_every_split() {
    for (name, id, object) in golden() {
        assert_eq!(Digest::of(&object), id);
        assert!(TYPE_NAMES.contains(&name));
        for step in 1..=object.len() {
            assert_eq!(check(&object, &children_of(&object), object.len(), step), Ok(()), "{name} by {step}");
        }
    }
    let names: std::collections::BTreeSet<_> = golden().iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, TYPE_NAMES.into());
}

#[test]
fn other_children_are_refused_by_their_position() {
    let (.., object) = golden().into_iter().find(|(name, ..)| *name == "RecordDict").unwrap();
    let declared = children_of(&object);
    assert_eq!(declared.len(), 3);
    let (other, mut swapped) = (Digest::of(b"other"), declared.clone());
    swapped.swap(1, 2);
    let longer = [&declared[..], &[other]].concat();
    for (children, position) in [
        (&[][..], 0),
        (&declared[..2], 2),
        (&longer, 3),
        (&swapped, 1),
        (&[declared[0], declared[1], other], 2),
    ] {
        let refusal = check(&object, children, object.len(), 7);
        let long = children.len() < declared.len()
            && matches!(refusal, Err(ObjectError::HeaderTooLong { max }) if max == (65 * children.len()).saturating_sub(1) + 64);
        assert!(long || refusal == Err(ObjectError::OtherChildren { position }), "{refusal:?}");
    }
}

#[test]
fn headers_with_one_thing_wrong_are_refused_by_name() {
    let refusal = |object: &str| check(object.as_bytes(), &[], object.len(), 3).unwrap_err();
    assert_eq!(check(b"Array  2\0xy", &[], 11, 3), Ok(()));
    assert_eq!(check(b"Array  0\0", &[], 9, 3), Ok(()));
    for object in ["Array 2\0xy", "Array   2\0xy", "\0", "Array  2 \0xy"] {
        assert_eq!(refusal(object), ObjectError::HeaderMalformed, "{object:?}");
    }
    for object in ["array  2\0xy", "Arrays  2\0xy", "  2\0xy", "Context  2\0xy"] {
        assert!(matches!(refusal(object), ObjectError::UnknownType { .. }), "{object:?}");
    }
    for length in ["", "02", "+2", "-2", "2.", "2e0", "0x2", "99999999999999999999", "00"] {
        assert_eq!(refusal(&format!("Array  {length}\0xy")), ObjectError::LengthMalformed, "{length:?}");
    }
    for said in [0, 1, 3, u64::MAX] {
        assert_eq!(refusal(&format!("Array  {said}\0xy")), ObjectError::OtherLength { said, follow: 2 });
    }
    assert_eq!(refusal("Array x 2\0xy"), ObjectError::OtherChildren { position: 0 });
}

#[test]
fn ends_and_endless_headers_are_refused() {
    let object = b"Array  2\0xy";
    for len in 0..object.len() {
        let truncated = ObjectError::Truncated { len: len as u64, total_len: 11 };
        assert_eq!(check(&object[..len], &[], 11, 4), Err(truncated));
    }
    let mut endless = ObjectCheck::new(&[], u64::MAX);
    assert_eq!(endless.feed(&[b'a'; FRAME_LEN_MAX]), Ok(()));
    let too_long = Err(ObjectError::HeaderTooLong { max: FRAME_LEN_MAX });
    assert_eq!(endless.feed(b"a"), too_long);
    assert_eq!(endless.feed(b"\0"), too_long);
    assert_eq!(endless.finish(), too_long);
    let mut long = ObjectCheck::new(&[], 10);
    assert_eq!(long.feed(&[0; 11]), Err(ObjectError::TooLong { total_len: 10 }));
    assert_eq!(check(b"Array  2\0xyz", &[], 11, 11), Err(ObjectError::TooLong { total_len: 11 }));
}

proptest! {
    #[test]
    fn a_changed_header_never_passes(which in 0..64usize, at in any::<usize>(), byte in any::<u8>(), step in 1..200usize) {
        let objects = golden();
        let (.., object) = &objects[which % objects.len()];
        let header_len = object.iter().position(|byte| *byte == 0).unwrap() + 1;
        let mut changed = object.clone();
        changed[at % header_len] = byte;
        let passed = check(&changed, &children_of(object), object.len(), step).is_ok();
        prop_assert_eq!(passed, changed == *object);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), total_len in 0..300usize) {
        let _ = check(&bytes, &[Digest::of(b"a")], total_len, 5);
    }
}
