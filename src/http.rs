//! The route table, and the state that every call sees. A new dialect is one file that serves its paths, one row in
//! `VENDORS` and, where it has credentials, one field of [`Apps`]. In front of it all stands the [`edge`].

pub mod address;
pub mod body;
pub mod cors;
pub mod edge;
pub mod imkit;
pub mod keys;
pub mod native;
mod unserved;
pub mod request;
pub mod sendbird;
pub mod tencent;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody as _};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use crate::config::{AppConfig, Config};
use crate::engine::{Engine, Limits, Reader, Writer};
use crate::http::address::Refusals;
use crate::http::body::Bodies;
use crate::http::edge::Answers;
use crate::http::keys::KeyRing;
use crate::http::request::Call;
use crate::limiter::{Endpoint, Limiter};
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::telemetry::Access;

pub use unserved::Unserved;

/// One wire format.
struct Dialect {
    /// First segments of its paths.
    prefixes: &'static [&'static str],
    /// What it is called in metrics.
    name: &'static str,
    /// What its endpoints are called there, and the method of each.
    endpoints: &'static [(&'static str, &'static str)],
    /// Whether it is served for an app.
    is_for: fn(&AppConfig) -> bool,
    /// How many segments come before its own in a path that no prefix claims, if a request is meant for it all the same: told by its
    /// headers or, where they are not known, by the path alone.
    behind: fn(Option<&HeaderMap>, &[&str]) -> Option<usize>,
    /// Names of its endpoints that are limited.
    limited: &'static [&'static str],
    /// How much of an app's limit one user may use; 1 where an app's own back end calls.
    user_share: fn(&AppConfig) -> f64,
    serve: for<'a> fn(Call<'a>) -> LocalBoxFuture<'a, HttpResponse>,
    /// Its words for an internal error.
    broken: fn() -> HttpResponse,
    /// Its words for a request that no handler sees.
    unserved: fn(Unserved) -> HttpResponse,
}

/// Answers whatever no vendor's prefix claims.
static NATIVE: Dialect = Dialect {
    prefixes: &["v1"],
    name: "native",
    endpoints: native::ENDPOINTS,
    is_for: |_| true,
    behind: |_, _| None,
    limited: &[],
    user_share: |_| 1.0,
    serve: |call| Box::pin(native::serve(call)),
    broken: internal_problem,
    unserved: native::unserved,
};

static VENDORS: [Dialect; 3] = [
    Dialect {
        prefixes: imkit::PREFIXES,
        name: "imkit",
        endpoints: imkit::ENDPOINTS,
        is_for: |app| app.imkit.is_some(),
        behind: |_, _| None,
        limited: imkit::LIMITED,
        user_share: imkit::user_share,
        serve: |call| Box::pin(imkit::serve(call)),
        broken: imkit::internal_error,
        unserved: imkit::unserved,
    },
    Dialect {
        prefixes: tencent::PREFIXES,
        name: "tencent",
        endpoints: tencent::ENDPOINTS,
        is_for: |app| app.tencent.is_some(),
        behind: |_, _| None,
        limited: tencent::LIMITED,
        user_share: |_| 1.0,
        serve: |call| Box::pin(tencent::serve(call)),
        broken: tencent::internal_error,
        unserved: tencent::unserved,
    },
    Dialect {
        prefixes: sendbird::PREFIXES,
        name: "sendbird",
        endpoints: sendbird::ENDPOINTS,
        is_for: |app| app.sendbird.is_some(),
        behind: sendbird::behind,
        limited: sendbird::LIMITED,
        user_share: |_| 1.0,
        serve: |call| Box::pin(sendbird::serve(call)),
        broken: sendbird::internal_error,
        unserved: sendbird::unserved,
    },
];

/// What all calls share. Built once, before the workers.
pub struct State {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Answers what is asked of the counts.
    pub reader: Arc<Reader>,
    /// Takes events in.
    pub writer: Writer,
    /// What users call beside their app's limit, as all pods together keep it.
    pub limits: Limits,
    /// The limits of the vendor endpoints.
    pub limiter: Limiter,
    /// Which app a credential belongs to.
    pub apps: Apps,
    /// Where credentials were refused.
    pub refusals: Refusals,
    /// Room for bodies.
    pub bodies: Bodies,
    /// What is counted for `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The memory of answers that nobody has taken yet.
    pub answers: Arc<Answers>,
}

impl State {
    /// Builds the indexes and the limiter of the configured apps.
    pub fn new(config: Arc<Config>, engine: Engine, metrics: Arc<Metrics>) -> Self {
        let endpoints: Vec<_> = VENDORS
            .iter()
            .flat_map(|dialect| {
                dialect.limited.iter().map(|name| Endpoint {
                    name,
                    user_share: dialect.user_share,
                })
            })
            .collect();
        expect(&metrics, &config.apps);
        Self {
            limiter: Limiter::new(&config.apps, &endpoints, Arc::clone(&metrics)),
            apps: Apps::new(&config),
            refusals: Refusals::new(&config.server),
            bodies: Bodies::new(
                config.server.max_bodies_bytes,
                config.apps.len(),
                Duration::from_millis(config.server.body_timeout_ms),
            ),
            answers: Arc::new(Answers::new(config.server.max_answers_bytes)),
            config,
            reader: engine.reader,
            writer: engine.writer,
            limits: engine.limits,
            metrics,
        }
    }
}

/// The endpoint of a call whose path nobody knows.
const UNKNOWN: &str = "unknown";
/// That of a request that no handler sees.
const NONE: &str = "none";

/// Has all calls counted from zero.
fn expect(metrics: &Metrics, apps: &[AppConfig]) {
    let all = || std::iter::once(&NATIVE).chain(&VENDORS);
    let names = |dialect: &'static Dialect| dialect.endpoints.iter().map(|(name, _)| *name);
    let of = |app: &AppConfig| {
        let served = all().filter(|dialect| (dialect.is_for)(app));
        (app.id.as_str().to_owned(), served.flat_map(names).collect())
    };
    let unknown = all()
        .flat_map(names)
        .chain([UNKNOWN, NONE, cors::PREFLIGHT]);
    let unknown: Vec<_> = unknown.collect();
    metrics.expect(&unknown, apps.iter().map(of).collect());
    for dialect in all() {
        metrics.expect_dialect(dialect.name, dialect.endpoints);
    }
}

/// Credential → app, one index for each dialect.
pub struct Apps {
    servers: KeyRing<usize>,
    imkit: imkit::Tenants,
    tencent: tencent::Tenants,
    sendbird: sendbird::Tenants,
}

impl Apps {
    /// Indexes the credentials of all apps. That no two apps share one is for the configuration to check.
    pub fn new(config: &Config) -> Self {
        let servers = config.apps.iter().enumerate().flat_map(|(index, app)| {
            let keys = app.server_keys.iter();
            keys.map(move |key| (key.0.as_str(), index))
        });
        Self {
            servers: KeyRing::new(servers),
            imkit: imkit::Tenants::new(&config.apps),
            tencent: tencent::Tenants::new(&config.apps),
            sendbird: sendbird::Tenants::new(&config.apps),
        }
    }

    /// The place in `config.apps` of the app that a native server key belongs to.
    pub fn by_server_key(&self, key: &str) -> Option<usize> {
        self.servers.find(key).copied()
    }
}

/// The one handler, mounted as the default service with `web::Data<State>` as app data. Paths are told apart here and not
/// by actix's router: that one decodes before it splits, and an encoded slash is part of a user's id.
pub async fn dispatch(req: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    let Some(state) = req.app_data::<web::Data<State>>() else {
        tracing::error!("the server was mounted without its state");
        return internal_problem();
    };
    let access = Access::begin(&req, &state.metrics);
    let mut segments = split(req.uri().path());
    let (dialect, before) = dialect(&segments, Some(req.headers()));
    segments.drain(..before);
    let (name, app) = (Cell::new(NONE), Cell::new(None));
    let call = Call {
        req: &req,
        payload: &mut payload,
        segments,
        state,
        name: &name,
        app: &app,
    };
    // A bug met by one request must not cost the others on this worker, nor the caller an answer it can read.
    let answer = AssertUnwindSafe((dialect.serve)(call)).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|_| {
        tracing::error!(route = name.get(), "a handler panicked");
        (dialect.broken)()
    });
    // Counted until the connection does so itself. What events have come to is told in any case.
    let bytes = match response.body().size() {
        BodySize::Sized(bytes) => bytes,
        _ => 0,
    };
    let tells_what_was_done = response.extensions().contains::<request::Done>();
    let held = match state.answers.try_hold(bytes) {
        Ok(held) => held,
        Err(_) if tells_what_was_done => state
            .answers
            .hold(usize::try_from(bytes).unwrap_or(usize::MAX)),
        Err(_) => {
            state.metrics.overloaded("answers");
            response = (dialect.unserved)(Unserved::Overloaded);
            None
        }
    };
    if response.head().keep_alive()
        && !request::discard(&mut payload, state.config.server.max_body_bytes).await
    {
        request::close(&mut response);
    }
    drop(held);
    let said = response.extensions().get::<Outcome>().copied();
    let outcome = said.unwrap_or_else(|| Outcome::of_status(response.status().as_u16()));
    state.metrics.request(app.get(), name.get(), outcome);
    access.end(name.get(), outcome, &mut response);
    response
}

/// Counts a request that no handler sees.
pub fn unseen(metrics: &Metrics, why: Unserved) {
    metrics.request(None, NONE, why.outcome());
}

/// The words for a request that no handler sees, in the dialect of its path.
pub fn refuse(path: &[u8], why: Unserved) -> HttpResponse {
    let segments = path.split(|byte| *byte == b'/');
    let segments = segments.map(|segment| std::str::from_utf8(segment).unwrap_or("?"));
    let segments: Vec<&str> = segments.skip_while(|segment| segment.is_empty()).collect();
    let (dialect, _) = dialect(&segments, None);
    (dialect.unserved)(why)
}

/// The dialect of a path, and how many of its segments come before the dialect's own. The headers may not be known.
fn dialect(segments: &[&str], headers: Option<&HeaderMap>) -> (&'static Dialect, usize) {
    let first = segments.first().copied().unwrap_or_default();
    let mut all = VENDORS.iter().chain([&NATIVE]);
    if let Some(claimed) = all.find(|dialect| dialect.prefixes.contains(&first)) {
        return (claimed, 0);
    }
    VENDORS
        .iter()
        .find_map(|dialect| Some((dialect, (dialect.behind)(headers, segments)?)))
        .unwrap_or((&NATIVE, 0))
}

/// The segments of a raw path, without the empty ones in front (`//v3/…` is what a base URL with a slash leads to) and at the end
/// (`…/unread/`: a redirect would lose the body).
fn split(path: &str) -> Vec<&str> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        Vec::new()
    } else {
        path.split('/').collect()
    }
}

fn internal_problem() -> HttpResponse {
    let body = r#"{"type":"about:blank","title":"Internal Server Error","status":500}"#;
    request::with_body(
        StatusCode::INTERNAL_SERVER_ERROR,
        "application/problem+json",
        body.into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_raw() {
        assert_eq!(split("/v3/users/a%2Fb/x"), ["v3", "users", "a%2Fb", "x"]);
        assert_eq!(split("//v3/users"), ["v3", "users"]);
        assert_eq!(split("/rooms/"), ["rooms"]);
        assert_eq!(split("/v3/users//x//"), ["v3", "users", "", "x"]);
        assert!(split("//").is_empty());
        assert!(split("/").is_empty());
        assert_eq!(split("*"), ["*"]);
    }
}
