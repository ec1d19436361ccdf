//! What `/metrics` shows. Recording takes no lock: all numbers are atomics, and the numbers of a label are found in a table whose
//! entries never change. No label holds anything that a caller can choose.

mod durations;
mod labelled;
mod requests;
mod sample;
mod striped;

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::outcome::Outcome;
use durations::Durations;
use labelled::{Handles, Labelled};
use requests::{Collected, Requests};
use striped::Striped;

pub(crate) use sample::Sample;

/// The content type of [`Metrics::encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of this process.
pub(crate) struct Metrics {
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
    live_streams: Gauge,
    live_users: Gauge,
    live_notices: Counter,
    live_updates: Counter,
    live_silence: Gauge<f64, AtomicU64>,
    live_ended: Labelled<ReasonLabel>,
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

/// The metrics that `/metrics` shows, while they are made.
#[derive(Default)]
struct Shown(Registry);

impl Shown {
    /// A metric that begins at zero.
    fn plain<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    /// The same of a metric in seconds.
    fn seconds<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0
            .register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    /// Counters by a label. All `known` labels are shown from the start: a rate over a counter that appears with its first event
    /// misses that event.
    fn labelled<L>(&mut self, name: &str, help: &str, known: &[&'static str]) -> Labelled<L>
    where
        L: Clone + Eq + Hash + From<&'static str> + EncodeLabelSet + Debug + Send + Sync + 'static,
    {
        let counters = Labelled::new();
        self.0.register(name, help, counters.family.clone());
        for label in known {
            counters.add(label, 0);
        }
        counters
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// New metrics, all at zero.
    pub(crate) fn new() -> Self {
        let requests = Arc::default();
        let mut shown = Shown::default();
        let collected = Collected(Arc::clone(&requests));
        shown.0.register_collector(Box::new(collected));
        // In the order in which `/metrics` shows them.
        let mut metrics = Self {
            registry: Registry::default(),
            requests,
            http: shown.seconds(
                "unread_http_request_duration",
                "Time from a request's head to its answer",
            ),
            http_handles: Handles::default(),
            in_flight: shown.plain("unread_http_requests_in_flight", "Requests being worked on"),
            connections: shown.plain(
                "unread_connections",
                "Open connections of the public address",
            ),
            connections_refused: shown.labelled(
                "unread_connections_refused",
                "Connections answered with a refusal because there were too many, by what bound",
                &["address", "full"],
            ),
            connections_cut: shown.labelled(
                "unread_connections_cut",
                "Connections ended without an answer, by what their peers did not do in time or who needed the place",
                &["answers", "body", "room", "write"],
            ),
            unreadable_requests: shown.labelled(
                "unread_http_requests_unreadable",
                "Requests refused before any handler saw them, by what was wrong with them",
                &[
                    "head_timeout",
                    "head_too_large",
                    "malformed",
                    "target_too_long",
                ],
            ),
            redis_errors: shown.labelled(
                "unread_redis_errors",
                "Redis calls that failed",
                &[
                    "timeout", "io", "auth", "loading", "readonly", "oom", "schema", "server", "client",
                    "response",
                ],
            ),
            unreadable: shown.labelled(
                "unread_unreadable",
                "Stored keys and records that could not be read when they were needed",
                &["user_counts", "user_rooms", "room_meta", "room_members"],
            ),
            redis_up: shown.plain(
                "unread_redis_up",
                "1 while Redis answers and takes writes, else 0",
            ),
            script_reloads: shown.plain(
                "unread_script_reloads",
                "Scripts that Redis had forgotten and was given again",
            ),
            events: shown.labelled(
                "unread_events",
                "Events received, by what came of them",
                &["applied", "accepted", "duplicate", "rejected"],
            ),
            deliveries: shown.plain(
                "unread_deliveries",
                "Deliveries of a room's state to one user",
            ),
            recovered: shown.plain(
                "unread_fanouts_recovered",
                "Fan-outs finished for a pod that had left them",
            ),
            pending: shown.plain(
                "unread_fanouts_pending",
                "Fan-outs of any pod, in Redis, recorded but not finished",
            ),
            oldest: shown.seconds(
                "unread_fanout_oldest",
                "Age of the oldest unfinished fan-out of any pod, in Redis",
            ),
            rate_limited: shown.labelled(
                "unread_rate_limited",
                "Calls refused by a limit: local or cluster (the app's), user (a user's share of it), address (credentials refused too often)",
                &["local", "cluster", "user", "address"],
            ),
            overloaded: shown.labelled(
                "unread_overload_refusals",
                "Calls refused because this pod has too much to do, by what it has too much of",
                &["reads", "events", "bodies", "answers"],
            ),
            auth_failures: shown.labelled(
                "unread_auth_failures",
                "Calls refused for their credentials",
                &[],
            ),
            live_streams: shown.plain("unread_live_streams", "Open streams of counts"),
            live_users: shown.plain(
                "unread_live_users",
                "Users that at least one stream watches",
            ),
            live_notices: shown.plain(
                "unread_live_notices",
                "Times that Redis said that a watched user's counts had changed",
            ),
            live_updates: shown.plain("unread_live_updates", "Counts sent on streams"),
            live_silence: shown.seconds(
                "unread_live_silence",
                "How long ago the Redis server was last heard, on the connection that tells of changes, that has been silent for longest",
            ),
            live_ended: shown.labelled(
                "unread_live_ended",
                "Streams that the pod has ended, by the reason that it gave",
                &["draining", "expired", "full", "lifetime"],
            ),
        };
        shown.0.register(
            "unread_build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let start: Gauge<f64, AtomicU64> = shown.seconds(
            "process_start_time",
            "When the process started, since the epoch",
        );
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        start.set(since.map_or(0.0, |since| since.as_secs_f64()));
        metrics.registry = shown.0;
        metrics
    }

    /// The whole text of `/metrics`.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// Says whose calls of which endpoints will be counted: `unknown` are the endpoints of calls whose app is not known, `apps`
    /// has the id and the endpoints of each app, in the order of the configuration. All counts begin at zero.
    pub(crate) fn expect_calls(
        &self,
        unknown: &[&'static str],
        apps: Vec<(String, Vec<&'static str>)>,
    ) {
        let strangers = (String::new(), unknown.to_vec());
        let callers = std::iter::once(strangers).chain(apps);
        // Only the first call counts.
        let _ = self.requests.set(Requests::new(callers));
    }

    /// Says which dialect will be called, and at which endpoints, with a method of each.
    pub(crate) fn expect_dialect(
        &self,
        name: &'static str,
        endpoints: &[(&'static str, &'static str)],
    ) {
        self.auth_failures.add(name, 0);
        for (endpoint, method) in endpoints {
            self.http.get_or_create_owned(&HttpLabels {
                endpoint,
                method,
                status: 200,
            });
        }
    }

    /// A call had this outcome. `app` is the place of its app in the configuration, if the app is known.
    pub(crate) fn request(&self, app: Option<usize>, endpoint: &'static str, outcome: Outcome) {
        if let Some(requests) = self.requests.get() {
            requests.add(app, endpoint, outcome);
        }
    }

    /// A request was answered.
    pub(crate) fn http(&self, endpoint: &'static str, method: &str, status: u16, seconds: f64) {
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

    /// A request is being worked on, until the result of this is dropped.
    pub(crate) fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A connection is open, until the result of this is dropped.
    pub(crate) fn connected(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }

    /// A connection was answered with a refusal, by which bound.
    pub(crate) fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.add(reason, 1);
    }

    /// A connection was ended without an answer.
    pub(crate) fn connection_cut(&self, reason: &'static str) {
        self.connections_cut.add(reason, 1);
    }

    /// A request was refused before any handler saw it.
    pub(crate) fn unreadable_request(&self, reason: &'static str) {
        self.unreadable_requests.add(reason, 1);
    }

    /// A Redis call failed.
    pub(crate) fn redis_error(&self, kind: &'static str) {
        self.redis_errors.add(kind, 1);
    }

    /// Something stored could not be read: a key of this kind, such as `user_counts`.
    pub(crate) fn unreadable(&self, key: &'static str) {
        self.unreadable.add(key, 1);
    }

    /// Whether Redis answers and takes writes.
    pub(crate) fn redis_up(&self, up: bool) {
        self.redis_up.set(i64::from(up));
    }

    /// Redis had forgotten a script.
    pub(crate) fn script_reload(&self) {
        self.script_reloads.inc();
    }

    /// `n` events came out as `applied`, `accepted`, `duplicate` or `rejected`.
    pub(crate) fn event(&self, result: &'static str, n: u64) {
        self.events.add(result, n);
    }

    /// `n` deliveries were made.
    pub(crate) fn delivered(&self, n: u64) {
        self.deliveries.inc_by(n);
    }

    /// How many deliveries were made.
    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries.get()
    }

    /// `n` fan-outs of other pods were finished.
    pub(crate) fn recovered(&self, n: u64) {
        self.recovered.inc_by(n);
    }

    /// How many fan-outs are unfinished, and the age of the oldest.
    pub(crate) fn pending(&self, count: u64, oldest_seconds: f64) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.oldest.set(oldest_seconds);
    }

    /// A call was refused by a limit.
    pub(crate) fn rate_limited(&self, stage: &'static str) {
        self.rate_limited.add(stage, 1);
    }

    /// A call was refused because there are too many `reads`, `events`, `bodies` or untaken `answers` at once.
    pub(crate) fn overloaded(&self, cause: &'static str) {
        self.overloaded.add(cause, 1);
    }

    /// So many streams are open.
    pub(crate) fn live_streams(&self, count: usize) {
        self.live_streams
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many users are watched.
    pub(crate) fn live_users(&self, count: usize) {
        self.live_users
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Redis has said that a watched user's counts have changed.
    pub(crate) fn live_notice(&self) {
        self.live_notices.inc();
    }

    /// A stream has been sent the counts of a user.
    pub(crate) fn live_update(&self) {
        self.live_updates.inc();
    }

    /// How long the Redis server has said nothing that has been silent for longest.
    pub(crate) fn live_silence(&self, silence: std::time::Duration) {
        self.live_silence.set(silence.as_secs_f64());
    }

    /// The pod has ended a stream, for that reason.
    pub(crate) fn live_ended(&self, reason: &'static str) {
        self.live_ended.add(reason, 1);
    }

    /// A call was refused for its credentials.
    pub(crate) fn auth_failure(&self, reason: &'static str) {
        self.auth_failures.add(reason, 1);
    }
}

/// Counts a request as in flight until dropped, also when its caller hangs up and the handler is dropped with it.
pub(crate) struct InFlight(Gauge<i64, Striped>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts a connection as open until dropped.
pub(crate) struct Connected(Gauge<i64, Striped>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The method, or `other` if HTTP does not know it: callers may invent methods, and metrics must not grow with them.
pub(crate) fn method_name(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = [
        "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT",
    ];
    KNOWN
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_come_out_as_documented() {
        let metrics = Metrics::new();
        metrics.expect_calls(
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
