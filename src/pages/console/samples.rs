//! The numbers of the last ten minutes, so that a page that is opened late shows them at once.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::telemetry::metrics::Sample;

/// So many are kept: ten minutes of one every three seconds, in some 25 KiB.
const KEPT: usize = 200;

/// The last samples, the oldest first.
#[derive(Default)]
pub(super) struct Samples(VecDeque<(u64, Sample)>);

impl Samples {
    /// Adds one taken at that moment, in milliseconds since the epoch. The oldest goes if there are too many.
    pub(super) fn add(&mut self, at: u64, sample: Sample) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        // A clock that was set back: what came before it would lie in the future.
        self.0.retain(|(earlier, _)| *earlier < at);
        self.0.push_back((at, sample));
    }

    /// Those after that moment, as columns.
    pub(super) fn columns(&self, since: u64) -> Value {
        let new = || self.0.iter().filter(move |(at, _)| *at > since);
        let column = |of: fn(&Sample) -> Value| -> Vec<Value> {
            new().map(|(_, sample)| of(sample)).collect()
        };
        json!({
            "at": new().map(|(at, _)| *at).collect::<Vec<_>>(),
            "events": column(|sample| sample.events.into()),
            "reads": column(|sample| sample.reads.into()),
            "limited": column(|sample| sample.limited.into()),
            "overloaded": column(|sample| sample.overloaded.into()),
            "failed": column(|sample| sample.failed.into()),
            "deliveries": column(|sample| sample.deliveries.into()),
            "recovered": column(|sample| sample.recovered.into()),
            "redis_errors": column(|sample| sample.redis_errors.into()),
            "pending": column(|sample| sample.pending.into()),
            "oldest": column(|sample| sample.oldest.into()),
            "connections": column(|sample| sample.connections.into()),
            "in_flight": column(|sample| sample.in_flight.into()),
            "live_streams": column(|sample| sample.live_streams.into()),
            "redis_up": column(|sample| u8::from(sample.redis_up).into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_events(events: u64) -> Sample {
        Sample {
            events,
            ..Sample::default()
        }
    }

    #[test]
    fn the_last_ten_minutes_are_kept_and_no_more() {
        let mut samples = Samples::default();
        for n in 1..=1_000 {
            samples.add(n * 3_000, with_events(n));
        }
        let columns = samples.columns(0);
        let at = columns["at"].as_array().unwrap();
        assert_eq!((at.len(), &at[0]), (KEPT, &json!(801 * 3_000)));
        assert_eq!(columns["events"][KEPT - 1], 1_000);
        let new = samples.columns(998 * 3_000);
        assert_eq!(new["at"], json!([999 * 3_000, 3_000_000]));
        assert_eq!(new["events"], json!([999, 1_000]));
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_nothing_in_the_future() {
        let mut samples = Samples::default();
        for at in [1_000, 4_000, 7_000, 5_000] {
            samples.add(at, Sample::default());
        }
        assert_eq!(samples.columns(0)["at"], json!([1_000, 4_000, 5_000]));
    }
}
