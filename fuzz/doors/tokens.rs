//! For the fuzz target `tokens`: users' tokens, and the headers that hold credentials.
#![allow(missing_docs)]

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use actix_web::dev::Payload;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::test::TestRequest;
use actix_web::{FromRequest, web};

use crate::config::{Flags, load_text};
use crate::engine::Engine;
use crate::http::request::Call;
use crate::http::{State, imkit, jwt, native, sendbird};
use crate::telemetry::metrics::Metrics;

const SERVER_KEY: &str = "server-key-not-real";
const CLIENT_KEY: &str = "client-key-not-real";
const API_TOKEN: &str = "api-token-not-real";
const MASTER_TOKEN: &str = "master-token-not-real";

/// The state of a pod without a Redis: nothing listens at that address, and no call is made.
static STATE: LazyLock<State> = LazyLock::new(|| {
    let config = format!(
        r#"
        [redis]
        url = "redis://127.0.0.1:1"
        [[apps]]
        id = "demo"
        server_keys = ["{SERVER_KEY}"]
        [apps.users]
        token_secret = ["user-secret-not-real"]
        [apps.imkit]
        client_keys = ["{CLIENT_KEY}"]
        jwt_secret = "imkit-test-secret-not-real"
        [apps.sendbird]
        application_id = "demo"
        master_token = "{MASTER_TOKEN}"
        api_tokens = ["{API_TOKEN}"]
        "#
    );
    let config = Arc::new(load_text(&config, &Flags::default(), &crate::http::sections()).unwrap());
    let metrics = Arc::new(Metrics::new());
    let engine = Engine::observe(&config, Arc::clone(&metrics)).unwrap();
    crate::http::state(config, engine, metrics)
});

/// Each line is a header, as in a request.
fn headers(data: &[u8]) {
    let mut request = TestRequest::default();
    let mut values = Vec::new();
    for line in data.split(|byte| *byte == b'\n').take(16) {
        let end = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(end.unwrap_or(0));
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.get(1..).unwrap_or_default()),
        ) else {
            continue;
        };
        values.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
        request = request.append_header((name, value));
    }
    let request = request.to_http_request();
    let payload = web::Payload::from_request(&request, &mut Payload::None);
    let mut payload = payload.into_inner().unwrap();
    let call = Call {
        req: &request,
        payload: &mut payload,
        segments: vec!["v1", "me", "unread"],
        state: &STATE,
        dialect: "",
        parameters: &[],
        limit: None,
        endpoint: &Cell::new(""),
        app: &Cell::new(None),
    };
    let is_there = |secret: &str| values.iter().any(|value| value.contains(secret));
    assert!(!native::fuzzing::lets_in(&call) || is_there(SERVER_KEY));
    assert!(!sendbird::fuzzing::lets_in(&call) || is_there(API_TOKEN) || is_there(MASTER_TOKEN));
    // A client key is not enough, but a fuzzer can't sign a token that is good today.
    assert!(!imkit::fuzzing::lets_in(&call) || is_there(CLIENT_KEY));
    assert!(!native::fuzzing::lets_user_in(&call));
}

/// The first byte says whether the others are headers.
pub fn check(data: &[u8]) {
    match data.split_first() {
        Some((3, rest)) => headers(rest),
        _ => jwt::fuzzing::check(data),
    }
}
