//! Times: both forms, their bounds, and what is no time.

use reqwest::Method;
use serde_json::json;

use super::written;
use crate::api::problem;
use crate::support::{App, app};

/// The first millisecond that an event's time may be: ten to the eleventh.
const FIRST: &str = "1973-03-03T09:46:40Z";

#[tokio::test]
async fn both_forms_of_a_time_are_taken_between_the_same_bounds() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "users": ["a", "b"]},
    ]))
    .await;
    let event = json!({"type": "room.updated", "room": "r"});
    let read = json!({"type": "room.read", "room": "r", "user": "a"});
    let seen = json!({"type": "user.updated", "user": "a"});
    // One instant as a number and as a text, and what becomes of it.
    for (number, text, taken) in [
        ("99999999999", "1973-03-03T09:46:39.999Z", false),
        ("100000000000", FIRST, true),
        ("1700000000000", "2023-11-14T22:13:20Z", true),
        ("253402214400000", "9999-12-31T00:00:00Z", true),
        ("253402300799999", "9999-12-31T23:59:59.999Z", true),
        ("253402300800000", "9999-12-31T23:59:59.999-00:01", false),
        ("1", "1970-01-01T00:00:00.001Z", false),
        ("-1", "1969-12-31T23:59:59.999Z", false),
        ("-62167219200000", "0000-01-01T00:00:00Z", false),
    ] {
        for value in [number.to_owned(), format!("\"{text}\"")] {
            for (event, field) in [
                (&event, "time"),
                (&read, "up_to_time"),
                (&seen, "last_login_time"),
            ] {
                let result = written(&app, event, field, &value).await;
                let expected = if taken { "applied" } else { "rejected" };
                assert_eq!(result["status"], expected, "{field} {value}: {result}");
                if !taken {
                    let error = &result["error"];
                    assert_eq!(error["code"], "invalid", "{field} {value}");
                    let message = error["message"].as_str().unwrap_or_default();
                    assert!(message.starts_with(&format!("{field}: ")), "{message}");
                }
            }
        }
    }
    // Nought is a bound, and a login that never was, but no time at which anything happened.
    for value in ["0", "\"1970-01-01T00:00:00Z\""] {
        for (event, field, expected) in [
            (&event, "time", "rejected"),
            (&read, "up_to_time", "applied"),
            (&seen, "last_login_time", "applied"),
        ] {
            let result = written(&app, event, field, value).await;
            assert_eq!(result["status"], expected, "{field} {value}: {result}");
        }
    }
}

#[tokio::test]
async fn seconds_where_milliseconds_belong_are_refused_by_name() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "users": ["a", "b"]},
        {"type": "message.sent", "room": "r", "id": "1", "sender": "b"},
    ]))
    .await;
    for (event, field) in [
        (
            json!({"type": "message.sent", "room": "r", "id": "2"}),
            "time",
        ),
        (
            json!({"type": "room.read", "room": "r", "user": "a"}),
            "up_to_time",
        ),
        (
            json!({"type": "user.updated", "user": "a"}),
            "last_login_time",
        ),
    ] {
        let result = written(&app, &event, field, "1795670799").await;
        let expected =
            format!("{field}: is before 1973-03-03: these are seconds, where milliseconds belong");
        assert_eq!(
            result,
            json!({"status": "rejected", "error": {"code": "invalid", "message": expected}})
        );
    }
    // Neither was the message taken nor anything read.
    assert_eq!(app.unread("a", false).await.ok()["messages"]["total"], 1);
}

#[tokio::test]
async fn odd_numbers_and_odd_dates_are_no_times() {
    let app = app();
    app.must(&json!({"type": "room.updated", "room": "r"}))
        .await;
    let event = json!({"type": "room.updated", "room": "r"});
    for good in [
        "1700000000000",
        r#""2023-11-14t22:13:20z""#,
        r#""2023-11-14 22:13:20Z""#,
        r#""2023-11-14T22:13:20.123456789+23:59""#,
        r#""2023-11-14T22:13:20-23:59""#,
        r#""2024-02-29T00:00:00-00:00""#,
        r#""2016-12-31T23:59:60Z""#,
        r#""2023-11-14T22:13:20\u005a""#,
    ] {
        let result = written(&app, &event, "time", good).await;
        assert_eq!(result["status"], "applied", "{good}: {result}");
    }
    for bad in [
        "1.7e12",
        "1700000000000.0",
        "17e11",
        "1e400",
        "-0",
        "-1700000000000",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "true",
        "[]",
        "{}",
        r#""""#,
        r#"" ""#,
        r#""1700000000000""#,
        r#""2023-11-14""#,
        r#""2023-11-14T22:13:20""#,
        r#""2023-11-14T24:00:00Z""#,
        r#""2023-11-14T22:60:00Z""#,
        r#""2023-11-14T22:13:61Z""#,
        r#""2023-02-29T00:00:00Z""#,
        r#""2023-13-01T00:00:00Z""#,
        r#""2023-11-14T22:13:20+26:00""#,
        r#""2023-11-14T22:13:20+01:60""#,
        r#""2023-11-14T22:13:20 Z""#,
        r#"" 2023-11-14T22:13:20Z""#,
        r#""10000-01-01T00:00:00Z""#,
        r#""+010000-01-01T00:00:00Z""#,
        r#""22:13:20Z""#,
        r#""now""#,
    ] {
        let result = written(&app, &event, "time", bad).await;
        assert_eq!(result["error"]["code"], "invalid", "{bad}: {result}");
        let message = result["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("time: "), "{bad}: {message}");
    }
    // What JSON has no numbers for is no JSON.
    for broken in [
        "01700000000000",
        "+1700000000000",
        ".5",
        "NaN",
        "0x10",
        "1e",
    ] {
        let body = format!(r#"{{"type":"room.updated","room":"r","time":{broken}}}"#);
        let request = app.native(Method::POST, "/v1/events").body(body);
        problem(&App::send(request).await, 400);
    }
}
