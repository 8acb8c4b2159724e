//! Flower's messages as letters, and back.
//!
//! On the wire a message is its metadata and a tree of objects; its content travels as objects. The metadata is what the letter's header
//! keeps. The message's id is the object it is. Trees that are too deep, too large or contradict themselves are refused.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use sheaf_coordinator::Handed;
use sheaf_domain::{Digest, Principal, RunId};
use sheaf_relay::{LetterDraft, ObjectDraft};

use crate::error::{FlowerCode, FlowerError};
use crate::names::{SERVER_NODE_ID, object_of, payload, principal_of, timestamp};
use crate::proto::{Message, Metadata, ObjectTree};
use crate::scan::DEPTH_MAX;

/// How many objects the trees of one call may name, each time counted.
const OBJECTS_MAX: usize = 1_000_000;
/// The earliest time at which a message may have been made, in seconds since the epoch.
///
/// Observed: upstream refuses what is older.
const CREATED_AT_MIN: f64 = 1_740_700_800.0;
/// The longest kind of message or group, in bytes.
const TAG_LEN_MAX: usize = 1024;

/// The letter that a message is.
///
/// # Errors
/// A payload error that names what is wrong with the message; run mismatch when it belongs to another run.
pub(crate) fn letter(
    message: &Message,
    tree: &ObjectTree,
    sender: u64,
    run: RunId,
) -> Result<LetterDraft, FlowerError> {
    let wrong = |what: &str| payload(format!("the message {what}"));
    let metadata = message.metadata.as_ref().ok_or_else(|| wrong("has no metadata"))?;
    if metadata.run_id != run.get() {
        let detail = format!("the message is of run {}, the call is of run {}", metadata.run_id, run.get());
        return Err(FlowerError::new(FlowerCode::RuntimeMessageRunIdMismatch, detail));
    }
    if metadata.src_node_id != sender {
        return Err(wrong("names another sender than the call's"));
    }
    if metadata.message_id != tree.object_id {
        return Err(wrong("has another id than the root of its tree"));
    }
    if metadata.message_type.is_empty() || metadata.message_type.len() > TAG_LEN_MAX {
        return Err(wrong("has no type, or one that is too long"));
    }
    if metadata.group_id.len() > TAG_LEN_MAX {
        return Err(wrong("has a group id that is too long"));
    }
    if !(metadata.ttl > 0.0 && metadata.ttl.is_finite()) {
        return Err(wrong("has a time to live that is not positive and finite"));
    }
    if !(metadata.created_at >= CREATED_AT_MIN && metadata.created_at.is_finite()) {
        return Err(wrong("was made at a time that cannot be"));
    }
    let answers = match metadata.reply_to_message_id.as_str() {
        "" => None,
        question => Some(object_of(question)?),
    };
    if (sender == SERVER_NODE_ID) != answers.is_none() {
        return Err(wrong("is an answer of the application, or of a node that answers nothing"));
    }
    let to = principal_of(metadata.dst_node_id, run)?;
    if matches!(to, Principal::ServerApp(_)) == (sender == SERVER_NODE_ID) {
        return Err(wrong("goes from node to node, or from the application to itself"));
    }
    Ok(LetterDraft {
        id: object_of(&tree.object_id)?,
        to,
        answers,
        header: header(message),
        expires_at: timestamp(metadata.created_at + metadata.ttl),
    })
}

/// The letters that the messages of one call are, and the objects of their trees.
///
/// # Errors
/// A payload error that names what is wrong with a message or a tree; or when there are not as many trees as messages.
pub fn letters_of(
    messages: &[Message],
    trees: &[ObjectTree],
    sender: u64,
    run: RunId,
) -> Result<(Vec<LetterDraft>, Vec<ObjectDraft>), FlowerError> {
    if messages.len() != trees.len() {
        return Err(payload(format!("{} messages come with {} trees", messages.len(), trees.len())));
    }
    let letters = messages.iter().zip(trees).map(|(message, tree)| letter(message, tree, sender, run));
    Ok((letters.collect::<Result<Vec<_>, _>>()?, objects_of(trees)?))
}

/// What a letter's header keeps of a message.
pub(crate) fn header(message: &Message) -> String {
    let kept = Message { metadata: message.metadata.clone(), content: None, error: message.error.clone() };
    STANDARD.encode(kept.encode_to_vec())
}

/// The message that a letter's header keeps.
///
/// # Errors
/// Unavailable when the header is none of ours.
pub(crate) fn message_of(header: &str) -> Result<Message, FlowerError> {
    let damaged = |what: String| {
        FlowerError::new(FlowerCode::Unavailable, format!("a letter's header is damaged: {what}"))
    };
    let bytes = STANDARD.decode(header).map_err(|error| damaged(error.to_string()))?;
    Message::decode(bytes.as_slice()).map_err(|error| damaged(error.to_string()))
}

/// A letter that is handed out, as message and tree.
///
/// # Errors
/// Unavailable when its header is none of ours.
pub(crate) fn handed(handed: &Handed) -> Result<(Message, ObjectTree), FlowerError> {
    let mut message = message_of(&handed.header)?;
    message.metadata.get_or_insert_default().message_id = handed.letter.to_string();
    if message.error.is_none() {
        // Observed: peers take a message for one with content by this empty field; the content itself comes as objects.
        message.content = Some(crate::proto::RecordDict::default());
    }
    Ok((message, tree_of(&handed.objects, &handed.letter)))
}

/// The objects that trees name, each once, children before parents.
///
/// # Errors
/// A payload error when they are too deep or too large, or name an object in two ways.
pub(crate) fn objects_of(trees: &[ObjectTree]) -> Result<Vec<ObjectDraft>, FlowerError> {
    let mut found = Vec::new();
    let mut known: HashMap<Digest, usize> = HashMap::new();
    let mut count = 0;
    for tree in trees {
        // Each level of the path: a tree and how many of its children were seen.
        let mut path: Vec<(&ObjectTree, usize)> = vec![(tree, 0)];
        while let Some((node, child_idx)) = path.pop() {
            if let Some(child) = node.children.get(child_idx) {
                count += 1;
                if path.len() + 1 >= DEPTH_MAX || count > OBJECTS_MAX {
                    let detail =
                        format!("a tree of objects may be {DEPTH_MAX} deep and name {OBJECTS_MAX} objects");
                    return Err(payload(detail));
                }
                path.push((node, child_idx + 1));
                path.push((child, 0));
                continue;
            }
            let draft = draft_of(node)?;
            match known.get(&draft.id) {
                None => {
                    known.insert(draft.id, found.len());
                    found.push(draft);
                }
                Some(before) if found.get(*before) == Some(&draft) => {}
                Some(_) => {
                    let detail = format!("object {} is named with two lists of children", draft.id);
                    return Err(payload(detail));
                }
            }
        }
    }
    Ok(found)
}

fn draft_of(node: &ObjectTree) -> Result<ObjectDraft, FlowerError> {
    let mut seen = std::collections::HashSet::with_capacity(node.children.len());
    let mut children = Vec::with_capacity(node.children.len());
    for child in &node.children {
        let child = object_of(&child.object_id)?;
        if !seen.insert(child) {
            return Err(payload(format!("object {} names a child twice", node.object_id)));
        }
        children.push(child);
    }
    Ok(ObjectDraft { id: object_of(&node.object_id)?, children })
}

/// The tree over objects that stand children before parents. What was posted as a tree is not larger as one.
fn tree_of(objects: &[ObjectDraft], root: &Digest) -> ObjectTree {
    let mut trees: HashMap<Digest, ObjectTree> = HashMap::with_capacity(objects.len());
    for object in objects {
        let children = object.children.iter().filter_map(|child| trees.get(child).cloned()).collect();
        trees.insert(object.id, ObjectTree { object_id: object.id.to_string(), children });
    }
    trees.remove(root).unwrap_or_else(|| ObjectTree { object_id: root.to_string(), children: Vec::new() })
}

/// Flower's error codes for messages that are not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The question is not known, or its time is over.
    MessageUnavailable,
    /// The node that was asked is not there.
    NodeUnavailable,
}

impl Unanswered {
    const fn code_and_reason(self) -> (i64, &'static str) {
        match self {
            Unanswered::MessageUnavailable => {
                (3, "Message unavailable: it is not known here, or its time to live is over")
            }
            Unanswered::NodeUnavailable => (5, "Node unavailable: it shows no sign of life"),
        }
    }
}

/// The message by which the server answers a question of the application itself: no content, an error, and its object.
///
/// Observed: source and destination are the server; type and group are the question's where it is known.
pub(crate) fn notice(
    question: &Digest,
    asked: Option<&Metadata>,
    why: Unanswered,
    run: RunId,
    created_at: f64,
) -> (Message, Vec<u8>) {
    let known = asked.cloned().unwrap_or_default();
    let metadata = Metadata {
        run_id: run.get(),
        message_id: String::new(),
        src_node_id: SERVER_NODE_ID,
        dst_node_id: SERVER_NODE_ID,
        reply_to_message_id: question.to_string(),
        group_id: known.group_id,
        ttl: if asked.is_some() { (known.created_at + known.ttl - created_at).max(0.0) } else { 0.0 },
        message_type: if asked.is_some() { known.message_type } else { "system".to_owned() },
        created_at,
        src_task_id: known.dst_task_id,
        dst_task_id: known.src_task_id,
    };
    let (code, reason) = why.code_and_reason();
    let error = crate::proto::Error { code, reason: reason.to_owned() };
    let message = Message { metadata: Some(metadata), content: None, error: Some(error) };
    let body = message.encode_to_vec();
    let mut object = format!("Message  {}\0", body.len()).into_bytes();
    object.extend_from_slice(&body);
    (message, object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(name: &str) -> ObjectTree {
        ObjectTree { object_id: Digest::of(name.as_bytes()).to_string(), children: vec![] }
    }

    fn above(name: &str, children: Vec<ObjectTree>) -> ObjectTree {
        ObjectTree { children, ..leaf(name) }
    }

    #[test]
    fn a_tree_becomes_objects_children_first_and_back() {
        let shared = above("array", vec![leaf("chunk")]);
        let tree =
            above("message", vec![above("records", vec![shared.clone(), above("other", vec![shared])])]);
        let objects = objects_of(std::slice::from_ref(&tree)).unwrap();
        let order: Vec<Digest> = objects.iter().map(|object| object.id).collect();
        let expected = ["chunk", "array", "other", "records", "message"];
        assert_eq!(order, expected.map(|name| Digest::of(name.as_bytes())));
        assert_eq!(tree_of(&objects, &Digest::of(b"message")), tree);
    }

    #[test]
    fn trees_that_lie_are_refused_by_name() {
        let mut deep = leaf("0");
        for level in 1..=DEPTH_MAX {
            deep = above(&level.to_string(), vec![deep]);
        }
        let two_ways = above("root", vec![above("a", vec![leaf("b")]), leaf("a")]);
        let twice = above("root", vec![leaf("a"), leaf("a")]);
        let nameless = ObjectTree { object_id: "x".to_owned(), children: vec![] };
        let cases =
            [(deep, "16 deep"), (two_ways, "two lists"), (twice, "child twice"), (nameless, "no object id")];
        for (tree, what) in cases {
            let error = objects_of(&[tree]).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    fn message(change: impl FnOnce(&mut Metadata)) -> Message {
        let mut metadata = Metadata {
            run_id: 7,
            message_id: leaf("m").object_id,
            src_node_id: 1,
            dst_node_id: 99,
            ttl: 60.0,
            message_type: "train".to_owned(),
            created_at: 1_800_000_000.0,
            ..Metadata::default()
        };
        change(&mut metadata);
        Message { metadata: Some(metadata), content: None, error: None }
    }

    #[test]
    fn a_message_is_a_letter_and_its_header_gives_it_back() {
        let run = RunId::new(7).unwrap();
        let sent = message(|_| ());
        let letter = letter(&sent, &leaf("m"), 1, run).unwrap();
        assert_eq!(letter.expires_at.as_millis(), 1_800_000_060_000);
        assert_eq!(message_of(&letter.header).unwrap(), sent);
        let given = Handed { run, letter: letter.id, header: letter.header, objects: vec![] };
        let with_content = Message { content: Some(crate::proto::RecordDict::default()), ..sent };
        assert_eq!(handed(&given).unwrap().0, with_content);
    }

    #[test]
    fn messages_that_cannot_be_are_refused_by_name() {
        let run = RunId::new(7).unwrap();
        let refused =
            |change: fn(&mut Metadata)| letter(&message(change), &leaf("m"), 1, run).unwrap_err().to_string();
        assert!(refused(|m| m.run_id = 8).contains("run 8"));
        assert!(refused(|m| m.src_node_id = 2).contains("another sender"));
        assert!(refused(|m| m.message_id.clear()).contains("another id"));
        assert!(refused(|m| m.message_type.clear()).contains("no type"));
        assert!(refused(|m| m.ttl = f64::NAN).contains("time to live"));
        assert!(refused(|m| m.created_at = 1.0).contains("cannot be"));
        assert!(refused(|m| m.reply_to_message_id = leaf("q").object_id).contains("is an answer"));
        assert!(refused(|m| m.dst_node_id = 1).contains("to itself"));
    }

    #[test]
    fn a_notice_is_an_object_of_the_server() {
        let question = Digest::of(b"q");
        let asked = message(|m| m.src_task_id = Some(5)).metadata.unwrap();
        let run = RunId::new(7).unwrap();
        let (told, object) =
            notice(&question, Some(&asked), Unanswered::NodeUnavailable, run, 1_800_000_010.0);
        let metadata = told.metadata.unwrap();
        assert_eq!((metadata.ttl, metadata.message_type.as_str()), (50.0, "train"));
        assert_eq!((metadata.dst_task_id, told.error.unwrap().code), (Some(5), 5));
        let body = object.splitn(2, |b| *b == 0).nth(1).unwrap();
        assert!(object.starts_with(format!("Message  {}\0", body.len()).as_bytes()));
        let unknown = notice(&question, None, Unanswered::MessageUnavailable, run, 1.0).0.metadata.unwrap();
        assert_eq!((unknown.ttl, unknown.message_type.as_str()), (0.0, "system"));
    }
}
