//! The tensor containers: `.npy`, `.npz`, safetensors.

use std::io::Cursor;

use bytes::Bytes;
use sheaf_tensor::{Dtype, Error, ParamSet, Tensor, TensorSpec, npy, npz, safetensors};

use crate::form::Form;
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `npy::read`. An array in Fortran order or big-endian is copied twice; everything else is a slice of the input.
pub(super) const NPY: Target = Target {
    name: "npy",
    about: "a .npy array",
    form: Form::Npy,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 4, constant: 16 * 1024 },
    samples: npy_samples,
    body: npy_body,
};

/// `npz::read` under small limits. Beyond what may unfold, an entry costs its record in the directory.
pub(super) const NPZ: Target = Target {
    name: "npz",
    about: "a .npz archive of .npy entries",
    form: Form::Zip,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 24, constant: 3 * NPZ_TOTAL_BYTES_MAX },
    samples: npz_samples,
    body: npz_body,
};

/// `safetensors::read`. The header is parsed, sorted and checked; the tensors are slices of the input.
pub(super) const SAFETENSORS: Target = Target {
    name: "safetensors",
    about: "a safetensors file",
    form: Form::Safetensors,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 24, constant: 16 * 1024 },
    samples: safetensors_samples,
    body: safetensors_body,
};

const NPZ_TOTAL_BYTES_MAX: u64 = 1024 * 1024;

fn npy_body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let file = Bytes::copy_from_slice(input);
    let (dtype, shape, bytes) = match probe.watch(|| npy::read(file)) {
        Ok(array) => array,
        Err(error) => return Verdict::refused(error),
    };
    let spec = TensorSpec { name: "array".to_owned(), dtype, shape };
    assert_eq!(bytes.len() as u64, spec.byte_len(), "as many bytes as the shape says");
    let mut again = Vec::new();
    let written = npy::write(&spec, &bytes, &mut again);
    assert_eq!(written, Ok(()), "what was read can be written");
    let (again_dtype, again_shape, again_bytes) =
        npy::read(Bytes::from(again)).unwrap_or_else(|error| panic!("what was written is refused: {error}"));
    assert_eq!((spec.dtype, spec.shape, bytes), (again_dtype, again_shape.clone(), again_bytes));
    Verdict::Accepted(format!("{dtype} of rank {}", again_shape.dims().len()))
}

fn npz_body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let limits = npz::Limits { entries_max: 1_024, total_bytes_max: NPZ_TOTAL_BYTES_MAX, ratio_max: 200 };
    let file = Bytes::copy_from_slice(input);
    let params = match probe.watch(|| npz::read(file, limits)) {
        Ok(params) => params,
        Err(error) => return Verdict::refused(error),
    };
    assert!(params.len() <= 1_024 && params.byte_len() <= NPZ_TOTAL_BYTES_MAX, "beyond the limits");
    let mut again = Cursor::new(Vec::new());
    let written = npz::write(&params, &mut again);
    assert_eq!(written, Ok(()), "what was read can be written");
    // What is written is longer than what was read deflated, so the limits are wider.
    assert_eq!(npz::read(again.into_inner().into(), npz::Limits::default()), Ok(params.clone()));
    // A data set is two of the arrays; refusing is as good an answer as reading.
    let set = sheaf_client::data::Dataset::from_npz(Bytes::copy_from_slice(input), &Default::default());
    let set = set.map_or_else(|error| error.to_string(), |set| format!("{} rows", set.len()));
    Verdict::Accepted(format!("{} tensors, {set}", params.len()))
}

fn safetensors_body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let file = Bytes::copy_from_slice(input);
    let (params, metadata) = match probe.watch(|| safetensors::read_with_metadata(file)) {
        Ok(read) => read,
        Err(error) => return Verdict::refused(error),
    };
    let header = safetensors::read_header(input);
    assert_eq!(header.map(|header| header.specs), Ok(params.specs()), "the header alone says the same");
    let mut again = Vec::new();
    let written = safetensors::write(&params, &metadata, &mut again);
    assert_eq!(written, Ok(()), "what was read can be written");
    let shape = format!("{} tensors, {} words", params.len(), metadata.len());
    assert_eq!(safetensors::read_with_metadata(Bytes::from(again)), Ok((params, metadata)));
    Verdict::Accepted(shape)
}

fn tensors() -> Result<Vec<Tensor>, Error> {
    Dtype::ALL
        .into_iter()
        .enumerate()
        .map(|(idx, dtype)| {
            let dims: Vec<u64> = [2, 1, 3].into_iter().take(idx % 4).collect();
            let spec = TensorSpec::new(format!("layer.{idx}"), dtype, dims)?;
            let count = usize::try_from(spec.shape.num_elements()).unwrap_or(0);
            Tensor::from_f64(spec, &vec![1.0; count])
        })
        .collect()
}

fn npy_samples() -> Vec<Vec<u8>> {
    let tensors = tensors().unwrap_or_default();
    let written = tensors.iter().filter_map(|tensor| {
        let mut file = Vec::new();
        npy::write(&tensor.spec, &tensor.bytes, &mut file).ok().map(|()| file)
    });
    written.collect()
}

fn npz_samples() -> Vec<Vec<u8>> {
    let tensors = tensors().unwrap_or_default();
    let sets = [0..0, 0..1, 2..6].map(|range| tensors.get(range).unwrap_or_default().to_vec());
    let written = sets.into_iter().filter_map(|set| {
        let mut file = Cursor::new(Vec::new());
        npz::write(&ParamSet::new(set).ok()?, &mut file).ok()?;
        Some(file.into_inner())
    });
    written.collect()
}

fn safetensors_samples() -> Vec<Vec<u8>> {
    let tensors = tensors().unwrap_or_default();
    let words = safetensors::Metadata::from([("format".to_owned(), "pt".to_owned())]);
    let sets = [0..0, 0..1, 0..13].map(|range| tensors.get(range).unwrap_or_default().to_vec());
    let written = sets.into_iter().filter_map(|set| {
        let mut file = Vec::new();
        safetensors::write(&ParamSet::new(set).ok()?, &words, &mut file).ok()?;
        Some(file)
    });
    written.collect()
}
