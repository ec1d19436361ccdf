//! What the dialects share: a call, its body, path and query taken apart, and the headers of the rate limit.
//! Nothing of it is written to a log: queries and headers hold credentials.

use std::borrow::Cow;
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;

use crate::error::Result;
use crate::http::body::{Body, BodyError};
use crate::http::state::State;
use crate::limiter::{Endpoint, Entry};
use crate::names::UserId;
use crate::outcome::Outcome;

/// A request on its way through a dialect.
pub(crate) struct Call<'a> {
    /// The request: method, headers, raw URI.
    pub req: &'a HttpRequest,
    /// The body, not read yet.
    pub payload: &'a mut web::Payload,
    /// The raw path's segments, not decoded, from the first that is the dialect's own; neither the first nor the last is empty.
    pub segments: Vec<&'a str>,
    /// What all calls share.
    pub state: &'a State,
    /// Whose words it is answered in: the dialect's name.
    pub dialect: &'static str,
    /// Which of the segments the caller may choose, counted from 0.
    pub parameters: &'a [usize],
    /// The limit of its endpoint, if it has one.
    pub limit: Option<Endpoint>,
    /// Its endpoint, for metrics and the access log: a fixed word, never an id.
    pub endpoint: &'a Cell<&'static str>,
    /// Whose call it is, once that is known: the app's place in the configuration.
    pub app: &'a Cell<Option<usize>>,
}

impl<'a> Call<'a> {
    /// What stands in its path where its route has braces for the `n`-th time, counted from 0; not decoded.
    pub(crate) fn parameter(&self, n: usize) -> &'a str {
        let place = self.parameters.get(n);
        let segment = place.and_then(|place| self.segments.get(*place));
        segment.copied().unwrap_or_default()
    }

    /// The index of a dialect's credentials, by its type.
    pub(crate) fn tenants<T: 'static>(&self) -> Result<&'a T> {
        self.state.tenants()
    }

    /// Takes the call from the limit of its endpoint. To be asked once, when it is known which app calls.
    pub(crate) fn enter(&self, app: usize) -> Entry<'a> {
        self.state.limiter.enter(app, self.limit_name())
    }

    /// The same of a call that one of the app's users makes.
    pub(crate) fn enter_as(&self, app: usize, user: &Arc<UserId>) -> Entry<'a> {
        self.state.limiter.enter_as(app, self.limit_name(), user)
    }

    fn limit_name(&self) -> &'static str {
        self.limit.map_or("", |limit| limit.name)
    }

    /// The name of the host that is called, as it came; empty where none is given.
    pub(crate) fn host(&self) -> &'a str {
        host(self.req)
    }

    /// Says whose call it is, for metrics and the access log.
    pub(crate) fn is_of(&self, app: usize) {
        self.app.set(Some(app));
    }

    /// The first value of a header, if it is UTF-8 and not empty.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// All values of a header that are UTF-8 and not empty, in order.
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let values = self.req.headers().get_all(name);
        values
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .map(str::trim)
            .filter(|value| !value.is_empty())
    }

    /// Names and values of the query.
    pub(crate) fn query(&self) -> Query<'a> {
        Query::new(self.req.uri().query().unwrap_or_default())
    }

    /// Counts this call as one whose credentials were refused. Answers the seconds that its caller
    /// should wait, if too many from its address were: it is then to be told that, in the dialect's words for a limit.
    pub(crate) fn refused(&self) -> Option<u64> {
        self.known_refused();
        let wait = self.state.refusals.count(self.req)?;
        self.state.metrics.rate_limited("address");
        let begun = u64::from(wait.subsec_nanos() > 0);
        Some(wait.as_secs().saturating_add(begun).max(1))
    }

    /// The same of a caller who has shown that the app knows it: no attempt to guess a credential.
    pub(crate) fn known_refused(&self) {
        self.state.metrics.auth_failure(self.dialect);
    }

    /// Reads the whole body of a call of that app, of at most `limit` bytes.
    pub(crate) async fn body(&mut self, app: usize, limit: usize) -> Result<Body, BodyError> {
        let headers = self.req.headers();
        let mut encodings = headers.get_all(header::CONTENT_ENCODING);
        if encodings.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(BodyError::Encoded);
        }
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        let State {
            bodies, metrics, ..
        } = self.state;
        let body = bodies.read(self.payload, app, announced, limit).await;
        if let Err(BodyError::NoMemory) = body {
            metrics.overloaded("bodies");
        }
        body
    }
}

/// The name of the host that a request is for, as it came; empty where none is given.
pub(crate) fn host(req: &HttpRequest) -> &str {
    let header = || {
        let value = req.headers().get(header::HOST)?;
        std::str::from_utf8(value.as_bytes()).ok()
    };
    let host = req.uri().host().or_else(header);
    host.map(str::trim).unwrap_or_default()
}

/// Names and values of a query or a form, decoded; `+` is a blank there. The same as the URL Standard has it, but what needs no
/// decoding is not looked at again.
pub(crate) struct Query<'a>(std::str::Split<'a, char>);

impl<'a> Query<'a> {
    /// Takes a query as it came.
    pub(crate) fn new(raw: &'a str) -> Self {
        Self(raw.split('&'))
    }

    /// Names and values; of a value that is not UTF-8 nothing, where it would otherwise be another one.
    pub(crate) fn strict(mut self) -> impl Iterator<Item = (Cow<'a, str>, Option<Cow<'a, str>>)> {
        std::iter::from_fn(move || {
            let (name, value) = self.pair()?;
            let is_text = percent_encoding::percent_decode_str(value)
                .decode_utf8()
                .is_ok();
            Some((decode_form(name), is_text.then(|| decode_form(value))))
        })
    }

    /// The next name and value as they came.
    fn pair(&mut self) -> Option<(&'a str, &'a str)> {
        let pair = self.0.find(|pair| !pair.is_empty())?;
        Some(pair.split_once('=').unwrap_or((pair, "")))
    }
}

impl<'a> Iterator for Query<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.pair()?;
        Some((decode_form(name), decode_form(value)))
    }
}

fn decode_form(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let text = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&text).decode_utf8_lossy();
    Cow::Owned(decoded.into_owned())
}

/// Reads away a short body that nobody asked for; whether it came to its end. Without it the server closes the connection, so
/// that callers who are over their limit would come back with a new one for each call.
pub(crate) async fn discard(payload: &mut web::Payload, limit: usize) -> bool {
    const PATIENCE: Duration = Duration::from_millis(200);
    let rest = async {
        let mut bytes = 0usize;
        loop {
            match payload.next().await {
                Some(Ok(chunk)) => bytes = bytes.saturating_add(chunk.len()),
                Some(Err(_)) => return false,
                None => return true,
            }
            if bytes > limit {
                return false;
            }
        }
    };
    let mut rest = pin!(rest);
    // Nearly always nothing is left.
    match rest.as_mut().now_or_never() {
        Some(whole) => whole,
        // Whoever is slower than that pays with the connection.
        None => Box::pin(tokio::time::timeout(PATIENCE, rest))
            .await
            .unwrap_or(false),
    }
}

/// A path segment, percent-decoded; `+` stays a plus. `None`: a broken escape, or not UTF-8.
pub(crate) fn decode_segment(segment: &str) -> Option<Cow<'_, str>> {
    let mut rest = segment.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {
                rest = rest.get(at + 3..).unwrap_or_default();
            }
            _ => return None,
        }
    }
    percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .ok()
}

/// An answer with a body. Every endpoint's is made here, and ends with a line feed: after `curl` a shell's prompt then stands on
/// a line of its own.
pub(crate) fn with_body(
    status: StatusCode,
    content_type: &'static str,
    mut body: Vec<u8>,
) -> HttpResponse {
    body.push(b'\n');
    HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, HeaderValue::from_static(content_type)))
        .body(body)
}

/// A JSON answer of bytes that are JSON already.
pub(crate) fn json_bytes(status: StatusCode, body: Vec<u8>) -> HttpResponse {
    with_body(status, "application/json; charset=utf-8", body)
}

/// A JSON answer. `None` if the value can't be written, which the types that are passed here rule out.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Option<HttpResponse> {
    let body = serde_json::to_vec(value).ok()?;
    Some(json_bytes(status, body))
}

/// Puts a header on an answer; a value that no header can hold is left out.
pub(crate) fn set(response: &mut HttpResponse, name: HeaderName, value: impl TryInto<HeaderValue>) {
    if let Ok(value) = value.try_into() {
        response.headers_mut().insert(name, value);
    }
}

/// Marks an answer that tells what was done. The caller gets it even where there is no memory for answers: a caller who got a
/// refusal instead would have the same done again.
pub(crate) struct Done;

/// Notes what the call has come to. An answer that is no success needs it, since its status may hide the outcome.
pub(crate) fn came_to(response: &mut HttpResponse, outcome: Outcome) {
    response.extensions_mut().insert(outcome);
}

/// The same, and `Retry-After` where the same call may succeed in a moment.
pub(crate) fn failed_with(response: &mut HttpResponse, outcome: Outcome) {
    came_to(response, outcome);
    if matches!(outcome, Outcome::Redis | Outcome::Overloaded) {
        set(response, header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

/// Closes the connection after this answer: what is left of the body that was not read would be taken for a request.
pub(crate) fn close(response: &mut HttpResponse) {
    response
        .head_mut()
        .set_connection_type(ConnectionType::Close);
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), where a limit applies, and `Retry-After`
/// on a refusal.
pub(crate) fn show_limit(response: &mut HttpResponse, entry: &Entry<'_>) {
    const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
    const STANDING: HeaderName = HeaderName::from_static("ratelimit");
    let Some(standing) = entry.standing() else {
        return;
    };
    set(response, POLICY, standing.policy);
    set(response, STANDING, standing.rate_limit());
    if let Some(seconds) = standing.retry_after_seconds() {
        retry_after(response, seconds);
    }
}

/// `Retry-After`, in seconds.
pub(crate) fn retry_after(response: &mut HttpResponse, seconds: u64) {
    set(response, header::RETRY_AFTER, HeaderValue::from(seconds));
}

/// The clock, in whole seconds since the epoch.
pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_the_url_standard_has_it() {
        for raw in [
            "",
            "a",
            "a=",
            "=b",
            "a=b=c&&d+e=%2B%26%3d&%61=%ff&x=%zz&y=%",
            "é=ü&a=b;c=d",
        ] {
            let own: Vec<_> = Query::new(raw).collect();
            let reference: Vec<_> = form_urlencoded::parse(raw.as_bytes()).collect();
            assert_eq!(own, reference, "{raw}");
        }
    }

    #[test]
    fn segments_decode_strictly() {
        assert_eq!(decode_segment("a%2Fb%20c%40%C3%A9+").unwrap(), "a/b c@é+");
        assert_eq!(decode_segment("plain").unwrap(), "plain");
        for bad in ["%", "%2", "%zz", "%ff", "a%C3"] {
            assert_eq!(decode_segment(bad), None, "{bad}");
        }
    }
}
