//! What an event is about, and whether it builds on earlier events of other rooms. The writer uses it to keep the order within a
//! request, and the import to keep the order across many batches.

use super::{Change, Message, RoomOrPeer};
use crate::names::{RoomId, UserId};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject<'a> {
    /// A user's profile.
    User(&'a UserId),
    /// All rooms of a user.
    RoomsOf(&'a UserId),
    /// A room by its id.
    Room(&'a RoomId),
    /// The direct room of two users, of whom the first one acts.
    Pair(&'a UserId, &'a UserId),
}

/// What earlier events of a request may have changed, as far as later events depend on it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Before {
    /// Whether users may have joined or left rooms.
    moves: bool,
    /// Whether a direct room of two users may have been made.
    makes: bool,
}

impl Before {
    /// Adds an event.
    pub(crate) fn add(&mut self, change: &Change) {
        match change {
            Change::RoomUpdated { .. } | Change::RoomDeleted { .. } | Change::Member { .. } => {
                self.moves = true;
            }
            Change::Message(Message {
                place: RoomOrPeer::With(_),
                ..
            }) => self.makes = true,
            _ => {}
        }
    }
}

fn in_place<'a>(place: &'a RoomOrPeer, user: Option<&'a UserId>) -> Option<Subject<'a>> {
    match (place, user) {
        (RoomOrPeer::Room(room), _) => Some(Subject::Room(room)),
        (RoomOrPeer::With(other), Some(user)) => Some(Subject::Pair(user, other)),
        (RoomOrPeer::With(_), None) => None,
    }
}

impl Change {
    /// What the event is about. `None` only for a message to a user (or an edit or recall of one) without a sender, which no
    /// caller can send.
    pub(crate) fn subject(&self) -> Option<Subject<'_>> {
        match self {
            Change::UserUpdated { user, .. } => Some(Subject::User(user)),
            Change::UserDeleted { user } | Change::ReadAll { user, .. } => {
                Some(Subject::RoomsOf(user))
            }
            Change::RoomUpdated { room, .. }
            | Change::RoomDeleted { room }
            | Change::Member { room, .. }
            | Change::Cleared { room, .. }
            | Change::Pref { room, .. } => Some(Subject::Room(room)),
            Change::Message(message) => in_place(&message.place, message.sender.as_ref()),
            Change::Edited(edit) => in_place(&edit.place, edit.sender.as_ref()),
            Change::Recalled { place, sender, .. } => in_place(place, sender.as_ref()),
            Change::Read { place, user, .. } => in_place(place, Some(user)),
        }
    }

    /// Whether earlier events of other rooms have to be done first. Earlier events of its own room always have to.
    pub(crate) fn builds_on(&self, before: Before) -> bool {
        match self.subject() {
            Some(Subject::RoomsOf(_)) => true,
            // A message finds the room of the two, or makes it; every other event only finds it.
            Some(Subject::Pair(..)) => {
                before.moves || (before.makes && !matches!(self, Change::Message(_)))
            }
            _ => false,
        }
    }
}
