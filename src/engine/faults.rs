//! What can't be read: which key it is, counted, and logged now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::keys;
use crate::telemetry::metrics::Metrics;

/// Before the same complaint is logged again, and how many are told apart.
const COMPLAIN: Duration = Duration::from_secs(600);
const COMPLAINTS: usize = 1_000;

/// What can't be read, and when that was said last.
#[derive(Default)]
struct Complaints(Mutex<HashMap<String, Instant>>);

impl Complaints {
    /// Whether it is time to say it, for the first time or again.
    fn due(&self, what: &str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= COMPLAINTS {
            said.retain(|_, at| at.elapsed() < COMPLAIN);
        }
        match said.get(what) {
            Some(at) if at.elapsed() < COMPLAIN => false,
            None if said.len() >= COMPLAINTS => false,
            _ => {
                said.insert(what.to_owned(), Instant::now());
                true
            }
        }
    }
}

/// A cheap handle; clones share what has been said.
#[derive(Clone)]
pub(crate) struct Faults {
    metrics: Arc<Metrics>,
    complaints: Arc<Complaints>,
}

impl Faults {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            complaints: Arc::default(),
        }
    }

    /// Says of an error which key it is about, and counts it, unless the link has done so. Names nobody.
    pub(crate) fn at<T>(&self, answer: Result<T>, key: impl FnOnce() -> String) -> Result<T> {
        answer.map_err(|error| self.place(error, key, false))
    }

    /// The same of an error that may be about any key of a slot.
    pub(crate) fn at_slot<T>(&self, answer: Result<T>, key: impl FnOnce() -> String) -> Result<T> {
        answer.map_err(|error| self.place(error, key, true))
    }

    #[cold]
    fn place(&self, error: Error, key: impl FnOnce() -> String, whole: bool) -> Error {
        match error {
            Error::Unreadable(mut what) if what.place.is_empty() => {
                let place = keys::place(key().as_bytes(), whole);
                self.metrics.unreadable(place.kind);
                what.place = place.text;
                Error::Unreadable(what)
            }
            error => error,
        }
    }

    /// Says, now and then, that something can't be read. Redis being away is logged by the connection.
    pub(crate) fn complain(&self, error: &Error) {
        if !error.is_transient() && self.complaints.due(&error.to_string()) {
            tracing::error!(%error, "what can't be read is left as it is, and all other work goes on: run `unread verify`");
        }
    }
}
