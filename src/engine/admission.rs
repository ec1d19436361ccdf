//! Admission: a pod takes on a bounded number of calls at once. It refuses a call beyond that immediately, so that the calls
//! under way don't get slower.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::{AppConfig, ServerConfig};
use crate::error::{Error, Result};
use crate::names::AppId;
use crate::shares::{Claim, Share, Shares};
use crate::telemetry::metrics::Metrics;

/// How long a batch of events waits for a place.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many batches of events may wait, for each place.
const WAITING: usize = 4;

/// The places for calls under way.
pub(super) struct Admission {
    reads: ReadPlaces,
    /// The apps share these places: writes take long, and one app's writes must not hold up another's.
    writes: Shares,
    /// Each app's number in the order of the configuration.
    apps: HashMap<AppId, usize>,
    metrics: Arc<Metrics>,
}

impl Admission {
    pub(super) fn new(config: &ServerConfig, apps: &[AppConfig], metrics: Arc<Metrics>) -> Self {
        let waiting = config.max_writes.saturating_mul(WAITING);
        Self {
            reads: ReadPlaces::new(config.max_reads),
            writes: Shares::new(config.max_writes, apps.len(), waiting),
            apps: (apps.iter().map(|app| app.id.clone())).zip(0..).collect(),
            metrics,
        }
    }

    /// Takes a place for a read, without waiting: reads are short, so when all places are taken Redis is not answering.
    pub(super) fn read(&self) -> Result<ReadPlace<'_>> {
        self.reads.take().ok_or_else(|| self.refused("reads"))
    }

    /// Takes a place for a batch of events; waits up to [`PATIENCE`].
    pub(super) async fn write(&self, app: &AppId) -> Result<Share> {
        let place = self.writes.take(self.claim(app), PATIENCE).await;
        place.ok_or_else(|| self.refused("events"))
    }

    fn claim(&self, app: &AppId) -> Claim {
        Claim {
            app: self.apps.get(app).copied().unwrap_or(usize::MAX),
            amount: 1,
            large: false,
        }
    }

    fn refused(&self, what: &'static str) -> Error {
        self.metrics.overloaded(what);
        Error::Overloaded(what)
    }

    /// Refuses a batch of events, before its body is read, if no place is free and no more batches may wait.
    pub(super) fn takes_events(&self, app: &AppId) -> Result<()> {
        match self.writes.has_room(self.claim(app)) {
            true => Ok(()),
            false => Err(self.refused("events")),
        }
    }
}

/// A number of places. No call waits for one, so this needs no semaphore, which would take a lock whenever a place is given back.
#[derive(Debug)]
struct ReadPlaces {
    all: usize,
    taken: AtomicUsize,
}

impl ReadPlaces {
    fn new(all: usize) -> Self {
        Self {
            all,
            taken: AtomicUsize::new(0),
        }
    }

    fn take(&self) -> Option<ReadPlace<'_>> {
        let place = ReadPlace(self);
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.all).then_some(place)
    }
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub(super) struct ReadPlace<'a>(&'a ReadPlaces);

impl Drop for ReadPlace<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max_reads: usize, max_writes: usize, apps: &[&str]) -> Admission {
        let apps: HashMap<_, _> = apps
            .iter()
            .map(|id| AppId::parse(*id).unwrap())
            .zip(0..)
            .collect();
        Admission {
            reads: ReadPlaces::new(max_reads),
            writes: Shares::new(max_writes, apps.len(), max_writes * WAITING),
            apps,
            metrics: Arc::default(),
        }
    }

    #[test]
    fn a_read_past_the_bound_is_refused_and_its_place_comes_back() {
        let admission = admission(2, 1, &["a"]);
        let one = admission.read().unwrap();
        let _two = admission.read().unwrap();
        assert!(admission.read().unwrap_err().is_transient());
        drop(one);
        assert!(admission.read().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn events_wait_for_a_while_and_only_so_many_of_them() {
        let admission = admission(1, 1, &["a"]);
        let app = AppId::parse("a").unwrap();
        let held = admission.write(&app).await.unwrap();
        let waiting: Vec<_> = (0..WAITING).map(|_| admission.write(&app)).collect();
        let (results, beyond) =
            futures_util::join!(futures_util::future::join_all(waiting), async {
                // Polled after the calls that wait.
                admission.write(&app).await.is_err()
            });
        assert!(beyond);
        assert!(results.iter().all(Result::is_err));
        drop(held);
        assert!(admission.write(&app).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_apps_events_leave_places_for_anothers() {
        let admission = admission(1, 4, &["a", "b"]);
        let [a, b] = ["a", "b"].map(|id| AppId::parse(id).unwrap());
        let held = [
            admission.write(&a).await.unwrap(),
            admission.write(&a).await.unwrap(),
        ];
        assert!(admission.write(&a).await.is_err());
        assert!(admission.write(&b).await.is_ok());
        drop(held);
        assert!(admission.write(&a).await.is_ok());
    }
}
