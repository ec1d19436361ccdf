//! How often an app and its users may call. Each app has a gate for each endpoint with a limit. A gate is a GCRA in this pod
//! (`governor`, one atomic number). With scope `cluster` there is a second GCRA in Redis, which the reader charges in the round
//! trip of the read itself (or, far from the limit, milliseconds after it). A call that this pod refuses never reaches Redis. If
//! Redis refuses a call, the pod refuses all further calls until Redis would let one through.
//!
//! Where end users' own devices call, each user has a share of the app's limit, so that one device can't use all of it. A share
//! is a GCRA in this pod. Users who call often have a second one in Redis, to which the pods report calls in the background. A
//! pod remembers 32,768 users of all apps and endpoints together, and forgets users who have not called lately. A call with a user
//! token is counted against such a share only, since the app itself has no limit on the native API.
//!
//! No caller is refused, or told to wait, for longer than a whole burst takes to come back, whatever Redis answers.

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, QuantaClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use quick_cache::Equivalent;
use quick_cache::sync::Cache;

use crate::config::{AppConfig, LimitScope, RateLimit, UserRateLimit};
use crate::error::{Error, Result};
use crate::names::UserId;
use crate::quota::{Charge, Limit, Tab, UserShare, Verdict};
use crate::telemetry::metrics::Metrics;

/// How many users a pod remembers, of all apps and endpoints together. Each takes some 300 bytes.
const USERS: usize = 32 * 1024;

type Local = RateLimiter<NotKeyed, InMemoryState, QuantaClock, StateInformationMiddleware>;

/// An endpoint that is limited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    /// Its name, a short fixed word.
    pub name: &'static str,
    /// What its calls are counted against.
    pub allowance: Allowance,
}

/// What the calls of an endpoint are counted against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Allowance {
    /// The app's limit, of which one user may use such a part: above 0, and at most 1.
    OfApp(fn(&AppConfig) -> f64),
    /// A limit that each user has alone.
    OfEachUser(fn(&AppConfig) -> UserRateLimit),
}

/// The limits of all apps. It is built once and shared by all workers: if each worker had a limiter of its own, each would let
/// through the whole limit.
pub(crate) struct Limiter {
    /// By the app's place in the configuration; empty where the app has no limit.
    apps: Vec<Vec<Gate>>,
    users: Cache<UserKey, Arc<LimitedUser>>,
    metrics: Arc<Metrics>,
}

impl Limiter {
    /// Makes a gate for each app and each of `endpoints`, unless its `per_second` is 0.
    pub(crate) fn new(apps: &[AppConfig], endpoints: &[Endpoint], metrics: Arc<Metrics>) -> Self {
        let mut places = 0..;
        let gates = |app: &AppConfig| {
            endpoints
                .iter()
                .zip(&mut places)
                .filter_map(|(endpoint, place)| Gate::new(app, endpoint, place))
                .collect()
        };
        Self {
            apps: apps.iter().map(gates).collect(),
            users: Cache::new(USERS),
            metrics,
        }
    }

    /// Counts one call of the app's endpoint in this pod, and decides on it. To be used once per call, after authentication.
    pub(crate) fn enter(&self, app: usize, endpoint: &'static str) -> Entry<'_> {
        match self.gate(app, endpoint) {
            Some(gate) => self.enter_gate(gate, None),
            None => self.unlimited(),
        }
    }

    /// The same for a call by one of the app's users: it is also counted against the user's own share.
    pub(crate) fn enter_as(
        &self,
        app: usize,
        endpoint: &'static str,
        user: &Arc<UserId>,
    ) -> Entry<'_> {
        let Some(gate) = self.gate(app, endpoint) else {
            return self.unlimited();
        };
        let Some(each) = &gate.each_user else {
            return self.enter_gate(gate, None);
        };
        let known = self.user(gate, each, user);
        let verdict = match known.tab.wait() {
            Some(wait) => each.rate.refusal(wait),
            None => each.rate.take(&known.local),
        };
        if verdict.allowed && !gate.is_of_each_user {
            return self.enter_gate(gate, Some((known, verdict)));
        }
        if verdict.allowed {
            return Entry {
                report: gate.report(&known.tab),
                ..self.entry(gate, verdict, each.policy.as_str())
            };
        }
        // The user's share is checked before the app's limit: a user who exceeds the share takes nothing from other users.
        self.metrics.rate_limited("user");
        self.entry(gate, verdict, each.policy.as_str())
    }

    /// A call on which one limit has decided.
    fn entry<'a>(&'a self, gate: &'a Gate, verdict: Verdict, about: &'a str) -> Entry<'a> {
        Entry {
            gate: Some(gate),
            metrics: &self.metrics,
            verdict,
            user: None,
            report: None,
            about,
        }
    }

    fn gate(&self, app: usize, endpoint: &'static str) -> Option<&Gate> {
        let gates = self.apps.get(app)?;
        gates.iter().find(|gate| gate.charge.endpoint == endpoint)
    }

    fn enter_gate<'a>(
        &'a self,
        gate: &'a Gate,
        user: Option<(Arc<LimitedUser>, Verdict)>,
    ) -> Entry<'a> {
        let verdict = gate.take();
        if !verdict.allowed {
            self.metrics.rate_limited("local");
        }
        let reported = user.as_ref().filter(|_| verdict.allowed);
        Entry {
            report: reported.and_then(|(user, _)| gate.report(&user.tab)),
            user: user.map(|(_, verdict)| verdict),
            ..self.entry(gate, verdict, gate.charge.endpoint)
        }
    }

    /// A call to which no limit applies.
    fn unlimited(&self) -> Entry<'_> {
        Entry {
            gate: None,
            metrics: &self.metrics,
            verdict: Verdict {
                allowed: true,
                remaining: u32::MAX,
                retry_after: Duration::ZERO,
                reset: Duration::ZERO,
            },
            user: None,
            report: None,
            about: "",
        }
    }

    /// The user at this gate. A user who is not remembered begins with the whole share.
    fn user(&self, gate: &Gate, each: &EachUser, id: &Arc<UserId>) -> Arc<LimitedUser> {
        let place = gate.charge.place;
        if let Some(known) = self.users.get(&UserRef { place, user: id }) {
            return known;
        }
        let user = Arc::new(LimitedUser {
            local: each.rate.local(),
            tab: Arc::new(Tab::new(Arc::clone(&each.share), Arc::clone(id))),
        });
        let key = UserKey {
            place,
            user: Arc::clone(id),
        };
        self.users.insert(key, Arc::clone(&user));
        user
    }
}

/// A user at one gate.
#[derive(PartialEq, Eq, Hash)]
struct UserKey {
    /// The gate's [`Charge::place`].
    place: usize,
    user: Arc<UserId>,
}

/// A borrowed [`UserKey`]. Both have the same hash, because an `Arc` hashes like the value in it.
#[derive(Hash)]
struct UserRef<'a> {
    place: usize,
    user: &'a UserId,
}

impl Equivalent<UserKey> for UserRef<'_> {
    fn equivalent(&self, key: &UserKey) -> bool {
        self.place == key.place && *self.user == *key.user
    }
}

/// What a pod remembers of a user at one gate.
struct LimitedUser {
    local: Local,
    tab: Arc<Tab>,
}

/// The share of an app's limit that each user has.
struct EachUser {
    rate: Rate,
    share: Arc<UserShare>,
    /// The policy's name in headers.
    policy: String,
}

/// The rate of a GCRA in this pod: calls per second, and calls at once.
struct Rate {
    quota: Quota,
    clock: QuantaClock,
}

impl Rate {
    fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            quota: Quota::per_second(per_second).allow_burst(burst),
            clock: QuantaClock::default(),
        }
    }

    /// A new bucket with the whole burst.
    fn local(&self) -> Local {
        RateLimiter::direct_with_clock(self.quota, self.clock.clone()).with_middleware()
    }

    /// The time between two calls at the full rate.
    fn interval(&self) -> Duration {
        self.quota.replenish_interval()
    }

    fn burst(&self) -> u32 {
        self.quota.burst_size().get()
    }

    /// The time in which an empty bucket becomes full.
    fn one_burst(&self) -> Duration {
        self.interval().saturating_mul(self.burst())
    }

    /// The verdict that refuses a call for `wait`.
    fn refusal(&self, wait: Duration) -> Verdict {
        let longest = self.one_burst();
        // After `wait` there is room for one call. The rest of the burst comes back after that, one call in each interval.
        let rest = self.burst().saturating_sub(1);
        let whole = wait.saturating_add(self.interval().saturating_mul(rest));
        Verdict {
            allowed: false,
            remaining: 0,
            retry_after: wait.min(longest),
            reset: whole.min(longest),
        }
    }

    fn take(&self, bucket: &Local) -> Verdict {
        match bucket.check() {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let spent = self.burst().saturating_sub(remaining);
                Verdict {
                    allowed: true,
                    remaining,
                    retry_after: Duration::ZERO,
                    reset: self.interval().saturating_mul(spent),
                }
            }
            Err(not_until) => self.refusal(not_until.wait_time_from(self.clock.now())),
        }
    }
}

/// Has cache lines of its own. Every call writes to it, while the other parts of a gate are only read.
#[repr(align(128))]
struct Apart<T>(T);

/// One app's limit of one endpoint.
struct Gate {
    charge: Charge,
    scope: LimitScope,
    rate: Rate,
    local: Apart<Local>,
    /// Each user's share of it, if that is not the whole limit.
    each_user: Option<EachUser>,
    /// Whether only the users have limits, and the app has none.
    is_of_each_user: bool,
    born: Instant,
    /// Until when Redis would refuse calls, in nanoseconds since `born`; 0: Redis has refused none.
    denied_until: AtomicU64,
    /// The value of `RateLimit-Policy`.
    policy: String,
}

impl Gate {
    fn new(app: &AppConfig, endpoint: &Endpoint, place: usize) -> Option<Self> {
        let (limit, share) = match endpoint.allowance {
            Allowance::OfApp(share) => (app.rate_limit, Some(share(app))),
            Allowance::OfEachUser(limit) => {
                let UserRateLimit {
                    per_second,
                    burst,
                    scope,
                } = limit(app);
                let limit = RateLimit {
                    per_second,
                    burst,
                    scope,
                };
                (limit, None)
            }
        };
        let per_second = NonZeroU32::new(limit.per_second)?;
        let burst = NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN);
        let name = endpoint.name;
        let charge = Charge {
            place,
            app: app.id.clone(),
            endpoint: name,
            per_second: per_second.get(),
            burst: burst.get(),
        };
        let mut policy = format!("\"{name}\";q={per_second};w=1");
        let each_user = match share {
            None => Some(EachUser::with(&charge, per_second, burst, name.to_owned())),
            Some(share) => EachUser::new(&charge, share),
        };
        if let (Some(each), Some(_)) = (&each_user, share) {
            let (name, per_second) = (&each.policy, each.share.per_second);
            policy.push_str(&format!(", \"{name}\";q={per_second};w=1"));
        }
        let rate = Rate::new(per_second, burst);
        Some(Self {
            charge,
            scope: limit.scope,
            local: Apart(rate.local()),
            rate,
            each_user,
            is_of_each_user: share.is_none(),
            born: Instant::now(),
            denied_until: AtomicU64::new(0),
            policy,
        })
    }

    /// Counts a call that was let through on the user's tab, which the pod has to report to Redis from time to time.
    fn report(&self, tab: &Arc<Tab>) -> Option<Arc<Tab>> {
        let due = self.scope == LimitScope::Cluster && tab.count();
        due.then(|| Arc::clone(tab))
    }

    fn take(&self) -> Verdict {
        let until = self.denied_until.load(Ordering::Relaxed);
        if until != 0 {
            let wait = until.saturating_sub(nanos(self.born.elapsed()));
            if wait > 0 {
                return self.rate.refusal(Duration::from_nanos(wait));
            }
        }
        self.rate.take(&self.local.0)
    }

    fn remember(&self, wait: Duration) {
        let until = self.born.elapsed().saturating_add(wait);
        self.denied_until.store(nanos(until), Ordering::Relaxed);
    }
}

impl EachUser {
    /// `None` if a user may use the whole limit of the app.
    fn new(all: &Charge, share: f64) -> Option<Self> {
        // Rounded up, so that every user can make at least one call.
        let part = |whole: u32| {
            let part = (f64::from(whole) * share - 1e-9).ceil() as u32;
            NonZeroU32::new(part.min(whole)).unwrap_or(NonZeroU32::MIN)
        };
        let (per_second, burst) = (part(all.per_second), part(all.burst));
        if (per_second.get(), burst.get()) == (all.per_second, all.burst) {
            return None;
        }
        let policy = format!("{}-user", all.endpoint);
        Some(Self::with(all, per_second, burst, policy))
    }

    fn with(all: &Charge, per_second: NonZeroU32, burst: NonZeroU32, policy: String) -> Self {
        Self {
            rate: Rate::new(per_second, burst),
            share: Arc::new(UserShare {
                app: all.app.clone(),
                endpoint: all.endpoint,
                per_second: per_second.get(),
                burst: burst.get(),
            }),
            policy,
        }
    }
}

/// One call at a gate: whether it may go on, what to report to Redis, and what to tell the caller.
pub(crate) struct Entry<'a> {
    gate: Option<&'a Gate>,
    metrics: &'a Metrics,
    verdict: Verdict,
    /// The verdict of the user's own share, if that let the call through.
    user: Option<Verdict>,
    /// The user's calls, if this pod has to report them now.
    report: Option<Arc<Tab>>,
    /// The name of the policy that `verdict` is about.
    about: &'a str,
}

impl<'a> Entry<'a> {
    /// Fails if the call is refused, as far as is known yet: Redis may still refuse it later.
    pub(crate) fn check(&self) -> Result<()> {
        match self.verdict.allowed {
            true => Ok(()),
            false => Err(Error::Limited(self.verdict)),
        }
    }

    /// Takes the user's calls that this pod has to report to Redis now, if there are enough of them.
    pub(crate) fn report(&mut self) -> Option<Arc<Tab>> {
        self.report.take()
    }

    /// Cuts the times of a verdict to those of one burst: the clock of Redis may step, and somebody may write into its keys.
    fn bounded(&self, verdict: Verdict) -> Verdict {
        let longest = self
            .gate
            .map_or(Duration::MAX, |gate| gate.rate.one_burst());
        Verdict {
            retry_after: verdict.retry_after.min(longest),
            reset: verdict.reset.min(longest),
            ..verdict
        }
    }

    /// What the headers tell of the call, if a limit applies to it.
    pub(crate) fn standing(&self) -> Option<Standing<'a>> {
        let gate = self.gate?;
        let each = gate.each_user.as_ref();
        let user = self.user.filter(|_| self.verdict.allowed);
        Some(Standing {
            policy: &gate.policy,
            name: self.about,
            per_second: gate.charge.per_second,
            verdict: self.verdict,
            user: each
                .zip(user)
                .map(|(each, user)| (each.policy.as_str(), user)),
        })
    }
}

impl Limit for Entry<'_> {
    /// `None` without a limit of the app's, or if each pod keeps a limit of its own.
    fn charge(&self) -> Option<&Charge> {
        self.gate
            .filter(|gate| gate.scope == LimitScope::Cluster && !gate.is_of_each_user)
            .map(|gate| &gate.charge)
    }

    /// Remembers a refusal, so that a flood of calls does not reach Redis.
    fn settle(&mut self, verdict: Verdict) -> Result<(), Verdict> {
        self.verdict = self.bounded(verdict);
        if self.verdict.allowed {
            return Ok(());
        }
        if let Some(gate) = self.gate {
            gate.remember(self.verdict.retry_after);
        }
        self.metrics.rate_limited("cluster");
        Err(self.verdict)
    }
}

/// A limit and what is left of it, for the headers of a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing<'a> {
    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    pub policy: &'a str,
    /// Calls per second.
    pub per_second: u32,
    /// The verdict on this call.
    pub verdict: Verdict,
    /// The policy's name.
    name: &'a str,
    /// The policy of the user's own share, by name, and its verdict.
    user: Option<(&'a str, Verdict)>,
}

impl Standing<'_> {
    /// The value of `RateLimit`: for each policy the calls left, and the seconds until the quota is whole again.
    pub(crate) fn rate_limit(&self) -> String {
        let mut buffers: [itoa::Buffer; 4] = std::array::from_fn(|_| itoa::Buffer::new());
        let [r, t, user_r, user_t] = &mut buffers;
        let (r, t) = numbers(self.verdict, r, t);
        // `concat` makes a text without spare capacity, which a header takes without copying it.
        match self.user {
            None => ["\"", self.name, "\";r=", r, ";t=", t].concat(),
            Some((user, verdict)) => {
                let (user_r, user_t) = numbers(verdict, user_r, user_t);
                let app = ["\"", self.name, "\";r=", r, ";t=", t];
                let user = [", \"", user, "\";r=", user_r, ";t=", user_t];
                [app, user].as_flattened().concat()
            }
        }
    }

    /// Seconds until the quota is whole again, rounded up.
    pub(crate) fn reset_seconds(&self) -> u64 {
        seconds_up(self.verdict.reset)
    }

    /// The value of `Retry-After` for a refused call: at least 1, rounded up, so that it is never too early.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        (!self.verdict.allowed).then(|| seconds_up(self.verdict.retry_after).max(1))
    }
}

/// Calls left, and seconds until the quota is whole again.
fn numbers<'b>(
    verdict: Verdict,
    remaining: &'b mut itoa::Buffer,
    reset: &'b mut itoa::Buffer,
) -> (&'b str, &'b str) {
    (
        remaining.format(verdict.remaining),
        reset.format(seconds_up(verdict.reset)),
    )
}

fn seconds_up(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
