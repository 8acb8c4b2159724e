//! A recorder that lets through only listed names and a bounded number of label sets per name.
//!
//! What is dropped is counted in [`names::METRICS_DROPPED_TOTAL`] instead of being kept.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::names;

/// The most label sets one metric may have; further ones are dropped and counted.
pub const SERIES_MAX: usize = 128;

/// Wraps a recorder and keeps its memory bounded.
pub(crate) struct Bounded<R> {
    inner: R,
    dropped: Counter,
    /// The label sets seen, one set per entry of [`names::ALL`]. Whole keys: their hashes alone collide.
    seen: Vec<RwLock<HashSet<Key>>>,
}

impl<R: Recorder> Bounded<R> {
    pub(crate) fn new(inner: R) -> Bounded<R> {
        let metadata = Metadata::new(module_path!(), ::metrics::Level::INFO, Some(module_path!()));
        let dropped = inner.register_counter(&Key::from_static_name(names::METRICS_DROPPED_TOTAL), &metadata);
        let seen = names::ALL.iter().map(|_| RwLock::default()).collect();
        Bounded { inner, dropped, seen }
    }

    fn admits(&self, key: &Key) -> bool {
        let admitted = names::idx_of(key.name())
            .and_then(|idx| self.seen.get(idx))
            .is_some_and(|seen| remembers(seen, key));
        if !admitted {
            self.dropped.increment(1);
        }
        admitted
    }
}

/// Whether the label set is known already, or there is room to make it known.
fn remembers(seen: &RwLock<HashSet<Key>>, key: &Key) -> bool {
    if seen.read().unwrap_or_else(PoisonError::into_inner).contains(key) {
        return true;
    }
    let mut seen = seen.write().unwrap_or_else(PoisonError::into_inner);
    seen.contains(key) || (seen.len() < SERIES_MAX && seen.insert(key.clone()))
}

impl<R: Recorder> Recorder for Bounded<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        if self.admits(key) { self.inner.register_counter(key, metadata) } else { Counter::noop() }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        if self.admits(key) { self.inner.register_gauge(key, metadata) } else { Gauge::noop() }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        if self.admits(key) { self.inner.register_histogram(key, metadata) } else { Histogram::noop() }
    }
}
