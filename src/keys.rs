//! Redis keys, and the names in them. No other module builds or parses a key, so all of that is in this one file.
//!
//! A key is `unread:v1:{APP:u:USER}:WHAT` or `unread:v1:{APP:r:ROOM}:WHAT`, so all keys of a user, or of a room, are in one
//! slot. In a name, ASCII letters, digits, `_ . @ ~ = -` and characters outside ASCII stay as they are; every other character
//! is percent-encoded. So no name can close the hash tag, be read as a glob, or hold one of the separators `: | ,`.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::names::{AppId, UserId, is_name};

const SAFE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'@')
    .remove(b'~')
    .remove(b'=')
    .remove(b'-');

/// The version of the schema of all other keys, for all apps.
pub(crate) const SCHEMA: &str = "unread:schema";
/// Copies of it. They and the version itself have hash slots a quarter of all slots apart, so that one server of a cluster that
/// does not answer hides it from nobody.
pub(crate) const SCHEMA_COPIES: [&str; 3] = [
    "unread:schema:{b}",
    "unread:schema:{c}",
    "unread:schema:{d}",
];
/// The glob of the keys that a Redis user needs rights to.
pub(crate) const RIGHTS: &str = "unread:*";
/// The glob that matches all keys of this program but the version of the schema, and no others.
pub(crate) const ALL: &str = "unread:v1:*";

/// A name as it stands in a key or a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Enc(String);

impl Enc {
    /// Takes a text from Redis, which is encoded already.
    pub(crate) fn stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The encoded text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Encodes a name. Characters outside ASCII stay as they are: `redis-cli --raw` shows them, and no separator is among them.
pub(crate) fn encode(name: &str) -> Enc {
    Enc(encoded(name).into_owned())
}

/// Like [`encode`], but borrows the name if nothing has to be encoded.
pub(crate) fn encoded(name: &str) -> Cow<'_, str> {
    if name
        .bytes()
        .all(|b| b >= 0x80 || b.is_ascii_alphanumeric() || b"_.@~=-".contains(&b))
    {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 16);
    for part in name.split_inclusive(|c: char| !c.is_ascii()) {
        let cut = part
            .char_indices()
            .last()
            .filter(|(_, c)| !c.is_ascii())
            .map_or(part.len(), |(at, _)| at);
        let (ascii, rest) = part.split_at(cut);
        out.extend(utf8_percent_encode(ascii, SAFE));
        out.push_str(rest);
    }
    Cow::Owned(out)
}

/// The name that an encoded text stands for. A text that is not encoded comes back as it is.
pub(crate) fn decode(text: &str) -> String {
    decoded(text).into_owned()
}

/// Like [`decode`], but borrows the text if nothing had to be encoded.
pub(crate) fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// Whether a text is what [`encode`] makes of some name. No other text is valid in the place of a name.
pub(crate) fn is_encoded(text: &str) -> bool {
    let name = decoded(text);
    is_name(&name) && encoded(&name) == text
}

/// The common beginning of all keys of a user or a room, with capacity for the longest of them.
fn slot(app: &AppId, letter: &str, name: &str) -> String {
    let parts = ["unread:v1:{", app.as_str(), letter, name, "}:"];
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut slot = String::with_capacity(length + 12);
    parts.iter().for_each(|part| slot.push_str(part));
    slot
}

/// The keys of one user's slot.
#[derive(Debug, Clone)]
pub(crate) struct UserKeys(String);

impl UserKeys {
    /// The keys of `user` in `app`.
    pub(crate) fn new(app: &AppId, user: &Enc) -> Self {
        Self(slot(app, ":u:", &user.0))
    }

    /// Like [`Self::new`], for a name that is not encoded yet.
    pub(crate) fn of(app: &AppId, user: &UserId) -> Self {
        Self(slot(app, ":u:", &encoded(user.as_str())))
    }

    /// One of the keys, by the part of its name after the slot.
    pub(crate) fn key(&self, what: &str) -> String {
        let mut key = String::with_capacity(self.0.len() + what.len());
        key.push_str(&self.0);
        key.push_str(what);
        key
    }

    /// Plain counts: `messages:group`, `room:R`, `tag:T`, `peer:P`, …
    pub(crate) fn counts(&self) -> String {
        self.key("counts")
    }
    /// Position records of direct rooms and groups.
    pub(crate) fn rooms(&self) -> String {
        self.key("rooms")
    }
    /// Position records of supergroups.
    pub(crate) fn supers(&self) -> String {
        self.key("supers")
    }
    /// How many rooms carry a tag or type; direct rooms by peer.
    pub(crate) fn refs(&self) -> String {
        self.key("refs")
    }
    /// Holes and mentions.
    pub(crate) fn marks(&self) -> String {
        self.key("marks")
    }
    /// Tombstones of rooms left.
    pub(crate) fn left(&self) -> String {
        self.key("left")
    }
    /// The user's preferences of rooms.
    pub(crate) fn prefs(&self) -> String {
        self.key("prefs")
    }
    /// The user's profile.
    pub(crate) fn profile(&self) -> String {
        self.key("profile")
    }
    /// Jobs of the user's slot: the rooms that a deleted user still has to leave.
    pub(crate) fn pending(&self) -> String {
        self.key("pending")
    }
    /// The channel on which scripts say that the user's counts have changed. It is no key.
    pub(crate) fn live(&self) -> String {
        self.key("live")
    }
    /// Keys of events that this slot knows. Two hashes take turns. They are kept when the user is deleted.
    pub(crate) fn event_keys(&self) -> [String; 2] {
        ["keys0", "keys1"].map(|what| self.key(what))
    }
    /// All keys, each with the part of its name after the slot.
    pub(crate) fn all(&self) -> [(&'static str, String); 11] {
        USER_KEYS.map(|name| (name, self.key(name)))
    }
}

/// The keys of a user's slot, by the part of the name after the slot.
pub(crate) const USER_KEYS: [&str; 11] = [
    "counts", "rooms", "supers", "refs", "marks", "left", "prefs", "profile", "pending", "keys0",
    "keys1",
];

/// The keys of a room's slot, by the part of the name after the slot.
pub(crate) const ROOM_KEYS: [&str; 12] = [
    "members",
    "meta",
    "ids",
    "log",
    "recalled",
    "allmentions",
    "pending",
    "keys0",
    "keys1",
    "timed",
    "bounds",
    "arrived",
];

/// The keys of one room's slot.
#[derive(Debug, Clone)]
pub(crate) struct RoomKeys(String);

impl RoomKeys {
    /// The keys of `room` in `app`.
    pub(crate) fn new(app: &AppId, room: &Enc) -> Self {
        Self(slot(app, ":r:", &room.0))
    }

    /// One of the keys, by the part of its name after the slot.
    pub(crate) fn key(&self, what: &str) -> String {
        format!("{}{what}", self.0)
    }

    /// Revision, head, details, last message.
    pub(crate) fn meta(&self) -> String {
        self.key("meta")
    }
    /// Memberships: of members, and of users who left and whose slots may not know that yet.
    pub(crate) fn members(&self) -> String {
        self.key("members")
    }
    /// Recent message ids.
    pub(crate) fn ids(&self) -> String {
        self.key("ids")
    }
    /// Recent messages in the order of acceptance.
    pub(crate) fn log(&self) -> String {
        self.key("log")
    }
    /// Recalled positions.
    pub(crate) fn recalled(&self) -> String {
        self.key("recalled")
    }
    /// Positions that mention everybody in a supergroup.
    pub(crate) fn allmentions(&self) -> String {
        self.key("allmentions")
    }
    /// Jobs that have not reached their whole audience.
    pub(crate) fn pending(&self) -> String {
        self.key("pending")
    }
    /// What the room keeps for ten minutes of events that are placed by their own times.
    pub(crate) fn timed(&self) -> String {
        self.key("timed")
    }
    /// The read bounds among that.
    pub(crate) fn bounds(&self) -> String {
        self.key("bounds")
    }
    /// Positions that members read on arrival.
    pub(crate) fn arrived(&self) -> String {
        self.key("arrived")
    }
    /// The channel on which scripts say that a supergroup has changed. It is no key.
    pub(crate) fn live(&self) -> String {
        self.key("live")
    }
    /// The three keys of the order of time.
    pub(crate) fn of_time(&self) -> [String; 3] {
        [self.timed(), self.bounds(), self.arrived()]
    }
    /// Keys of events that this slot knows. Two hashes take turns. They are kept when the room is deleted.
    pub(crate) fn event_keys(&self) -> [String; 2] {
        ["keys0", "keys1"].map(|what| self.key(what))
    }
    /// All keys, each with the part of its name after the slot.
    pub(crate) fn all(&self) -> [(&'static str, String); 12] {
        ROOM_KEYS.map(|name| (name, self.key(name)))
    }
}

/// How many indexes of announcements there are: several, so that the nodes of a cluster share the work.
pub(crate) const PENDING_SHARDS: u32 = 16;

/// The index of announcements number `shard`: entry → token of its last announcement.
pub(crate) fn pending_index(shard: u32) -> String {
    format!("unread:v1:{{pending:{shard}}}:index")
}

/// Belongs to that index: entry → when the sweep last looked at it, or else when it was announced.
pub(crate) fn pending_look(shard: u32) -> String {
    format!("unread:v1:{{pending:{shard}}}:look")
}

/// The number of the index in which an entry is announced.
pub(crate) fn pending_shard(entry: &str) -> u32 {
    // FNV-1a. Any hash would do that spreads evenly and is the same in every pod.
    let hash = entry.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    hash % PENDING_SHARDS
}

/// The index entry of a room.
pub(crate) fn room_entry(app: &AppId, room: &Enc) -> String {
    format!("{app}:r:{}", room.0)
}

/// The index entry of a user.
pub(crate) fn user_entry(app: &AppId, user: &Enc) -> String {
    format!("{app}:u:{}", user.0)
}

/// What an index entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A room of an app.
    Room(AppId, Enc),
    /// A user of an app.
    User(AppId, Enc),
}

/// Reads an index entry.
pub(crate) fn parse_entry(entry: &str) -> Option<Owner> {
    let mut parts = entry.splitn(3, ':');
    let app = AppId::parse(parts.next()?)?;
    let letter = parts.next()?;
    let name = Enc::stored(parts.next()?);
    match letter {
        "r" => Some(Owner::Room(app, name)),
        "u" => Some(Owner::User(app, name)),
        _ => None,
    }
}

/// The channel on which pods say which apps they have streams of. It is no key.
pub(crate) const ONLOOKERS: &str = "unread:v1:{live}:apps";

/// A key that is written before a `WAIT` for replicas. There are many, so that each server of a cluster has some.
pub(crate) fn for_durability(n: u32) -> String {
    format!("unread:v1:{{durable:{n}}}")
}

/// Reads a key of a user's or a room's slot: its owner, and which of the owner's keys it is.
pub(crate) fn parse_key(key: &str) -> Option<(Owner, &str)> {
    let (entry, what) = key.strip_prefix("unread:v1:{")?.split_once("}:")?;
    Some((parse_entry(entry)?, what))
}

/// What a key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// One of the keys of a user's or a room's slot.
    Slot(Owner, &'static str),
    /// One of the two sorted sets of an index of announcements: `index` or `look`.
    Index(u32, &'static str),
    /// The theoretical arrival time of a rate limit.
    Limit,
    /// A key that is written before a `WAIT` for replicas.
    Durable,
}

/// What a key is for; `None`: no version writes such a key.
pub(crate) fn purpose(key: &[u8]) -> Option<Purpose> {
    let key = std::str::from_utf8(key).ok()?;
    if let Some((entry, what)) = parse_key(key) {
        let (known, name): (&[&'static str], &Enc) = match &entry {
            Owner::User(_, name) => (&USER_KEYS, name),
            Owner::Room(_, name) => (&ROOM_KEYS, name),
        };
        let what = known.iter().find(|known| **known == what)?;
        return is_encoded(name.as_str()).then_some(Purpose::Slot(entry, what));
    }
    let (tag, rest) = key.strip_prefix("unread:v1:{")?.split_once('}')?;
    if let Some(number) = tag.strip_prefix("pending:") {
        let shard: u32 = number.parse().ok()?;
        return [
            ("index", pending_index(shard)),
            ("look", pending_look(shard)),
        ]
        .into_iter()
        .find(|(_, spelled)| shard < PENDING_SHARDS && spelled == key)
        .map(|(what, _)| Purpose::Index(shard, what));
    }
    if let Some(number) = tag.strip_prefix("durable:") {
        let number: u32 = number.parse().ok()?;
        return (for_durability(number) == key).then_some(Purpose::Durable);
    }
    let (app, limit) = tag.split_once(":limit:")?;
    // The limit of an app's endpoint, or of one user's share of it.
    let (endpoint, user) = limit.split_once(':').unwrap_or((limit, "u"));
    let plain = !endpoint.is_empty() && !endpoint.contains(['{', '}']) && is_encoded(user);
    AppId::parse(app)?;
    (plain && rest.is_empty()).then_some(Purpose::Limit)
}

/// How logs and metrics name a key: without the name of a user or a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyLabel {
    /// One of a few fixed words: `user_counts`, `room_meta`, `index`, `other`, …
    pub kind: &'static str,
    /// The key in words, with a short hash of the owner. `unread verify` prints the hash beside the owner's name.
    pub text: String,
}

/// Eight hexadecimal digits that stand for an [entry](room_entry) in logs.
pub(crate) fn short_hash(entry: &str) -> String {
    let hash = Sha256::digest(entry.as_bytes());
    hash.iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// Names a key for logs and metrics. With `whole`, it names the key's slot, because it is not known which of its keys is meant.
pub(crate) fn label(key: &[u8], whole: bool) -> KeyLabel {
    let (kind, text) = match purpose(key) {
        Some(Purpose::Slot(entry, what)) => {
            let (of, tag) = match &entry {
                Owner::User(app, user) => ("user", user_entry(app, user)),
                Owner::Room(app, room) => ("room", room_entry(app, room)),
            };
            let hash = short_hash(&tag);
            match whole {
                true => (of, format!("a key of {of} #{hash}")),
                false => (kind_of(of, what), format!("{of} {what} #{hash}")),
            }
        }
        Some(Purpose::Index(shard, what)) => match whole {
            true => ("index", format!("index {shard}")),
            false => ("index", format!("{what} {shard}")),
        },
        Some(Purpose::Limit) => ("limit", "a rate limit".to_owned()),
        Some(Purpose::Durable) | None => ("other", "another key".to_owned()),
    };
    KeyLabel { kind, text }
}

/// Names the keys of a call for logs and metrics: one of them is meant, but it is not known which one.
pub(crate) fn label_of_several<'a>(keys: impl Iterator<Item = &'a [u8]>) -> KeyLabel {
    // A key that only guards the call has no purpose; its slot is that of the other keys.
    let known = keys.filter(|key| purpose(key).is_some());
    let mut labels = known.map(|key| label(key, true));
    let Some(first) = labels.next() else {
        return label(b"", true);
    };
    let others = labels.filter(|other| other.text != first.text).count();
    match others {
        0 => first,
        _ => KeyLabel {
            kind: first.kind,
            text: format!("a key of one of several, the first {}", first.text),
        },
    }
}

/// The word for a key of a slot in metrics.
fn kind_of(of: &str, what: &str) -> &'static str {
    #[rustfmt::skip]
    const KINDS: [&str; 19] = [
        "user_counts", "user_rooms", "user_supers", "user_refs", "user_marks",
        "user_left", "user_prefs", "user_profile", "user_pending", "room_members",
        "room_meta", "room_ids", "room_log", "room_recalled", "room_allmentions",
        "room_pending",
        "room_timed",
        "room_bounds",
        "room_arrived",
    ];
    let is = |kind: &&str| kind.strip_prefix(of).and_then(|k| k.strip_prefix('_')) == Some(what);
    KINDS.into_iter().find(is).unwrap_or("other")
}

/// The glob for all keys of an app, or, without an app, for all keys of this program.
pub(crate) fn pattern_of_all(app: Option<&AppId>) -> String {
    match app {
        Some(app) => format!("unread:v1:{{{app}:*"),
        None => ALL.to_owned(),
    }
}

/// The glob for keys of users' and rooms' slots: of one app or of all apps, and one key of each slot or all its keys. Nothing has
/// to be escaped, because no name and no app id holds a character that has a meaning in a glob.
pub(crate) fn pattern_of_slots(
    app: Option<&AppId>,
    rooms_only: bool,
    what: Option<&str>,
) -> String {
    let app = app.map_or("*", AppId::as_str);
    let letter = if rooms_only { "r" } else { "[ur]" };
    format!("unread:v1:{{{app}:{letter}:*}}:{}", what.unwrap_or("*"))
}

/// The rate limiter's key of an app's vendor endpoint.
pub(crate) fn limit(app: &AppId, endpoint: &str) -> String {
    format!("unread:v1:{{{app}:limit:{endpoint}}}")
}

/// The key of one user's share of that limit.
pub(crate) fn user_limit(app: &AppId, endpoint: &str, user: &UserId) -> String {
    let user = encoded(user.as_str());
    format!("unread:v1:{{{app}:limit:{endpoint}:{user}}}")
}

/// A key that never exists, in the slot of `key`.
///
/// While a cluster moves a slot from one node to another, the old node takes a missing key for one that has moved already.
/// So a script that removes the last field of a hash and then reads the hash again fails half way, and Redis rolls nothing
/// back. A call that declares this key as well fails with `TRYAGAIN` before it does anything, for as long as the slot is on
/// two nodes.
pub(crate) fn guard(key: &[u8]) -> Option<Vec<u8>> {
    let end = key.iter().position(|byte| *byte == b'}')?;
    let mut guard = key.get(..=end)?.to_vec();
    guard.extend_from_slice(b":-");
    Some(guard)
}
