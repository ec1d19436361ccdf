//! The words that the rate limiter and the reader share: what a call is charged to in Redis, in the same round trip
//! as its read, and what came of it. No I/O. A call over its limit fails by [`crate::error::Error::Limited`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::names::{AppId, UserId};

/// What one call is to be charged to.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The limit's place among all: no two have the same, and they begin at 0.
    pub place: usize,
    /// The app whose limit it is.
    pub app: AppId,
    /// The vendor endpoint, a short fixed word such as `imkit-rooms`; part of the key.
    pub endpoint: &'static str,
    /// Calls per second, at least 1.
    pub per_second: u32,
    /// Calls that may come at once on top, at least 1.
    pub burst: u32,
}

impl Charge {
    /// One call's share of the time.
    pub fn emission(&self) -> Duration {
        emission(self.per_second)
    }
}

fn emission(per_second: u32) -> Duration {
    Duration::from_micros((1_000_000 / u64::from(per_second.max(1))).max(1))
}

/// What each single user of an app may use of the app's limit of one endpoint.
#[derive(Debug)]
pub struct Share {
    /// The app.
    pub app: AppId,
    /// The vendor endpoint, as in [`Charge`].
    pub endpoint: &'static str,
    /// Calls per second, at least 1.
    pub per_second: u32,
    /// Calls that may come at once on top, at least 1.
    pub burst: u32,
}

impl Share {
    /// One call's share of the time.
    pub fn emission(&self) -> Duration {
        emission(self.per_second)
    }

    /// Calls that a pod lets through before it tells Redis of them: so few that they don't matter to the other pods, and so
    /// many that users who ask now and then cost Redis next to nothing.
    fn report_after(&self) -> u32 {
        (self.burst / 16).max(self.per_second / 64).max(1)
    }
}

/// One user's calls of one endpoint: those that this pod let through and Redis has not been told, and whether the user has to
/// wait because of what all pods together let through.
#[derive(Debug)]
pub struct Tab {
    share: Arc<Share>,
    user: Arc<UserId>,
    untold: AtomicU32,
    telling: AtomicBool,
    born: Instant,
    /// Microseconds since `born`.
    refused_until: AtomicU64,
}

impl Tab {
    /// A tab without calls.
    pub fn new(share: Arc<Share>, user: Arc<UserId>) -> Self {
        Self {
            share,
            user,
            untold: AtomicU32::new(0),
            telling: AtomicBool::new(false),
            born: Instant::now(),
            refused_until: AtomicU64::new(0),
        }
    }

    /// What the user may use.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Whose calls these are.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Counts a call that was let through. True: Redis has to be told, and nobody is at it yet.
    pub fn count(&self) -> bool {
        let untold = self.untold.fetch_add(1, Ordering::Relaxed);
        untold.saturating_add(1) >= self.share.report_after()
            && !self.telling.swap(true, Ordering::AcqRel)
    }

    /// The calls to tell Redis of. None: whoever was telling it has to begin anew when [`Tab::count`] says so.
    pub fn take(&self) -> Option<u32> {
        let untold = self.untold.swap(0, Ordering::AcqRel);
        if untold == 0 {
            self.telling.store(false, Ordering::Release);
        }
        (untold > 0).then_some(untold)
    }

    /// Redis would let the next call through after `wait`.
    pub fn learn(&self, wait: Duration) {
        let until = match wait {
            Duration::ZERO => 0,
            wait => micros(self.born.elapsed().saturating_add(wait)),
        };
        self.refused_until.store(until, Ordering::Relaxed);
    }

    /// How long the user still has to wait by what Redis said.
    pub fn wait(&self) -> Option<Duration> {
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

/// What the limiter said of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the call may go on.
    pub allowed: bool,
    /// Calls that could follow at once.
    pub remaining: u32,
    /// How long until a refused call would be let through; zero when allowed.
    pub retry_after: Duration,
    /// How long until the whole burst is there again.
    pub reset: Duration,
}

/// The limit of one call, as the reader sees it: what to charge, and where to note what came of it.
pub trait Limit: Send {
    /// What the call is to be charged to; nothing where Redis has no part in its limit.
    fn charge(&self) -> Option<&Charge>;

    /// Notes what Redis said of the call, for the answer to show. A refusal comes back as it is to be shown.
    fn settle(&mut self, verdict: Verdict) -> Result<(), Verdict>;
}
