//! What every endpoint says to bad input, and while Redis is away.
//!
//! Here are the envelopes of the dialects, checked field by field; the modules below make the calls.

use serde_json::{Value, json};

use crate::support::Reply;

/// `POST /v1/events`: bodies, wrong fields, limits, every rejection code.
mod events;

/// What is no request, and bodies that break.
mod envelopes;

/// What callers send in good faith and not quite right.
mod input;

/// The native reads.
mod reads;

/// What a room is, who is in it, and how far they have read.
mod rooms;

/// The calls of users' own devices.
mod users;

/// Ids that Redis, a glob, a URL or a list could misread, through all events and back through all endpoints.
mod names;

/// IMKIT's two endpoints.
mod imkit;

/// Tencent's endpoint, and the vendor's own signatures.
mod tencent;

/// Sendbird's endpoint.
mod sendbird;

/// Two apps with the same ids.
mod tenants;

/// Redis is gone for a while.
mod outage;

/// What the log must not show.
mod privacy;

/// What every answer ends with.
mod ends;

/// The names of an object's fields, sorted.
fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names
}

#[track_caller]
fn is_json(reply: &Reply) {
    let found = reply.header("content-type").unwrap_or_default();
    assert_eq!(
        found.split(';').next(),
        Some("application/json"),
        "{reply:?}"
    );
}

/// An error of the native API: RFC 9457.
#[track_caller]
fn problem(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{reply:?}"
    );
    assert_eq!(reply.body["status"], json!(status), "{reply:?}");
    assert_eq!(
        fields(&reply.body),
        ["detail", "status", "title", "type"],
        "{reply:?}"
    );
    for text in ["detail", "title", "type"] {
        let text = reply.body[text].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{reply:?}");
    }
    let challenge = reply.header("www-authenticate");
    assert_eq!(challenge.is_some(), status == 401, "{reply:?}");
}

#[track_caller]
fn imkit_error(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    is_json(reply);
    assert_eq!(fields(&reply.body), ["RC", "RM", "error"], "{reply:?}");
    assert_eq!(reply.body["RC"], json!(status), "{reply:?}");
    assert!(
        reply.body["RM"].as_str().is_some_and(|rm| !rm.is_empty()),
        "{reply:?}"
    );
    let error = &reply.body["error"];
    assert_eq!(fields(error), ["code", "message"], "{reply:?}");
    assert_eq!(error["code"], code, "{reply:?}");
    assert!(error["message"].is_string(), "{reply:?}");
    // A browser that may not read the answer would show a network failure.
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("*"),
        "{reply:?}"
    );
}

#[track_caller]
fn tencent_error(reply: &Reply, code: u32) {
    assert_eq!(reply.status, 200, "{reply:?}");
    is_json(reply);
    assert_eq!(
        fields(&reply.body),
        ["ActionStatus", "ErrorCode", "ErrorInfo"],
        "{reply:?}"
    );
    assert_eq!(reply.body["ActionStatus"], "FAIL", "{reply:?}");
    assert_eq!(reply.body["ErrorCode"], json!(code), "{reply:?}");
    let info = reply.body["ErrorInfo"].as_str().unwrap_or_default();
    assert!(!info.is_empty(), "{reply:?}");
}

#[track_caller]
fn sendbird_error(reply: &Reply, status: u16, code: u32) {
    assert_eq!(reply.status, status, "{reply:?}");
    is_json(reply);
    assert_eq!(
        fields(&reply.body),
        ["code", "error", "message"],
        "{reply:?}"
    );
    assert_eq!(reply.body["error"], json!(true), "{reply:?}");
    assert_eq!(reply.body["code"], json!(code), "{reply:?}");
    assert!(reply.body["message"].is_string(), "{reply:?}");
}
