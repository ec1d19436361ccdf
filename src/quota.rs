//! The words that the rate limiter and the store share: what a call is charged to in Redis, in the same round trip
//! as its read, and what came of it. No I/O.

use std::time::Duration;

use crate::names::AppId;

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
        Duration::from_micros((1_000_000 / u64::from(self.per_second.max(1))).max(1))
    }
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

/// The answer to a read that was charged.
#[derive(Debug)]
pub enum Charged<T> {
    /// The call was within the limit (or had none: then there is no verdict).
    Granted(T, Option<Verdict>),
    /// The call was over the limit; nothing was read.
    Refused(Verdict),
}
