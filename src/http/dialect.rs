//! What the rest of the program knows of a dialect: its calls as a table, its section of the configuration, its words for what
//! goes wrong. And whose a request is: [`find`] looks through the tables of all.

use std::net::SocketAddr;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use futures_util::future::LocalBoxFuture;

use crate::config::{AppConfig, SectionKind};
use crate::http::request::Call;
pub(crate) use crate::http::state::Tenants;
use crate::http::unserved::Unserved;
use crate::limiter::Endpoint;

/// One wire format. What has a default here most dialects do not need.
pub(crate) trait Dialect: Sync {
    /// What it is called in metrics, on the command line, and in the configuration: `imkit` is `[apps.imkit]`.
    fn name(&self) -> &'static str;

    /// Its calls.
    fn routes(&self) -> &'static [Route];

    /// First segments of paths that are answered in its words also where there is no such call.
    fn claims(&self) -> &'static [&'static str];

    /// Its section of an app. None: every app has it, and needs no section.
    fn section(&self) -> Option<&'static SectionKind>;

    /// The index of its credentials, which its handlers get by [`Call::tenants`].
    fn tenants(&self, apps: &[AppConfig]) -> Tenants;

    /// Its answer to a request that no handler serves.
    fn unserved(&self, why: Unserved) -> HttpResponse;

    /// How many segments come before its own in a path that nobody claims, if a request is meant for it all the same: told by
    /// its headers or, where they are not known, by the path alone.
    fn behind(&self, _headers: Option<&HeaderMap>, _segments: &[&str]) -> Option<usize> {
        None
    }

    /// The answer to a browser that asks if its page may make another call; `allow` as in [`Route`]. None: it asks no such thing.
    fn preflight(&self, _call: &Call<'_>, _allow: &str) -> Option<HttpResponse> {
        None
    }

    /// Puts on an answer what all of its answers have, such as whether a browser's page may read it.
    fn finish(&self, _call: &Call<'_>, _response: &mut HttpResponse) {}

    /// Calls to paste, for `unread demo`: each a comment and a line for a shell, with a blank line before it.
    fn samples(&self, _app: &AppConfig, _sample: &Sample) -> String {
        String::new()
    }

    /// Its tokens, for `unread token`.
    fn token(&self) -> Option<&'static TokenKind> {
        None
    }
}

/// One call of a dialect.
pub(crate) struct Route {
    /// Its method. `GET` is also `HEAD`.
    pub method: Method,
    /// What the name of the host begins with, such as `api-`; None: any. It goes before the same path of any host.
    pub host: Option<&'static str>,
    /// Its path, such as `/v3/users/{user}/count`: a segment in braces is any.
    pub path: &'static str,
    /// The methods that its path takes, as the header `Allow` has them.
    pub allow: &'static str,
    /// What it is called in metrics.
    pub endpoint: &'static str,
    /// Its limit, if it has one.
    pub limit: Option<Endpoint>,
    /// Answers it.
    pub handler: Handler,
}

/// Answers a call.
pub(crate) type Handler = for<'c, 'a> fn(&'c mut Call<'a>) -> LocalBoxFuture<'c, HttpResponse>;

/// Where and when sample calls are made.
pub(crate) struct Sample {
    /// The address to call.
    pub listen: SocketAddr,
    /// The clock, in whole seconds since the epoch.
    pub now: u64,
    /// How long a token should be good, in seconds.
    pub ttl: u64,
}

/// A kind of tokens that a dialect's back ends make for their users.
pub(crate) struct TokenKind {
    /// What `unread token --help` says of it.
    pub about: &'static str,
    /// The flag for whom it names, without the dashes.
    pub flag: &'static str,
    /// What the help says of the flag.
    pub help: &'static str,
    /// Makes one of an app, which names that user and is good from then on for so many seconds.
    pub make: fn(app: &AppConfig, named: &str, now: u64, ttl: u64) -> Result<String, NoToken>,
}

/// Why there is no token.
pub(crate) enum NoToken {
    /// The app has no section of the dialect.
    NoSection,
    /// What the flag says can't be named in one.
    Bad(String),
    /// It can't be signed.
    Unsigned,
}

impl Route {
    /// Whether it is the one for such a method.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        *method == self.method || (method == Method::HEAD && self.method == Method::GET)
    }

    fn has_path(&self, segments: &[&str]) -> bool {
        let mut segments = segments.iter();
        let mut parts = self.path.split('/').skip(1);
        parts.all(|part| {
            let segment = segments.next();
            segment.is_some_and(|segment| part == *segment || part.starts_with('{'))
        }) && segments.next().is_none()
    }

    fn is_at(&self, known: &Known<'_>) -> bool {
        self.host.is_none_or(|start| {
            let host = known.host.map_or("", |host| host());
            let found = host.get(..start.len());
            found.is_some_and(|found| found.eq_ignore_ascii_case(start))
        })
    }

    /// The segment of a path that stands where this one has braces for the `n`-th time, counted from 0.
    pub(crate) fn parameter<'s>(&self, segments: &[&'s str], n: usize) -> Option<&'s str> {
        let parts = self.path.split('/').skip(1).zip(segments);
        let mut braces = parts.filter(|(part, _)| part.starts_with('{'));
        braces.nth(n).map(|(_, segment)| *segment)
    }
}

/// Where a request goes.
pub(crate) struct Target {
    /// Whose it is.
    pub dialect: &'static dyn Dialect,
    /// How many segments of its path come before the dialect's own.
    pub before: usize,
    /// Which call it is.
    pub call: Match,
}

/// Which call of a dialect a request is.
#[derive(Clone, Copy)]
pub(crate) enum Match {
    /// This one.
    Route(&'static Route),
    /// This one, but for the method.
    Path(&'static Route),
    /// None.
    Nothing,
}

impl Match {
    /// The call whose path it has.
    pub(crate) fn route(self) -> Option<&'static Route> {
        match self {
            Match::Route(route) | Match::Path(route) => Some(route),
            Match::Nothing => None,
        }
    }
}

/// What a request can be told by. Of one that can't be read nothing but the path may be known.
#[derive(Default)]
pub(crate) struct Known<'a> {
    /// Its method.
    pub method: Option<&'a Method>,
    /// Its host, which is looked up only for a route that names one.
    pub host: Option<&'a dyn Fn() -> &'a str>,
    /// Its headers.
    pub headers: Option<&'a HeaderMap>,
}

/// Finds the dialect of a request, and the call. A dialect that has the very call goes before those that only claim the path's
/// first segment, so two dialects may have paths that begin alike. `fallback` comes last, and answers what no dialect claims.
pub(crate) fn find(
    dialects: &[&'static dyn Dialect],
    fallback: &'static dyn Dialect,
    segments: &[&str],
    known: &Known<'_>,
) -> Target {
    let all = || dialects.iter().copied().chain([fallback]);
    let target = |dialect, before, call| Target {
        dialect,
        before,
        call,
    };
    let any = || all().map(|dialect| (dialect, 0));
    if let Some((dialect, call)) = look_up(any(), segments, known) {
        return target(dialect, 0, call);
    }
    let first = segments.first().copied().unwrap_or_default();
    if let Some(claimed) = all().find(|dialect| dialect.claims().contains(&first)) {
        return target(claimed, 0, Match::Nothing);
    }
    let mut behind =
        all().filter_map(|dialect| Some((dialect, dialect.behind(known.headers, segments)?)));
    match behind.next() {
        Some((dialect, before)) => {
            let found = look_up(std::iter::once((dialect, before)), segments, known);
            target(
                dialect,
                before,
                found.map_or(Match::Nothing, |(_, call)| call),
            )
        }
        None => target(fallback, 0, Match::Nothing),
    }
}

/// The call of one of these dialects, and whose it is. With each dialect comes how many segments are in front of its own.
fn look_up(
    dialects: impl Iterator<Item = (&'static dyn Dialect, usize)>,
    segments: &[&str],
    known: &Known<'_>,
) -> Option<(&'static dyn Dialect, Match)> {
    let routes = dialects.flat_map(|(dialect, before)| {
        let own = segments.get(before..).unwrap_or_default();
        let routes = dialect.routes().iter();
        routes
            .filter(move |route| route.has_path(own) && route.is_at(known))
            .map(move |route| (dialect, route))
    });
    // The very method first, then the narrower host; of equals the first.
    let rank = |(_, route): &(&'static dyn Dialect, &'static Route)| {
        let takes = known.method.is_none_or(|method| route.takes(method));
        (!takes, route.host.is_none())
    };
    let (dialect, route) = routes.min_by_key(rank)?;
    let takes = known.method.is_some_and(|method| route.takes(method));
    let call = match takes {
        true => Match::Route(route),
        false => Match::Path(route),
    };
    Some((dialect, call))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of these answers, by its name.
    struct Fake {
        name: &'static str,
        claims: &'static [&'static str],
        routes: &'static [Route],
    }

    impl Dialect for Fake {
        fn name(&self) -> &'static str {
            self.name
        }
        fn routes(&self) -> &'static [Route] {
            self.routes
        }
        fn claims(&self) -> &'static [&'static str] {
            self.claims
        }
        fn section(&self) -> Option<&'static SectionKind> {
            None
        }
        fn tenants(&self, _: &[AppConfig]) -> Tenants {
            Box::new(())
        }
        fn unserved(&self, why: Unserved) -> HttpResponse {
            HttpResponse::new(why.status())
        }
        fn behind(&self, headers: Option<&HeaderMap>, segments: &[&str]) -> Option<usize> {
            headers?.get(self.name)?;
            segments.iter().position(|segment| *segment == "v3")
        }
    }

    const fn route(
        method: Method,
        host: Option<&'static str>,
        path: &'static str,
        endpoint: &'static str,
    ) -> Route {
        Route {
            method,
            host,
            path,
            allow: "",
            endpoint,
            limit: None,
            handler: |_| Box::pin(async { HttpResponse::new(actix_web::http::StatusCode::OK) }),
        }
    }

    static ONE: Fake = Fake {
        name: "one",
        claims: &["v3"],
        routes: &[
            route(Method::GET, None, "/v3/users/{user}/count", "one_count"),
            route(Method::POST, None, "/v3/both", "one_both"),
            route(Method::GET, Some("api-"), "/v3/here", "one_here"),
        ],
    };
    static TWO: Fake = Fake {
        name: "two",
        claims: &["v3", "channels"],
        routes: &[
            route(Method::GET, None, "/v3/rooms", "two_rooms"),
            route(Method::GET, None, "/v3/both", "two_both"),
            route(Method::GET, None, "/v3/here", "two_here"),
        ],
    };
    static REST: Fake = Fake {
        name: "rest",
        claims: &["v1"],
        routes: &[],
    };

    /// Whose a request is, how many segments are left out, and which endpoint, or that it is another of its path's methods.
    fn found(method: Method, host: &str, path: &str, headers: &[&'static str]) -> String {
        let mut map = HeaderMap::new();
        for name in headers {
            let name = actix_web::http::header::HeaderName::from_static(name);
            map.insert(name, actix_web::http::header::HeaderValue::from_static("x"));
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let known = Known {
            method: Some(&method),
            host: Some(&|| host),
            headers: Some(&map),
        };
        let target = find(&[&ONE, &TWO], &REST, &segments, &known);
        let call = match target.call {
            Match::Route(route) => route.endpoint.to_owned(),
            Match::Path(route) => format!("not {}", route.endpoint),
            Match::Nothing => "nothing".to_owned(),
        };
        format!("{} {} {call}", target.dialect.name(), target.before)
    }

    #[test]
    fn two_dialects_may_have_paths_that_begin_alike() {
        let get = |path| found(Method::GET, "h", path, &[]);
        assert_eq!(get("/v3/users/a/count"), "one 0 one_count");
        assert_eq!(get("/v3/users//count"), "one 0 one_count");
        assert_eq!(get("/v3/rooms"), "two 0 two_rooms");
        // What nobody has belongs to the first who claims such paths.
        assert_eq!(get("/v3/users/a"), "one 0 nothing");
        assert_eq!(get("/v3/users/a/count/x"), "one 0 nothing");
        assert_eq!(get("/channels"), "two 0 nothing");
        assert_eq!(get("/v1/x"), "rest 0 nothing");
        assert_eq!(get("/x"), "rest 0 nothing");
    }

    #[test]
    fn methods_and_hosts_tell_the_same_path_apart() {
        let both = |method| found(method, "h", "/v3/both", &[]);
        assert_eq!(both(Method::POST), "one 0 one_both");
        assert_eq!(both(Method::GET), "two 0 two_both");
        assert_eq!(both(Method::HEAD), "two 0 two_both");
        assert_eq!(both(Method::PUT), "one 0 not one_both");
        let here = |host| found(Method::GET, host, "/v3/here", &[]);
        assert_eq!(here("API-x.example"), "one 0 one_here");
        assert_eq!(here("x.example"), "two 0 two_here");
        assert_eq!(here(""), "two 0 two_here");
    }

    #[test]
    fn a_request_may_be_meant_for_a_dialect_behind_a_path_of_the_callers() {
        let behind = |path, header| found(Method::GET, "h", path, &[header]);
        assert_eq!(behind("/base/v3/users/a/count", "one"), "one 1 one_count");
        assert_eq!(behind("/base/v3/rooms", "one"), "one 1 nothing");
        assert_eq!(behind("/a/b/v3/rooms", "two"), "two 2 two_rooms");
        assert_eq!(behind("/base/v3/rooms", "three"), "rest 0 nothing");
        // A path that somebody claims is not looked into.
        assert_eq!(behind("/channels/v3/rooms", "one"), "two 0 nothing");
    }

    /// What stands in the tables of all.
    #[test]
    fn tables_agree_with_themselves() {
        for dialect in crate::http::dialects() {
            for route in dialect.routes() {
                let (path, endpoint) = (route.path, route.endpoint);
                assert!(path.starts_with('/') && !path.ends_with('/'), "{path}");
                assert!(endpoint.starts_with(dialect.name()), "{endpoint}");
                let first = path.split('/').nth(1).unwrap();
                assert!(dialect.claims().contains(&first), "{path}");
                let mut allowed = route.allow.split(", ");
                assert!(allowed.any(|one| one == route.method.as_str()), "{path}");
                let limit = route
                    .limit
                    .map_or(String::new(), |limit| limit.name.replace('-', "_"));
                assert!(
                    limit.is_empty() || endpoint.starts_with(&limit) || limit.starts_with(endpoint)
                );
            }
            let section = dialect.section();
            assert!(section.is_none_or(|section| section.name == dialect.name()));
        }
    }
}
