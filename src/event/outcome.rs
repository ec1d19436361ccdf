//! The outcome of an event, and what its caller waits for.

use crate::error::Unreadable;
use crate::names::{RoomId, UserId};

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until every member's counts show the events.
    Applied,
    /// Until the events are safe in Redis.
    Accepted,
}

/// The outcome of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EventOutcome {
    /// Every member's counts show it.
    Applied {
        /// The position of a message that counts.
        position: Option<u64>,
    },
    /// It is safe in Redis; the counts follow.
    Accepted {
        /// The position of a message that counts.
        position: Option<u64>,
    },
    /// It had been accepted before; nothing changed.
    Duplicate {
        /// The position that the message got the first time.
        position: Option<u64>,
    },
    /// It was refused, and nothing changed. With [`Rejection::Unreadable`] the room may have accepted it; then the sweep
    /// finishes it after the data is mended.
    Rejected(Rejection),
}

/// Why an event was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// There is no such room.
    RoomNotFound(RoomId),
    /// The user has no direct room with that one.
    NoDirectRoom(UserId),
    /// There is no such user.
    UserNotFound(UserId),
    /// There is no such message, or it is older than the history.
    MessageNotFound,
    /// The user has not joined the room.
    NotAMember,
    /// The kind of a room can only change from group to supergroup.
    KindChange,
    /// A direct room has two members at most.
    DirectRoomFull,
    /// An event of another type has taken the event's key.
    KeyTaken,
    /// The event needs stored data that can't be read. The event itself is fine.
    Unreadable(Box<Unreadable>),
}

impl Rejection {
    /// The code of the native API, and a sentence for people.
    pub(crate) fn code_and_message(&self) -> (&'static str, String) {
        match self {
            Rejection::RoomNotFound(room) => {
                ("room_not_found", format!("no room {:?}", room.as_str()))
            }
            Rejection::NoDirectRoom(peer) => (
                "room_not_found",
                format!("no direct room with {:?}", peer.as_str()),
            ),
            Rejection::UserNotFound(user) => {
                ("user_not_found", format!("no user {:?}", user.as_str()))
            }
            Rejection::MessageNotFound => (
                "message_not_found",
                "no such message in the room, or it is older than the history".into(),
            ),
            Rejection::NotAMember => ("not_a_member", "the user has not joined the room".into()),
            Rejection::KindChange => (
                "kind_change",
                "a room's kind changes only from group to supergroup".into(),
            ),
            Rejection::DirectRoomFull => (
                "direct_room_full",
                "a direct room takes at most two members".into(),
            ),
            Rejection::KeyTaken => (
                "invalid",
                "key: an event of another type has it already".into(),
            ),
            Rejection::Unreadable(what) => (
                "unreadable",
                format!("{what}; send the event again when that is mended"),
            ),
        }
    }
}
