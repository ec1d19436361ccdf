//! Events that don't come as JSON.

use super::change::set_counts;
use super::{Change, Event, Invalid, MemberState, Notes, Order, RoomOrPeer};
use crate::names::{RoomId, UserId};

impl Event {
    /// `counts.set` in a room as of a time (milliseconds since the epoch), if the numbers are within bounds.
    pub(crate) fn counts_set(
        room: RoomId,
        user: UserId,
        unread: u64,
        mentions: Option<u64>,
        time: i64,
    ) -> Result<Self, Invalid> {
        let change = set_counts(RoomOrPeer::Room(room), user, unread, mentions);
        let change = change.map_err(|wrong| wrong.in_line(None))?;
        Ok(Self {
            time: Some(time),
            order: Order::Import,
            ..Self::of("counts.set", change)
        })
    }

    /// `room.updated` with nothing but the kind, if that is known: it makes a room that is not there.
    pub(crate) fn room_made(room: RoomId, kind: Option<&'static str>) -> Self {
        let change = Change::RoomUpdated {
            room,
            kind,
            makes: true,
            custom_type: None,
            tags: None,
            active: None,
            shown: Vec::new(),
        };
        Self::of("room.updated", change)
    }

    /// `member.joined`, which sets a read position only until the counts are set. At least one user, each once.
    pub(crate) fn joined(room: RoomId, users: Vec<UserId>) -> Self {
        let state = MemberState::Joined;
        Self::of("member.joined", Change::Member { room, state, users })
    }

    fn of(type_name: &'static str, change: Change) -> Self {
        Self {
            type_name,
            time: None,
            order: Order::Arrival,
            key: None,
            notes: Notes::default(),
            change,
        }
    }
}
