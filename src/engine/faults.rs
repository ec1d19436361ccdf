//! Unreadable data: which key it is in, a metric that counts it, and a log line from time to time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::keys;
use crate::telemetry::metrics::Metrics;

/// How long a complaint is not logged again.
const REPEAT: Duration = Duration::from_secs(600);
/// How many different complaints are remembered. While so many are remembered, no other one is logged.
const COMPLAINTS: usize = 1_000;

/// The texts of complaints, and when each was last logged.
#[derive(Default)]
struct Complaints(Mutex<HashMap<String, Instant>>);

impl Complaints {
    /// Whether a complaint is to be logged, for the first time or again.
    fn due(&self, complaint: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= COMPLAINTS {
            logged.retain(|_, at| at.elapsed() < REPEAT);
        }
        match logged.get(complaint) {
            Some(at) if at.elapsed() < REPEAT => false,
            None if logged.len() >= COMPLAINTS => false,
            _ => {
                logged.insert(complaint.to_owned(), Instant::now());
                true
            }
        }
    }
}

/// Names, counts and logs unreadable data. Cheap to clone; clones share the remembered complaints.
#[derive(Clone)]
pub(super) struct Faults {
    metrics: Arc<Metrics>,
    complaints: Arc<Complaints>,
}

impl Faults {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            complaints: Arc::default(),
        }
    }

    /// Adds to an error the key that it is about, without ids of users or rooms, and counts it, unless the link has done both.
    pub(super) fn at_key<T>(&self, answer: Result<T>, key: impl FnOnce() -> String) -> Result<T> {
        answer.map_err(|error| self.locate(error, key, false))
    }

    /// Like [`Self::at_key`], for an error that may be about any key of a slot.
    pub(super) fn at_slot<T>(&self, answer: Result<T>, key: impl FnOnce() -> String) -> Result<T> {
        answer.map_err(|error| self.locate(error, key, true))
    }

    #[cold]
    fn locate(&self, error: Error, key: impl FnOnce() -> String, any_key: bool) -> Error {
        match error {
            Error::Unreadable(mut what) if what.place.is_empty() => {
                let place = keys::label(key().as_bytes(), any_key);
                self.metrics.unreadable(place.kind);
                what.place = place.text;
                Error::Unreadable(what)
            }
            error => error,
        }
    }

    /// Logs an error about unreadable data, unless the same one was logged lately. The link logs the failures of Redis itself.
    pub(super) fn complain(&self, error: &Error) {
        if !error.is_transient() && self.complaints.due(&error.to_string()) {
            tracing::error!(%error, "what can't be read is left as it is, and all other work goes on: run `unread verify`");
        }
    }
}
