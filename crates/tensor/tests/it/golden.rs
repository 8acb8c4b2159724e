//! Files made by NumPy and by the safetensors package: values, order, and the same bytes when written again.

use std::io::Cursor;

use bytes::Bytes;
use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec, npy, npz, safetensors};

use crate::{load, tensor, testdata};

fn read_npy(name: &str) -> Tensor {
    let (dtype, shape, bytes) = npy::read(load(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    Tensor::new(TensorSpec { name: name.to_owned(), dtype, shape }, bytes).unwrap()
}

fn npy_dtypes() -> impl Iterator<Item = Dtype> {
    Dtype::ALL.into_iter().filter(|dtype| *dtype != Dtype::Bf16)
}

#[test]
fn numpy_arrays_have_their_values_in_every_layout() {
    for dtype in npy_dtypes() {
        let layouts: &[&str] = if dtype.size() > 1 { &["c", "fortran", "big"] } else { &["c", "fortran"] };
        for layout in layouts {
            let name = format!("{dtype}_{layout}.npy");
            assert_eq!(read_npy(&name), tensor(&name, dtype, &[2, 3]));
        }
    }
    let cases: [(&str, Dtype, &[u64]); 5] = [
        ("f64_fortran_big_3d.npy", Dtype::F64, &[2, 3, 4]),
        ("f32_empty.npy", Dtype::F32, &[0, 3]),
        ("i64_1d.npy", Dtype::I64, &[5]),
        ("f32_version2.npy", Dtype::F32, &[2, 3]),
        ("f32_version3.npy", Dtype::F32, &[2, 3]),
    ];
    for (name, dtype, dims) in cases {
        assert_eq!(read_npy(name), tensor(name, dtype, dims));
    }
    let scalar = read_npy("f32_0d.npy");
    assert_eq!((scalar.spec.shape.dims(), scalar.to_f64().unwrap()), ([].as_slice(), vec![-1.5]));
}

#[test]
fn what_is_written_is_what_numpy_writes() {
    let others = ["f32_0d.npy", "f32_empty.npy", "i64_1d.npy"].map(str::to_owned);
    for name in npy_dtypes().map(|dtype| format!("{dtype}_c.npy")).chain(others) {
        let read = read_npy(&name);
        let mut written = Vec::new();
        npy::write(&read.spec, &read.bytes, &mut written).unwrap();
        assert_eq!(written, load(&name), "{name}");
    }
}

#[test]
fn an_npy_array_is_a_slice_of_its_file() {
    let file = load("f32_c.npy");
    let (_, _, bytes) = npy::read(file.clone()).unwrap();
    assert_eq!(bytes.as_ptr(), file[128..].as_ptr());
}

#[test]
fn npy_has_no_bfloat16() {
    let tensor = tensor("layer/weight", Dtype::Bf16, &[2]);
    let error = npy::write(&tensor.spec, &tensor.bytes, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("\"layer/weight\"") && error.contains("use safetensors"), "{error}");
    let error = npz::write(&ParamSet::new(vec![tensor]).unwrap(), Cursor::new(Vec::new())).unwrap_err();
    assert!(error.to_string().contains("\"layer/weight\""), "{error}");
}

fn npz_arrays() -> ParamSet {
    ParamSet::new(vec![
        tensor("layers/0/weight", Dtype::F32, &[2, 3]),
        tensor("layers/0/bias", Dtype::F64, &[3]),
        tensor("größe", Dtype::I64, &[2, 2]),
        tensor("mask", Dtype::Bool, &[4]),
    ])
    .unwrap()
}

#[test]
fn numpy_archives_have_their_arrays_in_order() {
    for name in ["stored.npz", "deflated.npz"] {
        assert_eq!(npz::read(load(name), npz::Limits::default()), Ok(npz_arrays()), "{name}");
    }
}

#[test]
fn a_stored_npz_entry_is_a_slice_of_its_file() {
    let file = load("stored.npz");
    let span = file.as_ptr_range();
    for tensor in &npz::read(file, npz::Limits::default()).unwrap() {
        assert!(span.contains(&tensor.bytes.as_ptr()), "{tensor:?}");
    }
}

#[test]
fn archives_are_written_the_same_every_time() {
    let write = || {
        let mut file = Cursor::new(Vec::new());
        npz::write(&npz_arrays(), &mut file).unwrap();
        file.into_inner()
    };
    let file = write();
    assert_eq!(file, write());
    assert_eq!(file, load("written.npz"));
    assert_eq!(npz::read(Bytes::from(file), npz::Limits::default()), Ok(npz_arrays()));
}

#[test]
fn a_writer_notices_what_is_missing_or_too_much() {
    let spec = TensorSpec::new("w", Dtype::U8, [4]).unwrap();
    let started = || {
        let mut writer = npz::Writer::new(Cursor::new(Vec::new()));
        writer.start(&spec).unwrap();
        writer
    };
    let wrong_length = |got| Err(sheaf_tensor::Error::WrongLength { name: "w".into(), expected: 4, got });
    assert_eq!(started().write(&[0; 5]), wrong_length(5));
    let mut writer = started();
    writer.write(&[0; 3]).unwrap();
    assert_eq!(writer.finish().map(drop), wrong_length(3));
    let mut writer = started();
    writer.write(&[0; 4]).unwrap();
    assert_eq!(writer.start(&spec), Err(sheaf_tensor::Error::DuplicateName { name: "w".into() }));
}

#[test]
fn archives_beyond_their_limits_are_refused() {
    let limits = npz::Limits::default();
    let cases = [
        (npz::Limits { entries_max: 3, ..limits }, "number of npz entries exceeds the limit of 3"),
        (
            npz::Limits { total_bytes_max: 595, ..limits },
            "decompressed size of the npz file exceeds the limit of 595",
        ),
    ];
    for (limits, text) in cases {
        for name in ["stored.npz", "deflated.npz"] {
            let error = npz::read(load(name), limits).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
    let exact = npz::Limits { entries_max: 4, total_bytes_max: 596, ..limits };
    assert!(npz::read(load("stored.npz"), exact).is_ok());
}

#[test]
fn an_archive_of_little_but_zeros_is_refused() {
    let zeros = vec![0; 70 * 1024 * 1024];
    let spec = TensorSpec::new("zeros", Dtype::U8, [zeros.len() as u64]).unwrap();
    let mut entry = npy::header(&spec).unwrap();
    entry.extend_from_slice(&zeros);

    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default());
    archive.start_file("zeros.npy", options).unwrap();
    std::io::Write::write_all(&mut archive, &entry).unwrap();
    let file = Bytes::from(archive.finish().unwrap().into_inner());

    let error = npz::read(file.clone(), npz::Limits::default()).unwrap_err();
    assert!(matches!(error, sheaf_tensor::Error::TooLarge { .. }), "{error}");
    let lenient = npz::Limits { ratio_max: 2000, ..npz::Limits::default() };
    assert_eq!(npz::read(file, lenient).unwrap().byte_len(), zeros.len() as u64);
}

#[test]
fn safetensors_of_every_dtype_have_their_values() {
    let file = load("all.safetensors");
    let (params, metadata) = safetensors::read_with_metadata(file.clone()).unwrap();
    assert_eq!(params.len(), 15);
    for dtype in Dtype::ALL {
        assert_eq!(params.get(dtype.name()), Some(&tensor(dtype.name(), dtype, &[2, 3])));
    }
    assert_eq!(params.get("scalar").unwrap().to_f64().unwrap(), [-1.5]);
    assert_eq!(params.get("empty").unwrap().spec.shape.dims(), [0, 3]);
    assert_eq!(metadata.into_iter().collect::<Vec<_>>(), [("format".to_owned(), "np".to_owned())]);

    let mut position = file.len() - usize::try_from(params.byte_len()).unwrap();
    for tensor in &params {
        assert_eq!(tensor.bytes.as_ptr(), file[position..].as_ptr(), "{tensor:?}");
        position += tensor.bytes.len();
    }
}

#[test]
fn safetensors_written_again_are_the_same_bytes() {
    let file = load("all.safetensors");
    let (params, metadata) = safetensors::read_with_metadata(file.clone()).unwrap();
    let mut written = Vec::new();
    safetensors::write(&params, &metadata, &mut written).unwrap();
    assert_eq!(written, file);
}

#[test]
fn a_header_can_be_read_before_the_tensors_come() {
    let file = load("all.safetensors");
    let whole = safetensors::read_header(&file).unwrap();
    assert_eq!(whole.data_start + whole.data_len, file.len() as u64);
    let start = usize::try_from(whole.data_start).unwrap();
    assert_eq!(safetensors::read_header(&file[..start]), Ok(whole));
    assert!(safetensors::read_header(&file[..start - 1]).is_err());
}

#[test]
fn every_file_of_the_directory_is_used() {
    let used = |name: &str| {
        let of_dtype = npy_dtypes().any(|dtype| {
            ["c", "fortran", "big"].iter().any(|layout| format!("{dtype}_{layout}.npy") == name)
        });
        of_dtype || include_str!("golden.rs").contains(&format!("\"{name}\""))
    };
    for entry in std::fs::read_dir(testdata()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(used(&name) || ["README.md", "make.py", "bad"].contains(&name.as_str()), "{name}");
    }
}
