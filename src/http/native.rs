//! The native API, under `/v1`: it takes events in and answers counts. It also answers every path that no dialect claims. Its
//! errors are problem details (RFC 9457).

mod events;
mod live;
mod problem;
mod reads;
mod results;
mod rooms;
mod users;
#[cfg(fuzzing)]
#[path = "../../fuzz/doors/native.rs"]
#[doc(hidden)]
pub(crate) mod fuzzing;

use std::borrow::Cow;
use std::fmt::Write as _;

use actix_web::HttpResponse;
use actix_web::http::{Method, StatusCode};
use futures_util::future::LocalBoxFuture;

use crate::config::{AppConfig, SectionKind};
use crate::error::Error;
use crate::http::cors;
use crate::http::dialect::{self, Dialect, Handler, Route, Sample, TokenKind};
use crate::http::keys::KeyRing;
use crate::http::request::{self, Call, Query};
use crate::http::unserved::Unserved;
use crate::names::AppId;
use problem::Problem;
use users::Users;

pub(crate) use reads::{totals, totals_stamp};

/// The dialect of the native API.
pub(crate) struct Native;

impl Dialect for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn routes(&self) -> &'static [Route] {
        &ROUTES
    }

    fn claims(&self) -> &'static [&'static str] {
        &["v1"]
    }

    fn section(&self) -> Option<&'static SectionKind> {
        None
    }

    fn tenants(&self, apps: &[AppConfig]) -> dialect::Tenants {
        let keys = apps.iter().enumerate().flat_map(|(index, app)| {
            let keys = app.server_keys.iter();
            keys.map(move |key| (key.0.as_str(), index))
        });
        Box::new(Tenants {
            servers: KeyRing::new(keys),
            users: Users::new(apps),
        })
    }

    fn unserved(&self, why: Unserved) -> HttpResponse {
        match why {
            Unserved::NoPath => Problem::path().render(),
            Unserved::WrongMethod(allow) => Problem::method(allow).render(),
            // A fixed text: whatever has panicked is not used again.
            Unserved::Broken => {
                let body = r#"{"type":"about:blank","title":"Internal Server Error","status":500}"#;
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                request::with_body(status, "application/problem+json", body.into())
            }
            _ => Problem::new(why.status(), why.detail()).render(),
        }
    }

    fn preflight(&self, call: &Call<'_>, allow: &str) -> Option<HttpResponse> {
        (cors::is_preflight(call.req) && users::is_users_own(call)).then(|| {
            let mut response = cors::preflight(call.req, allow, users::HEADERS);
            self.finish(call, &mut response);
            response
        })
    }

    fn finish(&self, call: &Call<'_>, response: &mut HttpResponse) {
        if users::is_users_own(call)
            && let Ok(tenants) = call.tenants::<Tenants>()
        {
            let origins = tenants.users.origins(call);
            origins.tell(call.req, response);
            if !call.state.config.live.token_cookie.is_empty() && live::is_stream(call) {
                origins.tell_with_cookies(call.req, response);
            }
        }
    }

    fn samples(&self, app: &AppConfig, sample: &Sample) -> String {
        let Sample { listen, now, ttl } = *sample;
        let mut out = String::new();
        // Writing to a String can't fail.
        if let Some(key) = app.server_keys.first() {
            let _ = write!(
                out,
                "\n# The counts of alice and bob as they change; ctrl-c ends the call\n\
                 curl -sSN 'http://{listen}/v1/live?users=alice,bob' -H 'Authorization: Bearer {}'\n",
                key.0
            );
        }
        if let Ok(token) = (users::TOKEN.make)(app, "alice", now, ttl) {
            let _ = write!(
                out,
                "\n# The counts of alice, as a device of hers asks for them with a user token\n\
                 curl -sS 'http://{listen}/v1/me/unread' -H 'Authorization: Bearer {token}'\n"
            );
        }
        out
    }

    fn token(&self) -> Option<&'static TokenKind> {
        Some(&users::TOKEN)
    }
}

#[rustfmt::skip]
static ROUTES: [Route; 11] = [
    route(Method::POST, "/v1/events", "POST", "native_events", |call| answered(events::events(call))),
    route(Method::POST, "/v1/unread", "POST", "native_unread", |call| answered(reads::unread(call))),
    route(Method::GET, "/v1/users/{user}/unread", "GET", "native_user_unread", |call| answered(reads::user_unread(call))),
    Route {
        method: Method::GET,
        host: None,
        path: "/v1/me/unread",
        allow: "GET, HEAD, OPTIONS",
        endpoint: "native_me_unread",
        limit: Some(users::LIMIT),
        handler: |call| answered(reads::me_unread(call)),
    },
    route(Method::GET, "/v1/live", "GET, POST, OPTIONS", "native_live", |call| answered(live::live(call))),
    route(Method::POST, "/v1/live", "GET, POST, OPTIONS", "native_live", |call| answered(live::live(call))),
    route(Method::GET, "/v1/live.js", "GET, HEAD", "native_live_js", |call| answered(live::script(call))),
    route(Method::GET, "/v1/rooms/{room}", "GET", "native_room", |call| answered(rooms::room(call))),
    route(Method::GET, "/v1/rooms/{room}/members", "GET", "native_room_members", |call| answered(rooms::members(call))),
    route(Method::GET, "/v1/rooms/{room}/unread", "GET, POST", "native_room_unread", |call| answered(rooms::unread(call))),
    route(Method::POST, "/v1/rooms/{room}/unread", "GET, POST", "native_room_unread", |call| answered(rooms::unread_of(call))),
];

/// A call without a limit, at any host.
const fn route(
    method: Method,
    path: &'static str,
    allow: &'static str,
    endpoint: &'static str,
    handler: Handler,
) -> Route {
    Route {
        method,
        host: None,
        path,
        allow,
        endpoint,
        limit: None,
        handler,
    }
}

/// What a call is let in by.
struct Tenants {
    /// Which app a server key belongs to, as the app's place in the configuration.
    servers: KeyRing<usize>,
    users: Users,
}

/// The answer of a handler, or the problem that it ended with.
fn answered<'c>(
    answer: impl Future<Output = Result<HttpResponse, Problem>> + 'c,
) -> LocalBoxFuture<'c, HttpResponse> {
    Box::pin(async { answer.await.unwrap_or_else(Problem::render) })
}

/// The app whose server key a call has: its place in the configuration and its id. Counts a refusal.
fn enter<'a>(call: &Call<'a>) -> Result<(usize, &'a AppId), Problem> {
    let index = authenticate(call).map_err(|problem| match call.refused() {
        Some(seconds) => Problem::too_many(seconds),
        None => problem,
    })?;
    call.is_of(index);
    let app = call.state.config.apps.get(index);
    let app = app.ok_or_else(|| Error::Internal("an app is missing".into()))?;
    Ok((index, &app.id))
}

/// The same, as the app's place in the configuration, without counting anything.
fn authenticate(call: &Call<'_>) -> Result<usize, Problem> {
    let tenants: &Tenants = call.tenants()?;
    bearer(call)
        .and_then(|key| tenants.servers.find(key).copied())
        .ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "a valid server key is needed as bearer token",
            )
        })
}

/// The bearer token of a call.
fn bearer<'a>(call: &Call<'a>) -> Option<&'a str> {
    let (scheme, token) = call.header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// How often a parameter may be given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    /// Two values would contradict each other.
    Once,
    /// It is a list, whose items may come one by one.
    Many,
}

/// The parameters of a call. It takes the `known` ones only: a caller that misspells one would get the answer to another
/// question.
fn parameters<'a>(
    call: &Call<'a>,
    known: &[(&'static str, Times)],
) -> Result<Vec<(&'static str, Cow<'a, str>)>, Problem> {
    parameters_of(call.query(), known)
}

fn parameters_of<'a>(
    query: Query<'a>,
    known: &[(&'static str, Times)],
) -> Result<Vec<(&'static str, Cow<'a, str>)>, Problem> {
    let mut given: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
    for (name, value) in query.strict() {
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

/// Whether a value of the parameter `include`, a list with commas, names the one thing that the call can add to its answer.
fn includes(value: &str, known: &str) -> Result<bool, Problem> {
    let mut parts = value.split(',').filter(|part| !part.is_empty()).peekable();
    let found = parts.peek().is_some();
    match parts.all(|part| part == known) {
        true => Ok(found),
        false => Err(Problem::bad(format!("include can only name {known}"))),
    }
}

/// A name that a caller has sent, cut so that an answer can repeat it.
fn named(name: &str) -> String {
    let clean: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    match clean.is_empty() {
        true => "\"\"".to_owned(),
        false => clean,
    }
}

/// What a call says that its body is.
enum Media {
    Json,
    Lines,
    Other,
}

/// None: the call does not say what its body is.
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
