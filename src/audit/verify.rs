//! The self-check. It compares each user's plain counts with the positions they follow from, and each record with its room. It
//! writes nothing, holds one page of keys at a time, and can run beside live traffic.
//!
//! A user's slot is read at one instant, so a difference inside of it is real. There is no such instant for a user and a room
//! together. But a room keeps each job pending until its whole audience has it. So the check looks at the room, waits until the
//! jobs that were pending then are done, and looks at the user: a change of the first look that the user does not have now is
//! missing. The user may also be *ahead* of the first look, by later changes. So the check looks at the room once more: a user
//! who is ahead of that third look is ahead of the room itself, which is drift.

use std::collections::{BTreeSet, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;

use crate::audit::Audit;
use crate::audit::look::{Consistency, Look, UserDrift};
use crate::audit::slot::Bad;
use crate::audit::unreadable::{BadList, UnreadableData, index_key, indexes};
use crate::audit::walk::PAGE;
use crate::connection::Item;
use crate::counts::number::short;
use crate::counts::room::Membership;
use crate::engine::reply::{Reply, bytes, number, readable, text};
use crate::error::{Error, Result};
use crate::keys::{self, Enc, Purpose, RoomKeys, UserKeys};
use crate::names::AppId;

/// How many users are checked at the same time.
const USERS_AT_ONCE: usize = 16;
/// How many reported fields are remembered. They are not reported again if a scan or a room leads to them a second time.
const REMEMBERED: usize = 100_000;
/// How many findings that can't be read are named for one user; the others are only counted.
const UNREADABLE_OF_A_USER: usize = 1_000;

/// What to check.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// One app; `None`: all that are in Redis.
    pub app: Option<AppId>,
    /// One user of that app; `None`: all users.
    pub user: Option<Enc>,
}

/// How far a walk has come.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Progress {
    /// How much of all keys the walk has seen, 0 to 1.
    pub fraction: f64,
    /// Users checked.
    pub users: u64,
    /// Memberships checked from the rooms' side.
    pub members: u64,
    /// Users who differ only from rooms whose jobs stayed pending: whether that is drift is not known.
    pub in_flight: u64,
    /// Keys and fields that can't be read.
    pub unreadable: u64,
    /// Of these, those that `unread rebuild` makes anew without `--mend`.
    pub derived: u64,
}

/// One finding.
#[derive(Debug, Clone)]
pub(crate) enum Finding {
    /// A user's slot differs from its positions, or from rooms.
    Drift(UserDrift),
    /// Stored data that can't be read.
    Unreadable(UnreadableData),
}

/// What has been reported so far.
#[derive(Default)]
struct Reported {
    unreadable: HashSet<String>,
    users: HashSet<(AppId, Enc)>,
    fields: HashSet<(AppId, Enc, &'static str, String)>,
}

impl Reported {
    /// Whether nothing was reported yet of what can't be read of a user.
    fn is_new(&mut self, keys: &UserKeys) -> bool {
        let name = keys.counts();
        !self.unreadable.contains(&name)
            && (self.unreadable.len() >= REMEMBERED || self.unreadable.insert(name))
    }

    /// Removes what was reported before; answers whether anything is left.
    fn keep_new(&mut self, found: &mut UserDrift) -> bool {
        let (app, user) = (&found.app, &found.user);
        found.drift.retain(|drift| {
            let name = (app.clone(), user.clone(), drift.key, drift.field.clone());
            !self.fields.contains(&name)
                && (self.fields.len() >= REMEMBERED || self.fields.insert(name))
        });
        if found.drift.is_empty() {
            return false;
        }
        let name = (app.clone(), user.clone());
        found.again = self.users.contains(&name)
            || (self.users.len() < REMEMBERED && !self.users.insert(name));
        true
    }
}

impl Audit {
    /// Whether anything is kept of an app, or of one user of it: keys of its own, or an entry in a room's list of members.
    pub(crate) async fn knows(&self, scope: &Scope) -> Result<bool> {
        let Some(app) = &scope.app else {
            return Ok(true);
        };
        let Some(user) = &scope.user else {
            let mut walk = self.scan_all(keys::pattern_of_all(Some(app))).await?;
            while let Some(page) = self.next_keys(&mut walk).await? {
                if !page.is_empty() {
                    return Ok(true);
                }
            }
            return Ok(false);
        };
        let mut exists = redis::cmd("EXISTS");
        for (_, key) in UserKeys::new(app, user).all() {
            exists.arg(key);
        }
        if number(&self.redis.query(&exists).await?)? > 0 {
            return Ok(true);
        }
        let mut progress = Progress::default();
        let rooms = self
            .rooms_listing(app, user, &mut progress, &|_| {})
            .await?;
        Ok(!rooms.is_empty())
    }

    /// Checks all users and rooms in `scope`. It calls `found` for each user with drift, and for what can't be read. A user may
    /// come twice: the second time for drift that only a room with the user in its list of members shows. It calls
    /// `on_progress` now and then.
    pub(crate) async fn verify(
        &self,
        scope: &Scope,
        mut found: impl AsyncFnMut(Finding) -> Result<()>,
        on_progress: impl Fn(&Progress),
    ) -> Result<Progress> {
        if let (Some(app), Some(user)) = (&scope.app, &scope.user) {
            return self.verify_user(app, user, found, on_progress).await;
        }
        let mut progress = Progress::default();
        if scope.app.is_none() {
            self.verify_indexes(&mut progress, &mut found).await?;
        }
        let mut reported = Reported::default();
        let mut walk = self
            .scan_all(keys::pattern_of_all(scope.app.as_ref()))
            .await?;
        while let Some(page) = self.next_page(&mut walk).await? {
            for key in &page.others {
                if let Some(bad) = self.check_other(key).await? {
                    progress.unreadable += 1;
                    found(Finding::Unreadable(self.describe(key, &bad).await?)).await?;
                }
            }
            progress.users += page.users.values().filter(|user| **user).count() as u64;
            let looks = page.users.into_keys().map(|user| (user, BTreeSet::new()));
            self.look_at_all(looks, &mut reported, &mut progress, &mut found)
                .await?;
            on_progress(&progress);
            for ((app, room), list) in self.check_rooms(page.rooms.keys().cloned()).await? {
                self.report_room(&app, &room, list, &mut progress, &mut found)
                    .await?;
            }
            let with_members = page.rooms.into_iter().filter(|(_, listed)| *listed);
            for ((app, room), _) in with_members {
                let mut cursor = "0".to_owned();
                loop {
                    let members;
                    (cursor, members) = self.members_page(&app, &room, &cursor).await?;
                    progress.members += members.len() as u64;
                    let missing = self.without_its_record(&app, &room, members).await?;
                    let looks = missing
                        .into_iter()
                        .map(|user| ((app.clone(), user), BTreeSet::from([room.clone()])));
                    self.look_at_all(looks, &mut reported, &mut progress, &mut found)
                        .await?;
                    on_progress(&progress);
                    if cursor == "0" {
                        break;
                    }
                }
            }
            progress.fraction = walk.fraction();
            on_progress(&progress);
        }
        Ok(progress)
    }

    /// Checks one user.
    async fn verify_user(
        &self,
        app: &AppId,
        user: &Enc,
        mut found: impl AsyncFnMut(Finding) -> Result<()>,
        on_progress: impl Fn(&Progress),
    ) -> Result<Progress> {
        let mut progress = Progress::default();
        let rooms = self
            .rooms_listing(app, user, &mut progress, &on_progress)
            .await?;
        progress.users = 1;
        let Look {
            consistency,
            bad,
            blind,
        } = self.look(app, user, &rooms).await?;
        let keys = UserKeys::new(app, user);
        let mut reported = Reported::default();
        let blind = blind.into_iter().map(|room| (app.clone(), room));
        for ((app, room), list) in self.check_rooms(blind).await? {
            self.report_room(&app, &room, list, &mut progress, &mut found)
                .await?;
        }
        self.report_user(&keys, bad, &mut reported, &mut progress, &mut found)
            .await?;
        match consistency {
            Consistency::Clean => {}
            Consistency::InFlight => progress.in_flight = 1,
            Consistency::Drift(drift) => found(Finding::Drift(drift)).await?,
        }
        progress.fraction = 1.0;
        on_progress(&progress);
        Ok(progress)
    }

    /// Checks the indexes, which belong to no app.
    async fn verify_indexes(
        &self,
        progress: &mut Progress,
        found: &mut impl AsyncFnMut(Finding) -> Result<()>,
    ) -> Result<()> {
        for (shard, what) in indexes() {
            let list = self.check_index(shard, what).await?;
            let key = index_key(shard, what);
            progress.unreadable += list.total;
            for bad in &list.bad {
                let unreadable = self.describe(key.as_bytes(), bad).await?;
                found(Finding::Unreadable(unreadable)).await?;
            }
        }
        Ok(())
    }

    async fn report_room(
        &self,
        app: &AppId,
        room: &Enc,
        list: BadList,
        progress: &mut Progress,
        found: &mut impl AsyncFnMut(Finding) -> Result<()>,
    ) -> Result<()> {
        progress.unreadable += list.total;
        for bad in &list.bad {
            let key = RoomKeys::new(app, room).key(bad.what);
            let unreadable = self.describe(key.as_bytes(), bad).await?;
            found(Finding::Unreadable(unreadable)).await?;
        }
        Ok(())
    }

    async fn report_user(
        &self,
        keys: &UserKeys,
        bad: Vec<(Bad, bool)>,
        reported: &mut Reported,
        progress: &mut Progress,
        found: &mut impl AsyncFnMut(Finding) -> Result<()>,
    ) -> Result<()> {
        if bad.is_empty() || !reported.is_new(keys) {
            return Ok(());
        }
        progress.unreadable += bad.len() as u64;
        progress.derived += bad.iter().filter(|(_, derived)| *derived).count() as u64;
        for (bad, derived) in bad.iter().take(UNREADABLE_OF_A_USER) {
            let mut unreadable = self.describe(keys.key(bad.what).as_bytes(), bad).await?;
            unreadable.derived = *derived;
            found(Finding::Unreadable(unreadable)).await?;
        }
        Ok(())
    }

    async fn look_at_all(
        &self,
        looks: impl IntoIterator<Item = ((AppId, Enc), BTreeSet<Enc>)>,
        reported: &mut Reported,
        progress: &mut Progress,
        found: &mut impl AsyncFnMut(Finding) -> Result<()>,
    ) -> Result<()> {
        let mut looks = stream::iter(looks)
            .map(|((app, user), also)| async move {
                let look = self.look(&app, &user, &also).await?;
                Ok::<_, Error>((UserKeys::new(&app, &user), look))
            })
            .buffer_unordered(USERS_AT_ONCE);
        while let Some((keys, look)) = looks.try_next().await? {
            self.report_user(&keys, look.bad, reported, progress, found)
                .await?;
            match look.consistency {
                Consistency::Clean => {}
                Consistency::InFlight => progress.in_flight += 1,
                Consistency::Drift(mut drift) => {
                    if reported.keep_new(&mut drift) {
                        found(Finding::Drift(drift)).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A page of a room's members, and the next cursor. Entries that can't be read are left out: [`Audit::check_room`] names
    /// them.
    pub(super) async fn members_page(
        &self,
        app: &AppId,
        room: &Enc,
        cursor: &str,
    ) -> Result<(String, Vec<(Enc, Membership)>)> {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(RoomKeys::new(app, room).members())
            .arg(cursor)
            .arg("COUNT")
            .arg(PAGE);
        let Some(page) = readable(self.redis.query(&scan).await)? else {
            return Ok(("0".to_owned(), Vec::new()));
        };
        let mut page = Reply::new(page)?;
        let cursor = page.text()?;
        let mut list = page.list()?;
        let mut members = Vec::new();
        while !list.is_empty() {
            let (user, entry) = (list.value()?, list.value()?);
            if let (Ok(user), Ok(entry)) = (text(user), text(entry))
                && keys::is_encoded(&user)
                && let Ok(entry) = Membership::parse(&entry)
                && entry.state != 'l'
            {
                members.push((Enc::stored(user), entry));
            }
        }
        Ok((cursor, members))
    }

    /// The members who have no record of the room, or only one of another membership.
    async fn without_its_record(
        &self,
        app: &AppId,
        room: &Enc,
        members: Vec<(Enc, Membership)>,
    ) -> Result<Vec<Enc>> {
        let get = |key: String| {
            let mut get = redis::cmd("HGET");
            get.arg(key).arg(room.as_str());
            Item::Plain(get)
        };
        let mut missing = Vec::new();
        for members in members.chunks(PAGE) {
            let items: Vec<Item> = members
                .iter()
                .flat_map(|(user, _)| {
                    let keys = UserKeys::new(app, user);
                    [get(keys.rooms()), get(keys.supers())]
                })
                .collect();
            let mut answers = self.redis.send_each(&items).await?.into_iter();
            for (user, entry) in members {
                let mut same = false;
                for answer in answers.by_ref().take(2) {
                    // The key is of another type: the check of the user reports that.
                    let Some(answer) = readable(answer)? else {
                        same = true;
                        continue;
                    };
                    let record = bytes_or_none(answer)?;
                    let epoch = record.split(|byte| *byte == b'|').nth(1);
                    same |= epoch == Some(short(entry.epoch).as_bytes());
                }
                if !same {
                    missing.push(user.clone());
                }
            }
        }
        Ok(missing)
    }

    /// The rooms that list a user, found by asking every room of the app.
    async fn rooms_listing(
        &self,
        app: &AppId,
        user: &Enc,
        progress: &mut Progress,
        on_progress: &impl Fn(&Progress),
    ) -> Result<BTreeSet<Enc>> {
        let mut rooms = BTreeSet::new();
        let mut walk = self
            .scan_all(keys::pattern_of_slots(Some(app), true, Some("members")))
            .await?;
        while let Some(page) = self.next_keys(&mut walk).await? {
            let items: Vec<Item> = page
                .iter()
                .map(|key| {
                    let mut get = redis::cmd("HGET");
                    get.arg(key).arg(user.as_str());
                    Item::Plain(get)
                })
                .collect();
            progress.members += items.len() as u64;
            for (key, answer) in page.iter().zip(self.redis.send_each(&items).await?) {
                let entry = match readable(answer)? {
                    Some(entry) => bytes_or_none(entry)?,
                    None => continue,
                };
                if !entry.is_empty()
                    && !entry.starts_with(b"l")
                    && let Some(Purpose::Slot(keys::Owner::Room(_, room), _)) = keys::purpose(key)
                {
                    rooms.insert(room);
                }
            }
            progress.fraction = walk.fraction();
            on_progress(progress);
        }
        Ok(rooms)
    }
}

fn bytes_or_none(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::Nil => Ok(Vec::new()),
        value => bytes(value),
    }
}
