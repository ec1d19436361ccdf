//! Bounds on what one pod takes on at once: past them a call is refused at once, instead of making all others wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::ServerConfig;
use crate::error::{Error, Result};

/// How long a batch of events waits for its turn.
const PATIENCE: Duration = Duration::from_secs(1);
/// Batches of events waiting for their turn, for each that is being worked on.
const WAITING: usize = 4;

/// What is being worked on.
pub(super) struct Admission {
    reads: Places,
    writes: Semaphore,
    waiting: Semaphore,
}

impl Admission {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            reads: Places::new(config.max_reads),
            writes: Semaphore::new(config.max_writes),
            waiting: Semaphore::new(config.max_writes.saturating_mul(WAITING)),
        }
    }

    /// A place for a read, now or not at all: reads are short, so a full house means that they are not being answered.
    pub(super) fn read(&self) -> Result<Place<'_>> {
        self.reads.take().ok_or(Error::Overloaded("reads"))
    }

    /// A place for a batch of events, now or soon.
    pub(super) async fn write(&self) -> Result<SemaphorePermit<'_>> {
        if let Ok(place) = self.writes.try_acquire() {
            return Ok(place);
        }
        let _waiting = self
            .waiting
            .try_acquire()
            .map_err(|_| Error::Overloaded("events"))?;
        match tokio::time::timeout(PATIENCE, self.writes.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Error::Overloaded("events")),
        }
    }
}

/// So many places that nobody waits for: a semaphore would take a lock for each that is given back.
#[derive(Debug)]
struct Places {
    all: usize,
    taken: AtomicUsize,
}

impl Places {
    fn new(all: usize) -> Self {
        Self {
            all,
            taken: AtomicUsize::new(0),
        }
    }

    fn take(&self) -> Option<Place<'_>> {
        let place = Place(self);
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.all).then_some(place)
    }
}

/// One that is taken until dropped.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a Places);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max_reads: usize, max_writes: usize) -> Admission {
        Admission {
            reads: Places::new(max_reads),
            writes: Semaphore::new(max_writes),
            waiting: Semaphore::new(max_writes * WAITING),
        }
    }

    #[test]
    fn a_read_past_the_bound_is_refused_and_its_place_comes_back() {
        let admission = admission(2, 1);
        let one = admission.read().unwrap();
        let _two = admission.read().unwrap();
        assert!(admission.read().unwrap_err().is_transient());
        drop(one);
        assert!(admission.read().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn events_wait_for_a_while_and_only_so_many_of_them() {
        let admission = admission(1, 1);
        let held = admission.write().await.unwrap();
        let waiting: Vec<_> = (0..WAITING).map(|_| admission.write()).collect();
        let (results, beyond) =
            futures_util::join!(futures_util::future::join_all(waiting), async {
                // Polled after those that wait.
                admission.write().await.is_err()
            });
        assert!(beyond);
        assert!(results.iter().all(Result::is_err));
        drop(held);
        assert!(admission.write().await.is_ok());
    }
}
