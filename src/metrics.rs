//! What `/metrics` shows. Recording takes no lock: handles are looked up in a table that only ever grows, and all
//! numbers are atomics. No label holds anything that a caller can choose.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{self, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use crate::outcome::Outcome;
use crate::telemetry::method_name;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the duration buckets in seconds. A read takes some 0.3 ms, so the usual 5 ms would be far too coarse.
const BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// All metrics of this process.
pub struct Metrics {
    registry: Registry,
    requests: Arc<OnceLock<Requests>>,
    http: Family<HttpLabels, Durations>,
    http_handles: Handles<Durations>,
    in_flight: Gauge<i64, Striped>,
    connections: Gauge<i64, Striped>,
    connections_refused: Labelled<ReasonLabel>,
    connections_cut: Labelled<ReasonLabel>,
    unreadable_requests: Labelled<ReasonLabel>,
    redis_errors: Labelled<KindLabel>,
    unreadable: Labelled<KeyLabel>,
    redis_up: Gauge,
    script_reloads: Counter,
    events: Labelled<ResultLabel>,
    deliveries: Counter,
    recovered: Counter,
    pending: Gauge,
    oldest: Gauge<f64, AtomicU64>,
    rate_limited: Labelled<StageLabel>,
    overloaded: Labelled<CauseLabel>,
    auth_failures: Labelled<ReasonLabel>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    endpoint: &'static str,
    method: &'static str,
    status: u16,
}

macro_rules! label {
    ($type:ident, $field:ident) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $type {
            $field: &'static str,
        }

        impl From<&'static str> for $type {
            fn from($field: &'static str) -> Self {
                Self { $field }
            }
        }
    };
}

label!(KindLabel, kind);
label!(KeyLabel, key);
label!(ResultLabel, result);
label!(StageLabel, stage);
label!(CauseLabel, cause);
label!(ReasonLabel, reason);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// New metrics, all at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let requests = Arc::default();
        r.register_collector(Box::new(Collected(Arc::clone(&requests))));
        let http = Family::default();
        r.register_with_unit(
            "unread_http_request_duration",
            "Time from a request's head to its answer",
            Unit::Seconds,
            http.clone(),
        );
        let in_flight = Gauge::<i64, Striped>::default();
        r.register(
            "unread_http_requests_in_flight",
            "Requests being worked on",
            in_flight.clone(),
        );
        let connections = Gauge::<i64, Striped>::default();
        r.register(
            "unread_connections",
            "Open connections of the public address",
            connections.clone(),
        );
        let connections_refused = Labelled::new();
        r.register(
            "unread_connections_refused",
            "Connections answered with a refusal because there were too many, by what bound",
            connections_refused.family.clone(),
        );
        let connections_cut = Labelled::new();
        r.register(
            "unread_connections_cut",
            "Connections ended without an answer, by what their peers did not do in time or who needed the place",
            connections_cut.family.clone(),
        );
        let unreadable_requests = Labelled::new();
        r.register(
            "unread_http_requests_unreadable",
            "Requests refused before any handler saw them, by what was wrong with them",
            unreadable_requests.family.clone(),
        );
        let redis_errors = Labelled::new();
        r.register(
            "unread_redis_errors",
            "Redis calls that failed",
            redis_errors.family.clone(),
        );
        let unreadable = Labelled::new();
        r.register(
            "unread_unreadable",
            "Stored keys and records that could not be read when they were needed",
            unreadable.family.clone(),
        );
        let redis_up = Gauge::default();
        r.register(
            "unread_redis_up",
            "1 while Redis answers and takes writes, else 0",
            redis_up.clone(),
        );
        let script_reloads = Counter::default();
        r.register(
            "unread_script_reloads",
            "Scripts that Redis had forgotten and was given again",
            script_reloads.clone(),
        );
        let events = Labelled::new();
        r.register(
            "unread_events",
            "Events received, by what came of them",
            events.family.clone(),
        );
        let deliveries = Counter::default();
        r.register(
            "unread_deliveries",
            "Deliveries of a room's state to one user",
            deliveries.clone(),
        );
        let recovered = Counter::default();
        r.register(
            "unread_fanouts_recovered",
            "Fan-outs finished for a pod that had left them",
            recovered.clone(),
        );
        let pending = Gauge::default();
        r.register(
            "unread_fanouts_pending",
            "Fan-outs of any pod, in Redis, recorded but not finished",
            pending.clone(),
        );
        let oldest = Gauge::<f64, AtomicU64>::default();
        r.register_with_unit(
            "unread_fanout_oldest",
            "Age of the oldest unfinished fan-out of any pod, in Redis",
            Unit::Seconds,
            oldest.clone(),
        );
        let rate_limited = Labelled::new();
        r.register(
            "unread_rate_limited",
            "Calls refused by a limit: local or cluster (the app's), user (a user's share of it), address (credentials refused too often)",
            rate_limited.family.clone(),
        );
        let overloaded = Labelled::new();
        r.register(
            "unread_overload_refusals",
            "Calls refused because this pod has too much to do, by what it has too much of",
            overloaded.family.clone(),
        );
        let auth_failures = Labelled::new();
        r.register(
            "unread_auth_failures",
            "Calls refused for their credentials",
            auth_failures.family.clone(),
        );
        r.register(
            "unread_build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let start = Gauge::<f64, AtomicU64>::default();
        start.set(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
        );
        r.register_with_unit(
            "process_start_time",
            "When the process started, since the epoch",
            Unit::Seconds,
            start,
        );
        let metrics = Self {
            registry,
            requests,
            http,
            http_handles: Handles::default(),
            in_flight,
            connections,
            connections_refused,
            connections_cut,
            unreadable_requests,
            redis_errors,
            unreadable,
            redis_up,
            script_reloads,
            events,
            deliveries,
            recovered,
            pending,
            oldest,
            rate_limited,
            overloaded,
            auth_failures,
        };
        // A rate over a counter that appears with its first event misses that event.
        for result in ["applied", "accepted", "duplicate", "rejected"] {
            metrics.event(result, 0);
        }
        for kind in [
            "timeout", "io", "auth", "loading", "readonly", "oom", "server", "client", "response",
        ] {
            metrics.redis_errors.add(kind, 0);
        }
        for stage in ["local", "cluster", "user", "address"] {
            metrics.rate_limited.add(stage, 0);
        }
        for key in ["user_counts", "user_rooms", "room_meta", "room_members"] {
            metrics.unreadable.add(key, 0);
        }
        for cause in ["reads", "events", "bodies", "answers"] {
            metrics.overloaded.add(cause, 0);
        }
        for reason in ["address", "full"] {
            metrics.connections_refused.add(reason, 0);
        }
        for reason in ["answers", "body", "room", "write"] {
            metrics.connections_cut.add(reason, 0);
        }
        for reason in [
            "head_timeout",
            "head_too_large",
            "malformed",
            "target_too_long",
        ] {
            metrics.unreadable_requests.add(reason, 0);
        }
        metrics
    }

    /// The whole text of `/metrics`.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// Says whose calls of which endpoints will be counted: by their names those of no app that is known, and those of each
    /// app, in the order of the configuration. All begin at zero.
    pub fn expect(&self, unknown: &[&'static str], apps: Vec<(String, Vec<&'static str>)>) {
        let strangers = (String::new(), unknown.to_vec());
        let callers = std::iter::once(strangers).chain(apps);
        // Only the first time says something.
        let _ = self.requests.set(Requests::new(callers));
    }

    /// Says which dialect will be called, and by which endpoints and methods.
    pub fn expect_dialect(&self, name: &'static str, endpoints: &[(&'static str, &'static str)]) {
        self.auth_failures.add(name, 0);
        for (endpoint, method) in endpoints {
            self.http.get_or_create_owned(&HttpLabels {
                endpoint,
                method,
                status: 200,
            });
        }
    }

    /// What a call came to: of the app with that place in the configuration, if it is known whose it is.
    pub fn request(&self, app: Option<usize>, endpoint: &'static str, outcome: Outcome) {
        if let Some(requests) = self.requests.get() {
            requests.add(app, endpoint, outcome);
        }
    }

    /// A request was answered.
    pub fn http(&self, endpoint: &'static str, method: &str, status: u16, seconds: f64) {
        let method = method_name(method);
        let make = || {
            self.http.get_or_create_owned(&HttpLabels {
                endpoint,
                method,
                status,
            })
        };
        self.http_handles
            .with(&(endpoint, method, status), make, |handle| {
                handle.observe(seconds);
            });
    }

    /// A request is being worked on until the answer is dropped.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A connection is open until what this answers is dropped.
    pub fn connected(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }

    /// A connection was answered with a refusal, by which bound.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.add(reason, 1);
    }

    /// A connection was ended without an answer.
    pub fn connection_cut(&self, reason: &'static str) {
        self.connections_cut.add(reason, 1);
    }

    /// A request was refused before any handler saw it.
    pub fn unreadable_request(&self, reason: &'static str) {
        self.unreadable_requests.add(reason, 1);
    }

    /// A Redis call failed.
    pub fn redis_error(&self, kind: &'static str) {
        self.redis_errors.add(kind, 1);
    }

    /// Something stored could not be read: a key of this kind, such as `user_counts`.
    pub fn unreadable(&self, key: &'static str) {
        self.unreadable.add(key, 1);
    }

    /// Whether Redis answers and takes writes.
    pub fn redis_up(&self, up: bool) {
        self.redis_up.set(i64::from(up));
    }

    /// Redis had forgotten a script.
    pub fn script_reload(&self) {
        self.script_reloads.inc();
    }

    /// `n` events came out as `applied`, `accepted`, `duplicate` or `rejected`.
    pub fn event(&self, result: &'static str, n: u64) {
        self.events.add(result, n);
    }

    /// `n` deliveries were made.
    pub fn delivered(&self, n: u64) {
        self.deliveries.inc_by(n);
    }

    /// How many deliveries were made.
    pub fn deliveries(&self) -> u64 {
        self.deliveries.get()
    }

    /// `n` fan-outs of other pods were finished.
    pub fn recovered(&self, n: u64) {
        self.recovered.inc_by(n);
    }

    /// How many fan-outs are unfinished, and the age of the oldest.
    pub fn pending(&self, count: u64, oldest_seconds: f64) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.oldest.set(oldest_seconds);
    }

    /// A call was refused by the rate limit.
    pub fn rate_limited(&self, stage: &'static str) {
        self.rate_limited.add(stage, 1);
    }

    /// A call was refused because there are too many `reads`, `events`, `bodies` or untaken `answers` at once.
    pub fn overloaded(&self, cause: &'static str) {
        self.overloaded.add(cause, 1);
    }

    /// A call was refused for its credentials.
    pub fn auth_failure(&self, reason: &'static str) {
        self.auth_failures.add(reason, 1);
    }
}

/// Counts a request as in flight until dropped, also when its caller hangs up and the handler is dropped with it.
pub struct InFlight(Gauge<i64, Striped>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts a connection as open until dropped.
pub struct Connected(Gauge<i64, Striped>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Calls by app, endpoint and outcome: one table for each stripe, so that threads don't write to the same cache lines.
#[derive(Debug)]
struct Requests {
    callers: Vec<Caller>,
    stripes: Vec<Box<[AtomicU64]>>,
}

/// Whose calls are counted.
#[derive(Debug)]
struct Caller {
    app: String,
    endpoints: Vec<&'static str>,
    /// Where its numbers begin in a table.
    first: usize,
}

impl Requests {
    fn new(callers: impl Iterator<Item = (String, Vec<&'static str>)>) -> Self {
        let mut cells = 0;
        let callers = callers
            .map(|(app, endpoints)| {
                let first = cells;
                cells += endpoints.len() * Outcome::ALL.len();
                Caller {
                    app,
                    endpoints,
                    first,
                }
            })
            .collect();
        let table = || {
            std::iter::repeat_with(AtomicU64::default)
                .take(cells)
                .collect()
        };
        Self {
            callers,
            stripes: std::iter::repeat_with(table).take(STRIPES).collect(),
        }
    }

    /// Of an app's calls those of an endpoint that it does not have are nobody's.
    fn add(&self, app: Option<usize>, endpoint: &'static str, outcome: Outcome) {
        let own = app.and_then(|app| self.callers.get(app.checked_add(1)?));
        let place = own.and_then(|caller| caller.place(endpoint, outcome));
        let place = place.or_else(|| self.callers.first()?.place(endpoint, outcome));
        let stripe = self.stripes.get(stripe());
        if let Some(cell) = stripe
            .zip(place)
            .and_then(|(table, place)| table.get(place))
        {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self, place: usize) -> u64 {
        let cells = self.stripes.iter().filter_map(|table| table.get(place));
        cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}

impl Caller {
    fn place(&self, endpoint: &'static str, outcome: Outcome) -> Option<usize> {
        let at = self.endpoints.iter().position(|known| *known == endpoint)?;
        Some(self.first + at * Outcome::ALL.len() + outcome as usize)
    }
}

/// [`Requests`] as the registry has them.
#[derive(Debug)]
struct Collected(Arc<OnceLock<Requests>>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut encoder = encoder.encode_descriptor(
            "unread_requests",
            "Calls by what came of them, whatever status the dialect has for it",
            None,
            MetricType::Counter,
        )?;
        let Some(requests) = self.0.get() else {
            return Ok(());
        };
        for caller in &requests.callers {
            for endpoint in &caller.endpoints {
                for outcome in Outcome::ALL {
                    let Some(place) = caller.place(endpoint, outcome) else {
                        continue;
                    };
                    let labels = [
                        ("app", caller.app.as_str()),
                        ("endpoint", endpoint),
                        ("outcome", outcome.word()),
                    ];
                    let mut encoder = encoder.encode_family(&labels)?;
                    encoder.encode_counter::<NoLabelSet, u64, u64>(&requests.count(place), None)?;
                }
            }
        }
        Ok(())
    }
}

/// Counters with one label.
struct Labelled<L: Clone + Eq + std::hash::Hash> {
    family: Family<L, Counter>,
    handles: Handles<Counter>,
}

impl<L> Labelled<L>
where
    L: Clone + Eq + std::hash::Hash + From<&'static str>,
{
    fn new() -> Self {
        Self {
            family: Family::default(),
            handles: Handles::default(),
        }
    }

    fn add(&self, label: &'static str, n: u64) {
        let make = || self.family.get_or_create_owned(&L::from(label));
        self.handles.with(&(label, "", 0), make, |counter| {
            counter.inc_by(n);
        });
    }
}

type Key = (&'static str, &'static str, u16);

/// Handles by label, found without a lock: slots are filled once and never change.
struct Handles<M> {
    slots: Box<[OnceLock<(Key, M)>]>,
}

/// Some twelve routes, two or three methods and six statuses each; what does not fit goes through the family's lock.
const SLOTS: usize = 512;

impl<M> Default for Handles<M> {
    fn default() -> Self {
        Self {
            slots: std::iter::repeat_with(OnceLock::new).take(SLOTS).collect(),
        }
    }
}

impl<M> Handles<M> {
    fn with(&self, key: &Key, make: impl Fn() -> M, f: impl FnOnce(&M)) {
        let start = hash(key);
        // A short probe: the table is never more than sparsely filled.
        for step in 0..16 {
            let Some(slot) = self.slots.get((start + step) % SLOTS) else {
                break;
            };
            let (held, handle) = slot.get_or_init(|| (*key, make()));
            if held == key {
                return f(handle);
            }
        }
        f(&make());
    }
}

fn hash(key: &Key) -> usize {
    // FNV-1a: labels are short words of ours, so nobody can aim at it.
    let bytes = key.0.bytes().chain(key.1.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ u64::from(key.2)).wrapping_mul(0x0100_0000_01b3);
    // The high half is the well mixed one; the remainder is below SLOTS.
    usize::try_from((hash >> 32) % SLOTS as u64).unwrap_or(0)
}

/// Threads that do not get in each other's way when they count; more of them share.
const STRIPES: usize = 16;

/// Which of the [`STRIPES`] this thread counts in.
fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    STRIPE.with(|stripe| *stripe)
}

/// On cache lines of its own, so that writing to one does not slow down the next.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// A number that many threads move up and down, and that is seldom read.
#[derive(Debug, Default)]
struct Striped([Padded<AtomicI64>; STRIPES]);

impl Striped {
    fn add(&self, by: i64) -> i64 {
        let part = self.0.get(stripe());
        part.map_or(0, |part| part.0.fetch_add(by, Ordering::Relaxed))
    }
}

impl gauge::Atomic<i64> for Striped {
    fn inc(&self) -> i64 {
        self.add(1)
    }

    fn inc_by(&self, by: i64) -> i64 {
        self.add(by)
    }

    fn dec(&self) -> i64 {
        self.add(-1)
    }

    fn dec_by(&self, by: i64) -> i64 {
        self.add(-by)
    }

    fn set(&self, to: i64) -> i64 {
        let was = self.get();
        self.add(to - was);
        was
    }

    fn get(&self) -> i64 {
        let parts = self.0.iter().map(|part| part.0.load(Ordering::Relaxed));
        parts.sum()
    }
}

/// A histogram of seconds. The crate's own one takes a mutex for each observation.
#[derive(Debug, Clone, Default)]
struct Durations(Arc<[Padded<DurationCells>; STRIPES]>);

#[derive(Debug, Default)]
struct DurationCells {
    /// One for each of `BUCKETS` and one for what is above.
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_nanos: AtomicI64,
}

impl Durations {
    fn observe(&self, seconds: f64) {
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
        // The total from the same reading, so that it equals the last bucket.
        let total = buckets.iter().map(|(_, count)| count).sum();
        #[expect(clippy::cast_precision_loss, reason = "a sum of seconds is a float")]
        let sum = nanos as f64 / 1e9;
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_come_out_as_documented() {
        let metrics = Metrics::new();
        metrics.expect(
            &["none"],
            vec![("a\"b".into(), vec!["x", "y"]), ("c".into(), vec!["y"])],
        );
        metrics.request(None, "none", Outcome::BadRequest);
        metrics.request(Some(0), "y", Outcome::Redis);
        metrics.request(Some(1), "none", Outcome::Ok);
        metrics.http("imkit-rooms", "GET", 200, 0.000_3);
        metrics.http("imkit-rooms", "GET", 200, 60.0);
        metrics.http("imkit-rooms", "BREW", 405, 0.001);
        metrics.redis_error("timeout");
        metrics.unreadable("user_counts");
        metrics.redis_up(true);
        metrics.script_reload();
        metrics.event("applied", 3);
        metrics.delivered(7);
        metrics.recovered(1);
        metrics.pending(2, 1.5);
        metrics.rate_limited("pod");
        metrics.auth_failure("bad_token");
        metrics.overloaded("bodies");
        metrics.connection_refused("full");
        metrics.connection_cut("write");
        metrics.unreadable_request("malformed");
        let connected = metrics.connected();
        let guard = metrics.in_flight();
        let text = metrics.encode();
        for line in [
            "unread_requests_total{app=\"\",endpoint=\"none\",outcome=\"bad_request\"} 1",
            "unread_requests_total{app=\"\",endpoint=\"none\",outcome=\"ok\"} 1",
            "unread_requests_total{app=\"a\\\"b\",endpoint=\"y\",outcome=\"redis\"} 1",
            "unread_requests_total{app=\"a\\\"b\",endpoint=\"x\",outcome=\"redis\"} 0",
            "unread_requests_total{app=\"c\",endpoint=\"y\",outcome=\"internal\"} 0",
            "unread_http_request_duration_seconds_bucket{le=\"0.00025\",endpoint=\"imkit-rooms\",method=\"GET\",status=\"200\"} 0",
            "unread_http_request_duration_seconds_bucket{le=\"0.0005\",endpoint=\"imkit-rooms\",method=\"GET\",status=\"200\"} 1",
            "unread_http_request_duration_seconds_bucket{le=\"10.0\",endpoint=\"imkit-rooms\",method=\"GET\",status=\"200\"} 1",
            "unread_http_request_duration_seconds_bucket{le=\"+Inf\",endpoint=\"imkit-rooms\",method=\"GET\",status=\"200\"} 2",
            "unread_http_request_duration_seconds_count{endpoint=\"imkit-rooms\",method=\"GET\",status=\"200\"} 2",
            "unread_http_request_duration_seconds_sum{endpoint=\"imkit-rooms\",method=\"GET\",status=\"200\"} 60.0003",
            "unread_http_request_duration_seconds_count{endpoint=\"imkit-rooms\",method=\"other\",status=\"405\"} 1",
            "unread_http_requests_in_flight 1",
            "unread_connections 1",
            "unread_connections_refused_total{reason=\"full\"} 1",
            "unread_connections_refused_total{reason=\"address\"} 0",
            "unread_connections_cut_total{reason=\"write\"} 1",
            "unread_connections_cut_total{reason=\"room\"} 0",
            "unread_http_requests_unreadable_total{reason=\"malformed\"} 1",
            "unread_http_requests_unreadable_total{reason=\"head_timeout\"} 0",
            "unread_redis_errors_total{kind=\"timeout\"} 1",
            "unread_unreadable_total{key=\"user_counts\"} 1",
            "unread_redis_up 1",
            "unread_script_reloads_total 1",
            "unread_events_total{result=\"applied\"} 3",
            "unread_events_total{result=\"rejected\"} 0",
            "unread_deliveries_total 7",
            "unread_fanouts_recovered_total 1",
            "unread_fanouts_pending 2",
            "unread_fanout_oldest_seconds 1.5",
            "unread_rate_limited_total{stage=\"pod\"} 1",
            "unread_auth_failures_total{reason=\"bad_token\"} 1",
            "unread_overload_refusals_total{cause=\"bodies\"} 1",
            "unread_overload_refusals_total{cause=\"reads\"} 0",
            concat!(
                "unread_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nnot in\n{text}");
        }
        assert!(text.contains("process_start_time_seconds 1"), "{text}");
        drop((guard, connected));
        let text = metrics.encode();
        for gauge in ["unread_http_requests_in_flight 0", "unread_connections 0"] {
            assert!(text.contains(gauge), "{gauge}\nnot in\n{text}");
        }
    }

    #[test]
    fn more_labels_than_slots_are_still_counted() {
        let metrics = Metrics::new();
        for _ in 0..2 {
            for status in 0..1000 {
                metrics.http("r", "GET", status, 0.1);
            }
        }
        let text = metrics.encode();
        for status in [0, 500, 999] {
            let line = format!(
                "unread_http_request_duration_seconds_count{{endpoint=\"r\",method=\"GET\",status=\"{status}\"}} 2"
            );
            assert!(text.contains(&line), "{status}");
        }
    }
}
