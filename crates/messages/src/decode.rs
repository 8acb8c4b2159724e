//! Reading messages: protobuf and JSON, and the codec by which both ends of the gRPC transport do so.
//!
//! Both look at the bytes before they are decoded, so that what a message takes in memory is bounded by its length.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::lists::Listed;
use crate::{Error, scan, scan_json};

/// Reads a protobuf message.
///
/// # Errors
/// [`Error::TooLarge`] for lists beyond their bounds or out of proportion; [`Error::Bad`] for what is no such message.
pub fn decode<M: Message + Default + Listed>(bytes: &[u8]) -> Result<M, Error> {
    scan::check(bytes, M::lists().0)?;
    M::decode(bytes).map_err(|error| Error::bad("message", error))
}

/// Reads a JSON message, which must be an object.
///
/// # Errors
/// As [`decode`].
pub fn decode_json<M: DeserializeOwned + Listed>(text: &[u8]) -> Result<M, Error> {
    scan_json::check(text, M::lists().0)?;
    serde_json::from_slice(text).map_err(|error| Error::bad("message", error))
}

/// As tonic's codec for prost, with [`decode`] for what comes in.
#[derive(Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> BoundedCodec<T, U> {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Listed + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> BoundedDecoder<U> {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes one message of a stream.
#[derive(Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + Listed> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // A message arrives in one piece, so this is no copy; its bytes fields are slices of it.
        let bytes = buf.copy_to_bytes(buf.remaining());
        scan::check(&bytes, U::lists().0).map_err(|error| Status::invalid_argument(error.to_string()))?;
        U::decode(bytes).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bounds, v1};

    fn placed(name: &str, count: usize) -> v1::SubmitRequest {
        let tensor = v1::PlacedTensor { name: name.to_owned(), ..v1::PlacedTensor::default() };
        let manifest = Some(v1::Manifest { codec: "raw".to_owned(), tensors: vec![tensor; count] });
        v1::SubmitRequest {
            slots: vec![v1::SubmittedSlot { slot: "model".to_owned(), manifest }],
            ..v1::SubmitRequest::default()
        }
    }

    #[test]
    fn lists_of_next_to_nothing_are_refused_before_they_take_memory() {
        let hollow = placed("", 2_000).encode_to_vec();
        assert!(matches!(decode::<v1::SubmitRequest>(&hollow), Err(Error::TooLarge { .. })));
        let usual = placed("layers.1.weight", 2_000);
        assert_eq!(decode(&usual.encode_to_vec()), Ok(usual));
        let empty = v1::MissingRequest {
            digests: vec![String::new(); bounds::DIGESTS_MAX + 1],
            ..Default::default()
        };
        let refused = decode::<v1::MissingRequest>(&empty.encode_to_vec());
        assert_eq!(refused, Err(Error::TooLarge { field: "digests", limit: bounds::DIGESTS_MAX as u64 }));
    }

    #[test]
    fn a_shape_is_counted_packed_and_unpacked() {
        for (shape, is_taken) in [(vec![0x08; 32], true), (vec![0x08; 33], false)] {
            // Field 3 of the tensor: packed, then as single numbers.
            let packed = [&[0x1a, u8::try_from(shape.len()).unwrap()], shape.as_slice()].concat();
            let single: Vec<u8> = shape.iter().flat_map(|dim| [0x18, *dim]).collect();
            for mut tensor in [packed, single] {
                tensor.splice(..0, [0x0a, 20].into_iter().chain([b'w'; 20]));
                let manifest = [&[0x12, u8::try_from(tensor.len()).unwrap()], tensor.as_slice()].concat();
                assert_eq!(decode::<v1::Manifest>(&manifest).is_ok(), is_taken, "{manifest:?}");
            }
        }
    }

    #[test]
    fn what_is_no_protobuf_is_refused() {
        for bytes in [&[0x0b, 0x0c][..], &[0x0a], &[0x0a, 5, 1], &[0xff; 11], &[0x0d, 1, 2], &[0x09, 1]] {
            assert!(decode::<v1::BeatRequest>(bytes).is_err(), "{bytes:?}");
        }
        let deep = (0..200).fold(Vec::new(), |inner, _| {
            let value = v1::ConfigValue::decode(inner.as_slice()).unwrap_or_default();
            let kind = v1::config_value::Kind::List(v1::ConfigList { values: vec![value] });
            v1::ConfigValue { kind: Some(kind) }.encode_to_vec()
        });
        assert!(deep.len() < 500, "prost itself stops at its own depth");
    }

    #[test]
    fn texts_of_empty_objects_are_refused_and_braces_in_names_are_not() {
        let hollow = format!("{{\"slots\":[{}]}}", vec!["{}"; 2_000].join(","));
        assert!(matches!(decode_json::<v1::SubmitRequest>(hollow.as_bytes()), Err(Error::TooLarge { .. })));
        let braces = format!("{{\"reason\":\"{}\\\"{{\"}}", "{".repeat(2_000));
        assert!(decode_json::<v1::FailRequest>(braces.as_bytes()).is_ok());
        assert!(decode_json::<v1::FailRequest>(b"[\"task\",\"reason\"]").is_err());
        let usual = serde_json::to_vec(&placed("layers.1.weight", 2_000)).unwrap();
        assert_eq!(decode_json(&usual), Ok(placed("layers.1.weight", 2_000)));
    }
}
