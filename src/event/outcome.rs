//! What became of an event, and when its caller wants to hear it.

use crate::error::Unreadable;
use crate::names::{RoomId, UserId};

/// When a caller wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// When every member's counts show the events.
    Applied,
    /// When the events are safe in Redis.
    Accepted,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventOutcome {
    /// Every member's counts show it.
    Applied {
        /// The number of a message that counts.
        position: Option<u64>,
    },
    /// It is safe in Redis; the counts follow.
    Accepted {
        /// The number of a message that counts.
        position: Option<u64>,
    },
    /// It was known; nothing changed.
    Duplicate {
        /// The number it got the first time.
        position: Option<u64>,
    },
    /// It was refused; nothing changed. ([`Rejection::Unreadable`]: or it was accepted, and is done once that is mended.)
    Rejected(Rejection),
}

/// Why an event was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such room.
    RoomNotFound(RoomId),
    /// There is no such user.
    UserNotFound(UserId),
    /// There is no such message, or it is older than the history.
    MessageNotFound,
    /// The user has not joined the room.
    NotAMember,
    /// The kind of a room changes only from group to supergroup.
    KindChange,
    /// A direct room takes two.
    DirectRoomFull,
    /// The event's key was taken by an event of another type.
    KeyTaken,
    /// Something stored can't be read that the event needs: this is no fault of the event.
    Unreadable(Box<Unreadable>),
}

impl Rejection {
    /// The code of the native API, and what it means here.
    pub fn said(&self) -> (&'static str, String) {
        match self {
            Rejection::RoomNotFound(room) => {
                ("room_not_found", format!("no room {:?}", room.as_str()))
            }
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
