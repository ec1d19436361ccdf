//! What a request asks of its rooms: steps, by room.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::event::{Change, Mentions, Message, Place};
use crate::keys::{Enc, encode};
use crate::names::RoomId;

/// Something with its place among the events of the request.
pub(super) type Numbered<T> = (usize, T);

/// Messages in one call of the script.
pub(super) const MESSAGES_PER_CALL: usize = 100;

/// Mentions in one call of the script, give or take one message's.
pub(super) const MENTIONS_PER_CALL: usize = 10_000;

/// How the room of a message was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The event names it; or one of the two whom the event names has it, and it is theirs only if both are in it.
    There,
    /// It is what the two have after another look, and who has left it comes back.
    Again,
    /// The two have none: it is made, by the one of the ids that their room may have.
    Made(u8),
}

/// When a message was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SentAt {
    /// Milliseconds since the epoch.
    pub(super) time: i64,
    /// Whether the event said so; if not, it is the time of arrival, and no message is late by that.
    pub(super) given: bool,
}

/// A message on its way into a room.
pub(super) struct Sent {
    pub(super) index: usize,
    pub(super) message: Message,
    pub(super) at: SentAt,
    pub(super) how: Found,
}

impl Sent {
    pub(super) fn mentions(&self) -> usize {
        match &self.message.mentions {
            Mentions::Users(users) => users.len(),
            Mentions::All => 0,
        }
    }
}

/// Whether a message can go in by one call with these.
pub(super) fn fits(messages: &[Sent], message: &Message) -> bool {
    let mentions: usize = messages.iter().map(Sent::mentions).sum();
    let together = messages
        .last()
        .is_none_or(|last| same_place(&last.message, message));
    together && messages.len() < MESSAGES_PER_CALL && mentions < MENTIONS_PER_CALL
}

/// Whether two messages can go in by one call: to a room, or between the same two.
pub(super) fn same_place(one: &Message, two: &Message) -> bool {
    match (&one.place, &two.place) {
        (Place::Room(_), Place::Room(_)) => true,
        (Place::With(a), Place::With(b)) => {
            (a == b && one.sender == two.sender)
                || (one.sender.as_ref() == Some(b) && two.sender.as_ref() == Some(a))
        }
        _ => false,
    }
}

/// What a room is asked: an event of a request.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The event's place in the request.
    pub(super) index: usize,
    /// The event's key as the scripts take it, or ''.
    pub(super) key: String,
    pub(super) sent: SentAt,
    pub(super) change: Change,
    /// Of a message: how its room was found.
    pub(super) how: Found,
    /// Of a member who leaves by being deleted: the epoch up to which the membership ends.
    pub(super) up_to: Option<u64>,
}

impl Step {
    /// One that no caller sent.
    pub(super) fn own(change: Change) -> Self {
        Self {
            index: 0,
            key: String::new(),
            sent: SentAt::default(),
            change,
            how: Found::There,
            up_to: None,
        }
    }

    /// The user whom alone it concerns.
    pub(super) fn of_one(&self) -> Option<Numbered<Enc>> {
        match &self.change {
            Change::Read { user, .. } | Change::Pref { user, .. } => {
                Some((self.index, encode(user.as_str())))
            }
            _ => None,
        }
    }

    /// Whether the user's name takes its key when it is done.
    pub(super) fn takes_users_key(&self) -> bool {
        let by_peer = matches!(
            &self.change,
            Change::Read {
                place: Place::With(_),
                ..
            }
        );
        by_peer && !self.key.is_empty()
    }
}

/// One room's share of a request.
pub(super) struct RoomSteps {
    pub(super) name: RoomId,
    pub(super) steps: Vec<Step>,
}

/// The steps of a request by room, those of a room in the order of the events.
#[derive(Default)]
pub(super) struct ByRoom {
    pub(super) rooms: Vec<RoomSteps>,
    pub(super) index_of: HashMap<RoomId, usize>,
}

impl ByRoom {
    pub(super) fn add(&mut self, room: RoomId, step: Step) {
        let at = *self.index_of.entry(room.clone()).or_insert_with(|| {
            self.rooms.push(RoomSteps {
                name: room,
                steps: Vec::new(),
            });
            self.rooms.len() - 1
        });
        if let Some(room) = self.rooms.get_mut(at) {
            room.steps.push(step);
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &RoomId> {
        self.rooms.iter().map(|room| &room.name)
    }

    pub(super) fn into_all(self) -> Vec<RoomSteps> {
        self.rooms
    }
}

/// What is to become of what others see of users, for each in order.
#[derive(Default)]
pub(super) struct UserUpdates(pub(super) BTreeMap<Enc, VecDeque<UserUpdate>>);

/// Fields that are set by one call of the script, for one event with a key or several without.
pub(super) struct UserUpdate {
    pub(super) indices: Vec<usize>,
    pub(super) key: String,
    pub(super) shown: BTreeMap<&'static str, String>,
}

impl UserUpdates {
    pub(super) fn add(
        &mut self,
        user: Enc,
        index: usize,
        key: String,
        shown: Vec<(&'static str, String)>,
    ) {
        let updates = self.0.entry(user).or_default();
        let last = updates.back_mut();
        if let Some(last) = last.filter(|last| last.key.is_empty() && key.is_empty()) {
            last.indices.push(index);
            last.shown.extend(shown);
            return;
        }
        updates.push_back(UserUpdate {
            indices: vec![index],
            key,
            shown: shown.into_iter().collect(),
        });
    }
}
