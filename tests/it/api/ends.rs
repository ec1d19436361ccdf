//! Every answer ends with a line feed, so that a shell's prompt stands on a line of its own after `curl`. That the answers of all
//! other tests do is asserted where they are read; here are those that no client of the tests asks for.

use serde_json::json;

use crate::support::{Own, raw};

/// Asks on a connection of its own.
fn asked(address: &str, request: &str) -> (String, String) {
    let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = raw(address, request.as_bytes()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    (head.to_ascii_lowercase(), body.to_owned())
}

#[track_caller]
fn ends(what: &str, head: &str, body: &str) {
    assert!(
        body.ends_with('\n') && !body.ends_with("\n\n"),
        "{what}: {head}\n\n{body:?}"
    );
    let length = format!("\r\ncontent-length: {}", body.len());
    assert!(head.contains(&length), "{what}: {head}\n\n{body:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_ends_with_a_line_feed() {
    let (app, pod, _redis) = Own::start("").parts();
    app.must(&json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": "1"}))
        .await;
    app.unread("alice", true).await.ok();
    app.imkit_badges::<&str>("alice", None).await.ok();
    app.imkit_rooms("alice", &[]).await.ok();
    app.tencent_total("alice").await.ok();
    app.sendbird("alice", None, None).await.ok();

    let public = pod.address();
    let long = "x".repeat(100_000);
    for path in [
        "/v1/events",
        "/v1/unread",
        "/rooms",
        "/badges/byRoomTags",
        "/nowhere",
        "/",
    ]
    .into_iter()
    .chain(["/v4/openim/get_c2c_unread_msg_num", "/v4/nowhere"])
    .chain(["/v3/users/alice/unread_item_count", "/v3/nowhere"])
    {
        for request in [
            format!("GET {path} HTTP/1.1"),
            format!("POST {path} HTTP/1.1\r\nContent-Length: 0"),
            format!("DELETE {path} HTTP/1.1"),
            // These are answered before any handler.
            format!("GET {path} HTTP/1.1\r\nbad header"),
            format!("GET {path}?{long} HTTP/1.1"),
            format!("POST {path} HTTP/1.1\r\nContent-Length: 99999999999"),
        ] {
            let (head, body) = asked(public, &request);
            ends(&request[..request.len().min(80)], &head, &body);
        }
        // What would come, without it.
        let head_of = |(head, _): (String, String)| {
            let length = head.split("content-length: ").nth(1).map(str::to_owned);
            length.and_then(|rest| rest.lines().next().map(str::to_owned))
        };
        let (head, body) = asked(public, &format!("HEAD {path} HTTP/1.1"));
        assert_eq!(body, "", "{head}");
        assert!(
            head_of((head, body)).is_some_and(|length| length != "0"),
            "{path}"
        );
    }
    for path in ["/livez", "/readyz", "/metrics", "/", "/nowhere"] {
        for method in ["GET", "POST"] {
            let request = format!("{method} {path} HTTP/1.1\r\nContent-Length: 0");
            let (head, body) = asked(&pod.admin, &request);
            ends(&request, &head, &body);
        }
    }
}
