//! What a client is told: small messages whole, and those with parameters as heads between which the elements are streamed.
//!
//! Pure. Lengths are known before the first byte, so nothing of a model is held to frame it. Source: `transport.proto`; each tensor
//! is one `.npy` file, as upstream's `ndarrays_to_parameters` makes it.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use sheaf_tensor::{TensorSpec, npy};

use crate::frames::{FrameError, grpc_frame, grpc_prefix};
use crate::proto::server_message::{FitIns, GetParametersIns, GetPropertiesIns, Msg, ReconnectIns};
use crate::proto::{Scalar, ServerMessage};

/// The only type of tensors there is.
pub(crate) const TENSOR_TYPE: &str = "numpy.ndarray";

/// Why a model cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    #[error(transparent)]
    Npy(#[from] sheaf_tensor::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(
        "the model makes a message of {len} bytes, and messages have at most {max} (--grpc-max-message-length)"
    )]
    TooLong { len: u64, max: u64 },
}

/// A message with parameters: the elements of tensor `i` stand behind `heads[i]`, and `tail` behind all.
#[derive(Debug)]
pub(crate) struct WithParameters {
    pub(crate) heads: Vec<(Bytes, u64)>,
    pub(crate) tail: Bytes,
}

/// Which message with parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Fit,
    Evaluate,
}

/// The client is to leave, and to come back after so many seconds if there are any.
pub(crate) fn reconnect(seconds: i64) -> Result<Bytes, FrameError> {
    framed(Msg::ReconnectIns(ReconnectIns { seconds }))
}

pub(crate) fn properties_wanted() -> Result<Bytes, FrameError> {
    framed(Msg::GetPropertiesIns(GetPropertiesIns::default()))
}

pub(crate) fn parameters_wanted(config: BTreeMap<String, Scalar>) -> Result<Bytes, FrameError> {
    framed(Msg::GetParametersIns(GetParametersIns { config }))
}

fn framed(msg: Msg) -> Result<Bytes, FrameError> {
    grpc_frame(&ServerMessage { msg: Some(msg) }.encode_to_vec())
}

/// Frames a model of `specs`.
pub(crate) fn with_parameters<'a>(
    order: Order,
    specs: impl Iterator<Item = &'a TensorSpec>,
    config: BTreeMap<String, Scalar>,
    message_len_max: u64,
) -> Result<WithParameters, OrderError> {
    let mut heads = Vec::new();
    let mut parameters_len = 0u64;
    for spec in specs {
        let header = npy::header(spec)?;
        let len = (header.len() as u64).saturating_add(spec.byte_len());
        let mut head = BytesMut::with_capacity(header.len() + KEY_AND_LEN_MAX);
        field(1, len, &mut head);
        head.put_slice(&header);
        parameters_len = parameters_len.saturating_add(head.len() as u64).saturating_add(spec.byte_len());
        heads.push((head, spec.byte_len()));
    }
    let mut tail = BytesMut::new();
    field(2, TENSOR_TYPE.len() as u64, &mut tail);
    tail.put_slice(TENSOR_TYPE.as_bytes());
    parameters_len = parameters_len.saturating_add(tail.len() as u64);
    // Both messages have the settings in the same place.
    let settings = FitIns { parameters: None, config }.encode_to_vec();
    tail.put_slice(&settings);

    let inner_len = around(parameters_len).saturating_add(settings.len() as u64);
    let len = around(inner_len);
    if len > message_len_max {
        return Err(OrderError::TooLong { len, max: message_len_max });
    }
    let mut start = BytesMut::from(&grpc_prefix(len)?[..]);
    field(if order == Order::Fit { 4 } else { 5 }, inner_len, &mut start);
    field(1, parameters_len, &mut start);
    let Some((first, _)) = heads.first_mut() else {
        start.unsplit(tail);
        return Ok(WithParameters { heads: Vec::new(), tail: start.freeze() });
    };
    start.unsplit(std::mem::take(first));
    *first = start;
    let heads = heads.into_iter().map(|(head, len)| (head.freeze(), len)).collect();
    Ok(WithParameters { heads, tail: tail.freeze() })
}

/// The most bytes of a field's number and length.
const KEY_AND_LEN_MAX: usize = 11;

/// Writes number and length of a field.
fn field(number: u32, len: u64, out: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(len, out);
}

/// The length of a field with a small number around so many bytes.
fn around(len: u64) -> u64 {
    len.saturating_add(1 + encoded_len_varint(len) as u64)
}

#[cfg(test)]
mod tests {
    use sheaf_tensor::Dtype;

    use super::*;
    use crate::proto::scalar::Scalar as Value;

    fn joined(specs: &[TensorSpec], order: Order) -> Vec<u8> {
        let config = BTreeMap::from([("epochs".to_owned(), Scalar { scalar: Some(Value::Sint64(2)) })]);
        let made = with_parameters(order, specs.iter(), config, 1 << 20).unwrap();
        let mut message = Vec::new();
        for (head, len) in &made.heads {
            message.extend_from_slice(head);
            message.extend((0..*len).map(|idx| u8::try_from(idx % 251).unwrap()));
        }
        message.extend_from_slice(&made.tail);
        message
    }

    #[test]
    fn what_is_streamed_is_the_message() {
        let specs = [
            TensorSpec::new("0", Dtype::F32, [3, 50]).unwrap(),
            TensorSpec::new("1", Dtype::F16, []).unwrap(),
            TensorSpec::new("2", Dtype::I64, [0, 2]).unwrap(),
        ];
        for (specs, order) in [(&specs[..], Order::Fit), (&specs[..], Order::Evaluate), (&[], Order::Fit)] {
            let message = joined(specs, order);
            let (prefix, body) = message.split_at(5);
            assert_eq!(prefix, grpc_prefix(body.len() as u64).unwrap());
            let told = ServerMessage::decode(body).unwrap().msg.unwrap();
            let (parameters, config) = match (order, told) {
                (Order::Fit, Msg::FitIns(ins)) => (ins.parameters.unwrap(), ins.config),
                (Order::Evaluate, Msg::EvaluateIns(ins)) => (ins.parameters.unwrap(), ins.config),
                (_, other) => panic!("{other:?}"),
            };
            assert_eq!((parameters.tensor_type.as_str(), config.len()), (TENSOR_TYPE, 1));
            assert_eq!(parameters.tensors.len(), specs.len());
            for (file, spec) in parameters.tensors.into_iter().zip(specs) {
                let (dtype, shape, _) = npy::read(file).unwrap();
                assert_eq!((dtype, &shape), (spec.dtype, &spec.shape));
            }
        }
    }

    #[test]
    fn a_model_beyond_the_bound_is_refused_with_both_numbers() {
        let specs = [TensorSpec::new("0", Dtype::F64, [1000]).unwrap()];
        let error = with_parameters(Order::Fit, specs.iter(), BTreeMap::new(), 8000).unwrap_err();
        assert!(error.to_string().contains("8000") && error.to_string().contains("81"), "{error}");
    }
}
