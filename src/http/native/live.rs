//! `/v1/live`: streams of counts as they change, over Server-Sent Events and WebSocket. Every message has absolute counts, so one
//! that is lost or comes twice does no harm.
//!
//! - `entry`: who asks, and for whom.
//! - `body`: the stream: what is sent next is made when the connection takes it.
//! - `frames`: the messages, in the form of either protocol.
//! - `socket`: what a client says over WebSocket.

mod body;
mod entry;
mod frames;
mod socket;

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, Version};
use actix_web::{FromRequest as _, HttpResponse, dev, web};
use futures_util::FutureExt as _;

use self::body::{LiveBody, Setting};
use self::entry::{Asked, Caller};
use self::frames::{Protocol, Reason};
use self::socket::Socket;
use super::Problem;
use crate::engine::{NoStream, TooMany};
use crate::error::Error;
use crate::http::request::{Call, set};

/// The one subprotocol. A token never is one: it would stand in logs.
const SUBPROTOCOL: &str = "unread.live";
/// The client for pages.
const SCRIPT: &str = include_str!("live/live.js");

/// `GET /v1/live` and `POST /v1/live`.
pub(super) async fn live(call: &mut Call<'_>) -> Result<HttpResponse, Problem> {
    let upgrade = is_upgrade(call);
    if call.req.version() < Version::HTTP_11 {
        return Err(Problem::bad("a stream needs HTTP/1.1"));
    }
    let caller = entry::caller(call, upgrade)?;
    if upgrade {
        actix_http::ws::verify_handshake(call.req.head())
            .map_err(|error| Problem::bad(format!("no WebSocket: {error}")))?;
        if call.header("transfer-encoding").is_some()
            || call
                .header("content-length")
                .is_some_and(|length| length != "0")
        {
            return Err(Problem::bad("no WebSocket: the request has a body"));
        }
    } else if !takes_events(call) {
        let detail = "a stream is text/event-stream or a WebSocket";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, detail));
    }
    let asked = entry::asked(call, &caller, upgrade).await?;
    if call.req.method() == Method::HEAD {
        return Ok(events_answer(()));
    }
    let protocol = match upgrade {
        true => Protocol::Socket,
        false => Protocol::Events,
    };
    let settings = &call.state.config.live;
    let setting = Setting {
        protocol,
        rooms: asked.rooms,
        beat: Duration::from_millis(settings.beat_ms),
        lifetime: Duration::from_secs(settings.max_seconds),
        metrics: std::sync::Arc::clone(&call.state.metrics),
    };
    let body = match begin(call, &caller, asked, setting.clone()) {
        Ok(body) => body,
        Err(reason) => {
            // Clients come again at once after a WebSocket that was closed. After a 503 they wait, each time for longer.
            if upgrade && let Some(why) = reason.refuses_sockets() {
                call.state.metrics.live_ended(reason.word());
                let seconds = reason.retry(true).div_ceil(1_000);
                return Err(Problem::later(why, seconds));
            }
            // Any other status than 200 would make an EventSource give up for good, and none tells a page of a WebSocket that
            // its token has expired.
            LiveBody::ended(setting, reason)
        }
    };
    match upgrade {
        true => socket_answer(call, &caller, body),
        false => Ok(events_answer(body)),
    }
}

/// Whether a call is one for a stream, by its path.
pub(super) fn is_stream(call: &Call<'_>) -> bool {
    matches!(call.segments.as_slice(), ["v1", "live"])
}

/// `GET /v1/live.js`.
pub(super) async fn script(_: &Call<'_>) -> Result<HttpResponse, Problem> {
    let mut response = HttpResponse::Ok()
        .content_type("text/javascript; charset=utf-8")
        .body(SCRIPT);
    let caching = HeaderValue::from_static("public, max-age=3600");
    set(&mut response, header::CACHE_CONTROL, caching);
    Ok(response)
}

/// Begins a stream, unless there is a reason against it.
fn begin(
    call: &Call<'_>,
    caller: &Caller,
    asked: Asked,
    setting: Setting,
) -> Result<LiveBody, Reason> {
    let Caller::Known { index, until, user } = caller else {
        return Err(Reason::Expired);
    };
    let app = call.state.config.apps.get(*index);
    let app = app.ok_or(Reason::Full)?;
    let watcher = call
        .state
        .live
        .open(&app.id, user.is_some())
        .map_err(|why| match why {
            NoStream::Full => Reason::Full,
            NoStream::Draining => Reason::Draining,
        })?;
    let mut body = LiveBody::new(setting, watcher, *until);
    body.has_one_user = asked.is_single;
    for (user, stamp) in asked.users {
        body.watch(&user, stamp).map_err(|TooMany| Reason::Full)?;
    }
    Ok(body)
}

fn is_upgrade(call: &Call<'_>) -> bool {
    let mut protocols = call.headers("upgrade").flat_map(|list| list.split(','));
    protocols.any(|one| one.trim().eq_ignore_ascii_case("websocket"))
}

/// Whether the caller takes Server-Sent Events.
fn takes_events(call: &Call<'_>) -> bool {
    let mut accepted = call.headers("accept").peekable();
    accepted.peek().is_none()
        || accepted.any(|list| {
            list.split(',').any(|one| {
                let one = one.split(';').next().unwrap_or_default().trim();
                one.eq_ignore_ascii_case("text/event-stream") || one == "*/*" || one == "text/*"
            })
        })
}

fn events_answer(body: impl MessageBody + 'static) -> HttpResponse {
    let mut response = HttpResponse::Ok()
        .content_type("text/event-stream")
        .body(body);
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store, no-transform"),
        // For nginx, which would otherwise gather what a stream says.
        (HeaderName::from_static("x-accel-buffering"), "no"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        set(&mut response, name, HeaderValue::from_static(value));
    }
    response
}

fn socket_answer(
    call: &mut Call<'_>,
    caller: &Caller,
    mut body: LiveBody,
) -> Result<HttpResponse, Problem> {
    let missing = || Error::Internal("a request without a body".into());
    let nothing = web::Payload::from_request(call.req, &mut dev::Payload::None);
    let nothing = nothing.now_or_never().and_then(Result::ok);
    let payload = std::mem::replace(call.payload, nothing.ok_or_else(missing)?);
    body.listen(Socket::new(payload, caller, call)?);
    let key = call.header("sec-websocket-key").unwrap_or_default();
    let key = HeaderValue::from_bytes(&actix_http::ws::hash_key(key.as_bytes()));
    let mut response = HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS)
        .upgrade("websocket")
        .body(body);
    if let Ok(key) = key {
        set(&mut response, header::SEC_WEBSOCKET_ACCEPT, key);
    }
    let mut offered = call.headers("sec-websocket-protocol");
    if offered.any(|list| list.split(',').any(|one| one.trim() == SUBPROTOCOL)) {
        let echo = HeaderValue::from_static(SUBPROTOCOL);
        set(&mut response, header::SEC_WEBSOCKET_PROTOCOL, echo);
    }
    Ok(response)
}
