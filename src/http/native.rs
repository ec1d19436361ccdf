//! The native API, `/v1`: events in, counts out. Also answers every path that no dialect claims. Errors are RFC 9457.

use std::collections::{BTreeMap, HashSet};

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpResponse, http::header::HeaderValue};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::config::AppConfig;
use crate::error::Error;
use crate::event::Event;
use crate::http::request::{
    BodyError, Call, close, decode_segment, json as answer, retry_after, set,
};
use crate::metrics::Metrics;
use crate::names::{RoomId, UserId};
use crate::store::{ByKind, Outcome, RoomCounts, RoomUnread, Totals, UserUnread, Wait};

/// The most users in one `POST /v1/unread`.
const MAX_USERS: usize = 1_000;
/// Bytes in the body of `POST /v1/unread`: [`MAX_USERS`] of the longest names, escaped.
const MAX_USERS_BYTES: usize = 2 * 1024 * 1024;

/// Answers a call of the native API, or of a path that nobody knows.
pub async fn serve(mut call: Call<'_>) -> HttpResponse {
    match route(&mut call).await {
        Ok(response) => response,
        Err(problem) => problem.render(),
    }
}

async fn route(call: &mut Call<'_>) -> Result<HttpResponse, Problem> {
    let segments = call.segments.clone();
    let (name, method) = match segments.as_slice() {
        ["v1", "events"] => ("native_events", Method::POST),
        ["v1", "unread"] => ("native_unread", Method::POST),
        ["v1", "users", _, "unread"] => ("native_user_unread", Method::GET),
        ["v1", "rooms", _, "unread"] => ("native_room_unread", Method::GET),
        _ => {
            call.route("unknown");
            return Err(Problem::new(StatusCode::NOT_FOUND, "no such path"));
        }
    };
    call.route(name);
    if *call.req.method() != method {
        let mut problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this path takes another method",
        );
        problem.allow = Some(if method == Method::GET { "GET" } else { "POST" });
        return Err(problem);
    }
    let index = authenticate(call).map_err(|problem| match call.refused("native") {
        Some(seconds) => Problem::too_many(seconds),
        None => problem,
    })?;
    let state = call.state;
    let app = state
        .config
        .apps
        .get(index)
        .ok_or_else(|| Problem::from(Error::Internal("an app is missing".into())))?;
    match segments.as_slice() {
        ["v1", "events"] => events(call, app).await,
        ["v1", "unread"] => unread(call, app).await,
        ["v1", "users", user, _] => user_unread(call, app, user).await,
        ["v1", "rooms", room, _] => room_unread(call, app, room).await,
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "no such path")),
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

// Events.

async fn events(call: &mut Call<'_>, app: &AppConfig) -> Result<HttpResponse, Problem> {
    let wait = match call.query().find(|(name, _)| name == "wait") {
        None => Wait::Applied,
        Some((_, value)) if value == "applied" => Wait::Applied,
        Some((_, value)) if value == "accepted" => Wait::Accepted,
        Some(_) => return Err(Problem::bad("wait must be applied or accepted")),
    };
    let lines = match media_type(call) {
        None | Some(Media::Json) => false,
        Some(Media::Lines) => true,
        Some(Media::Other) => {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json or application/x-ndjson",
            ));
        }
    };
    let server = &call.state.config.server;
    let (max_bytes, max_events) = (server.max_events_bytes, server.max_events);
    let body = call.body(max_bytes).await?;
    let values = if lines {
        parse_lines(&body)?
    } else {
        parse_json(&body)?
    };
    if values.len() > max_events {
        let detail = format!("at most {max_events} events can be sent at once");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }

    let mut results: Vec<Option<Outcome>> = Vec::with_capacity(values.len());
    let mut refused: Vec<(usize, String)> = Vec::new();
    let mut valid = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        match Event::parse(value) {
            Ok(event) => valid.push(event),
            Err(invalid) => refused.push((index, invalid.to_string())),
        }
    }
    let total = valid.len() + refused.len();
    let mut outcomes = call
        .state
        .store
        .apply(&app.id, valid, wait)
        .await?
        .into_iter();
    let mut bad = refused.iter().peekable();
    for index in 0..total {
        results.push(match bad.next_if(|(at, _)| *at == index) {
            Some(_) => None,
            None => outcomes.next(),
        });
    }
    count(&call.state.metrics, &results);
    Ok(render_events(&results, &refused))
}

fn count(metrics: &Metrics, results: &[Option<Outcome>]) {
    let words = results.iter().map(|outcome| match outcome {
        Some(Outcome::Applied { .. }) => "applied",
        Some(Outcome::Accepted { .. }) => "accepted",
        Some(Outcome::Duplicate { .. }) => "duplicate",
        Some(Outcome::Rejected(_)) | None => "rejected",
    });
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    for (word, n) in counts {
        metrics.event(word, n);
    }
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

fn parse_json(body: &[u8]) -> Result<Vec<Value>, Problem> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(values)) => Ok(values),
        Ok(value @ Value::Object(_)) => Ok(vec![value]),
        Ok(_) => Err(Problem::bad(
            "the body must be an event or a list of events",
        )),
        Err(error) => Err(not_json(&error, 0)),
    }
}

fn parse_lines(body: &[u8]) -> Result<Vec<Value>, Problem> {
    body.split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(number, line)| {
            serde_json::from_slice(line).map_err(|error| not_json(&error, number))
        })
        .collect()
}

/// Says where the body stops being JSON, without repeating any of it.
fn not_json(error: &serde_json::Error, line: usize) -> Problem {
    Problem::bad(format!(
        "the body is not JSON: line {}, column {}",
        error.line() + line,
        error.column()
    ))
}

fn render_events(results: &[Option<Outcome>], refused: &[(usize, String)]) -> HttpResponse {
    let (mut applied, mut accepted, mut duplicate, mut rejected) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut refused = refused.iter();
    let results: Vec<Value> = results
        .iter()
        .map(|outcome| match outcome {
            Some(Outcome::Applied { position }) => {
                applied += 1;
                status("applied", *position)
            }
            Some(Outcome::Accepted { position }) => {
                accepted += 1;
                status("accepted", *position)
            }
            Some(Outcome::Duplicate { position }) => {
                duplicate += 1;
                status("duplicate", *position)
            }
            Some(Outcome::Rejected(why)) => {
                rejected += 1;
                let (code, message) = why.said();
                rejection_json(code, &message)
            }
            None => {
                rejected += 1;
                let message = refused
                    .next()
                    .map(|(_, message)| message.as_str())
                    .unwrap_or_default();
                rejection_json("invalid", message)
            }
        })
        .collect();
    let mut body = Map::new();
    body.insert("applied".into(), applied.into());
    if accepted > 0 {
        body.insert("accepted".into(), accepted.into());
    }
    body.insert("duplicate".into(), duplicate.into());
    body.insert("rejected".into(), rejected.into());
    body.insert("results".into(), results.into());
    ok(&body)
}

fn status(status: &str, position: Option<u64>) -> Value {
    match position {
        Some(position) => json!({"status": status, "position": position}),
        None => json!({"status": status}),
    }
}

fn rejection_json(code: &str, message: &str) -> Value {
    json!({"status": "rejected", "error": {"code": code, "message": message}})
}

// Reads.

async fn user_unread(
    call: &Call<'_>,
    app: &AppConfig,
    user: &str,
) -> Result<HttpResponse, Problem> {
    let user = parse_segment(user, UserId::parse)?;
    let mut rooms = false;
    for (name, value) in call.query() {
        if name == "include" {
            for part in value.split(',').filter(|part| !part.is_empty()) {
                if part != "rooms" {
                    return Err(Problem::bad("include can only name rooms"));
                }
                rooms = true;
            }
        }
    }
    match call.state.store.user_unread(&app.id, &user, rooms).await? {
        Some(unread) => Ok(ok(&User::new(&user, &unread))),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no such user")),
    }
}

async fn unread(call: &mut Call<'_>, app: &AppConfig) -> Result<HttpResponse, Problem> {
    if matches!(media_type(call), Some(Media::Other | Media::Lines)) {
        let detail = "the body must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let body = call.body(MAX_USERS_BYTES).await?;
    let bad = || Problem::bad("users must be a list of user ids");
    let value: Value = serde_json::from_slice(&body).map_err(|error| not_json(&error, 0))?;
    let Value::Object(mut fields) = value else {
        return Err(Problem::bad("the body must be an object"));
    };
    let Some(Value::Array(asked)) = fields.remove("users") else {
        return Err(bad());
    };
    if let Some(field) = fields.keys().next() {
        let field: String = field.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(Problem::bad(format!("{field} is not a field of this call")));
    }
    if asked.len() > MAX_USERS {
        let detail = format!("at most {MAX_USERS} users can be asked for at once");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let mut users = Vec::with_capacity(asked.len());
    for user in asked {
        let Value::String(user) = user else {
            return Err(bad());
        };
        users.push(
            UserId::parse(user)
                .map_err(|error| Problem::bad(format!("users: a user id {error}")))?,
        );
    }
    let mut named = HashSet::with_capacity(users.len());
    let users: Vec<&UserId> = users.iter().filter(|user| named.insert(*user)).collect();
    let totals = call.state.store.totals_of(&app.id, &users).await?;
    let users: Vec<_> = users.into_iter().zip(totals).collect();
    #[derive(Serialize)]
    struct Body<'a> {
        users: Users<'a>,
    }
    Ok(ok(&Body {
        users: Users(&users),
    }))
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
    for (name, value) in call.query() {
        match name.as_ref() {
            "users" => {
                let users = users.get_or_insert_default();
                for user in value.split(',').filter(|user| !user.is_empty()) {
                    users.push(parse(user)?);
                }
            }
            // For ids that hold a comma.
            "user" => users.get_or_insert_default().push(parse(&value)?),
            _ => {}
        }
    }
    if users.as_ref().is_some_and(|users| users.len() > MAX_USERS) {
        let detail = format!("at most {MAX_USERS} users can be asked for at once");
        return Err(Problem::bad(detail));
    }
    match call
        .state
        .store
        .room_unread(&app.id, &room, users.as_deref())
        .await?
    {
        RoomCounts::Counts(counts) => {
            let unread: Map<String, Value> = counts
                .into_iter()
                .map(|(user, n)| (user, n.into()))
                .collect();
            Ok(ok(&json!({ "unread": unread })))
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

    fn render(self) -> HttpResponse {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = HttpResponse::build(self.status)
            .content_type("application/problem+json")
            .body(body.to_string());
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
        if let Error::Unknown(why) = &error {
            let detail =
                format!("{why}: the outcome is unknown; the whole request may be sent again");
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        }
        if let Error::Overloaded(_) = &error {
            let detail = format!("{error}; the whole request may be sent again");
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        }
        if error.is_transient() {
            let detail = "redis can't be reached in time; the whole request may be sent again";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        }
        tracing::error!(%error, "a call of the native API failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the server failed; the fault is logged",
        )
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken => StatusCode::BAD_REQUEST,
            BodyError::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        };
        Self {
            unread_body: true,
            ..Self::new(status, error.to_string())
        }
    }
}
