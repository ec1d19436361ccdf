//! Numbers that many threads move at once.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use prometheus_client::metrics::gauge;

/// Threads that do not get in each other's way when they count; more of them share.
pub(super) const STRIPES: usize = 16;

/// Which of the [`STRIPES`] this thread counts in.
pub(super) fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    STRIPE.with(|stripe| *stripe)
}

/// On cache lines of its own, so that writing to one does not slow down the next.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

/// A number that many threads move up and down, and that is seldom read.
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
