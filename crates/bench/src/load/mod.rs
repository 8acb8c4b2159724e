//! Loads: many native participants in one process, over the client's own transports, and the clock readings around them.
//!
//! A load trains nothing and keeps no model. It runs in a process of its own, is told what to do by a job in a file, and reports what it
//! saw; what the server used is read from the kernel at the moments the load names.

pub mod exchange;
mod member;
pub mod polls;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheaf_client::Error as ClientError;
use sheaf_client::participant::TransportKind;
use sheaf_runtime::Clock;

pub use member::{Member, Way, enrol_all};

use crate::Error;

/// What a load process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "load", rename_all = "snake_case", deny_unknown_fields)]
pub enum Job {
    /// Full rounds of an exchange.
    Exchange(exchange::Job),
    /// Beats and polls of many participants.
    Polls(polls::Job),
}

/// What every load knows of the server and its own members.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// The members' kits.
    pub kits: Vec<PathBuf>,
    /// How they reach the server.
    pub transport: TransportKind,
    /// Where the server listens without TLS, for members that are to use that; they enrol over TLS all the same.
    pub plaintext: Option<String>,
    /// The server's process, whose figures are read.
    pub server_pid: u32,
}

/// Calls again while the server says that it may help; counts how often.
async fn patiently<T, F>(clock: &dyn Clock, again: &mut u64, mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let started = clock.monotonic();
    loop {
        match call().await {
            Ok(done) => return Ok(done),
            Err(error) if error.is_transient() && clock.monotonic().saturating_sub(started) < PATIENCE => {
                tracing::debug!(%error, "calling again");
                *again += 1;
                let pause = error.retry_after().map_or(PAUSE, |pause| pause.as_duration().max(PAUSE));
                tokio::time::sleep(pause).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(50);
