//! The one access line of each request, and the id that it is known by.

use std::time::Instant;

use actix_web::body::{BodySize, MessageBody as _};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

use super::metrics::{InFlight, Metrics, method_name};
use crate::outcome::Outcome;

/// The header of a request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request that is being worked on. It is counted and timed, and gets its access line at the end.
pub(crate) struct Access<'a> {
    req: &'a HttpRequest,
    metrics: &'a Metrics,
    started: Instant,
    _in_flight: InFlight,
}

impl<'a> Access<'a> {
    /// A request has come.
    pub(crate) fn begin(req: &'a HttpRequest, metrics: &'a Metrics) -> Self {
        Self {
            req,
            metrics,
            started: Instant::now(),
            _in_flight: metrics.in_flight(),
        }
    }

    /// It has its answer, which gets the request's id. `route` is a fixed word, never an id.
    pub(crate) fn end(self, route: &'static str, outcome: Outcome, response: &mut HttpResponse) {
        let method = self.req.method().as_str();
        let status = response.status().as_u16();
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics.http(route, method, status, seconds);
        let request_id = request_id(self.req);
        tracing::info!(
            request_id = request_id.to_str().unwrap_or_default(),
            method = method_name(method),
            route,
            status,
            outcome = outcome.word(),
            duration_ms = (seconds * 1e6).round() / 1e3,
            bytes = match response.body().size() {
                BodySize::Sized(bytes) => Some(bytes),
                BodySize::None => Some(0),
                BodySize::Stream => None,
            },
            "request"
        );
        response.headers_mut().insert(REQUEST_ID, request_id);
    }
}

/// The caller's own request id if it can't break a log line, else a new one.
fn request_id(req: &HttpRequest) -> HeaderValue {
    let given = req.headers().get(REQUEST_ID).filter(|value| {
        (1..=64).contains(&value.len())
            && value
                .as_bytes()
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    });
    given.cloned().unwrap_or_else(new_request_id)
}

/// An id for a request that brought none.
pub(crate) fn new_request_id() -> HeaderValue {
    let random = rand::random::<u64>();
    let mut id = [0; 16];
    for (at, place) in id.iter_mut().enumerate() {
        let digit = (random >> (4 * at)) & 15;
        *place = char::from_digit(digit as u32, 16).map_or(b'0', |digit| digit as u8);
    }
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn a_request_id_is_kept_only_if_it_is_plain() {
        let given = |id: &str| {
            let req = TestRequest::default()
                .insert_header((REQUEST_ID, id))
                .to_http_request();
            request_id(&req).to_str().unwrap().to_owned()
        };
        assert_eq!(given("Abc-123"), "Abc-123");
        let longest = "x".repeat(64);
        assert_eq!(given(&longest), longest);
        for bad in ["", "a b", "a\"b", "a_b", &"x".repeat(65)] {
            let id = given(bad);
            assert_ne!(id, bad);
            assert_eq!(id.len(), 16);
        }
        let fresh = |()| request_id(&TestRequest::default().to_http_request());
        assert_ne!(fresh(()), fresh(()));
    }
}
