//! HTTP/2 windows: how much a peer may send before it is read, which is a promise of memory to strangers.
//!
//! All connections draw on one pool. Each takes a share of what is left when it opens and gives it back when it closes: the
//! first ones get windows for a long way, and when there are many each has at least what the protocol starts with. So the
//! promise as a whole is the pool, and [`WINDOW_LEAST`] a connection beyond it.
//!
//! Source: RFC 9113 section 6.9.2: a window begins at 65,535 bytes.

use std::sync::{Arc, Mutex, PoisonError};

/// What a stream may send at least, in bytes.
const WINDOW_LEAST: u32 = 64 * 1024;
/// What a stream may send at most, in bytes: 10 ms at 100 MB a second.
const WINDOW_MOST: u32 = 1024 * 1024;
/// Beside its largest stream a connection may have this many bytes more under way, so that one upload that waits for its turn
/// does not hold up a beat.
const BESIDE: u32 = 64 * 1024;
/// Frames of a connection with a small window; the shortest bound the protocol knows is half of it.
const FRAME_LEAST: u32 = 32 * 1024;
/// Frames beyond this gain nothing.
const FRAME_MOST: u32 = 256 * 1024;
/// What all connections together may send before it is read, in bytes.
const POOL: u64 = 8 * 1024 * 1024;
/// A new connection takes this part of what is left.
const SHARE: u64 = 8;

/// The pool; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Windows(Arc<Mutex<u64>>);

/// The windows of one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Window {
    taken: u64,
    stream: u32,
    pool: Windows,
}

impl Windows {
    pub(crate) fn new() -> Windows {
        Windows(Arc::new(Mutex::new(POOL)))
    }

    /// The windows of a connection that opens now.
    pub(crate) fn take(&self) -> Window {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let share = u32::try_from(*left / SHARE).unwrap_or(u32::MAX).min(WINDOW_MOST);
        // A share too small to matter is left for others.
        let (stream, taken) =
            if share < 2 * WINDOW_LEAST { (WINDOW_LEAST, 0) } else { (share, u64::from(share)) };
        *left -= taken;
        Window { taken, stream, pool: self.clone() }
    }
}

impl Window {
    /// What one stream may send before it is read, in bytes.
    pub(crate) fn stream(&self) -> u32 {
        self.stream
    }

    /// The longest frame the connection may send, in bytes: one is gathered whole, beside what the windows promise.
    pub(crate) fn frame(&self) -> u32 {
        (self.stream / 2).clamp(FRAME_LEAST, FRAME_MOST)
    }

    /// What the connection may send before it is read, in bytes.
    pub(crate) fn connection(&self) -> u32 {
        self.stream.saturating_add(BESIDE)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        *self.pool.0.lock().unwrap_or_else(PoisonError::into_inner) += self.taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_get_long_windows_and_all_together_never_more_than_the_pool() {
        let windows = Windows::new();
        let open: Vec<Window> = (0..10_000).map(|_| windows.take()).collect();
        assert_eq!(open[0].stream(), WINDOW_MOST);
        assert!(open.windows(2).all(|pair| pair[0].stream() >= pair[1].stream()));
        assert_eq!(open.last().unwrap().stream(), WINDOW_LEAST);
        let promised: u64 = open.iter().map(|window| u64::from(window.stream())).sum();
        assert!(promised <= POOL + 10_000 * u64::from(WINDOW_LEAST), "{promised}");
        assert!(open.iter().all(|window| window.connection() > window.stream()));
        drop(open);
        assert_eq!(windows.take().stream(), WINDOW_MOST, "what was taken came back");
    }
}
