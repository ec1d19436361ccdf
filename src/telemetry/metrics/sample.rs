//! Some of the numbers at one moment, for the plots of the console.

use super::Metrics;
use super::requests::Requests;
use crate::outcome::Outcome;

/// The endpoint that takes events in. All other endpoints answer reads.
const EVENTS: &str = "native_events";

/// Some of the metrics at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sample {
    /// Events received so far, whatever came of them.
    pub events: u64,
    /// Reads answered so far.
    pub reads: u64,
    /// Calls refused so far by a limit.
    pub limited: u64,
    /// Calls refused so far because the pod had too much to do.
    pub overloaded: u64,
    /// Calls that failed so far because of Redis or of a bug.
    pub failed: u64,
    /// Deliveries so far.
    pub deliveries: u64,
    /// Fan-outs finished so far for pods that had left them.
    pub recovered: u64,
    /// Commands that Redis failed so far.
    pub redis_errors: u64,
    /// Fan-outs that are recorded and not finished.
    pub pending: i64,
    /// The age of the oldest of them, in seconds.
    pub oldest: f64,
    /// Open connections.
    pub connections: i64,
    /// Requests being worked on.
    pub in_flight: i64,
    /// Open streams of counts.
    pub live_streams: i64,
    /// Whether Redis answers and takes writes.
    pub redis_up: bool,
}

impl Metrics {
    /// The numbers of this moment. They are read one after the other, so one may be a little newer than another.
    pub(crate) fn sample(&self) -> Sample {
        let calls = |wanted: fn(&str, Outcome) -> bool| {
            let requests = self.requests.get();
            requests.map_or(0, |requests: &Requests| requests.of_apps(wanted))
        };
        Sample {
            events: self.events.total(),
            reads: calls(|endpoint, outcome| endpoint != EVENTS && outcome == Outcome::Ok),
            limited: self.rate_limited.total(),
            overloaded: self.overloaded.total(),
            failed: calls(|_, outcome| matches!(outcome, Outcome::Redis | Outcome::Internal)),
            deliveries: self.deliveries.get(),
            recovered: self.recovered.get(),
            redis_errors: self.redis_errors.total(),
            pending: self.pending.get(),
            oldest: self.oldest.get(),
            connections: self.connections.get(),
            in_flight: self.in_flight.get(),
            live_streams: self.live_streams.get(),
            redis_up: self.redis_up.get() == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_the_calls_of_apps_that_were_answered_and_take_no_events() {
        let metrics = Metrics::new();
        metrics.expect_calls(
            &["unknown"],
            vec![("a".into(), vec![EVENTS, "x"]), ("b".into(), vec!["x"])],
        );
        metrics.request(None, "unknown", Outcome::Ok);
        metrics.request(Some(0), EVENTS, Outcome::Ok);
        metrics.request(Some(0), EVENTS, Outcome::Redis);
        metrics.request(Some(0), "x", Outcome::Ok);
        metrics.request(Some(1), "x", Outcome::Ok);
        metrics.request(Some(1), "x", Outcome::NotFound);
        metrics.event("applied", 3);
        metrics.event("rejected", 2);
        metrics.rate_limited("local");
        metrics.rate_limited("user");
        metrics.pending(4, 1.5);
        let sample = metrics.sample();
        assert_eq!((sample.reads, sample.failed), (2, 1));
        assert_eq!((sample.events, sample.limited), (5, 2));
        assert_eq!((sample.pending, sample.oldest), (4, 1.5));
        assert!(!sample.redis_up);
    }
}
