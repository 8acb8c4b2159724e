//! Files with one fault each: every one is refused, and with the right words.

use std::collections::BTreeSet;

use bytes::Bytes;
use sheaf_tensor::{Error, npy, npz, safetensors};

use crate::{load, testdata};

/// Every file in `testdata/bad`, and a part of what it is refused with.
const REFUSALS: &[(&str, &str)] = &[
    ("object.npy", "unsupported npy content: dtype \"|O\": object arrays are pickled"),
    ("structured.npy", "unsupported npy content: structured arrays"),
    ("subarray.npy", "unsupported npy content: arrays of sub-arrays"),
    ("text.npy", "unsupported npy content: dtype \"<U3\": text"),
    ("octets.npy", "unsupported npy content: dtype \"|S3\": text"),
    ("datetime.npy", "unsupported npy content: dtype \"<M8[D]\": dates"),
    ("timedelta.npy", "unsupported npy content: dtype \"<m8[s]\": dates"),
    ("complex.npy", "unsupported npy content: dtype \"<c8\": complex"),
    ("longdouble.npy", "unsupported npy content: dtype \"<f16\": no float of this width"),
    (
        "void2.npy",
        "unsupported npy content: dtype \"|V2\": a two-byte void; a bfloat16 array has no NumPy dtype",
    ),
    ("truncated.npy", "needs 24 bytes of data, got 23"),
    ("header_truncated.npy", "the header is cut short"),
    ("trailing.npy", "needs 24 bytes of data, got 25"),
    ("magic.npy", "does not begin with the npy magic"),
    ("version9.npy", "unsupported npy content: format version 9.0"),
    ("shape_lies.npy", "needs 4000000000000 bytes of data, got 24"),
    ("shape_overflows.npy", "overflows the size of a tensor"),
    ("shape_negative.npy", "\"-1,), }\\n\" is not an extent"),
    ("header_length_lies.npy", "the header is cut short"),
    ("header_too_long.npy", "the npy header exceeds the limit of 65536"),
    ("code_in_header.npy", "the header needs '\\''"),
    ("no_byte_order.npy", "the dtype \"|f4\" states no byte order"),
    ("native_byte_order.npy", "unsupported npy content: dtype \"=f4\": no such dtype"),
    ("bool_two.npy", "the boolean at index 2 is neither 0 nor 1"),
    ("object.npz", "unsupported npz content: entry \"a\": dtype \"|O\": object arrays are pickled"),
    ("foreign_entry.npz", "entry \"notes.txt\" is not an .npy file"),
    ("duplicate.npz", "an entry appears twice"),
    ("no_name.npz", "\"\" is not a usable tensor name"),
    ("control_name.npz", "\"a\\nb\" is not a usable tensor name"),
    ("truncated.npz", "does not end with a zip directory"),
    ("trailing.npz", "does not end with a zip directory"),
    ("prepended.npz", "not a valid npz file"),
    ("checksum.npz", "entry \"a\": Invalid checksum"),
    ("entry_truncated.npz", "entry \"a\": f32[2, 3] needs 24 bytes of data, got 23"),
    ("encrypted.npz", "entry \"a.npy\" is encrypted"),
    ("overlap.npz", "its entries overlap"),
    ("size_lies.npz", "the decompressed size of the npz file exceeds the limit"),
    ("empty_file.npz", "does not end with a zip directory"),
    ("gap.safetensors", "tensor \"b\" leaves a gap before it"),
    ("gap_at_start.safetensors", "tensor \"a\" leaves a gap before it"),
    ("overlap.safetensors", "tensor \"b\" overlaps another"),
    ("backwards.safetensors", "tensor \"b\" ends before it begins"),
    ("same_range.safetensors", "tensor \"b\" overlaps another"),
    ("duplicate_key.safetensors", "tensor \"a\" appears twice"),
    ("duplicate_field.safetensors", "duplicate field `dtype`"),
    ("duplicate_metadata.safetensors", "a metadata key appears twice"),
    ("unknown_field.safetensors", "unknown field `strides`"),
    ("unknown_dtype.safetensors", "unsupported safetensors content: tensor \"a\" has dtype \"F8_E4M3\""),
    ("list_entry.safetensors", "expected an object with dtype, shape and data_offsets"),
    ("metadata_number.safetensors", "expected a string"),
    ("shape_lies.safetensors", "tensor \"a\" needs 9 bytes, got 8"),
    ("shape_overflows.safetensors", "overflows the size of a tensor"),
    ("rank.safetensors", "more than 32 dimensions"),
    ("negative.safetensors", "invalid value: integer `-8`"),
    ("offset_too_large.safetensors", "invalid type: floating point"),
    ("truncated.safetensors", "the tensors need 8 bytes, got 7"),
    ("trailing.safetensors", "the tensors need 8 bytes, got 9"),
    ("header_truncated.safetensors", "the header is cut short"),
    ("header_length_lies.safetensors", "the header is cut short"),
    ("header_too_long.safetensors", "the safetensors header exceeds the limit of 16777216"),
    ("leading_space.safetensors", "the header does not begin with '{'"),
    ("text_after_header.safetensors", "trailing characters"),
    ("bool_two.safetensors", "tensor \"a\" has a boolean that is neither 0 nor 1 at index 0"),
    ("no_name.safetensors", "\"\" is not a usable tensor name"),
    ("empty_file.safetensors", "it is shorter than 8 bytes"),
];

fn read(name: &str, file: Bytes) -> Result<(), Error> {
    match name.rsplit_once('.') {
        Some((_, "npy")) => npy::read(file).map(drop),
        Some((_, "npz")) => {
            npz::read(file, npz::Limits { total_bytes_max: 1 << 30, ..Default::default() }).map(drop)
        }
        _ => safetensors::read(file).map(drop),
    }
}

#[test]
fn every_fault_is_refused_by_name() {
    let mut wrong = Vec::new();
    for (name, text) in REFUSALS {
        match read(name, load(&format!("bad/{name}"))) {
            Err(error) if error.to_string().contains(text) => {}
            other => wrong.push(format!("{name}: {other:?}, not {text:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_bad_file_is_listed() {
    let listed: BTreeSet<String> = REFUSALS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let kept: BTreeSet<String> = std::fs::read_dir(testdata().join("bad"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed, kept);
}
