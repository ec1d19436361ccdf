//! What another system knows: `counts.set`.

use serde_json::Value;

use super::counting::{at, head_of};
use super::fields::{INVALID, id, number};
use super::time::{TEN_MINUTES, When};
use super::{Checked, Membership, Message, Model, Outcome, Room};

impl Membership {
    /// Whether by time the number is told too late: something later has set the read position, or said the number, or the number
    /// is old and the user has been here.
    fn knows_better_than(&self, when: &When) -> bool {
        let of_later = self
            .counts_as_of
            .is_some_and(|earlier| when.time <= earlier);
        let is_old = when.time < when.accepted - TEN_MINUTES;
        when.is_by_time()
            && (self.was_set_since(when.time, when) || of_later || is_old && self.has_been_here)
    }

    /// The positions that hold the N unread messages, the newest first, and the read position before them. `among`: of which
    /// messages the number speaks. Positions at or below 0, and those older than the history, are among them, and count as one
    /// each.
    fn last_unread(
        &self,
        user: &str,
        unread: u64,
        counted: &[&Message],
        among: impl Fn(&Message) -> bool,
    ) -> (Vec<i64>, i64) {
        let is_told =
            |position: &i64| at(counted, *position).is_none_or(&among) || *position <= self.unknown;
        let mut found = Vec::new();
        let top = (self.unknown..=head_of(counted)).rev().find(is_told);
        let mut position = top.unwrap_or(self.unknown);
        while (found.len() as u64) < unread {
            if is_told(&position) && self.counts_at(user, position, counted) {
                found.push(position);
            }
            position -= 1;
        }
        (found, position)
    }

    /// Makes exactly so many of the unread messages mentions: known ones are kept, newest first; if they are too few, the newest
    /// others become mentions.
    fn mention_exactly(&mut self, user: &str, mentions: u64, unread: &[i64], counted: &[&Message]) {
        let wanted = usize::try_from(mentions).unwrap_or(usize::MAX);
        let (named, others): (Vec<i64>, Vec<i64>) = unread
            .iter()
            .partition(|position| self.mentions_at(user, **position, counted));
        for position in named.iter().skip(wanted) {
            self.set_mentions.insert(*position, false);
        }
        for position in others.iter().take(wanted.saturating_sub(named.len())) {
            self.set_mentions.insert(*position, true);
        }
    }
}

impl Room {
    /// `counts.set` of one member.
    ///
    /// Open: without M the mentions stay what they are, those that an earlier `counts.set` has made included. Of what is older
    /// than the history only those are known that were unread. What was read on arrival is forgotten by arrival too.
    fn set_counts(
        &mut self,
        user: &str,
        unread: u64,
        mentions: Option<u64>,
        when: &When,
        history: Option<usize>,
    ) -> Checked<Outcome> {
        let mut own = self.membership(user).ok_or("not_a_member")?.clone();
        if own.knows_better_than(when) {
            return Ok(Outcome::Duplicate(None));
        }
        let counted = self.counted();
        let forgotten = own.read + 1..self.first_known(history);
        for position in forgotten {
            let is_unread = own.counts_at(user, position, &counted);
            if is_unread && own.mentions_at(user, position, &counted) {
                own.set_mentions.insert(position, true);
            }
        }
        own.unknown = self.first_known(history) - 1;
        own.read_on_arrival.clear();

        let among = |m: &Message| !when.is_by_time() || m.time <= when.time;
        let (positions, read) = own.last_unread(user, unread, &counted, among);
        own.move_to(read);
        if let Some(mentions) = mentions {
            own.mention_exactly(user, mentions, &positions, &counted);
        }
        own.set_at(when.moment(None), when);
        own.raise_bound(when.time, when);
        own.reset_at(when);
        if when.is_by_time() {
            own.counts_as_of = Some(when.time);
        }
        *self.membership_mut(user)? = own;
        self.cancel_waiting_reads(user, when);
        Ok(Outcome::Applied(None))
    }
}

impl Model {
    /// Open: of several direct rooms with the peer the first one takes it; without any it is `room_not_found`.
    pub(super) fn counts_set(&mut self, event: &Value, when: &When) -> Checked<Outcome> {
        let user = id(event, "user")?;
        let unread = number(event, "unread")?.ok_or(INVALID)?;
        let mentions = number(event, "mentions")?;
        let rooms = self.rooms_named(event, user)?;
        let room = rooms.first().ok_or("room_not_found")?;
        let history = self.history;
        let room = self.room_mut(room)?;
        room.set_counts(user, unread, mentions, when, history)
    }
}
