//! What Flower's peers send as bodies: objects as they are pushed, their headers, messages with their trees, and bundles.

use bytes::Bytes;
use prost::Message;
use sheaf_domain::{Digest, RunId};
use sheaf_wire_flower::frames::UnaryFrame;
use sheaf_wire_flower::object::ObjectCheck;
use sheaf_wire_flower::push::{Head, Part, PushReader, Tail};
use sheaf_wire_flower::{check_letters, fab, letters_of, proto};

use crate::form::Form;
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `PushReader`, and `UnaryFrame` before it. The first byte chooses how long the pieces are, and whether there is a frame.
pub(super) const PUSH: Target = Target {
    name: "push",
    about: "an object that is pushed, read piece by piece",
    form: Form::ChosenProtobuf,
    len_max: 16 * 1024,
    ceiling: Ceiling { per_byte: 128, constant: 64 * 1024 },
    samples: push_samples,
    body: push,
};

/// `ObjectCheck`. The first byte chooses how long the pieces are; the children are those that the header names.
pub(super) const OBJECT: Target = Target {
    name: "object",
    about: "the header of an object",
    form: Form::ChosenText(crate::form::OBJECT),
    len_max: 16 * 1024,
    ceiling: Ceiling { per_byte: 8, constant: 64 * 1024 },
    samples: object_samples,
    body: object,
};

/// The messages that SuperNodes, ServerApps and the command send, and what letters they are. The first byte chooses.
pub(super) const FLOWER: Target = Target {
    name: "flower",
    about: "the messages of Flower's peers, and the letters and trees in them",
    form: Form::ChosenProtobuf,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 256, constant: 64 * 1024 },
    samples: flower_samples,
    body: flower,
};

/// `fab::check`. An archive unfolds: what it may hold is bounded by what a project file may be, whatever the input.
pub(super) const FAB: Target = Target {
    name: "fab",
    about: "an app's bundle",
    form: Form::Zip,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 64, constant: 64 * 1024 * 1024 },
    samples: || vec![include_bytes!("../../../wire-flower/testdata/flower/1.42.0/app.fab").to_vec()],
    body: bundle,
};

const PIECES: [usize; 6] = [1, 2, 7, 64, 1000, usize::MAX];
const OBJECTS: &str = include_str!("../../../wire-flower/testdata/flower/1.42.0/objects.txt");
const CONTENT_LEN_MAX: u64 = 1 << 20;

/// What came out of a push.
type Pushed = (Option<Head>, Vec<u8>, Tail);

fn push(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let (chosen, body) = match super::choice(input, 2 * PIECES.len()) {
        Ok(chosen) => chosen,
        Err(refused) => return refused,
    };
    let (piece, framed) = (PIECES[chosen / 2], chosen % 2 == 1);
    let pushed = match probe.watch(|| pushed(body, piece, framed)) {
        Ok(pushed) => pushed,
        Err(error) => return Verdict::Refused(error),
    };
    let whole = body.get(if framed { 5 } else { 0 }..).unwrap_or_default();
    let plain = proto::PushObjectRequest::decode(whole);
    let plain = plain.unwrap_or_else(|error| panic!("what was read is no such message: {error}"));
    let (head, content, tail) = pushed;
    assert_eq!((plain.run_id, &plain.object_id), (tail.head.run_id, &tail.head.object_id));
    assert_eq!((&plain.object_content[..], &plain.session_id), (&content[..], &tail.session_id));
    assert_eq!(plain.node.map(|node| node.node_id), tail.node_id);
    assert!(head.is_none_or(|head| head.content_len == content.len() as u64));
    let again = self::pushed(body, usize::MAX, framed);
    assert!(matches!(again, Ok((_, again, _)) if again == content), "it depends on the pieces");
    Verdict::Accepted(format!("{} bytes", content.len()))
}

fn pushed(body: &[u8], piece: usize, framed: bool) -> Result<Pushed, String> {
    let mut reader = PushReader::new(CONTENT_LEN_MAX);
    let mut frame = framed.then(|| UnaryFrame::new(CONTENT_LEN_MAX));
    let (mut head, mut content) = (None, Vec::new());
    for bytes in body.chunks(piece) {
        let mut bytes = Bytes::copy_from_slice(bytes);
        if let Some(frame) = &mut frame {
            bytes = frame.feed(bytes).map_err(|error| error.to_string())?;
        }
        for part in reader.feed(bytes).map_err(|error| error.to_string())? {
            match part {
                Part::Head(found) => head = Some(found),
                Part::Content(bytes) => content.extend_from_slice(&bytes),
            }
        }
    }
    if let Some(frame) = &frame {
        frame.finish().map_err(|error| error.to_string())?;
    }
    Ok((head, content, reader.finish().map_err(|error| error.to_string())?))
}

fn object(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let (chosen, body) = match super::choice(input, PIECES.len()) {
        Ok(chosen) => chosen,
        Err(refused) => return refused,
    };
    let children = children_of(body);
    let checked = |piece: usize| {
        let mut check = ObjectCheck::new(&children, body.len() as u64);
        body.chunks(piece).try_for_each(|bytes| check.feed(bytes)).and_then(|()| check.finish())
    };
    let told = probe.watch(|| checked(PIECES[chosen]));
    assert_eq!(told.is_ok(), checked(usize::MAX).is_ok(), "it depends on the pieces");
    match told {
        Ok(()) => {
            let mut other = children;
            other.push(Digest::of(b"another"));
            let mut check = ObjectCheck::new(&other, body.len() as u64);
            assert!(check.feed(body).is_err(), "other children than declared are taken");
            Verdict::Accepted("an object".to_owned())
        }
        Err(error) => Verdict::refused(error),
    }
}

/// The children that a header names, where it is one.
fn children_of(object: &[u8]) -> Vec<Digest> {
    let header = object.split(|byte| *byte == 0).next().unwrap_or_default();
    let header = std::str::from_utf8(header).unwrap_or_default();
    let named = header.split(' ').nth(1).unwrap_or_default();
    named.split(',').filter_map(|id| id.parse().ok()).collect()
}

/// How many kinds of messages there are.
const MESSAGES: usize = 14;

fn flower(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let (chosen, body) = match super::choice(input, MESSAGES) {
        Ok(chosen) => chosen,
        Err(refused) => return refused,
    };
    match chosen {
        0 => node_letters(body, probe),
        1 => application_letters(body, probe),
        2 => plain::<proto::RegisterNodeFleetRequest>(body, probe),
        3 => plain::<proto::ActivateNodeRequest>(body, probe),
        4 => plain::<proto::SendNodeHeartbeatRequest>(body, probe),
        5 => plain::<proto::PullMessagesRequest>(body, probe),
        6 => plain::<proto::GetRunRequest>(body, probe),
        7 => plain::<proto::GetFabRequest>(body, probe),
        8 => plain::<proto::PullObjectRequest>(body, probe),
        9 => plain::<proto::ConfirmMessageReceivedRequest>(body, probe),
        10 => plain::<proto::MessageContainer>(body, probe),
        11 => plain::<proto::PushTaskOutputRequest>(body, probe),
        12 => plain::<proto::PullAppMessagesRequest>(body, probe),
        _ => plain::<proto::StartRunRequest>(body, probe),
    }
}

fn plain<M: Message + Default>(body: &[u8], probe: &mut Probe<'_>) -> Verdict {
    match probe.watch(|| M::decode(body)) {
        Ok(message) => Verdict::Accepted(format!("{} bytes", message.encoded_len())),
        Err(error) => Verdict::refused(error),
    }
}

/// The node whose letters are read.
const NODE_ID: u64 = 0x5ea;

fn node_letters(body: &[u8], probe: &mut Probe<'_>) -> Verdict {
    letters(body, probe, NODE_ID, || {
        let request = proto::PushMessagesRequest::decode(body)?;
        Ok((request.messages_list, request.message_object_trees))
    })
}

fn application_letters(body: &[u8], probe: &mut Probe<'_>) -> Verdict {
    letters(body, probe, 1, || {
        let request = proto::PushAppMessagesRequest::decode(body)?;
        Ok((request.messages_list, request.message_object_trees))
    })
}

type Decoded = Result<(Vec<proto::Message>, Vec<proto::ObjectTree>), prost::DecodeError>;

fn letters(body: &[u8], probe: &mut Probe<'_>, sender: u64, decode: impl Fn() -> Decoded) -> Verdict {
    let Some(run) = RunId::new(42) else { return Verdict::Refused("no run".to_owned()) };
    let read = probe.watch(|| {
        check_letters(body).map_err(|error| error.to_string())?;
        let (messages, trees) = decode().map_err(|error| error.to_string())?;
        letters_of(&messages, &trees, sender, run).map_err(|error| error.to_string())
    });
    match read {
        Ok((letters, objects)) => {
            for (at, object) in objects.iter().enumerate() {
                let before = |child: &Digest| objects.iter().take(at).any(|known| known.id == *child);
                assert!(object.children.iter().all(before), "a child comes after its parent");
            }
            let known = |letter: &Digest| objects.iter().any(|object| object.id == *letter);
            assert!(letters.iter().all(|letter| known(&letter.id)), "a letter is no object");
            Verdict::Accepted(format!("{} letters over {} objects", letters.len(), objects.len()))
        }
        Err(error) => Verdict::Refused(error),
    }
}

fn bundle(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    match probe.watch(|| fab::check(input)) {
        Ok(checked) => {
            assert_eq!(checked.hash, Digest::of(input));
            assert!(!checked.id.contains("..") || checked.id.matches('/').count() == 1, "{}", checked.id);
            Verdict::Accepted(format!("{} settings", checked.config.len()))
        }
        Err(error) => Verdict::refused(error),
    }
}

/// The recorded objects: kind, id and bytes.
fn recorded() -> Vec<(&'static str, Vec<u8>)> {
    let parts = |line: &'static str| {
        let mut parts = line.split(' ');
        let (_, id, bytes) = (parts.next()?, parts.next()?, parts.next()?);
        Some((id, hex::decode(bytes).ok()?))
    };
    OBJECTS.lines().filter_map(parts).collect()
}

fn push_samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    for (at, (id, bytes)) in recorded().into_iter().enumerate() {
        let request = proto::PushObjectRequest {
            node: Some(proto::Node { node_id: NODE_ID }),
            run_id: 42,
            object_id: id.to_owned(),
            object_content: bytes.into(),
            session_id: "7b0e1a9c-0000-4000-8000-000000000000".to_owned(),
        };
        let body = request.encode_to_vec();
        let framed = sheaf_wire_flower::frames::grpc_frame(&body).unwrap_or_default();
        samples.push(super::chosen(2 * (at % PIECES.len()), &body));
        samples.push(super::chosen(2 * (at % PIECES.len()) + 1, &framed));
    }
    samples
}

fn object_samples() -> Vec<Vec<u8>> {
    let objects = recorded().into_iter().enumerate();
    objects.map(|(at, (_, bytes))| super::chosen(at % PIECES.len(), &bytes)).collect()
}

fn flower_samples() -> Vec<Vec<u8>> {
    let leaf =
        |text: &[u8]| proto::ObjectTree { object_id: Digest::of(text).to_string(), children: Vec::new() };
    let tree = proto::ObjectTree {
        children: vec![proto::ObjectTree { children: vec![leaf(b"a"), leaf(b"b")], ..leaf(b"record") }],
        ..leaf(b"message")
    };
    let metadata = |from: u64, to: u64, question: String| proto::Metadata {
        run_id: 42,
        message_id: tree.object_id.clone(),
        src_node_id: from,
        dst_node_id: to,
        reply_to_message_id: question,
        group_id: "1".to_owned(),
        ttl: 3600.0,
        message_type: "train".to_owned(),
        created_at: 1_800_000_000.0,
        ..proto::Metadata::default()
    };
    let message = |metadata| proto::Message { metadata: Some(metadata), ..proto::Message::default() };
    let answer = message(metadata(NODE_ID, 1, Digest::of(b"question").to_string()));
    let of_node = proto::PushMessagesRequest {
        node: Some(proto::Node { node_id: NODE_ID }),
        messages_list: vec![answer],
        message_object_trees: vec![tree.clone()],
        clientapp_runtime_list: vec![1.5],
    };
    let of_application = proto::PushAppMessagesRequest {
        messages_list: vec![message(metadata(1, NODE_ID, String::new()))],
        message_object_trees: vec![tree],
    };
    let start = proto::StartRunRequest {
        fab: Some(proto::Fab { hash_str: "0".repeat(64), ..proto::Fab::default() }),
        override_config: [("rounds".to_owned(), proto::Scalar::default())].into(),
        ..proto::StartRunRequest::default()
    };
    let container = proto::MessageContainer {
        metadata: [("grpc-message-qualname".to_owned(), "x".to_owned())].into(),
        grpc_message_name: "PullMessagesRequest".to_owned(),
        grpc_message_content: Bytes::from_static(b"\x0a\x02\x08\x01"),
    };
    let mut samples: Vec<Vec<u8>> = (0..MESSAGES).skip(2).map(|chosen| super::chosen(chosen, b"")).collect();
    samples.push(super::chosen(0, &of_node.encode_to_vec()));
    samples.push(super::chosen(1, &of_application.encode_to_vec()));
    samples.push(super::chosen(10, &container.encode_to_vec()));
    samples.push(super::chosen(13, &start.encode_to_vec()));
    samples
}
