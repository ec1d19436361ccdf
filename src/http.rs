//! The list of dialects, the one handler that finds out whose a request is, and the state that every call sees. [`dialect`] says
//! what a dialect is; each has a folder of its own. In front of it all stands the [`edge`].

pub(crate) mod address;
pub(crate) mod body;
pub(crate) mod cors;
pub(crate) mod dialect;
pub(crate) mod edge;
pub(crate) mod fault;
pub(crate) mod imkit;
pub(crate) mod jwt;
pub(crate) mod keys;
pub(crate) mod native;
pub(crate) mod request;
pub(crate) mod sendbird;
pub(crate) mod tencent;
pub(crate) mod state;
mod table;
mod unserved;

#[cfg(fuzzing)]
#[path = "../fuzz/doors"]
#[doc(hidden)]
pub(crate) mod fuzzing {
    pub mod queries;
    pub mod tokens;
}

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};

use actix_web::body::{BodySize, MessageBody as _};
use actix_web::{HttpRequest, HttpResponse, Route, guard, web};
use futures_util::FutureExt;

use crate::config::{AppConfig, Config, SectionKind};
use crate::engine::{Engine, Live};
use crate::http::dialect::Dialect;
use crate::http::request::Call;
use crate::http::table::{Known, Match, RouteTable, Routing};
use crate::limiter::Endpoint;
use crate::outcome::Outcome;
use crate::telemetry::access::Access;
use crate::telemetry::metrics::Metrics;

pub(crate) use native::{totals, totals_stamp};
pub(crate) use state::State;
pub(crate) use unserved::Unserved;

/// The dialects of vendors, in the order in which they are asked whose a request is. Nothing outside of a dialect's folder names
/// it but this list and its `mod` line above.
#[rustfmt::skip]
static VENDORS: &[&dyn Dialect] = &[
    &imkit::Imkit,
    &tencent::Tencent,
    &sendbird::Sendbird,
];

/// The calls of all dialects; what nobody claims is answered by the native one.
static TABLE: LazyLock<RouteTable> =
    LazyLock::new(|| RouteTable::new(VENDORS.iter().copied(), &native::Native));

/// All dialects.
pub(crate) fn dialects() -> impl Iterator<Item = &'static dyn Dialect> {
    let native: &dyn Dialect = &native::Native;
    std::iter::once(native).chain(VENDORS.iter().copied())
}

/// The sections that an app may have, for whoever loads a configuration.
pub(crate) fn sections() -> Vec<&'static SectionKind> {
    dialects().filter_map(|dialect| dialect.section()).collect()
}

/// The endpoint of a call whose path nobody knows.
const UNKNOWN: &str = "unknown";

/// The state of a pod: the limiter and the indexes of credentials of all dialects. Calls are counted from zero on.
pub(crate) fn state(
    config: Arc<Config>,
    engine: Engine,
    live: Live,
    metrics: Arc<Metrics>,
) -> State {
    // No request has to wait for it.
    LazyLock::force(&TABLE);
    let routes = dialects().flat_map(|dialect| dialect.routes());
    let endpoints: Vec<Endpoint> = routes.filter_map(|route| route.limit).collect();
    let tenants = dialects().map(|dialect| dialect.tenants(&config.apps));
    let tenants = tenants.collect();
    expect(&metrics, &config.apps);
    State::new(config, engine, live, metrics, &endpoints, tenants)
}

/// Has all calls counted from zero.
fn expect(metrics: &Metrics, apps: &[AppConfig]) {
    let of = |app: &AppConfig| {
        let served = dialects().filter(|dialect| is_for(*dialect, app));
        let endpoints = served.flat_map(endpoints).map(|(name, _)| name);
        (app.id.as_str().to_owned(), endpoints.collect())
    };
    let known = dialects().flat_map(endpoints).map(|(name, _)| name);
    let unknown: Vec<_> = known
        .chain([UNKNOWN, unserved::NONE, cors::PREFLIGHT])
        .collect();
    metrics.expect_calls(&unknown, apps.iter().map(of).collect());
    for dialect in dialects() {
        metrics.expect_dialect(dialect.name(), &endpoints(dialect));
    }
}

/// Whether a dialect is served for an app.
fn is_for(dialect: &dyn Dialect, app: &AppConfig) -> bool {
    let section = dialect.section();
    section.is_none_or(|section| app.dialects.iter().any(|(name, _)| name == section.name))
}

/// What a dialect's endpoints are called in metrics, each once, and the first method of each.
fn endpoints(dialect: &'static dyn Dialect) -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for route in dialect.routes() {
        if !all.iter().any(|(name, _)| *name == route.endpoint) {
            all.push((route.endpoint, route.method.as_str()));
        }
    }
    all
}

/// A route for GET, and for HEAD, which some balancers use.
pub(crate) fn get_or_head() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// The one handler, mounted as the default service with `web::Data<State>` as app data. Paths are told apart here and not
/// by actix's router: that one decodes before it splits, and an encoded slash is part of a user's id.
pub(crate) async fn dispatch(req: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    let Some(state) = req.app_data::<web::Data<State>>() else {
        tracing::error!("the server was mounted without its state");
        return unserved(Unserved::Broken);
    };
    let access = Access::begin(&req, &state.metrics);
    let mut segments = split(req.uri().path());
    let host = || request::host(&req);
    let known = Known {
        method: Some(req.method()),
        host: Some(&host),
        headers: Some(req.headers()),
    };
    let Routing {
        dialect,
        before,
        call: found,
    } = TABLE.find(&segments, &known);
    segments.drain(..before);
    let (endpoint, app) = (Cell::new(unserved::NONE), Cell::new(None));
    let mut call = Call {
        req: &req,
        payload: &mut payload,
        segments,
        state,
        dialect: dialect.name(),
        parameters: found.path().map_or(&[], |path| &path.parameters),
        limit: found.path().and_then(|path| path.route.limit),
        endpoint: &endpoint,
        app: &app,
    };
    // A bug met by one request must not cost the others on this worker, nor the caller an answer it can read.
    let answer = AssertUnwindSafe(answer(&mut call, dialect, found));
    let mut response = answer.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(route = endpoint.get(), "a handler panicked");
        dialect.unserved(Unserved::Broken)
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
            response = dialect.unserved(Unserved::Overloaded);
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
    state.metrics.request(app.get(), endpoint.get(), outcome);
    access.end(endpoint.get(), outcome, &mut response);
    response
}

/// Has a call answered by its dialect.
async fn answer(call: &mut Call<'_>, dialect: &dyn Dialect, found: Match<'_>) -> HttpResponse {
    let route = found.path().map(|path| path.route);
    let allow = route.map_or("", |route| route.allow);
    if let Some(response) = dialect.preflight(call, allow) {
        call.endpoint.set(cors::PREFLIGHT);
        return response;
    }
    let endpoint = route.map_or(UNKNOWN, |route| route.endpoint);
    call.endpoint.set(endpoint);
    let mut response = match found {
        Match::Found(path) => (path.route.handler)(call).await,
        Match::OtherMethod(_) => dialect.unserved(Unserved::WrongMethod(allow)),
        Match::Nothing => dialect.unserved(Unserved::NoPath),
    };
    dialect.finish(call, &mut response);
    response
}

/// The program's own words for a request that no handler serves.
pub(crate) fn unserved(why: Unserved) -> HttpResponse {
    native::Native.unserved(why)
}

/// The words for a request that no handler sees, in the dialect of its path.
pub(crate) fn refuse(path: &[u8], why: Unserved) -> HttpResponse {
    let segments = path.split(|byte| *byte == b'/');
    let segments = segments.map(|segment| std::str::from_utf8(segment).unwrap_or("?"));
    let segments: Vec<&str> = segments.skip_while(|segment| segment.is_empty()).collect();
    let routing = TABLE.find(&segments, &Known::default());
    routing.dialect.unserved(why)
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
