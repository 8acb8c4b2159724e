//! A look at the bytes of messages and trees before they are decoded: a decoded message is many times as long as an empty one on the wire.
//!
//! Pure. Refused by name: messages and trees shorter than any that name an object, content in a message (it travels as objects), trees that
//! are too deep. Invariant: what passes takes memory in proportion to its length. Found by the attacks on this decoder.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::error::FlowerError;
use crate::names::payload;

/// The field of messages, and that of trees, in what nodes and applications push.
const MESSAGES: u32 = 2;
const TREES: u32 = 3;
/// The field of a message's content.
const CONTENT: u32 = 2;
/// The field of a tree's children.
const CHILDREN: u32 = 2;
/// What names an object has at least so many bytes: a field and 64 digits.
const NAMED_LEN_MIN: usize = 66;
/// The longest content of a message, in bytes: peers send an empty one.
const CONTENT_LEN_MAX: usize = 64;
/// The field of an envelope's metadata, and how many entries it may have.
const ENVELOPE_METADATA: u32 = 1;
const ENVELOPE_METADATA_MAX: usize = 32;
/// How deep a tree of objects may be; a message over records over arrays over chunks is five.
pub(crate) const DEPTH_MAX: usize = 16;

/// Looks at a request that pushes messages.
///
/// # Errors
/// A payload error that says what is refused.
pub fn check_letters(request: &[u8]) -> Result<(), FlowerError> {
    each_field(request, |field, bytes| match field {
        MESSAGES => check_message(bytes),
        TREES => check_tree(bytes, 1),
        _ => Ok(()),
    })
}

/// Looks at an envelope around a call: its metadata are a few names.
///
/// # Errors
/// A payload error that says what is refused.
pub fn check_envelope(envelope: &[u8]) -> Result<(), FlowerError> {
    let mut entries = 0;
    each_field(envelope, |field, _| {
        entries += usize::from(field == ENVELOPE_METADATA);
        if entries > ENVELOPE_METADATA_MAX {
            return Err(payload(format!(
                "an envelope has at most {ENVELOPE_METADATA_MAX} entries of metadata"
            )));
        }
        Ok(())
    })
}

fn check_message(message: &[u8]) -> Result<(), FlowerError> {
    long_enough("message", message)?;
    each_field(message, |field, bytes| match field {
        CONTENT if bytes.len() > CONTENT_LEN_MAX => {
            Err(payload("the content of a message travels as objects, not in the message"))
        }
        _ => Ok(()),
    })
}

fn check_tree(tree: &[u8], depth: usize) -> Result<(), FlowerError> {
    long_enough("tree of objects", tree)?;
    if depth > DEPTH_MAX {
        return Err(payload(format!("a tree of objects may be {DEPTH_MAX} deep")));
    }
    each_field(tree, |field, bytes| match field {
        CHILDREN => check_tree(bytes, depth + 1),
        _ => Ok(()),
    })
}

fn long_enough(what: &str, bytes: &[u8]) -> Result<(), FlowerError> {
    if bytes.len() < NAMED_LEN_MIN {
        return Err(payload(format!("a {what} names no object: it has {} bytes", bytes.len())));
    }
    Ok(())
}

/// Visits the fields that have a length, in order, and passes over the others.
fn each_field(
    mut bytes: &[u8],
    mut visit: impl FnMut(u32, &[u8]) -> Result<(), FlowerError>,
) -> Result<(), FlowerError> {
    let broken =
        |error: prost::DecodeError| payload(format!("the body is not the message of this call: {error}"));
    while !bytes.is_empty() {
        let (field, wire) = decode_key(&mut bytes).map_err(broken)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, field, &mut bytes, DecodeContext::default()).map_err(broken)?;
            continue;
        }
        let len = decode_varint(&mut bytes).map_err(broken)?;
        let split = usize::try_from(len).ok().and_then(|len| bytes.split_at_checked(len));
        let (content, rest) = split.ok_or_else(|| payload("the body ends inside a field"))?;
        visit(field, content)?;
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::{Message, Metadata, ObjectTree, PushMessagesRequest, RecordDict};

    fn request() -> PushMessagesRequest {
        let named = |object_id: String| ObjectTree { object_id, children: Vec::new() };
        let tree = ObjectTree { children: vec![named("b".repeat(64))], ..named("a".repeat(64)) };
        let metadata = Metadata { message_id: "a".repeat(64), ..Metadata::default() };
        let message = Message { metadata: Some(metadata), content: Some(RecordDict::default()), error: None };
        PushMessagesRequest {
            messages_list: vec![message],
            message_object_trees: vec![tree],
            clientapp_runtime_list: vec![1.5],
            ..PushMessagesRequest::default()
        }
    }

    #[test]
    fn what_peers_send_passes_and_what_only_takes_memory_does_not() {
        check_letters(&request().encode_to_vec()).unwrap();
        check_letters(b"").unwrap();
        for empty in [[0x12, 0].repeat(1000), [0x1a, 0].repeat(1000)] {
            assert!(check_letters(&empty).unwrap_err().detail.contains("names no object"));
        }
        let mut leafy = request();
        leafy.message_object_trees[0].children.push(ObjectTree::default());
        assert!(check_letters(&leafy.encode_to_vec()).is_err());
        let mut deep = request().message_object_trees.remove(0);
        for _ in 0..DEPTH_MAX {
            deep = ObjectTree { object_id: "c".repeat(64), children: vec![deep] };
        }
        let mut request = request();
        request.message_object_trees = vec![deep];
        assert!(check_letters(&request.encode_to_vec()).unwrap_err().detail.contains("deep"));
        // A message whose content is not empty: two bytes an entry.
        let content = [&[0x12, 0xc8, 0x01][..], &[0x0a, 0].repeat(100)].concat();
        let message = [&[0x12, 0xcb, 0x01][..], &content].concat();
        assert!(check_letters(&message).unwrap_err().detail.contains("travels as objects"));
        assert!(check_letters(&[0x12, 0xff]).is_err() && check_letters(&[0x12, 5, 1]).is_err());
    }

    #[test]
    fn an_envelope_has_few_names() {
        let envelope = |entries: usize| [[0x0a, 0].repeat(entries), vec![0x1a, 1, 7]].concat();
        check_envelope(&envelope(ENVELOPE_METADATA_MAX)).unwrap();
        let refused = check_envelope(&envelope(ENVELOPE_METADATA_MAX + 1)).unwrap_err();
        assert!(refused.detail.contains("at most 32"), "{}", refused.detail);
    }
}
