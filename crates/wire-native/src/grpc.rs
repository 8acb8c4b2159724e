//! The native protocol over gRPC: tonic's generated service in front of [`Handlers`].
//!
//! Identity comes from the client certificate alone. A call without one is refused before its body is read; `Enrol` is the one
//! exception, and its body is small. An upload's length is reserved before its first chunk is taken.

mod chunks;
mod prepared;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use sheaf_domain::{ByteSpan, ErrorKind, Identity, Timestamp};
use sheaf_messages::v1::participant_server::{Participant, ParticipantServer};
use sheaf_messages::{self as messages, bounds, v1};
use tonic::{Code, Request, Status, Streaming};
use tower::{Service, ServiceExt as _};

use self::chunks::Chunks;
use crate::peer::{Ended, PeerAddr, PeerIdentity};
use crate::status::{ERROR_KIND, to_status};
use crate::{Error, Handlers};

type Reply<T> = Result<tonic::Response<T>, Status>;

/// The service as a router, to be merged with others on one port.
pub(crate) fn router(handlers: Handlers) -> axum::Router {
    let calls = Arc::new(Calls { handlers: handlers.clone() });
    let service = ParticipantServer::from_arc(Arc::clone(&calls))
        .max_decoding_message_size(bounds::LIST_BODY_LEN_MAX)
        .max_encoding_message_size(bounds::LIST_BODY_LEN_MAX);
    axum::Router::new().route_service(PATH, Guard { service, handlers, calls })
}

const PATH: &str = "/sheaf.native.v1.Participant/{method}";
const ENROL_PATH: &str = "/sheaf.native.v1.Participant/Enrol";

struct Calls {
    handlers: Handlers,
}

#[tonic::async_trait]
impl Participant for Calls {
    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Reply<v1::EnrolReply> {
        let peer = request.extensions().get::<PeerAddr>().copied();
        let unknown = || to_status(&Error::Unauthenticated("the peer's address is unknown".to_owned()));
        let peer = peer.ok_or_else(unknown)?.0.ip();
        reply(self.handlers.enrol(peer, request.into_inner()).await)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Reply<v1::RenewReply> {
        let who = self.caller(&request, Ended::Allowed)?;
        reply(self.handlers.renew(&who, request.into_inner()).await)
    }

    async fn beat(&self, request: Request<v1::BeatRequest>) -> Reply<v1::BeatReply> {
        let who = self.caller(&request, Ended::Refused)?;
        reply(self.handlers.beat(&who, request.into_inner()).await)
    }

    async fn next(&self, request: Request<v1::NextRequest>) -> Reply<v1::NextReply> {
        let who = self.caller(&request, Ended::Refused)?;
        reply(self.handlers.next(&who, request.into_inner()).await)
    }

    async fn read_version(&self, request: Request<v1::ReadVersionRequest>) -> Reply<v1::ReadVersionReply> {
        let who = self.caller(&request, Ended::Refused)?;
        let content = self.content(&who, &request.into_inner()).await;
        reply(content.map(|content| v1::ReadVersionReply { content }))
    }

    async fn missing(&self, request: Request<v1::MissingRequest>) -> Reply<v1::MissingReply> {
        let who = self.caller(&request, Ended::Refused)?;
        reply(self.handlers.missing(&who, request.into_inner()).await)
    }

    async fn put_piece(&self, _: Request<Streaming<v1::PutPieceRequest>>) -> Reply<v1::PutPieceReply> {
        // The guard has taken it before it comes here.
        Err(Status::unimplemented("an upload is a POST"))
    }

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Reply<v1::SubmitReply> {
        let who = self.caller(&request, Ended::Refused)?;
        reply(self.handlers.submit(&who, request.into_inner()).await)
    }

    async fn fail(&self, request: Request<v1::FailRequest>) -> Reply<v1::FailReply> {
        let who = self.caller(&request, Ended::Refused)?;
        reply(self.handlers.fail(&who, request.into_inner()).await)
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Reply<v1::LeaveReply> {
        let who = self.caller(&request, Ended::Refused)?;
        reply(self.handlers.leave(&who, request.into_inner()).await)
    }
}

impl Calls {
    fn caller<T>(&self, request: &Request<T>, ended: Ended) -> Result<Identity, Status> {
        let now = self.handlers.clock().now();
        let who = PeerIdentity::caller(request.extensions().get(), now, ended);
        who.map_err(|error| to_status(&error))
    }

    async fn content(&self, who: &Identity, request: &v1::ReadVersionRequest) -> Result<Bytes, Error> {
        let version = messages::version_from_wire(request.version.as_ref())?;
        let span = ByteSpan { offset: request.offset, len: request.length };
        self.handlers.read_version(who, &version, span).await
    }

    /// Answers a read with the shared bytes themselves.
    async fn read_prepared(&self, request: http::Request<Body>) -> Result<Response, Error> {
        let now = self.handlers.clock().now();
        let who = PeerIdentity::caller(request.extensions().get(), now, Ended::Refused)?;
        let asked = prepared::request(request.into_body()).await;
        let asked = asked.inspect_err(|error| {
            self.handlers.handle().note_malformed(&who, &error.to_string());
        })?;
        Ok(prepared::reply(self.content(&who, &asked).await?))
    }

    /// Takes a piece in without the copies of a decoder.
    async fn put_frames(&self, request: http::Request<Body>) -> Result<Response, Error> {
        let now = self.handlers.clock().now();
        let who = PeerIdentity::caller(request.extensions().get(), now, Ended::Refused)?;
        let taken = self.take_piece(&who, Chunks::of(request.into_body()));
        self.handlers.until_revoked(&who, taken).await?;
        // An empty message.
        Ok(prepared::reply(Bytes::new()))
    }

    async fn take_piece(&self, who: &Identity, mut chunks: Chunks) -> Result<(), Error> {
        let header = chunks.header().await?;
        let task = messages::task(&header.task)?;
        let digest = messages::digest(&header.digest)?;
        let mut upload = self.handlers.upload(who, task, header.length).await?;
        while let Some(part) = chunks.next().await? {
            upload.write(part).await?;
        }
        Ok(upload.finish(digest).await?)
    }
}

fn reply<T>(result: Result<T, Error>) -> Reply<T> {
    result.map(tonic::Response::new).map_err(|error| to_status(&error))
}

/// Stands before the service: no body of an unknown caller is read, but for `Enrol`, whose body is bounded. A message that the
/// service could not read is noted with its sender's name.
#[derive(Clone)]
struct Guard {
    service: ParticipantServer<Calls>,
    handlers: Handlers,
    calls: Arc<Calls>,
}

impl Service<http::Request<Body>> for Guard {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let (read, put) = (path == prepared::READ_PATH, path == chunks::PUT_PATH);
        if (read || put) && request.method() == http::Method::POST {
            let calls = Arc::clone(&self.calls);
            return Box::pin(async move {
                let answer = match read {
                    true => calls.read_prepared(request).await,
                    false => calls.put_frames(request).await,
                };
                Ok(answer.unwrap_or_else(|error| to_status(&error).into_http()))
            });
        }
        let Guard { service, handlers, .. } = self.clone();
        Box::pin(async move {
            let sender = sender(&request);
            let request = if request.uri().path() == ENROL_PATH {
                request.map(|body| Body::new(http_body_util::Limited::new(body, bounds::ENROL_BODY_LEN_MAX)))
            } else if let Err(error) = &sender {
                return Ok(to_status(error).into_http());
            } else {
                request
            };
            let mut response = service.oneshot(request).await?;
            if let Some(unread) = unread(response.headers()) {
                let kind = HeaderValue::from_static(ErrorKind::InvalidArgument.name());
                response.headers_mut().insert(ERROR_KIND, kind);
                if let Ok(sender) = sender {
                    handlers.handle().note_malformed(&sender, &unread);
                }
            }
            Ok(response.map(|body| Body::new(body.map_err(axum::Error::new))))
        })
    }
}

/// Whom a request comes from; what that somebody may do is checked by the call.
fn sender(request: &http::Request<Body>) -> Result<Identity, Error> {
    let peer = request.extensions().get::<PeerIdentity>();
    PeerIdentity::caller(peer, Timestamp::default(), Ended::Allowed)
}

/// What was wrong with a message that no call of ours has seen: such an answer does not carry our kind of error.
fn unread(headers: &http::HeaderMap) -> Option<String> {
    let status = Status::from_header_map(headers)?;
    let of_the_message = matches!(status.code(), Code::Internal | Code::InvalidArgument | Code::OutOfRange);
    let ours = status.metadata().contains_key(ERROR_KIND);
    (of_the_message && !ours).then(|| status.message().to_owned())
}
