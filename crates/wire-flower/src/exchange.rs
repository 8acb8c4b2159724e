//! What nodes and applications have in common: posting messages, bringing and reading objects, confirming.

use sheaf_coordinator::{Bring, Error, Found, OBJECT_LEN_MAX, Posted};
use sheaf_domain::{ErrorKind, Principal, RunId};

use crate::answer::Answer;
use crate::error::{FlowerCode, FlowerError};
use crate::front::Flower;
use crate::incoming::Incoming;
use crate::mail::letters_of;
use crate::names::{object_of, payload, run_of};
use crate::object::ObjectCheck;
use crate::proto::{Message, ObjectTree, PullObjectResponse, PushObjectResponse};
use crate::push::{Head, Part, PushReader, Tail};

/// Who an error is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    Node,
    Application,
}

impl Toward {
    /// Flower's form of a coordinator's error.
    pub(crate) fn error(self, error: &Error) -> FlowerError {
        let code = match (self, error.kind()) {
            (Toward::Node, ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                FlowerCode::RunStatusNotAllowed
            }
            (Toward::Application, ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::Unauthenticated) => {
                FlowerCode::RuntimeAuthenticationFailed
            }
            (_, ErrorKind::InvalidArgument) => FlowerCode::InvalidProtobufPayload,
            _ => FlowerCode::Unavailable,
        };
        FlowerError::new(code, error.to_string())
    }
}

impl Flower {
    /// Posts messages of one sender.
    ///
    /// # Errors
    /// A payload error that names what is wrong with a message or tree; as the coordinator says.
    pub(crate) async fn post(
        &self,
        from: (&Principal, u64),
        run: RunId,
        messages: &[Message],
        trees: &[ObjectTree],
        toward: Toward,
    ) -> Result<Posted, FlowerError> {
        let (letters, objects) = letters_of(messages, trees, from.1, run)?;
        self.relays.post(from.0, run, letters, objects).await.map_err(|error| toward.error(&error))
    }

    /// Takes an object in as it arrives.
    ///
    /// # Errors
    /// A payload error for a broken request; as the coordinator says.
    pub(crate) async fn push_object(
        &self,
        pushes: &Pusher,
        mut incoming: Incoming,
    ) -> Result<Answer, FlowerError> {
        let mut reader = PushReader::new(OBJECT_LEN_MAX);
        let mut offer = None;
        let broken = |error: crate::push::PushError| payload(error.to_string());
        while let Some(piece) = incoming.next().await? {
            for part in reader.feed(piece).map_err(broken)? {
                match part {
                    Part::Head(head) => offer = Some(self.offer(pushes, &head).await?),
                    Part::Content(bytes) => {
                        let Some(Offer::Taken(intake, check)) = &mut offer else { continue };
                        // What it says in its head must be what was announced: others are told by that what it needs.
                        if let Err(error) = check.feed(&bytes) {
                            tracing::warn!(pusher = ?pushes, %error, "an object was refused");
                            offer = Some(Offer::Answered(false));
                            continue;
                        }
                        intake.write(bytes).await.map_err(|error| pushes.toward().error(&error))?;
                    }
                }
            }
        }
        let tail: Tail = reader.finish().map_err(broken)?;
        if let Some(node_id) = tail.node_id.or(tail.head.node_id) {
            pushes.check_node(node_id)?;
        }
        let stored = match offer {
            None => false,
            Some(Offer::Answered(stored)) => stored,
            Some(Offer::Taken(intake, check)) => match check.finish() {
                Err(error) => {
                    tracing::warn!(pusher = ?pushes, %error, "an object was refused");
                    false
                }
                // Nodes that know no sessions name none.
                Ok(()) if !tail.session_id.is_empty() && !of_session(&intake, &tail, pushes)? => false,
                Ok(()) => match intake.finish().await {
                    Ok(stored) => stored,
                    // Other bytes than the name says, or of another length.
                    Err(error) if error.kind() == ErrorKind::InvalidArgument => false,
                    Err(error) => return Err(pushes.toward().error(&error)),
                },
            },
        };
        Ok(Answer::of(&PushObjectResponse { stored }))
    }

    async fn offer(&self, pushes: &Pusher, head: &Head) -> Result<Offer, FlowerError> {
        let run = pushes.run(head.run_id)?;
        let object = object_of(&head.object_id)?;
        let brought = self.relays.bring(&pushes.principal(run), run, object, head.content_len).await;
        match brought.map_err(|error| pushes.toward().error(&error))? {
            Bring::Wanted(intake) => {
                if pushes.toward() == Toward::Node {
                    self.traffic.received(run, head.content_len);
                }
                let check = ObjectCheck::new(&intake.children, head.content_len);
                Ok(Offer::Taken(intake, check))
            }
            Bring::Brought => Ok(Offer::Answered(true)),
            Bring::NotWanted => Ok(Offer::Answered(false)),
        }
    }

    /// Hands an object out.
    ///
    /// # Errors
    /// As the coordinator says.
    pub(crate) async fn pull_object(
        &self,
        who: &Principal,
        run: RunId,
        object_id: &str,
        toward: Toward,
    ) -> Result<Answer, FlowerError> {
        let found = self.relays.find(who, run, object_of(object_id)?).await;
        Ok(match found.map_err(|error| toward.error(&error))? {
            Found::There(reader) => {
                if toward == Toward::Node {
                    self.traffic.sent(run, reader.len());
                }
                Answer::Object(reader)
            }
            Found::Awaited => Answer::of(&PullObjectResponse { object_found: true, ..Default::default() }),
            Found::Unknown => Answer::of(&PullObjectResponse::default()),
        })
    }

    /// The recipient has everything of a message.
    ///
    /// # Errors
    /// As the coordinator says.
    pub(crate) async fn confirm(
        &self,
        who: &Principal,
        run: RunId,
        message_object_id: &str,
        toward: Toward,
    ) -> Result<(), FlowerError> {
        let letter = object_of(message_object_id)?;
        self.relays.confirm(who, run, letter).await.map_err(|error| toward.error(&error))
    }
}

fn of_session(intake: &sheaf_coordinator::Intake, tail: &Tail, pushes: &Pusher) -> Result<bool, FlowerError> {
    intake.is_of_session(&tail.session_id).map_err(|error| pushes.toward().error(&error))
}

enum Offer {
    Taken(Box<sheaf_coordinator::Intake>, ObjectCheck),
    Answered(bool),
}

/// Who brings an object.
#[derive(Debug)]
pub(crate) enum Pusher {
    /// A node, in any run it works for.
    Node { site: sheaf_domain::SiteName, node_id: u64 },
    /// An application, in its own run.
    Application { run: RunId },
}

impl Pusher {
    fn toward(&self) -> Toward {
        match self {
            Pusher::Node { .. } => Toward::Node,
            Pusher::Application { .. } => Toward::Application,
        }
    }

    /// Observed: the run of an application is that of its token, whatever the call names.
    fn run(&self, run_id: u64) -> Result<RunId, FlowerError> {
        match self {
            Pusher::Application { run } => Ok(*run),
            Pusher::Node { .. } => run_of(run_id),
        }
    }

    fn principal(&self, run: RunId) -> Principal {
        match self {
            Pusher::Node { site, .. } => Principal::Participant(site.clone()),
            Pusher::Application { .. } => Principal::ServerApp(run),
        }
    }

    fn check_node(&self, named: u64) -> Result<(), FlowerError> {
        match self {
            Pusher::Node { node_id, .. } if *node_id != named => {
                let detail = "the node id is not that of the key";
                Err(FlowerError::new(FlowerCode::NodeAuthenticationFailed, detail))
            }
            Pusher::Application { .. } if named != crate::names::SERVER_NODE_ID => Err(FlowerError::new(
                FlowerCode::RuntimeUnexpectedNodeId,
                "an application speaks as the server",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_wrong_below_reaches_a_node_as_the_end_of_its_run_or_as_ask_again() {
        for (kind, status) in [
            (ErrorKind::InvalidArgument, 400),
            (ErrorKind::Unauthenticated, 503),
            (ErrorKind::PermissionDenied, 403),
            (ErrorKind::NotFound, 403),
            (ErrorKind::Conflict, 403),
            (ErrorKind::Exhausted, 503),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Timeout, 503),
            (ErrorKind::Internal, 503),
        ] {
            let told = Toward::Node.error(&Error::new(kind, "x")).for_fleet();
            assert_eq!(told.code.http().as_u16(), status, "{kind:?}");
        }
    }
}
