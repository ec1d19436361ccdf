//! Sample data, sent through the HTTP API like anybody's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::AppConfig;

/// Sends the sample data to the pod that listens there, as a back end of this app would.
pub(crate) async fn send_sample(listen: SocketAddr, app: &AppConfig) -> Result<(), String> {
    let key = app.server_keys.first().ok_or("the app has no server key")?;
    let body = Value::Array(events()).to_string();
    let call = post_events(listen, &key.0, &body);
    let answer = tokio::time::timeout(Duration::from_secs(30), call)
        .await
        .map_err(|_| "no answer in 30 s".to_owned())?
        .map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let fine = head.split(' ').nth(1) == Some("200")
        && serde_json::from_str::<Value>(body)
            .is_ok_and(|body| body.get("rejected") == Some(&json!(0)));
    if fine {
        return Ok(());
    }
    let status = head.lines().next().unwrap_or_default();
    let body: String = body.chars().take(500).collect();
    Err(format!("{status}: {body}"))
}

/// One request on a connection of its own; a whole HTTP client would be a lot for this.
async fn post_events(listen: SocketAddr, key: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(listen).await?;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {listen}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Events that give `alice` something of everything. All ids are fixed, so sending them again changes nothing.
fn events() -> Vec<Value> {
    let mut events: Vec<Value> = [
        ("alice", "Alice"),
        ("bob", "Bob"),
        ("carol", "Carol"),
        ("dave", "Dave"),
    ]
    .into_iter()
    .map(|(user, nickname)| json!({"type": "user.updated", "user": user, "nickname": nickname}))
    .collect();
    let rooms = [
        (
            "orders",
            "group",
            "support",
            json!(["work", "orders"]),
            "Orders",
        ),
        ("family", "group", "private", json!(["home"]), "Family"),
        (
            "town-hall",
            "supergroup",
            "news",
            json!(["work"]),
            "Town hall",
        ),
        (
            "project-x",
            "group",
            "support",
            json!(["work"]),
            "Project X",
        ),
        (
            "everybody",
            "supergroup",
            "news",
            json!(["work"]),
            "Everybody",
        ),
    ];
    for (room, kind, custom_type, tags, name) in rooms {
        events.push(
            json!({"type": "room.updated", "room": room, "kind": kind, "custom_type": custom_type,
                           "tags": tags, "name": name}),
        );
    }
    for room in ["orders", "family", "town-hall"] {
        events.push(json!({"type": "member.joined", "room": room, "users": ["alice", "bob", "carol", "dave"]}));
    }
    for room in ["project-x", "everybody"] {
        events.push(json!({"type": "member.joined", "room": room, "user": "bob"}));
        events.push(json!({"type": "member.invited", "room": room, "user": "alice"}));
    }
    let direct = [
        ("bob", "alice", "Lunch?"),
        ("bob", "alice", "12:30 at the corner?"),
        ("bob", "alice", "I'll book a table"),
        ("carol", "alice", "Can you look at the report?"),
        ("alice", "dave", "Thanks for yesterday"),
    ];
    for (number, (sender, to, text)) in (1..).zip(direct) {
        events.push(json!({"type": "message.sent", "to": to, "sender": sender, "id": format!("direct-{number}"),
                           "text": text}));
    }
    let messages = [
        ("orders", "bob", "Order 1017 is late", json!([])),
        (
            "orders",
            "carol",
            "@alice can you call them?",
            json!(["alice"]),
        ),
        ("orders", "dave", "They promise tomorrow", json!([])),
        ("family", "dave", "Photos of the weekend", json!([])),
        ("family", "carol", "Lovely!", json!([])),
        ("town-hall", "bob", "@all we meet at four", json!("all")),
        ("town-hall", "carol", "Agenda follows", json!([])),
    ];
    for (number, (room, sender, text, mentions)) in (1..).zip(messages) {
        events.push(json!({"type": "message.sent", "room": room, "sender": sender, "id": format!("room-{number}"),
                           "text": text, "mentions": mentions}));
    }
    events.push(
        json!({"type": "room.read", "room": "family", "user": "alice", "up_to_id": "room-4"}),
    );
    events.push(
        json!({"type": "pref.updated", "room": "orders", "user": "alice", "sticky": true,
                       "tags": ["urgent"], "tag_colors": {"urgent": "#d33a2c"}}),
    );
    events
}
