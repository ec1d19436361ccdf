//! Numbers that many threads change at once.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use prometheus_client::metrics::gauge;

/// How many parts a number has, each for one thread. More threads than that share parts.
pub(super) const STRIPES: usize = 16;

/// Which of the [`STRIPES`] this thread counts in.
pub(super) fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    STRIPE.with(|stripe| *stripe)
}

/// A value on cache lines of its own, so that writing to it does not slow down its neighbours.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

/// A number that many threads change often and that is seldom read: the sum of its parts.
#[derive(Debug, Default)]
pub(super) struct Striped([Padded<AtomicI64>; STRIPES]);

impl Striped {
    fn add(&self, by: i64) -> i64 {
        let part = self.0.get(stripe());
        part.map_or(0, |part| part.0.fetch_add(by, Ordering::Relaxed))
    }
}

impl gauge::Atomic<i64> for Striped {
    fn inc(&self) -> i64 {
        self.add(1)
    }

    fn inc_by(&self, by: i64) -> i64 {
        self.add(by)
    }

    fn dec(&self) -> i64 {
        self.add(-1)
    }

    fn dec_by(&self, by: i64) -> i64 {
        self.add(-by)
    }

    fn set(&self, to: i64) -> i64 {
        let was = self.get();
        self.add(to - was);
        was
    }

    fn get(&self) -> i64 {
        let parts = self.0.iter().map(|part| part.0.load(Ordering::Relaxed));
        parts.sum()
    }
}
