//! The types that the rate limiter and the engine share: the limit that a call is charged to, and the verdict. The engine charges
//! a call in the same round trip as its read. A call over its limit fails with [`crate::error::Error::Limited`]. No I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::names::{AppId, UserId};

/// The limit that one call is charged to.
#[derive(Debug, Clone)]
pub(crate) struct Charge {
    /// The number of the limit among all limits, from 0.
    pub place: usize,
    /// The app whose limit it is.
    pub app: AppId,
    /// The vendor endpoint, a short fixed word such as `imkit-rooms`; part of the key.
    pub endpoint: &'static str,
    /// Calls per second, at least 1.
    pub per_second: u32,
    /// Calls that may come at once, at least 1.
    pub burst: u32,
}

impl Charge {
    /// The time between two calls at the full rate.
    pub(crate) fn emission(&self) -> Duration {
        emission(self.per_second)
    }
}

fn emission(per_second: u32) -> Duration {
    Duration::from_micros((1_000_000 / u64::from(per_second.max(1))).max(1))
}

/// The share of an app's limit of one endpoint that each of its users has.
#[derive(Debug)]
pub(crate) struct UserShare {
    /// The app.
    pub app: AppId,
    /// The vendor endpoint, as in [`Charge`].
    pub endpoint: &'static str,
    /// Calls per second, at least 1.
    pub per_second: u32,
    /// Calls that may come at once, at least 1.
    pub burst: u32,
}

impl UserShare {
    /// The time between two calls at the full rate.
    pub(crate) fn emission(&self) -> Duration {
        emission(self.per_second)
    }

    /// How many calls a pod lets through before it reports them to Redis. The number is small enough not to matter to other
    /// pods, and large enough that a user who calls now and then costs Redis almost nothing.
    fn report_after(&self) -> u32 {
        (self.burst / 16).max(self.per_second / 64).max(1)
    }
}

/// One user's calls of one endpoint in this pod: how many it has let through without reporting them to Redis, and until when the
/// user has to wait because of the calls that all pods together have let through.
#[derive(Debug)]
pub(crate) struct Tab {
    share: Arc<UserShare>,
    user: Arc<UserId>,
    unreported: AtomicU32,
    /// Whether a report is under way.
    reporting: AtomicBool,
    born: Instant,
    /// Until when Redis would refuse calls, in microseconds since `born`; 0: now it would not.
    refused_until: AtomicU64,
}

impl Tab {
    /// A tab without calls.
    pub(crate) fn new(share: Arc<UserShare>, user: Arc<UserId>) -> Self {
        Self {
            share,
            user,
            unreported: AtomicU32::new(0),
            reporting: AtomicBool::new(false),
            born: Instant::now(),
            refused_until: AtomicU64::new(0),
        }
    }

    /// The user's share of the limit.
    pub(crate) fn share(&self) -> &UserShare {
        &self.share
    }

    /// The user who makes the calls.
    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    /// Counts a call that was let through. True: the caller has to report to Redis, until [`Tab::take`] answers `None`.
    pub(crate) fn count(&self) -> bool {
        let before = self.unreported.fetch_add(1, Ordering::Relaxed);
        before.saturating_add(1) >= self.share.report_after()
            && !self.reporting.swap(true, Ordering::AcqRel)
    }

    /// The calls to report to Redis; they count as reported from here on. `None`: there are none, and the report has ended.
    pub(crate) fn take(&self) -> Option<u32> {
        let unreported = self.unreported.swap(0, Ordering::AcqRel);
        if unreported == 0 {
            self.reporting.store(false, Ordering::Release);
        }
        (unreported > 0).then_some(unreported)
    }

    /// Notes that Redis would let the next call through after `wait`.
    pub(crate) fn learn(&self, wait: Duration) {
        let until = match wait {
            Duration::ZERO => 0,
            wait => micros(self.born.elapsed().saturating_add(wait)),
        };
        self.refused_until.store(until, Ordering::Relaxed);
    }

    /// How long the user still has to wait, by the last answer of Redis.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let until = self.refused_until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let wait = until.saturating_sub(micros(self.born.elapsed()));
        (wait > 0).then(|| Duration::from_micros(wait))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What a limit says of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the call may go on.
    pub allowed: bool,
    /// Calls that could follow at once.
    pub remaining: u32,
    /// How long until a refused call would be let through; zero when allowed.
    pub retry_after: Duration,
    /// How long until the whole burst is available again.
    pub reset: Duration,
}

/// The limit of one call, as the engine sees it: it names the charge and takes the verdict.
pub(crate) trait Limit: Send {
    /// What to charge the call to; `None` if the limit does not need Redis.
    fn charge(&self) -> Option<&Charge>;

    /// Takes the verdict of Redis, which the response will show. `Err`: the call is refused, with the verdict to show.
    fn settle(&mut self, verdict: Verdict) -> Result<(), Verdict>;
}
