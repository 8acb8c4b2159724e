//! Which lists each message has, how long each may be, and what an entry takes in memory: what [`scan`](crate::scan)
//! and [`scan_json`](crate::scan_json) go by.

use sheaf_domain::Manifest;
use sheaf_tensor::RANK_MAX;

use crate::bounds::{CONFIG_VALUES_MAX, DIGESTS_MAX, METRICS_MAX, SLOTS_MAX, TASKS_MAX};
use crate::scan::{Entry, FIELDS_MAX, Field};
use crate::v1;

/// A message whose lists are known.
pub trait Listed {
    #[doc(hidden)]
    fn lists() -> Lists;
}

/// The lists of a message.
#[derive(Clone, Copy)]
pub struct Lists(pub(crate) &'static [Field]);

impl std::fmt::Debug for Lists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|field| field.name)).finish()
    }
}

macro_rules! lists {
    ($($message:ident: $fields:expr;)*) => {
        $(impl Listed for v1::$message {
            fn lists() -> Lists {
                const { assert!($fields.len() <= FIELDS_MAX) };
                Lists($fields)
            }
        })*
    };
}

lists! {
    EnrolRequest: NONE;
    EnrolReply: NONE;
    RenewRequest: NONE;
    RenewReply: NONE;
    BeatRequest: BEAT_REQUEST;
    BeatReply: BEAT_REPLY;
    NextRequest: NEXT_REQUEST;
    NextReply: NEXT_REPLY;
    WorkOrder: WORK_ORDER;
    ReadVersionRequest: NONE;
    ReadVersionReply: NONE;
    MissingRequest: MISSING_REQUEST;
    MissingReply: MISSING_REPLY;
    PutPieceRequest: NONE;
    PutPieceReply: NONE;
    SubmitRequest: SUBMIT_REQUEST;
    SubmitReply: NONE;
    FailRequest: NONE;
    FailReply: NONE;
    LeaveRequest: NONE;
    LeaveReply: NONE;
    Manifest: MANIFEST;
}

const fn list<T>(number: u64, name: &'static str, count_max: usize, entry: Entry) -> Field {
    Field { number, name, key: name, count_max, entry_bytes: size_of::<T>(), entry }
}

/// A message that comes at most once, and holds lists.
const fn holder(number: u64, name: &'static str, fields: &'static [Field]) -> Field {
    Field { number, name, key: name, count_max: 1, entry_bytes: 0, entry: Entry::One(fields) }
}

impl Field {
    /// The field with a key of its own in JSON.
    const fn keyed(mut self, key: &'static str) -> Field {
        self.key = key;
        self
    }
}

const NONE: &[Field] = &[];
const TEXT: Entry = Entry::Leaf;

const BEAT_REQUEST: &[Field] = &[list::<String>(1, "working", TASKS_MAX, TEXT)];
const BEAT_REPLY: &[Field] = &[list::<v1::Withdrawn>(2, "withdrawn", TASKS_MAX, Entry::Leaf)];
const NEXT_REQUEST: &[Field] = &[list::<String>(1, "have", TASKS_MAX, TEXT)];
const NEXT_REPLY: &[Field] = &[
    list::<v1::WorkOrder>(1, "work", TASKS_MAX, Entry::Message(WORK_ORDER)),
    list::<v1::Withdrawn>(2, "withdrawn", TASKS_MAX, Entry::Leaf),
];
const WORK_ORDER: &[Field] = &[
    list::<v1::Input>(8, "inputs", SLOTS_MAX, Entry::Message(INPUT)),
    list::<v1::Output>(9, "outputs", SLOTS_MAX, Entry::Message(OUTPUT)),
    list::<(String, v1::ConfigValue)>(10, "config", CONFIG_VALUES_MAX, Entry::Pair(CONFIG_ENTRY)),
];
const INPUT: &[Field] = &[list::<v1::Tensor>(5, "tensors", Manifest::TENSORS_MAX, Entry::Message(TENSOR))];
const OUTPUT: &[Field] = &[holder(3, "like", LIKE)];
const LIKE: &[Field] = &[list::<v1::Tensor>(2, "tensors", Manifest::TENSORS_MAX, Entry::Message(TENSOR))];
const TENSOR: &[Field] = &[list::<u64>(3, "shape", RANK_MAX, Entry::Number)];
const CONFIG_ENTRY: &[Field] = &[holder(2, "config value", &CONFIG_VALUE)];
static CONFIG_VALUE: [Field; 1] = [holder(5, "config list", &CONFIG_LIST).keyed("list")];
static CONFIG_LIST: [Field; 1] =
    [list::<v1::ConfigValue>(1, "config list", CONFIG_VALUES_MAX, Entry::Message(&CONFIG_VALUE))
        .keyed("values")];
const MISSING_REQUEST: &[Field] = &[list::<String>(2, "digests", DIGESTS_MAX, TEXT)];
const MISSING_REPLY: &[Field] = &[list::<String>(1, "digests", DIGESTS_MAX, TEXT)];
const SUBMIT_REQUEST: &[Field] = &[
    list::<v1::SubmittedSlot>(2, "slots", SLOTS_MAX, Entry::Message(SUBMITTED_SLOT)),
    list::<(String, f64)>(4, "metrics", METRICS_MAX, Entry::Pair(NONE)),
];
const SUBMITTED_SLOT: &[Field] = &[holder(2, "manifest", MANIFEST)];
const MANIFEST: &[Field] =
    &[list::<v1::PlacedTensor>(2, "tensors", Manifest::TENSORS_MAX, Entry::Message(PLACED_TENSOR))];
const PLACED_TENSOR: &[Field] = &[
    list::<u64>(3, "shape", RANK_MAX, Entry::Number),
    list::<v1::Segment>(4, "segments", Manifest::SEGMENTS_MAX, Entry::Leaf),
];
