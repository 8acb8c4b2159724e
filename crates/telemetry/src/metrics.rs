//! The metrics of a process: one recorder, rendered as text for a `/metrics` route.
//!
//! Listens on nothing. Samples of histograms wait in memory until they are rendered or [`Metrics::upkeep`] runs,
//! so whoever installs the metrics calls one of the two every few seconds.

use std::sync::{Mutex, PoisonError};

use ::metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{
    Error,
    bounded::Bounded,
    names::{self, Metric, MetricKind},
};

/// The installed recorder; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Installs the process-wide recorder and describes every metric of [`names::ALL`]; a later call returns the
    /// one installed first.
    ///
    /// # Errors
    /// [`Error::Taken`] if another recorder was installed in this process.
    pub fn install() -> Result<Metrics, Error> {
        static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = installed.as_ref() {
            return Ok(metrics.clone());
        }
        let recorder = recorder();
        let metrics = Metrics { handle: recorder.handle() };
        ::metrics::set_global_recorder(Bounded::new(recorder)).map_err(|_| Error::Taken("metrics"))?;
        describe();
        ::metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        *installed = Some(metrics.clone());
        Ok(metrics)
    }

    /// Everything recorded so far, in the Prometheus text format (version 0.0.4).
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds waiting histogram samples into their buckets, so that they do not pile up while nobody scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for metric in names::ALL.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
        builder = with_buckets(builder, metric);
    }
    builder.build_recorder()
}

#[expect(clippy::expect_used, reason = "a unit test holds every histogram of the list to have buckets")]
fn with_buckets(builder: PrometheusBuilder, metric: &Metric) -> PrometheusBuilder {
    builder
        .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets)
        .expect("every listed histogram has buckets")
}

/// Describes every metric, and makes those without labels exist from the start, so that none is missing at zero.
fn describe() {
    for metric in names::ALL {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
        }
        if !metric.labels.is_empty() {
            continue;
        }
        match metric.kind {
            MetricKind::Counter => ::metrics::counter!(metric.name).increment(0),
            MetricKind::Gauge => ::metrics::gauge!(metric.name).set(0.0),
            MetricKind::Histogram => drop(::metrics::histogram!(metric.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SERIES_MAX;

    /// Records into a recorder of its own, then renders it.
    fn rendered(record: impl FnOnce()) -> String {
        let recorder = recorder();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&Bounded::new(recorder), || {
            describe();
            record();
        });
        handle.render()
    }

    #[test]
    fn metrics_without_labels_exist_at_zero_with_their_help() {
        let text = rendered(|| ());
        assert!(
            text.contains("# TYPE sheaf_rounds_closed_total counter\nsheaf_rounds_closed_total 0\n"),
            "{text}"
        );
        assert!(text.contains("# HELP sheaf_sites_present "), "{text}");
        assert!(text.contains("sheaf_fold_seconds_count 0\n"), "{text}");
    }

    #[test]
    fn samples_land_in_the_listed_buckets() {
        let text = rendered(|| ::metrics::histogram!(names::JOURNAL_APPEND_SECONDS).record(0.003));
        assert!(text.contains("sheaf_journal_append_seconds_bucket{le=\"0.0025\"} 0\n"), "{text}");
        assert!(text.contains("sheaf_journal_append_seconds_bucket{le=\"0.005\"} 1\n"), "{text}");
    }

    #[test]
    fn a_name_that_is_not_listed_is_dropped_and_counted() {
        let text = rendered(|| ::metrics::counter!("sheaf_invented_total").increment(9));
        assert!(!text.contains("sheaf_invented_total"), "{text}");
        assert!(text.contains("sheaf_metrics_dropped_total 1\n"), "{text}");
    }

    #[test]
    fn label_sets_are_bounded_and_known_ones_go_on_counting() {
        let text = rendered(|| {
            for idx in 0..SERIES_MAX + 5 {
                ::metrics::counter!(names::SUBMISSIONS_TOTAL, "outcome" => idx.to_string()).increment(1);
            }
            ::metrics::counter!(names::SUBMISSIONS_TOTAL, "outcome" => "0").increment(1);
        });
        assert_eq!(text.matches("sheaf_submissions_total{").count(), SERIES_MAX);
        assert!(text.contains("sheaf_submissions_total{outcome=\"0\"} 2\n"), "{text}");
        assert!(text.contains("sheaf_metrics_dropped_total 5\n"), "{text}");
    }

    #[test]
    fn a_second_install_returns_the_first() {
        let first = Metrics::install().unwrap();
        let second = Metrics::install().unwrap();
        ::metrics::gauge!(names::RUNS, "phase" => "running").set(2.0);
        assert!(first.render().contains("sheaf_runs{phase=\"running\"} 2\n"));
        assert!(second.render().contains("sheaf_build_info{version="));
        second.upkeep();
    }
}
