//! IMKIT's dialect: `POST /badges/byRoomTags` and `GET /rooms`. Status and `RC` are the same number in an error. Called by
//! browsers too, hence the CORS headers.

mod rooms;
mod token;
#[cfg(fuzzing)]
#[path = "../../fuzz/doors/imkit.rs"]
#[doc(hidden)]
pub mod fuzzing;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::config::AppConfig;
use crate::counts::Pref;
use crate::engine::RoomBrief;
use crate::error::Error;
use crate::http::State;
use crate::http::Unserved;
use crate::http::body::BodyError;
use crate::http::cors::{self, Origins};
use crate::http::keys::KeyRing;
use crate::http::request::{self, Call};
use crate::json::{self, Surrogates};
use crate::limiter::Entry;
use crate::names::{AppId, Tag, UserId};
use crate::outcome::Outcome;

use rooms::Listing;
pub use token::make_token;
use token::{Unusable, Verifier};

/// First segments of this dialect's paths.
pub const PREFIXES: &[&str] = &[
    "badges",
    "me",
    "messages",
    "roomPrefs",
    "rooms",
    "socket.io",
];
/// What its endpoints are called in metrics, and the method of each.
pub const ENDPOINTS: &[(&str, &str)] = &[("imkit_badges", "POST"), ("imkit_rooms", "GET")];
/// The limited endpoints.
pub const LIMITED: &[&str] = &[BADGES, ROOMS];
const BADGES: &str = "imkit-badges";
const ROOMS: &str = "imkit-rooms";

/// How much of an app's limit one user may use: here the users' own devices call.
pub fn user_share(app: &AppConfig) -> f64 {
    app.imkit.as_ref().map_or(1.0, |imkit| imkit.user_share)
}

/// Tags in one call.
const MAX_TAGS: usize = 1_000;

/// Which app a client key belongs to.
pub struct Tenants {
    keys: KeyRing<Arc<Tenant>>,
    /// Those of all apps: a browser's question and an unknown key belong to none.
    origins: Origins,
    /// Whether some app has named its origins.
    differ: bool,
}

struct Tenant {
    index: usize,
    id: AppId,
    tokens: Verifier,
    origins: Origins,
}

impl Tenants {
    /// Indexes the credentials of this dialect.
    pub fn new(apps: &[AppConfig]) -> Self {
        let mut keys = Vec::new();
        let (mut origins, mut differ) = (Origins::default(), false);
        for (index, app) in apps.iter().enumerate() {
            let Some(config) = &app.imkit else {
                continue;
            };
            let tenant = Arc::new(Tenant {
                index,
                id: app.id.clone(),
                tokens: Verifier::new(&config.jwt_secret.0),
                origins: Origins::new(&app.users.allowed_origins),
            });
            origins.add(&tenant.origins);
            differ |= !tenant.origins.is_any();
            for key in &config.client_keys {
                keys.push((key.0.as_str(), Arc::clone(&tenant)));
            }
        }
        Self {
            keys: KeyRing::new(keys),
            origins,
            differ,
        }
    }

    /// The origins whose pages may read the answer to a call.
    fn origins(&self, call: &Call<'_>) -> &Origins {
        let own = || self.keys.find(client_key(call)?);
        match self.differ.then(own).flatten() {
            Some(tenant) => &tenant.origins,
            None => &self.origins,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Fault {
    outcome: Outcome,
    rc: u16,
    rm: &'static str,
    code: &'static str,
    message: Cow<'static, str>,
}

const fn fault(rc: u16, rm: &'static str, code: &'static str, message: &'static str) -> Fault {
    Fault {
        outcome: Outcome::of_status(rc),
        rc,
        rm,
        code,
        message: Cow::Borrowed(message),
    }
}

const PARAMETERS: &str = "Invalid parameters";
const CLIENT_KEY: Fault = fault(403, "Forbidden", "INVALID_CLIENT_KEY", "Invalid client key");
const TOKEN: Fault = fault(
    401,
    "Unauthorized",
    "INVALID_TOKEN",
    "Invalid or expired token",
);
const TAGS: Fault = fault(
    400,
    PARAMETERS,
    "INVALID_TAGS",
    "Tags must be an array of strings",
);
const MANY_TAGS: Fault = fault(
    400,
    PARAMETERS,
    "INVALID_TAGS",
    "Tags must be an array of strings, at most 1000",
);
const BODY: Fault = fault(
    400,
    PARAMETERS,
    "INVALID_BODY",
    "The body must be a JSON object",
);
const BROKEN: Fault = fault(
    400,
    PARAMETERS,
    "INVALID_BODY",
    "The body could not be read",
);
const PATH: Fault = fault(404, "Not found", "NOT_FOUND", "No such endpoint");
const SLOW: Fault = fault(
    408,
    "Request timeout",
    "REQUEST_TIMEOUT",
    "The body did not arrive in time",
);
const TOO_LARGE: Fault = fault(
    413,
    "Payload too large",
    "BODY_TOO_LARGE",
    "The body is too large",
);
const ENCODED: Fault = fault(
    415,
    "Unsupported media type",
    "UNSUPPORTED_MEDIA_TYPE",
    "The body must not be encoded",
);
const LIMIT: Fault = fault(
    429,
    "Too many requests",
    "RATE_LIMIT_EXCEEDED",
    "Rate limit exceeded, please retry later",
);
const INTERNAL: Fault = fault(
    500,
    "Internal server error",
    "INTERNAL_ERROR",
    "Internal server error",
);

/// For a while: because of Redis, or because there is too much to do.
const fn unavailable(outcome: Outcome) -> Fault {
    Fault {
        outcome,
        rc: 503,
        rm: "Service unavailable",
        code: "SERVICE_UNAVAILABLE",
        message: Cow::Borrowed("Temporarily unavailable, please retry"),
    }
}

fn query(message: &'static str) -> Fault {
    fault(400, PARAMETERS, "INVALID_QUERY", message)
}

impl From<BodyError> for Fault {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => TOO_LARGE,
            BodyError::TimedOut => SLOW,
            BodyError::Broken => BROKEN,
            BodyError::Encoded => ENCODED,
            BodyError::NoRoom => unavailable(Outcome::Overloaded),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if let Error::Limited(_) = error {
            LIMIT
        } else if error.is_transient() {
            tracing::debug!(%error, "a read failed");
            unavailable(error.outcome())
        } else {
            tracing::error!(%error, "a read failed");
            INTERNAL
        }
    }
}

impl Fault {
    fn answer(&self) -> HttpResponse {
        #[derive(Serialize)]
        struct Detail<'a> {
            code: &'a str,
            message: &'a str,
        }
        #[derive(Serialize)]
        struct Envelope<'a> {
            #[serde(rename = "RC")]
            rc: u16,
            #[serde(rename = "RM")]
            rm: &'a str,
            error: Detail<'a>,
        }
        let status = StatusCode::from_u16(self.rc).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let envelope = Envelope {
            rc: self.rc,
            rm: self.rm,
            error: Detail {
                code: self.code,
                message: &self.message,
            },
        };
        let mut response = request::json(status, &envelope)
            .unwrap_or_else(|| request::json_bytes(status, b"{\"RC\":500}".to_vec()));
        request::came_to(&mut response, self.outcome);
        if request::may_pass(self.outcome) {
            request::set(
                &mut response,
                header::RETRY_AFTER,
                HeaderValue::from_static("1"),
            );
        }
        if [TOO_LARGE, SLOW, BROKEN, ENCODED].contains(self) {
            request::close(&mut response);
        }
        response
    }
}

/// This dialect's words for a bug of ours. They are the same for everybody, so any page may read them.
pub fn internal_error() -> HttpResponse {
    let mut response = INTERNAL.answer();
    cors::open(&mut response);
    response
}

/// This dialect's words for a request that no handler sees.
pub fn unserved(why: Unserved) -> HttpResponse {
    let said = |rm, code| fault(why.status().as_u16(), rm, code, why.detail());
    let fault = match why {
        Unserved::Malformed(_) => said(PARAMETERS, "INVALID_REQUEST"),
        Unserved::TargetTooLong => said("URI too long", "URI_TOO_LONG"),
        Unserved::HeadTooLarge => said("Request header fields too large", "HEADERS_TOO_LARGE"),
        Unserved::HeadTimeout => said("Request timeout", "REQUEST_TIMEOUT"),
        Unserved::Full | Unserved::Overloaded => unavailable(why.outcome()),
    };
    let mut response = fault.answer();
    cors::open(&mut response);
    response
}

/// Answers a call under one of [`PREFIXES`].
pub async fn serve(call: Call<'_>) -> HttpResponse {
    let (state, req) = (call.state, call.req);
    let origins = state.apps.imkit.origins(&call);
    let mut response = route(call).await;
    origins.tell(req, &mut response);
    response
}

/// What a page sends beside the headers that it always may.
const HEADERS: &str = "IM-CLIENT-KEY, IM-CLIENT-ID, IM-Authorization, IM-Device-ID, CLIENT_KEY, Authorization, Content-Type";

async fn route(call: Call<'_>) -> HttpResponse {
    let known = match call.segments.as_slice() {
        ["badges", "byRoomTags"] => Some(("imkit_badges", Method::POST, BADGES, "POST, OPTIONS")),
        ["rooms"] => Some(("imkit_rooms", Method::GET, ROOMS, "GET, HEAD, OPTIONS")),
        _ => None,
    };
    if call.req.method() == Method::OPTIONS {
        call.route(cors::PREFLIGHT);
        let answered = known.map_or("", |(_, _, _, answered)| answered);
        return cors::preflight(call.req, answered, HEADERS);
    }
    let Some((name, method, endpoint, answered)) = known else {
        call.route("unknown");
        return PATH.answer();
    };
    call.route(name);
    if call.is(&method) {
        limited(call, endpoint).await
    } else {
        wrong_method(answered)
    }
}

async fn limited(mut call: Call<'_>, endpoint: &'static str) -> HttpResponse {
    let (tenant, user) = match authenticate(&call) {
        Ok(known) => known,
        Err(refusal) => return refuse(&call, &refusal),
    };
    call.is_of(tenant.index);
    let mut entry = call.state.limiter.enter_as(tenant.index, endpoint, &user);
    if let Some(tab) = entry.report() {
        call.state.limits.report(tab);
    }
    let answer = if let Err(limited) = entry.check() {
        Err(limited.into())
    } else if endpoint == BADGES {
        badges(&mut call, tenant, &user, &mut entry).await
    } else {
        // Boxed, or the other endpoint's calls would carry the place of this one's work with them.
        Box::pin(rooms(&call, &tenant.id, &user, &mut entry)).await
    };
    let mut response = answer.unwrap_or_else(|fault| fault.answer());
    request::show_limit(&mut response, &entry);
    response
}

fn wrong_method(allowed: &'static str) -> HttpResponse {
    const METHOD: Fault = fault(
        405,
        "Method not allowed",
        "METHOD_NOT_ALLOWED",
        "This endpoint does not answer that method",
    );
    let mut response = METHOD.answer();
    request::set(
        &mut response,
        header::ALLOW,
        HeaderValue::from_static(allowed),
    );
    response
}

/// Why a call is not let in.
enum Refusal {
    /// Nothing shows that the app ever gave this caller a credential.
    Stranger(Fault),
    /// It has a token that the app signed, and that does not serve now: no attempt to guess one. Devices whose tokens have
    /// expired have to hear just that, however many of them there are.
    Known(Fault),
}

fn refuse(call: &Call<'_>, refusal: &Refusal) -> HttpResponse {
    match refusal {
        Refusal::Stranger(fault) => match call.refused("imkit") {
            Some(seconds) => {
                let mut response = LIMIT.answer();
                request::retry_after(&mut response, seconds);
                response
            }
            None => fault.answer(),
        },
        Refusal::Known(fault) => {
            call.state.metrics.auth_failure("imkit");
            fault.answer()
        }
    }
}

fn client_key<'a>(call: &Call<'a>) -> Option<&'a str> {
    let legacy = || call.header("client_key");
    call.header("im-client-key").or_else(legacy)
}

/// A token as some libraries send it, without what they put in front.
fn bare(token: &str) -> &str {
    match token.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ => token,
    }
}

fn authenticate<'a>(call: &Call<'a>) -> Result<(&'a Tenant, Arc<UserId>), Refusal> {
    const NO_KEY: Refusal = Refusal::Stranger(CLIENT_KEY);
    let key = client_key(call).ok_or(NO_KEY)?;
    let tenant = call.state.apps.imkit.keys.find(key).ok_or(NO_KEY)?;
    let legacy = || call.header("authorization");
    let token = call.header("im-authorization").or_else(legacy);
    let token = bare(token.ok_or(Refusal::Stranger(TOKEN))?);
    let user = tenant.tokens.verify(token, request::unix_seconds());
    let user = user.map_err(|why| match why {
        Unusable::Forged => Refusal::Stranger(TOKEN),
        Unusable::Untimely => Refusal::Known(TOKEN),
    })?;
    if call.headers("im-client-id").any(|id| id != user.as_str()) {
        return Err(Refusal::Known(TOKEN));
    }
    Ok((tenant, user))
}

fn success(result: &impl Serialize) -> Result<HttpResponse, Fault> {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        #[serde(rename = "RC")]
        rc: u16,
        #[serde(rename = "RM")]
        rm: &'static str,
        result: &'a T,
    }
    let envelope = Envelope {
        rc: 0,
        rm: "OK",
        result,
    };
    request::json(StatusCode::OK, &envelope).ok_or(INTERNAL)
}

async fn badges(
    call: &mut Call<'_>,
    tenant: &Tenant,
    user: &UserId,
    entry: &mut Entry<'_>,
) -> Result<HttpResponse, Fault> {
    let State {
        config,
        bodies,
        reader,
        ..
    } = call.state;
    let body = call
        .body(tenant.index, config.server.max_body_bytes)
        .await?;
    let (tags, _room) = bodies.work(body, tags).await;
    let Asked { tags, never } = tags?;
    let asked = (!tags.is_empty() || !never.is_empty()).then_some(tags);
    let counted = reader.tags(&tenant.id, user, asked, entry).await?;
    success(&Badges { counted, never })
}

/// The tags that a body asks for, each once; none: all.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    tags: Vec<Tag>,
    /// What no tag can be, and how many of `tags` come before it.
    never: Vec<(usize, String)>,
}

/// The `result` of an answer, in the order asked for.
struct Badges {
    counted: Vec<(Tag, u64)>,
    never: Vec<(usize, String)>,
}

impl Serialize for Badges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Data<'a>(&'a Badges);
        impl Serialize for Data<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let Badges { counted, never } = self.0;
                // A map of the standard library would lose the order.
                let mut map = serializer.serialize_map(Some(counted.len() + never.len()))?;
                let mut never = never.iter().peekable();
                for (at, (tag, unread)) in counted.iter().enumerate() {
                    while let Some((_, none)) = never.next_if(|(before, _)| *before <= at) {
                        map.serialize_entry(none, &0)?;
                    }
                    map.serialize_entry(tag.as_str(), unread)?;
                }
                for (_, none) in never {
                    map.serialize_entry(none, &0)?;
                }
                map.end()
            }
        }
        let total = self.counted.iter().map(|(_, unread)| unread);
        let total = total.fold(0u64, |sum, unread| sum.saturating_add(*unread));
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("totalBadge", &total)?;
        map.serialize_entry("data", &Data(self))?;
        map.end()
    }
}

fn tags(body: &[u8]) -> Result<Asked, Fault> {
    if body.trim_ascii().is_empty() {
        return Ok(Asked::default());
    }
    let body = json::whole(body).map_err(|_| BODY)?;
    let [tags] = body.pick(["tags"]).ok_or(BODY)?;
    let Some(tags) = tags else {
        return Ok(Asked::default());
    };
    let asked = tags.items().ok_or(TAGS)?;
    // Not looked at any further than it takes to know that they are too many.
    if asked.clone().take(MAX_TAGS + 1).count() > MAX_TAGS {
        return Err(MANY_TAGS);
    }
    let (mut seen, mut found) = (HashSet::new(), Asked::default());
    for tag in asked {
        let tag = tag.text(Surrogates::Refuse).ok_or(TAGS)?;
        let tag = tag.map_err(|_| BODY)?;
        if !seen.insert(tag.clone()) {
            continue;
        }
        match Tag::parse(&*tag) {
            Ok(tag) => found.tags.push(tag),
            // No room has it, so nobody has anything unread there.
            Err(_) => found.never.push((found.tags.len(), tag.into_owned())),
        }
    }
    Ok(found)
}

async fn rooms(
    call: &Call<'_>,
    app: &AppId,
    user: &UserId,
    entry: &mut Entry<'_>,
) -> Result<HttpResponse, Fault> {
    let start = Instant::now();
    let listing = Listing::parse(call.query(), user).map_err(query)?;
    let matches = |room: &RoomBrief<'_>| listing.matches(room);
    let by_pref = |pref: &Pref| listing.matches_pref(pref);
    let query = listing.query(&matches, &by_pref);
    let page = call.state.reader.rooms(app, user, &query, entry).await?;
    let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let query = listing.inspect(app.as_str(), user);
    success(&rooms::show(app.as_str(), &page, query, took))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::MessageBody;
    use serde_json::{Value, json};

    fn parsed(body: &str) -> Result<Vec<String>, Fault> {
        let asked = tags(body.as_bytes())?;
        assert!(asked.never.is_empty());
        Ok(asked.tags.iter().map(|tag| tag.to_string()).collect())
    }

    #[test]
    fn tags_absent_null_or_empty_are_all() {
        for body in [
            "",
            "  \n",
            "{}",
            r#"{"tags":null}"#,
            r#"{"tags":[]}"#,
            r#"{"more":{}}"#,
        ] {
            assert_eq!(parsed(body), Ok(Vec::new()), "{body}");
        }
        assert_eq!(
            parsed(r#"{"tags":["b","a","b"],"x":1}"#),
            Ok(vec!["b".into(), "a".into()])
        );
    }

    #[test]
    fn bad_bodies_and_bad_tags_are_told_apart() {
        for body in [
            "nope",
            "[]",
            r#"[["a"]]"#,
            "null",
            r#"{"tags":["a"]"#,
            "{} {}",
        ] {
            assert_eq!(parsed(body), Err(BODY), "{body}");
        }
        for tags in [
            "\"a\"",
            "{}",
            "1",
            "true",
            "[1]",
            "[null]",
            "[[\"a\"]]",
            "[\"a\",{}]",
        ] {
            assert_eq!(parsed(&format!("{{\"tags\":{tags}}}")), Err(TAGS), "{tags}");
        }
        let many: Vec<_> = (0..=MAX_TAGS).map(|n| n.to_string()).collect();
        let body = json!({"tags": many}).to_string();
        assert_eq!(parsed(&body), Err(MANY_TAGS));
    }

    #[test]
    fn data_keeps_its_order_and_adds_up() {
        let tag = |name| Tag::parse(name).unwrap();
        let counted = vec![(tag("z"), 2), (tag("a\""), 0), (tag("m"), 8)];
        let mut badges = Badges {
            counted,
            never: Vec::new(),
        };
        assert_eq!(
            serde_json::to_string(&badges).unwrap(),
            r#"{"totalBadge":10,"data":{"z":2,"a\"":0,"m":8}}"#
        );
        let long = "x".repeat(256);
        let body = json!({"tags": ["", "z", "\n", &long, "a\"", "", "m", "\t"]}).to_string();
        let asked = tags(body.as_bytes()).unwrap();
        assert!(
            asked
                .tags
                .iter()
                .eq(badges.counted.iter().map(|(tag, _)| tag))
        );
        badges.never = asked.never;
        let shown = format!(
            r#"{{"totalBadge":10,"data":{{"":0,"z":2,"\n":0,"{long}":0,"a\"":0,"m":8,"\t":0}}}}"#
        );
        assert_eq!(serde_json::to_string(&badges).unwrap(), shown);
        let none = tags(br#"{"tags":[""]}"#).unwrap();
        assert_eq!((none.tags.len(), none.never.len()), (0, 1));
    }

    #[test]
    fn errors_are_the_documented_envelope() {
        let response = TOKEN.answer();
        assert_eq!(response.status(), 401);
        let bytes = response.into_body().try_into_bytes().unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            value,
            json!({"RC": 401, "RM": "Unauthorized",
                "error": {"code": "INVALID_TOKEN", "message": "Invalid or expired token"}})
        );
    }
}
