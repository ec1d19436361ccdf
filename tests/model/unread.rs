//! What is marked as unread: `room.unread`.

use serde_json::Value;

use super::counting::at;
use super::fields::{INVALID, Point, id, point};
use super::time::{Awaited, When};
use super::{Checked, Model, Outcome, Room};

/// Where a `room.unread` goes back to.
struct Back {
    /// The read position, unless it is before that already.
    position: i64,
    /// The time that the event names, or that of the message that it names.
    time: i64,
}

impl Room {
    /// The message with that id, if the history has it: its position, or that of the last counted before a silent one.
    fn back_to_message(&self, id: &str, history: Option<usize>) -> Checked<Back> {
        let known = &self.messages[self.known(history)..];
        let message = known
            .iter()
            .find(|m| m.id == id)
            .ok_or("message_not_found")?;
        let before = self.messages.iter().take_while(|m| m.id != id);
        Ok(Back {
            position: before.filter(|m| m.position.is_some()).count() as i64,
            time: message.time,
        })
    }

    /// To just before that position; one beyond the head means the head. Open: a position that is older than the history is
    /// `message_not_found`, as an id is; a room without any message has nothing that could be unread.
    fn back_to_position(&self, position: i64, history: Option<usize>) -> Checked<Option<Back>> {
        if self.head() == 0 {
            return Ok(None);
        }
        let position = position.min(self.head());
        if position < self.first_known(history) {
            return Err("message_not_found");
        }
        let counted = self.counted();
        let message = at(&counted, position).ok_or("message_not_found")?;
        Ok(Some(Back {
            position: position - 1,
            time: message.time,
        }))
    }

    /// To just before the lowest position among the counted messages of the history whose time is at or after that one; none: it
    /// stays where it is.
    fn back_to_time(&self, time: i64, history: Option<usize>) -> Back {
        let first = self.first_known(history);
        let mut known = (1..)
            .zip(self.counted())
            .filter(|(position, _)| *position >= first);
        let lowest = known.find(|(_, m)| m.time >= time);
        Back {
            position: lowest.map_or(i64::MAX, |(position, _)| position - 1),
            time,
        }
    }

    /// `room.unread` of one member.
    ///
    /// Open: by arrival it takes the bound back as well, and what was read on arrival counts again, as far as the history goes. It
    /// says so of the very message that it names. And it does so where the position stays, since what it names was unread as of its time.
    pub(super) fn unread_from(
        &mut self,
        user: &str,
        from: &Point,
        when: &When,
        history: Option<usize>,
    ) -> Checked<Outcome> {
        let membership = self.membership(user).ok_or("not_a_member")?;
        let moment = when.moment(None);
        if when.is_by_time() && membership.was_set_since(moment, when) {
            return Ok(Outcome::Duplicate(None));
        }
        let back = match from {
            Point::Id(id) if when.is_by_time() && self.back_to_message(id, history).is_err() => {
                let user = user.to_owned();
                return Ok(self.wait(id, Awaited::Unread { user }, *when));
            }
            Point::Id(id) => Some(self.back_to_message(id, history)?),
            Point::Position(position) => self.back_to_position(*position, history)?,
            Point::Time(time) => Some(self.back_to_time(*time, history)),
        };
        let from_there_on: Vec<String> = match &back {
            None => Vec::new(),
            Some(back) => {
                let known = &self.messages[self.known(history)..];
                let later = known.iter().filter(|m| m.time >= back.time);
                later.map(|m| m.id.clone()).collect()
            }
        };
        let membership = self.membership_mut(user)?;
        if let Some(back) = back {
            membership.move_to(back.position.min(membership.read));
            membership.take_bound_back(back.time);
            for id in &from_there_on {
                membership.read_on_arrival.remove(id);
            }
        }
        membership.set_at(moment, when);
        membership.reset_at(when);
        self.cancel_waiting_reads(user, when);
        Ok(Outcome::Applied(None))
    }
}

impl Model {
    /// Open: of two users without a room there is nothing to mark: `room_not_found`.
    pub(super) fn room_unread(&mut self, event: &Value, when: &When) -> Checked<Outcome> {
        let user = id(event, "user")?;
        let from = point(event, "from")?.ok_or(INVALID)?;
        let rooms = self.rooms_named(event, user)?;
        let history = self.history;
        let mut verdict = Err("room_not_found");
        for (n, room) in rooms.iter().enumerate() {
            let unread = self.room_mut(room)?.unread_from(user, &from, when, history);
            if n == 0 || verdict.is_err() {
                verdict = unread;
            }
        }
        verdict
    }
}
