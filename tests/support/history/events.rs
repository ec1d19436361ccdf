//! Random events.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::later::later_invalid;
use super::universe::{FOLDERS, START, TAGS, TYPES, Universe};
use crate::support::model::{Kind, Model, Room};

impl Universe {
    pub fn event(&self, model: &Model, rng: &mut StdRng) -> Value {
        let later = self.later_event(model, rng);
        let mut event = match later.map_or_else(|| Err(rng.random_range(0..100)), Ok) {
            Ok(later) => later,
            Err(n) => self.usual_event(n, model, rng),
        };
        if event.get("time").is_none() {
            event["time"] = self.other_time(rng).into();
        }
        // The key of an edit between two has no name here.
        let between = event["type"] == "message.updated" && event.get("to").is_some();
        if rng.random_bool(0.15) && !between {
            event["key"] = self.key(&event, rng).into();
        }
        // Every now and then with fields that hold nothing.
        if rng.random_bool(0.05) {
            for field in may_be_null(&event) {
                let fields = event.as_object_mut().unwrap();
                fields.entry(*field).or_insert(Value::Null);
            }
        }
        // Nor always a time, where it is not shown.
        let is_shown =
            ["message.sent", "room.updated"].contains(&event["type"].as_str().unwrap_or_default());
        if self.knows("order") && !is_shown && rng.random_bool(0.02) {
            event["time"] = Value::Null;
        }
        // Every now and then as RFC 3339.
        if let (Some(ms), true) = (event["time"].as_i64(), rng.random_bool(0.1)) {
            event["time"] = jiff::Timestamp::from_millisecond(ms)
                .unwrap()
                .to_string()
                .into();
        }
        event
    }

    /// One of those that are in every history, by a number below a hundred.
    fn usual_event(&self, n: u32, model: &Model, rng: &mut StdRng) -> Value {
        match n {
            0..34 => self.message(model, rng),
            34..39 => self.message_to(model, rng),
            39..45 => self.recall(model, rng),
            45..58 => self.read(model, rng),
            58..61 => self.read_all(model, rng),
            61..75 => self.membership(model, rng),
            75..87 => self.room_update(model, rng),
            87..89 => json!({"type": "room.deleted", "room": self.room(model, rng)}),
            89..91 => self.user_update(rng),
            91..92 => json!({"type": "user.deleted", "user": self.everybody.choose(rng).unwrap()}),
            92..97 => self.pref(model, rng),
            _ if self.knows_all() && rng.random_bool(0.4) => later_invalid(rng),
            _ => invalid(rng),
        }
    }

    /// One of a few keys, so that some come again; now and then that of another type of event. Two users who read each other's
    /// rooms by the peer have keys of their own: of several rooms each says what it knows.
    fn key(&self, event: &Value, rng: &mut StdRng) -> String {
        let n = rng.random_range(0..12);
        if event.get("peer").is_some() {
            let at = |field: &str| self.users.iter().position(|user| event[field] == **user);
            return format!("{{{:?} {:?}}}|#:{n}", at("user"), at("peer"));
        }
        let name = match rng.random_range(0..20) {
            0 => "any",
            _ => event["type"].as_str().unwrap_or_default(),
        };
        format!("{{{name}}}|#:{n}")
    }

    fn read_all(&self, model: &Model, rng: &mut StdRng) -> Value {
        let mut event = json!({"type": "user.read_all", "user": self.user(rng)});
        if rng.random_bool(0.4) {
            let rooms: Vec<&Room> = model.rooms.values().collect();
            let messages = rooms.choose(rng).map_or(&[][..], |room| &room.messages);
            let time = messages.choose(rng).map_or(START, |m| m.time) + rng.random_range(-1..=1);
            event["up_to_time"] = time.into();
        }
        if rng.random_bool(0.4) {
            let count = rng.random_range(1..=3);
            let kinds = ["direct", "group", "supergroup"].choose_multiple(rng, count);
            event["kinds"] = kinds.copied().collect();
        }
        event
    }

    pub(super) fn message_id(&self, rng: &mut StdRng) -> String {
        match rng.random_range(0..10) {
            0 => format!("few {}", rng.random_range(0..20)),
            1 => format!("m/{{{}}}*:\"", rng.random_range(0..1000)),
            _ => format!("m{}", rng.random::<u32>()),
        }
    }

    fn message(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let lane = self.lane(Some(&room));
        let mut event = json!({
            "type": "message.sent", "room": room, "id": self.message_id(rng), "time": self.time(rng, lane),
            "text": format!("text {} é\"\u{1F600}", rng.random::<u16>()),
        });
        if rng.random_bool(0.9) {
            event["sender"] = self.user(rng).into();
        }
        self.spice(&mut event, rng);
        event
    }

    fn spice(&self, event: &mut Value, rng: &mut StdRng) {
        match rng.random_range(0..10) {
            0..3 => {
                let count = rng.random_range(0..4);
                event["mentions"] = self
                    .everybody
                    .choose_multiple(rng, count)
                    .map(String::as_str)
                    .collect();
            }
            3 => event["mentions"] = "all".into(),
            _ => {}
        }
        if self.knows("except") && rng.random_bool(0.15) {
            let count = rng.random_range(1..4);
            event["except"] = self
                .everybody
                .choose_multiple(rng, count)
                .map(String::as_str)
                .collect();
        }
        if rng.random_bool(0.12) {
            event["silent"] = rng.random_bool(0.9).into();
        }
        if rng.random_bool(0.25) {
            event["mark_read"] = rng.random_bool(0.2).into();
        }
        if rng.random_bool(0.1) {
            event["message_type"] = "image".into();
        }
        if rng.random_bool(0.1) {
            event["payload"] = json!({"extra": {"n": rng.random::<u8>()}, "message": "no"});
        }
    }

    fn message_to(&self, model: &Model, rng: &mut StdRng) -> Value {
        let two: Vec<usize> = rand::seq::index::sample(rng, self.users.len(), 2).into_vec();
        let lane = self.lane(model.direct_room(&self.users[two[0]], &self.users[two[1]]));
        let mut event = json!({
            "type": "message.sent", "to": self.users[two[0]], "sender": self.users[two[1]],
            "id": self.message_id(rng), "text": "to you", "time": self.time(rng, lane),
        });
        self.spice(&mut event, rng);
        event
    }

    /// The id of some message of that room; sometimes of none.
    fn known_message(&self, model: &Model, room: &str, rng: &mut StdRng) -> String {
        let known = model
            .rooms
            .get(room)
            .and_then(|room| room.messages.choose(rng));
        match known {
            Some(message) if rng.random_bool(0.92) => message.id.clone(),
            _ => "no such message".to_owned(),
        }
    }

    pub(super) fn recall(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        // The last message more often than chance would have it: it is shown.
        let last = model
            .rooms
            .get(&room)
            .and_then(|room| room.last())
            .map(|m| m.id.clone());
        let id = match last {
            Some(id) if rng.random_bool(0.3) => id,
            _ => self.known_message(model, &room, rng),
        };
        json!({"type": "message.recalled", "room": room, "id": id})
    }

    fn read(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let mut event = json!({"type": "room.read", "user": self.user(rng)});
        if rng.random_bool(0.15) {
            // Of somebody who has a direct room, as a rule: mostly the peer of now, now and then one who is it no more.
            let members = |room: &Room| room.members.keys().cloned().collect::<Vec<_>>();
            let direct = model
                .rooms
                .values()
                .filter(|room| room.kind == Kind::Direct);
            let met: Vec<(String, Option<String>)> = direct
                .flat_map(|room| {
                    members(room).into_iter().map(|user| {
                        let peer = room.peer_of(&user).map(str::to_owned);
                        (user, peer)
                    })
                })
                .collect();
            event["peer"] = self.user(rng).into();
            if let (Some((user, peer)), true) = (met.choose(rng), rng.random_bool(0.8)) {
                event["user"] = user.clone().into();
                if let (Some(peer), true) = (peer, rng.random_bool(0.8)) {
                    event["peer"] = peer.clone().into();
                }
            }
            return event;
        }
        let joined: Vec<&str> = model.joined(&room).collect();
        if let (Some(user), true) = (joined.choose(rng), rng.random_bool(0.9)) {
            event["user"] = (*user).into();
        }
        match rng.random_range(0..10) {
            0..5 => event["up_to_id"] = self.known_message(model, &room, rng).into(),
            5..8 => {
                let messages = model
                    .rooms
                    .get(&room)
                    .map_or(&[][..], |room| &room.messages);
                let time =
                    messages.choose(rng).map_or(START, |m| m.time) + rng.random_range(-1..=1);
                event["up_to_time"] = time.into();
            }
            _ => {}
        }
        event["room"] = room.into();
        event
    }

    fn membership(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let kind = [
            "member.joined",
            "member.joined",
            "member.joined",
            "member.invited",
            "member.left",
        ]
        .choose(rng)
        .unwrap();
        let mut users: Vec<&str> = match self.pair_of(&room) {
            Some(pair) if rng.random_bool(0.8) => pair.iter().map(String::as_str).collect(),
            _ => self.users.iter().map(String::as_str).collect(),
        };
        let count = if *kind == "member.joined" {
            rng.random_range(1..=5)
        } else {
            rng.random_range(1..=2)
        };
        users = users.choose_multiple(rng, count).copied().collect();
        if let ([user], true) = (users.as_slice(), rng.random_bool(0.5)) {
            return json!({"type": kind, "room": room, "user": user});
        }
        json!({"type": kind, "room": room, "users": users})
    }

    fn room_update(&self, model: &Model, rng: &mut StdRng) -> Value {
        // One that is missing, if there is one, as a rule.
        let given: Vec<&str> = self
            .groups
            .iter()
            .map(String::as_str)
            .chain(self.pairs[..2].iter().map(|p| p.0.as_str()))
            .collect();
        let missing: Vec<&&str> = given
            .iter()
            .filter(|id| !model.rooms.contains_key(**id))
            .collect();
        let room = match missing.choose(rng) {
            Some(id) if rng.random_bool(0.5) => (**id).to_owned(),
            _ => self.room(model, rng),
        };
        let mut event = json!({"type": "room.updated", "room": room});
        // Few creation times, so that some are the same.
        event["time"] = (START + rng.random_range(0..5) * 60_000).into();
        let known = model.rooms.get(&room);
        if known.is_none() && self.pair_of(&room).is_some() {
            event["kind"] = "direct".into();
        } else if known.is_none() && rng.random_bool(0.5) {
            event["kind"] = (*["group", "supergroup"].choose(rng).unwrap()).into();
        } else if known.is_some() && rng.random_bool(0.15) {
            event["kind"] = (*["group", "supergroup", "supergroup", "direct"]
                .choose(rng)
                .unwrap())
            .into();
        }
        if rng.random_bool(0.5) {
            let count = rng.random_range(0..4);
            event["tags"] = TAGS.choose_multiple(rng, count).copied().collect();
        }
        if rng.random_bool(0.4) {
            event["custom_type"] = (*TYPES.choose(rng).unwrap()).into();
        }
        if rng.random_bool(0.3) {
            event["status"] = i32::from(rng.random_bool(0.6)).into();
        }
        if rng.random_bool(0.2) {
            event["name"] = format!("name {}", rng.random_range(0..6)).into();
            event["description"] = "d".into();
            event["bot_mode"] = rng.random_bool(0.5).into();
            event["service_status"] = rng.random_range(0..3).into();
        }
        event
    }

    fn user_update(&self, rng: &mut StdRng) -> Value {
        let mut event = json!({"type": "user.updated", "user": self.user(rng)});
        if rng.random_bool(0.7) {
            event["nickname"] = format!("nick {}", rng.random::<u8>()).into();
        }
        if rng.random_bool(0.5) {
            event["avatar_url"] = "https://example.org/a.png".into();
            event["is_robot"] = rng.random_bool(0.5).into();
            event["last_login_time"] = START.into();
        }
        event
    }

    fn pref(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let joined: Vec<&str> = model.joined(&room).collect();
        let user = match joined.choose(rng) {
            Some(user) if rng.random_bool(0.9) => user,
            _ => self.user(rng),
        };
        let mut event = json!({"type": "pref.updated", "room": room, "user": user});
        for flag in ["hidden", "sticky", "muted"] {
            if rng.random_bool(0.4) {
                event[flag] = rng.random_bool(0.6).into();
            }
        }
        if rng.random_bool(0.5) {
            event["folder"] = (*FOLDERS.choose(rng).unwrap()).into();
        }
        if rng.random_bool(0.5) {
            event["tags"] = ["vip", "later", "a b"]
                .choose_multiple(rng, 2)
                .copied()
                .collect();
            event["tag_colors"] = json!({"vip": "#336699"});
        }
        event
    }
}

/// Fields that may be left out of such an event.
fn may_be_null(event: &Value) -> &'static [&'static str] {
    match event["type"].as_str().unwrap_or_default() {
        "user.updated" => &["nickname", "is_robot", "last_login_time"],
        "room.updated" => &[
            "kind",
            "tags",
            "status",
            "name",
            "encrypted",
            "service_status",
        ],
        "member.joined" | "member.invited" | "member.left" => &["user", "users"],
        "message.sent" => &["room", "to", "text", "mentions", "silent", "mark_read"],
        "message.recalled" => &["room", "to"],
        "room.read" => &[
            "peer",
            "room",
            "up_to_id",
            "up_to_time",
            "up_to_position",
            "key",
        ],
        "user.read_all" => &["up_to_time", "kinds", "key"],
        "pref.updated" => &["tags", "tag_colors", "hidden", "folder", "count", "extra"],
        "room.unread" => &["from_id", "from_time", "from_position", "key"],
        "room.cleared" => &["up_to_id", "up_to_time", "up_to_position", "key"],
        "counts.set" => &["mentions", "room", "peer"],
        "message.updated" => &["room", "to", "text", "payload", "mentions", "key"],
        _ => &[],
    }
}

/// Events that have to be refused for themselves, whatever there is.
fn invalid(rng: &mut StdRng) -> Value {
    let long = "x".repeat(256);
    let tags: Vec<String> = (0..101).map(|n| format!("t{n}")).collect();
    let all = [
        json!({"type": "no.such.type", "room": "r1"}),
        json!({"room": "r1"}),
        json!({"type": "user.updated"}),
        json!({"type": "user.updated", "user": ""}),
        json!({"type": "user.updated", "user": long}),
        json!({"type": "user.updated", "user": "tab\there"}),
        json!({"type": "user.updated", "user": 7}),
        json!({"type": "room.updated", "room": "r1", "kind": "channel"}),
        json!({"type": "room.updated", "room": "r1", "status": 2}),
        json!({"type": "room.updated", "room": "r1", "custom_type": "a,b"}),
        json!({"type": "room.updated", "room": "r1", "tags": ["ok", ""]}),
        json!({"type": "room.updated", "room": "r1", "tags": "work"}),
        json!({"type": "room.updated", "room": "r1", "tags": tags}),
        json!({"type": "member.joined", "room": "r1"}),
        json!({"type": "member.joined", "room": "r1", "users": ["never seen", ""]}),
        json!({"type": "member.joined", "room": "r1", "users": ["never seen", "nul\u{0}"]}),
        json!({"type": "message.sent", "room": "r1", "sender": "alice"}),
        json!({"type": "message.sent", "id": "lost", "sender": "alice"}),
        json!({"type": "message.sent", "id": "from nobody", "to": "never seen"}),
        json!({"type": "message.sent", "room": "r1", "id": "x", "mentions": "everybody"}),
        json!({"type": "message.sent", "room": "r1", "id": "x", "silent": "yes"}),
        json!({"type": "message.sent", "room": "r1", "id": "x", "time": "yesterday"}),
        json!({"type": "message.recalled", "room": "r1"}),
        json!({"type": "room.read", "user": "alice"}),
        json!({"type": "room.read", "room": "r1"}),
        json!({"type": "room.read", "room": "r1", "user": "alice", "key": ""}),
        json!({"type": "user.read_all", "user": "alice", "kinds": []}),
        json!({"type": "user.read_all", "user": "alice", "kinds": ["channel"]}),
        json!({"type": "user.read_all", "user": "alice", "kinds": "group"}),
        json!({"type": "pref.updated", "room": "r1", "user": "alice", "hidden": "yes"}),
    ];
    all.choose(rng).unwrap().clone()
}
