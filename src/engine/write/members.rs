//! Changes of memberships.

use std::collections::BTreeSet;

use super::room::{RoomWorker, with_event_and_time_keys};
use super::steps::SentAt;
use super::{ROUNDS, USERS_PER_CALL};
use crate::counts::room::Membership;
use crate::engine::deliver::{LEASE_MICROS, Work};
use crate::engine::reply::maybe_text;
use crate::error::{Error, Result};
use crate::event::{EventOutcome, MemberState};
use crate::keys::{Enc, encode};
use crate::scripts;

/// What the room answered to a change of memberships.
enum Changed {
    /// The room made the change. These users were in the room before.
    Applied(BTreeSet<Enc>),
    /// The room knows the event's key.
    Duplicate,
    Rejected(EventOutcome),
}

impl RoomWorker<'_> {
    pub(super) async fn change_members(
        &mut self,
        users: &[Enc],
        state: MemberState,
        up_to: Option<u64>,
        sent_at: SentAt,
        key: &str,
    ) -> Result<EventOutcome> {
        let mut outcome = EventOutcome::Applied { position: None };
        for (part, users) in users.chunks(USERS_PER_CALL).enumerate() {
            // The room keeps one key for each call.
            let mut key = match key.split_once('\n') {
                Some((name, rest)) if part > 0 => format!("{name}#{part}\n{rest}"),
                _ => key.to_owned(),
            };
            let mut users = users.to_vec();
            let mut rounds = 0..ROUNDS;
            while !users.is_empty() {
                if rounds.next().is_none() {
                    let why = "users who join keep being deleted";
                    return Err(Error::Unavailable(why.into()));
                }
                let already_in = match self
                    .change_some(&users, state, up_to, sent_at, &key)
                    .await?
                {
                    Changed::Applied(users) => users,
                    Changed::Duplicate => {
                        outcome = EventOutcome::Duplicate { position: None };
                        break;
                    }
                    Changed::Rejected(rejected) => return Ok(rejected),
                };
                // A user who is in the room already may have been deleted without having left the room. Then that membership is
                // over, and the user joins anew, before the events that follow.
                users = self.confirm_members(already_in).await?;
                key.clear();
            }
        }
        Ok(outcome)
    }

    /// Sends these members the room's state, with their marks of all jobs so far. Returns those whose membership turned out to be
    /// over.
    pub(super) async fn confirm_members(&self, users: BTreeSet<Enc>) -> Result<Vec<Enc>> {
        let work = Work {
            snapshot: self.work.snapshot.clone(),
            passing: [&self.work.passing[..], &self.work.jobs[..]].concat(),
            refresh: users.clone(),
            ..Work::default()
        };
        let name = encode(self.id.as_str());
        let finished = self.writer.finish(self.app, &name, work).await?;
        // In a direct room the delivery also reaches the peer, whose membership may be over too.
        Ok(finished.over.intersection(&users).cloned().collect())
    }

    /// Changes memberships by one call.
    async fn change_some(
        &mut self,
        users: &[Enc],
        state: MemberState,
        up_to: Option<u64>,
        sent_at: SentAt,
        key: &str,
    ) -> Result<Changed> {
        let (order, time) = sent_at.order_and_time();
        let history = self.writer.inner.history;
        let letter = match state {
            MemberState::Joined => "j",
            MemberState::Invited => "i",
            MemberState::Left => "l",
        };
        let keys = &self.keys;
        let earlier = self.writer.inner.redis.earlier_versions_until();
        let mut reply = self
            .accept(|token| {
                let own = [keys.meta(), keys.members(), keys.pending()];
                let mut all = with_event_and_time_keys(keys, own);
                all.extend([keys.ids(), keys.log(), keys.allmentions()]);
                let mut call = scripts::MEMBER_CHANGE
                    .call(&all)
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(letter)
                    .arg(up_to.map(|n| n.to_string()).unwrap_or_default())
                    .arg(order)
                    .arg(&time)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(earlier);
                for user in users {
                    call.push(user.as_str());
                }
                call
            })
            .await?;
        match reply.text()?.as_str() {
            "OK" => {}
            "DUP" => {
                self.read_accepted(&mut reply)?;
                return Ok(Changed::Duplicate);
            }
            code => return self.reject(code).map(Changed::Rejected),
        }
        let stamp = self.read_accepted(&mut reply)?;
        let mut already_in = BTreeSet::new();
        for user in users {
            let membership = maybe_text(reply.value()?)?.unwrap_or_default();
            let epoch = match membership.as_str() {
                // A later event has made this user's state.
                "-" => continue,
                "" => None,
                membership => Some(Membership::parse(membership)?.epoch),
            };
            if state != MemberState::Left && epoch != stamp {
                already_in.insert(user.clone());
            } else {
                self.work.refresh.insert(user.clone());
            }
        }
        Ok(Changed::Applied(already_in))
    }
}
