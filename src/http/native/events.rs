//! `POST /v1/events`: takes events in.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::problem::Problem;
use super::{Media, Times, enter, includes, media_type, parameters, results};
use crate::engine::MOST_CONCERNED;
use crate::event::{self, BodyFault, BodyForm, Wait};
use crate::http::request::{Call, Done, json_bytes};
use crate::http::state::State;
use crate::http::unserved::Unserved;
use crate::names::EventKey;

/// The most events of a small body that a worker itself applies and answers. Of more, the work is done beside the workers.
const FEW_EVENTS: usize = 1_000;
/// How many bytes of the answer an applied event takes.
const ROW_BYTES: u64 = 48;
/// How many bytes of the answer the new totals take at most, as long as ids are not unusually long.
const COUNTS_BYTES: u64 = 300 * MOST_CONCERNED as u64;

/// `POST /v1/events`.
pub(super) async fn events(call: &mut Call<'_>) -> Result<HttpResponse, Problem> {
    let (index, app) = enter(call)?;
    let Asked {
        wait,
        counts,
        by_time,
    } = asked(call)?;
    let form = form(call)?;
    let key = request_key(call)?;
    let State {
        config,
        answers,
        bodies,
        reader,
        writer,
        metrics,
        ..
    } = call.state;
    let server = &config.server;
    let (max_bytes, max_events) = (server.max_events_bytes, server.max_events);
    // An overloaded pod refuses the call before it reads the body, which then costs no memory.
    writer.takes_events(app)?;
    let body = call.body(index, max_bytes).await?;
    let mut is_large = body.is_large();
    let read = move |body: &[u8]| {
        let mut batch = event::read_all(body, form, max_events)?;
        if let Some(key) = &key {
            batch.give_keys(key);
        }
        if by_time {
            batch.place_by_time();
        }
        Ok::<_, BodyFault>(batch)
    };
    let (batch, _memory) = bodies.work(body, read).await;
    let batch = batch?;
    is_large |= batch.len() > FEW_EVENTS;
    // Memory for the answer is reserved before any event is applied: an answer that tells what was done is never refused.
    let rows = ROW_BYTES.saturating_mul(batch.len() as u64);
    let rows = rows.saturating_add(batch.note_bytes() as u64);
    let rows = rows.saturating_add(if counts { COUNTS_BYTES } else { 0 });
    let _room_for_answer = answers.try_hold(rows).map_err(|_| {
        metrics.overloaded("answers");
        Problem::new(Unserved::Overloaded.status(), Unserved::Overloaded.detail())
    })?;
    let answer = if is_large {
        let (reader, writer, app) = (Arc::clone(reader), writer.clone(), app.clone());
        let metrics = Arc::clone(metrics);
        let work = async move {
            let reader = counts.then_some(&*reader);
            results::apply(&writer, reader, &app, batch, wait, &metrics).await
        };
        Box::pin(bodies.beside(work)).await
    } else {
        let reader = counts.then_some(&**reader);
        results::apply(writer, reader, app, batch, wait, metrics).await
    };
    let mut answer = json_bytes(StatusCode::OK, answer?);
    answer.extensions_mut().insert(Done);
    Ok(answer)
}

/// What the parameters ask for.
struct Asked {
    /// What the caller waits for.
    wait: Wait,
    /// Whether the answer should hold the new totals.
    counts: bool,
    /// Whether the events are placed by their own times.
    by_time: bool,
}

fn asked(call: &Call<'_>) -> Result<Asked, Problem> {
    let (mut wait, mut counts, mut by_time) = (Wait::Applied, false, false);
    let known = [
        ("wait", Times::Once),
        ("include", Times::Many),
        ("order", Times::Once),
    ];
    for (name, value) in parameters(call, &known)? {
        match (name, &*value) {
            ("include", value) => counts |= includes(value, "counts")?,
            ("order", "arrival") => {}
            ("order", "time") => by_time = true,
            ("order", _) => return Err(Problem::bad("order must be arrival or time")),
            (_, "applied") => {}
            (_, "accepted") => wait = Wait::Accepted,
            _ => return Err(Problem::bad("wait must be applied or accepted")),
        }
    }
    match (wait, counts) {
        (Wait::Accepted, true) => Err(Problem::bad(
            "include=counts needs wait=applied: the counts do not show yet what is only accepted",
        )),
        _ => Ok(Asked {
            wait,
            counts,
            by_time,
        }),
    }
}

/// In which form the events come.
fn form(call: &Call<'_>) -> Result<BodyForm, Problem> {
    match media_type(call) {
        None | Some(Media::Json) => Ok(BodyForm::Json),
        Some(Media::Lines) => Ok(BodyForm::Lines),
        Some(Media::Other) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON (application/json, text/plain or application/x-www-form-urlencoded), or have one event a line \
             (application/x-ndjson)",
        )),
    }
}

/// The key of the whole request, by which a repeated request is known.
fn request_key(call: &Call<'_>) -> Result<Option<EventKey>, Problem> {
    const NAME: &str = "Idempotency-Key";
    let bad = |why: &str| Problem::bad(format!("{NAME} {why}"));
    let mut values = call.req.headers().get_all(NAME);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(bad("can be given only once"));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| bad("must be UTF-8"))?;
    let key = EventKey::parse(text.trim()).map_err(|error| bad(&error.to_string()))?;
    Ok(Some(key))
}

impl From<BodyFault> for Problem {
    fn from(error: BodyFault) -> Self {
        let status = match error {
            BodyFault::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}
