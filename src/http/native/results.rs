//! Applies the events of a request, and makes the answer: a row for each event, with what it came to.

use std::mem::take;

use serde::{Serialize, Serializer};

use super::reads::Users;
use crate::engine::{Concern, ConcernedTotals, Reader, Writer};
use crate::error::Error;
use crate::event::{Batch, Change, EventOutcome, Invalid, MembersOf, Notes, Wait};
use crate::names::AppId;
use crate::telemetry::metrics::Metrics;

/// Applies the events of a request, and makes the body of the answer. With a reader, the answer also holds the new totals of the
/// users whom the events concern.
pub(super) async fn apply(
    writer: &Writer,
    reader: Option<&Reader>,
    app: &AppId,
    batch: Batch,
    wait: Wait,
    metrics: &Metrics,
) -> Result<Vec<u8>, Error> {
    let total = batch.len();
    let mut events = batch.events;
    let notes = events.iter_mut().map(|event| take(&mut event.notes));
    let notes: Vec<Notes> = notes.collect();
    let concerned = match reader {
        Some(reader) => {
            let concerns = events.iter().map(|event| concern(&event.change));
            Some(Box::pin(reader.concerned(app, concerns.collect())).await?)
        }
        None => None,
    };
    let outcomes = writer.apply(app, events, wait).await?;
    let counts = match concerned {
        Some(concerned) => {
            let is_done = |place: usize| {
                let outcome: Option<&EventOutcome> = outcomes.get(place);
                !matches!(outcome, None | Some(EventOutcome::Rejected(_)))
            };
            Some(Box::pin(concerned.totals(is_done)).await?)
        }
        None => None,
    };
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
    count_and_render(metrics, &results, counts)
}

/// Whom an event concerns.
fn concern(change: &Change) -> Concern {
    let concern = change.concern();
    let users = concern.users.into_iter().flatten().chain(concern.more);
    let (mut room, mut room_before) = (None, None);
    match concern.members {
        Some((name, MembersOf::SmallRoom)) => room = Some(name.clone()),
        Some((name, which)) => {
            room_before = Some((name.clone(), which == MembersOf::RoomBefore));
        }
        None => {}
    }
    Concern {
        users: users.cloned().collect(),
        in_supergroup: concern.in_supergroup.to_vec(),
        room,
        room_before,
    }
}

/// What a caller is told of one event.
enum EventResult {
    /// What the event came to, and notes on how it was read.
    Outcome(EventOutcome, Notes),
    /// It is no event.
    Invalid(Invalid),
}

/// Counts the events by what they came to, and writes the body of the answer.
fn count_and_render(
    metrics: &Metrics,
    results: &[EventResult],
    counts: Option<ConcernedTotals>,
) -> Result<Vec<u8>, Error> {
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
        #[serde(skip_serializing_if = "Option::is_none")]
        counts: Option<Users<'a>>,
        #[serde(skip_serializing_if = "is_false")]
        counts_truncated: bool,
    }
    fn is_false(flag: &bool) -> bool {
        !flag
    }
    fn is_zero(count: &u64) -> bool {
        *count == 0
    }
    let counts_truncated = counts.as_ref().is_some_and(|counts| counts.truncated);
    let counts = counts.as_ref().map(|counts| {
        let users = counts.users.iter();
        users.zip(counts.totals.iter().copied()).collect::<Vec<_>>()
    });
    let body = AnswerBody {
        applied,
        accepted,
        duplicate,
        rejected,
        results,
        counts: counts.as_deref().map(Users),
        counts_truncated,
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
