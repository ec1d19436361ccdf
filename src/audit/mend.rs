//! Mends stored data that can't be read (`unread rebuild --mend`). What follows from other data is worked out anew; what does not
//! is removed. A script makes all changes of a slot or none, and only if the data are still as they were seen.
//!
//! Indexes come first, then rooms, then users, because users' records follow from rooms. The repair that comes after corrects
//! what follows from records that can be read.

mod plan;
mod room;

use std::collections::BTreeSet;

use plan::{KeyChange, MendPlan, word};
use redis::Value;
use room::{entry_of, plan_version};

use crate::audit::Repairer;
use crate::audit::form::{self, SlotKind};
use crate::audit::rebuild::Repair;
use crate::audit::slot::{Bad, Slot, text_or_escaped};
use crate::audit::unreadable::{UnreadableData, index_key, indexes, shortened};
use crate::audit::verify::{Progress, Scope};
use crate::connection::Item;
use crate::counts::number::whole_number;
use crate::engine::reply::{Reply, number, readable};
use crate::error::Result;
use crate::keys::{self, Enc, RoomKeys, UserKeys};
use crate::names::AppId;

/// Rounds for one slot: each mends a bounded number of entries.
const ROUNDS: usize = 1_000;
/// Rounds in a row that may fail because the data changed before they were mended.
const LOST: usize = 5;
/// Changes in one call of the script.
const CHANGES: usize = 5_000;

/// Stored data that was mended or removed, or (in a dry run) would be.
#[derive(Debug, Clone)]
pub(crate) struct Mended {
    /// What could not be read.
    pub was: UnreadableData,
    /// The new value; `None`: it was removed.
    pub now: Option<String>,
}

/// A mending under way.
struct Mending<'a, F, P> {
    /// Whether to write nothing.
    dry: bool,
    report: &'a mut F,
    on_progress: P,
    progress: Progress,
    /// Rooms whose list of members was lost. It is made anew from users' records.
    lost_lists: BTreeSet<(AppId, Enc)>,
    /// Whether an index was mended. Then all slots with pending jobs are announced again.
    reannounce: bool,
}

impl Repairer {
    /// Mends or removes what can't be read in `scope`, or, with `dry`, only reports that. Answers the number of keys and fields.
    pub(crate) async fn mend(
        &self,
        scope: &Scope,
        dry: bool,
        mut report: impl AsyncFnMut(Mended) -> Result<()>,
        on_progress: impl Fn(&Progress),
    ) -> Result<u64> {
        let mut run = Mending {
            dry,
            report: &mut report,
            on_progress,
            progress: Progress::default(),
            lost_lists: BTreeSet::new(),
            reannounce: false,
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
        let pattern = keys::pattern_of_all(scope.app.as_ref());
        let mut walk = self.audit.scan_all(pattern.clone()).await?;
        while let Some(page) = self.audit.next_page(&mut walk).await? {
            for key in &page.others {
                self.mend_other(key, &mut run).await?;
            }
            for ((app, room), _) in self.audit.check_rooms(page.rooms.keys().cloned()).await? {
                self.mend_room(&app, &room, &mut run).await?;
            }
            if run.reannounce {
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
            (run.on_progress)(&run.progress);
        }
        let mut walk = self.audit.scan_all(pattern).await?;
        while let Some(page) = self.audit.next_page(&mut walk).await? {
            run.progress.users += page.users.len() as u64;
            for (app, user) in page.users.into_keys() {
                self.mend_user(&app, &user, &mut run).await?;
            }
            run.progress.fraction = 0.5 + walk.fraction() / 2.0;
            (run.on_progress)(&run.progress);
        }
        Ok(run.progress.unreadable)
    }

    /// Makes the changes of a plan, or answers `false` if the data have changed meanwhile.
    async fn apply(&self, plan: &MendPlan) -> Result<bool> {
        // A plan that is larger than one part drops its key first; the later parts only add fields that are not there.
        let parts = match plan
            .changes
            .iter()
            .any(|(_, c)| matches!(c, KeyChange::Push(_)))
        {
            // The elements of a list have to be pushed by one call.
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

    /// Makes the changes of a plan and reports them. `key` answers the key of a finding. `false`: the data have changed
    /// meanwhile.
    async fn carry_out<F, P>(
        &self,
        key: impl Fn(&Bad) -> Vec<u8>,
        bad: &[Bad],
        plan: &MendPlan,
        run: &mut Mending<'_, F, P>,
    ) -> Result<bool>
    where
        F: AsyncFnMut(Mended) -> Result<()>,
    {
        let mut all = Vec::with_capacity(bad.len());
        for (bad, now) in bad.iter().zip(&plan.replacements) {
            all.push(Mended {
                was: self.audit.describe(&key(bad), bad).await?,
                now: now.as_ref().map(|now| shortened(now.as_bytes())),
            });
        }
        if !run.dry && !self.apply(plan).await? {
            return Ok(false);
        }
        run.progress.unreadable += all.len() as u64;
        for mended in all {
            (run.report)(mended).await?;
        }
        Ok(true)
    }

    async fn mend_index<F, P>(
        &self,
        shard: u32,
        what: &'static str,
        run: &mut Mending<'_, F, P>,
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
            let mut plan = MendPlan::default();
            for bad in &bad {
                plan.replacements.push(None);
                let change = match &bad.field {
                    Some(entry) => KeyChange::Rem(entry.clone()),
                    None => KeyChange::Drop("zset"),
                };
                plan.add(&key, change);
            }
            run.reannounce |= !run.dry;
            let key_of = |_: &Bad| key.clone().into_bytes();
            self.carry_out(key_of, &bad, &plan, run).await?;
            if run.dry {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Announces those slots that have pending jobs.
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
        for ((entry, _), answer) in slots
            .into_iter()
            .zip(self.audit.redis.send_each(&items).await?)
        {
            let length = readable(answer)?.unwrap_or(Value::Nil);
            if number(&length)? > 0 {
                entries.push(entry);
            }
        }
        self.writer.announce(entries).await
    }

    async fn mend_other<F, P>(&self, key: &[u8], run: &mut Mending<'_, F, P>) -> Result<()>
    where
        F: AsyncFnMut(Mended) -> Result<()>,
    {
        let Some(bad) = self.audit.check_other(key).await? else {
            return Ok(());
        };
        let mut plan = MendPlan::default();
        plan.replacements.push(None);
        let wrong = bad.why == form::WRONG_TYPE;
        plan.add(key, KeyChange::Drop(if wrong { "string" } else { "" }));
        self.carry_out(|_| key.to_vec(), &[bad], &plan, run).await?;
        Ok(())
    }

    async fn mend_user<F, P>(
        &self,
        app: &AppId,
        user: &Enc,
        run: &mut Mending<'_, F, P>,
    ) -> Result<()>
    where
        F: AsyncFnMut(Mended) -> Result<()>,
    {
        let keys = UserKeys::new(app, user);
        let mut hints = BTreeSet::new();
        for _ in 0..LOST {
            let slot = self.audit.slot(app, user).await?;
            // Rooms that the slot names without a record that can be read.
            hints.extend(
                slot.hinted_rooms()
                    .difference(&slot.recorded_rooms())
                    .cloned(),
            );
            if !run.lost_lists.is_empty() && !run.dry {
                // This comes before the repair, which asks rooms whether they list the user.
                self.relist(app, user, &slot, run).await?;
            }
            let (bad, plan) = plan_user(&keys, &slot);
            if bad.is_empty() {
                return Ok(());
            }
            let key_of = |bad: &Bad| keys.key(bad.what).into_bytes();
            let done = self.carry_out(key_of, &bad, &plan, run).await?;
            if run.dry {
                return Ok(());
            }
            if done {
                // The first repair brings the records of these rooms, the second makes records and marks agree. What still
                // differs then, the repair of `unread rebuild` finds.
                for rooms in [&hints, &BTreeSet::new()] {
                    let mut repair = Repair::default();
                    self.repair(app, user, rooms, &mut repair).await?;
                }
            }
        }
        Ok(())
    }

    /// Adds a user to the lists of members that were lost, if the user's records show a membership.
    async fn relist<F, P>(
        &self,
        app: &AppId,
        user: &Enc,
        slot: &Slot,
        run: &Mending<'_, F, P>,
    ) -> Result<()> {
        for room in slot.recorded_rooms() {
            let name = (app.clone(), room.clone());
            let Some(record) = slot.record_of(room.as_str()) else {
                continue;
            };
            if !run.lost_lists.contains(&name) || slot.left_since(room.as_str()) >= record.epoch {
                continue;
            }
            let keys = RoomKeys::new(app, &room);
            for _ in 0..LOST {
                let mut plan = MendPlan::default();
                let entry = entry_of(&record);
                plan.add(
                    keys.members(),
                    KeyChange::New(user.as_str().to_owned(), entry),
                );
                let mut stamps = redis::cmd("HMGET");
                stamps.arg(keys.meta()).arg("rev").arg("mrev");
                let stamps = readable(self.audit.redis.query(&stamps).await)?;
                let mut stamps = Reply::new(stamps.unwrap_or(Value::Nil))?;
                if let (Ok(rev), Ok(mrev)) = (stamps.text(), stamps.text())
                    && let Some(last) = whole_number(&rev)
                {
                    plan_version(&mut plan, &keys, &rev, &mrev, (last + 1).max(record.epoch));
                }
                if self.apply(&plan).await? {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// What can't be read of a user's slot and is not made anew by the repair, and the plan to mend it.
fn plan_user(keys: &UserKeys, slot: &Slot) -> (Vec<Bad>, MendPlan) {
    let mut plan = MendPlan::default();
    let mut all = Vec::new();
    for bad in &slot.bad {
        let key = keys.key(bad.what);
        let Some(field) = &bad.field else {
            plan.add(
                &key,
                KeyChange::Drop(word(SlotKind::User.type_of(bad.what))),
            );
            let mut now = None;
            if bad.what == "prefs" {
                let recorded = slot.recorded_preferences();
                now = (!recorded.is_empty()).then(|| format!("{} by records", recorded.len()));
                for (field, text) in recorded {
                    plan.add(&key, KeyChange::New(field, text));
                }
            }
            plan.replacements.push(now);
            all.push(bad.clone());
            continue;
        };
        // The repair makes fields of these keys anew.
        if matches!(bad.what, "counts" | "refs" | "marks") {
            continue;
        }
        let replacement = match bad.what {
            "prefs" => slot.recorded_preferences().remove(&text_or_escaped(field)),
            _ => None,
        };
        let change = match &replacement {
            Some(replacement) => {
                KeyChange::Set(field.clone(), bad.value.clone(), replacement.clone())
            }
            None => KeyChange::Del(field.clone(), bad.value.clone()),
        };
        plan.add(&key, change);
        plan.replacements.push(replacement);
        all.push(bad.clone());
    }
    (all, plan)
}
