//! The process's descriptors: raised as far as the system allows at the start, and shared out between files and connections.
//!
//! Files come first. A server that is out of descriptors for connections refuses them by name; one that is out of descriptors
//! for its store could not even say what is wrong.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but the blob store's files and connections: databases, logs, listeners, backups, signals.
const OTHERS: u64 = 128;
/// Connections are left at least this part of the limit, however many files the store may come to have.
const CONNECTIONS_SHARE_LEAST: u64 = 2;

/// How descriptors are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptors {
    /// The process's limit.
    pub(crate) limit: u64,
    /// Kept for files.
    pub(crate) reserved: u64,
    /// Connections at once.
    pub(crate) connections: usize,
    /// What says that it is not more.
    pub(crate) bound: Bound,
}

/// What bounds the number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// `listen.connections_max`.
    Configured,
    /// The process's limit of descriptors.
    Descriptors,
}

impl Descriptors {
    /// Shares out `limit` descriptors: enough for `files` files, then up to `connections_max` connections.
    fn share(limit: u64, files: u64, connections_max: usize) -> Descriptors {
        let reserved = files.saturating_add(OTHERS).min(limit - limit / CONNECTIONS_SHARE_LEAST);
        let left = usize::try_from(limit - reserved).unwrap_or(usize::MAX);
        let bound = if left < connections_max { Bound::Descriptors } else { Bound::Configured };
        Descriptors { limit, reserved, connections: left.min(connections_max), bound }
    }

    /// Raises the process's limit and says how it is shared out.
    pub(crate) fn raise(files: u64, connections_max: usize) -> Descriptors {
        let before = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        let limit = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => before.maximum,
            Err(error) => {
                tracing::warn!(%error, "the limit of descriptors could not be raised");
                before.current
            }
        };
        // No limit at all is as good as a very high one.
        let shared = Descriptors::share(limit.unwrap_or(u64::MAX), files, connections_max);
        let Descriptors { limit, reserved, connections, bound } = shared;
        let was = before.current.unwrap_or(u64::MAX);
        tracing::info!(limit, was, reserved, connections, "descriptors");
        if bound == Bound::Descriptors {
            tracing::warn!(
                limit,
                connections,
                connections_max,
                "fewer connections than listen.connections_max: raise the process's limit of descriptors (ulimit -n, LimitNOFILE)"
            );
        }
        shared
    }
}

impl Bound {
    /// The label of refused connections.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Bound::Configured => "limit",
            Bound::Descriptors => "descriptors",
        }
    }

    /// Why a connection is refused, for people.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Bound::Configured => "listen.connections_max is reached",
            Bound::Descriptors => {
                "the process's limit of descriptors is reached; those left are kept for files"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_and_connections_get_what_is_left() {
        let roomy = Descriptors::share(1 << 20, 3_200, 10_000);
        assert_eq!((roomy.connections, roomy.bound), (10_000, Bound::Configured));
        assert_eq!(roomy.reserved, 3_200 + OTHERS);
        let tight = Descriptors::share(4_096, 1_000, 10_000);
        assert_eq!((tight.connections, tight.bound), (4_096 - 1_000 - 128, Bound::Descriptors));
        let tiny = Descriptors::share(256, 3_200, 10_000);
        assert_eq!((tiny.connections, tiny.reserved), (128, 128));
        for limit in [0, 1, 2, 3, 255, 257, u64::MAX] {
            let shared = Descriptors::share(limit, u64::MAX, usize::MAX);
            assert!(shared.reserved + shared.connections as u64 <= limit, "{limit}");
            assert!(shared.reserved >= limit / 2, "{limit}");
        }
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let shared = Descriptors::raise(10, 5);
        assert_eq!(shared.connections, 5);
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
    }
}
