//! Calls by app, endpoint and outcome.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::striped::{STRIPES, stripe};
use crate::outcome::Outcome;

/// The counts, in one table for each stripe, so that threads don't write to the same cache lines.
#[derive(Debug)]
pub(super) struct Requests {
    callers: Vec<Caller>,
    stripes: Vec<Box<[AtomicU64]>>,
}

/// An app, or (the first one, with an empty name) all callers whose app is not known.
#[derive(Debug)]
struct Caller {
    app: String,
    endpoints: Vec<&'static str>,
    /// Where its counts begin in a table.
    first: usize,
}

impl Requests {
    pub(super) fn new(callers: impl Iterator<Item = (String, Vec<&'static str>)>) -> Self {
        let mut cells = 0;
        let callers = callers
            .map(|(app, endpoints)| {
                let first = cells;
                cells += endpoints.len() * Outcome::ALL.len();
                Caller {
                    app,
                    endpoints,
                    first,
                }
            })
            .collect();
        let table = || {
            std::iter::repeat_with(AtomicU64::default)
                .take(cells)
                .collect()
        };
        Self {
            callers,
            stripes: std::iter::repeat_with(table).take(STRIPES).collect(),
        }
    }

    /// Counts a call. A call of an endpoint that its app does not have counts as one whose app is not known.
    pub(super) fn add(&self, app: Option<usize>, endpoint: &'static str, outcome: Outcome) {
        let own = app.and_then(|app| self.callers.get(app.checked_add(1)?));
        let place = own.and_then(|caller| caller.place(endpoint, outcome));
        let place = place.or_else(|| self.callers.first()?.place(endpoint, outcome));
        let stripe = self.stripes.get(stripe());
        if let Some(cell) = stripe
            .zip(place)
            .and_then(|(table, place)| table.get(place))
        {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The calls of all known apps whose endpoint and outcome are `wanted`.
    pub(super) fn of_apps(&self, wanted: fn(&str, Outcome) -> bool) -> u64 {
        let mut sum = 0;
        for caller in self.callers.iter().skip(1) {
            for endpoint in &caller.endpoints {
                for outcome in Outcome::ALL {
                    if wanted(endpoint, outcome)
                        && let Some(place) = caller.place(endpoint, outcome)
                    {
                        sum += self.count(place);
                    }
                }
            }
        }
        sum
    }

    fn count(&self, place: usize) -> u64 {
        let cells = self.stripes.iter().filter_map(|table| table.get(place));
        cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}

impl Caller {
    fn place(&self, endpoint: &'static str, outcome: Outcome) -> Option<usize> {
        let at = self.endpoints.iter().position(|known| *known == endpoint)?;
        Some(self.first + at * Outcome::ALL.len() + outcome as usize)
    }
}

/// [`Requests`] as the registry asks for them.
#[derive(Debug)]
pub(super) struct Collected(pub(super) Arc<OnceLock<Requests>>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut encoder = encoder.encode_descriptor(
            "unread_requests",
            "Calls by what came of them, whatever status the dialect has for it",
            None,
            MetricType::Counter,
        )?;
        let Some(requests) = self.0.get() else {
            return Ok(());
        };
        for caller in &requests.callers {
            for endpoint in &caller.endpoints {
                for outcome in Outcome::ALL {
                    let Some(place) = caller.place(endpoint, outcome) else {
                        continue;
                    };
                    let labels = [
                        ("app", caller.app.as_str()),
                        ("endpoint", endpoint),
                        ("outcome", outcome.word()),
                    ];
                    let mut encoder = encoder.encode_family(&labels)?;
                    encoder.encode_counter::<NoLabelSet, u64, u64>(&requests.count(place), None)?;
                }
            }
        }
        Ok(())
    }
}
