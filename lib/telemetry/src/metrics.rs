//! Where counters and histograms go.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::names;

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Another recorder was installed first.
#[derive(Debug, thiserror::Error)]
#[error("this process already records metrics: {0}")]
pub struct MetricsTaken(String);

const UPKEEP: std::time::Duration = std::time::Duration::from_secs(5);

/// Rows of a batch.
const ROWS_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Seconds: from a tiny model on loopback to a slow one under load.
const LATENCY_BUCKETS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

impl Metrics {
    /// Records every metric of this process from now on.
    ///
    /// # Errors
    /// Where a recorder is installed already.
    pub fn install() -> Result<Self, MetricsTaken> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), LATENCY_BUCKETS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full(names::BATCH_ROWS.to_owned()), ROWS_BUCKETS)
            })
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| MetricsTaken(error.to_string()))?;
        names::describe();
        Ok(Self(handle))
    }

    /// All of them in Prometheus' text form.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds samples into buckets every few seconds, for ever.
    ///
    /// Histograms keep raw samples until they are drained; where nobody scrapes, that
    /// would be all samples since the start.
    pub async fn upkeep(self) {
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tick.tick().await;
            self.0.run_upkeep();
        }
    }
}
