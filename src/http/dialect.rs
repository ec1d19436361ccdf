//! What the rest of the program knows of a dialect: its calls as a table, its section of the configuration, its words for what
//! goes wrong. [`super::table`] finds out which dialect a request is for.

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

impl Route {
    /// Whether it is the one for such a method.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        *method == self.method || (method == Method::HEAD && self.method == Method::GET)
    }
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
    /// What `unread token` calls it.
    pub name: &'static str,
    /// What `unread token --help` says of it.
    pub about: &'static str,
    /// The flag for whom it names, without the dashes.
    pub flag: &'static str,
    /// What the help says of the flag.
    pub help: &'static str,
    /// Makes a token of `app` that names `named` and is valid for `ttl` seconds from `now`.
    pub make: fn(app: &AppConfig, named: &str, now: u64, ttl: u64) -> Result<String, NoToken>,
}

/// Why there is no token.
pub(crate) enum NoToken {
    /// The app's configuration does not have this.
    Missing(&'static str),
    /// What the flag says can't be named in one.
    Bad(String),
    /// It can't be signed.
    Unsigned,
}
