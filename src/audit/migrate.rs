//! Brings data of an earlier version of the schema up to this program's. Pods of this version go on meanwhile: they work out what
//! is not there yet until the version says that all is. Each step may be repeated, so a migration that was broken off is begun
//! again; it writes only what is still missing.

use std::collections::BTreeSet;

use crate::audit::Audit;
use crate::audit::verify::Progress;
use crate::connection::Item;
use crate::connection::schema::{Schema, WRITTEN};
use crate::engine::Engine;
use crate::engine::reply::number;
use crate::error::{Error, Result, Trouble};
use crate::keys::{self, Enc, Owner, Purpose, UserKeys};
use crate::names::AppId;
use crate::scripts;

/// Users in one round trip.
const AT_ONCE: usize = 200;
/// Walks through all users. The last one has to find nothing to do: then no key was on its way to another node of a cluster
/// while both were looked through, and no pod of an earlier version has written since.
const WALKS: usize = 5;

/// What a migration has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Migrated {
    /// The version that the data have now.
    pub version: u64,
    /// Whether they had it before.
    pub was_current: bool,
    /// Users that were looked at, in the first walk.
    pub users: u64,
    /// Of these, those whose slot was brought up to date, or would be.
    pub changed: u64,
    /// Users who can't be brought up to date, because a record can't be read.
    pub unreadable: u64,
    /// Whether users go on to need it: a pod of an earlier version still writes.
    pub unsettled: bool,
}

impl Migrated {
    /// Whether the data have the version now.
    pub(crate) fn is_done(&self) -> bool {
        self.was_current || (self.unreadable == 0 && !self.unsettled)
    }
}

/// Migrates data.
pub(crate) struct Migrator {
    audit: Audit,
}

impl Migrator {
    /// Of what this engine keeps.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            audit: Audit::new(engine),
        }
    }

    /// Migrates all data, or with `dry_run` only looks what there is to do. Fails if this program can't read the data.
    pub(crate) async fn migrate(
        &self,
        dry_run: bool,
        on_progress: impl Fn(&Progress),
    ) -> Result<Migrated> {
        let redis = &self.audit.redis;
        if !dry_run {
            redis.begins_data();
        }
        redis.look_at_schema().await?;
        let mut done = Migrated {
            version: WRITTEN,
            ..Migrated::default()
        };
        match redis.schema() {
            (Schema::Old, _) => {}
            (Schema::Current, _) => {
                done.was_current = true;
                return Ok(done);
            }
            (_, why) => return Err(Error::unavailable(Trouble::Schema, why)),
        }
        let mut progress = Progress::default();
        for walk in 0..WALKS {
            let (users, changed, unreadable) =
                self.walk(dry_run, &mut progress, &on_progress).await?;
            if walk == 0 {
                (done.users, done.changed) = (users, changed);
            }
            done.unreadable = unreadable;
            done.unsettled = changed > 0;
            if changed == 0 || dry_run {
                break;
            }
        }
        if done.is_done() && !dry_run {
            redis.raise_schema().await?;
            let (schema, why) = redis.schema();
            if schema != Schema::Current {
                return Err(Error::unavailable(Trouble::Schema, why));
            }
        }
        Ok(done)
    }

    /// One walk through all users: how many there are, how many of them were changed, and how many can't be read.
    async fn walk(
        &self,
        dry_run: bool,
        progress: &mut Progress,
        on_progress: &impl Fn(&Progress),
    ) -> Result<(u64, u64, u64)> {
        let (mut users, mut changed, mut unreadable) = (0, 0, 0);
        *progress = Progress::default();
        let pattern = keys::pattern_of_slots(None, false, Some("rooms"));
        let mut walk = self.audit.scan_all(pattern).await?;
        while let Some(page) = self.audit.next_keys(&mut walk).await? {
            let page: BTreeSet<(AppId, Enc)> = page.iter().filter_map(|key| user_of(key)).collect();
            let page: Vec<(AppId, Enc)> = page.into_iter().collect();
            for some in page.chunks(AT_ONCE) {
                let items: Vec<Item> = some
                    .iter()
                    .map(|(app, user)| {
                        let keys = UserKeys::new(app, user);
                        let call = scripts::USER_MIGRATE.call(&[keys.counts(), keys.rooms()]);
                        Item::Script(call.arg(u8::from(!dry_run)))
                    })
                    .collect();
                for answer in self.audit.redis.send_each(&items).await? {
                    match answer {
                        Ok(answer) => changed += number(&answer)?,
                        Err(Error::Unreadable(_)) => unreadable += 1,
                        Err(error) => return Err(error),
                    }
                }
                users += some.len() as u64;
                progress.users = users;
                progress.fraction = walk.fraction();
                on_progress(progress);
            }
        }
        Ok((users, changed, unreadable))
    }
}

/// The user whose key it is.
fn user_of(key: &[u8]) -> Option<(AppId, Enc)> {
    match keys::purpose(key)? {
        Purpose::Slot(Owner::User(app, user), _) => Some((app, user)),
        _ => None,
    }
}
