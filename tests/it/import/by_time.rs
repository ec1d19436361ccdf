//! `--order time`: a feed whose neighbours have changed places comes to what the feed in order comes to.

use serde_json::{Value, json};

use super::{Scene, lines};
use crate::support::assert_no_drift;

/// A feed of months ago, ten seconds from event to event.
fn feed() -> Vec<Value> {
    let sent = |id: &str| json!({"type": "message.sent", "room": "r", "sender": "bob", "id": id});
    let mut mention = sent("3");
    mention["mentions"] = json!(["alice"]);
    let mut events = vec![
        json!({"type": "room.updated", "room": "r"}),
        json!({"type": "member.joined", "room": "r", "users": ["alice", "bob"]}),
        sent("1"),
        sent("2"),
        json!({"type": "room.read", "room": "r", "user": "alice"}),
        mention,
        sent("4"),
        json!({"type": "message.recalled", "room": "r", "id": "4"}),
        sent("5"),
        json!({"type": "member.joined", "room": "r", "user": "carol"}),
        sent("6"),
    ];
    for (n, event) in (0_u64..).zip(&mut events) {
        event["time"] = json!(1_770_000_000_000 + 10_000 * n);
    }
    events
}

/// What alice and carol have unread, and how many mentions.
async fn counts(scene: &Scene) -> Vec<[Value; 2]> {
    let mut found = Vec::new();
    for user in ["alice", "carol"] {
        let unread = scene.unread(user).await;
        found.push([&unread["messages"]["total"], &unread["mentions"]["total"]].map(Value::clone));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_of_a_feed_may_change_places() {
    let right = [[json!(3), json!(1)], [json!(1), json!(0)]];
    let mut swapped = feed();
    // The read and its message, the message and its recall, the join and the message after it.
    for at in [3, 6, 9] {
        swapped.swap(at, at + 1);
    }
    let by_time = ["--order", "time", "--json"];
    for (events, order, agrees) in [
        (feed(), &by_time[..], true),
        (swapped.clone(), &by_time, true),
        (feed(), &["--json"], true),
        // Otherwise the test would say nothing.
        (swapped.clone(), &["--json"], false),
    ] {
        let scene = Scene::new();
        let said = scene.import(&lines(&events), order);
        assert_eq!(said.code, i32::from(!agrees), "{order:?}: {}", said.stderr);
        assert_eq!(counts(&scene).await == right, agrees, "{order:?}");
        if agrees {
            assert_eq!(said.json()["applied"], events.len());
            // The same lines again change nothing.
            let again = scene.import(&lines(&events), order);
            assert_eq!(again.code, 0, "{}", again.stderr);
            assert_eq!(again.json()["duplicates"], events.len(), "{}", again.stdout);
            assert_eq!(counts(&scene).await, right, "{order:?}");
        }
        assert_no_drift(&scene.redis.url(), "app-0");
    }
}

#[tokio::test]
async fn a_line_by_time_needs_a_time_and_costs_no_other_line() {
    let scene = Scene::new();
    let mut events = feed();
    events[5].as_object_mut().unwrap().remove("time");
    let said = scene.import(&lines(&events), &["--order", "time"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stdout.contains("line 6: invalid: time"),
        "{}",
        said.stdout
    );
    assert_eq!(counts(&scene).await[0], [json!(2), json!(0)]);
}
