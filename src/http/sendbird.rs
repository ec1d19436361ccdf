//! Sendbird's dialect: `GET /v3/users/{user_id}/unread_item_count`. Its clients take an answer that is not JSON for a network
//! failure, so every outcome is its envelope; errors are 400 but for the limit (429) and our own failures (500).

#[cfg(fuzzing)]
#[path = "../../fuzz/doors/sendbird.rs"]
#[doc(hidden)]
pub mod fuzzing;

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use serde::Serialize;

use crate::config::AppConfig;
use crate::counts::{ByKind, Totals};
use crate::error::Error;
use crate::http::Unserved;
use crate::http::cors;
use crate::http::keys::KeyRing;
use crate::http::request::{self, Call, Query};
use crate::limiter::Entry;
use crate::names::{AppId, CustomType, UserId};
use crate::outcome::Outcome;

/// First segments of this dialect's paths.
pub const PREFIXES: &[&str] = &["v3"];
/// What its endpoints are called in metrics, and the method of each.
pub const ENDPOINTS: &[(&str, &str)] = &[("sendbird_unread_item_count", "GET")];
/// The limited endpoints.
pub const LIMITED: &[&str] = &[UNREAD];
const UNREAD: &str = "sendbird-unread-item-count";

/// Custom types in one call.
const MAX_TYPES: usize = 1_000;

const API_TOKEN: &str = "api-token";

/// How many segments come before this dialect's own: callers put a base path of theirs in front. A token, or a browser's question
/// whether it may send one, shows that this dialect is meant; where headers are not known, the path does.
pub fn behind(headers: Option<&HeaderMap>, segments: &[&str]) -> Option<usize> {
    let at = segments
        .iter()
        .position(|segment| PREFIXES.contains(segment))?;
    let is_meant = match headers {
        Some(headers) => headers.contains_key(API_TOKEN) || will_send_token(headers),
        None => segments.get(at + 1) == Some(&"users"),
    };
    is_meant.then_some(at)
}

fn will_send_token(headers: &HeaderMap) -> bool {
    let mut asked = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS);
    asked.any(|names| {
        let mut names = names.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(API_TOKEN.as_bytes()))
    })
}

/// Which app a token or a host name belongs to.
pub struct Tenants {
    tokens: KeyRing<Arc<Tenant>>,
    /// Application ids in lower case, as in host names.
    hosts: HashMap<String, usize>,
}

struct Tenant {
    index: usize,
    id: AppId,
}

impl Tenants {
    /// Indexes the credentials of this dialect.
    pub fn new(apps: &[AppConfig]) -> Self {
        let mut tokens = Vec::new();
        let mut hosts = HashMap::new();
        for (index, app) in apps.iter().enumerate() {
            let Some(config) = &app.sendbird else {
                continue;
            };
            let tenant = Arc::new(Tenant {
                index,
                id: app.id.clone(),
            });
            for token in std::iter::once(&config.master_token).chain(&config.api_tokens) {
                tokens.push((token.0.as_str(), Arc::clone(&tenant)));
            }
            hosts.insert(config.application_id.to_ascii_lowercase(), index);
        }
        Self {
            tokens: KeyRing::new(tokens),
            hosts,
        }
    }

    /// The app that a host `api-{application_id}.…` names, if it names one of ours.
    fn by_host(&self, host: &str) -> Option<usize> {
        let host = host.to_ascii_lowercase();
        let rest = host.strip_prefix("api-")?;
        rest.match_indices('.')
            .filter_map(|(at, _)| rest.get(..at))
            .find_map(|id| self.hosts.get(id).copied())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Fault {
    outcome: Outcome,
    status: StatusCode,
    code: u32,
    message: &'static str,
}

const fn bad(code: u32, message: &'static str) -> Fault {
    refusal(Outcome::BadRequest, code, message)
}

/// The status is the same whatever it is.
const fn refusal(outcome: Outcome, code: u32, message: &'static str) -> Fault {
    Fault {
        outcome,
        status: StatusCode::BAD_REQUEST,
        code,
        message,
    }
}

const TOKEN: Fault = refusal(Outcome::Unauthorized, 400401, "Invalid API token.");
const USER: Fault = refusal(Outcome::NotFound, 400201, "\"User\" not found.");
const USER_ID: Fault = bad(400111, "\"user_id\" must be percent-encoded UTF-8.");
const KEY: Fault = bad(400111, "Invalid value: \"item_keys\".");
const TYPES: Fault = bad(400203, "At most 1000 custom types may be named.");
const URL: Fault = refusal(Outcome::NotFound, 400114, "The resource URL is not known.");
const REQUEST: Fault = bad(400404, "The request could not be read.");
const LENGTH: Fault = bad(400110, "The request is too long.");
const SLOW: Fault = bad(400404, "The request did not arrive in time.");
const METHOD: Fault = bad(400930, "This endpoint answers GET only.");
const LIMIT: Fault = Fault {
    outcome: Outcome::Limited,
    status: StatusCode::TOO_MANY_REQUESTS,
    code: 500910,
    message: "Rate limit exceeded.",
};
const INTERNAL: Fault = Fault {
    outcome: Outcome::Internal,
    status: StatusCode::INTERNAL_SERVER_ERROR,
    code: 500901,
    message: "Internal error.",
};

/// For a while: because of Redis, or because there is too much to do.
const fn unavailable(outcome: Outcome) -> Fault {
    Fault {
        outcome,
        status: StatusCode::INTERNAL_SERVER_ERROR,
        code: 500901,
        message: "Temporarily unavailable, please retry.",
    }
}

impl Fault {
    fn answer(&self) -> HttpResponse {
        #[derive(Serialize)]
        struct Envelope<'a> {
            message: &'a str,
            code: u32,
            error: bool,
        }
        let envelope = Envelope {
            message: self.message,
            code: self.code,
            error: true,
        };
        let mut response = request::json(self.status, &envelope)
            .unwrap_or_else(|| request::json_bytes(self.status, Vec::from(b"{\"error\":true}")));
        request::came_to(&mut response, self.outcome);
        if request::may_pass(self.outcome) {
            request::set(
                &mut response,
                header::RETRY_AFTER,
                HeaderValue::from_static("1"),
            );
        }
        response
    }
}

/// This dialect's words for a bug of ours.
pub fn internal_error() -> HttpResponse {
    with_cors(INTERNAL.answer())
}

/// This dialect's words for a request that no handler sees.
pub fn unserved(why: Unserved) -> HttpResponse {
    let fault = match why {
        Unserved::Malformed(_) => REQUEST,
        Unserved::TargetTooLong | Unserved::HeadTooLarge => LENGTH,
        Unserved::HeadTimeout => SLOW,
        Unserved::Full | Unserved::Overloaded => unavailable(why.outcome()),
    };
    with_cors(fault.answer())
}

/// Answers a call under one of [`PREFIXES`].
pub async fn serve(call: Call<'_>) -> HttpResponse {
    if cors::is_preflight(call.req) {
        call.route(cors::PREFLIGHT);
        return with_cors(cors::preflight(call.req, "", "Api-Token, Content-Type"));
    }
    with_cors(route(call).await)
}

/// No origin is let in that would not be let in anyway: nothing here is answered by cookies or by where a caller is.
fn with_cors(mut response: HttpResponse) -> HttpResponse {
    cors::open(&mut response);
    response
}

async fn route(call: Call<'_>) -> HttpResponse {
    let ["v3", "users", user, "unread_item_count"] = *call.segments else {
        call.route("unknown");
        return URL.answer();
    };
    call.route("sendbird_unread_item_count");
    if !call.is(&Method::GET) {
        let mut response = METHOD.answer();
        request::set(&mut response, header::ALLOW, "GET");
        return response;
    }
    match authenticate(&call) {
        Ok(tenant) => {
            call.is_of(tenant.index);
            let mut entry = call.state.limiter.enter(tenant.index, UNREAD);
            let answer = unread(&call, &tenant.id, user, &mut entry).await;
            let mut response = answer.unwrap_or_else(|fault| fault.answer());
            show_limit(&mut response, &entry);
            response
        }
        Err(fault) => match call.refused("sendbird") {
            Some(seconds) => {
                let mut response = LIMIT.answer();
                request::retry_after(&mut response, seconds);
                response
            }
            None => fault.answer(),
        },
    }
}

fn authenticate<'a>(call: &Call<'a>) -> Result<&'a Tenant, Fault> {
    let tenants = &call.state.apps.sendbird;
    // The first that is not empty: one SDK sends the header twice.
    let token = call.header(API_TOKEN).ok_or(TOKEN)?;
    let tenant = tenants.tokens.find(token).ok_or(TOKEN)?;
    let authority = call.req.uri().host();
    let host = authority
        .or_else(|| call.header("host"))
        .unwrap_or_default();
    match tenants.by_host(host) {
        Some(index) if index != tenant.index => Err(TOKEN),
        _ => Ok(tenant),
    }
}

async fn unread(
    call: &Call<'_>,
    app: &AppId,
    user: &str,
    entry: &mut Entry<'_>,
) -> Result<HttpResponse, Fault> {
    entry.check()?;
    let user = request::decode_segment(user).ok_or(USER_ID)?;
    // What can't be an id is nobody's.
    let user = UserId::parse(user).map_err(|_| USER)?;
    let asked = Asked::parse(call.query())?;
    let types = asked.types.as_deref();
    let totals = call.state.reader.totals(app, &user, types, entry).await?;
    let body = render(&asked.keys, &totals.ok_or(USER)?);
    Ok(request::json_bytes(StatusCode::OK, body))
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

/// An entry of `item_keys`: a name and the number it stands for.
#[derive(Clone, Copy)]
struct Key {
    name: &'static str,
    value: fn(&Totals) -> u64,
}

const fn key(name: &'static str, value: fn(&Totals) -> u64) -> Key {
    Key { name, value }
}

/// In the order in which the documentation lists them.
static KEYS: [Key; 9] = [
    key("non_super_group_channel_unread_message_count", |t| {
        ordinary(t.messages)
    }),
    key("super_group_channel_unread_message_count", |t| {
        t.messages.supergroup
    }),
    key("group_channel_unread_message_count", |t| every(t.messages)),
    key("non_super_group_channel_invitation_count", |t| {
        ordinary(t.invitations)
    }),
    key("super_group_channel_invitation_count", |t| {
        t.invitations.supergroup
    }),
    key("group_channel_invitation_count", |t| every(t.invitations)),
    key("non_super_group_channel_unread_mention_count", |t| {
        ordinary(t.mentions)
    }),
    key("super_group_channel_unread_mention_count", |t| {
        t.mentions.supergroup
    }),
    key("group_channel_unread_mention_count", |t| every(t.mentions)),
];

/// Direct rooms are group channels here, as in every SDK of this vendor.
fn ordinary(count: ByKind) -> u64 {
    count.direct.saturating_add(count.group)
}

fn every(count: ByKind) -> u64 {
    ordinary(count).saturating_add(count.supergroup)
}

struct Asked {
    keys: Vec<Key>,
    /// Those that a room can have; none at all: nobody asked for some only.
    types: Option<Vec<CustomType>>,
}

impl Asked {
    /// Lists come as one comma list (the comma encoded or not), as a repeated name, or both. Decoding first and splitting
    /// then is the only rule that serves every SDK.
    fn parse(query: Query<'_>) -> Result<Self, Fault> {
        let mut keys: Vec<Key> = Vec::new();
        let mut types: Option<Vec<CustomType>> = None;
        let mut seen = std::collections::HashSet::new();
        for (name, value) in query {
            match &*name {
                "item_keys" | "item_keys[]" => {
                    for item in value.split(',').map(str::trim).filter(|s| !s.is_empty()) {
                        let key = KEYS.iter().find(|key| key.name == item).ok_or(KEY)?;
                        if !keys.iter().any(|known| known.name == key.name) {
                            keys.push(*key);
                        }
                    }
                }
                "custom_types" | "custom_types[]" | "custom_type" => {
                    // Not trimmed: a blank may be part of a type.
                    for item in value.split(',').filter(|s| !s.is_empty()) {
                        if !seen.insert(item.to_owned()) {
                            continue;
                        }
                        if seen.len() > MAX_TYPES {
                            return Err(TYPES);
                        }
                        // What can't be a type is no room's.
                        let types = types.get_or_insert_default();
                        types.extend(CustomType::parse(item));
                    }
                }
                _ => {}
            }
        }
        if keys.is_empty() {
            keys.extend(KEYS);
        }
        Ok(Self { keys, types })
    }
}

fn render(keys: &[Key], totals: &Totals) -> Vec<u8> {
    let mut body = Vec::with_capacity(keys.len() * 56 + 2);
    let mut digits = itoa::Buffer::new();
    let mut before = "{\"";
    for key in keys {
        let number = digits.format((key.value)(totals));
        for part in [before, key.name, "\":", number] {
            body.extend_from_slice(part.as_bytes());
        }
        before = ",\"";
    }
    body.push(b'}');
    body
}

fn show_limit(response: &mut HttpResponse, entry: &Entry<'_>) {
    const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
    const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
    const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
    const RETRY: HeaderName = HeaderName::from_static("x-ratelimit-retryafter");
    request::show_limit(response, entry);
    let Some(standing) = entry.standing() else {
        return;
    };
    let reset = request::unix_seconds().saturating_add(standing.reset_seconds());
    let retry = standing.retry_after_seconds().unwrap_or(0);
    let mut digits = itoa::Buffer::new();
    let limit = [digits.format(standing.per_second), ";w=1"].concat();
    request::set(response, LIMIT, limit);
    let remaining = u64::from(standing.verdict.remaining);
    for (name, number) in [(REMAINING, remaining), (RESET, reset), (RETRY, retry)] {
        request::set(response, name, digits.format(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Asked, Fault> {
        Asked::parse(Query::new(query))
    }

    fn names(query: &str) -> Vec<&'static str> {
        asked(query).unwrap().keys.iter().map(|k| k.name).collect()
    }

    fn types(query: &str) -> Vec<String> {
        let types = asked(query).unwrap().types.unwrap_or_default();
        types.iter().map(|t| t.as_str().to_owned()).collect()
    }

    const A: &str = "group_channel_unread_message_count";
    const B: &str = "super_group_channel_invitation_count";

    #[test]
    fn lists_come_in_every_form_that_an_sdk_sends() {
        for query in [
            format!("item_keys={A}%2C{B}"),
            format!("item_keys={A},{B}"),
            format!("item_keys={A}&item_keys={B}"),
            format!("item_keys={A},,%20{B}+,{A}"),
        ] {
            assert_eq!(names(&query), [A, B], "{query}");
        }
        assert_eq!(names("").len(), 9);
        assert_eq!(names("item_keys=&item_keys=,").len(), 9);
        assert_eq!(asked("item_keys=nope").err(), Some(KEY));
        assert_eq!(
            asked(&format!("item_keys={}", A.to_uppercase())).err(),
            Some(KEY)
        );
    }

    #[test]
    fn custom_types_go_by_three_names() {
        assert_eq!(
            types("custom_types=a%2Cb&custom_type=c,a&custom_types[]=d+e&custom_types%5B%5D=f"),
            ["a", "b", "c", "d e", "f"]
        );
        assert!(types("custom_types=").is_empty());
        assert_eq!(asked("custom_types=").unwrap().types, None);
        // What no room can have is asked for, and is none of them.
        let long = format!("custom_type={}", "x".repeat(256));
        for none in [&long, "custom_type=a%0A"] {
            assert_eq!(asked(none).unwrap().types, Some(Vec::new()), "{none}");
        }
        assert_eq!(types(&format!("{long},a")), ["a"]);
        let most: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let most = format!("custom_types={}", most.join(","));
        assert_eq!(types(&format!("{most},7")).len(), 1_000);
        assert_eq!(asked(&format!("{most},x")).err(), Some(TYPES));
    }

    #[test]
    fn answers_hold_the_asked_keys_in_order_and_add_up() {
        let count = |n| ByKind {
            direct: n,
            group: n + 1,
            supergroup: n + 2,
        };
        let totals = Totals {
            messages: count(10),
            mentions: count(20),
            invitations: count(30),
        };
        let asked = asked(&format!("item_keys={B},{A}")).unwrap();
        assert_eq!(
            String::from_utf8(render(&asked.keys, &totals)).unwrap(),
            format!("{{\"{B}\":32,\"{A}\":33}}")
        );
        let all: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&render(&KEYS, &totals)).unwrap();
        assert_eq!(all["non_super_group_channel_unread_mention_count"], 41);
        assert_eq!(all["group_channel_unread_mention_count"], 63);
        assert_eq!(all.len(), 9);
    }

    #[test]
    fn hosts_name_an_app_by_application_id() {
        let tenants = Tenants {
            tokens: KeyRing::new([]),
            hosts: HashMap::from([("demo-app".into(), 3), ("a.b".into(), 4)]),
        };
        assert_eq!(tenants.by_host("api-DEMO-app.sendbird.com:443"), Some(3));
        assert_eq!(tenants.by_host("api-a.b.example.org"), Some(4));
        assert_eq!(tenants.by_host("API-other.sendbird.com"), None);
        assert_eq!(tenants.by_host("api-demo-app"), None);
        assert_eq!(tenants.by_host("demo-app.sendbird.com"), None);
    }

    #[test]
    fn errors_are_the_documented_envelope() {
        let response = USER.answer();
        assert_eq!(response.status(), 400);
        let body = response.into_body();
        let bytes = actix_web::body::MessageBody::try_into_bytes(body).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"message": "\"User\" not found.", "code": 400201, "error": true})
        );
    }
}
