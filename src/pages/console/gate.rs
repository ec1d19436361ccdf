//! Who may see what the console shows.
//!
//! With `admin_token` whoever has the token. It comes in a header, which a page of another origin can't send without being asked
//! for it by this one.
//!
//! Without it whoever reaches the address, which is a loopback address unless somebody has changed that. Then there is still the
//! browser of somebody who works on this machine: a page from anywhere can have its own name lead to 127.0.0.1, and its browser
//! then takes the console for a part of that page (DNS rebinding). So, without a token, the host of a request has to be an
//! address or `localhost`: names of those no stranger can make.

use std::net::{Ipv4Addr, Ipv6Addr};

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use crate::config::ServerConfig;
use crate::http::address::Refusals;
use crate::http::keys::KeyRing;
use crate::http::request;

/// What lets requests in.
pub(super) struct Gate {
    token: Option<KeyRing<()>>,
    refusals: Refusals,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It lacks the token.
    Token,
    /// It lacks the token, as too many from its address did. They should wait for so many seconds.
    TooMany(u64),
    /// Its host is a name, and there is no token.
    Host,
}

impl Gate {
    /// By the settings.
    pub(super) fn new(server: &ServerConfig) -> Self {
        let token = server.admin_token.as_ref();
        Self {
            token: token.map(|token| KeyRing::new([(token.0.as_str(), ())])),
            refusals: Refusals::new(server),
        }
    }

    /// Whether a token is set.
    pub(super) fn is_locked(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request has the token, if one is set.
    pub(super) fn has_token(&self, request: &HttpRequest) -> Result<(), Closed> {
        let Some(ring) = &self.token else {
            return Ok(());
        };
        match bearer(request).and_then(|token| ring.find(token)) {
            Some(()) => Ok(()),
            None => Err(self.refusals.count(request).map_or(Closed::Token, |wait| {
                Closed::TooMany(wait.as_secs().saturating_add(1))
            })),
        }
    }

    /// Whether a request may see names.
    pub(super) fn opens_to(&self, request: &HttpRequest) -> Result<(), Closed> {
        self.has_token(request)?;
        match self.is_locked() || is_address(request::host(request)) {
            true => Ok(()),
            false => Err(Closed::Host),
        }
    }
}

impl Closed {
    /// The answer to it.
    pub(crate) fn answer(self) -> HttpResponse {
        let (mut answer, detail) = match self {
            Closed::Token => (
                HttpResponse::Unauthorized(),
                "the admin token is needed as bearer token",
            ),
            Closed::TooMany(_) => (
                HttpResponse::TooManyRequests(),
                "too many calls from this address had no valid admin token",
            ),
            Closed::Host => (
                HttpResponse::Forbidden(),
                "without admin_token the console answers under an address only, such as http://127.0.0.1:9090, not under a name",
            ),
        };
        match self {
            Closed::Token => {
                answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            Closed::TooMany(seconds) => {
                answer.insert_header((header::RETRY_AFTER, seconds));
            }
            Closed::Host => {}
        }
        super::super::json(answer, &json!({ "detail": detail }))
    }
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a host, with or without a port, is an address or `localhost`.
fn is_address(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split(']').next().unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.split(':').next().unwrap_or_default();
    name.parse::<Ipv4Addr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn a_name_is_told_from_an_address() {
        for host in ["127.0.0.1:9090", "10.0.0.7", "[::1]:9090", "LocalHost:1"] {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[evil]:1",
            "::1",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }
}
