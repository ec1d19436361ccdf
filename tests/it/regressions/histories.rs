//! Short histories that once were answered otherwise than the model says: what is left of long random ones.

use serde_json::{Value, json};

use crate::support::check;
use crate::support::model::{Model, Order};
use crate::support::{App, Wait, app, assert_no_drift};

/// The users that there are.
const USERS: [&str; 3] = ["a", "b", "c"];

/// So many seconds after a moment that is five minutes ago, or before it.
fn at(seconds: i64) -> i64 {
    jiff::Timestamp::now().as_second() * 1000 - 300_000 + seconds * 1000
}

/// Sends each request, one event or several, and compares all answers with the model's. Answers the results of the last one.
async fn agrees(app: &App, requests: &[(Order, Value)]) -> Value {
    let mut results = Value::Null;
    let (mut app, mut model) = (app.clone(), Model::default());
    let users = USERS.map(str::to_owned);
    for (order, events) in requests {
        let events = match events {
            Value::Array(events) => events.clone(),
            one => vec![one.clone()],
        };
        let outcomes: Vec<_> = events
            .iter()
            .map(|event| model.apply_in(*order, event))
            .collect();
        app.by_time = *order == Order::Time;
        let reply = app.events(&json!(events), Wait::Applied).await;
        check::results(&events, &reply, &outcomes, false).unwrap();
        results = reply.body["results"].clone();
        check::many(&app, &model, &users).await.unwrap();
        for user in &users {
            check::native(&app, &model, user).await.unwrap();
        }
    }
    assert_no_drift(&app.redis_url(), &app.keys.id);
    results
}

fn room(kind: &str) -> Value {
    json!([
        {"type": "room.updated", "room": "r", "kind": kind, "time": 1_750_000_000_000_i64},
        {"type": "member.joined", "room": "r", "users": ["a", "b"]},
    ])
}

fn sent(id: &str, time: i64, mentions: Value) -> Value {
    json!({"type": "message.sent", "room": "r", "id": id, "sender": "b", "time": time, "mentions": mentions})
}

#[tokio::test]
async fn an_edit_after_which_a_user_is_still_mentioned_leaves_what_a_number_made_of_it() {
    for kind in ["group", "supergroup", "direct"] {
        for (first, then) in [(json!("all"), json!(["a"])), (json!(["a"]), json!("all"))] {
            let edits = [then.clone(), first.clone(), then];
            agrees(
                &app(),
                &numbered_then_edited(&room(kind), &first, 0, &edits),
            )
            .await;
        }
    }
}

#[tokio::test]
async fn edits_between_names_and_everybody_forget_what_a_number_made_only_for_whom_they_concern() {
    let (all, a, b, nobody) = (json!("all"), json!(["a"]), json!(["b"]), json!([]));
    let became_one = json!([
        {"type": "room.updated", "room": "r", "kind": "supergroup"},
    ]);
    for mentions in 0..3 {
        for edits in [
            [&all, &b, &all],
            [&all, &nobody, &a],
            [&a, &all, &nobody],
            [&a, &b, &all],
            [&b, &all, &a],
        ] {
            let edits = edits.map(Clone::clone);
            for first in [&all, &a, &nobody] {
                let requests = numbered_then_edited(&room("supergroup"), first, mentions, &edits);
                agrees(&app(), &requests).await;
            }
            // The room became a supergroup after the message.
            let mut requests = numbered_then_edited(&room("group"), &all, mentions, &edits);
            requests.insert(2, (Order::Arrival, became_one.clone()));
            agrees(&app(), &requests).await;
        }
    }
}

#[tokio::test]
async fn a_number_after_edits_in_a_supergroup_knows_what_the_one_before_made_of_a_mention() {
    let (all, a) = (json!("all"), json!(["a"]));
    for mentions in 0..3 {
        for next in 0..4 {
            for (first, edits) in [(&all, [&a, &all]), (&a, [&all, &a])] {
                let edits = edits.map(Clone::clone);
                let mut requests =
                    numbered_then_edited(&room("supergroup"), first, mentions, &edits[..1]);
                let number = json!({"type": "counts.set", "room": "r", "user": "a", "unread": 3, "mentions": next});
                requests.push((Order::Arrival, number));
                requests.extend(edited_to(&edits[1..]));
                agrees(&app(), &requests).await;
            }
        }
    }
}

/// A message that mentions `first`; a number by which a has 3 unread messages and so many mentions; then edits.
fn numbered_then_edited(
    room: &Value,
    first: &Value,
    mentions: u64,
    edits: &[Value],
) -> Vec<(Order, Value)> {
    let number =
        json!({"type": "counts.set", "room": "r", "user": "a", "unread": 3, "mentions": mentions});
    let mut requests = vec![
        (Order::Arrival, room.clone()),
        (Order::Arrival, sent("1", at(1), first.clone())),
        (Order::Arrival, number),
    ];
    requests.extend(edited_to(edits));
    requests
}

fn edited_to(edits: &[Value]) -> impl Iterator<Item = (Order, Value)> {
    edits.iter().map(|mentions| {
        let edit = json!({"type": "message.updated", "room": "r", "id": "1", "mentions": mentions});
        (Order::Arrival, edit)
    })
}

#[tokio::test]
async fn a_mark_is_late_after_a_clearing_that_had_nothing_to_read() {
    for kind in ["group", "supergroup", "direct"] {
        for late in [
            json!({"type": "room.unread", "room": "r", "user": "a", "from_time": 0, "time": at(9)}),
            json!({"type": "counts.set", "room": "r", "user": "a", "unread": 2, "time": at(9)}),
        ] {
            let requests = [
                (Order::Arrival, room(kind)),
                (Order::Arrival, json!({"type": "room.cleared", "room": "r"})),
                (Order::Time, late),
            ];
            agrees(&app(), &requests).await;
        }
    }
}

#[tokio::test]
async fn who_joins_by_time_is_mentioned_by_what_named_everybody_before_the_room_became_a_supergroup()
 {
    let requests = [
        (Order::Arrival, room("group")),
        (Order::Arrival, sent("1", at(20), json!("all"))),
        (
            Order::Arrival,
            json!({"type": "room.updated", "room": "r", "kind": "supergroup"}),
        ),
        (Order::Arrival, sent("2", at(21), json!("all"))),
        (
            Order::Time,
            json!({"type": "member.joined", "room": "r", "users": ["c"], "time": at(10)}),
        ),
    ];
    agrees(&app(), &requests).await;
}

#[tokio::test]
async fn what_waits_between_two_without_a_room_is_no_drift() {
    let recalled =
        json!({"type": "message.recalled", "sender": "a", "to": "b", "id": "1", "time": at(1)});
    let requests = [(Order::Arrival, room("group")), (Order::Time, recalled)];
    agrees(&app(), &requests).await;
}

#[tokio::test]
async fn a_reset_in_the_request_of_a_join_by_time_knows_what_the_join_brings_along() {
    for kind in ["group", "supergroup", "direct"] {
        let mut excepted = sent("2", at(21), json!([]));
        excepted["except"] = json!(["c"]);
        let recalled = json!({"type": "message.recalled", "room": "r", "id": "4"});
        let before = json!([
            {"type": "room.updated", "room": "r", "kind": kind, "time": 1_750_000_000_000_i64},
            {"type": "member.joined", "room": "r", "users": ["b"]},
            sent("1", at(20), json!("all")),
            excepted,
            sent("3", at(22), json!(["c"])),
            sent("4", at(23), json!(["c"])),
            recalled,
        ]);
        let of_c = |kind: &str, seconds: i64| json!({"type": kind, "room": "r", "user": "c", "time": at(seconds)});
        let mut number = of_c("counts.set", 24);
        number["unread"] = 2.into();
        let mut earlier = of_c("counts.set", 15);
        earlier["unread"] = 0.into();
        let mut mark = of_c("room.unread", 24);
        mark["from_id"] = "1".into();
        for reset in [number, earlier, mark] {
            let requests = [
                (Order::Arrival, before.clone()),
                (Order::Time, json!([of_c("member.joined", 10), reset])),
            ];
            agrees(&app(), &requests).await;
        }
    }
}

/// For a member for whom a clearing is too old, the bound of the clearing before it holds on, although it is lower.
#[tokio::test]
async fn a_clearing_that_is_too_old_for_some_leaves_them_the_bound_of_the_one_before() {
    for kind in ["group", "supergroup", "direct"] {
        let by_time = [
            sent("1", at(1), json!([])),
            json!({"type": "room.unread", "room": "r", "user": "a", "from_id": "1", "time": at(50)}),
            json!({"type": "room.cleared", "room": "r", "time": at(60)}),
            json!({"type": "message.sent", "room": "r", "id": "2", "silent": true, "time": at(90)}),
            json!({"type": "room.cleared", "room": "r", "up_to_id": "2", "time": at(40)}),
            sent("3", at(55), json!(["a"])),
            sent("4", at(70), json!([])),
            json!({"type": "counts.set", "room": "r", "user": "a", "unread": 5, "time": at(58)}),
        ];
        let mut requests = vec![(Order::Arrival, room(kind))];
        requests.extend(by_time.map(|event| (Order::Time, event)));
        agrees(&app(), &requests).await;
    }
}

/// To one of two rooms a read by peer is late, to the other one it is not: it is applied, whichever answers first.
#[tokio::test]
async fn a_read_by_peer_that_one_of_two_rooms_takes_is_applied() {
    for reset in ["r", "s"] {
        let made = ["r", "s"].map(|room| {
            json!([
                {"type": "room.updated", "room": room, "kind": "direct"},
                {"type": "member.joined", "room": room, "users": ["a", "b"]},
                {"type": "message.sent", "room": room, "id": "1", "sender": "b", "time": at(1)},
            ])
        });
        let number =
            json!({"type": "counts.set", "room": reset, "user": "a", "unread": 1, "time": at(50)});
        let read = json!({"type": "room.read", "peer": "b", "user": "a", "time": at(40)});
        let [one, other] = made;
        let requests = [
            (Order::Arrival, one),
            (Order::Arrival, other),
            (Order::Time, number),
            (Order::Time, read),
        ];
        let results = agrees(&app(), &requests).await;
        assert_eq!(results[0]["status"], "applied", "{reset}");
    }
}

/// Ids may hold what base64 ends with.
#[tokio::test]
async fn an_edit_mentions_users_whose_ids_hold_an_equals_sign() {
    let app = app();
    for kind in ["group", "supergroup"] {
        let users = ["=bo", "bo", "Ym8=", "Ym8=="];
        let made = json!([
            {"type": "room.updated", "room": "r", "kind": kind},
            {"type": "member.joined", "room": "r", "users": users},
            {"type": "message.sent", "room": "r", "id": kind, "sender": "a"},
            {"type": "message.updated", "room": "r", "id": kind, "mentions": ["=bo", "Ym8="]},
        ]);
        let reply = app.events(&made, Wait::Applied).await;
        assert_eq!(reply.body["applied"], 4, "{:?}", reply.body);
        let replies = app.unread_many(&users).await;
        for (user, mentions) in users.into_iter().zip([1, 0, 1, 0]) {
            let found = &replies.body["users"][user]["mentions"]["total"];
            assert_eq!(*found, mentions, "{kind} {user}");
        }
        let ended = json!({"type": "room.deleted", "room": "r"});
        assert_eq!(app.events(&ended, Wait::Applied).await.status, 200);
    }
}
