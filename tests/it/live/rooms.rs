//! Streams with `include=rooms`: rows that have changed, and rooms that are gone.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{group, message};
use crate::support::stream::{Events, Known};
use crate::support::{App, app};

/// Reads until what the stream has said is what is read, rows and all.
async fn agrees(stream: &mut Events, known: &mut Known, app: &App, user: &str) {
    loop {
        let read = app.unread(user, true).await.ok();
        let rows: BTreeMap<String, Value> = (read["rooms"].as_array().unwrap().iter())
            .map(|row| (row["room"].as_str().unwrap().to_owned(), row.clone()))
            .collect();
        let told = known.users.get(user);
        if told.is_some_and(|told| told["stamp"] == read["stamp"]) {
            assert_eq!(known.rooms[user], rows);
            return;
        }
        known.take(&stream.counts().await);
    }
}

#[tokio::test]
async fn rows_come_when_they_change_and_are_told_when_they_are_gone() {
    let app = app();
    for room in ["one", "two", "three"] {
        app.must(&group(room, &["alice", "bob"])).await;
    }
    let mut stream = app.watch("?users=alice&include=rooms").await;
    let first = stream.counts().await;
    assert_eq!(first["rooms"].as_array().unwrap().len(), 3);
    assert!(first.get("gone").is_none() && first.get("more").is_none());
    let mut known = Known::default();
    known.take(&first);
    agrees(&mut stream, &mut known, &app, "alice").await;

    app.must(&message("two", "bob", "1")).await;
    let counts = stream.counts().await;
    assert_eq!(counts["rooms"].as_array().unwrap().len(), 1, "{counts}");
    assert_eq!(counts["rooms"][0]["messages"], 1);
    known.take(&counts);

    app.must(&json!({"type": "member.left", "room": "one", "users": ["alice"]}))
        .await;
    let counts = stream.counts().await;
    assert_eq!(
        (&counts["rooms"], &counts["gone"]),
        (&json!([]), &json!(["one"]))
    );
    known.take(&counts);
    app.must(&json!({"type": "pref.updated", "room": "three", "user": "alice", "muted": true}))
        .await;
    let counts = stream.counts().await;
    assert_eq!(counts["rooms"][0]["muted"], true);
    known.take(&counts);
    agrees(&mut stream, &mut known, &app, "alice").await;
    // A stream that begins with that stamp has nothing to say until something changes.
    let stamp = known.users["alice"]["stamp"].as_str().unwrap();
    let mut again = app
        .watch(&format!("?users=alice&include=rooms&stamp={stamp}"))
        .await;
    app.must(&message("three", "bob", "1")).await;
    assert_eq!(again.counts().await["rooms"][0]["room"], "three");
}

#[tokio::test]
async fn many_rows_come_in_parts_of_32_kib() {
    let app = app();
    let mut events = Vec::new();
    for n in 0..600 {
        let room = format!("{n:03}{}", "ä\"".repeat(60));
        events.extend(group(&room, &["alice"]).as_array().unwrap().clone());
    }
    app.must(&json!(events)).await;
    let mut stream = app.watch("?users=alice&include=rooms").await;
    let mut known = Known::default();
    let mut parts = 0;
    loop {
        let event = stream.next().await.unwrap();
        assert!(event.data.to_string().len() < 32 << 10);
        known.take(&event.data);
        parts += 1;
        assert_eq!(event.id.is_none(), event.data["more"] == true);
        if event.data.get("more").is_none() {
            break;
        }
    }
    assert!(parts > 5, "{parts}");
    agrees(&mut stream, &mut known, &app, "alice").await;
    assert_eq!(known.rooms["alice"].len(), 600);
}
