//! What every answer has to be, in memory, as slow and plain as the definition of the counts.
//!
//! Nothing is kept that could be derived: a count is the length of a list of messages, found anew for every question.
//! [`Model::apply`] takes an event as it goes over the wire and answers what the server must answer to it; the files of
//! the dialects answer one endpoint each. Nothing here is taken from the program, so that both can't be wrong together.
//!
//! Where the definition leaves something open, the model does what a user would expect. Such a place is marked "Open:", with
//! what it decides.

mod fields;
mod events;
mod members;
mod messages;
mod reads;
mod unread;
mod counts_set;
mod time;
mod counting;
mod native;
mod imkit;
mod listing;
mod tencent;
mod sendbird;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

pub use listing::{Condition, RoomsQuery, SortBy};
pub use sendbird::ITEM_KEYS;
pub use tencent::Peer;
pub use time::{Order, TEN_MINUTES};

use time::{Lasting, Waiting};

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
    pub parted: Vec<String>,
    /// The times of the by-time events that made the present states of memberships, those of who has left included.
    states: BTreeMap<String, Lasting>,
    /// What names a message that has not arrived.
    waiting: Vec<Waiting>,
}

#[derive(Clone)]
pub enum Member {
    Invited,
    Joined(Membership),
}

/// Of a user who has joined a room.
#[derive(Clone, Default)]
pub struct Membership {
    /// The read position; below 0 where another system knows of more than this room.
    pub read: i64,
    /// The user's own settings, by the names that `GET /rooms` shows; what is not there has its default.
    pub pref: Map<String, Value>,
    /// Up to here the last `counts.set` has found nothing: each of these positions counts as one.
    unknown: i64,
    /// What a `counts.set` made a mention, or no mention, by position.
    set_mentions: BTreeMap<i64, bool>,
    /// The messages that were read on arrival.
    read_on_arrival: BTreeSet<String>,
    /// The bounds in time.
    bounds: Vec<Lasting>,
    /// The moments of the events that set the read position.
    moments: Vec<Lasting>,
    /// The time of the last by-time `room.unread` or `counts.set`.
    reset: Option<i64>,
    /// The time of the last by-time `counts.set`.
    counts_as_of: Option<i64>,
    /// Whether the user has read or sent anything here since joining.
    has_been_here: bool,
}

#[derive(Clone)]
pub struct Message {
    pub id: String,
    /// None: silent.
    pub position: Option<u64>,
    pub sender: Option<String>,
    pub time: i64,
    pub mentions: Mentions,
    /// The users that it does not count for.
    pub except: BTreeSet<String>,
    pub recalled: bool,
    pub text: String,
    pub message_type: String,
    pub payload: Map<String, Value>,
    /// Whether the event gave the time; without, the message can't be late.
    given: bool,
    /// The stamp with which the room accepted it: after a clock has stepped back that is no earlier than the one before.
    accepted: i64,
    /// The order of acceptance over all rooms.
    pub serial: u64,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Mentions {
    Users(BTreeSet<String>),
    All,
}

impl Mentions {
    /// Whether an event that says so changes nothing.
    pub fn is(&self, field: &Value) -> bool {
        let event = json!({ "mentions": field });
        fields::mentions(&event) == Ok(Some(self.clone()))
    }

    fn name(&self, user: &str) -> bool {
        match self {
            Self::Users(users) => users.contains(user),
            Self::All => true,
        }
    }
}

/// One app.
#[derive(Clone, Default)]
pub struct Model {
    pub users: BTreeMap<String, User>,
    pub rooms: BTreeMap<String, Room>,
    /// How many messages the history of a room holds; none: more than any test sends. (None of them grows old.)
    pub history: Option<usize>,
    /// Whether a room has lost messages that its members know. Then the rows of a user say no positions.
    pub lost_messages: bool,
    /// The time at which events are accepted, in milliseconds; none: the time of now.
    pub now: Option<i64>,
    /// By room: the latest time at which it has accepted anything. It outlasts the room.
    stamps: BTreeMap<String, i64>,
    /// What events with a key have left: the name of a room or of a user, the key, and the type of event.
    keys: BTreeMap<(Name, String), String>,
    /// What names a message between two users who have no room, by the two.
    waiting: Vec<(BTreeSet<String>, Waiting)>,
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
            states: BTreeMap::new(),
            waiting: Vec::new(),
        }
    }

    pub fn message(&self, id: &str) -> Option<&Message> {
        self.messages.iter().find(|m| m.id == id)
    }

    /// The message that `GET /rooms` shows: the one accepted last, unless its time is before that of the one before it. A time in
    /// the future is taken as that of acceptance.
    pub fn last(&self) -> Option<&Message> {
        let time = |m: &Message| m.time.min(m.accepted);
        self.messages.iter().reduce(|last, m| {
            let late = m.given && time(m) < time(last);
            if late { last } else { m }
        })
    }

    pub fn joined(&self) -> impl Iterator<Item = &str> {
        self.members
            .iter()
            .filter(|(_, m)| matches!(m, Member::Joined(_)))
            .map(|(user, _)| user.as_str())
    }

    pub fn has_joined(&self, user: &str) -> bool {
        self.membership(user).is_some()
    }

    pub fn membership(&self, user: &str) -> Option<&Membership> {
        match self.members.get(user) {
            Some(Member::Joined(membership)) => Some(membership),
            _ => None,
        }
    }

    fn membership_mut(&mut self, user: &str) -> Checked<&mut Membership> {
        match self.members.get_mut(user) {
            Some(Member::Joined(membership)) => Ok(membership),
            _ => Err("not_a_member"),
        }
    }

    fn memberships_mut(&mut self) -> impl Iterator<Item = (&str, &mut Membership)> {
        self.members
            .iter_mut()
            .filter_map(|(user, member)| match member {
                Member::Joined(membership) => Some((user.as_str(), membership)),
                Member::Invited => None,
            })
    }

    /// The other member of a direct room, or whoever was the other member last.
    pub fn peer_of(&self, user: &str) -> Option<&str> {
        let others = self.members.keys().chain(self.parted.iter().rev());
        others.map(String::as_str).find(|other| *other != user)
    }
}

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
    pub fn rooms_with<'a>(
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
        let unlearned = Self::unlearned(a, b);
        let room = self.rooms.remove(&unlearned);
        let mut room = room.expect("a room made by `to`");
        // There may have been a room of that name before.
        let before = self.stamps.get(id).copied().unwrap_or_default();
        for message in &mut room.messages {
            message.accepted = message.accepted.max(before);
        }
        let stamp = self.stamps.remove(&unlearned).unwrap_or_default();
        self.stamps.insert(id.to_owned(), stamp.max(before));
        assert!(
            self.rooms.insert(id.to_owned(), room).is_none(),
            "two rooms by the id {id:?}"
        );
    }
}
