//! The plan's pipeline as the codec that versions are told through.

use bytes::Bytes;
use sheaf_coordinator::Coder;
use sheaf_tensor::{Tensor, TensorSpec};

use crate::tensors::{Decoder, Head, Limits, Pipeline, encode};

/// Tells tensors through the pipeline of one plan.
#[derive(Debug)]
pub(crate) struct PlanCoder(pub(crate) Pipeline);

impl Coder for PlanCoder {
    fn told(&self, codec: &str, spec: &TensorSpec, bytes: Bytes, seed: u64) -> Result<Vec<u8>, String> {
        let pipeline = self.0;
        if codec != pipeline.name() {
            return Err(format!("the plan's pipeline is {}, not {codec}", pipeline.name()));
        }
        let tensor = Tensor::new(spec.clone(), bytes).map_err(|error| error.to_string())?;
        let encoded = encode(pipeline, &tensor, seed).map_err(|error| error.to_string())?;
        let limits =
            Limits { tensor_bytes_max: u64::MAX, unfolded_bytes_max: u64::MAX, metadata_len_max: u64::MAX };
        let head = Head { name: spec.name.clone(), metadata: encoded.metadata, ..Head::default() };
        let mut decoder = Decoder::new(pipeline, &head, &limits).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        decoder.push(&encoded.bytes, &mut out).map_err(|error| error.to_string())?;
        decoder.finish(&mut out).map_err(|error| error.to_string())?;
        Ok(out)
    }
}
