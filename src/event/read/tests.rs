use super::super::{Change, Mentions, Message, RoomOrPeer};
use super::*;
use crate::names::{RoomId, UserId};
use serde_json::{Value, json};

/// What reading costs.
mod memory;

/// Bodies and events as nobody means to send them, at random.
mod spoilt;

fn parse(value: &Value) -> Result<Event, Invalid> {
    line(&value.to_string())
}

fn line(text: &str) -> Result<Event, Invalid> {
    read_line(text.as_bytes()).unwrap()
}

fn field_of(value: Value) -> String {
    parse(&value).unwrap_err().field.unwrap().into_owned()
}

fn json(body: &str) -> Result<Batch, BodyFault> {
    read_all(body.as_bytes(), BodyForm::Json, 10)
}

fn position(line: usize, column: usize) -> LineColumn {
    LineColumn {
        line: Some(line),
        column,
    }
}

#[test]
fn the_field_that_is_wrong_is_named() {
    assert_eq!(field_of(json!(5)), "event");
    assert_eq!(field_of(json!({})), "type");
    assert_eq!(field_of(json!({"type": "nope"})), "type");
    assert_eq!(field_of(json!({"type": "room.deleted"})), "room");
    assert_eq!(
        field_of(json!({"type": "room.deleted", "room": "r", "extra": 1})),
        "extra"
    );
    assert_eq!(
        field_of(json!({"type": "room.deleted", "room": "r", "time": "x"})),
        "time"
    );
    assert_eq!(
        field_of(json!({"type": "room.deleted", "room": "x".repeat(256)})),
        "room"
    );
    assert_eq!(
        field_of(json!({"type": "member.joined", "room": "r", "users": []})),
        "users"
    );
    assert_eq!(
        field_of(json!({"type": "message.sent", "to": "b", "id": "1"})),
        "sender"
    );
    assert_eq!(
        field_of(json!({"type": "message.sent", "room": "r", "id": "1", "mentions": "some"})),
        "mentions"
    );
    assert_eq!(
        field_of(json!({"type": "room.updated", "room": "r", "custom_type": "a,b"})),
        "custom_type"
    );
    assert_eq!(
        field_of(json!({"type": "room.updated", "room": "r", "status": 2})),
        "status"
    );
    // One that other events have, also if it holds nothing.
    assert_eq!(
        field_of(json!({"type": "room.deleted", "room": "r", "text": null})),
        "text"
    );
}

#[test]
fn a_field_that_the_event_does_not_have_is_named_before_one_that_is_missing() {
    for (event, field) in [
        (
            json!({"type": "message.sent", "room": "r", "Id": "q"}),
            "Id",
        ),
        (
            json!({"type": "room.read", "room": "r", "users": ["u"]}),
            "users",
        ),
        (
            json!({"type": "room.unread", "room": "r", "user": "u", "up_to_id": "1"}),
            "up_to_id",
        ),
        (
            json!({"type": "message.recalled", "sender": "a", "peer": "b", "id": "1"}),
            "peer",
        ),
        (
            json!({"type": "room.deleted", "room": 7, "user": "u", "time": "x"}),
            "user",
        ),
        (
            json!({"events": [{"type": "room.deleted", "room": "r"}]}),
            "events",
        ),
        (json!({"Type": "room.deleted", "room": "r"}), "Type"),
    ] {
        let said = parse(&event).unwrap_err().to_string();
        assert_eq!(said, format!("{field}: is not a field of this event"));
    }
}

#[test]
fn what_can_stand_in_the_place_of_a_missing_field_is_named() {
    for (event, said) in [
        (
            json!({"type": "message.sent", "id": "1"}),
            "room: is missing; sender and to can stand in its place",
        ),
        (
            json!({"type": "message.recalled", "id": "1"}),
            "room: is missing; sender and to can stand in its place",
        ),
        (
            json!({"type": "room.read", "user": "u"}),
            "room: is missing; peer can stand in its place",
        ),
        (
            json!({"type": "member.left", "room": "r"}),
            "users: is missing; user can stand in its place",
        ),
    ] {
        assert_eq!(parse(&event).unwrap_err().to_string(), said);
    }
}

#[test]
fn of_a_type_that_is_not_known_those_near_it_are_named() {
    let long = format!("message.{}", "x".repeat(1 << 20));
    for (name, said) in [
        ("message.send", "; near it: message.sent"),
        ("Message.Sent", "; near it: message.sent"),
        (
            "message_sent",
            "; near it: message.sent, message.updated, message.recalled",
        ),
        ("member.join", "; near it: member.joined"),
        ("user.read", "; near it: user.read_all"),
        ("ping", "; docs/events.md lists them"),
        ("", "; docs/events.md lists them"),
        (
            &long,
            "; near it: message.sent, message.updated, message.recalled",
        ),
    ] {
        let invalid = parse(&json!({"type": name, "room": "r"})).unwrap_err();
        assert_eq!(
            invalid.to_string(),
            format!("type: is not a known event type{said}")
        );
    }
}

#[test]
fn of_one_event_a_line_that_is_sent_as_json_the_content_type_is_told() {
    const HINT: &str = ": for one event a line send Content-Type: application/x-ndjson";
    for (body, at) in [
        ("{}\n{}\n", "line 2, column 1"),
        ("{\"a\":1}\r\n\r\n{\"a\":", "line 3, column 1"),
    ] {
        let fault = json(body).unwrap_err().to_string();
        assert_eq!(fault, format!("the body is not JSON: {at}{HINT}"));
    }
    for body in ["{} 1", "{\n{}}", "[]{}", "{}]", "{}\n[]"] {
        let fault = json(body).unwrap_err().to_string();
        assert!(!fault.contains("ndjson"), "{body}: {fault}");
    }
}

#[test]
fn times_are_milliseconds_or_rfc_3339() {
    for time in [
        json!(1_700_000_000_000_i64),
        json!("2023-11-14T22:13:20Z"),
        json!("2023-11-14T23:13:20+01:00"),
    ] {
        let event = parse(&json!({"type": "room.deleted", "room": "r", "time": time})).unwrap();
        assert_eq!(event.time, Some(1_700_000_000_000));
    }
}

#[test]
fn what_is_kept_whole_is_refused_by_name_where_it_is_too_long() {
    let user =
        |field: &str, value: Value| json!({"type": "user.updated", "user": "u", field: value});
    let room =
        |field: &str, value: Value| json!({"type": "room.updated", "room": "r", field: value});
    let pref = |field: &str, value: Value| json!({"type": "pref.updated", "room": "r", "user": "u", field: value});
    let long = |bytes: usize| json!("é".repeat(bytes / 2) + &"x".repeat(bytes % 2));
    for (event, field, most) in [
        (&user as &dyn Fn(&str, Value) -> Value, "nickname", 1024),
        (&user, "avatar_url", 4096),
        (&room, "name", 1024),
        (&room, "bot_state", 1024),
        (&room, "cover", 4096),
        (&room, "description", 4096),
        (&room, "webhook", 4096),
        (&pref, "folder", 1024),
    ] {
        parse(&event(field, long(most))).unwrap();
        assert_eq!(field_of(event(field, long(most + 1))), field);
    }
    for (tag, color) in [(255, 256), (256, 255)] {
        let colors = |tag, color| json!({"x".repeat(tag): "x".repeat(color)});
        parse(&pref("tag_colors", colors(255, 255))).unwrap();
        assert_eq!(
            field_of(pref("tag_colors", colors(tag, color))),
            "tag_colors"
        );
    }
    // A message's text is cut where it is kept.
    let text = json!({"type": "message.sent", "room": "r", "id": "1", "text": "x".repeat(1 << 20)});
    parse(&text).unwrap();
}

#[test]
fn a_payload_is_a_json_object_of_4_kib_as_it_is_kept() {
    let payload = |payload: &str| {
        let event = format!(r#"{{"type":"message.sent","room":"r","id":"1","payload":{payload}}}"#);
        line(&event).map(|event| match event.change {
            Change::Message(message) => message.payload,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(payload("null").unwrap(), None);
    assert_eq!(payload("{}").unwrap().as_deref(), Some("{}"));
    assert_eq!(
        payload(r#" { "a" : 1, "b":[ "\u00e9" ], "a" : {"c": null} } "#)
            .unwrap()
            .as_deref(),
        Some(r#"{"a":{"c":null},"b":["é"]}"#)
    );
    let of = |bytes: usize| format!(r#"{{"k":"{}"}}"#, "x".repeat(bytes - 8));
    payload(&of(4096)).unwrap();
    // Escapes and blanks count as they are kept.
    payload(&format!(r#"{{"k":   "{}"}}"#, r"\u0041".repeat(4088))).unwrap();
    let deep = format!(r#"{{"k":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    payload(&deep).unwrap();
    for bad in [
        of(4097),
        of(9 << 20),
        "[]".to_owned(),
        "\"{}\"".to_owned(),
        "7".to_owned(),
        r#"{"k":"\ud83d"}"#.to_owned(),
        r#"{"k":1e999}"#.to_owned(),
    ] {
        let invalid = payload(&bad).unwrap_err();
        assert_eq!(invalid.field.as_deref(), Some("payload"));
    }
}

#[test]
fn what_is_left_out_of_mentions_is_noted_short_and_clean() {
    let note = |item: &str| {
        let text =
            format!(r#"{{"type":"message.sent","room":"r","id":"1","mentions":["a",{item}]}}"#);
        let event = line(&text).unwrap();
        let Change::Message(Message { mentions, .. }) = event.change else {
            panic!("no message");
        };
        assert_eq!(mentions, Mentions::Users(vec![UserId::parse("a").unwrap()]));
        let notes: Vec<&str> = event.notes.iter().collect();
        let [note] = notes.try_into().unwrap();
        let note = note.strip_prefix("mentions: ").unwrap().to_owned();
        note.split_once(" is left out: ").unwrap().0.to_owned()
    };
    let long = |unit: &str, n: usize| format!("\"{}\"", unit.repeat(n));
    for (item, shown) in [
        (r#""""#.to_owned(), r#""""#.to_owned()),
        (long("x", 256), format!("\"{}…\"", "x".repeat(32))),
        (
            long("\u{1f600}", 64),
            format!("\"{}…\"", "\u{1f600}".repeat(32)),
        ),
        (
            long("\\ud83d\\ude00", 64),
            format!("\"{}…\"", "\u{1f600}".repeat(32)),
        ),
        (long("\\u0000", 3), "\"\"".to_owned()),
        (
            long("\\ud83d", 40),
            format!("\"{}…\"", "\u{fffd}".repeat(32)),
        ),
        (long("\\n\\\"\u{7f}", 2), r#""""""#.to_owned()),
        (long("\\x", 2), "\"\u{fffd}\u{fffd}\"".to_owned()),
        ("null".to_owned(), "null".to_owned()),
        ("-1.5e3".to_owned(), "-1.5e3".to_owned()),
        (
            format!("[{}]", "[],".repeat(99) + "1"),
            format!("[{}…", "[],".repeat(10) + "["),
        ),
    ] {
        assert_eq!(note(&item), shown, "{item}");
    }
}

#[test]
fn null_is_a_field_left_out() {
    let event = |nulls: &[&str], rest: Value| {
        let mut event = rest;
        for field in nulls {
            event[*field] = Value::Null;
        }
        format!("{:?}", parse(&event).unwrap())
    };
    for (nulls, rest) in [
        (
            &[
                "nickname",
                "avatar_url",
                "is_robot",
                "last_login_time",
                "time",
            ][..],
            json!({"type": "user.updated", "user": "u"}),
        ),
        (
            &[
                "kind",
                "custom_type",
                "tags",
                "status",
                "name",
                "cover",
                "description",
                "webhook",
                "bot_state",
                "bot_mode",
                "encrypted",
                "service_status",
            ],
            json!({"type": "room.updated", "room": "r"}),
        ),
        (
            &["user"],
            json!({"type": "member.joined", "room": "r", "users": ["u"]}),
        ),
        (
            &["users"],
            json!({"type": "member.left", "room": "r", "user": "u"}),
        ),
        (
            &[
                "to",
                "sender",
                "text",
                "mentions",
                "message_type",
                "payload",
                "except",
                "silent",
                "mark_read",
            ],
            json!({"type": "message.sent", "room": "r", "id": "1"}),
        ),
        (
            &["room"],
            json!({"type": "message.sent", "to": "a", "sender": "b", "id": "1"}),
        ),
        (
            &["peer", "up_to_id", "up_to_time", "up_to_position"],
            json!({"type": "room.read", "room": "r", "user": "u"}),
        ),
        (
            &["up_to_id", "up_to_time", "up_to_position"],
            json!({"type": "room.cleared", "room": "r"}),
        ),
        (
            &[
                "tags",
                "tag_colors",
                "hidden",
                "sticky",
                "muted",
                "folder",
                "count",
                "extra",
            ],
            json!({"type": "pref.updated", "room": "r", "user": "u"}),
        ),
    ] {
        assert_eq!(
            event(nulls, rest.clone()),
            event(&[], rest.clone()),
            "{rest}"
        );
    }
    for required in ["type", "room", "id"] {
        let mut event = json!({"type": "message.sent", "room": "r", "id": "1"});
        event[required] = Value::Null;
        let invalid = parse(&event).unwrap_err();
        let missing = format!("{required}: is missing");
        assert!(invalid.to_string().starts_with(&missing), "{invalid}");
    }
}

#[test]
fn of_a_field_given_twice_the_last_one_holds() {
    let text = r#"{"id":"\ud800","type":"user.deleted","type":"message.sent","room":7,"id":"1","\u0072oom":"r"}"#;
    let Change::Message(message) = line(text).unwrap().change else {
        panic!("no message");
    };
    assert_eq!(message.id.as_str(), "1");
    assert_eq!(message.place, RoomOrPeer::Room(RoomId::parse("r").unwrap()));
    let text =
        r#"{"type":"pref.updated","room":"r","user":"u","tag_colors":{"b":"1","a":"2","b":"3"}}"#;
    let Change::Pref { prefs, .. } = line(text).unwrap().change else {
        panic!("no prefs");
    };
    assert_eq!(prefs, [("tag_colors", r#"{"a":"2","b":"3"}"#.to_owned())]);
}

#[test]
fn half_an_emoji_is_replaced_in_prose_and_refused_in_a_name() {
    let with = |event: &str, field: &str| {
        let text = format!(r#"{{{event},"{field}":"a\ud83d"}}"#);
        (line(&text), text.find("\\ud83d").unwrap() + 1)
    };
    const MESSAGE: &str = r#""type":"message.sent","room":"r","id":"1""#;
    const USER: &str = r#""type":"user.updated","user":"u""#;
    const ROOM: &str = r#""type":"room.updated","room":"r""#;
    const PREF: &str = r#""type":"pref.updated","room":"r","user":"u""#;
    for (event, field) in [
        (MESSAGE, "text"),
        (USER, "nickname"),
        (ROOM, "name"),
        (ROOM, "description"),
    ] {
        let event = with(event, field).0.unwrap();
        assert!(format!("{event:?}").contains("\"a\u{fffd}\""), "{event:?}");
    }
    for (event, field) in [
        (MESSAGE, "id"),
        (MESSAGE, "sender"),
        (MESSAGE, "message_type"),
        (MESSAGE, "mentions"),
        (MESSAGE, "time"),
        (USER, "user"),
        (USER, "avatar_url"),
        (ROOM, "cover"),
        (ROOM, "kind"),
        (ROOM, "custom_type"),
        (PREF, "folder"),
        (PREF, "type"),
    ] {
        let (event, column) = with(event, field);
        let expected = format!("{field}: holds an unpaired surrogate: column {column}");
        assert_eq!(event.unwrap_err().to_string(), expected);
    }
    for list in ["users", "tags"] {
        let event = match list {
            "users" => r#""type":"member.joined","room":"r""#,
            _ => ROOM,
        };
        let text = format!(r#"{{{event},"{list}":["a","\udc00"]}}"#);
        let invalid = line(&text).unwrap_err();
        assert_eq!(invalid.field.as_deref(), Some(list));
        assert!(invalid.position.is_some());
    }
}

#[test]
fn one_event_that_cannot_be_read_stops_no_other() {
    let body = b"\xef\xbb\xbf[{\"type\":\"user.deleted\",\"user\":\"a\"},\n {\"type\":\"user.deleted\",\"user\":\"\xff\"},\n\
        {\"type\":\"user.updated\",\"user\":\"u\",\"nickname\":\"b\x01\"}, 7, {\"\xff\":{}},\r\n\
        {\"type\":\"user.deleted\",\"user\":\"z\"}]\n";
    let batch = read_all(body, BodyForm::Json, 6).unwrap();
    assert_eq!(batch.events.len(), 2);
    let refused: Vec<_> = batch
        .refused
        .iter()
        .map(|(at, invalid)| (*at, invalid.to_string()))
        .collect();
    assert_eq!(
        refused,
        [
            (1, "user: is not valid UTF-8: line 2, column 33".into()),
            (
                2,
                "nickname: holds a control character that is not escaped: line 3, column 48".into()
            ),
            (3, "event: must be an object".into()),
            (4, "(unreadable): is not a field of this event".into()),
        ]
    );

    let body = b"\xef\xbb\xbf\n{\"type\":\"user.deleted\",\"user\":\"a\"}\r\n{\"type\":\"user.del\n\n\
        {\"type\":\"user.deleted\",\"user\":\"\\ud800\"}\n  nonsense\n[[1]] 2\n{\"type\":\"user.deleted\",\"user\":\"z\"}";
    let batch = read_all(body, BodyForm::Lines, 6).unwrap();
    assert_eq!(batch.events.len(), 2);
    let refused: Vec<_> = batch
        .refused
        .iter()
        .map(|(at, invalid)| (*at, invalid.to_string()))
        .collect();
    assert_eq!(
        refused,
        [
            (1, "not JSON: line 3, column 17".into()),
            (
                2,
                "user: holds an unpaired surrogate: line 5, column 32".into()
            ),
            (3, "not JSON: line 6, column 4".into()),
            (4, "not JSON: line 7, column 7".into()),
        ]
    );
}

#[test]
fn a_body_that_is_not_json_is_refused_whole_and_its_place_told() {
    let good = r#"{"type":"user.deleted","user":"a"}"#;
    for (body, expected) in [
        (String::new(), BodyFault::NotJson(position(1, 1))),
        (" \r\n".to_owned(), BodyFault::NotJson(position(1, 3))),
        ("nope".to_owned(), BodyFault::NotJson(position(1, 2))),
        (format!("[{good}\n"), BodyFault::NotJson(position(1, 36))),
        (format!("[{good},\n]"), BodyFault::NotJson(position(2, 1))),
        (
            format!("{good}\n{good}"),
            BodyFault::AnotherEvent(position(2, 1)),
        ),
        (format!("[{good}]]"), BodyFault::NotJson(position(1, 37))),
        ("17".to_owned(), BodyFault::NoEvents),
        ("null".to_owned(), BodyFault::NoEvents),
        ("\"text\"".to_owned(), BodyFault::NoEvents),
        (
            format!("[{good},{}", "[".repeat(10_000)),
            BodyFault::Nested(position(1, 164)),
        ),
    ] {
        assert_eq!(json(&body).unwrap_err(), expected, "{body}");
    }
    assert!(json("[]").unwrap().len() == 0);
    assert!(read_all(b" \r\n\n", BodyForm::Lines, 0).unwrap().len() == 0);
}

#[test]
fn nothing_is_looked_at_beyond_one_event_too_many() {
    for (form, body) in [
        (BodyForm::Json, "[{},{},{} this is no JSON"),
        (BodyForm::Lines, "{}\n\nnonsense\n{}\n{}"),
    ] {
        let error = read_all(body.as_bytes(), form, 2).unwrap_err();
        assert_eq!(error, BodyFault::TooMany(2));
    }
    assert_eq!(read_all(b"[{},7]", BodyForm::Json, 2).unwrap().len(), 2);
    assert_eq!(read_all(b"{}", BodyForm::Json, 1).unwrap().len(), 1);
}

#[test]
fn lists_hold_each_name_once_and_end_at_their_bound() {
    let mentions = |names: &mut dyn Iterator<Item = usize>| {
        let names: Vec<String> = names.map(|n| n.to_string()).collect();
        let event = json!({"type": "message.sent", "room": "r", "id": "1", "mentions": names});
        match parse(&event).map(|event| event.change) {
            Ok(Change::Message(Message {
                mentions: Mentions::Users(users),
                ..
            })) => Ok(users.len()),
            Ok(_) => panic!("no message"),
            Err(invalid) => Err(invalid.to_string()),
        }
    };
    assert_eq!(mentions(&mut [3, 1, 3, 2, 1].into_iter()), Ok(3));
    assert_eq!(mentions(&mut (0..100_000).map(|n| n % 10_000)), Ok(10_000));
    let error = mentions(&mut (0..10_001)).unwrap_err();
    assert!(error.starts_with("mentions: must name at most"), "{error}");
    assert!(mentions(&mut (0..100_000)).is_err());
    let joined = json!({"type": "member.joined", "room": "r", "users": ["b", "a", "b", "c", "a"]});
    let Change::Member { users, .. } = parse(&joined).unwrap().change else {
        panic!("no members");
    };
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    assert_eq!(users, ["b", "a", "c"]);
}
