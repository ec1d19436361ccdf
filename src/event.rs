//! Events as callers send them: parsed once into types that can't be wrong. No I/O.

mod change;
mod fields;
mod notes;
mod outcome;
mod read;
mod subject;
mod time;

pub(crate) use notes::Notes;
pub(crate) use outcome::{EventOutcome, Rejection, Wait};
pub(crate) use read::{Batch, BodyFault, BodyForm, Invalid, read_all, read_line};
pub(crate) use subject::{Before, MembersOf, Subject};

#[cfg(fuzzing)]
#[path = "../fuzz/doors/events.rs"]
pub mod fuzzing;

use crate::names::{CustomType, EventKey, MessageId, RoomId, Tag, UserId};

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Its `type`, as callers write it.
    pub type_name: &'static str,
    /// Milliseconds since the epoch; `None`: the time of arrival.
    pub time: Option<i64>,
    /// A key that its room, or its user, takes once. An event with an id is known by that, and its key counts for nothing.
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
        /// Field and text of what others see.
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
        /// The new type.
        custom_type: Option<CustomType>,
        /// The whole new set, in the order given, each once.
        tags: Option<Vec<Tag>>,
        /// Whether the room is active.
        active: Option<bool>,
        /// Field and text of what is only shown.
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
        /// What becomes of them.
        state: MemberState,
        /// Who, at least one, each once.
        users: Vec<UserId>,
    },
    /// `message.sent`
    Message(Message),
    /// `message.recalled`
    Recalled {
        /// Which room.
        room: RoomId,
        /// Which message.
        id: MessageId,
    },
    /// `room.read`
    Read {
        /// Where.
        place: RoomOrPeer,
        /// Who.
        user: UserId,
        /// How far.
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
        /// Whose settings.
        user: UserId,
        /// Field and JSON text.
        settings: Vec<(&'static str, String)>,
    },
}

/// What becomes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// In the room.
    Joined,
    /// Asked in.
    Invited,
    /// Out of the room.
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
    /// That message.
    Id(MessageId),
    /// All messages at or before that time (milliseconds).
    Time(i64),
}

/// Whom a message mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mentions {
    /// These, possibly nobody.
    Users(Vec<UserId>),
    /// Everybody in the room.
    All,
}

/// A message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Where: `With` needs a sender.
    pub place: RoomOrPeer,
    /// Its id.
    pub id: MessageId,
    /// Its sender; none: a system message.
    pub sender: Option<UserId>,
    /// Its text.
    pub text: String,
    /// Its type.
    pub message_type: String,
    /// A JSON object that is shown with it, written out.
    pub payload: Option<String>,
    /// Whom it mentions.
    pub mentions: Mentions,
    /// Whether it never counts.
    pub silent: bool,
    /// Whether the sender has read up to here.
    pub mark_read: bool,
}

impl Change {
    /// Whether its event has an id of its own, by which it is known when it is sent again.
    pub(crate) fn has_id(&self) -> bool {
        matches!(self, Change::Message(_) | Change::Recalled { .. })
    }
}
