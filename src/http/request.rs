//! What the dialects share: a call, its body, path and query taken apart, and the headers of the rate limit.
//! Nothing of it is written to a log: queries and headers hold credentials.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::http::State;
use crate::limiter::Entry;

/// A request on its way through a dialect.
pub struct Call<'a> {
    /// The request: method, headers, raw URI.
    pub req: &'a HttpRequest,
    /// The body, not read yet.
    pub payload: &'a mut web::Payload,
    /// The raw path's segments, not decoded; none of the leading ones is empty.
    pub segments: Vec<&'a str>,
    /// What all calls share.
    pub state: &'a State,
    /// Which route it is, for metrics and the access log: a fixed word, never an id.
    pub name: &'a Cell<&'static str>,
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Longer than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// Not whole before the deadline.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The connection or the framing broke.
    #[error("the body could not be read")]
    Broken,
    /// Compressed or otherwise encoded: a small one could fill the memory.
    #[error("the body must not be encoded")]
    Encoded,
}

impl<'a> Call<'a> {
    /// Names the route for metrics and the access log.
    pub fn route(&self, name: &'static str) {
        self.name.set(name);
    }

    /// The first value of a header, if it is UTF-8 and not empty.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// All values of a header that are UTF-8 and not empty, in order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let values = self.req.headers().get_all(name);
        values
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .map(str::trim)
            .filter(|value| !value.is_empty())
    }

    /// Names and values of the query.
    pub fn query(&self) -> Query<'a> {
        Query::new(self.req.uri().query().unwrap_or_default())
    }

    /// Counts this call as one whose credentials were refused, under the dialect's name. Answers the seconds that its caller
    /// should wait, if too many from its address were: it is then to be told that, in the dialect's words for a limit.
    pub fn refused(&self, dialect: &'static str) -> Option<u64> {
        self.state.metrics.auth_failure(dialect);
        let wait = self.state.refusals.count(self.req)?;
        self.state.metrics.rate_limited("address");
        let begun = u64::from(wait.subsec_nanos() > 0);
        Some(wait.as_secs().saturating_add(begun).max(1))
    }

    /// Reads the whole body, of at most `limit` bytes, within the configured time.
    pub async fn body(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        let headers = self.req.headers();
        let mut encodings = headers.get_all(header::CONTENT_ENCODING);
        if encodings.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(BodyError::Encoded);
        }
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > limit as u64) {
            return Err(BodyError::TooLarge);
        }
        let mut body = pin!(collect(self.payload, limit));
        // A body that came with its head is handed out once this has waited, and then needs no timer.
        let mut waited = false;
        let there = poll_fn(|context| match body.as_mut().poll(context) {
            Poll::Ready(body) => Poll::Ready(Some(body)),
            Poll::Pending if waited => Poll::Ready(None),
            Poll::Pending => {
                waited = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        });
        if let Some(body) = there.await {
            return body;
        }
        let deadline = Duration::from_millis(self.state.config.server.body_timeout_ms);
        // Boxed, or every call would carry the timer's place with it.
        let body = Box::pin(tokio::time::timeout(deadline, body)).await;
        body.unwrap_or(Err(BodyError::TimedOut))
    }
}

/// Names and values of a query or a form, decoded; `+` is a blank there. The same as the URL Standard has it, but what needs no
/// decoding is not looked at again.
pub struct Query<'a>(std::str::Split<'a, char>);

impl<'a> Query<'a> {
    /// Takes a query as it came.
    pub fn new(raw: &'a str) -> Self {
        Self(raw.split('&'))
    }
}

impl<'a> Iterator for Query<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        let pair = self.0.find(|pair| !pair.is_empty())?;
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
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

async fn collect(payload: &mut web::Payload, limit: usize) -> Result<Bytes, BodyError> {
    let Some(first) = payload.next().await else {
        return Ok(Bytes::new());
    };
    let first = first.map_err(|_| BodyError::Broken)?;
    if first.len() > limit {
        return Err(BodyError::TooLarge);
    }
    // Most bodies come in one piece, which then needs no copy.
    let Some(mut chunk) = payload.next().await else {
        return Ok(first);
    };
    let mut whole = BytesMut::from(first);
    loop {
        let bytes = chunk.map_err(|_| BodyError::Broken)?;
        if whole.len().saturating_add(bytes.len()) > limit {
            return Err(BodyError::TooLarge);
        }
        whole.extend_from_slice(&bytes);
        match payload.next().await {
            Some(next) => chunk = next,
            None => return Ok(whole.freeze()),
        }
    }
}

/// Reads away a short body that nobody asked for. Without it the server closes the connection, so that callers who are over
/// their limit would come back with a new one for each call.
pub async fn discard(payload: &mut web::Payload, limit: usize) {
    const PATIENCE: Duration = Duration::from_millis(200);
    let rest = async {
        let mut bytes = 0usize;
        while let Some(Ok(chunk)) = payload.next().await {
            bytes = bytes.saturating_add(chunk.len());
            if bytes > limit {
                break;
            }
        }
    };
    let mut rest = pin!(rest);
    // Nearly always nothing is left.
    if rest.as_mut().now_or_never().is_none() {
        // Whoever is slower than that pays with the connection.
        let _ = Box::pin(tokio::time::timeout(PATIENCE, rest)).await;
    }
}

/// A path segment, percent-decoded; `+` stays a plus. `None`: a broken escape, or not UTF-8.
pub fn decode_segment(segment: &str) -> Option<Cow<'_, str>> {
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

/// What a field of a body holds, where texts or lists of texts are expected. Texts are borrowed where nothing in them is
/// escaped.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Field<'a> {
    /// Nothing, or `null`.
    #[default]
    Null,
    /// A text.
    Text(Cow<'a, str>),
    /// A list, of whatever.
    List(Vec<Field<'a>>),
    /// Anything else.
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Field::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Field::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}

/// A JSON answer of bytes that are JSON already.
pub fn json_bytes(status: StatusCode, body: Vec<u8>) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        ))
        .body(body)
}

/// A JSON answer. `None` if the value can't be written, which the types that are passed here rule out.
pub fn json(status: StatusCode, value: &impl Serialize) -> Option<HttpResponse> {
    let body = serde_json::to_vec(value).ok()?;
    Some(json_bytes(status, body))
}

/// Puts a header on an answer; a value that no header can hold is left out.
pub fn set(response: &mut HttpResponse, name: HeaderName, value: impl TryInto<HeaderValue>) {
    if let Ok(value) = value.try_into() {
        response.headers_mut().insert(name, value);
    }
}

/// Closes the connection after this answer: what is left of the body that was not read would be taken for a request.
pub fn close(response: &mut HttpResponse) {
    response
        .head_mut()
        .set_connection_type(ConnectionType::Close);
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), where a limit applies, and `Retry-After`
/// on a refusal.
pub fn show_limit(response: &mut HttpResponse, entry: &Entry<'_>) {
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
pub fn retry_after(response: &mut HttpResponse, seconds: u64) {
    set(response, header::RETRY_AFTER, HeaderValue::from(seconds));
}

/// The clock, in whole seconds since the epoch.
pub fn unix_seconds() -> u64 {
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
    fn fields_hold_texts_and_lists_of_them_and_tell_what_else_is_there() {
        let read = serde_json::from_str::<Field<'_>>;
        let text = |text: &str| Field::Text(text.to_owned().into());
        assert_eq!(read("null").unwrap(), Field::Null);
        assert!(
            matches!(read(r#""a\u00e9""#).unwrap(), Field::Text(Cow::Owned(t)) if t == "a\u{e9}")
        );
        assert!(matches!(
            read(r#""a""#).unwrap(),
            Field::Text(Cow::Borrowed("a"))
        ));
        let list = vec![
            text("a"),
            Field::Null,
            Field::Other,
            Field::List(Vec::new()),
        ];
        let found = read(r#"["a", null, {"a": ["b"], "c": {}}, []]"#).unwrap();
        assert_eq!(found, Field::List(list));
        for other in ["true", "1", "-1", "1.5", "{}"] {
            assert_eq!(read(other).unwrap(), Field::Other, "{other}");
        }
        let deep = "[".repeat(1_000) + &"]".repeat(1_000);
        for bad in ["", "[", "[1", r#"{"a"}"#, "1e999", r#""\ud800""#, &deep] {
            assert!(read(bad).is_err(), "{bad}");
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
