//! The native API, `/v1`: events in, counts out. Also answers every path that no dialect claims. Errors are RFC 9457.

mod results;
#[cfg(fuzzing)]
#[path = "../../fuzz/doors/native.rs"]
#[doc(hidden)]
pub mod fuzzing;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpResponse, http::header::HeaderValue};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json as object};

use crate::config::AppConfig;
use crate::counts::{ByKind, RoomCounts, RoomUnread, Totals, UserUnread};
use crate::error::Error;
use crate::event::Wait;
use crate::event::{self, Form, Unreadable};
use crate::http::State;
use crate::http::Unserved;
use crate::http::body::BodyError;
use crate::http::request::{
    Call, Done, came_to, close, decode_segment, json as answer, json_bytes, retry_after, set,
    with_body,
};
use crate::json::{self, NotJson, Positions, Surrogates};
use crate::names::{EventKey, RoomId, UserId};
use crate::outcome::Outcome;

/// What its endpoints are called in metrics, and the method of each.
pub const ENDPOINTS: &[(&str, &str)] = &[
    ("native_events", "POST"),
    ("native_unread", "POST"),
    ("native_user_unread", "GET"),
    ("native_room_unread", "GET"),
];

/// The most users in one `POST /v1/unread`.
const MAX_USERS: usize = 1_000;
/// Bytes in the body of `POST /v1/unread`: [`MAX_USERS`] of the longest names, escaped.
const MAX_USERS_BYTES: usize = 2 << 20;

/// So many events a worker applies and answers by itself.
const FEW_EVENTS: usize = 1_000;
/// Bytes in an answer for an event that was applied.
const ROW_BYTES: u64 = 48;

/// Answers a call of the native API, or of a path that nobody knows.
pub async fn serve(mut call: Call<'_>) -> HttpResponse {
    match route(&mut call).await {
        Ok(response) => response,
        Err(problem) => problem.render(),
    }
}

/// The words for a request that no handler sees.
pub fn unserved(why: Unserved) -> HttpResponse {
    Problem::new(why.status(), why.detail()).render()
}

/// The words for a path that there is not or, where it takes the methods named, for another method.
pub fn unrouted(allow: Option<&'static str>) -> HttpResponse {
    allow.map_or_else(Problem::path, Problem::method).render()
}

/// The methods that a path takes.
struct Methods {
    taken: &'static [Method],
    named: &'static str,
}

const GET: Methods = Methods {
    taken: &[Method::GET],
    named: "GET",
};
const POST: Methods = Methods {
    taken: &[Method::POST],
    named: "POST",
};
const GET_OR_POST: Methods = Methods {
    taken: &[Method::GET, Method::POST],
    named: "GET, POST",
};

async fn route(call: &mut Call<'_>) -> Result<HttpResponse, Problem> {
    let segments = call.segments.clone();
    let (name, methods) = match segments.as_slice() {
        ["v1", "events"] => ("native_events", POST),
        ["v1", "unread"] => ("native_unread", POST),
        ["v1", "users", _, "unread"] => ("native_user_unread", GET),
        ["v1", "rooms", _, "unread"] => ("native_room_unread", GET_OR_POST),
        _ => {
            call.route("unknown");
            return Err(Problem::path());
        }
    };
    call.route(name);
    if !methods.taken.iter().any(|method| call.is(method)) {
        return Err(Problem::method(methods.named));
    }
    let index = authenticate(call).map_err(|problem| match call.refused("native") {
        Some(seconds) => Problem::too_many(seconds),
        None => problem,
    })?;
    call.is_of(index);
    let state = call.state;
    let app = state
        .config
        .apps
        .get(index)
        .ok_or_else(|| Problem::from(Error::Internal("an app is missing".into())))?;
    match segments.as_slice() {
        ["v1", "events"] => events(call, app, index).await,
        ["v1", "unread"] => unread(call, app, index).await,
        ["v1", "users", user, _] => user_unread(call, app, user).await,
        ["v1", "rooms", room, _] if call.is(&Method::POST) => {
            room_unread_of(call, app, index, room).await
        }
        ["v1", "rooms", room, _] => room_unread(call, app, room).await,
        _ => Err(Problem::path()),
    }
}

fn authenticate(call: &Call<'_>) -> Result<usize, Problem> {
    let given = call.header("authorization").and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    given
        .and_then(|key| call.state.apps.by_server_key(key))
        .ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "a valid server key is needed as bearer token",
            )
        })
}

/// How often a parameter may be given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    /// What it says would not be plain otherwise.
    Once,
    /// It is a list, whose parts may come one by one.
    Many,
}

/// The parameters of a call that takes these and no others: whoever misspells one would be answered another question.
fn parameters<'a>(
    call: &Call<'a>,
    known: &[(&'static str, Times)],
) -> Result<Vec<(&'static str, Cow<'a, str>)>, Problem> {
    let mut given: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
    for (name, value) in call.query().strict() {
        let Some((name, times)) = known.iter().find(|(known, _)| *known == name) else {
            let name = named(&name);
            return Err(Problem::bad(format!(
                "{name} is not a parameter of this call"
            )));
        };
        if *times == Times::Once && given.iter().any(|(given, _)| given == name) {
            return Err(Problem::bad(format!("{name} is given twice")));
        }
        let value = value.ok_or_else(|| Problem::bad(format!("{name} is not UTF-8")))?;
        given.push((name, value));
    }
    Ok(given)
}

/// A name that a caller has chosen as an answer may repeat it.
fn named(name: &str) -> String {
    let clean: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    match clean.is_empty() {
        true => "\"\"".to_owned(),
        false => clean,
    }
}

// Events.

async fn events(
    call: &mut Call<'_>,
    app: &AppConfig,
    index: usize,
) -> Result<HttpResponse, Problem> {
    let mut wait = Wait::Applied;
    for (_, value) in parameters(call, &[("wait", Times::Once)])? {
        wait = match &*value {
            "applied" => Wait::Applied,
            "accepted" => Wait::Accepted,
            _ => return Err(Problem::bad("wait must be applied or accepted")),
        };
    }
    let form = match media_type(call) {
        None | Some(Media::Json) => Form::Json,
        Some(Media::Lines) => Form::Lines,
        Some(Media::Other) => {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json or application/x-ndjson",
            ));
        }
    };
    let key = request_key(call)?;
    let State {
        config,
        answers,
        bodies,
        writer,
        metrics,
        ..
    } = call.state;
    let server = &config.server;
    let (max_bytes, max_events) = (server.max_events_bytes, server.max_events);
    // Refused before the body is read, which then costs no memory.
    writer.takes_events(&app.id)?;
    let body = call.body(index, max_bytes).await?;
    let mut is_large = body.is_large();
    let read = move |body: &[u8]| {
        let mut batch = event::read_all(body, form, max_events)?;
        if let Some(key) = &key {
            batch.give_keys(key);
        }
        Ok::<_, Unreadable>(batch)
    };
    let (batch, _room) = bodies.work(body, read).await;
    let batch = batch?;
    is_large |= batch.len() > FEW_EVENTS;
    // Memory for the answer is there before anything is done: it is given then, whatever it comes to.
    let rows = ROW_BYTES.saturating_mul(batch.len() as u64);
    let rows = rows.saturating_add(batch.note_bytes() as u64);
    let _room_for_answer = answers.try_hold(rows).map_err(|_| {
        metrics.overloaded("answers");
        Problem::new(Unserved::Overloaded.status(), Unserved::Overloaded.detail())
    })?;
    let answer = if is_large {
        let (writer, app, metrics) = (writer.clone(), app.id.clone(), Arc::clone(metrics));
        let work = async move { results::applied(&writer, &app, batch, wait, &metrics).await };
        Box::pin(bodies.beside(work)).await
    } else {
        results::applied(writer, &app.id, batch, wait, metrics).await
    };
    let mut answer = json_bytes(StatusCode::OK, answer?);
    answer.extensions_mut().insert(Done);
    Ok(answer)
}

/// The key of the whole request, by which it is known when it is sent again.
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

enum Media {
    Json,
    Lines,
    Other,
}

fn media_type(call: &Call<'_>) -> Option<Media> {
    let value = call.header("content-type")?;
    let essence = value.split(';').next().unwrap_or_default().trim();
    Some(match essence.to_ascii_lowercase().as_str() {
        "application/json" | "text/json" | "text/plain" | "application/x-www-form-urlencoded" => {
            Media::Json
        }
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Media::Lines,
        other if other.ends_with("+json") => Media::Json,
        _ => Media::Other,
    })
}

/// Says where the body stops being JSON, without repeating any of it.
fn not_json(body: &[u8], fault: NotJson) -> Problem {
    let (line, column) = Positions::new(body).of(fault.read.saturating_sub(1));
    let what = match fault.deep {
        true => "nested too deeply",
        false => "not JSON",
    };
    Problem::bad(format!("the body is {what}: line {line}, column {column}"))
}

impl From<Unreadable> for Problem {
    fn from(error: Unreadable) -> Self {
        let status = match error {
            Unreadable::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

// Reads.

async fn user_unread(
    call: &Call<'_>,
    app: &AppConfig,
    user: &str,
) -> Result<HttpResponse, Problem> {
    let user = parse_segment(user, UserId::parse)?;
    let mut rooms = false;
    for (_, value) in parameters(call, &[("include", Times::Many)])? {
        for part in value.split(',').filter(|part| !part.is_empty()) {
            if part != "rooms" {
                return Err(Problem::bad("include can only name rooms"));
            }
            rooms = true;
        }
    }
    match call.state.reader.user_unread(&app.id, &user, rooms).await? {
        Some(unread) => Ok(ok(&User::new(&user, &unread))),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no such user")),
    }
}

async fn unread(
    call: &mut Call<'_>,
    app: &AppConfig,
    index: usize,
) -> Result<HttpResponse, Problem> {
    let users = users_of_body(call, index).await?;
    let mut named = HashSet::with_capacity(users.len());
    let users: Vec<&UserId> = users.iter().filter(|user| named.insert(*user)).collect();
    let totals = call.state.reader.totals_of(&app.id, &users).await?;
    let users: Vec<_> = users.into_iter().zip(totals).collect();
    #[derive(Serialize)]
    struct Body<'a> {
        users: Users<'a>,
    }
    Ok(ok(&Body {
        users: Users(&users),
    }))
}

/// The users that the body of a call without parameters names.
async fn users_of_body(call: &mut Call<'_>, index: usize) -> Result<Vec<UserId>, Problem> {
    parameters(call, &[])?;
    if matches!(media_type(call), Some(Media::Other | Media::Lines)) {
        let detail = "the body must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let most = MAX_USERS_BYTES.min(call.state.config.server.max_bodies_bytes / 4);
    let body = call.body(index, most).await?;
    let (users, _room) = call.state.bodies.work(body, users_asked).await;
    users
}

/// The users that a body names.
fn users_asked(body: &[u8]) -> Result<Vec<UserId>, Problem> {
    let value = json::whole(body).map_err(|fault| not_json(body, fault))?;
    let fields = value
        .fields()
        .ok_or_else(|| Problem::bad("the body must be an object"))?;
    let mut asked = None;
    for (key, value) in fields {
        match key.text(Surrogates::Replace) {
            Some(Ok(key)) if key == "users" => asked = value.items(),
            Some(Ok(key)) => {
                let key = named(&key);
                return Err(Problem::bad(format!("{key} is not a field of this call")));
            }
            _ => return Err(Problem::bad("a field's name can't be read")),
        }
    }
    let bad = || Problem::bad("users must be a list of user ids");
    let mut users = Vec::new();
    for user in asked.ok_or_else(bad)? {
        if users.len() == MAX_USERS {
            let detail = format!("at most {MAX_USERS} users can be asked for at once");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        let user = match user.text(Surrogates::Refuse).ok_or_else(bad)? {
            Ok(user) => UserId::parse(user).map_err(|error| error.to_string()),
            Err(error) => Err(error.fault.to_string()),
        };
        users.push(user.map_err(|error| Problem::bad(format!("users: a user id {error}")))?);
    }
    Ok(users)
}

async fn room_unread(
    call: &Call<'_>,
    app: &AppConfig,
    room: &str,
) -> Result<HttpResponse, Problem> {
    let room = parse_segment(room, RoomId::parse)?;
    let mut users: Option<Vec<UserId>> = None;
    let parse = |user: &str| {
        UserId::parse(user).map_err(|error| Problem::bad(format!("a user id {error}")))
    };
    // `user` is for ids that hold a comma.
    for (name, value) in parameters(call, &[("users", Times::Many), ("user", Times::Many)])? {
        let users = users.get_or_insert_default();
        if name == "user" {
            users.push(parse(&value)?);
            continue;
        }
        for user in value.split(',').filter(|user| !user.is_empty()) {
            users.push(parse(user)?);
        }
    }
    if users.as_ref().is_some_and(|users| users.len() > MAX_USERS) {
        let detail = format!("at most {MAX_USERS} users can be asked for at once");
        return Err(Problem::bad(detail));
    }
    room_counts(call, app, &room, users.as_deref()).await
}

/// The same for users whom the body names: a URL has no place for a thousand.
async fn room_unread_of(
    call: &mut Call<'_>,
    app: &AppConfig,
    index: usize,
    room: &str,
) -> Result<HttpResponse, Problem> {
    let room = parse_segment(room, RoomId::parse)?;
    let users = users_of_body(call, index).await?;
    room_counts(call, app, &room, Some(&users)).await
}

async fn room_counts(
    call: &Call<'_>,
    app: &AppConfig,
    room: &RoomId,
    users: Option<&[UserId]>,
) -> Result<HttpResponse, Problem> {
    match call.state.reader.room_unread(&app.id, room, users).await? {
        RoomCounts::Counts(counts) => {
            let unread: Map<String, Value> = counts
                .into_iter()
                .map(|(user, n)| (user, n.into()))
                .collect();
            Ok(ok(&object!({ "unread": unread })))
        }
        RoomCounts::NoRoom => Err(Problem::new(StatusCode::NOT_FOUND, "no such room")),
        RoomCounts::TooLarge => Err(Problem::bad(
            "the room has too many members to answer for all: name up to 1,000 users",
        )),
    }
}

fn parse_segment<T, E: std::fmt::Display>(
    segment: &str,
    parse: impl Fn(String) -> Result<T, E>,
) -> Result<T, Problem> {
    let decoded = decode_segment(segment)
        .ok_or_else(|| Problem::bad("the path is not percent-encoded UTF-8"))?;
    parse(decoded.into_owned()).map_err(|error| Problem::bad(format!("an id in the path {error}")))
}

#[derive(Serialize)]
struct Numbers {
    total: u64,
    direct: u64,
    group: u64,
    supergroup: u64,
}

impl From<&ByKind> for Numbers {
    fn from(counts: &ByKind) -> Self {
        Self {
            total: counts.total(),
            direct: counts.direct,
            group: counts.group,
            supergroup: counts.supergroup,
        }
    }
}

#[derive(Serialize)]
struct Families {
    messages: Numbers,
    mentions: Numbers,
    invitations: Numbers,
}

impl From<&Totals> for Families {
    fn from(totals: &Totals) -> Self {
        Self {
            messages: (&totals.messages).into(),
            mentions: (&totals.mentions).into(),
            invitations: (&totals.invitations).into(),
        }
    }
}

#[derive(Serialize)]
struct User<'a> {
    user: &'a str,
    #[serde(flatten)]
    families: Families,
    tags: &'a BTreeMap<String, u64>,
    types: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<Vec<Room<'a>>>,
}

impl<'a> User<'a> {
    fn new(user: &'a UserId, unread: &'a UserUnread) -> Self {
        let rooms = unread.rooms.as_ref();
        Self {
            user: user.as_str(),
            families: (&unread.totals).into(),
            tags: &unread.tags,
            types: &unread.types,
            rooms: rooms.map(|rooms| rooms.iter().map(Room::new).collect()),
        }
    }
}

#[derive(Serialize)]
struct Room<'a> {
    room: &'a str,
    kind: &'static str,
    custom_type: Option<&'a str>,
    tags: &'a [String],
    messages: u64,
    mentions: u64,
}

impl<'a> Room<'a> {
    fn new(room: &'a RoomUnread) -> Self {
        Self {
            room: &room.room,
            kind: room.kind.as_str(),
            custom_type: room.custom_type.as_deref(),
            tags: &room.tags,
            messages: room.messages,
            mentions: room.mentions,
        }
    }
}

/// Written as an object: a user's numbers, or null, under its id.
struct Users<'a>(&'a [(&'a UserId, Option<Totals>)]);

impl Serialize for Users<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let users = self.0.iter();
        serializer.collect_map(
            users.map(|(user, totals)| (user.as_str(), totals.as_ref().map(Families::from))),
        )
    }
}

fn ok(body: &impl Serialize) -> HttpResponse {
    answer(StatusCode::OK, body)
        .unwrap_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "").render())
}

// Problems.

/// An error as RFC 9457 has it.
struct Problem {
    status: StatusCode,
    outcome: Outcome,
    detail: String,
    allow: Option<&'static str>,
    /// Whether bytes of the body may still be on the way.
    unread_body: bool,
    /// Seconds to wait, of a limit.
    retry_after: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            outcome: Outcome::of_status(status.as_u16()),
            detail: detail.into(),
            allow: None,
            unread_body: false,
            retry_after: None,
        }
    }

    fn too_many(seconds: u64) -> Self {
        let detail = "too many calls from this address had no valid server key";
        Self {
            retry_after: Some(seconds),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    fn method(allow: &'static str) -> Self {
        let detail = "this path takes another method";
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        }
    }

    fn path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such path")
    }

    fn render(self) -> HttpResponse {
        let body = object!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let body = body.to_string().into_bytes();
        let mut response = with_body(self.status, "application/problem+json", body);
        came_to(&mut response, self.outcome);
        match self.status {
            StatusCode::UNAUTHORIZED => set(
                &mut response,
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer"),
            ),
            StatusCode::SERVICE_UNAVAILABLE => {
                set(
                    &mut response,
                    header::RETRY_AFTER,
                    HeaderValue::from_static("1"),
                );
            }
            _ => {}
        }
        if let Some(seconds) = self.retry_after {
            retry_after(&mut response, seconds);
        }
        if let Some(allow) = self.allow {
            set(
                &mut response,
                header::ALLOW,
                HeaderValue::from_static(allow),
            );
        }
        if self.unread_body {
            close(&mut response);
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let why = match &error {
            Error::Unknown(why) => Some(format!("{why}: the outcome is unknown")),
            Error::Overloaded(_) | Error::Limited(_) => Some(error.to_string()),
            Error::Unavailable(why) => Some(why.sentence().into_owned()),
            Error::Unreadable(_) | Error::Internal(_) => None,
        };
        let outcome = error.outcome();
        let Some(why) = why else {
            tracing::error!(%error, "a call of the native API failed");
            let detail = "the server failed; the fault is logged";
            return Self {
                outcome,
                ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
            };
        };
        let detail = format!("{why}; the whole request may be sent again");
        Self {
            outcome,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken => StatusCode::BAD_REQUEST,
            BodyError::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
        };
        if error == BodyError::NoRoom {
            // What is short is read away, so that a caller who comes again needs no new connection.
            return Self::new(
                status,
                format!("{error}; the whole request may be sent again"),
            );
        }
        Self {
            unread_body: true,
            ..Self::new(status, error.to_string())
        }
    }
}
