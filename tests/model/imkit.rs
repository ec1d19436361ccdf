//! What IMKIT's endpoints answer; [`super::listing`] has the parameters of `GET /rooms`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Kind, Model, Room, RoomsQuery, User};

impl Room {
    /// IMKIT knows no supergroups.
    pub(super) fn room_type(&self) -> &'static str {
        if self.kind == Kind::Direct {
            "direct"
        } else {
            "group"
        }
    }

    /// All of the user's settings, the defaults included.
    pub fn pref(&self, user: &str) -> Map<String, Value> {
        let mut all = Map::from_iter([
            ("tags".to_owned(), json!([])),
            ("tagColors".to_owned(), json!({})),
            ("hidden".to_owned(), json!(false)),
            ("sticky".to_owned(), json!(false)),
            ("muted".to_owned(), json!(false)),
            ("folder".to_owned(), json!("")),
        ]);
        if let Some(membership) = self.membership(user) {
            all.extend(membership.pref.clone());
        }
        all
    }
}

impl Model {
    /// IMKIT `data`, for the tags asked for or for all.
    pub fn badges(&self, user: &str, tags: Option<&[String]>) -> BTreeMap<String, u64> {
        let mut data: BTreeMap<String, u64> = tags
            .into_iter()
            .flatten()
            .map(|tag| (tag.clone(), 0))
            .collect();
        for (_, room) in self.rooms_of(user) {
            for tag in &room.tags {
                if tags.is_none_or(|tags| tags.contains(tag)) {
                    *data.entry(tag.clone()).or_default() += room.messages_in_sums(user);
                }
            }
        }
        data
    }

    /// IMKIT `GET /rooms`: `totalCount`, and the rooms in the normal form of [`row`](Self::row).
    pub fn rooms(&self, user: &str, query: &RoomsQuery) -> (usize, Vec<Value>) {
        let mut found: Vec<(&str, &Room)> = self
            .rooms_of(user)
            .filter(|(id, room)| query.matches(user, id, room))
            .collect();
        found.sort_by(|a, b| query.order(user, *a, *b));
        let total = found.len();
        let limit = if query.limit == 0 { total } else { query.limit };
        (
            total,
            found
                .into_iter()
                .skip(query.skip)
                .take(limit)
                .map(|(id, room)| self.row(user, id, room))
                .collect(),
        )
    }

    /// One room as `GET /rooms` shows it. Lists that are sets are sorted; what may be absent is null.
    fn row(&self, user: &str, id: &str, room: &Room) -> Value {
        let detail =
            |name: &str, default: Value| room.details.get(name).cloned().unwrap_or(default);
        let pref = room.pref(user);
        let last = room.last().map(|m| {
            // Clients look for more than a text in it.
            let bare = m.message_type == "image" && m.payload.is_empty();
            json!({
                "_id": m.id, "id": m.id, "room": id, "messageTimeMS": m.time, "createdAtMS": m.time,
                "messageType": if m.recalled { "recall" } else if bare { "text" } else { &m.message_type },
                "extra": m.payload.get("extra").filter(|_| !m.recalled),
                "message": if m.recalled { "" } else { &m.text },
                // Whether a recalled message still names its sender is nobody's business here, nor how a sender
                // looks whom nobody knows any more.
                "sender": m.sender.as_ref().filter(|s| !m.recalled && self.users.contains_key(*s)),
            })
        });
        let member = |user: &str| {
            let User {
                nickname,
                avatar_url,
                is_robot,
                last_login_time,
            } = self.users.get(user).cloned().unwrap_or_default();
            json!({
                "_id": user, "id": user, "nickname": nickname, "avatarUrl": avatar_url, "isRobot": is_robot,
                "lastLoginTimeMS": last_login_time, "clientType": "user",
            })
        };
        json!({
            "_id": id, "id": id,
            "name": detail("name", json!("")), "cover": detail("cover", json!("")),
            "description": detail("description", json!("")), "webhook": detail("webhook", json!("")),
            "botState": detail("bot_state", json!("")), "botMode": detail("bot_mode", json!(false)),
            "encrypted": detail("encrypted", json!(false)), "serviceStatus": detail("service_status", json!(0)),
            "roomType": room.room_type(), "roomTags": room.tags, "status": 1,
            "unread": room.unread(user), "muted": pref["muted"], "lastMessage": last,
            "members": room.joined().map(member).collect::<Vec<_>>(),
            "pref": pref, "createdTimeMS": room.created,
        })
    }
}
