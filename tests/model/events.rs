//! Events: who takes which, what a key does, and what users, rooms and settings come to.

use serde_json::{Map, Value};

use super::fields::{INVALID, flag, id, ids, object, optional_id, text, time};
use super::time::{Order, When};
use super::{Checked, Kind, Model, Name, Outcome, Room};

const DETAILS: [(&str, bool); 5] = [
    ("name", true),
    ("cover", true),
    ("description", true),
    ("webhook", true),
    ("bot_state", true),
];

impl Model {
    /// Takes the event, by arrival, and answers what the server has to say to it. A rejected event changes nothing.
    pub fn apply(&mut self, event: &Value) -> Outcome {
        self.apply_in(Order::Arrival, event)
    }

    /// The same in that order.
    pub fn apply_in(&mut self, order: Order, event: &Value) -> Outcome {
        self.try_apply(event, order)
            .unwrap_or_else(Outcome::Rejected)
    }

    fn try_apply(&mut self, event: &Value, order: Order) -> Checked<Outcome> {
        // A field that is null is a field left out.
        let mut event = event.clone();
        if let Some(fields) = event.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let event = &event;
        let Some(key) = optional_id(event, "key")? else {
            return self.apply_once(event, order);
        };
        let kind = event.get("type").and_then(Value::as_str).ok_or(INVALID)?;
        if matches!(kind, "message.sent" | "message.recalled") {
            // Known by its id.
            return self.apply_once(event, order);
        }
        // As if there were no key, to see whether the event is one.
        let mut after = self.clone();
        let outcome = after.apply_once(event, order);
        if outcome == Err(INVALID) {
            return outcome;
        }
        let mut names = Vec::new();
        if kind.starts_with("user.") {
            names.push((Name::User(id(event, "user")?.to_owned()), key.to_owned()));
        }
        if event.get("room").is_some() {
            names.push((Name::Room(id(event, "room")?.to_owned()), key.to_owned()));
        } else if event.get("peer").is_some() {
            // The user remembers it too, for that peer: the two may have another room by then.
            let (user, peer) = (id(event, "user")?, id(event, "peer")?);
            names.push((Name::User(user.to_owned()), format!("{key}*{peer}")));
            let rooms = self.rooms_with(user, peer);
            names.extend(rooms.map(|(room, _)| (Name::Room(room.to_owned()), key.to_owned())));
        } else if event.get("to").is_some() {
            // Open: an edit has a key as others have, since its id is that of the message and not its own. Between two it is
            // remembered as it is for a peer.
            let (sender, to) = (id(event, "sender")?, id(event, "to")?);
            names.push((Name::User(sender.to_owned()), format!("{key}*{to}")));
            let rooms = self.direct_rooms(sender, to).into_iter();
            names.extend(rooms.map(|room| (Name::Room(room.to_owned()), key.to_owned())));
        }
        for name in &names {
            match self.keys.get(name) {
                Some(taken) if taken == kind => return Ok(Outcome::Duplicate(None)),
                Some(_) => return Err(INVALID),
                None => {}
            }
        }
        let outcome = outcome?;
        *self = after;
        for name in names {
            self.keys.insert(name, kind.to_owned());
        }
        Ok(outcome)
    }

    fn apply_once(&mut self, event: &Value, order: Order) -> Checked<Outcome> {
        let when = &When::of(event, order, self.clock())?;
        let outcome = match event.get("type").and_then(Value::as_str).ok_or(INVALID)? {
            "user.updated" => self.user_updated(event),
            "user.deleted" => self.user_deleted(event, when),
            "room.updated" => self.room_updated(event, when.time),
            "room.deleted" => self.room_deleted(event),
            kind @ ("member.joined" | "member.invited" | "member.left") => {
                self.member_changed(event, kind, when)
            }
            "message.sent" => self.message_sent(event, when),
            "message.recalled" => self.message_recalled(event, when),
            "message.updated" => self.message_updated(event, when),
            "room.read" => self.room_read(event, when),
            "room.unread" => self.room_unread(event, when),
            "room.cleared" => self.room_cleared(event, when),
            "counts.set" => self.counts_set(event, when),
            "user.read_all" => self.user_read_all(event, when),
            "pref.updated" => self.pref_updated(event),
            _ => Err(INVALID),
        };
        if let (Ok(_), Ok(Some(room))) = (&outcome, optional_id(event, "room"))
            && self.rooms.contains_key(room)
        {
            self.stamped(room, when);
        }
        outcome
    }

    pub(super) fn room_mut(&mut self, id: &str) -> Checked<&mut Room> {
        self.rooms.get_mut(id).ok_or("room_not_found")
    }

    /// Mentioned is known.
    pub(super) fn come_to_exist(&mut self, user: &str) {
        self.users.entry(user.to_owned()).or_default();
    }

    fn user_updated(&mut self, event: &Value) -> Checked<Outcome> {
        let user = id(event, "user")?;
        let nickname = text(event, "nickname")?;
        let avatar_url = text(event, "avatar_url")?;
        let is_robot = flag(event, "is_robot")?;
        let last_login_time = time(event, "last_login_time")?;

        let user = self.users.entry(user.to_owned()).or_default();
        user.nickname = nickname.unwrap_or_else(|| user.nickname.clone());
        user.avatar_url = avatar_url.unwrap_or_else(|| user.avatar_url.clone());
        user.is_robot = is_robot.unwrap_or(user.is_robot);
        user.last_login_time = last_login_time.unwrap_or(user.last_login_time);
        Ok(Outcome::Applied(None))
    }

    fn user_deleted(&mut self, event: &Value, when: &When) -> Checked<Outcome> {
        let user = id(event, "user")?;
        self.users.remove(user).ok_or("user_not_found")?;
        for room in self.rooms.values_mut() {
            if room.members.contains_key(user) {
                room.leave(user, when);
            }
        }
        Ok(Outcome::Applied(None))
    }

    fn room_updated(&mut self, event: &Value, now: i64) -> Checked<Outcome> {
        let id = id(event, "room")?;
        let kind = match event.get("kind") {
            None => None,
            Some(kind) => Some(match kind.as_str() {
                Some("direct") => Kind::Direct,
                Some("group") => Kind::Group,
                Some("supergroup") => Kind::Supergroup,
                _ => return Err(INVALID),
            }),
        };
        let custom_type = optional_id(event, "custom_type")?;
        if custom_type.is_some_and(|t| t.contains(',')) {
            return Err(INVALID);
        }
        let tags = event.get("tags").map(ids).transpose()?;
        if tags.as_ref().is_some_and(|tags| tags.len() > 100) {
            return Err(INVALID);
        }
        let active = match event.get("status") {
            None => None,
            Some(status) => Some(match status.as_i64() {
                Some(0) => false,
                Some(1) => true,
                _ => return Err(INVALID),
            }),
        };
        let mut details = Map::new();
        for (field, _) in DETAILS {
            if let Some(value) = text(event, field)? {
                details.insert(field.to_owned(), value.into());
            }
        }
        for field in ["bot_mode", "encrypted"] {
            if let Some(value) = flag(event, field)? {
                details.insert(field.to_owned(), value.into());
            }
        }
        if let Some(value) = event.get("service_status") {
            details.insert(
                "service_status".to_owned(),
                value.as_i64().ok_or(INVALID)?.into(),
            );
        }
        if let (Some(kind), Some(room)) = (kind, self.rooms.get(id))
            && kind != room.kind
            && (room.kind, kind) != (Kind::Group, Kind::Supergroup)
        {
            return Err("kind_change");
        }

        let room = self
            .rooms
            .entry(id.to_owned())
            .or_insert_with(|| Room::new(Kind::Group, now));
        room.kind = kind.unwrap_or(room.kind);
        room.active = active.unwrap_or(room.active);
        room.details.extend(details);
        if let Some(custom_type) = custom_type {
            room.custom_type = Some(custom_type.to_owned());
        }
        if let Some(tags) = tags {
            room.tags = tags;
        }
        Ok(Outcome::Applied(None))
    }

    fn room_deleted(&mut self, event: &Value) -> Checked<Outcome> {
        self.rooms
            .remove(id(event, "room")?)
            .ok_or("room_not_found")?;
        Ok(Outcome::Applied(None))
    }

    fn pref_updated(&mut self, event: &Value) -> Checked<Outcome> {
        let user = id(event, "user")?;
        let room = id(event, "room")?;
        let mut given = Map::new();
        if let Some(tags) = event.get("tags") {
            ids(tags)?;
            given.insert("tags".to_owned(), tags.clone());
        }
        if let Some(colors) = event.get("tag_colors") {
            let strings = colors
                .as_object()
                .is_some_and(|colors| colors.values().all(Value::is_string));
            given.insert(
                "tagColors".to_owned(),
                strings.then(|| colors.clone()).ok_or(INVALID)?,
            );
        }
        for field in ["hidden", "sticky", "muted"] {
            if let Some(value) = flag(event, field)? {
                given.insert(field.to_owned(), value.into());
            }
        }
        if let Some(folder) = text(event, "folder")? {
            given.insert("folder".to_owned(), folder.into());
        }
        if let Some(count) = text(event, "count")? {
            if !["all", "messages", "mentions", "none"].contains(&count.as_str()) {
                return Err(INVALID);
            }
            given.insert("count".to_owned(), count.into());
        }
        if let Some(extra) = object(event, "extra")? {
            let extra = Value::from(extra);
            if extra.to_string().len() > 1024 {
                return Err(INVALID);
            }
            given.insert("extra".to_owned(), extra);
        }
        let membership = self.room_mut(room)?.membership_mut(user)?;
        membership.pref.extend(given);
        Ok(Outcome::Applied(None))
    }
}
