//! `GrpcAdapter/SendReceive`: a SuperNode's call in an envelope, as `flower-supernode --grpc-adapter` of releases up to 1.39 sends it.
//!
//! The envelope names the call's message and holds it whole, so an object in it is held whole too: what is longer than any message may be
//! is refused. Everything else is the call's own. Observed with flwr 1.39.0.

use prost::Message as _;

use crate::answer::Answer;
use crate::connection::Signed;
use crate::error::{FlowerCode, FlowerError};
use crate::front::Flower;
use crate::incoming::{Incoming, MESSAGE_LEN_MAX};
use crate::proto::MessageContainer;
use crate::push::pull_prefix;
use crate::routes::FleetCall;

/// The names of the envelope's metadata, and what this server says of itself.
const PACKAGE: [(&str, &str); 2] =
    [("flower-package-name", "sheaf"), ("flower-version", env!("CARGO_PKG_VERSION"))];
const PACKAGE_VERSION: &str = "flower-package-version";
const QUALNAME: &str = "grpc-message-qualname";

impl Flower {
    /// Serves the call in an envelope.
    ///
    /// # Errors
    /// As [`Flower::fleet`].
    pub(crate) async fn adapted(&self, signed: &Signed, incoming: Incoming) -> Result<Answer, FlowerError> {
        // It may be long: nothing of it is held for somebody who has signed nothing.
        let checked = self.authenticate(signed).map_err(FlowerError::for_fleet);
        let (_, incoming) = incoming.of_checked(checked).await?;
        let envelope: MessageContainer =
            incoming.decode_envelope(&self.relays).await.map_err(FlowerError::for_fleet)?;
        let Some(call) = FleetCall::of_request_name(&envelope.grpc_message_name) else {
            let shown: String = envelope.grpc_message_name.chars().take(64).collect();
            tracing::warn!(name = shown, "an envelope holds no call of a SuperNode");
            return Err(FlowerError::new(FlowerCode::UnknownPath, "no such call").for_fleet());
        };
        let answer = self.fleet(call, signed, Incoming::whole(envelope.grpc_message_content)).await?;
        let name = call.response_name();
        let mut metadata: std::collections::BTreeMap<String, String> =
            PACKAGE.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        metadata.insert(PACKAGE_VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        metadata.insert(QUALNAME.to_owned(), name.clone());
        let envelope = MessageContainer {
            metadata,
            grpc_message_name: name,
            grpc_message_content: whole(answer).await.map_err(FlowerError::for_fleet)?.into(),
        };
        Ok(Answer::Message(envelope.encode_to_vec().into()))
    }
}

/// An answer's message, held whole.
async fn whole(answer: Answer) -> Result<Vec<u8>, FlowerError> {
    match answer {
        Answer::Message(message) => Ok(message.to_vec()),
        Answer::Object(mut reader) if reader.len() <= MESSAGE_LEN_MAX => {
            let mut message = pull_prefix(reader.len()).to_vec();
            let broken = |error: sheaf_coordinator::Error| {
                FlowerError::new(FlowerCode::Unavailable, error.to_string())
            };
            while let Some(bytes) = reader.next().await.map_err(broken)? {
                message.extend_from_slice(&bytes);
            }
            Ok(message)
        }
        Answer::Object(_) | Answer::Stream(_) => {
            let detail = format!("an envelope holds at most {MESSAGE_LEN_MAX} bytes");
            Err(FlowerError::new(FlowerCode::TooLarge, detail))
        }
    }
}
