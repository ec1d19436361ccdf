//! How long requests take.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::striped::{Padded, STRIPES, stripe};

/// Upper bounds of the duration buckets in seconds. A read takes some 0.3 ms, so the usual 5 ms would be far too coarse.
const BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// A histogram of seconds. That of `prometheus_client` takes a mutex for each observation.
#[derive(Debug, Clone, Default)]
pub(super) struct Durations(Arc<[Padded<DurationCells>; STRIPES]>);

#[derive(Debug, Default)]
struct DurationCells {
    /// One for each of `BUCKETS`, and one for what is above the last.
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_nanos: AtomicI64,
}

impl Durations {
    pub(super) fn observe(&self, seconds: f64) {
        let Some(Padded(cells)) = self.0.get(stripe()) else {
            return;
        };
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        if let Some(count) = cells.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let nanos = i64::try_from(nanos.as_nanos()).unwrap_or(i64::MAX);
        cells.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
        let mut buckets: Vec<(f64, u64)> = bounds.map(|bound| (bound, 0)).collect();
        let mut nanos = 0;
        for Padded(cells) in self.0.iter() {
            for ((_, total), count) in buckets.iter_mut().zip(&cells.counts) {
                *total += count.load(Ordering::Relaxed);
            }
            nanos += cells.sum_nanos.load(Ordering::Relaxed);
        }
        // The total is the sum of the same readings as the buckets, so that they agree.
        let total = buckets.iter().map(|(_, count)| count).sum();
        #[expect(clippy::cast_precision_loss, reason = "a sum of seconds is a float")]
        let sum = nanos as f64 / 1e9;
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
