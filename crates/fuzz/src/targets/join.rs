//! Answers of Flower's oldest clients, read piece by piece: a message with its tensors.

use bytes::Bytes;
use prost::Message as _;
use sheaf_tensor::{Dtype, TensorSpec, npy};
use sheaf_wire_flower::array::{ArrayReader, Fed};
use sheaf_wire_flower::frames::grpc_frame;
use sheaf_wire_flower::legacy::reply::{Part, Reply, ReplyReader};
use sheaf_wire_flower::proto::client_message::{
    DisconnectRes, EvaluateRes, FitRes, GetParametersRes, GetPropertiesRes, Msg,
};
use sheaf_wire_flower::proto::scalar::Scalar as Value;
use sheaf_wire_flower::proto::{ClientMessage, Parameters, Scalar, Status};

use crate::form::Form;
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `ReplyReader` and `ArrayReader`. The first byte chooses how long the pieces are. Tensors pass through; metrics become a map.
pub(super) const TARGET: Target = Target {
    name: "join",
    about: "answers of Flower's oldest clients, in pieces",
    form: Form::ChosenProtobuf,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 64, constant: 64 * 1024 },
    samples,
    body,
};

/// The lengths that pieces have.
const STEPS: [usize; 4] = [1, 7, 1_000, 64 * 1024];

fn body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let (step, message) = match super::choice(input, STEPS.len()) {
        Ok((chosen, message)) => (STEPS.get(chosen).copied().unwrap_or(1), message),
        Err(refused) => return refused,
    };
    let frame = grpc_frame(message).unwrap_or_default();
    let measured = probe.watch(|| read(&frame, step, &mut |_| {}));
    let mut tensors: Vec<Vec<u8>> = Vec::new();
    let again = read(&frame, step, &mut |part| match part {
        Part::Tensor(_) => tensors.push(Vec::new()),
        Part::Bytes(bytes) => {
            tensors.last_mut().unwrap_or_else(|| panic!("no tensor")).extend_from_slice(bytes)
        }
        _ => {}
    });
    assert_eq!(measured.as_ref().map(encoded), again.as_ref().map(encoded), "the same twice");
    let reply = match again {
        Ok(reply) => reply,
        Err(reason) => return Verdict::Refused(reason),
    };
    let decoded = ClientMessage::decode(message);
    let decoded = decoded.unwrap_or_else(|error| panic!("the protocol's own decoder refuses it: {error}"));
    let (stripped, own) = stripped(decoded.msg.unwrap_or_else(|| panic!("there is no answer in it")));
    assert_eq!(encoded(&reply), stripped.encode_to_vec(), "the same answer");
    assert_eq!(tensors, own, "the same tensors");
    let arrays = tensors.iter().filter(|file| check_array(file, step)).count();
    Verdict::Accepted(format!("{} tensors, {arrays} arrays", tensors.len()))
}

/// Reads a frame in pieces, and each tensor as an array as far as it is one.
fn read(frame: &Bytes, step: usize, sink: &mut dyn FnMut(&Part)) -> Result<Reply, String> {
    let mut reader = ReplyReader::new(1 << 30);
    for at in (0..frame.len()).step_by(step) {
        reader.feed(frame.slice(at..(at + step).min(frame.len())));
        while let Some(part) = reader.part().map_err(|error| error.to_string())? {
            sink(&part);
            if let Part::End(reply) = part {
                assert!(!reader.has_rest(), "a frame is one message");
                return Ok(*reply);
            }
        }
    }
    Err("the message does not end".to_owned())
}

/// Whether a tensor is an array; in pieces it is the same as at once.
fn check_array(file: &[u8], step: usize) -> bool {
    let whole = npy::read(Bytes::copy_from_slice(file));
    let pieces = array(file, step);
    if let Ok((dtype, shape, elements)) = &whole {
        let same = pieces.as_ref().map(|(d, s, e)| (d, s, e.as_slice()));
        assert_eq!(same, Some((dtype, shape, &elements[..])), "the same array");
    } else if let Some((dtype, _, _)) = &pieces {
        // Whether truth values are such is for the gate to say.
        assert_eq!(*dtype, Dtype::Bool, "an array in pieces that is none at once: {whole:?}");
    }
    whole.is_ok()
}

fn array(file: &[u8], step: usize) -> Option<(Dtype, sheaf_tensor::Shape, Vec<u8>)> {
    let mut reader = ArrayReader::default();
    let (mut found, mut elements) = (None, Vec::new());
    // At the end once more, for what came with the header.
    for piece in file.chunks(step).chain([&[][..]]) {
        match reader.feed(Bytes::copy_from_slice(piece)).ok()? {
            Fed::Head(head) => found = Some(head),
            Fed::Elements(next) => elements.extend_from_slice(&next),
            Fed::Columns(columns) => elements.extend_from_slice(&columns.turned().ok()?),
        }
    }
    reader.finish().ok()?;
    found.map(|head| (head.dtype, head.shape, elements))
}

fn encoded(reply: &Reply) -> Vec<u8> {
    let msg = match reply.clone() {
        Reply::Disconnect(res) => Msg::DisconnectRes(res),
        Reply::Properties(res) => Msg::GetPropertiesRes(res),
        Reply::Parameters(res) => Msg::GetParametersRes(res),
        Reply::Fit(res) => Msg::FitRes(res),
        Reply::Evaluate(res) => Msg::EvaluateRes(res),
    };
    ClientMessage { msg: Some(msg) }.encode_to_vec()
}

/// A message without its tensors, and those.
fn stripped(mut msg: Msg) -> (ClientMessage, Vec<Vec<u8>>) {
    let parameters = match &mut msg {
        Msg::FitRes(res) => Some(res.parameters.get_or_insert_default()),
        Msg::GetParametersRes(res) => Some(res.parameters.get_or_insert_default()),
        _ => None,
    };
    let tensors = parameters.map(|parameters| std::mem::take(&mut parameters.tensors)).unwrap_or_default();
    let tensors = tensors.into_iter().map(|tensor| tensor.to_vec()).collect();
    (ClientMessage { msg: Some(msg) }, tensors)
}

fn samples() -> Vec<Vec<u8>> {
    let status = || Some(Status { code: 0, message: "Success".to_owned() });
    let scalar = |value| Scalar { scalar: Some(value) };
    let metrics = || {
        [("half".to_owned(), scalar(Value::Double(0.5))), ("n".to_owned(), scalar(Value::Sint64(-3)))].into()
    };
    let arrays =
        [(Dtype::F32, vec![3, 5]), (Dtype::F64, vec![]), (Dtype::Bool, vec![2]), (Dtype::I16, vec![0, 2])];
    let files = arrays.into_iter().filter_map(|(dtype, dims)| {
        let spec = TensorSpec::new("x", dtype, dims).ok()?;
        let mut file = Vec::new();
        npy::write(&spec, &vec![0; usize::try_from(spec.byte_len()).ok()?], &mut file).ok()?;
        Some(Bytes::from(file))
    });
    let parameters = Some(Parameters { tensors: files.collect(), tensor_type: "numpy.ndarray".to_owned() });
    let answers = [
        Msg::DisconnectRes(DisconnectRes { reason: 4 }),
        Msg::GetPropertiesRes(GetPropertiesRes { status: status(), properties: metrics() }),
        Msg::GetParametersRes(GetParametersRes { status: status(), parameters: parameters.clone() }),
        Msg::FitRes(FitRes { status: status(), parameters, num_examples: 8, metrics: metrics() }),
        Msg::EvaluateRes(EvaluateRes { status: status(), loss: 0.5, num_examples: 4, metrics: metrics() }),
    ];
    let encoded = answers.into_iter().enumerate().map(|(idx, msg)| {
        super::chosen(idx % STEPS.len(), &ClientMessage { msg: Some(msg) }.encode_to_vec())
    });
    encoded.collect()
}
