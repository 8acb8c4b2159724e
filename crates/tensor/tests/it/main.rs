//! Tests of the containers against files of other programs, and by properties.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bad;
mod golden;
mod properties;

use std::path::PathBuf;

use bytes::Bytes;
use sheaf_tensor::{Dtype, Tensor, TensorSpec};

/// Where the files described in `testdata/README.md` are.
fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn load(name: &str) -> Bytes {
    Bytes::from(std::fs::read(testdata().join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// The values `testdata/README.md` gives to an array of `count` elements.
fn values(dtype: Dtype, count: u32) -> Vec<f64> {
    (0..count)
        .map(|i| match dtype {
            Dtype::Bool => f64::from(i % 2),
            _ if dtype.is_float() => (f64::from(i) - 2.0) / 2.0,
            Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => f64::from(i) - 2.0,
            _ => f64::from(i),
        })
        .collect()
}

/// A tensor of those values.
fn tensor(name: &str, dtype: Dtype, dims: &[u64]) -> Tensor {
    let spec = TensorSpec::new(name, dtype, dims).unwrap();
    let count = u32::try_from(spec.shape.num_elements()).unwrap();
    Tensor::from_f64(spec, &values(dtype, count)).unwrap()
}
