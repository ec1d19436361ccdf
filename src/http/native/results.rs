//! Applies the events of a request, and makes the answer: a row for each event, with what it came to.

use std::mem::take;

use serde::{Serialize, Serializer};

use crate::engine::Writer;
use crate::error::Error;
use crate::event::{Batch, EventOutcome, Invalid, Notes, Wait};
use crate::names::AppId;
use crate::telemetry::metrics::Metrics;

/// Applies the events of a request, and makes the body of the answer.
pub(super) async fn apply(
    writer: &Writer,
    app: &AppId,
    batch: Batch,
    wait: Wait,
    metrics: &Metrics,
) -> Result<Vec<u8>, Error> {
    let total = batch.len();
    let mut events = batch.events;
    let notes = events.iter_mut().map(|event| take(&mut event.notes));
    let notes: Vec<Notes> = notes.collect();
    let outcomes = writer.apply(app, events, wait).await?;
    let mut outcomes = outcomes.into_iter().zip(notes);
    let mut refused = batch.refused.into_iter().peekable();
    let results = (0..total).map(|index| match refused.next_if(|(at, _)| *at == index) {
        Some((_, invalid)) => Ok(EventResult::Invalid(invalid)),
        None => match outcomes.next() {
            Some((outcome, notes)) => Ok(EventResult::Outcome(outcome, notes)),
            None => Err(Error::Internal("an event has no outcome".into())),
        },
    });
    let results: Vec<EventResult> = results.collect::<Result<_, _>>()?;
    count_and_render(metrics, &results)
}

/// What a caller is told of one event.
enum EventResult {
    /// What the event came to, and notes on how it was read.
    Outcome(EventOutcome, Notes),
    /// It is no event.
    Invalid(Invalid),
}

/// Counts the events by what they came to, and writes the body of the answer.
fn count_and_render(metrics: &Metrics, results: &[EventResult]) -> Result<Vec<u8>, Error> {
    let (mut applied, mut accepted, mut duplicate, mut rejected) = (0, 0, 0, 0);
    for result in results {
        *match result {
            EventResult::Outcome(EventOutcome::Applied { .. }, _) => &mut applied,
            EventResult::Outcome(EventOutcome::Accepted { .. }, _) => &mut accepted,
            EventResult::Outcome(EventOutcome::Duplicate { .. }, _) => &mut duplicate,
            EventResult::Outcome(EventOutcome::Rejected(_), _) | EventResult::Invalid(_) => {
                &mut rejected
            }
        } += 1_u64;
    }
    for (word, count) in [
        ("applied", applied),
        ("accepted", accepted),
        ("duplicate", duplicate),
        ("rejected", rejected),
    ] {
        if count > 0 {
            metrics.event(word, count);
        }
    }
    #[derive(Serialize)]
    struct AnswerBody<'a> {
        applied: u64,
        #[serde(skip_serializing_if = "is_zero")]
        accepted: u64,
        duplicate: u64,
        rejected: u64,
        results: &'a [EventResult],
    }
    fn is_zero(count: &u64) -> bool {
        *count == 0
    }
    let body = AnswerBody {
        applied,
        accepted,
        duplicate,
        rejected,
        results,
    };
    serde_json::to_vec(&body).map_err(|error| Error::Internal(error.to_string()))
}

/// Written as the row of `results`.
impl Serialize for EventResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct EventRow<'a> {
            status: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            position: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<EventFault<'a>>,
            #[serde(skip_serializing_if = "Option::is_none", serialize_with = "each")]
            notes: Option<&'a Notes>,
        }
        #[derive(Serialize)]
        struct EventFault<'a> {
            code: &'a str,
            message: &'a str,
        }
        fn each<S: Serializer>(notes: &Option<&Notes>, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(notes.iter().flat_map(|notes| notes.iter()))
        }
        let notes = match self {
            Self::Outcome(_, notes) if !notes.is_empty() => Some(notes),
            _ => None,
        };
        let (status, position, error) = match self {
            Self::Outcome(EventOutcome::Applied { position }, _) => ("applied", *position, None),
            Self::Outcome(EventOutcome::Accepted { position }, _) => ("accepted", *position, None),
            Self::Outcome(EventOutcome::Duplicate { position }, _) => {
                ("duplicate", *position, None)
            }
            Self::Outcome(EventOutcome::Rejected(why), _) => {
                ("rejected", None, Some(why.code_and_message()))
            }
            Self::Invalid(invalid) => ("rejected", None, Some(("invalid", invalid.to_string()))),
        };
        let error = error
            .as_ref()
            .map(|(code, message)| EventFault { code, message });
        EventRow {
            status,
            position,
            error,
            notes,
        }
        .serialize(serializer)
    }
}
