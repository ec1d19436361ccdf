//! What the pods do: states of a room and a user to begin with, and operations on them.
//!
//! The user is `a`, another member is `b`, and `c` is a third; the room is `r`, or the direct room of `a` and `b`.

use serde_json::{Value, json};

use crate::support::model::Order;

pub(crate) const EVERYBODY: [&str; 3] = ["a", "b", "c"];

/// What kind of room a scene is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    Group,
    Super,
    /// A direct room that events made by name.
    ByHand,
    /// The direct room that a message by `to` makes, or has made.
    Pair,
}

/// How a scene comes about.
pub(crate) enum Stage {
    /// By a request that is answered.
    Sent(Vec<Value>),
    /// By one whose pod dies before the first call of that script: its delivery is pending.
    Cut(Vec<Value>, &'static str),
}

pub(crate) struct Scene {
    pub name: &'static str,
    pub family: Family,
    /// All pairs of operations, not only those of the most important ones.
    pub main: bool,
    /// Whether the pod that is held has seen the room before, and has its members in memory.
    pub warm: bool,
}

const fn scene(name: &'static str, family: Family) -> Scene {
    Scene {
        name,
        family,
        main: false,
        warm: false,
    }
}

const fn main(name: &'static str, family: Family) -> Scene {
    Scene {
        main: true,
        ..scene(name, family)
    }
}

const fn warm(name: &'static str, family: Family) -> Scene {
    Scene {
        warm: true,
        ..scene(name, family)
    }
}

pub(crate) const SCENES: &[Scene] = &[
    main("group", Family::Group),
    scene("group-read", Family::Group),
    scene("group-invited", Family::Group),
    scene("group-left", Family::Group),
    scene("group-new", Family::Group),
    scene("group-deleted", Family::Group),
    scene("group-off", Family::Group),
    scene("group-none", Family::Group),
    scene("group-gone", Family::Group),
    scene("group-pending", Family::Group),
    scene("group-leaving", Family::Group),
    warm("group-warm", Family::Group),
    main("super", Family::Super),
    scene("super-invited", Family::Super),
    scene("super-left", Family::Super),
    scene("super-deleted", Family::Super),
    scene("super-pending", Family::Super),
    main("direct", Family::ByHand),
    scene("direct-left", Family::ByHand),
    scene("direct-invited", Family::ByHand),
    scene("direct-deleted", Family::ByHand),
    scene("direct-leaving", Family::ByHand),
    main("pair", Family::Pair),
    main("pair-none", Family::Pair),
    scene("pair-new", Family::Pair),
    scene("pair-left", Family::Pair),
    scene("pair-deleted", Family::Pair),
    scene("pair-deleting", Family::Pair),
    scene("pair-taken", Family::Pair),
    scene("pair-gone", Family::Pair),
    warm("pair-warm", Family::Pair),
];

fn made(room: &str, kind: &str) -> Value {
    json!({"type": "room.updated", "room": room, "kind": kind, "tags": ["x"], "custom_type": "t"})
}

fn member(what: &str, room: &str, users: &[&str]) -> Value {
    json!({"type": format!("member.{what}"), "room": room, "users": users})
}

fn sent(room: &str, id: &str, sender: &str) -> Value {
    json!({"type": "message.sent", "room": room, "id": id, "sender": sender, "text": id})
}

fn sent_to(id: &str, sender: &str, to: &str) -> Value {
    json!({"type": "message.sent", "to": to, "id": id, "sender": sender, "text": id})
}

fn with(mut event: Value, field: &str, value: impl Into<Value>) -> Value {
    event[field] = value.into();
    event
}

fn deleted(user: &str) -> Value {
    json!({"type": "user.deleted", "user": user})
}

/// Three messages of which one names `a`, one is `a`'s own and was not to mark as read, and one names all.
fn messages(room: &str, third: &str) -> Vec<Value> {
    vec![
        with(sent(room, "m1", "b"), "mentions", json!(["a"])),
        with(sent(room, "m2", "a"), "mark_read", false),
        with(sent(room, "m3", third), "mentions", "all"),
    ]
}

impl Scene {
    /// The name of the room; `pair` is the one that a message between `a` and `b` makes.
    pub(crate) fn room<'a>(&self, pair: &'a str) -> &'a str {
        match self.family {
            Family::Pair => pair,
            _ => "r",
        }
    }

    pub(crate) fn stages(&self, pair: &str) -> Vec<Stage> {
        let room = self.room(pair);
        let kind = match self.family {
            Family::Group => "group",
            Family::Super => "supergroup",
            Family::ByHand | Family::Pair => "direct",
        };
        let (_, state) = self.name.split_once('-').unwrap_or((self.name, ""));
        let users = json!({"type": "user.updated", "user": "c", "nickname": "C"});
        let mut events = match self.family {
            _ if state == "none" => vec![
                users,
                json!({"type": "user.updated", "user": "a"}),
                json!({"type": "user.updated", "user": "b"}),
            ],
            Family::Group | Family::Super => {
                vec![made(room, kind), member("joined", room, &["b", "c"])]
            }
            Family::ByHand => vec![users, made(room, kind), member("joined", room, &["b"])],
            Family::Pair => vec![users],
        };
        let group = matches!(self.family, Family::Group | Family::Super);
        // Where `a` is to be in the room with something unread.
        let inside = !matches!(state, "none" | "new" | "invited" | "pending");
        match self.family {
            Family::Pair if inside => {
                events.extend([
                    with(sent_to("m1", "b", "a"), "mentions", json!(["a"])),
                    with(sent_to("m2", "a", "b"), "mark_read", false),
                    with(sent_to("m3", "b", "a"), "mentions", "all"),
                ]);
            }
            Family::Pair => {}
            _ if inside => {
                events.push(member("joined", room, &["a"]));
                events.extend(messages(room, if group { "c" } else { "b" }));
            }
            _ if state == "none" => {}
            _ => events.extend([
                json!({"type": "user.updated", "user": "a"}),
                sent(room, "m1", "b"),
                sent(room, "m3", "b"),
            ]),
        }
        if state == "new" {
            // Nobody has heard of `a`, nor, without a room, of `b`.
            events.retain(|event| event["user"] != "a");
        }
        let mut stages = Vec::new();
        let mut last = Vec::new();
        match state {
            "read" => last.push(json!({"type": "room.read", "room": room, "user": "a"})),
            "invited" => last.push(member("invited", room, &["a"])),
            "left" => last.push(member("left", room, &["a"])),
            "deleted" => last.push(deleted("a")),
            "off" => last.push(json!({"type": "room.updated", "room": room, "status": 0})),
            "gone" => last.push(json!({"type": "room.deleted", "room": room})),
            "taken" => last.extend([member("left", room, &["a"]), member("joined", room, &["c"])]),
            _ => {}
        }
        let cut = match state {
            "pending" => Some(vec![member("joined", room, &["a"])]),
            "leaving" => Some(vec![member("left", room, &["a"])]),
            "deleting" => Some(vec![deleted("a")]),
            _ => None,
        };
        events.extend(last);
        timed(&mut events, 0);
        stages.push(Stage::Sent(events));
        if let Some(mut events) = cut {
            timed(&mut events, 50_000);
            // What a deletion does first is done by one script, and what it does in the room by others.
            let script = if state == "deleting" {
                "member_change"
            } else {
                "deliver"
            };
            stages.push(Stage::Cut(events, script));
        }
        stages
    }

    /// Whether the definition says what becomes of these two.
    pub(crate) fn is_defined(&self, one: &Operation, two: &Operation) -> bool {
        let either = |what: fn(&Operation) -> bool| what(one) || what(two);
        // Whether an event may make the room of two by its name, which only the server knows.
        let absent = self.family == Family::Pair
            && matches!(self.name, "pair-none" | "pair-new" | "pair-gone");
        if absent && either(Operation::makes) {
            return false;
        }
        // Whether an edit that changes nothing of a message that is not the last is said to be one.
        !(one.parts().any(|part| part == "edit") && two.parts().any(|part| part == "edit"))
    }

    /// The operations that there are in this scene.
    pub(crate) fn operations(&self) -> Vec<&'static Operation> {
        OPERATIONS
            .iter()
            .filter(|operation| operation.is_of(self))
            .collect()
    }

    /// The pairs of operations to run in this scene.
    pub(crate) fn pairs(&self) -> Vec<(&'static Operation, &'static Operation)> {
        let mut mine = self.operations();
        mine.retain(|operation| self.main || operation.core);
        let mut pairs = Vec::new();
        for one in &mine {
            pairs.extend(mine.iter().map(|two| (*one, *two)));
        }
        pairs.retain(|(one, two)| self.is_defined(one, two));
        pairs
    }
}

/// Gives times to those that have none, one after the other.
pub(crate) fn timed(events: &mut [Value], from: i64) {
    for (event, n) in events.iter_mut().zip(1..) {
        if event.get("time").is_none() {
            event["time"] = (1_750_000_000_000 + from + n * 1_000).into();
        }
    }
}

/// An operation: one request.
pub(crate) struct Operation {
    pub name: &'static str,
    of: &'static [Family],
    /// Whether it is tried in every scene.
    pub core: bool,
    pub order: Order,
}

const GROUPS: &[Family] = &[Family::Group, Family::Super];
const DIRECT: &[Family] = &[Family::ByHand, Family::Pair];
const ALL: &[Family] = &[Family::Group, Family::Super, Family::ByHand, Family::Pair];

const fn core(name: &'static str, of: &'static [Family]) -> Operation {
    Operation {
        name,
        of,
        core: true,
        order: Order::Arrival,
    }
}

const fn more(name: &'static str, of: &'static [Family]) -> Operation {
    Operation {
        name,
        of,
        core: false,
        order: Order::Arrival,
    }
}

/// Sent by time. What follows "by" is what it is by arrival.
const fn timed_one(name: &'static str, of: &'static [Family]) -> Operation {
    Operation {
        order: Order::Time,
        ..more(name, of)
    }
}

pub(crate) const OPERATIONS: &[Operation] = &[
    core("join", ALL),
    core("invite", ALL),
    core("leave", ALL),
    core("say", ALL),
    core("keep", ALL),
    core("hear", ALL),
    core("same", ALL),
    core("recall", ALL),
    core("read", ALL),
    core("readall", ALL),
    core("unread", ALL),
    more("set", ALL),
    core("pref", ALL),
    core("tags", ALL),
    core("off", ALL),
    core("super", GROUPS),
    core("delroom", ALL),
    core("deluser", ALL),
    core("to", DIRECT),
    core("tom", DIRECT),
    core("from", DIRECT),
    core("fromm", DIRECT),
    core("swap", DIRECT),
    core("leave+join", ALL),
    core("join+hear", ALL),
    core("renew", GROUPS),
    core("remake", DIRECT),
    more("joinboth", GROUPS),
    more("leaveboth", GROUPS),
    more("hush", ALL),
    more("hearall", ALL),
    more("other", ALL),
    more("quiet", ALL),
    more("system", ALL),
    more("recallown", ALL),
    more("undo", ALL),
    more("readid", ALL),
    more("readtime", ALL),
    more("readthat", ALL),
    more("unreadfrom", ALL),
    more("unreadthat", ALL),
    more("unreadpeer", DIRECT),
    more("setnone", ALL),
    more("setpeer", DIRECT),
    more("read+unread", ALL),
    more("unread+read", ALL),
    more("set+say", ALL),
    more("say+set", ALL),
    more("set+set", ALL),
    more("hear+unread", ALL),
    more("clear", ALL),
    more("edit", ALL),
    more("hear+edit", ALL),
    more("recallpair", DIRECT),
    more("hearnot", ALL),
    more("readpos", ALL),
    more("count", ALL),
    more("countback", ALL),
    more("extra", ALL),
    timed_one("byhear", ALL),
    timed_one("bysay", ALL),
    timed_one("byread", ALL),
    timed_one("byunread", ALL),
    timed_one("byset", ALL),
    timed_one("byclear", ALL),
    timed_one("byrecall", ALL),
    timed_one("byjoin", ALL),
    timed_one("byleave", ALL),
    more("pref2", ALL),
    more("type", ALL),
    more("on", ALL),
    more("name", ALL),
    more("delother", ALL),
    more("upuser", ALL),
    more("join+say", ALL),
    more("join+read", ALL),
    more("join+leave", ALL),
    more("invite+join", ALL),
    more("hear+read", ALL),
    more("say+leave", ALL),
    more("off+on", ALL),
    more("deluser+join", ALL),
    more("deluser+invite", ALL),
    more("deluser+say", ALL),
    more("tokeep", DIRECT),
    more("tosilent", DIRECT),
    more("tosame", DIRECT),
    more("readpeer", DIRECT),
    more("swapother", DIRECT),
    more("deluser+to", DIRECT),
    more("deluser+from", DIRECT),
    more("leave+to", DIRECT),
    more("to+from", DIRECT),
];

impl Operation {
    pub(crate) fn named(name: &str) -> Option<&'static Operation> {
        OPERATIONS.iter().find(|operation| operation.name == name)
    }

    pub(crate) fn is_of(&self, scene: &Scene) -> bool {
        self.of.contains(&scene.family)
    }

    fn parts(&self) -> impl Iterator<Item = &'static str> {
        let name = match self.order {
            Order::Arrival => self.name,
            _ => self.name.trim_start_matches("by"),
        };
        name.split('+')
    }

    /// Whether it may make the room by its name.
    fn makes(&self) -> bool {
        let makes = [
            "tags", "type", "off", "on", "name", "super", "remake", "renew",
        ];
        self.parts().any(|part| makes.contains(&part))
    }

    /// Its events. `own` begins the ids of its messages, `other` those of the operation that it meets.
    pub(crate) fn events(&self, room: &str, own: &str, other: &str, from: i64) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        for part in self.parts() {
            let id = format!("{own}{}", events.len() + 1);
            events.extend(one(part, room, &id, &format!("{other}1")));
        }
        timed(&mut events, from);
        events
    }
}

fn one(part: &str, room: &str, id: &str, theirs: &str) -> Vec<Value> {
    let updated = |field: &str, value: Value| {
        with(json!({"type": "room.updated", "room": room}), field, value)
    };
    let of = |kind: &str, user: &str| json!({"type": kind, "room": room, "user": user});
    let recalled = |id: &str| json!({"type": "message.recalled", "room": room, "id": id});
    let event = match part {
        "join" => member("joined", room, &["a"]),
        "joinboth" => member("joined", room, &["a", "c"]),
        "invite" => member("invited", room, &["a"]),
        "leave" => member("left", room, &["a"]),
        "leaveboth" => member("left", room, &["a", "b"]),
        "say" => sent(room, id, "a"),
        "keep" => with(sent(room, id, "a"), "mark_read", false),
        "hush" => with(sent(room, id, "a"), "silent", true),
        "hear" => with(sent(room, id, "b"), "mentions", json!(["a"])),
        "hearall" => with(sent(room, id, "b"), "mentions", "all"),
        "other" => sent(room, id, "b"),
        "quiet" => with(sent(room, id, "b"), "silent", true),
        "system" => json!({"type": "message.sent", "room": room, "id": id, "text": id}),
        "same" => with(sent(room, "same", "b"), "mentions", json!(["a"])),
        "recall" => recalled("m1"),
        "recallown" => recalled("m2"),
        "undo" => recalled(theirs),
        "read" => of("room.read", "a"),
        "readid" => with(of("room.read", "a"), "up_to_id", "m1"),
        "readtime" => with(
            of("room.read", "a"),
            "up_to_time",
            1_750_000_000_000_i64 + 60_000,
        ),
        "readthat" => with(of("room.read", "a"), "up_to_id", theirs),
        "readpeer" => json!({"type": "room.read", "user": "a", "peer": "b"}),
        "unread" => with(of("room.unread", "a"), "from_id", "m1"),
        "unreadfrom" => with(of("room.unread", "a"), "from_position", 2),
        "unreadthat" => with(of("room.unread", "a"), "from_id", theirs),
        "unreadpeer" => {
            json!({"type": "room.unread", "user": "a", "peer": "b", "from_position": 1})
        }
        "set" => with(with(of("counts.set", "a"), "unread", 4), "mentions", 2),
        "setnone" => with(of("counts.set", "a"), "unread", 0),
        "setpeer" => json!({"type": "counts.set", "user": "a", "peer": "b", "unread": 1}),
        "clear" => json!({"type": "room.cleared", "room": room}),
        "edit" => {
            json!({"type": "message.updated", "room": room, "id": "m3", "mentions": ["c"]})
        }
        "recallpair" => json!({"type": "message.recalled", "sender": "b", "to": "a", "id": "m1"}),
        "hearnot" => with(sent(room, id, "b"), "except", json!(["a"])),
        "readpos" => with(of("room.read", "a"), "up_to_position", 2),
        "count" => with(of("pref.updated", "a"), "count", "none"),
        "countback" => with(of("pref.updated", "a"), "count", "all"),
        "extra" => with(of("pref.updated", "a"), "extra", json!({"n": 1})),
        "readall" => json!({"type": "user.read_all", "user": "a"}),
        "pref" => with(
            with(of("pref.updated", "a"), "hidden", true),
            "tags",
            json!(["p"]),
        ),
        "pref2" => with(
            with(of("pref.updated", "a"), "hidden", false),
            "folder",
            "f",
        ),
        "tags" => updated("tags", json!(["x", "y"])),
        "type" => updated("custom_type", json!("u")),
        "off" => updated("status", json!(0)),
        "on" => updated("status", json!(1)),
        "super" => updated("kind", json!("supergroup")),
        "name" => updated("name", json!("a name")),
        "delroom" => json!({"type": "room.deleted", "room": room}),
        "deluser" => deleted("a"),
        "delother" => deleted("b"),
        "upuser" => json!({"type": "user.updated", "user": "a", "nickname": "A"}),
        "to" => sent_to(id, "a", "b"),
        "tom" => with(sent_to(id, "a", "b"), "mentions", json!(["b"])),
        "tokeep" => with(sent_to(id, "a", "b"), "mark_read", false),
        "tosilent" => with(sent_to(id, "a", "b"), "silent", true),
        "tosame" => sent_to("same", "a", "b"),
        "from" => sent_to(id, "b", "a"),
        "fromm" => with(sent_to(id, "b", "a"), "mentions", json!(["a"])),
        "swap" => return vec![member("left", room, &["a"]), member("joined", room, &["c"])],
        "swapother" => return vec![member("left", room, &["b"]), member("joined", room, &["c"])],
        "renew" => {
            return vec![
                json!({"type": "room.deleted", "room": room}),
                updated("tags", json!(["y"])),
                member("joined", room, &["a"]),
            ];
        }
        "remake" => {
            return vec![
                json!({"type": "room.deleted", "room": room}),
                updated("kind", json!("group")),
                member("joined", room, &["a", "b"]),
            ];
        }
        other => panic!("no such operation: {other}"),
    };
    vec![event]
}

#[test]
fn every_sort_of_event_is_in_an_operation() {
    use crate::support::words;
    let words: Vec<&str> = OPERATIONS
        .iter()
        .flat_map(|operation| {
            let events = operation.events("r", "x", "y", 100_000);
            let words = |event: &Value| words::of(operation.order, event);
            events.iter().flat_map(words).collect::<Vec<_>>()
        })
        .collect();
    for word in words::ALL {
        assert!(words.contains(&word), "no operation has {word}");
    }
}
