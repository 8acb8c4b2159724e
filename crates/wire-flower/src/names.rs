//! Flower's numbers for what the coordinator names: nodes, the server, runs and times.
//!
//! A node's number is what its participant's name spells, so that it needs no table and is the same after every restart.

use sheaf_domain::{Digest, Principal, RunId, SiteName, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{FlowerCode, FlowerError};

/// The number that stands for the server, and for the application that speaks through it.
pub(crate) const SERVER_NODE_ID: u64 = 1;
/// The only federation there is, as upstream calls it where accounts are not managed.
pub(crate) const FEDERATION: &str = "@none/default";
/// The only account there is.
pub(crate) const ACCOUNT_ID: &str = "<id:none>";
/// Its name.
pub(crate) const ACCOUNT_NAME: &str = "none";
/// What applications are called among tasks.
pub(crate) const SERVER_APP_TYPE: &str = "flwr-serverapp";

const KEY_PREFIX: &str = "key-";

/// A message that cannot be.
pub(crate) fn payload(detail: impl Into<String>) -> FlowerError {
    FlowerError::new(FlowerCode::InvalidProtobufPayload, detail)
}

/// The number of a participant; `None` for one that is no node.
pub(crate) fn node_id_of(site: &SiteName) -> Option<u64> {
    let digits = site.as_str().strip_prefix(KEY_PREFIX)?;
    u64::from_str_radix(digits, 16).ok().filter(|id| *id > SERVER_NODE_ID)
}

/// The participant with this number.
pub(crate) fn site_of(node_id: u64) -> Result<SiteName, FlowerError> {
    SiteName::new(format!("{KEY_PREFIX}{node_id:016x}")).map_err(|error| payload(error.to_string()))
}

/// Who has this number in a run: the application, or a node.
pub(crate) fn principal_of(node_id: u64, run: RunId) -> Result<Principal, FlowerError> {
    if node_id == SERVER_NODE_ID {
        return Ok(Principal::ServerApp(run));
    }
    Ok(Principal::Participant(site_of(node_id)?))
}

/// A run by its number.
pub(crate) fn run_of(run_id: u64) -> Result<RunId, FlowerError> {
    RunId::new(run_id).ok_or_else(|| payload("run 0 is no run"))
}

/// An object by its name: 64 lower-case hexadecimal digits.
pub(crate) fn object_of(object_id: &str) -> Result<Digest, FlowerError> {
    let plain = object_id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let parsed = if plain { object_id.parse().ok() } else { None };
    parsed.ok_or_else(|| {
        let shown: String = object_id.chars().take(72).collect();
        payload(format!("{shown:?} is no object id: it has 64 lower-case hexadecimal digits"))
    })
}

/// A time as Flower writes it; nothing for a time that has not come.
pub(crate) fn iso(at: Option<Timestamp>) -> String {
    let Some(at) = at else { return String::new() };
    let nanos = i128::from(at.as_millis()) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // Python's isoformat, with the offset spelled out.
    time.format(&Rfc3339).unwrap_or_default().replace('Z', "+00:00")
}

/// Seconds since the epoch.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit a double exactly")]
pub(crate) fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}

/// A time from seconds since the epoch; the last there is where they are beyond it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, and what is no number was refused before"
)]
pub(crate) fn timestamp(seconds: f64) -> Timestamp {
    Timestamp::from_millis(((seconds * 1000.0).max(0.0) as u64).min(TIME_MAX_MS))
}

/// The end of the year 9999, which every store can keep.
const TIME_MAX_MS: u64 = 253_402_300_799_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_number_and_one_name() {
        let site = site_of(0x5ea).unwrap();
        assert_eq!((site.as_str(), node_id_of(&site)), ("key-00000000000005ea", Some(0x5ea)));
        for other in ["berlin", "key-xyz", "key-0000000000000001"] {
            assert_eq!(node_id_of(&SiteName::new(other).unwrap()), None);
        }
        let run = RunId::new(7).unwrap();
        assert_eq!(principal_of(1, run).unwrap(), Principal::ServerApp(run));
    }

    #[test]
    fn times_are_written_as_python_does_and_never_overflow() {
        let at = Timestamp::from_millis(1_800_000_000_123);
        assert_eq!(iso(Some(at)), "2027-01-15T08:00:00.123+00:00");
        assert_eq!(iso(None), "");
        assert_eq!(timestamp(seconds(at)), at);
        assert_eq!(timestamp(f64::INFINITY).as_millis(), TIME_MAX_MS);
        assert_eq!(timestamp(-1.0).as_millis(), 0);
    }

    #[test]
    fn only_plain_digests_are_objects() {
        let id = "1c0de163ebbba9b7e6c78ba9bb113e8b94ff01a03cf67de3321ae49256aa968a";
        assert_eq!(object_of(id).unwrap().to_string(), id);
        for bad in ["", &id[1..], &id.to_uppercase(), &format!("{id}0")] {
            assert!(object_of(bad).is_err(), "{bad}");
        }
    }
}
