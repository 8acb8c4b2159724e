//! The oldest clients of Flower: `start_client` and the one stream it opens, `FlowerService/Join`.
//!
//! The client opens the stream, the server speaks first, and then they take turns. An agent for each stream takes part in the run
//! in the client's place, as any participant does: it waits for work, sends it as one message, and hands in what the answer holds.
//! Nothing of a model is collected: tensors pass between socket and store in pieces. These clients prove nothing about themselves;
//! who may reach the listener takes part. Source: `transport.proto`, observed with flwr 1.42.0 and 1.39.0.

mod agent;
mod history;
mod order;
mod places;
pub mod reply;
mod scalars;
mod stream;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use sheaf_coordinator::Handle;
use sheaf_domain::{Digest, Identity, Role, SiteName};
use sheaf_runtime::TaskScope;
use tokio::sync::{Semaphore, watch};

pub use self::history::{History, Series};
pub use self::scalars::check_plan;

use self::agent::Agent;
use self::places::Places;
use self::stream::Stream;
use crate::answer::{grpc_answer, refuse_grpc};
use crate::error::{FlowerCode, FlowerError};
use crate::routes::Route;

/// The most clients at once, as upstream.
pub const CLIENTS_MAX: usize = 1000;
/// Arrays that are converted at once; each is held while it is.
const CONVERSIONS_MAX: usize = 1;

/// How the oldest clients are served.
#[derive(Debug, Clone)]
pub struct JoinSettings {
    /// The longest message either way, in bytes.
    pub message_len_max: u64,
    /// The property by which clients are named, instead of by a place.
    pub name_property: Option<String>,
}

/// The service of the oldest clients; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Join {
    handle: Handle,
    /// Who takes clients in.
    operator: Arc<Identity>,
    settings: Arc<JoinSettings>,
    places: Arc<Places>,
    conversions: Arc<Semaphore>,
    /// Set once clients are to leave: in how many seconds they are to come back, if at all.
    dismissed: Arc<watch::Sender<Option<i64>>>,
    agents: TaskScope,
}

impl Join {
    /// A service whose clients take part in the coordinator's runs; `operator` is who takes them in.
    pub fn new(handle: Handle, operator: SiteName, settings: JoinSettings) -> Join {
        let operator = Identity {
            trust_domain: handle.trust_domain().to_owned(),
            name: operator,
            role: Role::Operator,
            key_fingerprint: Digest::from_bytes([0; 32]),
        };
        Join {
            handle,
            operator: Arc::new(operator),
            settings: Arc::new(settings),
            places: Places::new(CLIENTS_MAX),
            conversions: Arc::new(Semaphore::new(CONVERSIONS_MAX)),
            dismissed: Arc::new(watch::Sender::new(None)),
            agents: TaskScope::new(),
        }
    }

    /// Sends every client away, to come back after so many seconds or (0) never; those at work first finish what they do, for as long
    /// as `patience`. The rest is cut off.
    ///
    /// # Cancel safety
    /// Clients that were told stay told; calling again goes on waiting.
    pub async fn dismiss(&self, back_in_s: i64, patience: Duration) {
        self.dismissed.send_replace(Some(back_in_s));
        if tokio::time::timeout(patience, self.agents.finished()).await.is_err() {
            tracing::warn!("clients that are still at work are cut off");
            self.agents.cancel();
            self.agents.finished().await;
        }
    }
}

/// The service on a listener of its own, as the fallback of a router: every other call is refused by name.
pub fn join_router(join: Join) -> Router {
    Router::new().fallback(call).with_state(join)
}

async fn call(State(join): State<Join>, request: Request) -> Response {
    let path = request.uri().path();
    if Route::of_grpc(path) != Some(Route::Join) {
        let shown: String = path.chars().take(120).collect();
        let detail = format!("{shown:?} is not served here: this address is for start_client");
        return refuse_grpc(&FlowerError::new(FlowerCode::UnknownPath, detail));
    }
    if join.dismissed.borrow().is_some() {
        return refuse_grpc(&FlowerError::new(FlowerCode::Unavailable, "the run is over"));
    }
    let (stream, pieces) = Stream::new(request.into_body());
    let agents = join.agents.clone();
    agents.spawn_until_cancelled(Agent::new(join, stream).attend());
    grpc_answer(pieces)
}
