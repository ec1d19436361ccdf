//! Walks through all keys in pages of a scan, and sorts them: users' slots, rooms' slots, each once, and other keys.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use crate::audit::Audit;
use crate::connection::{Item, Server};
use crate::counts::number::unreadable;
use crate::engine::reply::{Reply, bytes, number};
use crate::error::Result;
use crate::keys::{self, Enc, Owner, Purpose, ROOM_KEYS, RoomKeys, USER_KEYS, UserKeys};
use crate::names::AppId;

/// Keys in one page of a scan.
pub(super) const PAGE: usize = 1_000;
/// The first keys of [`USER_KEYS`]. A user with one of these counts as a user; the other keys may be those of a deleted user.
const KEYS_OF_A_LIVE_USER: usize = 5;

/// The slots and other keys of one page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Users, and whether they count as users: not if they are deleted.
    pub(super) users: BTreeMap<(AppId, Enc), bool>,
    /// Rooms, and whether they have a list of members.
    pub(super) rooms: BTreeMap<(AppId, Enc), bool>,
    /// All other keys.
    pub(super) others: Vec<Vec<u8>>,
}

/// A scan of all servers, one after the other.
pub(super) struct Walk {
    nodes: Vec<Server>,
    node: usize,
    cursor: u64,
    pattern: String,
}

impl Walk {
    /// How much of all keys the walk has seen, 0 to 1.
    pub(super) fn fraction(&self) -> f64 {
        let here = match self.cursor {
            0 => 0.0,
            cursor => part_seen(cursor),
        };
        ((self.node as f64 + here) / self.nodes.len().max(1) as f64).min(1.0)
    }
}

/// How much of a server's keys a scan has seen: the cursor counts up from its highest bit.
fn part_seen(cursor: u64) -> f64 {
    if cursor == 0 {
        1.0
    } else {
        cursor.reverse_bits() as f64 / 2f64.powi(64)
    }
}

impl Audit {
    /// Begins a walk through the keys that a glob matches.
    pub(super) async fn scan_all(&self, pattern: String) -> Result<Walk> {
        Ok(Walk {
            nodes: self.redis.masters().await?,
            node: 0,
            cursor: 0,
            pattern,
        })
    }

    /// The next keys; `None` at the end.
    pub(super) async fn next_keys(&self, walk: &mut Walk) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(node) = walk.nodes.get(walk.node) else {
            return Ok(None);
        };
        let (next, page) = self.scan(node, walk.cursor, &walk.pattern).await?;
        walk.cursor = next;
        walk.node += usize::from(next == 0);
        Ok(Some(page))
    }

    /// The slots and other keys of the next page; `None` at the end.
    pub(super) async fn next_page(&self, walk: &mut Walk) -> Result<Option<Page>> {
        match self.next_keys(walk).await? {
            Some(keys) => self.slots_of(keys).await.map(Some),
            None => Ok(None),
        }
    }

    /// One page of a scan, and the next cursor; 0: the end.
    pub(super) async fn scan(
        &self,
        node: &Server,
        cursor: u64,
        pattern: &str,
    ) -> Result<(u64, Vec<Vec<u8>>)> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(PAGE);
        let mut page = Reply::new(node.admin(&scan).await?)?;
        let cursor = page.text()?.parse().map_err(|_| unreadable())?;
        let mut list = page.list()?;
        let mut names = Vec::new();
        while !list.is_empty() {
            names.push(bytes(list.value()?)?);
        }
        Ok((cursor, names))
    }

    /// Sorts the keys of a page. A slot belongs to the page of its first existing key, in the order of [`USER_KEYS`] and
    /// [`ROOM_KEYS`], so that it is met once although its keys are in several pages.
    async fn slots_of(&self, keys: Vec<Vec<u8>>) -> Result<Page> {
        let mut page = Page::default();
        let mut first: BTreeMap<(bool, AppId, Enc), usize> = BTreeMap::new();
        for key in keys {
            let Some(Purpose::Slot(entry, what)) = keys::purpose(&key) else {
                page.others.push(key);
                continue;
            };
            let (of_user, order, app, name): (_, &[&str], _, _) = match entry {
                Owner::User(app, user) => (true, &USER_KEYS, app, user),
                Owner::Room(app, room) => (false, &ROOM_KEYS, app, room),
            };
            let at = order.iter().position(|known| *known == what);
            let at = at.unwrap_or(usize::MAX);
            let least = first.entry((of_user, app, name)).or_insert(at);
            *least = at.min(*least);
        }
        let before: Vec<Item> = first
            .iter()
            .filter(|(_, at)| **at > 0)
            .map(|((of_user, app, name), at)| {
                let mut exists = redis::cmd("EXISTS");
                match of_user {
                    true => {
                        let all = UserKeys::new(app, name).all();
                        exists.arg(all.iter().take(*at).map(|(_, key)| key).collect::<Vec<_>>())
                    }
                    false => {
                        let all = RoomKeys::new(app, name).all();
                        exists.arg(all.iter().take(*at).map(|(_, key)| key).collect::<Vec<_>>())
                    }
                };
                Item::Plain(exists)
            })
            .collect();
        let mut before = self.redis.send_all(&before).await?.into_iter();
        for ((of_user, app, name), at) in first {
            if at > 0 && number(&before.next().unwrap_or(Value::Nil))? > 0 {
                continue;
            }
            if of_user {
                page.users.insert((app, name), at < KEYS_OF_A_LIVE_USER);
            } else {
                page.rooms.insert((app, name), at == 0);
            }
        }
        Ok(page)
    }

    /// Up to `most` users or rooms of an app, as a scan of each server meets them.
    pub(super) async fn sample(&self, app: &AppId, rooms: bool, most: usize) -> Result<Vec<Enc>> {
        /// Pages to scan per user or room that is wanted: the app may have only a small part of all keys.
        const PAGES: usize = 1_000;
        let what = if rooms { "members" } else { "counts" };
        let pattern = keys::pattern_of_slots(Some(app), rooms, Some(what));
        let masters = self.redis.masters().await?;
        let share = most.div_ceil(masters.len().max(1));
        let mut found: BTreeSet<Enc> = BTreeSet::new();
        for node in &masters {
            let (mut cursor, until) = (0, (found.len() + share).min(most));
            for _ in 0..share.saturating_mul(PAGES) {
                let (next, page) = self.scan(node, cursor, &pattern).await?;
                for key in page {
                    let name = match keys::purpose(&key) {
                        Some(Purpose::Slot(Owner::User(_, user), _)) if !rooms => user,
                        Some(Purpose::Slot(Owner::Room(_, room), _)) if rooms => room,
                        _ => continue,
                    };
                    if found.len() < until {
                        found.insert(name);
                    }
                }
                cursor = next;
                if cursor == 0 || found.len() >= until {
                    break;
                }
            }
        }
        Ok(found.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_tells_how_far_a_scan_is() {
        assert_eq!(part_seen(0), 1.0);
        assert_eq!(part_seen(1 << 63), 2f64.powi(-64));
        assert_eq!(part_seen(1), 0.5);
        assert_eq!(part_seen(3), 0.75);
    }
}
