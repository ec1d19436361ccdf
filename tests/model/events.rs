//! What an event does to the app, and what the server answers to it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Checked, Kind, Member, Mentions, Message, Model, Name, Outcome, Room};

const INVALID: &str = "invalid";

fn legal_id(id: &str) -> bool {
    (1..=255).contains(&id.len()) && !id.chars().any(char::is_control)
}

/// A field that has to be a string that can be an id.
fn id<'a>(event: &'a Value, field: &str) -> Checked<&'a str> {
    event
        .get(field)
        .and_then(Value::as_str)
        .filter(|id| legal_id(id))
        .ok_or(INVALID)
}

/// The same, where it may be left out.
fn optional_id<'a>(event: &'a Value, field: &str) -> Checked<Option<&'a str>> {
    if event.get(field).is_none() {
        Ok(None)
    } else {
        id(event, field).map(Some)
    }
}

fn ids(list: &Value) -> Checked<BTreeSet<String>> {
    let list = list.as_array().ok_or(INVALID)?;
    list.iter()
        .map(|id| {
            id.as_str()
                .filter(|id| legal_id(id))
                .map(str::to_owned)
                .ok_or(INVALID)
        })
        .collect()
}

fn text(event: &Value, field: &str) -> Checked<Option<String>> {
    event
        .get(field)
        .map(|v| v.as_str().map(str::to_owned).ok_or(INVALID))
        .transpose()
}

fn flag(event: &Value, field: &str) -> Checked<Option<bool>> {
    event
        .get(field)
        .map(|v| v.as_bool().ok_or(INVALID))
        .transpose()
}

/// Milliseconds, given as an integer or as RFC 3339.
fn time(event: &Value, field: &str) -> Checked<Option<i64>> {
    let parse = |v: &Value| match v {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s
            .parse::<jiff::Timestamp>()
            .ok()
            .map(|t| t.as_millisecond()),
        _ => None,
    };
    event
        .get(field)
        .map(|v| parse(v).ok_or(INVALID))
        .transpose()
}

/// The number of a message.
fn position(event: &Value, field: &str) -> Checked<Option<u64>> {
    let parse = |v: &Value| v.as_u64().filter(|position| *position >= 1).ok_or(INVALID);
    event.get(field).map(parse).transpose()
}

const DETAILS: [(&str, bool); 5] = [
    ("name", true),
    ("cover", true),
    ("description", true),
    ("webhook", true),
    ("bot_state", true),
];

impl Model {
    /// Takes the event and answers what the server has to say to it. A rejected event changes nothing.
    pub fn apply(&mut self, event: &Value) -> Outcome {
        self.try_apply(event).unwrap_or_else(Outcome::Rejected)
    }

    fn try_apply(&mut self, event: &Value) -> Checked<Outcome> {
        // A field that is null is a field left out.
        let mut event = event.clone();
        if let Some(fields) = event.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let event = &event;
        let Some(key) = optional_id(event, "key")? else {
            return self.apply_once(event);
        };
        let kind = event.get("type").and_then(Value::as_str).ok_or(INVALID)?;
        if matches!(kind, "message.sent" | "message.recalled") {
            // Known by its id.
            return self.apply_once(event);
        }
        // As if there were no key, to see whether the event is one.
        let mut after = self.clone();
        let outcome = after.apply_once(event);
        if outcome == Err(INVALID) {
            return outcome;
        }
        let mut names = Vec::new();
        if kind.starts_with("user.") {
            names.push((Name::User(id(event, "user")?.to_owned()), key.to_owned()));
        }
        if event.get("room").is_some() {
            names.push((Name::Room(id(event, "room")?.to_owned()), key.to_owned()));
        } else if event.get("to").is_some() {
            let room = self.direct_room(id(event, "sender")?, id(event, "to")?);
            names.extend(room.map(|room| (Name::Room(room.to_owned()), key.to_owned())));
        } else if event.get("peer").is_some() {
            // The user remembers it too, for that peer: the two may have another room by then.
            let (user, peer) = (id(event, "user")?, id(event, "peer")?);
            names.push((Name::User(user.to_owned()), format!("{key}*{peer}")));
            let rooms = self.rooms_with(user, peer);
            names.extend(rooms.map(|(room, _)| (Name::Room(room.to_owned()), key.to_owned())));
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

    fn apply_once(&mut self, event: &Value) -> Checked<Outcome> {
        let now = time(event, "time")?.unwrap_or(0);
        match event.get("type").and_then(Value::as_str).ok_or(INVALID)? {
            "user.updated" => self.user_updated(event),
            "user.deleted" => self.user_deleted(event),
            "room.updated" => self.room_updated(event, now),
            "room.deleted" => self.room_deleted(event),
            kind @ ("member.joined" | "member.invited" | "member.left") => {
                self.member_changed(event, kind)
            }
            "message.sent" => self.message_sent(event, now),
            "message.updated" => self.message_updated(event),
            "message.recalled" => self.message_recalled(event),
            "room.read" => self.room_read(event),
            "room.cleared" => self.room_cleared(event),
            "user.read_all" => self.user_read_all(event),
            "pref.updated" => self.pref_updated(event),
            _ => Err(INVALID),
        }
    }

    fn room_mut(&mut self, id: &str) -> Checked<&mut Room> {
        self.rooms.get_mut(id).ok_or("room_not_found")
    }

    /// Mentioned is known.
    fn come_to_exist(&mut self, user: &str) {
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

    fn user_deleted(&mut self, event: &Value) -> Checked<Outcome> {
        let user = id(event, "user")?;
        self.users.remove(user).ok_or("user_not_found")?;
        for room in self.rooms.values_mut() {
            room.leave(user);
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

    fn member_changed(&mut self, event: &Value, kind: &str) -> Checked<Outcome> {
        let room = id(event, "room")?;
        let users = match (event.get("users"), event.get("user")) {
            (Some(users), None) => ids(users)?,
            (None, Some(_)) => BTreeSet::from([id(event, "user")?.to_owned()]),
            _ => return Err(INVALID),
        };
        if users.is_empty() {
            return Err(INVALID);
        }
        let room = self.room_mut(room)?;
        if kind != "member.left" && room.kind == Kind::Direct {
            let new = users
                .iter()
                .filter(|user| !room.members.contains_key(*user))
                .count();
            if room.members.len() + new > 2 {
                return Err("direct_room_full");
            }
        }

        // In the order given: of two who leave together one is the last.
        let named = event.get("users").and_then(Value::as_array);
        let named = named.map_or(vec![&event["user"]], |users| users.iter().collect());
        for user in named.into_iter().filter_map(Value::as_str) {
            match kind {
                "member.joined" => room.join(user),
                "member.invited" => {
                    let members = &mut room.members;
                    members.entry(user.to_owned()).or_insert(Member::Invited);
                }
                _ => room.leave(user),
            }
        }
        if kind != "member.left" {
            for user in &users {
                self.come_to_exist(user);
            }
        }
        Ok(Outcome::Applied(None))
    }

    /// The direct rooms in which one of the two is and the other one is the peer; and one that a message of theirs has made,
    /// while nobody is in it and nobody else was last.
    pub fn direct_rooms(&self, a: &str, b: &str) -> Vec<&str> {
        let both = BTreeSet::from([a.to_owned(), b.to_owned()]);
        let is_theirs = |room: &Room| match room.members.len() {
            0 => {
                let last = room.parted.last();
                let before = last.and_then(|last| room.peer_of(last));
                let mut last = last.map(String::as_str).into_iter().chain(before);
                room.pair.as_ref() == Some(&both) && last.all(|user| both.contains(user))
            }
            _ => {
                let is_one = |one: &str, two: &str| {
                    room.members.contains_key(one) && room.peer_of(one) == Some(two)
                };
                is_one(a, b) || is_one(b, a)
            }
        };
        let direct = self
            .rooms
            .iter()
            .filter(|(_, room)| room.kind == Kind::Direct);
        let theirs = direct.filter(|(_, room)| is_theirs(room));
        theirs.map(|(id, _)| id.as_str()).collect()
    }

    /// Of several one, whichever.
    pub fn direct_room(&self, a: &str, b: &str) -> Option<&str> {
        self.direct_rooms(a, b).first().copied()
    }

    /// The id that a room made by `to` has here until the server's own is known; no real id has a control character.
    pub fn unlearned(a: &str, b: &str) -> String {
        let (a, b) = if a < b { (a, b) } else { (b, a) };
        format!("\u{1}{a}\u{1}{b}")
    }

    /// The server's id of a room made by `to` is known now.
    pub fn learn(&mut self, a: &str, b: &str, id: &str) {
        let room = self
            .rooms
            .remove(&Self::unlearned(a, b))
            .expect("a room made by `to`");
        assert!(
            self.rooms.insert(id.to_owned(), room).is_none(),
            "two rooms by the id {id:?}"
        );
    }

    fn message_sent(&mut self, event: &Value, now: i64) -> Checked<Outcome> {
        let room = optional_id(event, "room")?;
        let to = optional_id(event, "to")?;
        let message_id = id(event, "id")?;
        let sender = optional_id(event, "sender")?;
        let content = text(event, "text")?.unwrap_or_default();
        let message_type = text(event, "message_type")?.unwrap_or_else(|| "text".to_owned());
        let payload = match event.get("payload") {
            None => Map::new(),
            Some(payload) => payload.as_object().cloned().ok_or(INVALID)?,
        };
        let given = event.get("time").is_some();
        let mentions = match event.get("mentions") {
            None => Mentions::Users(BTreeSet::new()),
            Some(Value::String(all)) if all == "all" => Mentions::All,
            Some(list) => Mentions::Users(ids(list)?),
        };
        let except = event.get("except").map_or(Ok(BTreeSet::new()), ids)?;
        let silent = flag(event, "silent")?.unwrap_or(false);
        let mark_read = flag(event, "mark_read")?.unwrap_or(true);
        let room_id = match (room, to, sender) {
            (Some(room), None, _) => room.to_owned(),
            (None, Some(to), Some(sender)) if to != sender => self
                .direct_room(sender, to)
                .map_or_else(|| Self::unlearned(sender, to), str::to_owned),
            _ => return Err(INVALID),
        };
        if to.is_none() && !self.rooms.contains_key(&room_id) {
            return Err("room_not_found");
        }
        if let Some(first) = self
            .rooms
            .get(&room_id)
            .and_then(|room| room.message(message_id))
        {
            return Ok(Outcome::Duplicate(first.position));
        }

        if let (Some(to), Some(sender)) = (to, sender) {
            let room = self.rooms.entry(room_id.clone()).or_insert_with(|| {
                let mut room = Room::new(Kind::Direct, now);
                room.pair = Some(BTreeSet::from([to.to_owned(), sender.to_owned()]));
                room
            });
            for user in [to, sender] {
                if !room.members.contains_key(user) {
                    room.join(user);
                }
            }
            self.come_to_exist(to);
        }
        if let Some(sender) = sender {
            self.come_to_exist(sender);
        }
        self.accepted += 1;
        let serial = self.accepted;
        let room = self.room_mut(&room_id)?;
        let position = (!silent).then(|| room.head() + 1);
        room.messages.push(Message {
            id: message_id.to_owned(),
            position,
            sender: sender.map(str::to_owned),
            time: now,
            mentions,
            except,
            recalled: false,
            text: content,
            message_type,
            payload,
            edited: BTreeSet::new(),
            given,
            serial,
        });
        if let (Some(sender), true) = (sender, mark_read) {
            room.read_up_to(sender, room.head());
        }
        Ok(Outcome::Applied(position))
    }

    /// The room of a message that was sent before.
    fn place_of(&self, event: &Value) -> Checked<String> {
        match (optional_id(event, "room")?, optional_id(event, "to")?) {
            (Some(room), None) => Ok(room.to_owned()),
            (None, Some(to)) => {
                let room = self.direct_room(id(event, "sender")?, to);
                Ok(room.ok_or("message_not_found")?.to_owned())
            }
            _ => Err(INVALID),
        }
    }

    fn message_updated(&mut self, event: &Value) -> Checked<Outcome> {
        let message = id(event, "id")?;
        let content = text(event, "text")?;
        let message_type = optional_id(event, "message_type")?;
        let payload = match event.get("payload") {
            None => None,
            Some(payload) => Some(payload.as_object().cloned().ok_or(INVALID)?),
        };
        let mentions = match event.get("mentions") {
            None => None,
            Some(Value::String(all)) if all == "all" => Some(Mentions::All),
            Some(list) => Some(Mentions::Users(ids(list)?)),
        };
        let history = self.history;
        let place = self.place_of(event)?;
        let room = self.room_mut(&place)?;
        let known = room.known(history);
        let message = room.messages[known..]
            .iter_mut()
            .find(|m| m.id == message)
            .ok_or("message_not_found")?;
        if message.recalled {
            return Ok(Outcome::Duplicate(None));
        }
        let mut changed = false;
        if let Some(content) = content {
            changed |= message.text != content;
            message.text = content;
            message.edited.insert("text");
        }
        if let Some(message_type) = message_type {
            changed |= message.message_type != message_type;
            message.message_type = message_type.to_owned();
            message.edited.insert("message_type");
        }
        if let Some(payload) = payload {
            changed |= message.payload != payload;
            message.payload = payload;
            message.edited.insert("payload");
        }
        // A silent message mentions nobody, whatever it says.
        if let (Some(mentions), Some(_)) = (mentions, message.position) {
            changed |= message.mentions != mentions;
            message.mentions = mentions;
        }
        Ok(match changed {
            true => Outcome::Applied(None),
            false => Outcome::Duplicate(None),
        })
    }

    fn message_recalled(&mut self, event: &Value) -> Checked<Outcome> {
        let message = id(event, "id")?;
        let history = self.history;
        let place = self.place_of(event)?;
        let room = self.room_mut(&place)?;
        let known = room.known(history);
        let message = room.messages[known..]
            .iter_mut()
            .find(|m| m.id == message)
            .ok_or("message_not_found")?;
        if message.recalled {
            return Ok(Outcome::Duplicate(None));
        }
        message.recalled = true;
        Ok(Outcome::Applied(None))
    }

    fn room_read(&mut self, event: &Value) -> Checked<Outcome> {
        let user = id(event, "user")?;
        let up_to_id = optional_id(event, "up_to_id")?;
        let up_to_time = time(event, "up_to_time")?;
        let up_to_position = position(event, "up_to_position")?;
        let bounds = [
            up_to_id.is_some(),
            up_to_time.is_some(),
            up_to_position.is_some(),
        ];
        if bounds.into_iter().filter(|given| *given).count() > 1 {
            return Err(INVALID);
        }
        let rooms: Vec<String> = match (optional_id(event, "room")?, optional_id(event, "peer")?) {
            (Some(room), None) => vec![room.to_owned()],
            (None, Some(peer)) => self
                .rooms_with(user, peer)
                .map(|(id, _)| id.to_owned())
                .collect(),
            _ => return Err(INVALID),
        };
        // Where there is nothing to read, all is read; of several rooms one that takes it will do.
        let mut verdict = Ok(Outcome::Applied(None));
        for (n, room) in rooms.iter().enumerate() {
            let read = self.room_read_in(room, user, up_to_id, up_to_time, up_to_position);
            if n == 0 || verdict.is_err() {
                verdict = read;
            }
        }
        verdict
    }

    fn room_read_in(
        &mut self,
        room: &str,
        user: &str,
        up_to_id: Option<&str>,
        up_to_time: Option<i64>,
        up_to_position: Option<u64>,
    ) -> Checked<Outcome> {
        let history = self.history;
        let room = self.room_mut(room)?;
        if !room.has_joined(user) {
            return Err("not_a_member");
        }
        let position = match (up_to_id, up_to_time) {
            (Some(id), _) => room.position_of(id, history)?,
            (None, Some(time)) => room.position_at(user, time, history)?,
            (None, None) => up_to_position.map_or(room.head(), |named| named.min(room.head())),
        };
        room.read_up_to(user, position);
        Ok(Outcome::Applied(None))
    }

    fn room_cleared(&mut self, event: &Value) -> Checked<Outcome> {
        let up_to_id = optional_id(event, "up_to_id")?;
        let up_to_time = time(event, "up_to_time")?;
        let up_to_position = position(event, "up_to_position")?;
        let history = self.history;
        let room = self.room_mut(id(event, "room")?)?;
        let position = match (up_to_id, up_to_time, up_to_position) {
            (Some(id), None, None) => room.position_of(id, history)?,
            // Nobody by that name has read what is forgotten.
            (None, Some(time), None) => room.position_at("", time, history)?,
            (None, None, Some(named)) => named.min(room.head()),
            (None, None, None) => room.head(),
            _ => return Err(INVALID),
        };
        let joined: Vec<String> = room.joined().map(str::to_owned).collect();
        for user in joined {
            room.read_up_to(&user, position);
        }
        Ok(Outcome::Applied(None))
    }

    fn user_read_all(&mut self, event: &Value) -> Checked<Outcome> {
        let user = id(event, "user")?;
        let up_to_time = time(event, "up_to_time")?;
        let kinds = match event.get("kinds") {
            None => BTreeSet::from(["direct", "group", "supergroup"].map(str::to_owned)),
            Some(kinds) => ids(kinds)?,
        };
        if kinds.is_empty() {
            return Err(INVALID);
        }
        let legal = |kind: &String| ["direct", "group", "supergroup"].contains(&kind.as_str());
        if !kinds.iter().all(legal) {
            return Err(INVALID);
        }
        let key = optional_id(event, "key")?;
        if !self.users.contains_key(user) {
            return Err("user_not_found");
        }
        let history = self.history;
        for (id, room) in &mut self.rooms {
            if !room.has_joined(user) || !kinds.contains(room.kind.name()) {
                continue;
            }
            // Each room that is read remembers it, for this user.
            if let Some(key) = key {
                let place = (Name::Room(id.clone()), format!("{key}*{user}"));
                if self.keys.contains_key(&place) {
                    continue;
                }
                self.keys.insert(place, "user.read_all".to_owned());
            }
            let position = match up_to_time {
                None => Ok(room.head()),
                Some(time) => room.position_at(user, time, history),
            };
            // What the room has forgotten stays unread.
            room.read_up_to(user, position.unwrap_or(0));
        }
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
        if let Some(extra) = event.get("extra") {
            let object = extra.is_object().then(|| extra.clone());
            given.insert("extra".to_owned(), object.ok_or(INVALID)?);
        }
        match self.room_mut(room)?.members.get_mut(user) {
            Some(Member::Joined { pref, .. }) => pref.extend(given),
            _ => return Err("not_a_member"),
        }
        Ok(Outcome::Applied(None))
    }
}
