//! Each field of each event: what it takes, and what is said of what it does not take.

use serde_json::{Map, Value, json};

use super::{at, total};
use crate::api::{fields, problem};
use crate::support::{Wait, app};

/// What a field takes, and so what it does not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Id,
    CustomType,
    Ids,
    Tags,
    Mentions,
    Text,

    Flag,
    Integer,
    Time,
    /// A time that may be 0.
    Bound,
    Kind,
    Status,
    Colors,
    /// A list of users of which a bad name costs nothing.
    Except,
    Position,
    Count,
    Object,
}

impl Takes {
    fn not(self) -> Vec<Value> {
        let long = "x".repeat(256);
        let cjk = "未".repeat(86);
        let id = [
            json!(""),
            json!("a\u{0}b"),
            json!("\u{7f}"),
            json!("a\nb"),
            json!("\u{85}"),
            json!(long),
            json!(cjk),
        ];
        let mut wrong = vec![json!({}), json!({"a": 1})];
        match self {
            Self::Id => wrong.extend(id),
            Self::CustomType => {
                wrong.extend(id);
                wrong.push(json!("a,b"));
            }
            Self::Ids | Self::Tags => {
                wrong.extend(id.iter().map(|id| json!(["fine", id])));
                wrong.extend([json!("fine"), json!([1]), json!([null]), json!([["fine"]])]);
                match self {
                    Self::Ids => wrong.push(json!([])),
                    _ => wrong.push((0..101).map(|n| n.to_string()).collect()),
                }
            }
            // One bad name in a list of them costs nothing (`input`).
            Self::Mentions => wrong.extend([json!("fine"), json!("All"), json!("")]),
            Self::Except => wrong.extend([json!("fine"), json!("all"), json!("")]),
            Self::Position => wrong.extend([json!(0), json!(-1), json!("1"), json!(1.5)]),
            Self::Count => wrong.extend([json!("All"), json!("muted"), json!("")]),
            Self::Object => {
                wrong = vec![json!("{}"), json!([]), json!({"a": "x".repeat(1_024)})];
            }
            Self::Text => {}
            Self::Flag => wrong.extend([json!("true"), json!("")]),
            Self::Integer => wrong.extend([json!("1"), json!(1.5), json!(1e300)]),
            Self::Time | Self::Bound => wrong.extend([
                json!(1_795_670_799),
                json!("1973-03-03T09:46:39Z"),
                json!("yesterday"),
                json!(""),
                json!("2024-01-01"),
                json!("2024-13-01T00:00:00Z"),
                json!(-1),
                json!(1.5),
                json!(1e300),
                json!(u64::MAX),
                json!("1969-12-31T23:59:59Z"),
            ]),
            Self::Kind => wrong.extend([json!("Group"), json!("super"), json!("")]),
            Self::Status => wrong.extend([json!(2), json!(-1), json!("1"), json!(0.5)]),
            Self::Colors => wrong.extend([
                json!("red"),
                json!([["a", "b"]]),
                json!({"a": null}),
                json!({"a": {}}),
            ]),
        }
        if self == Self::Time {
            wrong.extend([json!(0), json!("1970-01-01T00:00:00Z")]);
        }
        if self == Self::Colors {
            wrong.remove(0);
        } else if !matches!(self, Self::Mentions | Self::Except) {
            wrong.push(json!([{}]));
        }
        if !matches!(self, Self::Flag | Self::Status) {
            wrong.push(json!(true));
        }
        if !matches!(
            self,
            Self::Integer | Self::Time | Self::Bound | Self::Status | Self::Position
        ) {
            wrong.push(json!(1));
        }
        wrong
    }
}

/// Every type, what makes it a whole event, and its fields.
fn every_event() -> Vec<(Value, Vec<(&'static str, Takes)>)> {
    use Takes::*;
    vec![
        (
            json!({"type": "user.updated", "user": "x"}),
            vec![
                ("user", Id),
                ("nickname", Text),
                ("avatar_url", Text),
                ("is_robot", Flag),
                ("last_login_time", Bound),
            ],
        ),
        (
            json!({"type": "user.deleted", "user": "x"}),
            vec![("user", Id)],
        ),
        (
            json!({"type": "room.updated", "room": "x"}),
            vec![
                ("room", Id),
                ("kind", Kind),
                ("custom_type", CustomType),
                ("tags", Tags),
                ("name", Text),
                ("cover", Text),
                ("description", Text),
                ("webhook", Text),
                ("bot_state", Text),
                ("bot_mode", Flag),
                ("encrypted", Flag),
                ("service_status", Integer),
                ("status", Status),
            ],
        ),
        (
            json!({"type": "room.deleted", "room": "x"}),
            vec![("room", Id)],
        ),
        (
            json!({"type": "member.joined", "room": "r", "users": ["x"]}),
            vec![("room", Id), ("users", Ids)],
        ),
        (
            json!({"type": "member.joined", "room": "r", "user": "x"}),
            vec![("user", Id)],
        ),
        (
            json!({"type": "member.invited", "room": "r", "users": ["x"]}),
            vec![("room", Id), ("users", Ids)],
        ),
        (
            json!({"type": "member.left", "room": "r", "users": ["x"]}),
            vec![("room", Id), ("users", Ids)],
        ),
        (
            json!({"type": "message.sent", "room": "r", "id": "x"}),
            vec![
                ("room", Id),
                ("id", Id),
                ("sender", Id),
                ("text", Text),
                ("message_type", Id),
                ("mentions", Mentions),
                ("except", Except),
                ("silent", Flag),
                ("mark_read", Flag),
            ],
        ),
        (
            json!({"type": "message.sent", "to": "x", "sender": "y", "id": "x"}),
            vec![("to", Id), ("sender", Id)],
        ),
        (
            json!({"type": "message.updated", "room": "r", "id": "x"}),
            vec![
                ("room", Id),
                ("id", Id),
                ("text", Text),
                ("message_type", Id),
                ("mentions", Mentions),
            ],
        ),
        (
            json!({"type": "message.recalled", "room": "r", "id": "x"}),
            vec![("room", Id), ("id", Id)],
        ),
        (
            json!({"type": "message.recalled", "to": "x", "sender": "y", "id": "x"}),
            vec![("to", Id), ("sender", Id)],
        ),
        (
            json!({"type": "room.read", "room": "r", "user": "u"}),
            vec![
                ("room", Id),
                ("user", Id),
                ("up_to_id", Id),
                ("up_to_time", Bound),
                ("up_to_position", Position),
            ],
        ),
        (
            json!({"type": "room.read", "peer": "x", "user": "u"}),
            vec![("peer", Id)],
        ),
        (
            json!({"type": "room.cleared", "room": "r"}),
            vec![
                ("room", Id),
                ("up_to_id", Id),
                ("up_to_time", Bound),
                ("up_to_position", Position),
            ],
        ),
        (
            json!({"type": "user.read_all", "user": "u"}),
            vec![("user", Id)],
        ),
        (
            json!({"type": "pref.updated", "room": "r", "user": "u"}),
            vec![
                ("room", Id),
                ("user", Id),
                ("tags", Tags),
                ("tag_colors", Colors),
                ("hidden", Flag),
                ("sticky", Flag),
                ("muted", Flag),
                ("folder", Text),
                ("count", Count),
                ("extra", Object),
            ],
        ),
    ]
}

/// The event with one field replaced.
fn with(event: &Value, field: &str, value: Value) -> Value {
    let mut event = event.clone();
    event[field] = value;
    event
}

#[tokio::test]
async fn a_wrong_field_is_named_and_stops_nothing_else() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "user": "u"},
    ]))
    .await;

    // Pairs of a wrong event and the field to be named.
    let mut wrong: Vec<(Value, &str)> = Vec::new();
    let every = every_event();
    for (event, fields) in &every {
        let required = event.as_object().unwrap().keys();
        for (field, takes) in fields {
            wrong.extend(
                takes
                    .not()
                    .into_iter()
                    .map(|value| (with(event, field, value), *field)),
            );
        }
        for field in required.filter(|field| *field != "type") {
            let mut without = event.clone();
            without.as_object_mut().unwrap().remove(field);
            // Where another field could have stood for it the message may name either.
            let named = match field.as_str() {
                "user" if event["type"] == "member.joined" => "users",
                "to" | "peer" => "room",
                other => other,
            };
            wrong.push((without, named));
        }
        wrong.extend(
            Takes::Time
                .not()
                .into_iter()
                .map(|time| (with(event, "time", time), "time")),
        );
        wrong.push((with(event, "colour", json!(1)), "colour"));
        wrong.push((with(event, "Type", json!("x")), "Type"));
    }
    for (event, field) in [
        (json!({}), "type"),
        (json!({"type": 1}), "type"),
        (json!({"type": null, "user": "x"}), "type"),
        (json!({"type": "", "user": "x"}), "type"),
        (json!({"type": "user.created", "user": "x"}), "type"),
        (json!({"type": "USER.UPDATED", "user": "x"}), "type"),
        (json!("user.updated"), "event"),
        (json!(null), "event"),
        (json!([]), "event"),
        (
            json!({"type": "member.joined", "room": "r", "user": "x", "users": ["x"]}),
            "user",
        ),
        (
            json!({"type": "message.sent", "room": "r", "to": "x", "sender": "y", "id": "1"}),
            "to",
        ),
        (
            json!({"type": "message.sent", "to": "x", "id": "1"}),
            "sender",
        ),
        (
            json!({"type": "room.read", "room": "r", "peer": "x", "user": "u"}),
            "peer",
        ),
        (
            json!({"type": "room.read", "room": "r", "user": "u", "up_to_id": "1", "up_to_time": 1}),
            "up_to_time",
        ),
        (
            json!({"type": "room.read", "room": "r", "user": "u", "up_to_id": "1", "up_to_position": 1}),
            "up_to_position",
        ),
        (
            json!({"type": "room.read", "room": "r", "user": "u", "up_to_time": 0, "up_to_position": 1}),
            "up_to_position",
        ),
        (
            json!({"type": "message.recalled", "room": "r", "to": "x", "sender": "y", "id": "1"}),
            "to",
        ),
        (
            json!({"type": "message.recalled", "to": "x", "id": "1"}),
            "sender",
        ),
    ] {
        wrong.push((event, field));
    }

    // A good message after each.
    let events: Value = wrong
        .iter()
        .enumerate()
        .flat_map(|(n, (event, _))| {
            [
                event.clone(),
                json!({"type": "message.sent", "room": "r", "id": format!("good-{n}")}),
            ]
        })
        .collect();
    let reply = app.events(&events, Wait::Applied).await.ok();
    let results = reply["results"].as_array().unwrap();
    assert_eq!(results.len(), 2 * wrong.len());
    for (n, ((event, field), pair)) in wrong.iter().zip(results.chunks(2)).enumerate() {
        let [refused, good] = pair else {
            unreachable!()
        };
        assert_eq!(fields(refused), ["error", "status"], "{event}: {refused}");
        assert_eq!(refused["status"], "rejected", "{event}: {refused}");
        assert_eq!(refused["error"]["code"], "invalid", "{event}: {refused}");
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with(&format!("{field}: ")),
            "{event}: {refused}"
        );
        assert_eq!(*good, at("applied", n as u64 + 1));
    }
    assert_eq!(reply["rejected"], json!(wrong.len()));
    assert_eq!(reply["applied"], json!(wrong.len()));
    assert_eq!(total(&app, "u").await, json!(wrong.len()));
    for stranger in ["x", "y", "fine"] {
        problem(&app.unread(stranger, false).await, 404);
    }
}

#[tokio::test]
async fn every_field_takes_what_it_should() {
    let app = app();
    let long = "x".repeat(255);
    app.must(&json!([
        {"type": "user.updated", "user": long, "nickname": "", "avatar_url": null, "is_robot": false,
         "last_login_time": "2024-02-29T23:59:59.999+05:30",
         "time": 100_000_000_000_u64},
        {"type": "room.updated", "room": long, "kind": "supergroup", "custom_type": long, "tags": [], "name": null,
         "cover": null, "description": null, "webhook": null, "bot_state": null, "bot_mode": true, "encrypted": true,
         "service_status": -3, "status": 0, "time": 1_700_000_000_000_u64},
        {"type": "room.updated", "room": long, "custom_type": null, "status": 1,
         "tags": (0..100).map(|n| format!("{n:0255}")).collect::<Value>()},
        {"type": "room.updated", "room": "g"},
        {"type": "room.updated", "room": "g", "kind": "supergroup"},
        {"type": "room.updated", "room": "g", "kind": "supergroup"},
        {"type": "member.invited", "room": long, "users": [long, "b", long]},
        {"type": "member.joined", "room": long, "user": long, "time": "1973-03-03T09:46:40Z"},
        {"type": "message.sent", "room": long, "id": long, "text": "", "message_type": long, "mentions": [],
         "silent": false, "mark_read": false},
        {"type": "message.sent", "room": long, "id": "2", "mentions": "all", "text": "a\u{0}\n\u{1}b"},
        {"type": "message.sent", "room": long, "id": "3", "mentions": [long, long, "nobody"]},
        {"type": "room.read", "room": long, "user": long, "up_to_time": 0},
        {"type": "pref.updated", "room": long, "user": long, "tags": ["a", "a"], "tag_colors": {"a": "", "": "b"},
         "hidden": true, "sticky": false, "muted": true, "folder": null},
    ]))
    .await;
    let counts = app.unread(&long, true).await.ok();
    assert_eq!(
        counts["messages"],
        json!({"total": 3, "direct": 0, "group": 0, "supergroup": 3})
    );
    assert_eq!(counts["mentions"]["supergroup"], 2);
    assert_eq!(counts["tags"].as_object().map(Map::len), Some(100));
}
