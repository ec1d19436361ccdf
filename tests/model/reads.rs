//! What has been read: `room.read`, `room.cleared`, `user.read_all`, and own messages.

use std::collections::BTreeSet;

use serde_json::Value;

use super::counting::at;
use super::fields::{INVALID, Point, id, ids, optional_id, point, time};
use super::time::{Awaited, When};
use super::{Checked, Message, Model, Name, Outcome, Room};

impl When {
    /// Up to where a read goes: by time one without any bound goes up to its own time.
    fn up_to(&self, named: Option<Point>) -> Option<Point> {
        named.or(self.is_by_time().then_some(Point::Time(self.time)))
    }
}

impl Room {
    /// The position of a message: a silent one has that of the last counted before it. The room's last message is always known by
    /// its id, however old.
    fn position_of(&self, id: &str, history: Option<usize>) -> Checked<i64> {
        let at = self.messages.iter().position(|m| m.id == id);
        let is_last = self.last().is_some_and(|last| last.id == id);
        let at = at
            .filter(|at| *at >= self.known(history) || is_last)
            .ok_or("message_not_found")?;
        let up_to = self.messages[..=at].iter();
        Ok(up_to.filter(|m| m.position.is_some()).count() as i64)
    }

    /// How far who has read all up to a time has read, if the room still knows. What was read on arrival is for that member as if
    /// never sent. Open: of what is older than the history the room knows only the earliest and the latest time.
    fn position_at(&self, user: &str, time: i64, history: Option<usize>) -> Checked<i64> {
        let membership = self.membership(user).ok_or("not_a_member")?;
        let all = self.counted();
        if all.iter().all(|m| m.time > time) {
            return Ok(0);
        }
        let first = self.first_known(history);
        let is_whole = all.iter().all(|m| m.time <= time);
        let counted = (1..)
            .zip(all)
            .filter(|(_, m)| !membership.read_on_arrival.contains(&m.id));
        let is_up_to =
            |(position, m): &(i64, &Message)| is_whole || *position >= first && m.time <= time;
        match counted.filter(is_up_to).last() {
            Some((position, _)) => Ok(position),
            // Nothing is forgotten, or all that is forgotten has been read.
            None if is_whole || first == 1 || membership.read + 1 >= first => Ok(0),
            None => Err("message_not_found"),
        }
    }

    /// How far a read goes. Open: what was read on arrival has no place among the positions for that member; a read that names it
    /// goes as far as its time says.
    fn read_position_of(
        &self,
        user: &str,
        up_to: Option<&Point>,
        history: Option<usize>,
    ) -> Checked<i64> {
        match up_to {
            None => Ok(self.head()),
            Some(Point::Id(id)) => {
                let position = self.position_of(id, history)?;
                let own = self.membership(user).ok_or("not_a_member")?;
                match self.message(id) {
                    Some(message) if own.read_on_arrival.contains(id) => {
                        self.position_at(user, message.time, history)
                    }
                    _ => Ok(position),
                }
            }
            Some(Point::Time(time)) => self.position_at(user, *time, history),
            Some(Point::Position(position)) => Ok(*position.min(&self.head())),
        }
    }

    /// The bound that a read sets: its `up_to_time`, or the time of the message that it names. Open: a position names a message
    /// too; one that is older than the history sets no bound.
    fn bound_of(&self, up_to: Option<&Point>, history: Option<usize>) -> Option<i64> {
        match up_to {
            None => None,
            Some(Point::Id(id)) => self.message(id).map(|m| m.time),
            Some(Point::Time(time)) => Some(*time),
            Some(Point::Position(position)) => {
                let position = *position.min(&self.head());
                let known = position >= self.first_known(history);
                let counted = self.counted();
                let message = at(&counted, position).filter(|_| known);
                message.map(|m| m.time)
            }
        }
    }

    /// The user has read up to there: the position moves forward only.
    fn has_read(
        &mut self,
        user: &str,
        position: i64,
        bound: Option<i64>,
        moment: i64,
        when: &When,
    ) {
        let Ok(membership) = self.membership_mut(user) else {
            return;
        };
        membership.move_to(position.max(membership.read));
        if let Some(bound) = bound {
            membership.raise_bound(bound, when);
        }
        membership.set_at(moment, when);
        membership.has_been_here = true;
    }

    /// `room.read` of one member, and what `user.read_all` comes to in each room.
    pub(super) fn read_to(
        &mut self,
        user: &str,
        up_to: Option<&Point>,
        when: &When,
        history: Option<usize>,
    ) -> Checked<Outcome> {
        let membership = self.membership(user).ok_or("not_a_member")?;
        let moment = self.moment_of(up_to, when);
        if membership.is_reset_since(moment, when) {
            return Ok(Outcome::Duplicate(None));
        }
        let position = self.read_position_of(user, up_to, history)?;
        let bound = self.bound_of(up_to, history);
        self.has_read(user, position, bound, moment, when);
        Ok(Outcome::Applied(None))
    }

    /// A clearing, or a read that has waited, which can't be refused for one member: where the message itself was read on arrival,
    /// and whatever else is not later has been forgotten, the position stays where it is.
    pub(super) fn read_as_far_as_known(
        &mut self,
        user: &str,
        up_to: Option<&Point>,
        when: &When,
        history: Option<usize>,
    ) -> Checked<Outcome> {
        match self.read_to(user, up_to, when, history) {
            Err("message_not_found") => {
                let (bound, moment) = (self.bound_of(up_to, history), self.moment_of(up_to, when));
                self.has_read(user, 0, bound, moment, when);
                Ok(Outcome::Applied(None))
            }
            outcome => outcome,
        }
    }

    fn moment_of(&self, up_to: Option<&Point>, when: &When) -> i64 {
        when.moment(match up_to {
            Some(Point::Time(time)) => Some(*time),
            _ => None,
        })
    }

    /// An own message reads up to itself, unless it is not to mark as read.
    pub(super) fn sent_by(&mut self, user: &str, mark_read: bool, when: &When) {
        let (head, moment) = (self.head(), when.moment(None));
        let Ok(membership) = self.membership_mut(user) else {
            return;
        };
        membership.has_been_here = true;
        if mark_read && !membership.is_reset_since(moment, when) {
            self.has_read(user, head, Some(when.time), moment, when);
        }
    }

    /// Whether the room knows which messages have times up to that one; else it is an error.
    fn knows_time(&self, time: i64, history: Option<usize>) -> Checked<()> {
        let counted = self.counted();
        let first = self.first_known(history) - 1;
        let mut known = counted.iter().skip(usize::try_from(first).unwrap_or(0));
        let is_known = counted.iter().all(|m| m.time <= time)
            || counted.iter().all(|m| m.time > time)
            || known.any(|m| m.time <= time);
        match is_known {
            true => Ok(()),
            false => Err("message_not_found"),
        }
    }

    fn knows(&self, id: &str, history: Option<usize>) -> bool {
        self.position_of(id, history).is_ok()
    }

    /// A read by an id that the room doesn't know waits, by time.
    fn read_or_wait(
        &mut self,
        user: &str,
        up_to: Option<&Point>,
        when: &When,
        history: Option<usize>,
    ) -> Checked<Outcome> {
        let membership = self.membership(user).ok_or("not_a_member")?;
        match up_to {
            Some(Point::Id(id)) if when.is_by_time() && !self.knows(id, history) => {
                if membership.is_reset_since(when.time, when) {
                    return Ok(Outcome::Duplicate(None));
                }
                let user = user.to_owned();
                Ok(self.wait(id, Awaited::Read { user }, *when))
            }
            _ => self.read_to(user, up_to, when, history),
        }
    }
}

impl Model {
    /// The rooms that a user's event is about: the one that it names, or all whose peer it names.
    pub(super) fn rooms_named(&self, event: &Value, user: &str) -> Checked<Vec<String>> {
        match (optional_id(event, "room")?, optional_id(event, "peer")?) {
            (Some(room), None) => Ok(vec![room.to_owned()]),
            (None, Some(peer)) => {
                let rooms = self.rooms_with(user, peer);
                Ok(rooms.map(|(id, _)| id.to_owned()).collect())
            }
            _ => Err(INVALID),
        }
    }

    pub(super) fn room_read(&mut self, event: &Value, when: &When) -> Checked<Outcome> {
        let user = id(event, "user")?;
        let up_to = when.up_to(point(event, "up_to")?);
        let rooms = self.rooms_named(event, user)?;
        let history = self.history;
        // Where there is nothing to read, all is read; of several rooms one that takes it will do.
        let mut verdict = Ok(Outcome::Applied(None));
        for (n, room) in rooms.iter().enumerate() {
            let room = self.room_mut(room)?;
            let read = room.read_or_wait(user, up_to.as_ref(), when, history);
            let is_taken = matches!(read, Ok(Outcome::Applied(_)));
            if n == 0 || verdict.is_err() || is_taken {
                verdict = read;
            }
        }
        verdict
    }

    /// Everybody who has joined reads, as by `room.read`. Open: an id that the room doesn't know is rejected, by time too. Of the
    /// members for whom it is older than a reset nothing changes. Open: a time that lies in what the room has forgotten is
    /// rejected, whatever the members have read.
    pub(super) fn room_cleared(&mut self, event: &Value, when: &When) -> Checked<Outcome> {
        let up_to = when.up_to(point(event, "up_to")?);
        let history = self.history;
        let name = id(event, "room")?;
        self.room_mut(name)?;
        let when = &self.stamped(name, when);
        let room = self.room_mut(name)?;
        let members: Vec<String> = room.joined().map(str::to_owned).collect();
        match &up_to {
            Some(Point::Id(id)) => {
                room.position_of(id, history)?;
            }
            Some(Point::Time(time)) => room.knows_time(*time, history)?,
            _ => {}
        }
        for user in &members {
            room.read_as_far_as_known(user, up_to.as_ref(), when, history)?;
        }
        Ok(Outcome::Applied(None))
    }

    pub(super) fn user_read_all(&mut self, event: &Value, when: &When) -> Checked<Outcome> {
        let user = id(event, "user")?;
        let up_to = when.up_to(time(event, "up_to_time")?.map(Point::Time));
        let kinds = match event.get("kinds") {
            None => BTreeSet::from(["direct", "group", "supergroup"].map(str::to_owned)),
            Some(kinds) => ids(kinds)?,
        };
        if kinds.is_empty() {
            return Err(INVALID);
        }
        let legal = |kind: &String| ["direct", "group", "supergroup"].contains(&kind.as_str());
        if !kinds.iter().all(legal) {
            return Err(INVALID);
        }
        let key = optional_id(event, "key")?;
        if !self.users.contains_key(user) {
            return Err("user_not_found");
        }
        let history = self.history;
        for (id, room) in &mut self.rooms {
            if !room.has_joined(user) || !kinds.contains(room.kind.name()) {
                continue;
            }
            // Each room that is read remembers it, for this user.
            if let Some(key) = key {
                let place = (Name::Room(id.clone()), format!("{key}*{user}"));
                if self.keys.contains_key(&place) {
                    continue;
                }
                self.keys.insert(place, "user.read_all".to_owned());
            }
            // What the room has forgotten stays unread.
            let _ = room.read_to(user, up_to.as_ref(), when, history);
        }
        Ok(Outcome::Applied(None))
    }
}
