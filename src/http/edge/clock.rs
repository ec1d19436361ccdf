//! A worker's clock. It goes in ticks of 250 ms: the sweep sets it once in each tick, so that nobody asks the system for the
//! time.

use std::time::Duration;

/// The time between two sweeps. All deadlines of the edge are whole ticks.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// A moment on a worker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

impl Tick {
    /// The moment at which the clock begins.
    pub(super) const START: Self = Self(0);
    /// A moment that never comes.
    pub(super) const NEVER: Self = Self(u32::MAX);
    /// Ticks in a second. A connection that has waited for longer counts as idle.
    pub(super) const SECOND: u32 = 4;

    /// The moment that comes `elapsed` after the beginning.
    pub(super) fn after(elapsed: Duration) -> Self {
        let ticks = elapsed.as_millis() / TICK.as_millis();
        Self(u32::try_from(ticks).unwrap_or(u32::MAX - 1))
    }

    /// The moment so many ticks later.
    pub(super) fn plus(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// How many ticks have passed since `earlier`.
    pub(super) fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A duration in ticks, rounded up, and one more: part of the present tick is over already.
pub(super) fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis()) + 1;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}
