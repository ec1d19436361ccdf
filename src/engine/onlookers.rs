//! Which apps have streams, on any pod. A delivery looks for the marks of watched users only where the app has some: even one more
//! field that a script reads is a twentieth of what a delivery costs.
//!
//! Each pod says once a second which apps it has streams of, and all pods hear it. A pod that does not hear looks for marks in any
//! case. Nothing depends on it but how soon a stream is told: what is not told is seen within [`super::live::LATEST`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::names::AppId;

/// So long an app has streams after a pod has said so.
const HOLDS: Duration = Duration::from_secs(5);
/// For so long a pod has to hear before it knows that nobody says anything.
const SETTLES: Duration = Duration::from_secs(3);

/// What this pod knows of that.
pub(super) struct Onlookers {
    started: Instant,
    /// Until when each app has streams, in milliseconds after the start.
    apps: HashMap<AppId, AtomicU64>,
    /// Since when it hears; 0: it does not.
    hears_since: AtomicU64,
}

impl Onlookers {
    /// Of these apps. It does not hear yet.
    pub(super) fn new<'a>(apps: impl Iterator<Item = &'a AppId>) -> Self {
        Self {
            started: Instant::now(),
            apps: apps.map(|app| (app.clone(), AtomicU64::new(0))).collect(),
            hears_since: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a user of the app may be watched.
    pub(super) fn may_be_watched(&self, app: &AppId) -> bool {
        let since = self.hears_since.load(Ordering::Relaxed);
        let now = self.now();
        let settles = SETTLES.as_millis() as u64;
        if since == 0 || now < since.saturating_add(settles) {
            return true;
        }
        self.apps
            .get(app)
            .is_none_or(|until| now < until.load(Ordering::Relaxed))
    }

    /// A pod has said that the app has streams.
    pub(super) fn note(&self, app: &str) {
        if let Some(until) = AppId::parse(app).and_then(|app| self.apps.get(&app)) {
            until.store(self.now() + HOLDS.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Whether this pod hears what the others say.
    pub(super) fn hears(&self, hears: bool) {
        let since = self.hears_since.load(Ordering::Relaxed);
        if hears != (since != 0) {
            let since = if hears { self.now().max(1) } else { 0 };
            self.hears_since.store(since, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_hear_takes_everybody_for_watched() {
        let [a, b, c] = ["a", "b", "c"].map(|id| AppId::parse(id).unwrap());
        let mut onlookers = Onlookers::new([&a, &b].into_iter());
        assert!(onlookers.may_be_watched(&a));
        onlookers.hears(true);
        assert!(onlookers.may_be_watched(&a));
        // Some seconds later.
        onlookers.started -= SETTLES + Duration::from_millis(1);
        assert!(!onlookers.may_be_watched(&a));
        assert!(onlookers.may_be_watched(&c));
        onlookers.note("a");
        onlookers.note("c");
        onlookers.note("no app!");
        assert!(onlookers.may_be_watched(&a) && !onlookers.may_be_watched(&b));
        onlookers.started -= HOLDS + Duration::from_millis(1);
        assert!(!onlookers.may_be_watched(&a));
        onlookers.hears(false);
        assert!(onlookers.may_be_watched(&a));
    }
}
