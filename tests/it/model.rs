//! What every answer has to be, in memory, as slow and plain as the definition of the counts.
//!
//! Nothing is kept that could be derived: a count is the length of a list of messages, found anew for every question.
//! [`Model::apply`] takes an event as it goes over the wire and answers what the server must answer to it; the other
//! functions answer one endpoint each.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// What the server says to one event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With the position, for a message that counts.
    Applied(Option<u64>),
    /// With the position of the first time, for a message that counts.
    Duplicate(Option<u64>),
    /// With the code.
    Rejected(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Direct,
    Group,
    Supergroup,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Supergroup => "supergroup",
        }
    }
}

#[derive(Clone, Default)]
pub struct User {
    pub nickname: String,
    pub avatar_url: String,
    pub is_robot: bool,
    pub last_login_time: i64,
}

#[derive(Clone)]
pub struct Room {
    pub kind: Kind,
    pub custom_type: Option<String>,
    pub tags: BTreeSet<String>,
    pub active: bool,
    /// `name`, `cover`, `webhook`, …: shown, never interpreted; by the names of the events.
    pub details: Map<String, Value>,
    pub created: i64,
    pub members: BTreeMap<String, Member>,
    /// All that were accepted, in that order, the silent ones included.
    pub messages: Vec<Message>,
    /// The two for whom a `to` message made this room.
    pair: Option<BTreeSet<String>>,
    /// Who has left or was deleted, in that order.
    parted: Vec<String>,
}

#[derive(Clone)]
pub enum Member {
    Invited,
    Joined {
        read: u64,
        /// The user's own settings, by the names that `GET /rooms` shows; what is not there has its default.
        pref: Map<String, Value>,
    },
}

#[derive(Clone)]
pub struct Message {
    pub id: String,
    /// None: silent.
    pub position: Option<u64>,
    pub sender: Option<String>,
    pub time: i64,
    pub mentions: Mentions,
    pub recalled: bool,
    pub text: String,
    pub message_type: String,
    pub payload: Map<String, Value>,
    /// Whether the event gave the time; without, the message can't be late.
    given: bool,
    /// The order of acceptance over all rooms.
    pub serial: u64,
}

#[derive(Clone)]
pub enum Mentions {
    Users(BTreeSet<String>),
    All,
}

/// Whether a time is in the future: it is then taken as that of acceptance. No test goes near the border.
fn is_future(time: i64) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u128::try_from(time).is_ok_and(|time| time > now.unwrap().as_millis())
}

impl Room {
    /// The message that `GET /rooms` shows: the one accepted last, unless its time is before that of the one before it.
    pub fn last(&self) -> Option<&Message> {
        self.messages.iter().reduce(|last, m| {
            let late = match (is_future(last.time), is_future(m.time)) {
                (_, true) => false,
                (true, false) => true,
                (false, false) => m.time < last.time,
            };
            if late && m.given { last } else { m }
        })
    }

    /// The last number given.
    pub fn head(&self) -> u64 {
        self.messages
            .iter()
            .filter_map(|m| m.position)
            .max()
            .unwrap_or(0)
    }

    pub fn message(&self, id: &str) -> Option<&Message> {
        self.messages.iter().find(|m| m.id == id)
    }

    pub fn joined(&self) -> impl Iterator<Item = &str> {
        self.members
            .iter()
            .filter(|(_, m)| matches!(m, Member::Joined { .. }))
            .map(|(user, _)| user.as_str())
    }

    pub fn has_joined(&self, user: &str) -> bool {
        matches!(self.members.get(user), Some(Member::Joined { .. }))
    }

    fn join(&mut self, user: &str) {
        if !self.has_joined(user) {
            self.members.insert(
                user.to_owned(),
                Member::Joined {
                    read: self.head(),
                    pref: Map::new(),
                },
            );
        }
    }

    fn leave(&mut self, user: &str) {
        if self.members.remove(user).is_some() {
            self.parted.push(user.to_owned());
        }
    }

    /// Where among all messages the history begins.
    fn known(&self, history: Option<usize>) -> usize {
        history.map_or(0, |most| self.messages.len().saturating_sub(most))
    }

    /// How far who has read that message has read.
    fn position_of(&self, id: &str, history: Option<usize>) -> Verdict<u64> {
        let at = self.messages.iter().position(|m| m.id == id);
        let is_last = self.last().is_some_and(|last| last.id == id);
        let at = at
            .filter(|at| *at >= self.known(history) || is_last)
            .ok_or("message_not_found")?;
        let up_to = self.messages[..=at].iter();
        Ok(up_to.filter_map(|m| m.position).max().unwrap_or(0))
    }

    /// How far who has read all up to a time has read, if the room still knows.
    fn position_at(&self, user: &str, time: i64, history: Option<usize>) -> Verdict<u64> {
        let counted: Vec<(u64, i64)> = self
            .messages
            .iter()
            .filter_map(|m| Some((m.position?, m.time)))
            .collect();
        if counted.iter().all(|(_, at)| *at <= time) {
            return Ok(self.head());
        }
        if counted.iter().all(|(_, at)| *at > time) {
            return Ok(0);
        }
        let known = self.messages[self.known(history)..].iter();
        let known: Vec<(u64, i64)> = known.filter_map(|m| Some((m.position?, m.time))).collect();
        if let Some((position, _)) = known.iter().rev().find(|(_, at)| *at <= time) {
            return Ok(*position);
        }
        let first = known.first().map_or(self.head() + 1, |(first, _)| *first);
        match self.members.get(user) {
            // All that is forgotten has been read.
            Some(Member::Joined { read, .. }) if *read + 1 >= first => Ok(0),
            _ => Err("message_not_found"),
        }
    }

    /// The other member of a direct room, or whoever was the other member last.
    pub fn peer_of(&self, user: &str) -> Option<&str> {
        let others = self.members.keys().chain(self.parted.iter().rev());
        others.map(String::as_str).find(|other| *other != user)
    }

    fn read_up_to(&mut self, user: &str, position: u64) {
        if let Some(Member::Joined { read, .. }) = self.members.get_mut(user) {
            *read = position.max(*read);
        }
    }

    fn unread_messages<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a Message> {
        let read = match self.members.get(user) {
            Some(Member::Joined { read, .. }) if self.active => *read,
            _ => u64::MAX,
        };
        self.messages.iter().filter(move |m| {
            m.position.is_some_and(|p| read < p) && m.sender.as_deref() != Some(user) && !m.recalled
        })
    }

    /// unread(u, r)
    pub fn unread(&self, user: &str) -> u64 {
        self.unread_messages(user).count() as u64
    }

    /// mentions(u, r)
    pub fn mentions(&self, user: &str) -> u64 {
        let named = |m: &&Message| match &m.mentions {
            Mentions::Users(users) => users.contains(user),
            Mentions::All => true,
        };
        self.unread_messages(user).filter(named).count() as u64
    }

    /// invited(u, r)
    pub fn invited(&self, user: &str) -> u64 {
        u64::from(self.active && matches!(self.members.get(user), Some(Member::Invited)))
    }

    /// IMKIT knows no supergroups.
    fn room_type(&self) -> &'static str {
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
        if let Some(Member::Joined { pref, .. }) = self.members.get(user) {
            all.extend(pref.clone());
        }
        all
    }
}

/// One app.
#[derive(Clone, Default)]
pub struct Model {
    pub users: BTreeMap<String, User>,
    pub rooms: BTreeMap<String, Room>,
    /// How many messages the history of a room holds; none: more than any test sends. (None of them grows old.)
    pub history: Option<usize>,
    /// What events with a key have left: the name of a room or of a user, the key, and the type of event.
    keys: BTreeMap<(Name, String), String>,
    accepted: u64,
}

/// What takes keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Room(String),
    User(String),
}

// ---------------------------------------------------------------------------------------------------------- events

type Verdict<T> = Result<T, &'static str>;

const INVALID: &str = "invalid";

fn legal_id(id: &str) -> bool {
    (1..=255).contains(&id.len()) && !id.chars().any(char::is_control)
}

/// A field that has to be a string that can be an id.
fn id<'a>(event: &'a Value, field: &str) -> Verdict<&'a str> {
    event
        .get(field)
        .and_then(Value::as_str)
        .filter(|id| legal_id(id))
        .ok_or(INVALID)
}

/// The same, where it may be left out.
fn optional_id<'a>(event: &'a Value, field: &str) -> Verdict<Option<&'a str>> {
    if event.get(field).is_none() {
        Ok(None)
    } else {
        id(event, field).map(Some)
    }
}

fn ids(list: &Value) -> Verdict<BTreeSet<String>> {
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

fn text(event: &Value, field: &str) -> Verdict<Option<String>> {
    event
        .get(field)
        .map(|v| v.as_str().map(str::to_owned).ok_or(INVALID))
        .transpose()
}

fn flag(event: &Value, field: &str) -> Verdict<Option<bool>> {
    event
        .get(field)
        .map(|v| v.as_bool().ok_or(INVALID))
        .transpose()
}

/// Milliseconds, given as an integer or as RFC 3339.
fn time(event: &Value, field: &str) -> Verdict<Option<i64>> {
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

    fn try_apply(&mut self, event: &Value) -> Verdict<Outcome> {
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

    fn apply_once(&mut self, event: &Value) -> Verdict<Outcome> {
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
            "message.recalled" => self.message_recalled(event),
            "room.read" => self.room_read(event),
            "user.read_all" => self.user_read_all(event),
            "pref.updated" => self.pref_updated(event),
            _ => Err(INVALID),
        }
    }

    fn room_mut(&mut self, id: &str) -> Verdict<&mut Room> {
        self.rooms.get_mut(id).ok_or("room_not_found")
    }

    /// Mentioned is known.
    fn come_to_exist(&mut self, user: &str) {
        self.users.entry(user.to_owned()).or_default();
    }

    fn user_updated(&mut self, event: &Value) -> Verdict<Outcome> {
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

    fn user_deleted(&mut self, event: &Value) -> Verdict<Outcome> {
        let user = id(event, "user")?;
        self.users.remove(user).ok_or("user_not_found")?;
        for room in self.rooms.values_mut() {
            room.leave(user);
        }
        Ok(Outcome::Applied(None))
    }

    fn room_updated(&mut self, event: &Value, now: i64) -> Verdict<Outcome> {
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

    fn room_deleted(&mut self, event: &Value) -> Verdict<Outcome> {
        self.rooms
            .remove(id(event, "room")?)
            .ok_or("room_not_found")?;
        Ok(Outcome::Applied(None))
    }

    fn member_changed(&mut self, event: &Value, kind: &str) -> Verdict<Outcome> {
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

    fn message_sent(&mut self, event: &Value, now: i64) -> Verdict<Outcome> {
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
            recalled: false,
            text: content,
            message_type,
            payload,
            given,
            serial,
        });
        if let (Some(sender), true) = (sender, mark_read) {
            room.read_up_to(sender, room.head());
        }
        Ok(Outcome::Applied(position))
    }

    fn message_recalled(&mut self, event: &Value) -> Verdict<Outcome> {
        let message = id(event, "id")?;
        let history = self.history;
        let room = self.room_mut(id(event, "room")?)?;
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

    fn room_read(&mut self, event: &Value) -> Verdict<Outcome> {
        let user = id(event, "user")?;
        let up_to_id = optional_id(event, "up_to_id")?;
        let up_to_time = time(event, "up_to_time")?;
        if up_to_id.is_some() && up_to_time.is_some() {
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
            let read = self.room_read_in(room, user, up_to_id, up_to_time);
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
    ) -> Verdict<Outcome> {
        let history = self.history;
        let room = self.room_mut(room)?;
        if !room.has_joined(user) {
            return Err("not_a_member");
        }
        let position = match (up_to_id, up_to_time) {
            (Some(id), _) => room.position_of(id, history)?,
            (None, Some(time)) => room.position_at(user, time, history)?,
            (None, None) => room.head(),
        };
        room.read_up_to(user, position);
        Ok(Outcome::Applied(None))
    }

    fn user_read_all(&mut self, event: &Value) -> Verdict<Outcome> {
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

    fn pref_updated(&mut self, event: &Value) -> Verdict<Outcome> {
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
        match self.room_mut(room)?.members.get_mut(user) {
            Some(Member::Joined { pref, .. }) => pref.extend(given),
            _ => return Err("not_a_member"),
        }
        Ok(Outcome::Applied(None))
    }
}

impl Room {
    fn new(kind: Kind, created: i64) -> Self {
        Self {
            kind,
            custom_type: None,
            tags: BTreeSet::new(),
            active: true,
            details: Map::new(),
            created,
            members: BTreeMap::new(),
            messages: Vec::new(),
            pair: None,
            parted: Vec::new(),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- answers

/// The nine keys of Sendbird.
pub const ITEM_KEYS: [&str; 9] = [
    "non_super_group_channel_unread_message_count",
    "super_group_channel_unread_message_count",
    "group_channel_unread_message_count",
    "non_super_group_channel_invitation_count",
    "super_group_channel_invitation_count",
    "group_channel_invitation_count",
    "non_super_group_channel_unread_mention_count",
    "super_group_channel_unread_mention_count",
    "group_channel_unread_mention_count",
];

/// What Tencent says of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Count(u64),
    Unknown,
}

impl Model {
    /// The rooms that the user has joined and that are active: the only ones that show up anywhere.
    pub fn rooms_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = (&'a str, &'a Room)> {
        self.rooms
            .iter()
            .filter(|(_, room)| room.active && room.has_joined(user))
            .map(|(id, room)| (id.as_str(), room))
    }

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

    /// The three families of counts; none for an unknown user.
    fn counts(&self, user: &str) -> Option<Value> {
        self.users.get(user)?;
        Some(json!({
            "messages": self.by_kind(|room| room.unread(user)),
            "mentions": self.by_kind(|room| room.mentions(user)),
            "invitations": self.by_kind(|room| room.invited(user)),
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
                *types.entry(custom_type).or_insert(0) += room.unread(user);
            }
        }
        answer["types"] = json!(types);
        if include_rooms {
            let row = |(id, room): (&str, &Room)| {
                json!({
                    "room": id, "kind": room.kind.name(), "custom_type": room.custom_type, "tags": room.tags,
                    "messages": room.unread(user), "mentions": room.mentions(user),
                })
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

    /// Tencent `AllC2CUnreadMsgNum`; none: 90003.
    pub fn tencent_total(&self, user: &str) -> Option<u64> {
        self.users.get(user)?;
        Some(
            self.rooms
                .values()
                .filter(|room| room.kind == Kind::Direct)
                .map(|room| room.unread(user))
                .sum(),
        )
    }

    /// Tencent per peer, distinct and in the order asked; none: 90003.
    pub fn tencent_peers(&self, user: &str, peers: &[String]) -> Option<Vec<(String, Peer)>> {
        self.users.get(user)?;
        let mut answer: Vec<(String, Peer)> = Vec::new();
        for peer in peers {
            if answer.iter().any(|(known, _)| known == peer) {
                continue;
            }
            let theirs = || self.rooms_with(user, peer);
            let count = theirs().map(|(_, room)| room.unread(user)).sum();
            let known = peer == user || self.users.contains_key(peer) || theirs().next().is_some();
            answer.push((
                peer.clone(),
                if known {
                    Peer::Count(count)
                } else {
                    Peer::Unknown
                },
            ));
        }
        Some(answer)
    }

    /// The direct rooms of a user, invited or joined, whose peer is that one.
    fn rooms_with<'a>(
        &'a self,
        user: &'a str,
        peer: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Room)> {
        let direct = self
            .rooms
            .iter()
            .filter(|(_, room)| room.kind == Kind::Direct);
        direct
            .filter(move |(_, room)| {
                room.members.contains_key(user) && room.peer_of(user) == Some(peer)
            })
            .map(|(id, room)| (id.as_str(), room))
    }

    /// Sendbird's nine; none: 400201.
    pub fn sendbird(
        &self,
        user: &str,
        types: Option<&[String]>,
    ) -> Option<BTreeMap<&'static str, u64>> {
        self.users.get(user)?;
        let asked = |room: &&Room| {
            types.is_none_or(|types| room.custom_type.as_ref().is_some_and(|t| types.contains(t)))
        };
        let sum = |count: &dyn Fn(&Room) -> u64, supergroup: bool| -> u64 {
            self.rooms
                .values()
                .filter(asked)
                .filter(|room| (room.kind == Kind::Supergroup) == supergroup)
                .map(count)
                .sum()
        };
        let three = |count: &dyn Fn(&Room) -> u64| {
            let (non_super, superg) = (sum(count, false), sum(count, true));
            [non_super, superg, non_super + superg]
        };
        let all = [
            three(&|room| room.unread(user)),
            three(&|room| room.invited(user)),
            three(&|room| room.mentions(user)),
        ];
        Some(
            ITEM_KEYS
                .into_iter()
                .zip(all.into_iter().flatten())
                .collect(),
        )
    }

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
                    *data.entry(tag.clone()).or_default() += room.unread(user);
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

// ---------------------------------------------------------------------------------------------------------- GET /rooms

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    LastMessage,
    CreatedTime,
    Id,
    Name,
    Description,
    RoomType,
    ServiceStatus,
    Unread,
}

impl SortBy {
    pub const ALL: [Self; 8] = [
        Self::LastMessage,
        Self::CreatedTime,
        Self::Id,
        Self::Name,
        Self::Description,
        Self::RoomType,
        Self::ServiceStatus,
        Self::Unread,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::LastMessage => "lastMessage",
            Self::CreatedTime => "createdTime",
            Self::Id => "_id",
            Self::Name => "name",
            Self::Description => "description",
            Self::RoomType => "roomType",
            Self::ServiceStatus => "serviceStatus",
            Self::Unread => "unread",
        }
    }
}

/// One condition on one field, of `q` or of `pref`.
#[derive(Clone, Debug)]
pub enum Condition {
    /// On a list: contains.
    Equal(Value),
    In(Vec<Value>),
    All(Vec<Value>),
    NotEqual(Value),
    Exists(bool),
}

impl Condition {
    fn to_json(&self) -> Value {
        match self {
            Self::Equal(value) => value.clone(),
            Self::In(values) => json!({ "$in": values }),
            Self::All(values) => json!({ "$all": values }),
            Self::NotEqual(value) => json!({ "$ne": value }),
            Self::Exists(yes) => json!({ "$exists": yes }),
        }
    }

    fn holds(&self, actual: &Value) -> bool {
        let has = |wanted: &Value| {
            actual == wanted || actual.as_array().is_some_and(|list| list.contains(wanted))
        };
        match self {
            Self::Equal(value) => has(value),
            Self::In(values) => values.iter().any(has),
            Self::All(values) => values.iter().all(has),
            Self::NotEqual(value) => !has(value),
            // Only asked of fields that have a default.
            Self::Exists(yes) => *yes,
        }
    }
}

/// The parameters of `GET /rooms`.
#[derive(Clone, Debug, Default)]
pub struct RoomsQuery {
    pub skip: usize,
    pub limit: usize,
    /// With true for descending; empty: the parameter is left out.
    pub sort: Vec<(SortBy, bool)>,
    pub unread_first: bool,
    pub updated_after: Option<i64>,
    /// `updatedAfter` as ISO 8601 and not as a number.
    pub as_iso: bool,
    /// `roomTags`, `roomType`, `_id`.
    pub q: Vec<(&'static str, Condition)>,
    /// Send `members` in `q`, as the vendor's web client does.
    pub q_members: bool,
    pub pref: Vec<(&'static str, Condition)>,
}

impl RoomsQuery {
    /// As parameters, not yet encoded.
    pub fn parameters(&self, user: &str) -> Vec<(String, String)> {
        let mut list = Vec::new();
        let mut add = |name: &str, value: String| list.push((name.to_owned(), value));
        if self.skip > 0 {
            add("skip", self.skip.to_string());
        }
        if self.limit > 0 {
            add("limit", self.limit.to_string());
        }
        if !self.sort.is_empty() {
            let word = |(by, descending): &(SortBy, bool)| {
                format!("{}{}", if *descending { "-" } else { "" }, by.name())
            };
            add(
                "sort",
                self.sort.iter().map(word).collect::<Vec<_>>().join(" "),
            );
        }
        if self.unread_first {
            add("sortUnreadFirst", "1".to_owned());
        }
        if let Some(ms) = self.updated_after {
            let iso = || jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
            add(
                "updatedAfter",
                if self.as_iso { iso() } else { ms.to_string() },
            );
        }
        let object = |conditions: &[(&str, Condition)]| {
            conditions
                .iter()
                .map(|(field, c)| ((*field).to_owned(), c.to_json()))
                .collect::<Map<_, _>>()
        };
        let mut q = object(&self.q);
        if self.q_members {
            q.insert("members".to_owned(), user.into());
        }
        if !q.is_empty() {
            add("q", Value::from(q).to_string());
        }
        if !self.pref.is_empty() {
            add("pref", Value::from(object(&self.pref)).to_string());
        }
        list
    }

    fn matches(&self, user: &str, id: &str, room: &Room) -> bool {
        let news = self.updated_after.is_none_or(|ms| {
            let second = ms.div_euclid(1000) * 1000;
            // All was accepted in the past, and no test asks for what was not sent long before or long after now.
            let is_new = |m: &Message| m.time >= second || !is_future(second);
            room.last().is_some_and(is_new) || room.created > ms
        });
        let field = |name: &str| match name {
            "roomTags" => json!(room.tags),
            "roomType" => room.room_type().into(),
            "_id" => id.into(),
            other => panic!("no such field of a room: {other}"),
        };
        let pref = room.pref(user);
        news && self.q.iter().all(|(name, c)| c.holds(&field(name)))
            && self.pref.iter().all(|(name, c)| c.holds(&pref[*name]))
    }

    fn order(&self, user: &str, a: (&str, &Room), b: (&str, &Room)) -> Ordering {
        let sort = if self.sort.is_empty() {
            &[(SortBy::LastMessage, true), (SortBy::CreatedTime, true)][..]
        } else {
            &self.sort
        };
        // None, for a room without messages, is less than any message.
        let last = |room: &Room| room.last().map(|m| (m.time, m.serial));
        fn text<'a>(room: &'a Room, name: &str) -> &'a str {
            let text = room.details.get(name).and_then(Value::as_str);
            text.unwrap_or("")
        }
        let by_sort = sort.iter().map(|(by, descending)| {
            let order = match by {
                SortBy::LastMessage => last(a.1).cmp(&last(b.1)),
                SortBy::CreatedTime => a.1.created.cmp(&b.1.created),
                SortBy::Id => a.0.cmp(b.0),
                SortBy::Name => text(a.1, "name").cmp(text(b.1, "name")),
                SortBy::Description => text(a.1, "description").cmp(text(b.1, "description")),
                SortBy::RoomType => a.1.room_type().cmp(b.1.room_type()),
                SortBy::ServiceStatus => {
                    let status = |room: &Room| {
                        let status = room.details.get("service_status");
                        status.and_then(Value::as_i64).unwrap_or(0)
                    };
                    status(a.1).cmp(&status(b.1))
                }
                SortBy::Unread => a.1.unread(user).cmp(&b.1.unread(user)),
            };
            if *descending { order.reverse() } else { order }
        });
        let read = |room: &Room| room.unread(user) == 0;
        let unread_first = if self.unread_first {
            read(a.1).cmp(&read(b.1))
        } else {
            Ordering::Equal
        };
        by_sort
            .fold(unread_first, Ordering::then)
            .then(a.0.cmp(b.0))
    }
}

// ---------------------------------------------------------------------------------------------------------- its tests

/// Examples computed by hand from the definition: what the model itself has to be measured by.
mod tests {
    use super::*;

    fn model(events: &[Value]) -> Model {
        let mut model = Model::default();
        for event in events {
            assert!(
                !matches!(model.apply(event), Outcome::Rejected(_)),
                "{event}"
            );
        }
        model
    }

    /// A group of alice, bob and carol, with the tags a and b.
    fn group() -> Model {
        model(&[
            json!({"type": "room.updated", "room": "r", "tags": ["a", "b"], "custom_type": "t", "time": 1000}),
            json!({"type": "member.joined", "room": "r", "users": ["alice", "bob", "carol"]}),
        ])
    }

    fn send(model: &mut Model, id: &str, sender: &str) -> Outcome {
        model.apply(
            &json!({"type": "message.sent", "room": "r", "id": id, "sender": sender, "time": 2000}),
        )
    }

    #[test]
    fn positions_are_given_once_and_not_to_silent_messages() {
        let mut m = group();
        assert_eq!(send(&mut m, "1", "alice"), Outcome::Applied(Some(1)));
        let silent = json!({"type": "message.sent", "room": "r", "id": "s", "sender": "alice", "silent": true});
        assert_eq!(m.apply(&silent), Outcome::Applied(None));
        assert_eq!(m.apply(&silent), Outcome::Duplicate(None));
        assert_eq!(send(&mut m, "2", "alice"), Outcome::Applied(Some(2)));
        assert_eq!(send(&mut m, "1", "bob"), Outcome::Duplicate(Some(1)));
        let room = &m.rooms["r"];
        assert_eq!(
            (
                room.unread("alice"),
                room.unread("bob"),
                room.unread("dave")
            ),
            (0, 2, 0)
        );
    }

    #[test]
    fn sending_reads_unless_told_not_to() {
        let mut m = group();
        send(&mut m, "1", "alice");
        m.apply(&json!({"type": "message.sent", "room": "r", "id": "2", "sender": "bob", "mark_read": false}));
        assert_eq!(m.rooms["r"].unread("bob"), 1);
        send(&mut m, "3", "bob");
        assert_eq!(m.rooms["r"].unread("bob"), 0);
        assert_eq!(m.rooms["r"].unread("carol"), 3);
        send(&mut m, "4", "alice");
        m.apply(&json!({"type": "message.sent", "room": "r", "id": "s", "sender": "bob", "silent": true}));
        assert_eq!(m.rooms["r"].unread("bob"), 0);
    }

    #[test]
    fn reading_never_moves_back() {
        let mut m = group();
        for (id, time) in [("1", 500), ("2", 100), ("3", 900)] {
            m.apply(&json!({"type": "message.sent", "room": "r", "id": id, "time": time}));
        }
        let read = |m: &mut Model, how: Value| {
            let mut event = json!({"type": "room.read", "room": "r", "user": "bob"});
            event
                .as_object_mut()
                .unwrap()
                .extend(how.as_object().unwrap().clone());
            (m.apply(&event), m.rooms["r"].unread("bob"))
        };
        assert_eq!(
            read(&mut m, json!({"up_to_time": 99})),
            (Outcome::Applied(None), 3)
        );
        // The second message is the highest position at or before 100, and takes the first with it.
        assert_eq!(
            read(&mut m, json!({"up_to_time": 100})),
            (Outcome::Applied(None), 1)
        );
        assert_eq!(
            read(&mut m, json!({"up_to_id": "1"})),
            (Outcome::Applied(None), 1)
        );
        assert_eq!(
            read(&mut m, json!({"up_to_id": "x"})),
            (Outcome::Rejected("message_not_found"), 1)
        );
        assert_eq!(read(&mut m, json!({})), (Outcome::Applied(None), 0));
        let stranger = json!({"type": "room.read", "room": "r", "user": "dave"});
        assert_eq!(m.apply(&stranger), Outcome::Rejected("not_a_member"));
    }

    #[test]
    fn a_recall_is_subtracted_from_those_who_had_not_read() {
        let mut m = group();
        m.apply(&json!({"type": "message.sent", "room": "r", "id": "1", "sender": "alice", "mentions": ["bob", "x"]}));
        m.apply(&json!({"type": "message.sent", "room": "r", "id": "2", "sender": "alice", "mentions": "all"}));
        m.apply(&json!({"type": "room.read", "room": "r", "user": "carol", "up_to_id": "1"}));
        assert_eq!(
            (m.rooms["r"].mentions("bob"), m.rooms["r"].mentions("carol")),
            (2, 1)
        );
        let recall = json!({"type": "message.recalled", "room": "r", "id": "1"});
        assert_eq!(m.apply(&recall), Outcome::Applied(None));
        assert_eq!(m.apply(&recall), Outcome::Duplicate(None));
        assert_eq!(
            (m.rooms["r"].unread("bob"), m.rooms["r"].unread("carol")),
            (1, 1)
        );
        assert_eq!(m.rooms["r"].mentions("alice"), 0);
    }

    #[test]
    fn joining_starts_at_the_head() {
        let mut m = group();
        send(&mut m, "1", "alice");
        m.apply(&json!({"type": "member.invited", "room": "r", "user": "dave"}));
        send(&mut m, "2", "alice");
        assert_eq!(
            (m.rooms["r"].invited("dave"), m.rooms["r"].unread("dave")),
            (1, 0)
        );
        m.apply(&json!({"type": "member.joined", "room": "r", "user": "dave"}));
        m.apply(&json!({"type": "member.left", "room": "r", "user": "bob"}));
        send(&mut m, "3", "alice");
        m.apply(&json!({"type": "member.joined", "room": "r", "user": "bob"}));
        let room = &m.rooms["r"];
        assert_eq!(
            (
                room.invited("dave"),
                room.unread("dave"),
                room.unread("bob")
            ),
            (0, 1, 0)
        );
    }

    #[test]
    fn inactive_left_and_deleted_rooms_show_up_nowhere() {
        let mut m = group();
        send(&mut m, "1", "alice");
        assert_eq!(
            m.badges("bob", None),
            BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 1)])
        );
        m.apply(&json!({"type": "room.updated", "room": "r", "status": 0}));
        assert!(m.badges("bob", None).is_empty());
        assert_eq!(
            m.badges("bob", Some(&["a".to_owned()])),
            BTreeMap::from([("a".to_owned(), 0)])
        );
        assert_eq!(m.native("bob", true).unwrap()["rooms"], json!([]));
        assert_eq!(
            m.sendbird("bob", None).unwrap()["group_channel_unread_message_count"],
            0
        );
        m.apply(&json!({"type": "room.updated", "room": "r", "status": 1, "kind": "supergroup"}));
        let nine = m.sendbird("bob", Some(&["t".to_owned()])).unwrap();
        assert_eq!(nine["super_group_channel_unread_message_count"], 1);
        assert_eq!(nine["non_super_group_channel_unread_message_count"], 0);
        assert_eq!(
            m.sendbird("bob", Some(&["u".to_owned()])).unwrap()["group_channel_unread_message_count"],
            0
        );
        m.apply(&json!({"type": "room.deleted", "room": "r"}));
        assert_eq!(m.native("bob", false).unwrap()["messages"]["total"], 0);
        assert_eq!(
            send(&mut m, "2", "alice"),
            Outcome::Rejected("room_not_found")
        );
    }

    #[test]
    fn direct_rooms_and_peers() {
        let mut m = Model::default();
        let hello =
            json!({"type": "message.sent", "to": "bob", "sender": "alice", "id": "1", "time": 5});
        assert_eq!(m.apply(&hello), Outcome::Applied(Some(1)));
        assert_eq!(m.apply(&hello), Outcome::Duplicate(Some(1)));
        m.learn("bob", "alice", "d");
        assert_eq!(m.tencent_total("bob"), Some(1));
        let asked = ["alice", "ghost", "bob", "alice"].map(str::to_owned);
        assert_eq!(
            m.tencent_peers("bob", &asked).unwrap(),
            [
                ("alice".to_owned(), Peer::Count(1)),
                ("ghost".to_owned(), Peer::Unknown),
                ("bob".to_owned(), Peer::Count(0))
            ]
        );
        assert_eq!(m.tencent_total("ghost"), None);
        let third = json!({"type": "member.joined", "room": "d", "users": ["carol"]});
        assert_eq!(m.apply(&third), Outcome::Rejected("direct_room_full"));
        assert!(!m.users.contains_key("carol"));
        // bob leaves and is fetched back by the next message: only that one is unread.
        m.apply(&json!({"type": "member.left", "room": "d", "user": "bob"}));
        m.apply(
            &json!({"type": "message.sent", "to": "bob", "sender": "alice", "id": "2", "time": 6}),
        );
        assert_eq!(m.tencent_total("bob"), Some(1));
        assert_eq!(
            m.apply(&json!({"type": "room.read", "peer": "alice", "user": "bob"})),
            Outcome::Applied(None)
        );
        assert_eq!(m.tencent_total("bob"), Some(0));
    }

    #[test]
    fn rejected_changes_nothing() {
        let mut m = group();
        let change = json!({"type": "room.updated", "room": "r", "kind": "direct", "tags": []});
        assert_eq!(m.apply(&change), Outcome::Rejected("kind_change"));
        assert_eq!(m.rooms["r"].tags.len(), 2);
        let bad = json!({"type": "member.joined", "room": "r", "users": ["dave", ""]});
        assert_eq!(m.apply(&bad), Outcome::Rejected("invalid"));
        assert!(!m.users.contains_key("dave"));
        assert_eq!(
            m.apply(&json!({"type": "user.deleted", "user": "dave"})),
            Outcome::Rejected("user_not_found")
        );
        assert_eq!(
            m.apply(&json!({"type": "user.read_all", "user": "dave"})),
            Outcome::Rejected("user_not_found")
        );
        assert_eq!(
            m.apply(&json!({"type": "nonsense"})),
            Outcome::Rejected("invalid")
        );
    }

    #[test]
    fn the_list_of_rooms() {
        let mut m = model(&[
            json!({"type": "room.updated", "room": "old", "time": 1000}),
            json!({"type": "room.updated", "room": "new", "time": 2000, "tags": ["x"]}),
            json!({"type": "room.updated", "room": "busy", "time": 1000}),
            json!({"type": "member.joined", "room": "old", "user": "u"}),
            json!({"type": "member.joined", "room": "new", "user": "u"}),
            json!({"type": "member.joined", "room": "busy", "user": "u"}),
            json!({"type": "message.sent", "room": "busy", "id": "1", "sender": "v", "text": "hi", "time": 3500}),
            json!({"type": "pref.updated", "room": "old", "user": "u", "tags": ["vip"], "sticky": true}),
        ]);
        let ids = |m: &Model, query: &RoomsQuery| {
            let (total, rows) = m.rooms("u", query);
            (
                total,
                rows.iter()
                    .map(|row| row["_id"].as_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        let of = |total, ids: &str| (total, ids.to_owned());
        let query = RoomsQuery::default();
        assert_eq!(ids(&m, &query), of(3, "busy new old"));
        let ascending = RoomsQuery {
            sort: vec![(SortBy::LastMessage, false)],
            ..query.clone()
        };
        assert_eq!(ids(&m, &ascending), of(3, "new old busy"));
        let created = RoomsQuery {
            sort: vec![(SortBy::CreatedTime, false)],
            ..query.clone()
        };
        assert_eq!(ids(&m, &created), of(3, "busy old new"));
        assert_eq!(
            ids(
                &m,
                &RoomsQuery {
                    skip: 1,
                    limit: 1,
                    ..query.clone()
                }
            ),
            of(3, "new")
        );
        assert_eq!(
            ids(
                &m,
                &RoomsQuery {
                    updated_after: Some(3999),
                    ..query.clone()
                }
            ),
            of(1, "busy")
        );
        assert_eq!(
            ids(
                &m,
                &RoomsQuery {
                    updated_after: Some(1999),
                    ..query.clone()
                }
            ),
            of(2, "busy new")
        );
        assert_eq!(
            ids(
                &m,
                &RoomsQuery {
                    updated_after: Some(2000),
                    ..query.clone()
                }
            ),
            of(1, "busy")
        );
        let pref = |c| RoomsQuery {
            pref: vec![("tags", c)],
            ..query.clone()
        };
        assert_eq!(ids(&m, &pref(Condition::Equal(json!("vip")))), of(1, "old"));
        assert_eq!(
            ids(&m, &pref(Condition::NotEqual(json!("vip")))),
            of(2, "busy new")
        );
        let tagged = RoomsQuery {
            q: vec![("roomTags", Condition::In(vec![json!("x"), json!("y")]))],
            ..query.clone()
        };
        assert_eq!(ids(&m, &tagged), of(1, "new"));
        assert_eq!(m.rooms("u", &query).1[0]["lastMessage"]["message"], "hi");
        m.apply(&json!({"type": "message.recalled", "room": "busy", "id": "1"}));
        let last = m.rooms("u", &query).1[0]["lastMessage"].clone();
        assert_eq!(
            (&last["messageType"], &last["message"]),
            (&json!("recall"), &json!(""))
        );
        assert_eq!(m.rooms("u", &query).1[0]["unread"], 0);
        let unread_first = RoomsQuery {
            unread_first: true,
            ..ascending
        };
        assert_eq!(ids(&m, &unread_first), of(3, "new old busy"));
        m.apply(&json!({"type": "message.sent", "room": "busy", "id": "2", "time": 3600}));
        assert_eq!(ids(&m, &unread_first), of(3, "busy new old"));
    }

    #[test]
    fn a_message_older_than_the_last_one_does_not_take_its_place() {
        let mut m = Model::default();
        m.apply(&json!({"type": "room.updated", "room": "r"}));
        let future = 4_000_000_000_000_i64;
        for (id, time, last) in [
            ("a", Some(2_000), "a"),
            ("late", Some(1_000), "a"),
            ("same", Some(2_000), "same"),
            ("future", Some(future), "future"),
            ("past", Some(3_000), "future"),
            ("sooner", Some(future - 9_000), "sooner"),
            ("now", None, "now"),
        ] {
            let mut event = json!({"type": "message.sent", "room": "r", "id": id});
            if let Some(time) = time {
                event["time"] = time.into();
            }
            m.apply(&event);
            assert_eq!(m.rooms["r"].last().unwrap().id, last);
        }
    }
}
