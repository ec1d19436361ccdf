//! Who is in a room: the `member.*` events, and what joining and leaving do.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fields::{INVALID, id, ids};
use super::time::{Order, When};
use super::{Checked, Kind, Member, Membership, Model, Outcome, Room};

impl Room {
    /// Joining when already joined changes nothing; rejoining starts afresh.
    fn join(&mut self, user: &str, when: &When, history: Option<usize>) {
        let is_new = !self.has_joined(user);
        self.state_made(user, is_new, when);
        if !is_new {
            return;
        }
        let mut membership = Membership {
            read: self.position_on_joining(when, history),
            ..Membership::default()
        };
        // A join by arrival has no moment.
        if when.order != Order::Arrival {
            membership.set_at(when.time, when);
        }
        membership.raise_bound(when.time, when);
        self.members
            .insert(user.to_owned(), Member::Joined(membership));
    }

    /// A message by `to` brings those of the two into their direct room who are not in it; an invited one stays invited. Open: by
    /// time they join as of the message's time, but without a bound: the message counts for them, and so does an older one that
    /// is told later.
    pub(super) fn bring_in(&mut self, user: &str, when: &When, history: Option<usize>) {
        if !self.members.contains_key(user) {
            self.join(user, when, history);
            if let Ok(membership) = self.membership_mut(user) {
                membership.bounds.clear();
            }
        }
    }

    /// Inviting when already invited or joined changes nothing.
    fn invite(&mut self, user: &str, when: &When) {
        if self.has_joined(user) {
            return;
        }
        let before = self.members.insert(user.to_owned(), Member::Invited);
        self.state_made(user, before.is_none(), when);
    }

    /// Leaving when not there changes nothing.
    pub(super) fn leave(&mut self, user: &str, when: &When) {
        let is_new = self.members.remove(user).is_some();
        self.state_made(user, is_new, when);
        if is_new {
            self.parted.push(user.to_owned());
            self.end_waiting(user);
        }
    }
}

impl Model {
    /// By time each user whose state was made later is left as is. Open: the event is `duplicate` where that is so of all its
    /// users.
    pub(super) fn member_changed(
        &mut self,
        event: &Value,
        kind: &str,
        when: &When,
    ) -> Checked<Outcome> {
        let room = id(event, "room")?;
        let mut users = match (event.get("users"), event.get("user")) {
            (Some(users), None) => ids(users)?,
            (None, Some(_)) => BTreeSet::from([id(event, "user")?.to_owned()]),
            _ => return Err(INVALID),
        };
        if users.is_empty() {
            return Err(INVALID);
        }
        let history = self.history;
        let room = self.room_mut(room)?;
        users.retain(|user| !room.is_overtaken(user, when));
        if users.is_empty() {
            return Ok(Outcome::Duplicate(None));
        }
        if kind != "member.left" && room.kind == Kind::Direct {
            let new = users
                .iter()
                .filter(|user| !room.members.contains_key(*user))
                .count();
            if room.members.len() + new > 2 {
                return Err("direct_room_full");
            }
        }

        // In the order given: of two who leave together one is the last.
        let named = event.get("users").and_then(Value::as_array);
        let named = named.map_or(vec![&event["user"]], |users| users.iter().collect());
        let named = named.into_iter().filter_map(Value::as_str);
        for user in named.filter(|user| users.contains(*user)) {
            match kind {
                "member.joined" => room.join(user, when, history),
                "member.invited" => room.invite(user, when),
                _ => room.leave(user, when),
            }
        }
        if kind != "member.left" {
            for user in &users {
                self.come_to_exist(user);
            }
        }
        Ok(Outcome::Applied(None))
    }
}
