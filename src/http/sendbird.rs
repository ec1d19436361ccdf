//! Sendbird's dialect: `GET /v3/users/{user_id}/unread_item_count`. Its clients take an answer that is not JSON for a network
//! failure, so every outcome is its envelope; errors are 400 but for the limit (429) and our own failures (500).

mod fault;
mod items;
mod section;
mod tenants;
#[cfg(fuzzing)]
#[path = "../../fuzz/doors/sendbird.rs"]
#[doc(hidden)]
pub(crate) mod fuzzing;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::http::{Method, StatusCode};

use crate::config::{AppConfig, SectionKind};
use crate::http::cors;
use crate::http::dialect::{self, Dialect, Route, Sample};
use crate::http::request::{self, Call};
use crate::http::unserved::Unserved;
use crate::limiter::{Endpoint, Entry};
use crate::names::{AppId, UserId};
use fault::{
    Fault, INTERNAL, LENGTH, LIMIT, METHOD, REQUEST, SLOW, URL, USER, USER_ID, unavailable,
};
use items::{AskedItems, render};
pub(crate) use section::SendbirdConfig;
use tenants::{API_TOKEN, Tenants, authenticate};

/// Sendbird's dialect.
pub(crate) struct Sendbird;

/// The first segment of all its paths.
const VERSION: &str = "v3";

static ROUTES: [Route; 1] = [Route {
    method: Method::GET,
    host: None,
    path: "/v3/users/{user}/unread_item_count",
    allow: "GET",
    endpoint: "sendbird_unread_item_count",
    limit: Some(Endpoint {
        name: "sendbird-unread-item-count",
        user_share: |_| 1.0,
    }),
    handler: |call| Box::pin(unread_item_count(call)),
}];

impl Dialect for Sendbird {
    fn name(&self) -> &'static str {
        "sendbird"
    }

    fn routes(&self) -> &'static [Route] {
        &ROUTES
    }

    fn claims(&self) -> &'static [&'static str] {
        &[VERSION]
    }

    fn section(&self) -> Option<&'static SectionKind> {
        Some(&section::SECTION)
    }

    fn tenants(&self, apps: &[AppConfig]) -> dialect::Tenants {
        Box::new(Tenants::new(apps))
    }

    fn unserved(&self, why: Unserved) -> HttpResponse {
        let fault = match why {
            Unserved::Malformed(_) => REQUEST,
            Unserved::TargetTooLong | Unserved::HeadTooLarge => LENGTH,
            Unserved::HeadTimeout => SLOW,
            Unserved::Full | Unserved::Overloaded => unavailable(why.outcome()),
            Unserved::NoPath => URL,
            Unserved::WrongMethod(_) => METHOD,
            Unserved::Broken => INTERNAL,
        };
        let mut response = fault.answer();
        if let Unserved::WrongMethod(allow) = why {
            request::set(&mut response, header::ALLOW, allow);
        }
        cors::open(&mut response);
        response
    }

    /// Callers put a base path of theirs in front. A token, or a browser's question whether it may send one, shows that this
    /// dialect is meant; where headers are not known, the path does.
    fn behind(&self, headers: Option<&HeaderMap>, segments: &[&str]) -> Option<usize> {
        let at = segments.iter().position(|segment| *segment == VERSION)?;
        let is_meant = match headers {
            Some(headers) => headers.contains_key(API_TOKEN) || will_send_token(headers),
            None => segments.get(at + 1) == Some(&"users"),
        };
        is_meant.then_some(at)
    }

    fn preflight(&self, call: &Call<'_>, _: &str) -> Option<HttpResponse> {
        cors::is_preflight(call.req).then(|| {
            let mut response = cors::preflight(call.req, "", "Api-Token, Content-Type");
            cors::open(&mut response);
            response
        })
    }

    /// No origin is let in that would not be let in anyway: nothing here is answered by cookies or by where a caller is.
    fn finish(&self, _: &Call<'_>, response: &mut HttpResponse) {
        cors::open(response);
    }

    fn samples(&self, app: &AppConfig, sample: &Sample) -> String {
        let Some(config) = app.section::<SendbirdConfig>() else {
            return String::new();
        };
        let token = config.api_tokens.first().unwrap_or(&config.master_token);
        format!(
            "\n# Sendbird: all unread items of alice\n\
             curl -sS 'http://{}/v3/users/alice/unread_item_count' -H 'Api-Token: {}'\n",
            sample.listen, token.0
        )
    }
}

fn will_send_token(headers: &HeaderMap) -> bool {
    let mut asked = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS);
    asked.any(|names| {
        let mut names = names.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(API_TOKEN.as_bytes()))
    })
}

async fn unread_item_count(call: &mut Call<'_>) -> HttpResponse {
    let tenant = match authenticate(call) {
        Ok(tenant) => tenant,
        Err(fault) => return refuse(call, &fault),
    };
    call.is_of(tenant.index);
    let mut entry = call.enter(tenant.index);
    let answer = unread(call, &tenant.id, &mut entry).await;
    let mut response = answer.unwrap_or_else(|fault| fault.answer());
    show_limit(&mut response, &entry);
    response
}

fn refuse(call: &Call<'_>, fault: &Fault) -> HttpResponse {
    match call.refused() {
        Some(seconds) => {
            let mut response = LIMIT.answer();
            request::retry_after(&mut response, seconds);
            response
        }
        None => fault.answer(),
    }
}

async fn unread(
    call: &Call<'_>,
    app: &AppId,
    entry: &mut Entry<'_>,
) -> Result<HttpResponse, Fault> {
    entry.check()?;
    let user = request::decode_segment(call.parameter(0)).ok_or(USER_ID)?;
    // What can't be an id is nobody's.
    let user = UserId::parse(user).map_err(|_| USER)?;
    let asked = AskedItems::parse(call.query())?;
    let types = asked.types.as_deref();
    let totals = call.state.reader.totals(app, &user, types, entry).await?;
    let body = render(&asked.keys, &totals.ok_or(USER)?);
    Ok(request::json_bytes(StatusCode::OK, body))
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
