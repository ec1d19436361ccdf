//! Whose a request is: the routes of all dialects in one table, taken apart when the program starts.

use actix_web::http::Method;
use actix_web::http::header::HeaderMap;

use crate::http::dialect::{Dialect, Route};

/// The routes of all dialects.
pub(crate) struct RouteTable {
    /// In the order in which they are asked.
    dialects: Vec<&'static dyn Dialect>,
    /// The last that is asked. It answers what no dialect claims.
    fallback: &'static dyn Dialect,
    paths: Vec<RoutePath>,
}

/// The path of a route.
pub(crate) struct RoutePath {
    /// The route.
    pub route: &'static Route,
    /// Whose route it is.
    dialect: &'static dyn Dialect,
    /// Its segments. None: a parameter, which matches every segment.
    parts: Vec<Option<&'static str>>,
    /// Which of its segments are parameters, counted from 0.
    pub parameters: Vec<usize>,
}

impl RoutePath {
    fn new(dialect: &'static dyn Dialect, route: &'static Route) -> Self {
        let parts = route.path.split('/').skip(1);
        let parts: Vec<_> = parts
            .map(|part| (!part.starts_with('{')).then_some(part))
            .collect();
        let places = parts.iter().enumerate();
        let parameters = places.filter(|(_, part)| part.is_none());
        Self {
            route,
            dialect,
            parameters: parameters.map(|(place, _)| place).collect(),
            parts,
        }
    }

    fn matches(&self, segments: &[&str]) -> bool {
        let mut pairs = self.parts.iter().zip(segments);
        self.parts.len() == segments.len()
            && pairs.all(|(part, segment)| part.is_none_or(|part| part == *segment))
    }

    fn is_at(&self, known: &Known<'_>) -> bool {
        self.route.host.is_none_or(|start| {
            let host = known.host.map_or("", |host| host());
            let found = host.get(..start.len());
            found.is_some_and(|found| found.eq_ignore_ascii_case(start))
        })
    }
}

/// Where a request goes.
pub(crate) struct Routing<'t> {
    /// Whose it is.
    pub dialect: &'static dyn Dialect,
    /// How many segments of its path come before the dialect's own.
    pub before: usize,
    /// Which call it is.
    pub call: Match<'t>,
}

/// Which call of a dialect a request is.
#[derive(Clone, Copy)]
pub(crate) enum Match<'t> {
    /// This one.
    Found(&'t RoutePath),
    /// None: this route has its path, but its method is another one, or is not known.
    OtherMethod(&'t RoutePath),
    /// None: no route has its path.
    Nothing,
}

impl<'t> Match<'t> {
    /// The call whose path it has.
    pub(crate) fn path(self) -> Option<&'t RoutePath> {
        match self {
            Match::Found(path) | Match::OtherMethod(path) => Some(path),
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

impl RouteTable {
    /// The table of these dialects, in the order in which they are asked. `fallback` comes last, and answers what no dialect
    /// claims.
    pub(crate) fn new(
        dialects: impl IntoIterator<Item = &'static dyn Dialect>,
        fallback: &'static dyn Dialect,
    ) -> Self {
        let mut table = Self {
            dialects: dialects.into_iter().collect(),
            fallback,
            paths: Vec::new(),
        };
        let paths = table.dialects().flat_map(|dialect| {
            let routes = dialect.routes().iter();
            routes.map(move |route| RoutePath::new(dialect, route))
        });
        table.paths = paths.collect();
        table
    }

    /// All dialects, in the order in which they are asked.
    fn dialects(&self) -> impl Iterator<Item = &'static dyn Dialect> + '_ {
        self.dialects.iter().copied().chain([self.fallback])
    }

    /// Finds the dialect of a request, and the call. A dialect that has the very call goes before those that only claim the
    /// path's first segment, so two dialects may have paths that begin alike.
    pub(crate) fn find(&self, segments: &[&str], known: &Known<'_>) -> Routing<'_> {
        let routing = |dialect, before, call| Routing {
            dialect,
            before,
            call,
        };
        if let Some((dialect, call)) = self.look_up(None, segments, known) {
            return routing(dialect, 0, call);
        }
        let first = segments.first().copied().unwrap_or_default();
        let mut all = self.dialects();
        if let Some(dialect) = all.find(|dialect| dialect.claims().contains(&first)) {
            return routing(dialect, 0, Match::Nothing);
        }
        let mut behind = self.dialects().filter_map(|dialect| {
            let before = dialect.behind(known.headers, segments)?;
            Some((dialect, before))
        });
        let Some((dialect, before)) = behind.next() else {
            return routing(self.fallback, 0, Match::Nothing);
        };
        let own = segments.get(before..).unwrap_or_default();
        let found = self.look_up(Some(dialect), own, known);
        let call = found.map_or(Match::Nothing, |(_, call)| call);
        routing(dialect, before, call)
    }

    /// The call whose path this is, of one dialect or of all, and its dialect.
    fn look_up(
        &self,
        only: Option<&dyn Dialect>,
        segments: &[&str],
        known: &Known<'_>,
    ) -> Option<(&'static dyn Dialect, Match<'_>)> {
        let takes = |path: &RoutePath| known.method.map(|method| path.route.takes(method));
        let paths = self.paths.iter().filter(|path| {
            only.is_none_or(|only| only.name() == path.dialect.name())
                && path.matches(segments)
                && path.is_at(known)
        });
        // The very method first, then the narrower host; of equals the first.
        let rank = |path: &&RoutePath| (takes(path) == Some(false), path.route.host.is_none());
        let path = paths.min_by_key(rank)?;
        let call = match takes(path) {
            Some(true) => Match::Found(path),
            _ => Match::OtherMethod(path),
        };
        Some((path.dialect, call))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::HttpResponse;

    use super::*;
    use crate::config::{AppConfig, SectionKind};
    use crate::http::dialect::Tenants;
    use crate::http::unserved::Unserved;

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
        let dialects: [&'static dyn Dialect; 2] = [&ONE, &TWO];
        let table = RouteTable::new(dialects, &REST);
        let routing = table.find(&segments, &known);
        let call = match routing.call {
            Match::Found(path) => path.route.endpoint.to_owned(),
            Match::OtherMethod(path) => format!("not {}", path.route.endpoint),
            Match::Nothing => "nothing".to_owned(),
        };
        format!("{} {} {call}", routing.dialect.name(), routing.before)
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
