//! How keys are spelled, and what is read from them.

use super::*;

#[test]
fn the_bytes_of_keys_stay_as_they_are() {
    let app = AppId::parse("demo").unwrap();
    let user = UserKeys::new(&app, &encode("a{b}:c"));
    assert_eq!(user.counts(), "unread:v1:{demo:u:a%7Bb%7D%3Ac}:counts");
    let room = RoomKeys::new(&app, &encode("orders"));
    assert_eq!(room.meta(), "unread:v1:{demo:r:orders}:meta");
    assert_eq!(pending_index(3), "unread:v1:{pending:3}:index");
    assert_eq!(pending_look(3), "unread:v1:{pending:3}:look");
    assert_eq!(
        limit(&app, "imkit-rooms"),
        "unread:v1:{demo:limit:imkit-rooms}"
    );
    assert_eq!(
        user_limit(&app, "imkit-rooms", &UserId::parse("a{b}:c").unwrap()),
        "unread:v1:{demo:limit:imkit-rooms:a%7Bb%7D%3Ac}"
    );
    let guard = guard(user.counts().as_bytes()).unwrap();
    assert_eq!(guard, b"unread:v1:{demo:u:a%7Bb%7D%3Ac}:-");
}

#[test]
fn names_come_back_whole_and_hold_no_separator() {
    for name in [
        "alice", "a b", "{x}", "*?[a]", "a:b|c,d", "50%", "%7B", "ü", "用户 1", "🙂{}", "\"'",
        "a/b\\c", "é,é",
    ] {
        let enc = encode(name);
        assert_eq!(decode(enc.as_str()), name);
        assert!(
            !enc.as_str()
                .contains(['{', '}', ':', '|', ',', '*', '?', '[', ' ', '\n']),
            "{name}"
        );
    }
    assert_eq!(encode("用户 1").as_str(), "用户%201");
}

#[test]
fn a_key_that_no_version_writes_has_no_purpose() {
    for (key, purposed) in [
        ("unread:v1:{pending:15}:look", true),
        ("unread:v1:{pending:16}:look", false),
        ("unread:v1:{pending:03}:look", false),
        ("unread:v1:{pending:3}:other", false),
        ("unread:v1:{durable:77}", true),
        ("unread:v1:{durable:77}:x", false),
        ("unread:v1:{demo:limit:imkit-rooms}", true),
        ("unread:v1:{demo:limit:}", false),
        ("unread:v1:{demo:limit:imkit-rooms:a%20b}", true),
        ("unread:v1:{demo:limit:imkit-rooms:a b}", false),
        ("unread:v1:{demo:limit:imkit-rooms:}", false),
        ("unread:v1:{demo:limit:imkit-rooms:a:b}", false),
        ("unread:v1:{demo:limit:x}:y", false),
        ("unread:v1:{no app:limit:x}", false),
        ("unread:v1:{demo:u:a%20b}:counts", true),
        ("unread:v1:{demo:u:a b}:counts", false),
        ("unread:v1:{demo:u:a%2Ab}:counts", true),
        ("unread:v1:{demo:u:a%2ab}:counts", false),
        ("unread:v1:{demo:u:%ff}:counts", false),
        ("unread:v1:{demo:u:%00}:counts", false),
        ("unread:v1:{demo:u:}:counts", false),
        ("unread:v1:{demo:u:a}:meta", false),
        ("unread:v1:{demo:r:a}:meta", true),
        ("unread:v1:{demo:x:a}:meta", false),
        ("unread:v1:demo:u:a:counts", false),
        ("unread:v1:", false),
    ] {
        assert_eq!(purpose(key.as_bytes()).is_some(), purposed, "{key}");
    }
    assert_eq!(purpose(b"unread:v1:{demo:u:\xff}:counts"), None);
    let long = format!("unread:v1:{{demo:u:{}}}:counts", "a".repeat(256));
    assert_eq!(purpose(long.as_bytes()), None);
    let app = AppId::parse("demo").unwrap();
    let user = UserKeys::new(&app, &encode("a"));
    let room = RoomKeys::new(&app, &encode("a"));
    let kinds: std::collections::BTreeSet<&str> = user
        .all()
        .iter()
        .map(|(_, key)| key)
        .chain(room.all().iter().map(|(_, key)| key))
        .map(|key| label(key.as_bytes(), false).kind)
        .collect();
    assert_eq!(kinds.len(), 20);
    let keys = [user.counts(), user.rooms()];
    let of = |keys: &[String]| label_of_several(keys.iter().map(String::as_bytes)).text;
    let hash = short_hash("demo:u:a");
    assert_eq!(of(&keys), format!("a key of user #{hash}"));
    let other = UserKeys::new(&app, &encode("b")).rooms();
    let keys = [keys, [other, String::new()]].concat();
    let several = format!("a key of one of several, the first a key of user #{hash}");
    assert_eq!(of(&keys), several);
}

#[test]
fn entries_come_back() {
    let app = AppId::parse("demo").unwrap();
    let room = encode("a:b");
    assert_eq!(
        parse_entry(&room_entry(&app, &room)),
        Some(Owner::Room(app.clone(), room))
    );
    assert_eq!(parse_entry("demo:x:y"), None);
    let user = encode("{a}:b");
    let key = UserKeys::new(&app, &user).rooms();
    assert_eq!(
        parse_key(&key),
        Some((Owner::User(app.clone(), user), "rooms"))
    );
    assert_eq!(parse_key("unread:v1:{pending:3}"), None);
    assert_eq!(
        purpose(key.as_bytes()),
        Some(Purpose::Slot(
            Owner::User(app.clone(), encode("{a}:b")),
            "rooms"
        ))
    );
    let label = label(key.as_bytes(), false);
    assert_eq!(label.kind, "user_rooms");
    let hash = short_hash("demo:u:%7Ba%7D%3Ab");
    assert_eq!(label.text, format!("user rooms #{hash}"));
    assert_eq!(
        pattern_of_slots(Some(&app), true, Some("members")),
        "unread:v1:{demo:r:*}:members"
    );
}
