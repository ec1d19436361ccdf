//! Events as callers send them: parsed once into types that can't be wrong. No I/O.

mod change;
mod fields;
mod made;
mod notes;
mod outcome;
mod read;
mod subject;
mod time;

pub(crate) use change::MAX_UNREAD;
pub(crate) use fields::NO_NUMBER;
pub(crate) use notes::Notes;
pub(crate) use outcome::{EventOutcome, Rejection, Wait};
pub(crate) use read::{Batch, BodyFault, BodyForm, Invalid, read_all, read_line};
pub(crate) use subject::{Before, MembersOf, Subject};

#[cfg(fuzzing)]
#[path = "../fuzz/doors/events.rs"]
pub mod fuzzing;

use crate::names::{CustomType, EventKey, MessageId, RoomId, Tag, UserId};

/// The time of something that happened, as callers write it in words: milliseconds since the epoch, or RFC 3339.
pub(crate) fn time_of_text(text: &str) -> Result<i64, &'static str> {
    match text.parse() {
        Ok(number) => time::of_number(number, time::TimeUse::Event),
        Err(_) => time::of_text(text, time::TimeUse::Event),
    }
}

/// By what an event is placed among the others of its room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// By its arrival: as the room accepts it.
    #[default]
    Arrival,
    /// By its own time, among what has arrived within ten minutes.
    Time,
    /// The same in an import, which places a user who joins as far back as the event says.
    Import,
}

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Its `type`, as callers write it.
    pub type_name: &'static str,
    /// Milliseconds since the epoch; `None`: the time of arrival.
    pub time: Option<i64>,
    /// By what it is placed. By time it has a time.
    pub order: Order,
    /// A key that its room, or its user, takes once. An event with an id is known by the id, and its key has no effect.
    pub key: Option<EventKey>,
    /// What was left out of it, in words for its sender.
    pub notes: Notes,
    /// What happened.
    pub change: Change,
}

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// `user.updated`
    UserUpdated {
        /// Who.
        user: UserId,
        /// The fields of the profile: name and text of each.
        shown: Vec<(&'static str, String)>,
    },
    /// `user.deleted`
    UserDeleted {
        /// Who.
        user: UserId,
    },
    /// `room.updated`
    RoomUpdated {
        /// Which room.
        room: RoomId,
        /// `direct`, `group` or `supergroup`.
        kind: Option<&'static str>,
        /// Whether the kind is that of a new room only: a room of another kind that is there is refused.
        makes: bool,
        /// The new type.
        custom_type: Option<CustomType>,
        /// The whole new set, in the order given, each once.
        tags: Option<Vec<Tag>>,
        /// Whether the room is active.
        active: Option<bool>,
        /// Fields that are only shown: name and text of each.
        shown: Vec<(&'static str, String)>,
    },
    /// `room.deleted`
    RoomDeleted {
        /// Which room.
        room: RoomId,
    },
    /// `member.joined`, `member.invited`, `member.left`
    Member {
        /// Which room.
        room: RoomId,
        /// What the users become.
        state: MemberState,
        /// Who, at least one, each once.
        users: Vec<UserId>,
    },
    /// `message.sent`
    Message(Message),
    /// `message.recalled`
    Recalled {
        /// Where: `With` needs a sender.
        place: RoomOrPeer,
        /// One of the two in the direct room, where that names the other one.
        sender: Option<UserId>,
        /// Which message.
        id: MessageId,
    },
    /// `message.updated`
    Edited(Edit),
    /// `room.read`
    Read {
        /// Where.
        place: RoomOrPeer,
        /// Who.
        user: UserId,
        /// How far.
        up_to: UpTo,
    },
    /// `room.unread`
    Unread {
        /// The room. With a peer: the direct room with that user.
        place: RoomOrPeer,
        /// The user.
        user: UserId,
        /// What is unread again.
        from: UnreadFrom,
    },
    /// `counts.set`
    CountsSet {
        /// The room. With a peer: the direct room with that user.
        place: RoomOrPeer,
        /// The user.
        user: UserId,
        /// How many messages are unread.
        unread: u64,
        /// How many of them are mentions.
        mentions: Option<u64>,
    },
    /// `room.cleared`
    Cleared {
        /// Which room.
        room: RoomId,
        /// How far everybody who has joined it has read.
        up_to: UpTo,
    },
    /// `user.read_all`
    ReadAll {
        /// Who.
        user: UserId,
        /// How far in each room: by time, or everything.
        up_to: UpTo,
        /// In rooms of these kinds: of `direct`, `group`, `supergroup`.
        kinds: Vec<&'static str>,
    },
    /// `pref.updated`
    Pref {
        /// Which room.
        room: RoomId,
        /// Whose preferences.
        user: UserId,
        /// Name of each preference, and its value as JSON.
        prefs: Vec<(&'static str, String)>,
    },
}

/// What a user becomes in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// A member who has joined.
    Joined,
    /// A member who is invited.
    Invited,
    /// No member any more.
    Left,
}

/// A room, or the direct room with somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoomOrPeer {
    /// A room by its id.
    Room(RoomId),
    /// The direct room with this user.
    With(UserId),
}

/// How far somebody has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UpTo {
    /// Everything.
    Head,
    /// Up to the message with this id.
    Id(MessageId),
    /// All messages at or before that time (milliseconds).
    Time(i64),
    /// That position, at least 1, or the head if the room has not come so far.
    Position(u64),
}

/// From where on messages are unread again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UnreadFrom {
    /// From that message on.
    Id(MessageId),
    /// From the first message at or after that time on (milliseconds).
    Time(i64),
    /// From that position on, which is at least 1. If the room has not come so far: from its last position on.
    Position(u64),
}

/// Whom a message mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mentions {
    /// These users; the list may be empty.
    Users(Vec<UserId>),
    /// Everybody in the room.
    All,
}

/// A message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Where. `RoomOrPeer::With` needs a sender.
    pub place: RoomOrPeer,
    /// Its id.
    pub id: MessageId,
    /// Its sender; `None`: a system message.
    pub sender: Option<UserId>,
    /// Its text.
    pub text: String,
    /// Its type.
    pub message_type: String,
    /// A JSON object that is shown with it, as text.
    pub payload: Option<String>,
    /// Whom it mentions.
    pub mentions: Mentions,
    /// For whom it does not count.
    pub except: Vec<UserId>,
    /// Whether it never counts.
    pub silent: bool,
    /// Whether the message also says that its sender has read up to it.
    pub mark_read: bool,
}

/// A change of a message. What is `None` stays as it is.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    /// Where: `With` needs a sender.
    pub place: RoomOrPeer,
    /// One of the two in the direct room, where that names the other one.
    pub sender: Option<UserId>,
    /// Which message.
    pub id: MessageId,
    /// Its new text.
    pub text: Option<String>,
    /// Its new type.
    pub message_type: Option<String>,
    /// A JSON object that is shown with it, written out.
    pub payload: Option<String>,
    /// Whom it mentions now.
    pub mentions: Option<Mentions>,
}

impl Change {
    /// Whether the event has an id of its own. By it a repeated event is known. An edit has none: its id is that of the message,
    /// which may have several edits.
    pub(crate) fn has_id(&self) -> bool {
        matches!(self, Change::Message(_) | Change::Recalled { .. })
    }

    /// User and peer, if the event is about what a user has read in the direct room with a peer.
    pub(crate) fn peer(&self) -> Option<(&UserId, &UserId)> {
        match self {
            Change::Read { place, user, .. }
            | Change::Unread { place, user, .. }
            | Change::CountsSet { place, user, .. } => match place {
                RoomOrPeer::With(peer) => Some((user, peer)),
                RoomOrPeer::Room(_) => None,
            },
            _ => None,
        }
    }

    /// The id of the message that the event sends, changes or takes back.
    pub(crate) fn message_id(&self) -> Option<&MessageId> {
        match self {
            Change::Message(message) => Some(&message.id),
            Change::Recalled { id, .. } => Some(id),
            Change::Edited(edit) => Some(&edit.id),
            _ => None,
        }
    }
}
