//! What an event is about, and whether it builds on earlier events of other rooms. The writer uses it to keep the order within a
//! request, and the import to keep the order across many batches.

use super::{Change, Mentions, Message, RoomOrPeer};
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

/// Whose counts an event may change: some users, and the members of a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Concern<'a> {
    /// The users who are concerned in a room of any kind.
    pub users: [Option<&'a UserId>; 2],
    /// More of them.
    pub more: &'a [UserId],
    /// Users who are concerned if the room is a supergroup.
    pub in_supergroup: &'a [UserId],
    /// The room whose members are concerned, and which of them.
    pub members: Option<(&'a RoomId, MembersOf)>,
}

/// Which members of a room an event concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MembersOf {
    /// Those of a direct room or a group.
    SmallRoom,
    /// The same, as the room was before the event, which may make a supergroup of it.
    SmallRoomBefore,
    /// Those of a room of any kind, as it was before the event, which deletes it.
    RoomBefore,
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

/// The users whom mentions name.
fn named(mentions: Option<&Mentions>) -> &[UserId] {
    match mentions {
        Some(Mentions::Users(users)) => users,
        Some(Mentions::All) | None => &[],
    }
}

/// Whom a message concerns, or what happens to one: the sender, and the members of its room or, in a supergroup, those named.
fn at_place<'a>(
    place: &'a RoomOrPeer,
    sender: Option<&'a UserId>,
    named: &'a [UserId],
) -> Concern<'a> {
    match place {
        RoomOrPeer::With(to) => Concern {
            users: [sender, Some(to)],
            ..Concern::default()
        },
        RoomOrPeer::Room(room) => Concern {
            users: [sender, None],
            in_supergroup: named,
            members: Some((room, MembersOf::SmallRoom)),
            ..Concern::default()
        },
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
            Change::Read { place, user, .. }
            | Change::Unread { place, user, .. }
            | Change::CountsSet { place, user, .. } => in_place(place, Some(user)),
        }
    }

    /// Whose counts the event may change. The members of a supergroup are left out, because no delivery goes to them.
    pub(crate) fn concern(&self) -> Concern<'_> {
        let small = |room| Some((room, MembersOf::SmallRoom));
        let none = Concern::default();
        let one = |user| Concern {
            users: [Some(user), None],
            ..none
        };
        match self {
            Change::UserUpdated { user, .. }
            | Change::UserDeleted { user }
            | Change::Read { user, .. }
            | Change::Unread { user, .. }
            | Change::CountsSet { user, .. }
            | Change::ReadAll { user, .. }
            | Change::Pref { user, .. } => one(user),
            Change::RoomUpdated { room, kind, .. } => Concern {
                members: match kind {
                    Some("supergroup") => Some((room, MembersOf::SmallRoomBefore)),
                    _ => small(room),
                },
                ..none
            },
            Change::RoomDeleted { room } => Concern {
                members: Some((room, MembersOf::RoomBefore)),
                ..none
            },
            Change::Cleared { room, .. } => Concern {
                members: small(room),
                ..none
            },
            Change::Member { users, .. } => Concern {
                more: users,
                ..none
            },
            Change::Message(message) => {
                let mentioned = named(Some(&message.mentions));
                at_place(&message.place, message.sender.as_ref(), mentioned)
            }
            Change::Edited(edit) => at_place(
                &edit.place,
                edit.sender.as_ref(),
                named(edit.mentions.as_ref()),
            ),
            Change::Recalled { place, sender, .. } => at_place(place, sender.as_ref(), &[]),
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
