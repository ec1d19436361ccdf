//! Tencent Chat's dialect: `POST /v4/openim/get_c2c_unread_msg_num`. The status is always 200; `ErrorCode` says what a call came
//! to. Only an app administrator may call, whose UserSig comes in the query.
//!
//! What the vendor leaves open, and where each rule comes from, stands in `docs/vendors.md`. Comments here name a source as it
//! does: T1 to T6.

mod fault;
mod answer;
mod question;
mod section;
mod tenants;
mod usersig;
#[cfg(fuzzing)]
#[path = "../../fuzz/doors/tencent.rs"]
#[doc(hidden)]
pub mod fuzzing;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};

use crate::config::{AppConfig, SectionKind};
use crate::http::cors;
use crate::http::dialect::{self, Dialect, NoToken, Route, Sample, TokenKind};
use crate::http::fault::VendorFault;
use crate::http::request::{self, Call};
use crate::http::state::State;
use crate::http::unserved::Unserved;
use crate::limiter::{Allowance, Endpoint, Entry};
use answer::AnswerBody;
use fault::{ADMIN, Fault, HEAD, METHOD, NO_USER, PATH, SIG_EXPIRED, SLOW_HEAD, TOO_LARGE};
use question::Question;
pub(crate) use section::TencentConfig;
use tenants::{Tenant, Tenants, authenticate};
use usersig::make_usersig;

/// Tencent Chat's dialect.
pub(crate) struct Tencent;

static ROUTES: [Route; 1] = [Route {
    method: Method::POST,
    host: None,
    path: "/v4/openim/get_c2c_unread_msg_num",
    allow: "POST",
    endpoint: "tencent_unread",
    limit: Some(Endpoint {
        name: "tencent-unread",
        allowance: Allowance::OfApp(|_| 1.0),
    }),
    handler: |call| Box::pin(get_c2c_unread_msg_num(call)),
}];

static TOKEN: TokenKind = TokenKind {
    name: "tencent",
    about: "Print a Tencent Chat UserSig",
    flag: "identifier",
    help: "The administrator whose UserSig it is",
    make: |app, named, now, ttl| {
        let config: &TencentConfig = app
            .section()
            .ok_or(NoToken::Missing("[apps.tencent] section"))?;
        let sig = make_usersig(config.sdkappid, &config.secret_key.0, named, now, ttl);
        sig.ok_or(NoToken::Unsigned)
    },
};

impl Dialect for Tencent {
    fn name(&self) -> &'static str {
        "tencent"
    }

    fn routes(&self) -> &'static [Route] {
        &ROUTES
    }

    fn claims(&self) -> &'static [&'static str] {
        &["v4"]
    }

    fn section(&self) -> Option<&'static SectionKind> {
        Some(&section::SECTION)
    }

    fn tenants(&self, apps: &[AppConfig]) -> dialect::Tenants {
        Box::new(Tenants::new(apps))
    }

    fn unserved(&self, why: Unserved) -> HttpResponse {
        let fault = match why {
            Unserved::Malformed(_) => HEAD,
            Unserved::TargetTooLong | Unserved::HeadTooLarge => TOO_LARGE,
            Unserved::HeadTimeout => SLOW_HEAD,
            Unserved::Full | Unserved::Overloaded => Fault::unavailable(why.outcome()),
            Unserved::NoPath => PATH,
            Unserved::WrongMethod(_) => METHOD,
            Unserved::Broken => Fault::INTERNAL,
        };
        let mut response = fault.answer();
        set_cors(&mut response);
        response
    }

    fn preflight(&self, call: &Call<'_>, _: &str) -> Option<HttpResponse> {
        cors::is_preflight(call.req).then(|| {
            let mut response = cors::preflight(call.req, "", "Content-Type");
            cors::open(&mut response);
            response
        })
    }

    fn finish(&self, _: &Call<'_>, response: &mut HttpResponse) {
        set_cors(response);
    }

    fn samples(&self, app: &AppConfig, sample: &Sample) -> String {
        let Some(config) = app.section::<TencentConfig>() else {
            return String::new();
        };
        let Sample { listen, now, ttl } = *sample;
        let admin = config.admins.first().map_or("", String::as_str);
        let (id, key) = (config.sdkappid, &config.secret_key.0);
        let sig = make_usersig(id, key, admin, now, ttl).unwrap_or_default();
        format!(
            "\n# Tencent Chat: unread one-to-one messages of alice\n\
             curl -sS -X POST 'http://{listen}/v4/openim/get_c2c_unread_msg_num?sdkappid={id}&identifier={admin}\
             &usersig={sig}&random=99999999&contenttype=json' -d '{{\"To_Account\": \"alice\"}}'\n"
        )
    }

    fn token(&self) -> Option<&'static TokenKind> {
        Some(&TOKEN)
    }
}

/// The CORS headers of the vendor's sample answer (T2), and those that a page needs to read the headers of a limit.
fn set_cors(response: &mut HttpResponse) {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            "RateLimit, RateLimit-Policy, Retry-After",
        ),
    ] {
        request::set(response, name, HeaderValue::from_static(value));
    }
}

/// Handles `POST /v4/openim/get_c2c_unread_msg_num`.
async fn get_c2c_unread_msg_num(call: &mut Call<'_>) -> HttpResponse {
    let tenant = match authenticate(call) {
        Ok(tenant) => tenant,
        Err(fault) => return refuse(call, &fault),
    };
    call.is_of(tenant.index);
    let mut entry = call.enter(tenant.index);
    let answer = unread(call, tenant, &mut entry).await;
    let mut response = answer.unwrap_or_else(|fault| fault.answer());
    request::show_limit(&mut response, &entry);
    response
}

/// The answer to a call that is not let in.
fn refuse(call: &Call<'_>, fault: &Fault) -> HttpResponse {
    // A UserSig made with the app's key is no attempt to guess the key: its caller has to hear what is wrong with it.
    if matches!(*fault, SIG_EXPIRED | ADMIN) {
        call.known_refused();
        return fault.answer();
    }
    fault.refuse(call)
}

/// Answers an administrator.
async fn unread(
    call: &mut Call<'_>,
    tenant: &Tenant,
    entry: &mut Entry<'_>,
) -> Result<HttpResponse, Fault> {
    entry.check()?;
    let State {
        config,
        bodies,
        reader,
        ..
    } = call.state;
    let body = call
        .body(tenant.index, config.server.max_body_bytes)
        .await?;
    let (question, _memory) = bodies.work(body, Question::parse).await;
    let (question, app) = (question?, &tenant.id);
    let mut answer = AnswerBody::OK;
    let others = question.others();
    if others.is_empty() {
        // Also where the reader need not be asked for any peer: whether the user exists has to be known.
        let total = reader.direct_total(app, &question.user, entry).await?;
        let total = total.ok_or(NO_USER)?;
        if question.peers.is_empty() {
            answer.total = Some(total);
        } else {
            question.fill(&mut answer, &[]);
        }
    } else {
        let read = reader.direct_by_peer(app, &question.user, &others, entry);
        let counts = read.await?;
        question.fill(&mut answer, &counts.ok_or(NO_USER)?);
    }
    Ok(answer.response())
}
