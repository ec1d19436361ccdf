//! Queries, filters, orders, and how rooms look.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::filter::MAX_FILTER_BYTES;
use super::listing::Listing;
use super::show::{OWN, show};
use super::*;
use crate::counts::{LastMessage, Pref, Profile, RoomEntry, RoomPage, ShownDetails};
use crate::engine::RoomBrief;
use crate::http::request::Query;
use crate::names::{RoomId, Tag, UserId};

fn me() -> UserId {
    UserId::parse("me").unwrap()
}

fn room(id: &str) -> RoomEntry {
    RoomEntry {
        room: RoomId::parse(id).unwrap(),
        kind: Kind::Group,
        shown: ShownDetails::default(),
        tags: Vec::new(),
        created: 0,
        last_message: None,
        unread: 0,
        pref: Pref::default(),
        members: Vec::new(),
    }
}

fn said(mut room: RoomEntry, time: i64, order: u64) -> RoomEntry {
    room.last_message = Some(LastMessage {
        id: format!("m{order}"),
        sender: None,
        text: "hi".into(),
        message_type: "text".into(),
        payload: Map::new(),
        time,
        updated: time + 2,
        order,
    });
    room
}

fn listing(query: &str) -> Result<Listing, QueryError> {
    Listing::parse(Query::new(query), &me())
}

fn with(name: &str, value: Value) -> Result<Listing, QueryError> {
    let value = value.to_string();
    listing(
        &form_urlencoded::Serializer::new(String::new())
            .append_pair(name, &value)
            .finish(),
    )
}

fn ids(listing: &Listing, rooms: &[RoomEntry]) -> (u64, String) {
    let matches = |room: &RoomBrief<'_>| listing.matches(room);
    let by_pref = |pref: &Pref| listing.matches_pref(pref);
    let (total, ids) = listing.query(&matches, &by_pref).choose(rooms);
    (total, ids.join(" "))
}

fn order(query: &str, rooms: &[RoomEntry]) -> String {
    ids(&listing(query).unwrap(), rooms).1
}

#[test]
fn rooms_sort_by_last_message_then_creation_then_id() {
    let mut early = room("silent-early");
    early.created = 5;
    let mut late = room("silent-late");
    late.created = 9;
    let rooms = [
        early,
        said(room("a"), 100, 1),
        said(room("b"), 100, 7),
        said(room("c"), 50, 9),
        late,
        room("z"),
        room("y"),
    ];
    let newest_first = "b a c silent-late silent-early y z";
    assert_eq!(order("", &rooms), newest_first);
    assert_eq!(order("sort=", &rooms), newest_first);
    assert_eq!(
        order("sort=-lastMessage+-createdTime", &rooms),
        newest_first
    );
    assert_eq!(
        order("sort=-lastMessage%20-createdTime", &rooms),
        newest_first
    );
    assert_eq!(
        order("sort=lastMessage", &rooms),
        "silent-early silent-late y z c a b"
    );
    assert_eq!(
        order("sort=createdTime", &rooms),
        "a b c y z silent-early silent-late"
    );
    assert_eq!(order("sort=-_id&limit=2", &rooms), "z y");
    for bad in [
        "sort=nope",
        "sort=-",
        "sort=--name",
        "sort=lastMessage,name",
    ] {
        assert!(listing(bad).is_err(), "{bad}");
    }
    assert!(listing(&format!("sort={}", "name+".repeat(17))).is_err());
}

#[test]
fn pages_are_cut_after_counting() {
    let rooms: Vec<_> = (0..9).map(|n| said(room(&format!("r{n}")), n, 1)).collect();
    let page = |query: &str| ids(&listing(query).unwrap(), &rooms);
    assert_eq!(page("skip=2&limit=3"), (9, "r6 r5 r4".into()));
    assert_eq!(page("skip=7&limit=3"), (9, "r1 r0".into()));
    assert_eq!(page("skip=7"), (9, "r1 r0".into()));
    assert_eq!(page("skip=99&limit=3"), (9, String::new()));
    assert_eq!(page("limit=0").1.len(), 9 * 3 - 1);
    assert_eq!(
        page(&format!("skip=1&limit={}", usize::MAX)).1.len(),
        8 * 3 - 1
    );
    for bad in [
        "skip=-1",
        "limit=x",
        "limit=1.5",
        "limit=%2B1",
        "limit=99999999999999999999",
        "skip=1&skip=2",
    ] {
        assert!(listing(bad).is_err(), "{bad}");
    }
    assert_eq!(page("unknown=1&limit=1"), (9, "r8".into()));
}

#[test]
fn unread_first_sorts_within_halves() {
    let unread = |mut room: RoomEntry, n| {
        room.unread = n;
        room
    };
    let rooms = [
        said(room("a"), 4, 4),
        unread(said(room("b"), 3, 3), 1),
        said(room("c"), 2, 2),
        unread(said(room("d"), 1, 1), 9),
    ];
    assert_eq!(order("sortUnreadFirst=1", &rooms), "b d a c");
    assert_eq!(order("sortUnreadFirst=-1", &rooms), "b d a c");
    assert_eq!(order("sortUnreadFirst=true", &rooms), "b d a c");
    for no in ["0", "false"] {
        assert_eq!(order(&format!("sortUnreadFirst={no}"), &rooms), "a b c d");
    }
    assert_eq!(order("sortUnreadFirst=1&sort=_id&limit=3", &rooms), "b d a");
    assert!(listing("sortUnreadFirst=yes").is_err());
}

#[test]
fn updated_after_takes_the_whole_second_of_messages_but_creation_strictly() {
    let at = 1_602_732_534_500; // 2020-10-15T03:28:54.500Z
    let mut born = room("born-at");
    born.created = at;
    let mut younger = room("born-after");
    younger.created = at + 1;
    let rooms = [
        said(room("second"), 1_602_732_534_000, 1),
        said(room("before"), 1_602_732_533_999, 2),
        born,
        younger,
    ];
    for time in [
        "2020-10-15T03:28:54.5Z",
        "2020-10-15T03:28:54.500Z",
        "2020-10-15T05:28:54.5%2B02:00",
        "2020-10-15T05:28:54.5+02:00",
        "2020-10-15T01:28:54.5-02:00",
        "1602732534500",
    ] {
        let listing = listing(&format!("updatedAfter={time}")).unwrap();
        assert_eq!(listing.updated_after, Some(at), "{time}");
        assert_eq!(
            ids(&listing, &rooms),
            (2, "second born-after".into()),
            "{time}"
        );
    }
    for (time, ms) in [
        ("2020-10-15T03:28:54", 1_602_732_534_000),
        ("2020-10-15+03:28:54", 1_602_732_534_000),
        ("2020-10-15t03:28:54z", 1_602_732_534_000),
        ("2020-10-15T03:28:54.1", 1_602_732_534_100),
        ("2020-10-15T03:28:54,123", 1_602_732_534_123),
        ("2020-10-15T03:28:54.123456", 1_602_732_534_123),
        ("2020-10-15T03:28:54.123999999999999Z", 1_602_732_534_123),
        ("2020-10-15T05:28:54.123456789012+02:00", 1_602_732_534_123),
        ("2020-10-15+05:28:54%2B0200", 1_602_732_534_000),
        ("2020-10-15T03:28", 1_602_732_480_000),
        ("2020-10-15", 1_602_720_000_000),
        ("2020-10-14T24:00:00", 1_602_720_000_000),
        ("2020-10-14T24:00:00.000Z", 1_602_720_000_000),
        ("2020-10-14T24:00:00-02:00", 1_602_727_200_000),
        ("2020-12-31T24:00:00Z", 1_609_459_200_000),
    ] {
        let listing = listing(&format!("updatedAfter={time}"));
        assert_eq!(listing.unwrap().updated_after, Some(ms), "{time}");
    }
    for bad in [
        "yesterday",
        "2020-10-15T",
        "2020-10-15T24:00:01Z",
        "2020-10-15T24:30",
        "2020-10-15T25:00:00",
        "2020-10-15T03:28:54.12x",
        "2020-02-30",
        "2020-10-15T03:28:54Z%5BUTC%5D",
        "2020-13-15T03:28:54Z",
        "-",
        "1e12",
        "16027325345.5",
        "99999999999999999999",
    ] {
        assert!(listing(&format!("updatedAfter={bad}")).is_err(), "{bad}");
    }
    assert_eq!(listing("updatedAfter=-5").unwrap().updated_after, Some(-5));
    assert_eq!(order("updatedAfter=", &rooms).split(' ').count(), 4);
}

#[test]
fn pref_filters_against_the_defaulted_settings() {
    let mut kept = room("kept");
    kept.pref.tags = vec!["a".into(), "b".into()];
    kept.pref.hidden = true;
    kept.pref.folder = "Work".into();
    kept.pref.tag_colors.insert("a".into(), "#f00".into());
    let rooms = [kept, room("plain")];
    for (pref, expected) in [
        (json!({}), "kept plain"),
        (json!({"tags": "a"}), "kept"),
        (json!({"tags": "A"}), ""),
        (json!({"tags": ["a", "b"]}), "kept"),
        (json!({"tags": ["b", "a"]}), ""),
        (json!({"tags": []}), "plain"),
        (json!({"tags": {"$in": ["x", "b"]}}), "kept"),
        (json!({"tags": {"$in": []}}), ""),
        (json!({"tags": {"$all": ["a", "b"]}}), "kept"),
        (json!({"tags": {"$all": ["a", "x"]}}), ""),
        (json!({"tags": {"$all": []}}), ""),
        (json!({"tags": {"$ne": "a"}}), "plain"),
        (json!({"tags": {"$in": ["a"], "$ne": "b"}}), ""),
        (json!({"hidden": false}), "plain"),
        (json!({"hidden": {"$ne": false}}), "kept"),
        (json!({"hidden": "true"}), ""),
        (json!({"folder": "Work", "hidden": true}), "kept"),
        (json!({"folder": ""}), "plain"),
        (json!({"folder": {"$in": ["", "Work"]}}), "kept plain"),
        (json!({"folder": {"$exists": true}}), "kept plain"),
        (json!({"folder": {"$exists": false}}), ""),
        (json!({"sticky": true}), ""),
        (json!({"muted": false}), "kept plain"),
        (json!({"tagColors": {"a": "#f00"}}), "kept"),
        (json!({"tagColors": {}}), "plain"),
        (json!({"tagColors.a": "#f00"}), "kept"),
        (json!({"tagColors.a": {"$exists": false}}), "plain"),
    ] {
        let listing = with("pref", pref.clone()).unwrap();
        assert_eq!(ids(&listing, &rooms).1, expected, "{pref}");
    }
    for bad in [
        json!([]),
        json!("tags"),
        json!(null),
        json!({"nope": 1}),
        json!({"$or": [{"tags": "a"}]}),
        json!({"tags": {"$regex": "a"}}),
        json!({"tags": {"$gt": "a"}}),
        json!({"tags": {"$in": "a"}}),
        json!({"tags": {"$in": [["a"]]}}),
        json!({"tags": {"$in": ["a"], "x": 1}}),
        json!({"tags": {"$exists": "yes"}}),
        json!({"tags": {"x": 1}}),
        json!({"tags": [["a"]]}),
        json!({"folder": {}}),
    ] {
        assert!(with("pref", bad.clone()).is_err(), "{bad}");
    }
    assert!(listing("pref=%7B").is_err());
    assert!(with("pref", json!({"tags": "x".repeat(MAX_FILTER_BYTES)})).is_err());
    assert!(listing(&format!("pref={}", "%5B".repeat(500))).is_err());
}

#[test]
fn q_filters_the_room_and_only_for_the_caller() {
    let mut tagged = room("tagged");
    tagged.tags = vec![Tag::parse("work").unwrap(), Tag::parse("x").unwrap()];
    let mut direct = room("direct");
    direct.kind = Kind::Direct;
    let mut large = room("large");
    large.kind = Kind::Supergroup;
    let rooms = [tagged, direct, large];
    for (q, expected) in [
        (json!({"members": "me"}), "direct large tagged"),
        (json!({"members": "me", "roomTags": "work"}), "tagged"),
        (json!({"roomTags": {"$in": ["x", "y"]}}), "tagged"),
        (json!({"roomTags": {"$all": ["x", "y"]}}), ""),
        (json!({"roomType": "group"}), "large tagged"),
        (json!({"roomType": {"$in": ["direct"]}}), "direct"),
        (json!({"_id": "large"}), "large"),
        (
            json!({"_id": {"$in": ["large", "direct", "other"]}}),
            "direct large",
        ),
    ] {
        assert_eq!(
            ids(&with("q", q.clone()).unwrap(), &rooms).1,
            expected,
            "{q}"
        );
    }
    for bad in [
        json!({"members": "you"}),
        json!({"members": ["me"]}),
        json!({"members": {"$in": ["me"]}}),
        json!({"name": "x"}),
        json!({"roomTags": {"$ne": "x"}}),
        json!({"roomTags": {"$exists": true}}),
        json!({"$and": []}),
        json!([]),
    ] {
        assert!(with("q", bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn filters_in_brackets_and_dots_are_those_of_json() {
    for (parts, q, pref) in [
        ("q[roomTags]=work", json!({"roomTags": "work"}), json!(null)),
        (
            "q%5BroomTags%5D=work",
            json!({"roomTags": "work"}),
            json!(null),
        ),
        ("q.roomTags=a+b", json!({"roomTags": "a b"}), json!(null)),
        ("q[roomTags]=", json!({"roomTags": ""}), json!(null)),
        (
            "q[roomTags][$in][]=a&q[roomTags][$in][]=b&q[roomType]=group",
            json!({"roomTags": {"$in": ["a", "b"]}, "roomType": "group"}),
            json!(null),
        ),
        (
            "q[roomTags][$all][0]=a&q[roomTags][$all][1]=b",
            json!({"roomTags": {"$all": ["a", "b"]}}),
            json!(null),
        ),
        (
            "q.roomTags.$in[0]=a",
            json!({"roomTags": {"$in": ["a"]}}),
            json!(null),
        ),
        ("q[roomTags][]=a", json!({"roomTags": ["a"]}), json!(null)),
        ("q[members]=me", json!({"members": "me"}), json!(null)),
        ("pref[tags]=vip", json!(null), json!({"tags": "vip"})),
        ("pref.tags=1", json!(null), json!({"tags": "1"})),
        (
            "pref[hidden]=false&pref.muted=1&pref[sticky][$ne]=true",
            json!(null),
            json!({"hidden": false, "muted": true, "sticky": {"$ne": true}}),
        ),
        (
            "pref[folder][$exists]=0",
            json!(null),
            json!({"folder": {"$exists": false}}),
        ),
        (
            "pref.tagColors.a.b=red",
            json!(null),
            json!({"tagColors.a.b": "red"}),
        ),
        (
            "pref.tagColors.5[$ne]=red",
            json!(null),
            json!({"tagColors.5": {"$ne": "red"}}),
        ),
        (
            "pref[tagColors][a]=red&pref[tagColors][5]=blue",
            json!(null),
            json!({"tagColors": {"a": "red", "5": "blue"}}),
        ),
    ] {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("q", q), ("pref", pref)] {
            if !value.is_null() {
                query.append_pair(name, &value.to_string());
            }
        }
        let (by_parts, by_json) = (listing(parts).unwrap(), listing(&query.finish()).unwrap());
        assert_eq!(format!("{by_parts:?}"), format!("{by_json:?}"), "{parts}");
    }
    for bad in [
        "q[roomTags=a",
        "q[]=a",
        "q[roomTags]x=a",
        "q[roomTags]=a&q[roomTags]=b",
        "q[roomTags]=a&q[roomTags][$in][]=b",
        "q[roomTags][$in]=a",
        "q[roomTags][$nin][]=a",
        "q[roomTags][$in][][x]=a",
        "q[a][b][c][d][e]=1",
        "q[members]=you",
        "q[name]=x",
        "q.=x",
        "pref[nope]=x",
        "pref[tags]=x&pref=%7B%22folder%22:%22x%22%7D",
    ] {
        assert!(listing(bad).is_err(), "{bad}");
    }
    let long = "x".repeat(MAX_FILTER_BYTES);
    assert!(listing(&format!("q[roomTags]={long}")).is_err());
    // A parameter whose name only begins like that is no field of a filter.
    assert!(
        listing("query[x]=1&preferences.x=1&qx=1")
            .unwrap()
            .shown
            .is_empty()
    );
}

#[test]
fn a_payload_adds_to_a_message_and_changes_nothing_of_it() {
    let shown = |message_type: &str, payload: Value| {
        let mut room = said(room("r"), 1_000, 1);
        if let Some(last) = &mut room.last_message {
            last.message_type = message_type.to_owned();
            last.payload = payload.as_object().cloned().unwrap_or_default();
        }
        let page = RoomPage {
            total: 1,
            rooms: vec![room],
            profiles: HashMap::new(),
        };
        let shown = serde_json::to_string(&show("a", &page, json!({}), 0)).unwrap();
        for name in OWN {
            let field = format!("\"{name}\":");
            let message = shown.split("lastMessage").nth(1).unwrap();
            let message = message.split("members").next().unwrap();
            assert_eq!(message.matches(&field).count(), 1, "{name}: {message}");
        }
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["data"][0]["lastMessage"].clone()
    };
    let mut payload =
        json!({"sticker": "s1", "extra": {"k": [1, null]}, "sender": {"nickname": "system"}});
    for name in OWN {
        payload[name] = json!("no");
    }
    let message = shown("sticker", payload);
    assert_eq!(
        (
            &message["messageType"],
            &message["sticker"],
            &message["extra"]
        ),
        (&json!("sticker"), &json!("s1"), &json!({"k": [1, null]}))
    );
    assert_eq!(
        (&message["message"], &message["_id"]),
        (&json!("hi"), &json!("m1"))
    );
    // Nobody else sent it.
    assert_eq!(message["sender"], json!({"nickname": "system"}));
    for taken_apart in [
        "sticker",
        "addMember",
        "addMembers",
        "deleteMember",
        "deleteMembers",
        "payment",
        "image",
        "video",
        "file",
    ] {
        assert_eq!(
            shown(taken_apart, json!({}))["messageType"],
            "text",
            "{taken_apart}"
        );
    }
    for plain in ["text", "recall", "order", "announcement", "joinRoom"] {
        assert_eq!(shown(plain, json!({}))["messageType"], plain);
    }
}

#[test]
fn inspect_has_the_documented_shape() {
    let listing =
        listing("updatedAfter=2020-10-15T03:32:31Z&pref=%7B%22hidden%22:false%7D").unwrap();
    assert_eq!(
        listing.inspect("SampleApp", &me()),
        json!({
            "appID": "SampleApp", "members": "me", "status": 1, "pref": {"hidden": false},
            "$or": [
                {"lastMessage": {"$gt": "5f87c2cf0000000000000000"}},
                {"createdTime": {"$gt": "2020-10-15T03:32:31.000Z"}}]
        })
    );
}

#[test]
fn rooms_show_every_documented_field() {
    let user = UserId::parse("sss").unwrap();
    let mut demo = said(room("demo-room"), 1_602_817_267_923, 3);
    demo.members = vec![user.clone(), UserId::parse("bare").unwrap()];
    demo.kind = Kind::Supergroup;
    demo.tags = vec![Tag::parse("demo").unwrap()];
    demo.unread = 4;
    demo.pref.muted = true;
    demo.created = 1_525_001_412_492;
    if let Some(last) = &mut demo.last_message {
        last.sender = Some(user.clone());
    }
    let profile = Profile {
        user: user.clone(),
        nickname: Some("Elsa".into()),
        avatar_url: Some("https://a/b.jpg".into()),
        is_robot: false,
        last_login_time: 1_588_744_338_369,
    };
    let page = RoomPage {
        total: 8,
        rooms: vec![demo, room("quiet")],
        profiles: HashMap::from([(user, profile)]),
    };
    let elsa = json!({"_id": "sss", "nickname": "Elsa", "avatarUrl": "https://a/b.jpg",
        "isRobot": false, "id": "sss", "lastLoginTimeMS": 1_588_744_338_369_i64, "clientType": "user"});
    let shown = serde_json::to_value(show("SampleApp", &page, json!({}), 22)).unwrap();
    assert_eq!(shown["totalCount"], 8);
    assert_eq!(shown["inspect"], json!({"query": {}, "tookMS": 22}));
    assert_eq!(
        shown["data"][0],
        json!({
            "_id": "demo-room", "id": "demo-room", "name": "", "cover": "", "description": "",
            "roomType": "group", "webhook": "", "botState": "", "botMode": false, "encrypted": false,
            "serviceStatus": 0, "roomTags": ["demo"], "status": 1, "unread": 4, "muted": true,
            "lastMessage": {
                "_id": "m3", "id": "m3", "message": "hi", "room": "demo-room", "sender": elsa,
                "messageType": "text", "appID": "SampleApp", "messageTime": "2020-10-16T03:01:07.923Z",
                "messageTimeMS": 1_602_817_267_923_i64, "updatedAtMS": 1_602_817_267_925_i64,
                "createdAtMS": 1_602_817_267_923_i64, "reactionCount": 0},
            "members": [elsa, {"_id": "bare", "id": "bare", "nickname": "", "avatarUrl": "",
                "isRobot": false, "lastLoginTimeMS": 0, "clientType": "user"}],
            "pref": {"tags": [], "tagColors": {}, "hidden": false, "sticky": false, "muted": true, "folder": ""},
            "createdTimeMS": 1_525_001_412_492_i64
        })
    );
    assert!(shown["data"][1].get("lastMessage").is_none());
    assert_eq!(iso(i64::MAX).len(), iso(0).len());
}
