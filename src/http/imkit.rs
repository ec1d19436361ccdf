//! IMKIT's dialect: `POST /badges/byRoomTags` and `GET /rooms`. In an error, the status and `RC` are the same number. Browsers
//! call it too, so its answers have CORS headers.
//!
//! What the vendor leaves open, and where each rule comes from, stands in `docs/vendors.md`. Comments here name a source as it
//! does: I1 to I6.

mod badges;
mod fault;
mod rooms;
mod section;
mod tenants;
mod token;
#[cfg(fuzzing)]
#[path = "../../fuzz/doors/imkit.rs"]
#[doc(hidden)]
pub(crate) mod fuzzing;

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::http::{Method, StatusCode};
use serde::Serialize;

use crate::config::{AppConfig, SectionKind};
use crate::http::cors;
use crate::http::dialect::{self, Dialect, NoToken, Route, Sample, TokenKind};
use crate::http::fault::VendorFault;
use crate::http::request::{self, Call};
use crate::http::unserved::Unserved;
use crate::limiter::{Allowance, Endpoint, Entry};
use crate::names::UserId;
use fault::{Fault, METHOD, PARAMETERS, PATH, fault};
pub(crate) use section::ImkitConfig;
use section::user_share;
use tenants::{Refusal, Tenant, Tenants, authenticate};
use token::make_token;

/// IMKIT's dialect.
pub(crate) struct Imkit;

static ROUTES: [Route; 2] = [
    Route {
        method: Method::POST,
        host: None,
        path: "/badges/byRoomTags",
        allow: "POST, OPTIONS",
        endpoint: "imkit_badges",
        limit: Some(Endpoint {
            name: "imkit-badges",
            allowance: Allowance::OfApp(user_share),
        }),
        handler: |call| Box::pin(badges(call)),
    },
    Route {
        method: Method::GET,
        host: None,
        path: "/rooms",
        allow: "GET, HEAD, OPTIONS",
        endpoint: "imkit_rooms",
        limit: Some(Endpoint {
            name: "imkit-rooms",
            allowance: Allowance::OfApp(user_share),
        }),
        handler: |call| Box::pin(rooms(call)),
    },
];

static TOKEN: TokenKind = TokenKind {
    name: "imkit",
    about: "Print an IMKIT token of a user",
    flag: "user",
    help: "The user whose token it is",
    make: |app, named, now, ttl| {
        let config: &ImkitConfig = app
            .section()
            .ok_or(NoToken::Missing("[apps.imkit] section"))?;
        let user = UserId::parse(named).map_err(|why| NoToken::Bad(why.to_string()))?;
        make_token(&config.jwt_secret.0, &user, now, ttl).ok_or(NoToken::Unsigned)
    },
};

impl Dialect for Imkit {
    fn name(&self) -> &'static str {
        "imkit"
    }

    fn routes(&self) -> &'static [Route] {
        &ROUTES
    }

    fn claims(&self) -> &'static [&'static str] {
        &[
            "badges",
            "me",
            "messages",
            "roomPrefs",
            "rooms",
            "socket.io",
        ]
    }

    fn section(&self) -> Option<&'static SectionKind> {
        Some(&section::SECTION)
    }

    fn tenants(&self, apps: &[AppConfig]) -> dialect::Tenants {
        Box::new(Tenants::new(apps))
    }

    fn unserved(&self, why: Unserved) -> HttpResponse {
        let words = |rm, code| fault(why.status().as_u16(), rm, code, why.detail());
        let fault = match why {
            // Who may read the answer to these two is for `finish`, which knows the call.
            Unserved::NoPath => return PATH.answer(),
            Unserved::WrongMethod(allow) => {
                let mut response = METHOD.answer();
                request::set(&mut response, header::ALLOW, allow);
                return response;
            }
            Unserved::Malformed(_) => words(PARAMETERS, "INVALID_REQUEST"),
            Unserved::TargetTooLong => words("URI too long", "URI_TOO_LONG"),
            Unserved::HeadTooLarge => words("Request header fields too large", "HEADERS_TOO_LARGE"),
            Unserved::HeadTimeout => words("Request timeout", "REQUEST_TIMEOUT"),
            Unserved::Full | Unserved::Overloaded => Fault::unavailable(why.outcome()),
            Unserved::Broken => Fault::INTERNAL,
        };
        let mut response = fault.answer();
        // Every page may read it: it says nothing of any app.
        cors::open(&mut response);
        response
    }

    /// Every `OPTIONS` is answered like a preflight.
    fn preflight(&self, call: &Call<'_>, allow: &str) -> Option<HttpResponse> {
        (call.req.method() == Method::OPTIONS).then(|| {
            let mut response = cors::preflight(call.req, allow, HEADERS);
            self.finish(call, &mut response);
            response
        })
    }

    fn finish(&self, call: &Call<'_>, response: &mut HttpResponse) {
        if let Ok(tenants) = call.tenants::<Tenants>() {
            tenants.origins(call).tell(call.req, response);
        }
    }

    fn samples(&self, app: &AppConfig, sample: &Sample) -> String {
        let Some(config) = app.section::<ImkitConfig>() else {
            return String::new();
        };
        let Sample { listen, now, ttl } = *sample;
        let secret = &config.jwt_secret.0;
        let alice = UserId::parse("alice").ok();
        let token = alice.and_then(|alice| make_token(secret, &alice, now, ttl));
        let token = token.unwrap_or_default();
        let key = config.client_keys.first().map_or("", |key| key.0.as_str());
        format!(
            "\n# IMKIT: unread messages of alice by room tag\n\
             curl -sS -X POST 'http://{listen}/badges/byRoomTags' -H 'IM-CLIENT-KEY: {key}' \
             -H 'IM-Authorization: {token}' -H 'Content-Type: application/json' -d '{{\"tags\": [\"work\", \"home\"]}}'\n\
             \n# IMKIT: the rooms of alice, those with unread messages first\n\
             curl -sS 'http://{listen}/rooms?limit=20&sortUnreadFirst=1' -H 'IM-CLIENT-KEY: {key}' \
             -H 'IM-CLIENT-ID: alice' -H 'IM-Authorization: {token}'\n"
        )
    }

    fn token(&self) -> Option<&'static TokenKind> {
        Some(&TOKEN)
    }
}

/// The headers that pages send, beside those that every page may.
const HEADERS: &str = "IM-CLIENT-KEY, IM-CLIENT-ID, IM-Authorization, IM-Device-ID, CLIENT_KEY, Authorization, Content-Type";

/// Handles `POST /badges/byRoomTags`.
async fn badges(call: &mut Call<'_>) -> HttpResponse {
    let (tenant, user, mut entry) = match enter(call) {
        Ok(entered) => entered,
        Err(refusal) => return refuse(call, &refusal),
    };
    let answer = match entry.check() {
        Ok(()) => badges::badges(call, tenant, &user, &mut entry).await,
        Err(limited) => Err(limited.into()),
    };
    with_limit_headers(answer, &entry)
}

/// Handles `GET /rooms`.
async fn rooms(call: &mut Call<'_>) -> HttpResponse {
    let (tenant, user, mut entry) = match enter(call) {
        Ok(entered) => entered,
        Err(refusal) => return refuse(call, &refusal),
    };
    let answer = match entry.check() {
        Ok(()) => rooms::rooms(call, &tenant.id, &user, &mut entry).await,
        Err(limited) => Err(limited.into()),
    };
    with_limit_headers(answer, &entry)
}

/// The app and the user that call, and the call's entry in their limits.
fn enter<'a>(call: &Call<'a>) -> Result<(&'a Tenant, Arc<UserId>, Entry<'a>), Refusal> {
    let (tenant, user) = authenticate(call)?;
    call.is_of(tenant.index);
    let mut entry = call.enter_as(tenant.index, &user);
    // Other pods learn that this user calls often.
    if let Some(tab) = entry.report() {
        call.state.limits.report(tab);
    }
    Ok((tenant, user, entry))
}

/// The answer of a call that was let in, with the headers of its limit.
fn with_limit_headers(answer: Result<HttpResponse, Fault>, entry: &Entry<'_>) -> HttpResponse {
    let mut response = answer.unwrap_or_else(|fault| fault.answer());
    request::show_limit(&mut response, entry);
    response
}

/// The answer to a call that is not let in.
fn refuse(call: &Call<'_>, refusal: &Refusal) -> HttpResponse {
    match refusal {
        Refusal::Stranger(fault) => fault.refuse(call),
        Refusal::Known(fault) => {
            call.known_refused();
            fault.answer()
        }
    }
}

/// The answer of a call that went well.
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
    request::json(StatusCode::OK, &envelope).ok_or(Fault::INTERNAL)
}
