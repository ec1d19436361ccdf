//! What the native API answers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Kind, Model, Room};

impl Model {
    fn by_kind(&self, count: impl Fn(&Room) -> u64) -> Value {
        let of = |kind| {
            self.rooms
                .values()
                .filter(|room| room.kind == kind)
                .map(&count)
                .sum::<u64>()
        };
        let (direct, group, supergroup) = (of(Kind::Direct), of(Kind::Group), of(Kind::Supergroup));
        json!({
            "total": direct + group + supergroup, "direct": direct, "group": group, "supergroup": supergroup,
        })
    }

    /// The four families of counts; none for an unknown user.
    fn counts(&self, user: &str) -> Option<Value> {
        self.users.get(user)?;
        Some(json!({
            "messages": self.by_kind(|room| room.messages_in_sums(user)),
            "mentions": self.by_kind(|room| room.mentions_in_sums(user)),
            "invitations": self.by_kind(|room| room.invited(user)),
            "unread_rooms": self.by_kind(|room| u64::from(room.messages_in_sums(user) > 0)),
        }))
    }

    /// `GET /v1/users/{user}/unread`; none: 404. Tags in a room are sorted, no custom type is null.
    pub fn native(&self, user: &str, include_rooms: bool) -> Option<Value> {
        let mut answer = self.counts(user)?;
        answer["user"] = user.into();
        answer["tags"] = json!(self.badges(user, None));
        let mut types = BTreeMap::new();
        for (_, room) in self.rooms_of(user) {
            if let Some(custom_type) = &room.custom_type {
                *types.entry(custom_type).or_insert(0) += room.messages_in_sums(user);
            }
        }
        answer["types"] = json!(types);
        if include_rooms {
            let row = |(id, room): (&str, &Room)| {
                let pref = room.pref(user);
                let mut row = json!({
                    "room": id, "kind": room.kind.name(), "custom_type": room.custom_type, "tags": room.tags,
                    "messages": room.unread(user), "mentions": room.mentions(user), "count": pref.get("count").unwrap_or(&json!("all")),
                    "muted": pref["muted"], "hidden": pref["hidden"],
                });
                if let (Kind::Direct, Some(peer)) = (room.kind, room.peer_of(user)) {
                    row["peer"] = peer.into();
                }
                if !self.lost_messages {
                    row["read_position"] = room.read_position(user).into();
                    row["head"] = room.head().into();
                }
                row
            };
            answer["rooms"] = self.rooms_of(user).map(row).collect();
        }
        Some(answer)
    }

    /// `POST /v1/unread`, the value of `users`.
    pub fn native_many(&self, users: &[String]) -> Value {
        users
            .iter()
            .map(|user| (user.clone(), json!(self.counts(user))))
            .collect::<Map<_, _>>()
            .into()
    }

    /// `GET /v1/rooms/{room}/unread`, the value of `unread`; none: 404.
    pub fn native_room(
        &self,
        room: &str,
        users: Option<&[String]>,
    ) -> Option<BTreeMap<String, u64>> {
        let room = self.rooms.get(room)?;
        let asked = |user: &&str| users.is_none_or(|users| users.iter().any(|asked| asked == user));
        Some(
            room.joined()
                .filter(asked)
                .map(|user| (user.to_owned(), room.unread(user)))
                .collect(),
        )
    }

    /// The same with `include=read`, the value of `read`; none: 404.
    pub fn native_read(
        &self,
        room: &str,
        users: Option<&[String]>,
    ) -> Option<BTreeMap<String, i64>> {
        let room = self.rooms.get(room)?;
        let asked = |user: &&str| users.is_none_or(|users| users.iter().any(|asked| asked == user));
        let joined = room.joined().filter(asked);
        let read = joined.filter_map(|user| Some((user.to_owned(), room.read_position(user)?)));
        Some(read.collect())
    }
}
