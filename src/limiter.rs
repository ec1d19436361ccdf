//! Who may call how often. One gate for each app and vendor endpoint: a GCRA in this pod (`governor`, one atomic number),
//! and with scope `cluster` a second one in Redis that the store runs in the round trip of the read itself (or, far from the
//! limit, milliseconds after it). What this pod refuses never reaches Redis; what Redis refused is remembered here until
//! Redis would let a call through.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, QuantaClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::config::{AppConfig, RateLimit, Scope};
use crate::metrics::Metrics;
use crate::names::AppId;
use crate::quota::{Charge, Charged, Verdict};

type Local = RateLimiter<NotKeyed, InMemoryState, QuantaClock, StateInformationMiddleware>;

/// The limits of all apps. Built once, before the workers, and shared by them: a limiter per worker would let through
/// as many times the limit as there are workers.
pub struct Limiter {
    /// By the app's place in the configuration; empty where the app has no limit.
    apps: Vec<Vec<Gate>>,
    metrics: Arc<Metrics>,
}

impl Limiter {
    /// A gate for each app and each of `endpoints`; none where the app's `per_second` is 0.
    pub fn new(apps: &[AppConfig], endpoints: &[&'static str], metrics: Arc<Metrics>) -> Self {
        let mut places = 0..;
        let gates = |app: &AppConfig| {
            endpoints
                .iter()
                .zip(&mut places)
                .filter_map(|(endpoint, place)| Gate::new(&app.id, endpoint, place, app.rate_limit))
                .collect()
        };
        Self {
            apps: apps.iter().map(gates).collect(),
            metrics,
        }
    }

    /// Takes one call of the app's endpoint from this pod's share. To be asked once per call, after authentication.
    pub fn enter(&self, app: usize, endpoint: &'static str) -> Entry<'_> {
        let gate = self
            .apps
            .get(app)
            .and_then(|gates| gates.iter().find(|gate| gate.charge.endpoint == endpoint));
        let metrics = &self.metrics;
        match gate {
            Some(gate) => {
                let verdict = gate.take();
                if !verdict.allowed {
                    metrics.rate_limited("local");
                }
                Entry {
                    gate: Some(gate),
                    metrics,
                    verdict,
                }
            }
            None => Entry {
                gate: None,
                metrics,
                verdict: Verdict {
                    allowed: true,
                    remaining: u32::MAX,
                    retry_after: Duration::ZERO,
                    reset: Duration::ZERO,
                },
            },
        }
    }
}

/// On cache lines of its own: every call writes to it, and all else of a gate is only read.
#[repr(align(128))]
struct Apart<T>(T);

/// One app's limit of one endpoint.
struct Gate {
    charge: Charge,
    scope: Scope,
    local: Apart<Local>,
    clock: QuantaClock,
    /// One call's share of the time.
    interval: Duration,
    born: Instant,
    /// Nanoseconds since `born` until which Redis would refuse; 0 = it has not.
    denied_until: AtomicU64,
    policy: String,
}

impl Gate {
    fn new(app: &AppId, endpoint: &'static str, place: usize, limit: RateLimit) -> Option<Self> {
        let per_second = NonZeroU32::new(limit.per_second)?;
        let burst = NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let clock = QuantaClock::default();
        Some(Self {
            charge: Charge {
                place,
                app: app.clone(),
                endpoint,
                per_second: per_second.get(),
                burst: burst.get(),
            },
            scope: limit.scope,
            local: Apart(
                RateLimiter::direct_with_clock(quota, clock.clone())
                    .with_middleware::<StateInformationMiddleware>(),
            ),
            clock,
            interval: quota.replenish_interval(),
            born: Instant::now(),
            denied_until: AtomicU64::new(0),
            policy: format!("\"{endpoint}\";q={per_second};w=1"),
        })
    }

    /// The time until everything is there again, once a refused call has waited: all of the burst but that one call.
    fn whole_after(&self, wait: Duration) -> Duration {
        wait.saturating_add(
            self.interval
                .saturating_mul(self.charge.burst.saturating_sub(1)),
        )
    }

    fn refusal(&self, wait: Duration) -> Verdict {
        Verdict {
            allowed: false,
            remaining: 0,
            retry_after: wait,
            reset: self.whole_after(wait),
        }
    }

    fn take(&self) -> Verdict {
        let until = self.denied_until.load(Ordering::Relaxed);
        if until != 0 {
            let wait = until.saturating_sub(nanos(self.born.elapsed()));
            if wait > 0 {
                return self.refusal(Duration::from_nanos(wait));
            }
        }
        match self.local.0.check() {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let spent = self.charge.burst.saturating_sub(remaining);
                Verdict {
                    allowed: true,
                    remaining,
                    retry_after: Duration::ZERO,
                    reset: self.interval.saturating_mul(spent),
                }
            }
            Err(not_until) => self.refusal(not_until.wait_time_from(self.clock.now())),
        }
    }

    fn remember(&self, wait: Duration) {
        // Redis's clock may step; a pod must not stay shut longer than an honest answer could ask for.
        let longest = self.whole_after(Duration::from_secs(1));
        let until = self.born.elapsed().saturating_add(wait.min(longest));
        self.denied_until.store(nanos(until), Ordering::Relaxed);
    }
}

/// One call at the gate: whether it may go on, what Redis is to be told, and what the caller is to be told.
pub struct Entry<'a> {
    gate: Option<&'a Gate>,
    metrics: &'a Metrics,
    verdict: Verdict,
}

impl<'a> Entry<'a> {
    /// Whether the call may go on, by what is known so far.
    pub fn allowed(&self) -> bool {
        self.verdict.allowed
    }

    /// What the store is to charge; nothing without a limit or where each pod has its own.
    pub fn charge(&self) -> Option<&'a Charge> {
        self.gate
            .filter(|gate| gate.scope == Scope::Cluster)
            .map(|gate| &gate.charge)
    }

    /// Takes in what the store said: the value if the call was granted. A refusal is remembered, so that a flood does
    /// not reach Redis.
    pub fn settle<T>(&mut self, charged: Charged<T>) -> Option<T> {
        match charged {
            Charged::Granted(value, verdict) => {
                if let Some(verdict) = verdict {
                    self.verdict = verdict;
                }
                Some(value)
            }
            Charged::Refused(verdict) => {
                if let Some(gate) = self.gate {
                    gate.remember(verdict.retry_after);
                }
                self.metrics.rate_limited("cluster");
                self.verdict = Verdict {
                    allowed: false,
                    ..verdict
                };
                None
            }
        }
    }

    /// What the call stands at, where a limit applies.
    pub fn standing(&self) -> Option<Standing<'a>> {
        self.gate.map(|gate| Standing {
            policy: &gate.policy,
            endpoint: gate.charge.endpoint,
            per_second: gate.charge.per_second,
            verdict: self.verdict,
        })
    }
}

/// A limit and what is left of it, in the forms that headers take.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    pub policy: &'a str,
    /// Calls per second.
    pub per_second: u32,
    /// What was said of this call.
    pub verdict: Verdict,
    endpoint: &'static str,
}

impl Standing<'_> {
    /// The value of `RateLimit`: calls left, and seconds until the quota is whole again.
    pub fn rate_limit(&self) -> String {
        let (mut remaining, mut reset) = (itoa::Buffer::new(), itoa::Buffer::new());
        // As long as it has to be: a header takes such a text as it is.
        [
            "\"",
            self.endpoint,
            "\";r=",
            remaining.format(self.verdict.remaining),
            ";t=",
            reset.format(self.reset_seconds()),
        ]
        .concat()
    }

    /// Seconds until the quota is whole again, rounded up.
    pub fn reset_seconds(&self) -> u64 {
        seconds_up(self.verdict.reset)
    }

    /// The value of `Retry-After` for a refused call: at least 1, rounded up, so that it is never too early.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        (!self.verdict.allowed).then(|| seconds_up(self.verdict.retry_after).max(1))
    }
}

fn seconds_up(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, burst: u32, scope: Scope) -> Limiter {
        let app = AppConfig {
            id: AppId::parse("a").unwrap(),
            server_keys: Vec::new(),
            rate_limit: RateLimit {
                per_second,
                burst,
                scope,
            },
            imkit: None,
            tencent: None,
            sendbird: None,
        };
        Limiter::new(&[app], &["x", "y"], Arc::default())
    }

    #[test]
    fn exactly_the_burst_passes_at_once_and_endpoints_are_apart() {
        let limiter = limiter(1, 5, Scope::Pod);
        let passed = (0..50).filter(|_| limiter.enter(0, "x").allowed()).count();
        assert_eq!(passed, 5);
        assert!(limiter.enter(0, "y").allowed());
    }

    #[test]
    fn no_limit_where_per_second_is_zero_or_nothing_is_known() {
        let limiter = limiter(0, 1, Scope::Cluster);
        for _ in 0..1000 {
            let entry = limiter.enter(0, "x");
            assert!(entry.allowed() && entry.charge().is_none() && entry.standing().is_none());
        }
        assert!(limiter.enter(7, "x").allowed());
    }

    #[test]
    fn headers_count_down_and_round_up() {
        let limiter = limiter(2, 2, Scope::Pod);
        let entry = limiter.enter(0, "x");
        let standing = entry.standing().unwrap();
        assert_eq!(standing.policy, "\"x\";q=2;w=1");
        assert_eq!(standing.rate_limit(), "\"x\";r=1;t=1");
        assert_eq!(standing.retry_after_seconds(), None);
        assert!(limiter.enter(0, "x").allowed());
        let entry = limiter.enter(0, "x");
        let standing = entry.standing().unwrap();
        assert!(!entry.allowed());
        assert_eq!(standing.rate_limit(), "\"x\";r=0;t=1");
        assert_eq!(standing.retry_after_seconds(), Some(1));
    }

    #[test]
    fn a_refusal_by_redis_is_remembered_for_its_time_only() {
        let limiter = limiter(1_000, 1_000, Scope::Cluster);
        let mut entry = limiter.enter(0, "x");
        assert_eq!(entry.charge().unwrap().per_second, 1_000);
        let refused = Verdict {
            allowed: false,
            remaining: 0,
            retry_after: Duration::from_millis(60),
            reset: Duration::from_secs(1),
        };
        assert_eq!(entry.settle(Charged::<()>::Refused(refused)), None);
        assert!(!entry.allowed());
        assert!(!limiter.enter(0, "x").allowed());
        assert!(limiter.enter(0, "y").allowed());
        std::thread::sleep(Duration::from_millis(80));
        assert!(limiter.enter(0, "x").allowed());
    }

    #[test]
    fn a_granted_call_shows_what_redis_said() {
        let limiter = limiter(10, 10, Scope::Cluster);
        let mut entry = limiter.enter(0, "x");
        let verdict = Verdict {
            allowed: true,
            remaining: 3,
            retry_after: Duration::ZERO,
            reset: Duration::from_millis(701),
        };
        assert_eq!(entry.settle(Charged::Granted(7, Some(verdict))), Some(7));
        assert_eq!(entry.standing().unwrap().rate_limit(), "\"x\";r=3;t=1");
    }
}
