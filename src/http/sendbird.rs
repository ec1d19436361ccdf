//! Sendbird's dialect: `GET /v3/users/{user_id}/unread_item_count`. The vendor's clients take an answer that is not JSON for a
//! failure of the network, so every answer is JSON, a refusal of the edge too. The status of an error is 400, but for the limit
//! (429) and our own failures (500).
//!
//! What the vendor leaves open, and where each rule comes from, stands in `docs/vendors.md`. Comments here name a source as it
//! does: S1 to S4.

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
use crate::http::fault::VendorFault;
use crate::http::request::{self, Call};
use crate::http::unserved::Unserved;
use crate::limiter::{Allowance, Endpoint, Entry};
use crate::names::{AppId, UserId};
use fault::{Fault, LENGTH, METHOD, REQUEST, SLOW, URL, USER, USER_ID};
use items::{ItemQuery, render};
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
        allowance: Allowance::OfApp(|_| 1.0),
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
            Unserved::Full | Unserved::Overloaded => Fault::unavailable(why.outcome()),
            Unserved::NoPath => URL,
            Unserved::WrongMethod(_) => METHOD,
            Unserved::Broken => Fault::INTERNAL,
        };
        let mut response = fault.answer();
        if let Unserved::WrongMethod(allow) = why {
            request::set(&mut response, header::ALLOW, allow);
        }
        cors::open(&mut response);
        response
    }

    /// Callers may put a base path of their own before `/v3` (S4). A token shows that this dialect is meant, and so does a
    /// browser that asks whether it may send one. Where the headers are not known, the path decides.
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

    /// Every page may read every answer: only a token lets a call in, never a cookie or the address of the caller.
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

/// Whether a browser asks if a page may send a token.
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
        Err(fault) => return fault.refuse(call),
    };
    call.is_of(tenant.index);
    let mut entry = call.enter(tenant.index);
    let answer = unread(call, &tenant.id, &mut entry).await;
    let mut response = answer.unwrap_or_else(|fault| fault.answer());
    show_limit(&mut response, &entry);
    response
}

/// Answers a call whose token is good.
async fn unread(
    call: &Call<'_>,
    app: &AppId,
    entry: &mut Entry<'_>,
) -> Result<HttpResponse, Fault> {
    entry.check()?;
    let user = request::decode_segment(call.parameter(0)).ok_or(USER_ID)?;
    // No user has a name that can't be an id.
    let user = UserId::parse(user).map_err(|_| USER)?;
    let asked = ItemQuery::parse(call.query())?;
    let types = asked.types.as_deref();
    let totals = call.state.reader.totals(app, &user, types, entry).await?;
    let body = render(&asked.keys, &totals.ok_or(USER)?);
    Ok(request::json_bytes(StatusCode::OK, body))
}

/// The vendor's headers of a limit (S3), beside those that all dialects have.
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
