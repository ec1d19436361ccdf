//! What waits for its time.

use std::collections::BTreeMap;

use tokio::time::Instant;

/// What waits, each for a time of its own. Of those with the same time the one comes first that has waited for longest.
pub(super) struct ByTime<T> {
    waiting: BTreeMap<(Instant, u64), T>,
    last_number: u64,
}

impl<T> Default for ByTime<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            last_number: 0,
        }
    }
}

impl<T> ByTime<T> {
    pub(super) fn add(&mut self, at: Instant, what: T) {
        self.last_number += 1;
        self.waiting.insert((at, self.last_number), what);
    }

    /// When the time of the first one comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the first one, if its time has come.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_comes_when_its_time_has_come() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut waiting = ByTime::default();
        for (seconds, what) in [(2, "c"), (1, "a"), (3, "e"), (1, "b"), (2, "d")] {
            waiting.add(at(seconds), what);
        }
        assert_eq!((waiting.next(), waiting.take(start)), (Some(at(1)), None));
        let mut taken =
            |seconds| -> Vec<&str> { std::iter::from_fn(|| waiting.take(at(seconds))).collect() };
        assert_eq!(taken(2), ["a", "b", "c", "d"]);
        assert_eq!(taken(9), ["e"]);
        assert_eq!(waiting.next(), None);
    }
}
