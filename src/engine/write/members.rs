//! Changes of memberships.

use std::collections::BTreeSet;

use super::room::{Worker, with_taken};
use super::{ROUNDS, USERS_PER_CALL};
use crate::counts::room::Membership;
use crate::engine::deliver::LEASE_MICROS;
use crate::engine::deliver::Work;
use crate::engine::reply::maybe_text;
use crate::error::{Error, Result};
use crate::event::{EventOutcome, MemberState};
use crate::keys::{Enc, encode};
use crate::scripts;

/// What came of a change of memberships.
pub(super) enum Changed {
    /// Made; these had been in the room before.
    Done(BTreeSet<Enc>),
    /// Its key is known.
    Known,
    /// Refused.
    Refused(EventOutcome),
}

impl Worker<'_> {
    pub(super) async fn member(
        &mut self,
        users: &[Enc],
        state: MemberState,
        up_to: Option<u64>,
        key: &str,
    ) -> Result<EventOutcome> {
        let mut outcome = EventOutcome::Applied { position: None };
        for (part, users) in users.chunks(USERS_PER_CALL).enumerate() {
            // Each call takes a key of its own.
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
                let there = match self.change(&users, state, up_to, &key).await? {
                    Changed::Done(there) => there,
                    Changed::Known => {
                        outcome = EventOutcome::Duplicate { position: None };
                        break;
                    }
                    Changed::Refused(refused) => return Ok(refused),
                };
                // A user who was there already may have been deleted since, with nobody having taken it out of the room yet.
                // That membership is over then, and the user comes in anew; the events that follow are to find that done.
                users = self.still_there(there).await?;
                key.clear();
            }
        }
        Ok(outcome)
    }

    /// Tells users who had been in the room before of it; answers whose membership turned out to be over.
    pub(super) async fn still_there(&self, users: BTreeSet<Enc>) -> Result<Vec<Enc>> {
        let there = Work {
            snapshot: self.work.snapshot.clone(),
            passing: [&self.work.passing[..], &self.work.jobs[..]].concat(),
            also: users,
            ..Work::default()
        };
        let name = encode(self.id.as_str());
        let users = there.also.clone();
        let finished = self.writer.finish(self.app, &name, there).await?;
        // In a direct room the other one is told as well, and may be gone.
        Ok(finished.ended.intersection(&users).cloned().collect())
    }

    /// Changes memberships.
    pub(super) async fn change(
        &mut self,
        users: &[Enc],
        state: MemberState,
        up_to: Option<u64>,
        key: &str,
    ) -> Result<Changed> {
        let letter = match state {
            MemberState::Joined => "j",
            MemberState::Invited => "i",
            MemberState::Left => "l",
        };
        let keys = &self.keys;
        let mut reply = self
            .accept(|token| {
                let own = [keys.meta(), keys.members(), keys.pending()];
                let mut call = scripts::MEMBER_CHANGE
                    .call(&with_taken(keys, own))
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(letter)
                    .arg(up_to.map(|n| n.to_string()).unwrap_or_default());
                for user in users {
                    call.push(user.as_str());
                }
                call
            })
            .await?;
        match reply.text()?.as_str() {
            "OK" => {}
            "DUP" => {
                self.take(&mut reply)?;
                return Ok(Changed::Known);
            }
            code => return self.refused(code).map(Changed::Refused),
        }
        let stamp = self.take(&mut reply)?;
        let mut there = BTreeSet::new();
        for user in users {
            let entry = maybe_text(reply.value()?)?.unwrap_or_default();
            let began = match entry.as_str() {
                "" => None,
                entry => Some(Membership::parse(entry)?.epoch),
            };
            if state != MemberState::Left && began != stamp {
                there.insert(user.clone());
            } else {
                self.work.also.insert(user.clone());
            }
        }
        Ok(Changed::Done(there))
    }
}
