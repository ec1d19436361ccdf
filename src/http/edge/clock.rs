//! A worker's clock: it goes in ticks, which the sweep sets.

use std::time::Duration;

/// Between two sweeps, and the grain of all deadlines here.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// A moment on a worker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

impl Tick {
    /// Where the clock begins.
    pub(super) const START: Self = Self(0);
    /// A moment that does not come.
    pub(super) const NEVER: Self = Self(u32::MAX);
    /// Ticks in a second. A connection that has waited longer counts as idle.
    pub(super) const SECOND: u32 = 4;

    /// The moment so long after the beginning.
    pub(super) fn after(elapsed: Duration) -> Self {
        let ticks = elapsed.as_millis() / TICK.as_millis();
        Self(u32::try_from(ticks).unwrap_or(u32::MAX - 1))
    }

    /// So many ticks later.
    pub(super) fn plus(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// How many ticks ago that was.
    pub(super) fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// That many ticks, and one for the part of one that is over already.
pub(super) fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis()) + 1;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}
