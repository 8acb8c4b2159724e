//! The one list of metric names: kind, unit, labels and help of everything a process may record.
//!
//! A name that is not here is dropped by the recorder; a label that is not listed with its name is a mistake.
//! Label values come from small closed sets: never a site, a run, a task, a path or a peer's text.

use ::metrics::Unit;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over fixed buckets.
    Histogram,
}

/// One entry of the list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// As `/metrics` spells it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// What it counts.
    pub unit: Unit,
    /// The labels it takes; empty for a metric that always exists.
    pub labels: &'static [&'static str],
    /// Upper bounds of the buckets of a histogram, in `unit`; empty otherwise.
    pub buckets: &'static [f64],
    /// One line for people.
    pub help: &'static str,
}

/// Finds a metric by its name.
pub fn find(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| metric.name == name)
}

/// The position of a metric in [`ALL`].
pub(crate) fn idx_of(name: &str) -> Option<usize> {
    ALL.iter().position(|metric| metric.name == name)
}

/// The label value for an HTTP method; a method that no route of ours takes is `other`.
pub fn method_label(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        _ => "other",
    }
}

/// The label value for an HTTP status: its class.
pub fn status_label(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}

macro_rules! list {
    ($($id:ident = $name:literal, $kind:ident, $unit:ident, $labels:expr, $buckets:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: &str = $name;
        )*
        /// Every metric a process may record.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            unit: Unit::$unit,
            labels: $labels,
            buckets: $buckets,
            help: $help,
        }),*];
    };
}

list! {
    BUILD_INFO = "sheaf_build_info", Gauge, Count, &["version"], &[],
        "Always 1; the label carries the version of the program.";
    ROUNDS_CLOSED_TOTAL = "sheaf_rounds_closed_total", Counter, Count, &[], &[],
        "Rounds whose new model versions were published.";
    SUBMISSIONS_TOTAL = "sheaf_submissions_total", Counter, Count, &["outcome"], &[],
        "Submissions answered, by outcome: accepted, duplicate, too_late, refused.";
    UPLOAD_BYTES_TOTAL = "sheaf_upload_bytes_total", Counter, Bytes, &[], &[],
        "Bytes of tensors taken in from participants and operators, durable when counted.";
    DOWNLOAD_BYTES_TOTAL = "sheaf_download_bytes_total", Counter, Bytes, &[], &[],
        "Bytes of tensors handed out.";
    INFLIGHT_BYTES = "sheaf_inflight_bytes", Gauge, Bytes, &[], &[],
        "Bytes reserved at this moment from the budget for uploads under way.";
    SITES_PRESENT = "sheaf_sites_present", Gauge, Count, &[], &[],
        "Sites that made progress or beat within the presence window.";
    RUNS = "sheaf_runs", Gauge, Count, &["phase"], &[],
        "Runs known to the server, by phase: running, finished, stopped, failed.";
    JOURNAL_APPEND_SECONDS = "sheaf_journal_append_seconds", Histogram, Seconds, &[], SECONDS_SHORT,
        "Time from handing a batch of journal entries to the store until it is durable.";
    FOLD_SECONDS = "sheaf_fold_seconds", Histogram, Seconds, &[], SECONDS_LONG,
        "Time to fold the updates of one stage output into the next version.";
    BLOB_STORED_BYTES = "sheaf_blob_stored_bytes", Gauge, Bytes, &[], &[],
        "Bytes of live objects in the blob store.";
    BLOB_SPOOL_BYTES = "sheaf_blob_spool_bytes", Gauge, Bytes, &[], &[],
        "Bytes the files of the blob store occupy, space to be used again included.";
    BLOB_DIRECT_IO = "sheaf_blob_direct_io", Gauge, Count, &[], &[],
        "1 when bytes of objects go past the page cache, 0 when the filesystem or the configuration does not let them.";
    HTTP_REQUESTS_TOTAL = "sheaf_http_requests_total", Counter, Count, &["front_end", "method", "status"], &[],
        "Requests answered, by front-end, method and class of status.";
    CONNECTIONS = "sheaf_connections", Gauge, Count, &[], &[],
        "Connections open at this moment.";
    CONNECTIONS_REFUSED_TOTAL = "sheaf_connections_refused_total", Counter, Count, &["reason"], &[],
        "Connections closed before a request was read, by reason: limit, descriptors, tls, greeting, revoked.";
    METRICS_DROPPED_TOTAL = "sheaf_metrics_dropped_total", Counter, Count, &[], &[],
        "Records dropped because their name is not listed or their metric has too many label sets.";
}

/// From a fast device's flush to a stalled one's, in seconds.
const SECONDS_SHORT: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// From a small model's fold to a large one's, in seconds.
const SECONDS_LONG: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_ours_and_stands_once() {
        for (idx, metric) in ALL.iter().enumerate() {
            assert!(metric.name.starts_with("sheaf_"), "{}", metric.name);
            assert!(
                metric.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{}",
                metric.name
            );
            assert_eq!(idx_of(metric.name), Some(idx), "{} stands twice", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn names_say_kind_and_unit() {
        for metric in ALL {
            assert_eq!(
                metric.kind == MetricKind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            let stem = metric.name.trim_end_matches("_total");
            assert_eq!(metric.unit == Unit::Bytes, stem.ends_with("_bytes"), "{}", metric.name);
            assert_eq!(metric.unit == Unit::Seconds, stem.ends_with("_seconds"), "{}", metric.name);
        }
    }

    #[test]
    fn histograms_and_only_they_have_rising_buckets() {
        for metric in ALL {
            assert_eq!(metric.kind == MetricKind::Histogram, !metric.buckets.is_empty(), "{}", metric.name);
            assert!(metric.buckets.is_sorted_by(|left, right| left < right), "{}", metric.name);
        }
    }

    #[test]
    fn label_values_made_from_a_peer_are_closed_sets() {
        assert_eq!(method_label("GET"), "GET");
        assert_eq!(method_label("BREW"), "other");
        assert_eq!([status_label(204), status_label(404), status_label(999)], ["2xx", "4xx", "other"]);
    }
}
