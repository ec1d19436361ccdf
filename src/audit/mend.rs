//! Mending what can't be read, where that is asked for. What follows from something else is worked out anew; what does not is
//! removed. Each change is made only if what it replaces is still there as it was seen, all changes of a slot or none.
//!
//! The order: indexes, then rooms, then users, since a user's records are told by rooms. What is told by plain counts and by
//! records that can be read is left to the repair that follows.

mod plan;
mod room;

use std::collections::BTreeSet;

use plan::{Change, Plan, word};
use redis::Value;
use room::{entry_of, next_version};

use crate::audit::Repairer;
use crate::audit::form::{self, Of};
use crate::audit::rebuild::Repair;
use crate::audit::slot::{Bad, Slot, plain};
use crate::audit::unreadable::{Unreadable, index_key, indexes, shortened};
use crate::audit::verify::{Progress, Scope};
use crate::connection::Item;
use crate::counts::number::whole;
use crate::engine::reply::{Reply, number, readable};
use crate::error::Result;
use crate::keys::{self, Enc, RoomKeys, UserKeys};
use crate::names::AppId;

/// Rounds of mending one slot: each takes up to a bounded number of entries.
const ROUNDS: usize = 1_000;
/// Of those, rounds in a row in which something had changed before it could be mended.
const LOST: usize = 5;
/// Changes in one call of the script.
const CHANGES: usize = 5_000;

/// Something that was mended or removed; or that would be.
#[derive(Debug, Clone)]
pub struct Mended {
    /// What could not be read.
    pub was: Unreadable,
    /// What is there now; `None`: nothing.
    pub now: Option<String>,
}

/// A mending under way.
pub(crate) struct Run<'a, F, P> {
    /// Whether nothing is to be written.
    dry: bool,
    found: &'a mut F,
    on: P,
    progress: Progress,
    /// Rooms whose list of members was lost: users' records tell who is in them.
    lost: BTreeSet<(AppId, Enc)>,
    /// Whether an index was mended, so that what is pending has to be announced anew.
    announce: bool,
}

impl Repairer {
    /// Mends or removes what can't be read of `scope`, or (`dry`) tells what that would come to. Answers how many keys and
    /// fields that were.
    pub async fn mend(
        &self,
        scope: &Scope,
        dry: bool,
        mut found: impl AsyncFnMut(Mended) -> Result<()>,
        on: impl Fn(&Progress),
    ) -> Result<u64> {
        let mut run = Run {
            dry,
            found: &mut found,
            on,
            progress: Progress::default(),
            lost: BTreeSet::new(),
            announce: false,
        };
        if let (Some(app), Some(user)) = (&scope.app, &scope.user) {
            self.mend_user(app, user, &mut run).await?;
            return Ok(run.progress.unreadable);
        }
        if scope.app.is_none() {
            for (shard, what) in indexes() {
                self.mend_index(shard, what, &mut run).await?;
            }
        }
        let pattern = keys::everything(scope.app.as_ref());
        let mut walk = self.audit.scan_all(pattern.clone()).await?;
        while let Some(page) = self.audit.next_page(&mut walk).await? {
            for key in &page.others {
                self.mend_other(key, &mut run).await?;
            }
            for ((app, room), _) in self.audit.check_rooms(page.rooms.keys().cloned()).await? {
                self.mend_room(&app, &room, &mut run).await?;
            }
            if run.announce {
                let rooms = page.rooms.keys().map(|(app, room)| {
                    let pending = RoomKeys::new(app, room).pending();
                    (keys::room_entry(app, room), pending)
                });
                let users = page.users.keys().map(|(app, user)| {
                    let pending = UserKeys::new(app, user).pending();
                    (keys::user_entry(app, user), pending)
                });
                self.announce_pending(rooms.chain(users).collect()).await?;
            }
            run.progress.fraction = walk.fraction() / 2.0;
            (run.on)(&run.progress);
        }
        let mut walk = self.audit.scan_all(pattern).await?;
        while let Some(page) = self.audit.next_page(&mut walk).await? {
            run.progress.users += page.users.len() as u64;
            for (app, user) in page.users.into_keys() {
                self.mend_user(&app, &user, &mut run).await?;
            }
            run.progress.fraction = 0.5 + walk.fraction() / 2.0;
            (run.on)(&run.progress);
        }
        Ok(run.progress.unreadable)
    }

    /// Makes the changes if nothing has changed meanwhile; else answers `false`.
    async fn make(&self, plan: &Plan) -> Result<bool> {
        // The first part holds what was seen; what follows only adds what is not there.
        let parts = match plan
            .changes
            .iter()
            .any(|(_, c)| matches!(c, Change::Push(_)))
        {
            // Elements of a list have to come in one go.
            true => plan.changes.chunks(usize::MAX),
            false => plan.changes.chunks(CHANGES),
        };
        for part in parts {
            if number(&self.audit.redis.call(&plan.call(part)).await?)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells what could not be read, then changes it. `key` names the key of each. Answers whether it came about.
    async fn carry_out<F, P>(
        &self,
        key: impl Fn(&Bad) -> Vec<u8>,
        bad: &[Bad],
        plan: &Plan,
        run: &mut Run<'_, F, P>,
    ) -> Result<bool>
    where
        F: AsyncFnMut(Mended) -> Result<()>,
    {
        let mut told = Vec::with_capacity(bad.len());
        for (bad, now) in bad.iter().zip(&plan.now) {
            told.push(Mended {
                was: self.audit.told_of(&key(bad), bad).await?,
                now: now.as_ref().map(|now| shortened(now.as_bytes())),
            });
        }
        if !run.dry && !self.make(plan).await? {
            return Ok(false);
        }
        run.progress.unreadable += told.len() as u64;
        for mended in told {
            (run.found)(mended).await?;
        }
        Ok(true)
    }

    async fn mend_index<F, P>(
        &self,
        shard: u32,
        what: &'static str,
        run: &mut Run<'_, F, P>,
    ) -> Result<()>
    where
        F: AsyncFnMut(Mended) -> Result<()>,
    {
        let key = index_key(shard, what);
        for _ in 0..ROUNDS {
            let bad = self.audit.check_index(shard, what).await?.bad;
            if bad.is_empty() {
                return Ok(());
            }
            let mut plan = Plan::default();
            for bad in &bad {
                plan.now.push(None);
                let change = match &bad.field {
                    Some(entry) => Change::Rem(entry.clone()),
                    None => Change::Drop("zset"),
                };
                plan.add(&key, change);
            }
            run.announce |= !run.dry;
            let of = |_: &Bad| key.clone().into_bytes();
            self.carry_out(of, &bad, &plan, run).await?;
            if run.dry {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Announces the slots that have something pending.
    async fn announce_pending(&self, slots: Vec<(String, String)>) -> Result<()> {
        let items: Vec<Item> = slots
            .iter()
            .map(|(_, pending)| {
                let mut length = redis::cmd("HLEN");
                length.arg(pending);
                Item::Plain(length)
            })
            .collect();
        let mut entries = Vec::new();
        for ((entry, _), answer) in slots.into_iter().zip(self.audit.redis.each(&items).await?) {
            let length = readable(answer)?.unwrap_or(Value::Nil);
            if number(&length)? > 0 {
                entries.push(entry);
            }
        }
        self.writer.announce(entries).await
    }

    async fn mend_other<F, P>(&self, key: &[u8], run: &mut Run<'_, F, P>) -> Result<()>
    where
        F: AsyncFnMut(Mended) -> Result<()>,
    {
        let Some(bad) = self.audit.check_other(key).await? else {
            return Ok(());
        };
        let mut plan = Plan::default();
        plan.now.push(None);
        let wrong = bad.why == form::WRONG_TYPE;
        plan.add(key, Change::Drop(if wrong { "string" } else { "" }));
        self.carry_out(|_| key.to_vec(), &[bad], &plan, run).await?;
        Ok(())
    }

    async fn mend_user<F, P>(&self, app: &AppId, user: &Enc, run: &mut Run<'_, F, P>) -> Result<()>
    where
        F: AsyncFnMut(Mended) -> Result<()>,
    {
        let keys = UserKeys::new(app, user);
        let mut hints = BTreeSet::new();
        for _ in 0..LOST {
            let slot = self.audit.slot(app, user).await?;
            // Rooms that the slot names although it has no record of them that can be read.
            hints.extend(slot.hinted().difference(&slot.named()).cloned());
            if !run.lost.is_empty() && !run.dry {
                // Before rooms are asked whether they list the user.
                self.list_again(app, user, &slot, run).await?;
            }
            let (bad, plan) = plan_user(&keys, &slot);
            if bad.is_empty() {
                return Ok(());
            }
            let of = |bad: &Bad| keys.key(bad.what).into_bytes();
            let done = self.carry_out(of, &bad, &plan, run).await?;
            if run.dry {
                return Ok(());
            }
            if done {
                // The first time brings records, the second makes them agree with the marks. What is wrong all the same, the
                // repair that follows finds.
                for rooms in [&hints, &BTreeSet::new()] {
                    let mut repair = Repair::default();
                    self.repair(app, user, rooms, &mut repair).await?;
                }
            }
        }
        Ok(())
    }

    /// Puts a user back into the lists of members that were lost, where its records say that it is in them.
    async fn list_again<F, P>(
        &self,
        app: &AppId,
        user: &Enc,
        slot: &Slot,
        run: &Run<'_, F, P>,
    ) -> Result<()> {
        for room in slot.named() {
            let name = (app.clone(), room.clone());
            let Some(record) = slot.position(room.as_str()) else {
                continue;
            };
            if !run.lost.contains(&name) || slot.left_since(room.as_str()) >= record.epoch {
                continue;
            }
            let keys = RoomKeys::new(app, &room);
            for _ in 0..LOST {
                let mut plan = Plan::default();
                let entry = entry_of(&record);
                plan.add(keys.members(), Change::New(user.as_str().to_owned(), entry));
                // Whoever keeps the list of members reads it again.
                let mut stamps = redis::cmd("HMGET");
                stamps.arg(keys.meta()).arg("rev").arg("mrev");
                let stamps = readable(self.audit.redis.query(&stamps).await)?;
                let mut stamps = Reply::new(stamps.unwrap_or(Value::Nil))?;
                if let (Ok(rev), Ok(mrev)) = (stamps.text(), stamps.text())
                    && let Some(last) = whole(&rev)
                {
                    let next = (last + 1).max(record.epoch).to_string();
                    let version = next_version(&next, &mrev);
                    for (field, seen, next) in [("rev", rev, next), ("mrev", mrev, version)] {
                        let change = Change::Set(field.into(), seen.into(), next);
                        plan.add(keys.meta(), change);
                    }
                }
                if self.make(&plan).await? {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// What can't be read of a user's slot and does not follow from the rest of it, and what to do about it.
fn plan_user(keys: &UserKeys, slot: &Slot) -> (Vec<Bad>, Plan) {
    let mut plan = Plan::default();
    let mut all = Vec::new();
    for bad in &slot.bad {
        let key = keys.key(bad.what);
        let Some(field) = &bad.field else {
            plan.add(&key, Change::Drop(word(Of::User.type_of(bad.what))));
            let mut now = None;
            if bad.what == "prefs" {
                let told = slot.told_settings();
                now = (!told.is_empty()).then(|| format!("{} by records", told.len()));
                for (field, text) in told {
                    plan.add(&key, Change::New(field, text));
                }
            }
            plan.now.push(now);
            all.push(bad.clone());
            continue;
        };
        // The repair makes these anew.
        if matches!(bad.what, "counts" | "refs" | "marks") {
            continue;
        }
        let put = match bad.what {
            "prefs" => slot.told_settings().remove(&plain(field)),
            _ => None,
        };
        let change = match &put {
            Some(put) => Change::Set(field.clone(), bad.value.clone(), put.clone()),
            None => Change::Del(field.clone(), bad.value.clone()),
        };
        plan.add(&key, change);
        plan.now.push(put);
        all.push(bad.clone());
    }
    (all, plan)
}
