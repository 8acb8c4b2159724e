//! The log of a run on its way to an operator, as it grows; it ends with the run, or when the operator may not read it any more.
//!
//! Over HTTP a stream cannot say how it ends, so a last line of the log does; over gRPC the trailers say it as well.

use bytes::Bytes;
use futures_util::stream;
use prost::Message;
use sheaf_coordinator::LogCursor;
use sheaf_domain::RunId;

use crate::answer::Messages;
use crate::control::told;
use crate::error::FlowerError;
use crate::front::Flower;
use crate::names::seconds;
use crate::operators::Caller;
use crate::proto::StreamLogsResponse;

/// How far a log was read, by whom.
struct Reading {
    flower: Flower,
    caller: Caller,
    run: RunId,
    from: LogCursor,
    latest_s: f64,
}

enum State {
    Reading(Box<Reading>),
    Refused(FlowerError),
    Over,
}

/// The lines of a run's log from `from` on.
pub(crate) fn follow(flower: Flower, caller: Caller, run: RunId, from: LogCursor) -> Messages {
    let first = State::Reading(Box::new(Reading { flower, caller, run, from, latest_s: 0.0 }));
    Box::pin(stream::unfold(first, |state| async move {
        match state {
            State::Reading(reading) => reading.next().await,
            State::Refused(error) => Some((Err(error), State::Over)),
            State::Over => None,
        }
    }))
}

impl Reading {
    async fn next(mut self: Box<Reading>) -> Option<(Result<Bytes, FlowerError>, State)> {
        let relays = &self.flower.relays;
        let may_read = || self.flower.operator(&self.caller).map(drop);
        let read = tokio::select! {
            biased;
            refusal = relays.until_refused(may_read) => {
                let line = format!("[the log is not shown any further: {}]\n", refusal.detail);
                return Some((Ok(self.lines(line)), State::Refused(refusal)));
            }
            read = relays.log_lines(self.run, self.from) => read,
        };
        match read {
            Ok(Some((lines, end))) => {
                self.from = end;
                self.latest_s = lines.last().map_or(0.0, |line| seconds(line.at));
                let message = self.lines(lines.into_iter().map(|line| line.text).collect());
                Some((Ok(message), State::Reading(self)))
            }
            Ok(None) => None,
            Err(error) => Some((Err(told(&error)), State::Over)),
        }
    }

    fn lines(&self, log_output: String) -> Bytes {
        StreamLogsResponse { log_output, latest_timestamp: self.latest_s }.encode_to_vec().into()
    }
}
