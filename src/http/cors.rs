//! CORS: the answer to a browser that asks whether a page may call this server (a preflight), and the headers that let a page
//! read an answer.

use std::collections::HashSet;

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};

use crate::http::request;

/// The headers of an answer that a page may read beside those that every page may.
const EXPOSED: &str = "ETag, RateLimit, RateLimit-Policy, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, \
                       X-RateLimit-Reset, X-RateLimit-RetryAfter";
/// The endpoint of preflights, in metrics.
pub(crate) const PREFLIGHT: &str = "preflight";
/// How many seconds a browser may remember the answer to a preflight.
const MAX_AGE: &str = "86400";

/// The origins whose pages may read answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    any: bool,
    named: HashSet<Box<str>>,
}

impl Origins {
    /// The origins that a setting names; `*` is every origin.
    pub(crate) fn new<'a>(origins: impl IntoIterator<Item = &'a String>) -> Self {
        let mut all = Self::default();
        for origin in origins {
            match origin.as_str() {
                "*" => all.any = true,
                origin => {
                    all.named.insert(origin.into());
                }
            }
        }
        all
    }

    /// Adds the origins of another list.
    pub(crate) fn add(&mut self, other: &Self) {
        self.any |= other.any;
        self.named.extend(other.named.iter().cloned());
    }

    /// Whether every page may read answers.
    pub(crate) fn is_any(&self) -> bool {
        self.any
    }

    /// Whether a page of this origin may read answers; `by_name`: only if the origin itself is named.
    pub(crate) fn lets(&self, origin: &str, by_name: bool) -> bool {
        self.any && !by_name || self.named.contains(&*origin.to_ascii_lowercase())
    }

    /// Tells the caller's browser whether its page may read this answer.
    pub(crate) fn tell(&self, req: &HttpRequest, response: &mut HttpResponse) {
        if self.any {
            return open(response);
        }
        // For a cache: another page gets another answer.
        let vary = HeaderValue::from_static("Origin");
        response.headers_mut().append(header::VARY, vary);
        let origin = req.headers().get(header::ORIGIN);
        let known = |origin: &&HeaderValue| {
            let text = origin.to_str().unwrap_or_default();
            self.named.contains(&*text.to_ascii_lowercase())
        };
        if let Some(origin) = origin.filter(known) {
            let exposed = HeaderValue::from_static(EXPOSED);
            request::set(
                response,
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                origin.clone(),
            );
            request::set(response, header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

impl Origins {
    /// Lets a page of an origin that is named read this answer although its browser has sent a cookie: `*` names none.
    pub(crate) fn tell_with_cookies(&self, req: &HttpRequest, response: &mut HttpResponse) {
        let origin = req.headers().get(header::ORIGIN);
        let named = |origin: &&HeaderValue| self.lets(origin.to_str().unwrap_or_default(), true);
        if let Some(origin) = origin.filter(named) {
            request::set(
                response,
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                origin.clone(),
            );
            let yes = HeaderValue::from_static("true");
            request::set(response, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }
}

/// Lets every page read this answer.
pub(crate) fn open(response: &mut HttpResponse) {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
    ] {
        request::set(response, name, HeaderValue::from_static(value));
    }
}

/// Whether a request is a preflight.
pub(crate) fn is_preflight(req: &HttpRequest) -> bool {
    let asked = header::ACCESS_CONTROL_REQUEST_METHOD;
    req.method() == Method::OPTIONS && req.headers().contains_key(asked)
}

/// The answer to a preflight. It allows the methods that the path takes (`allow`), and the one that the browser asks for: if the
/// path does not take it, the page can then read the answer that says so. It allows all headers that the browser names, or the
/// `usual` ones if it names none.
pub(crate) fn preflight(req: &HttpRequest, allow: &str, usual: &'static str) -> HttpResponse {
    let headers = req.headers();
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let asked = asked.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let mut methods = allow.to_owned();
    if let Some(asked) = asked
        && !allow.split(", ").any(|method| method == asked.as_str())
    {
        if !methods.is_empty() {
            methods.push_str(", ");
        }
        methods.push_str(asked.as_str());
    }
    let mut names = String::new();
    for list in headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        let list = list.to_str().unwrap_or_default().split(',').map(str::trim);
        for name in list.filter(|name| is_token(name)) {
            if !names.is_empty() {
                names.push_str(", ");
            }
            names.push_str(name);
        }
    }
    let mut response = HttpResponse::new(StatusCode::NO_CONTENT);
    if !allow.is_empty() {
        request::set(&mut response, header::ALLOW, allow);
    }
    request::set(&mut response, header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    match names.is_empty() {
        true => request::set(&mut response, header::ACCESS_CONTROL_ALLOW_HEADERS, usual),
        false => request::set(&mut response, header::ACCESS_CONTROL_ALLOW_HEADERS, names),
    }
    request::set(&mut response, header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

/// Whether this can be the name of a header (a token of RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn header(response: &HttpResponse, name: &str) -> Option<String> {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    }

    fn told(origins: &[&str], origin: Option<&str>) -> (Option<String>, Option<String>) {
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        let mut req = TestRequest::default();
        if let Some(origin) = origin {
            req = req.insert_header(("Origin", origin));
        }
        let mut response = HttpResponse::new(StatusCode::OK);
        Origins::new(&origins).tell(&req.to_http_request(), &mut response);
        (
            header(&response, "access-control-allow-origin"),
            header(&response, "vary"),
        )
    }

    #[test]
    fn only_named_origins_are_told_theirs_and_caches_are_told_that_it_varies() {
        let some = |text: &str| Some(text.to_owned());
        let (a, b) = ("https://a.example", "https://b.example");
        assert_eq!(told(&["*"], Some(a)), (some("*"), None));
        assert_eq!(told(&[a, "*"], Some(b)), (some("*"), None));
        assert_eq!(told(&[a, b], Some(b)), (some(b), some("Origin")));
        assert_eq!(
            told(&[a], Some("https://A.example")).0,
            some("https://A.example")
        );
        assert_eq!(told(&[a], Some(b)), (None, some("Origin")));
        assert_eq!(told(&[a], Some("https://a.example.evil")).0, None);
        assert_eq!(told(&[a], None), (None, some("Origin")));
        assert_eq!(told(&[], Some(a)), (None, some("Origin")));
    }

    #[test]
    fn a_preflight_gets_back_what_it_named_and_nothing_that_is_no_name() {
        let asked = |method: &str, names: &[&str]| {
            let mut req =
                TestRequest::default().insert_header(("Access-Control-Request-Method", method));
            for names in names {
                req = req.append_header(("Access-Control-Request-Headers", *names));
            }
            let response = preflight(&req.to_http_request(), "GET, OPTIONS", "X-Usual");
            assert_eq!(response.status(), 204);
            (
                header(&response, "access-control-allow-methods").unwrap(),
                header(&response, "access-control-allow-headers").unwrap(),
            )
        };
        let pair = |one: &str, two: &str| (one.to_owned(), two.to_owned());
        assert_eq!(asked("GET", &[]), pair("GET, OPTIONS", "X-Usual"));
        assert_eq!(
            asked("PUT", &["im-client-key,x-timezone", "traceparent"]),
            pair(
                "GET, OPTIONS, PUT",
                "im-client-key, x-timezone, traceparent"
            )
        );
        assert_eq!(
            asked("P T", &["a b, ,c:d"]),
            pair("GET, OPTIONS", "X-Usual")
        );
    }
}
