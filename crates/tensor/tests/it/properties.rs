//! Properties: no bytes make a decoder panic, and what is written is read back.

use std::io::Cursor;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use sheaf_tensor::safetensors::Metadata;
use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec, element, npy, npz, raw, safetensors};

use crate::load;

/// Small enough that a decoder which believes a claim of more is found out.
const LIMITS: npz::Limits = npz::Limits { entries_max: 64, total_bytes_max: 1 << 20, ratio_max: 100 };

fn dtype() -> impl Strategy<Value = Dtype> {
    prop::sample::select(Dtype::ALL.to_vec())
}

fn numpy_dtype() -> impl Strategy<Value = Dtype> {
    dtype().prop_filter("NumPy has no bfloat16", |dtype| *dtype != Dtype::Bf16)
}

fn tensor(dtype: impl Strategy<Value = Dtype>) -> impl Strategy<Value = Tensor> {
    (dtype, vec(0u64..4, 0..4), "[a-z/\\\\. \"é]{1,12}").prop_flat_map(|(dtype, dims, name)| {
        let spec = TensorSpec::new(name, dtype, dims).unwrap();
        let len = usize::try_from(spec.byte_len()).unwrap();
        let byte = if dtype == Dtype::Bool { 0..=1u8 } else { 0..=255u8 };
        vec(byte, len).prop_map(move |bytes| Tensor::new(spec.clone(), Bytes::from(bytes)).unwrap())
    })
}

fn params(dtype: impl Strategy<Value = Dtype> + Clone) -> impl Strategy<Value = ParamSet> {
    vec(tensor(dtype), 0..6).prop_map(|mut tensors| {
        for (position, tensor) in tensors.iter_mut().enumerate() {
            tensor.spec.name.push_str(&position.to_string());
        }
        ParamSet::new(tensors).unwrap()
    })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    prop::collection::btree_map("\\PC{0,8}", "(?s).{0,8}", 0..4)
}

/// Replaces, inserts or removes bytes at some places.
fn mutated(name: &'static str) -> impl Strategy<Value = Bytes> {
    let file = load(name).to_vec();
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0u8..3);
    vec(edit, 1..6).prop_map(move |edits| {
        let mut file = file.clone();
        for (place, byte, kind) in edits {
            let place = place.index(file.len());
            match kind {
                0 => file[place] = byte,
                1 => file.insert(place, byte),
                _ => drop(file.remove(place)),
            }
        }
        Bytes::from(file)
    })
}

/// Reads `file` as everything. What is accepted must be readable again after it is written.
fn read_as_everything(file: &Bytes) {
    if let Ok((dtype, shape, bytes)) = npy::read(file.clone()) {
        let spec = TensorSpec { name: "x".to_owned(), dtype, shape };
        assert_eq!(bytes.len() as u64, spec.byte_len());
    }
    if let Ok(params) = npz::read(file.clone(), LIMITS) {
        let mut again = Cursor::new(Vec::new());
        npz::write(&params, &mut again).unwrap();
        assert_eq!(npz::read(Bytes::from(again.into_inner()), npz::Limits::default()), Ok(params));
    }
    if let Ok((params, metadata)) = safetensors::read_with_metadata(file.clone()) {
        let mut again = Vec::new();
        safetensors::write(&params, &metadata, &mut again).unwrap();
        assert_eq!(safetensors::read_with_metadata(Bytes::from(again)), Ok((params, metadata)));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        read_as_everything(&Bytes::from(bytes));
    }

    #[test]
    fn arbitrary_npy_headers_never_panic(
        text in "[{}()\\[\\]':, <>|fiuO0-9]{0,80}|\\{'descr': '[<>|][fiub][0-9]', 'fortran_order': (True|False), 'shape': \\([0-9, ]{0,30}\\), \\}",
        data in vec(any::<u8>(), 0..100),
    ) {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
        file.extend_from_slice(text.as_bytes());
        file.extend_from_slice(&data);
        read_as_everything(&Bytes::from(file));
    }

    #[test]
    fn arbitrary_safetensors_headers_never_panic(
        text in "\\{[{}\\[\\]\":,0-9a-z_]{0,80}|\\{\"a\":\\{\"dtype\":\"[FIU](8|16|32)\",\"shape\":\\[[0-9]{0,20}\\],\"data_offsets\":\\[[0-9]{1,2},[0-9]{1,20}\\]\\}\\}",
        data in vec(any::<u8>(), 0..100),
    ) {
        let mut file = (text.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(text.as_bytes());
        file.extend_from_slice(&data);
        read_as_everything(&Bytes::from(file));
    }

    #[test]
    fn mutated_files_never_panic(
        file in prop_oneof![
            mutated("f64_fortran_big_3d.npy"), mutated("f32_version3.npy"), mutated("bool_c.npy"),
            mutated("stored.npz"), mutated("deflated.npz"), mutated("all.safetensors"),
        ],
    ) {
        read_as_everything(&file);
    }

    #[test]
    fn npy_round_trips(tensor in tensor(numpy_dtype())) {
        let mut file = Vec::new();
        npy::write(&tensor.spec, &tensor.bytes, &mut file).unwrap();
        let (dtype, shape, bytes) = npy::read(Bytes::from(file)).unwrap();
        prop_assert_eq!((dtype, shape, bytes), (tensor.spec.dtype, tensor.spec.shape, tensor.bytes));
    }

    #[test]
    fn npz_round_trips(params in params(numpy_dtype().boxed())) {
        let mut file = Cursor::new(Vec::new());
        npz::write(&params, &mut file).unwrap();
        prop_assert_eq!(npz::read(Bytes::from(file.into_inner()), LIMITS).unwrap(), params);
    }

    #[test]
    fn safetensors_round_trip(params in params(dtype().boxed()), metadata in metadata()) {
        let mut file = Vec::new();
        safetensors::write(&params, &metadata, &mut file).unwrap();
        prop_assert_eq!((file.len() as u64 - params.byte_len()) % 8, 0);
        prop_assert_eq!(safetensors::read_with_metadata(Bytes::from(file)).unwrap(), (params, metadata));
    }

    #[test]
    fn the_upstream_crate_reads_the_same(params in params(dtype().boxed())) {
        let mut file = Vec::new();
        safetensors::write(&params, &Metadata::new(), &mut file).unwrap();
        let upstream = ::safetensors::SafeTensors::deserialize(&file).unwrap();
        prop_assert_eq!(upstream.len(), params.len());
        for tensor in &params {
            let view = upstream.tensor(tensor.name()).unwrap();
            let dims: Vec<u64> = view.shape().iter().map(|dim| *dim as u64).collect();
            prop_assert_eq!(view.data(), &tensor.bytes[..]);
            prop_assert_eq!(dims, tensor.spec.shape.dims());
            prop_assert_eq!(view.dtype().to_string().to_lowercase(), tensor.spec.dtype.name());
        }
    }

    #[test]
    fn what_we_accept_the_upstream_crate_accepts(file in mutated("all.safetensors")) {
        if safetensors::read(file.clone()).is_ok() {
            prop_assert!(::safetensors::SafeTensors::deserialize(&file).is_ok());
        }
    }

    #[test]
    fn raw_round_trips_without_a_copy(params in params(dtype().boxed())) {
        let stream = Bytes::from(raw::join(&params));
        let span = stream.as_ptr_range();
        let again = raw::split(&params.specs(), stream.clone()).unwrap();
        for tensor in again.iter().filter(|tensor| !tensor.bytes.is_empty()) {
            prop_assert!(span.contains(&tensor.bytes.as_ptr()));
        }
        prop_assert_eq!(&again, &params);
        let mut written = Vec::new();
        raw::write(&params, &mut written).unwrap();
        prop_assert_eq!(&written, &stream);
        let longer = [&stream[..], &[0]].concat();
        prop_assert!(raw::split(&params.specs(), Bytes::from(longer)).is_err());
        if !stream.is_empty() {
            prop_assert!(raw::split(&params.specs(), stream.slice(1..)).is_err());
        }
    }

    #[test]
    fn conversions_ignore_alignment(dtype in dtype(), bytes in vec(any::<u8>(), 64), shift in 0usize..8) {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(&bytes);
        let (mut plain, mut other) = (vec![0.0; 64 / dtype.size()], vec![0.0; 64 / dtype.size()]);
        element::to_f64(dtype, &bytes, &mut plain).unwrap();
        element::to_f64(dtype, &shifted[shift..], &mut other).unwrap();
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&plain), bits(&other));
    }
}
