//! What every answer has to be, in memory, as slow and plain as the definition of the counts.
//!
//! Nothing is kept that could be derived: a count is the length of a list of messages, found anew for every question.
//! [`Model::apply`] takes an event as it goes over the wire and answers what the server must answer to it; the files of
//! the dialects answer one endpoint each. Nothing here is taken from the program, so that both can't be wrong together.

mod events;
mod native;
mod imkit;
mod listing;
mod tencent;
mod sendbird;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

pub use listing::{Condition, RoomsQuery, SortBy};
pub use sendbird::ITEM_KEYS;
pub use tencent::Peer;

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

    /// How far a user has read; none: the user has not joined.
    pub fn read_position(&self, user: &str) -> Option<u64> {
        match self.members.get(user) {
            Some(Member::Joined { read, .. }) => Some(*read),
            _ => None,
        }
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
    fn position_of(&self, id: &str, history: Option<usize>) -> Checked<u64> {
        let at = self.messages.iter().position(|m| m.id == id);
        let is_last = self.last().is_some_and(|last| last.id == id);
        let at = at
            .filter(|at| *at >= self.known(history) || is_last)
            .ok_or("message_not_found")?;
        let up_to = self.messages[..=at].iter();
        Ok(up_to.filter_map(|m| m.position).max().unwrap_or(0))
    }

    /// How far who has read all up to a time has read, if the room still knows.
    fn position_at(&self, user: &str, time: i64, history: Option<usize>) -> Checked<u64> {
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

/// What a check of an event comes to; the error is the code with which the event is rejected.
type Checked<T> = Result<T, &'static str>;

impl Model {
    /// The rooms that the user has joined and that are active: the only ones that show up anywhere.
    pub fn rooms_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = (&'a str, &'a Room)> {
        self.rooms
            .iter()
            .filter(|(_, room)| room.active && room.has_joined(user))
            .map(|(id, room)| (id.as_str(), room))
    }

    /// Who is in a room: nobody, if there is none of that name.
    pub fn joined(&self, room: &str) -> impl Iterator<Item = &str> {
        self.rooms.get(room).into_iter().flat_map(Room::joined)
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
}
