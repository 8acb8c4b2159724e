//! What a participant tells about itself while it runs, for a terminal or a log.

use std::sync::Arc;

use sheaf_domain::{Digest, SubmitOutcome, Timestamp};
use sheaf_messages::Order;

/// Something that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// An operator has to approve this key first; it is asked again by itself.
    ApprovalAwaited {
        /// The fingerprint to compare.
        fingerprint: Digest,
    },
    /// The site got its certificate.
    Enrolled {
        /// When it ends.
        not_after: Timestamp,
    },
    /// The site got a new certificate.
    Renewed {
        /// When it ends.
        not_after: Timestamp,
    },
    /// A renewal failed; it is tried again.
    RenewalFailed {
        /// Why.
        reason: String,
    },
    /// The server answers.
    Connected,
    /// The server does not answer; it is tried again by itself.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// A result of an earlier process, or of before an outage, is being handed in.
    Resumed {
        /// The task.
        task: sheaf_domain::TaskId,
    },
    /// Work came and is begun.
    Started {
        /// The work.
        order: Arc<Order>,
    },
    /// The inputs are there and the trainer runs.
    Training {
        /// The work.
        order: Arc<Order>,
    },
    /// The trainer is done and the result is being handed in.
    HandingIn {
        /// The task.
        task: sheaf_domain::TaskId,
        /// Its size, in bytes.
        bytes: u64,
    },
    /// The server answered for a result.
    Answered {
        /// The task.
        task: sheaf_domain::TaskId,
        /// What became of it.
        outcome: SubmitOutcome,
    },
    /// A task came to nothing here.
    Failed {
        /// The task.
        task: sheaf_domain::TaskId,
        /// Why.
        reason: String,
    },
    /// A task is no longer wanted.
    Withdrawn {
        /// The task.
        task: sheaf_domain::TaskId,
        /// Why.
        reason: String,
    },
    /// The participant has said goodbye.
    Left,
}

/// Takes events; must not block.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(Event) + Send + Sync>);

impl EventSink {
    /// Hands every event to `take`.
    pub fn new(take: impl Fn(Event) + Send + Sync + 'static) -> EventSink {
        EventSink(Arc::new(take))
    }

    pub(crate) fn emit(&self, event: Event) {
        match &event {
            Event::Started { order } | Event::Training { order } => {
                let assignment = &order.assignment;
                tracing::info!(
                    task = %assignment.task, run = %assignment.run, round = assignment.round,
                    stage = %assignment.stage, event = event.name()
                );
            }
            other => tracing::info!(event = other.name(), detail = ?other),
        }
        (self.0)(event);
    }
}

impl Default for EventSink {
    fn default() -> EventSink {
        EventSink::new(|_| {})
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}

impl Event {
    /// The event's name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Event::ApprovalAwaited { .. } => "approval awaited",
            Event::Enrolled { .. } => "enrolled",
            Event::Renewed { .. } => "renewed",
            Event::RenewalFailed { .. } => "renewal failed",
            Event::Connected => "connected",
            Event::Disconnected { .. } => "disconnected",
            Event::Resumed { .. } => "resumed",
            Event::Started { .. } => "started",
            Event::Training { .. } => "training",
            Event::HandingIn { .. } => "handing in",
            Event::Answered { .. } => "answered",
            Event::Failed { .. } => "failed",
            Event::Withdrawn { .. } => "withdrawn",
            Event::Left => "left",
        }
    }
}
