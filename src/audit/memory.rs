//! Estimates how much memory the data take in Redis, from a sample of users and rooms, by `MEMORY USAGE`.

use std::collections::BTreeMap;

use redis::Value;

use crate::audit::Audit;
use crate::connection::Item;
use crate::engine::reply::{number, readable};
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, UserKeys};
use crate::names::AppId;

/// How many elements of a large key Redis measures to estimate the others.
const ELEMENTS: u32 = 50;
/// Users or rooms in one round trip.
const AT_ONCE: usize = 50;

/// Keys of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyTotals {
    /// Keys that exist.
    pub keys: u64,
    /// Their bytes, with their names and what Redis needs for them.
    pub bytes: u64,
}

/// How much memory a sample of users and of rooms takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// Users measured.
    pub users: u64,
    /// Their records of rooms: pairs of a user and a room.
    pub pairs: u64,
    /// By key of a user's slot.
    pub of_users: BTreeMap<&'static str, KeyTotals>,
    /// Rooms measured.
    pub rooms: u64,
    /// Their members.
    pub members: u64,
    /// Their lists of members.
    pub lists: KeyTotals,
    /// Their other keys, which don't grow with the members: details, history, recalled positions.
    pub of_rooms: KeyTotals,
}

impl MemoryUse {
    /// Bytes of users' slots for each pair of a user and a room.
    pub(crate) fn user_side(&self) -> f64 {
        let bytes: u64 = self.of_users.values().map(|part| part.bytes).sum();
        let all = KeyTotals { keys: 0, bytes };
        all.per(self.pairs)
    }

    /// Bytes of rooms' lists of members for each pair of a user and a room.
    pub(crate) fn room_side(&self) -> f64 {
        self.lists.per(self.members)
    }
}

fn usage(key: &str) -> Item {
    let mut cmd = redis::cmd("MEMORY");
    cmd.arg("USAGE").arg(key).arg("SAMPLES").arg(ELEMENTS);
    Item::Plain(cmd)
}

/// The number in an answer; 0 if the key is of another type and its elements can't be counted.
fn counted(answer: Result<Value>) -> Result<u64> {
    readable(answer)?.map_or(Ok(0), |answer| number(&answer))
}

fn length(command: &str, key: &str) -> Item {
    let mut cmd = redis::cmd(command);
    cmd.arg(key);
    Item::Plain(cmd)
}

impl KeyTotals {
    /// Bytes divided by a number of users, members or pairs; 0 if that number is 0.
    pub(crate) fn per(&self, of: u64) -> f64 {
        if of == 0 {
            0.0
        } else {
            self.bytes as f64 / of as f64
        }
    }

    /// Adds a key, if it is there.
    fn add(&mut self, bytes: u64) {
        self.keys += u64::from(bytes > 0);
        self.bytes += bytes;
    }
}

impl Audit {
    /// Measures `sample` users of an app and as many of its rooms, or one user and its rooms.
    pub(crate) async fn memory(
        &self,
        app: &AppId,
        user: Option<&Enc>,
        sample: usize,
    ) -> Result<MemoryUse> {
        let mut found = MemoryUse::default();
        let (users, rooms) = match user {
            Some(user) => (vec![user.clone()], self.rooms_of(app, user, sample).await?),
            None => (
                self.sample(app, false, sample).await?,
                self.sample(app, true, sample).await?,
            ),
        };
        for users in users.chunks(AT_ONCE) {
            self.weigh_users(app, users, &mut found).await?;
        }
        for rooms in rooms.chunks(AT_ONCE) {
            self.weigh_rooms(app, rooms, &mut found).await?;
        }
        Ok(found)
    }

    /// Some of the rooms that one user is in.
    async fn rooms_of(&self, app: &AppId, user: &Enc, most: usize) -> Result<Vec<Enc>> {
        let rooms = self.slot(app, user).await?.recorded_rooms();
        Ok(rooms.into_iter().take(most).collect())
    }

    async fn weigh_users(&self, app: &AppId, users: &[Enc], found: &mut MemoryUse) -> Result<()> {
        let mut items = Vec::new();
        for user in users {
            let keys = UserKeys::new(app, user);
            items.extend([
                length("HLEN", &keys.rooms()),
                length("HLEN", &keys.supers()),
            ]);
            items.extend(keys.all().iter().map(|(_, key)| usage(key)));
        }
        let mut answers = self.redis.send_each(&items).await?.into_iter();
        let mut next = || answers.next().map_or(Ok(0), counted);
        for user in users {
            let pairs = next()? + next()?;
            let mut there = 0;
            for (what, _) in UserKeys::new(app, user).all() {
                let bytes = next()?;
                there += bytes;
                found.of_users.entry(what).or_default().add(bytes);
            }
            found.pairs += pairs;
            found.users += u64::from(there > 0);
        }
        Ok(())
    }

    async fn weigh_rooms(&self, app: &AppId, rooms: &[Enc], found: &mut MemoryUse) -> Result<()> {
        let mut items = Vec::new();
        for room in rooms {
            let keys = RoomKeys::new(app, room);
            items.extend([length("HLEN", &keys.members()), usage(&keys.members())]);
            items.extend(rest(&keys).map(|key| usage(&key)));
        }
        let mut answers = self.redis.send_each(&items).await?.into_iter();
        let mut next = || answers.next().map_or(Ok(0), counted);
        for room in rooms {
            found.rooms += 1;
            found.members += next()?;
            found.lists.add(next()?);
            for _ in rest(&RoomKeys::new(app, room)) {
                found.of_rooms.add(next()?);
            }
        }
        Ok(())
    }
}

/// A room's keys, without its list of members and the keys of events.
fn rest(keys: &RoomKeys) -> [String; 9] {
    let [timed, bounds, arrived] = keys.of_time();
    [
        keys.meta(),
        keys.ids(),
        keys.log(),
        keys.recalled(),
        keys.allmentions(),
        keys.pending(),
        timed,
        bounds,
        arrived,
    ]
}
