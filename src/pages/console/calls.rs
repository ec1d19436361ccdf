//! The calls of the console's page. Each answers JSON for this page alone, which may change with any version.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::json as answer;
use super::{Console, EVERY, Stored, millis};
use crate::error::Error;
use crate::http;
use crate::http::request::Query;
use crate::names::{AppId, RoomId, UserId};

/// How long a look at one user or room may take.
const LOOK: Duration = Duration::from_secs(20);
/// How long a check of one user may take. It asks every room of the app.
const VERIFY: Duration = Duration::from_secs(60);
/// The most rooms of a user that a page gets, and the most plain counts.
const ROOMS: usize = 500;
/// The most bytes of a body.
const BODY: usize = 4_096;

/// Why the console refuses a call, in words that the page shows.
type Refused = (HttpResponseBuilder, String);

fn bad(why: impl Into<String>) -> Refused {
    (HttpResponse::BadRequest(), why.into())
}

fn refused((status, detail): Refused) -> HttpResponse {
    answer(status, &json!({ "detail": detail }))
}

/// The pod as it is, and its samples after `since`.
pub(super) async fn overview(request: HttpRequest, console: web::Data<Console>) -> HttpResponse {
    if let Err(closed) = console.gate.opens_to(&request) {
        return closed.answer();
    }
    let since = parameter(&request, "since").and_then(|since| since.parse().ok());
    let state = (console.state)();
    let samples = console.samples.lock();
    let samples = samples.unwrap_or_else(std::sync::PoisonError::into_inner);
    let columns = samples.columns(since.unwrap_or(0));
    drop(samples);
    answer(
        HttpResponse::Ok(),
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": millis(),
            "started": console.started,
            "locked": console.gate.is_locked(),
            "apps": console.apps,
            "pod": {
                "ready": state.ready, "server": state.server, "redis": state.redis,
                "schema": state.schema, "reason": state.reason,
            },
            "every_ms": u64::try_from(EVERY.as_millis()).unwrap_or(0),
            "samples": columns,
        }),
    )
}

/// One user: the totals as an app would be answered them, and what stands in Redis.
pub(super) async fn user(request: HttpRequest, console: web::Data<Console>) -> HttpResponse {
    if let Err(closed) = console.gate.opens_to(&request) {
        return closed.answer();
    }
    let looked = async {
        let app = app(&parameter(&request, "app").unwrap_or_default())?;
        let user = UserId::parse(parameter(&request, "user").unwrap_or_default());
        let user = user.map_err(|why| bad(format!("user {why}")))?;
        let find = parameter(&request, "find").unwrap_or_default();
        let look = move |stored: Arc<Stored>| async move {
            let document = stored.inspector.user(&app, &user).await?;
            let totals = http::totals(&stored.reader, &app, &user).await?;
            Ok(document.map(|mut document| {
                shorten(&mut document, &find);
                json!({"totals": totals, "stored": document, "passwords": stored.inspector.passwords()})
            }))
        };
        let place = place(&console.looks, "too many looks at users and rooms")?;
        let found = run(&console, place, LOOK, "it took too long", look).await?;
        found.ok_or_else(|| nothing_kept("user"))
    };
    shown(looked.await)
}

/// One room as it stands in Redis.
pub(super) async fn room(request: HttpRequest, console: web::Data<Console>) -> HttpResponse {
    if let Err(closed) = console.gate.opens_to(&request) {
        return closed.answer();
    }
    let looked = async {
        let app = app(&parameter(&request, "app").unwrap_or_default())?;
        let room = RoomId::parse(parameter(&request, "room").unwrap_or_default());
        let room = room.map_err(|why| bad(format!("room {why}")))?;
        let look = move |stored: Arc<Stored>| async move {
            let document = stored.inspector.room(&app, &room).await?;
            Ok(document.map(
                |document| json!({"stored": document, "passwords": stored.inspector.passwords()}),
            ))
        };
        let place = place(&console.looks, "too many looks at users and rooms")?;
        let found = run(&console, place, LOOK, "it took too long", look).await?;
        found.ok_or_else(|| nothing_kept("room"))
    };
    shown(looked.await)
}

/// Checks one user, as `unread verify --app A --user U` does. It asks every room of the app, so a page of another origin must not
/// be able to have it done: this body type is one that a browser asks about first, and there is no answer to that.
pub(super) async fn verify(
    request: HttpRequest,
    console: web::Data<Console>,
    body: web::Payload,
) -> HttpResponse {
    if let Err(closed) = console.gate.opens_to(&request) {
        return closed.answer();
    }
    let checked = async {
        let media = request.headers().get(header::CONTENT_TYPE);
        if media.is_none_or(|media| media.as_bytes() != b"application/json") {
            let why = "the body must be application/json";
            return Err((HttpResponse::UnsupportedMediaType(), why.to_owned()));
        }
        let body = body.to_bytes_limited(BODY).await;
        let body = body.ok().and_then(Result::ok);
        let asked: Option<Value> = body.and_then(|body| serde_json::from_slice(&body).ok());
        let asked = asked.ok_or_else(|| bad("the body must be an object with app and user"))?;
        let text = |name: &str| asked.get(name).and_then(Value::as_str).unwrap_or_default();
        let app = app(text("app"))?;
        let user = UserId::parse(text("user")).map_err(|why| bad(format!("user {why}")))?;
        let late = format!("it took more than a minute: run unread verify --app {app} --user …");
        let look =
            move |stored: Arc<Stored>| async move { stored.inspector.verify(&app, &user).await };
        let place = place(&console.verifying, "another check")?;
        run(&console, place, VERIFY, &late, look).await
    };
    shown(checked.await)
}

fn shown(looked: Result<Value, Refused>) -> HttpResponse {
    match looked {
        Ok(value) => answer(HttpResponse::Ok(), &value),
        Err(why) => refused(why),
    }
}

fn nothing_kept(what: &str) -> Refused {
    let why = format!("nothing is kept of such a {what} in this app");
    (HttpResponse::NotFound(), why)
}

fn app(id: &str) -> Result<AppId, Refused> {
    AppId::parse(id.to_owned()).ok_or_else(|| bad("app must be 1 to 64 of A-Z a-z 0-9 _ . -"))
}

/// The value of a parameter of the query.
fn parameter(request: &HttpRequest, wanted: &str) -> Option<String> {
    let mut all = Query::new(request.query_string());
    let (_, value) = all.find(|(name, _)| name == wanted)?;
    Some(value.into_owned())
}

/// A place among those who look into Redis.
fn place(places: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, Refused> {
    let place = Arc::clone(places).try_acquire_owned();
    place.map_err(|_| {
        let why = format!("busy: {what} under way; please try again");
        (HttpResponse::TooManyRequests(), why)
    })
}

/// Has that done where the connections to Redis live. It goes on to its end if the page goes away; the place that it holds bounds
/// how much of that there can be.
async fn run<T, F>(
    console: &Console,
    place: OwnedSemaphorePermit,
    time: Duration,
    late: &str,
    look: impl FnOnce(Arc<Stored>) -> F + Send + 'static,
) -> Result<T, Refused>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>>,
{
    let stored = console.stored.get().cloned();
    let stored = stored.ok_or_else(|| {
        let why = "the pod is starting: it has no connection to Redis yet";
        (HttpResponse::ServiceUnavailable(), why.to_owned())
    })?;
    let runtime = console.runtime.clone();
    let done = console.runtime.spawn_blocking(move || {
        let _place = place;
        runtime.block_on(async { tokio::time::timeout(time, look(stored)).await })
    });
    match done.await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(match error.is_transient() {
            true => (HttpResponse::ServiceUnavailable(), error.to_string()),
            false => (HttpResponse::InternalServerError(), error.to_string()),
        }),
        Ok(Err(_)) => Err((HttpResponse::GatewayTimeout(), late.to_owned())),
        Err(_) => {
            let why = "the server failed; the fault is logged".to_owned();
            Err((HttpResponse::InternalServerError(), why))
        }
    }
}

/// Leaves so many rooms in a user's document as a page can show: those whose name, peer or tag has `find` in it, and of these
/// rather those with unread messages. `total` says how many there are.
fn shorten(document: &mut Value, find: &str) {
    let find = find.to_lowercase();
    for part in ["rooms", "supergroups"] {
        let Some(part) = document.get_mut(part).and_then(Value::as_object_mut) else {
            continue;
        };
        let Some(Value::Array(rows)) = part.get_mut("list") else {
            continue;
        };
        let total = rows.len();
        let has = |row: &Value| {
            let texts = ["room", "peer", "custom_type"].map(|name| row.get(name)?.as_str());
            let tags = row.get("tags").and_then(Value::as_array);
            let tags = tags.into_iter().flatten().map(Value::as_str);
            let mut texts = texts.into_iter().chain(tags).flatten();
            texts.any(|text| text.to_lowercase().contains(&find))
        };
        rows.retain(|row| find.is_empty() || has(row));
        let matching = rows.len();
        if rows.len() > ROOMS {
            let is_read = |row: &Value| row.get("unread").and_then(Value::as_u64) == Some(0);
            let (read, mut shown): (Vec<_>, Vec<_>) =
                std::mem::take(rows).into_iter().partition(is_read);
            shown.extend(read);
            shown.truncate(ROOMS);
            *rows = shown;
        }
        part.insert("total".into(), total.into());
        part.insert("matching".into(), matching.into());
    }
    for part in ["counts", "references"] {
        let Some(part) = document.get_mut(part).and_then(Value::as_object_mut) else {
            continue;
        };
        let fields = part.get_mut("fields").and_then(Value::as_object_mut);
        let Some(fields) = fields else {
            continue;
        };
        let total = fields.len();
        if total > ROOMS {
            let mut shown = 0;
            fields.retain(|name, _| {
                let is_shown = shown < ROOMS && name.to_lowercase().contains(&find);
                shown += usize::from(is_shown);
                is_shown
            });
            part.insert("total".into(), total.into());
        }
    }
    if let Some(Value::Array(list)) = document.pointer_mut("/tombstones/list") {
        list.truncate(ROOMS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gets_the_rooms_that_it_looks_for_and_rather_the_unread_ones() {
        let rows = (0..2_000).map(|n| {
            json!({"room": format!("room-{n}"), "unread": u32::from(n >= 1_990), "tags": ["Work"],
                   "peer": null})
        });
        let mut document = json!({"rooms": {"list": rows.collect::<Vec<_>>()}});
        let mut found = document.clone();
        shorten(&mut document, "");
        let rooms = &document["rooms"];
        assert_eq!(
            (&rooms["total"], &rooms["matching"]),
            (&json!(2_000), &json!(2_000))
        );
        let list = rooms["list"].as_array().unwrap();
        assert_eq!(list.len(), ROOMS);
        assert_eq!(
            (&list[0]["room"], &list[10]["room"]),
            (&json!("room-1990"), &json!("room-0"))
        );
        let mut by_tag = found.clone();
        shorten(&mut found, "M-19");
        assert_eq!(found["rooms"]["matching"], 111);
        shorten(&mut by_tag, "work");
        assert_eq!(by_tag["rooms"]["matching"], 2_000);
        let fields: serde_json::Map<_, _> = (0..2_000)
            .map(|n| (format!("room:{n}"), json!(n)))
            .collect();
        let mut document = json!({"counts": {"fields": fields}});
        shorten(&mut document, "");
        assert_eq!(
            document["counts"]["fields"].as_object().unwrap().len(),
            ROOMS
        );
        assert_eq!(document["counts"]["total"], 2_000);
    }
}
