//! The steps of a request, by room.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::error::Result;
use crate::event::{Change, Event, Mentions, Message, Order, RoomOrPeer};
use crate::keys::{Enc, encode};
use crate::names::{RoomId, UserId};

/// Something with its event's index in the request.
pub(super) type Numbered<T> = (usize, T);

/// Messages in one call of the script at most.
const MESSAGES_PER_CALL: usize = 100;

/// Users that the messages in one call of the script name: when there are this many, no further message is added.
const NAMED_PER_CALL: usize = 10_000;

/// How the room of a message was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The event names the room; or the sender has it with the receiver, and both have to be members still.
    Existing,
    /// The two users have it, as a second look-up found. One of them may have left it, and joins again by this message.
    Rejoined,
    /// The two users have no room. The message makes it, with the id of this number.
    New(u8),
}

/// The direct rooms of the pairs of users whom a request names.
pub(super) struct DirectRooms {
    pub(super) by_pair: PairRooms,
    /// By the event's index: if the sender has several rooms with the receiver, the one that knows the message already.
    pub(super) known_in: HashMap<usize, RoomId>,
}

/// By user and peer: the direct rooms that the user has with the peer, or the failure to read them.
pub(super) type PairRooms = HashMap<(UserId, UserId), Result<Vec<RoomId>>>;

/// When an event happened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SentAt {
    /// Milliseconds since 1970.
    pub(super) time: i64,
    /// By what it is placed in its room.
    pub(super) order: Order,
    /// Whether the event has a time. If not, this is the time of arrival, by which no message counts as late.
    pub(super) given: bool,
}

impl SentAt {
    /// Of an event that is taken at `now`.
    pub(super) fn of(event: &Event, now: i64) -> Self {
        Self {
            time: event.time.unwrap_or(now),
            order: event.order,
            given: event.time.is_some(),
        }
    }

    /// The order and the time as the scripts take them: an empty word is the order of arrival.
    pub(super) fn order_and_time(self) -> (&'static str, String) {
        match self.order {
            Order::Arrival => ("", String::new()),
            Order::Time => ("time", self.time.to_string()),
            Order::Import => ("import", self.time.to_string()),
        }
    }

    /// Of an event that was placed by its time before.
    pub(super) fn placed(time: i64) -> Self {
        Self {
            time,
            order: Order::Time,
            given: true,
        }
    }
}

/// A message that a room is about to accept.
pub(super) struct IncomingMessage {
    pub(super) index: usize,
    pub(super) message: Message,
    pub(super) sent_at: SentAt,
    pub(super) found: Found,
}

impl IncomingMessage {
    /// How many users it names beside its sender.
    fn named(&self) -> usize {
        let mentioned = match &self.message.mentions {
            Mentions::Users(users) => users.len(),
            Mentions::All => 0,
        };
        mentioned + self.message.except.len()
    }
}

/// Whether one call can take this message together with `messages`.
pub(super) fn fits(messages: &[IncomingMessage], message: &Message) -> bool {
    let named: usize = messages.iter().map(IncomingMessage::named).sum();
    let is_same_place = messages
        .last()
        .is_none_or(|last| has_same_place(&last.message, message));
    is_same_place && messages.len() < MESSAGES_PER_CALL && named < NAMED_PER_CALL
}

/// Whether both messages name a room, or both are between the same two users.
fn has_same_place(one: &Message, two: &Message) -> bool {
    match (&one.place, &two.place) {
        (RoomOrPeer::Room(_), RoomOrPeer::Room(_)) => true,
        (RoomOrPeer::With(a), RoomOrPeer::With(b)) => {
            (a == b && one.sender == two.sender)
                || (one.sender.as_ref() == Some(b) && two.sender.as_ref() == Some(a))
        }
        _ => false,
    }
}

/// What one event asks of one room.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The event's index in the request.
    pub(super) index: usize,
    /// The event's key as the scripts take it; '' if it has none.
    pub(super) key: String,
    pub(super) sent_at: SentAt,
    pub(super) change: Change,
    /// For a message: how its room was found.
    pub(super) found: Found,
    /// For a member who leaves because the user was deleted: only a membership up to this epoch ends.
    pub(super) up_to: Option<u64>,
}

impl Step {
    /// A step that does not come from a caller's event.
    pub(super) fn internal(change: Change) -> Self {
        Self {
            index: 0,
            key: String::new(),
            sent_at: SentAt::default(),
            change,
            found: Found::Existing,
            up_to: None,
        }
    }

    /// The user, if the step concerns nobody else.
    pub(super) fn single_user(&self) -> Option<Numbered<Enc>> {
        match &self.change {
            Change::Read { user, .. }
            | Change::Unread { user, .. }
            | Change::CountsSet { user, .. }
            | Change::Pref { user, .. } => Some((self.index, encode(user.as_str()))),
            _ => None,
        }
    }

    /// Whether the user's slot keeps the event's key when the event is done.
    pub(super) fn takes_users_key(&self) -> bool {
        self.change.peer().is_some() && !self.key.is_empty()
    }
}

/// One room's steps of a request.
pub(super) struct RoomSteps {
    pub(super) name: RoomId,
    pub(super) steps: Vec<Step>,
}

/// The steps of a request by room. Those of one room are in the order of the events.
#[derive(Default)]
pub(super) struct ByRoom {
    rooms: Vec<RoomSteps>,
    index_of: HashMap<RoomId, usize>,
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

    pub(super) fn into_rooms(self) -> Vec<RoomSteps> {
        self.rooms
    }
}

/// Updates of users' profiles, those of each user in order.
#[derive(Default)]
pub(super) struct UserUpdates(pub(super) BTreeMap<Enc, VecDeque<UserUpdate>>);

/// What one call of the script sets: for one event with a key, or for several without.
pub(super) struct UserUpdate {
    pub(super) indices: Vec<usize>,
    pub(super) key: String,
    pub(super) profile: BTreeMap<&'static str, String>,
}

impl UserUpdates {
    pub(super) fn add(
        &mut self,
        user: Enc,
        index: usize,
        key: String,
        profile: Vec<(&'static str, String)>,
    ) {
        let updates = self.0.entry(user).or_default();
        let last = updates.back_mut();
        if let Some(last) = last.filter(|last| last.key.is_empty() && key.is_empty()) {
            last.indices.push(index);
            last.profile.extend(profile);
            return;
        }
        updates.push_back(UserUpdate {
            indices: vec![index],
            key,
            profile: profile.into_iter().collect(),
        });
    }
}
