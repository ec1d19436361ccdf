//! Finds stored data that can't be read: keys of another type, records in another form, keys that no version writes. The
//! self-check names each finding and goes on.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;

use crate::audit::Audit;
use crate::audit::form::{self, ALWAYS, SlotKind, Type, WITH_MESSAGES};
use crate::audit::slot::{Bad, text_or_escaped};
use crate::connection::Item;
use crate::engine::reply::{Reply, bytes, readable, text};
use crate::error::Result;
use crate::keys::{self, Enc, PENDING_SHARDS, Purpose, RoomKeys};
use crate::names::AppId;
use crate::scripts;

/// Elements in one page of a key.
const PAGE: usize = 250;
/// Jobs in one page: each may name thousands of users.
const JOBS: usize = 20;
/// The most findings that are kept of one slot, in entries and in bytes.
const MOST: usize = 1_000;
const MOST_BYTES: usize = 16 << 20;
/// How many characters of a stored value are shown.
const SHOWN: usize = 100;
/// How many rooms are checked at the same time.
const AT_ONCE: usize = 16;

/// Stored data that can't be read, as it is shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnreadableData {
    /// The key as it stands in Redis; bytes that are no UTF-8 are escaped.
    pub key: String,
    /// Its field, member or element; `None`: the key as a whole.
    pub field: Option<String>,
    /// Why.
    pub why: String,
    /// The beginning of the stored value. `None`: there is none, or it does not belong into a log, like a message's text.
    pub stored: Option<String>,
    /// What a pod's log has in place of the owner's name: `#` and eight digits. Empty for a key without an owner.
    pub log: String,
    /// Whether `unread rebuild` makes it anew without `--mend`, because it follows from other data.
    pub derived: bool,
}

/// A page of a key: field and value of each element, and where the next page begins.
struct KeyPage {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    next: Option<String>,
}

/// What can't be read of one slot or key: the first findings, and how many there are in all.
#[derive(Default)]
pub(super) struct BadList {
    pub(super) bad: Vec<Bad>,
    pub(super) total: u64,
    bytes: usize,
}

impl BadList {
    fn add(&mut self, bad: Bad) {
        self.total += 1;
        self.bytes += bad.value.len() + bad.field.as_ref().map_or(0, Vec::len);
        // The first one is kept even if it is larger than the bound.
        if self.bad.is_empty() || (self.bad.len() < MOST && self.bytes <= MOST_BYTES) {
            self.bad.push(bad);
        }
    }
}

impl Bad {
    /// The key as a whole.
    pub(super) fn key(what: &'static str, why: &'static str) -> Self {
        Self {
            what,
            field: None,
            value: Vec::new(),
            why,
        }
    }
}

/// The command that reads a page of a key.
fn page_of(kind: Type, what: &str, key: &str, from: &str) -> Item {
    let count = if what == "pending" { JOBS } else { PAGE };
    let start: usize = from.parse().unwrap_or(0);
    let mut cmd = redis::cmd(match kind {
        Type::Hash => "HSCAN",
        Type::List => "LRANGE",
        Type::SortedSet => "ZRANGE",
    });
    cmd.arg(key);
    match kind {
        Type::Hash => cmd.arg(from).arg("COUNT").arg(count),
        Type::List => cmd.arg(start).arg(start + count - 1),
        Type::SortedSet => cmd.arg(start).arg(start + count - 1).arg("WITHSCORES"),
    };
    Item::Plain(cmd)
}

/// Reads the reply of that command.
fn read_page(kind: Type, from: &str, answer: Value) -> Result<KeyPage> {
    let mut reply = Reply::new(answer)?;
    let mut next = None;
    let mut list = match kind {
        Type::Hash => {
            next = Some(reply.text()?).filter(|cursor| cursor != "0");
            reply.list()?
        }
        Type::List | Type::SortedSet => reply,
    };
    let mut pairs = Vec::new();
    while !list.is_empty() {
        let first = bytes(list.value()?)?;
        pairs.push(match kind {
            Type::List => (Vec::new(), first),
            _ => (first, bytes(list.value()?)?),
        });
    }
    if kind != Type::Hash && pairs.len() >= PAGE {
        let start: usize = from.parse().unwrap_or(0);
        next = Some((start + pairs.len()).to_string());
    }
    Ok(KeyPage { pairs, next })
}

/// The fields that a room's meta lacks: it has to have all of them, or none.
fn missing(meta: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<&'static str> {
    let has = |field: &str| meta.contains_key(field.as_bytes());
    // A deleted room keeps its revision for a day. A room that does not exist may be sealed, and may have what waits for a message
    // between two users.
    if meta.len()
        == ["rev", "sealed", "timed"]
            .into_iter()
            .filter(|field| has(field))
            .count()
    {
        return Vec::new();
    }
    let mut needed = ALWAYS.to_vec();
    if meta.get(&b"head"[..]).is_some_and(|head| head != b"0") {
        needed.extend(WITH_MESSAGES);
    }
    needed.retain(|field| !has(field));
    needed
}

impl Audit {
    /// Reads a key page by page, and calls `found` for each element until it answers `false`. `None`: the key is of another type.
    pub(super) async fn pages(
        &self,
        slot: SlotKind,
        what: &'static str,
        key: &str,
        mut found: impl FnMut(Vec<u8>, Vec<u8>) -> bool,
    ) -> Result<Option<()>> {
        let kind = slot.type_of(what);
        let mut from = "0".to_owned();
        loop {
            let answer = self.redis.send(&page_of(kind, what, key, &from)).await;
            let Some(answer) = readable(answer)? else {
                return Ok(None);
            };
            let page = read_page(kind, &from, answer)?;
            for (field, value) in page.pairs {
                if !found(field, value) {
                    return Ok(Some(()));
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(Some(())),
            }
        }
    }

    /// All that can't be read of a room's slot, up to a bound.
    pub(super) async fn check_room(&self, app: &AppId, room: &Enc) -> Result<BadList> {
        let keys = RoomKeys::new(app, room).all();
        // One round trip for most rooms: the first page of each key.
        let items: Vec<Item> = keys
            .iter()
            .map(|(what, key)| match *what {
                "meta" => {
                    let mut all = redis::cmd("HGETALL");
                    all.arg(key);
                    Item::Plain(all)
                }
                what => page_of(SlotKind::Room.type_of(what), what, key, "0"),
            })
            .collect();
        let answers = self.redis.send_each(&items).await?;
        let mut found = BadList::default();
        for ((what, key), answer) in keys.iter().zip(answers) {
            let Some(answer) = readable(answer)? else {
                found.add(Bad::key(what, form::WRONG_TYPE));
                continue;
            };
            if *what == "meta" {
                check_meta(answer, &mut found)?;
                continue;
            }
            let kind = SlotKind::Room.type_of(what);
            let mut from = "0".to_owned();
            let mut page = read_page(kind, &from, answer)?;
            loop {
                for (field, value) in page.pairs {
                    check(what, field, value, &mut found);
                }
                let Some(next) = page.next else {
                    break;
                };
                from = next;
                let answer = self.redis.send(&page_of(kind, what, key, &from)).await;
                // The key has become one of another type: the next check reports that.
                let Some(answer) = readable(answer)? else {
                    break;
                };
                page = read_page(kind, &from, answer)?;
            }
        }
        Ok(found)
    }

    /// What can't be read of an index of announcements.
    pub(super) async fn check_index(&self, shard: u32, what: &'static str) -> Result<BadList> {
        let key = index_key(shard, what);
        let mut found = BadList::default();
        let mut from = 0;
        loop {
            let mut range = redis::cmd("ZRANGE");
            range
                .arg(&key)
                .arg(from)
                .arg(from + PAGE - 1)
                .arg("WITHSCORES");
            let Some(answer) = readable(self.redis.query(&range).await)? else {
                found.add(Bad::key(what, form::WRONG_TYPE));
                break;
            };
            let page = read_page(Type::SortedSet, &from.to_string(), answer)?;
            for (entry, score) in &page.pairs {
                if let Err(why) = form::announced(shard, entry, score) {
                    found.add(Bad {
                        what,
                        field: Some(entry.clone()),
                        value: score.clone(),
                        why,
                    });
                }
            }
            from += page.pairs.len();
            if page.next.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// What can't be read of a key outside of users' and rooms' slots. For an index there is [`Audit::check_index`].
    pub(super) async fn check_other(&self, key: &[u8]) -> Result<Option<Bad>> {
        let limit = match keys::purpose(key) {
            Some(Purpose::Limit) => true,
            Some(Purpose::Durable) => false,
            Some(_) => return Ok(None),
            None => return Ok(Some(Bad::key("key", "no version writes such a key"))),
        };
        let mut get = redis::cmd("GET");
        get.arg(key);
        let Some(answer) = readable(self.redis.query(&get).await)? else {
            return Ok(Some(Bad::key("string", form::WRONG_TYPE)));
        };
        if matches!(answer, Value::Nil) || !limit {
            return Ok(None);
        }
        let value = bytes(answer)?;
        let plain = value
            .iter()
            .all(|b| b.is_ascii_digit() || b"|.,:-".contains(b));
        let right = plain && !value.is_empty() && value.len() <= 128;
        Ok((!right).then(|| Bad {
            value,
            ..Bad::key("string", "no numbers")
        }))
    }

    /// Describes a finding for people.
    pub(super) async fn describe(&self, key: &[u8], bad: &Bad) -> Result<UnreadableData> {
        let place = keys::label(key, false).text;
        let log = place.split_once('#').map(|(_, hash)| format!("#{hash}"));
        let mut unreadable = UnreadableData {
            key: text_or_escaped(key),
            field: bad.field.as_deref().map(shortened),
            why: bad.why.to_owned(),
            stored: None,
            log: log.unwrap_or_default(),
            derived: false,
        };
        let of_a_message = [&b"last_text"[..], b"last_payload"];
        let text_of_a_message = bad
            .field
            .as_deref()
            .is_some_and(|field| of_a_message.contains(&field));
        match &bad.field {
            Some(_) if bad.why != form::MISSING && !text_of_a_message => {
                unreadable.stored = Some(shortened(&bad.value));
            }
            None if bad.value.is_empty() => {
                let peek = scripts::KEY_PEEK.call(&[key]).arg(SHOWN);
                let mut reply = Reply::new(self.redis.call(&peek).await?)?;
                let kind = text(reply.value()?)?;
                unreadable.stored = Some(shortened(&bytes(reply.value()?)?));
                if bad.why == form::WRONG_TYPE {
                    unreadable.why = format!("{} where {} belongs", kind, expected_type(key));
                }
            }
            None => unreadable.stored = Some(shortened(&bad.value)),
            _ => {}
        }
        Ok(unreadable)
    }

    /// What can't be read of several rooms; rooms without findings are left out.
    pub(super) async fn check_rooms(
        &self,
        rooms: impl IntoIterator<Item = (AppId, Enc)>,
    ) -> Result<Vec<((AppId, Enc), BadList)>> {
        stream::iter(rooms)
            .map(|(app, room)| async move {
                let found = self.check_room(&app, &room).await?;
                Ok(((app, room), found))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter(|(_, found)| std::future::ready(found.total > 0))
            .try_collect()
            .await
    }
}

/// The key of an index.
pub(super) fn index_key(shard: u32, what: &str) -> String {
    match what {
        "index" => keys::pending_index(shard),
        _ => keys::pending_look(shard),
    }
}

/// All indexes.
pub(super) fn indexes() -> impl Iterator<Item = (u32, &'static str)> {
    (0..PENDING_SHARDS).flat_map(|shard| [(shard, "index"), (shard, "look")])
}

/// The type that a key has to be of, in words.
fn expected_type(key: &[u8]) -> &'static str {
    let kind = match keys::purpose(key) {
        Some(Purpose::Slot(keys::Owner::User(..), what)) => SlotKind::User.type_of(what),
        Some(Purpose::Slot(keys::Owner::Room(..), what)) => SlotKind::Room.type_of(what),
        Some(Purpose::Index(..)) => Type::SortedSet,
        Some(Purpose::Limit | Purpose::Durable) | None => return "a string",
    };
    match kind {
        Type::Hash => "a hash",
        Type::List => "a list",
        Type::SortedSet => "a sorted set",
    }
}

/// The beginning of a text. Control characters, which a terminal would obey, are escaped.
pub(super) fn shortened(bytes: &[u8]) -> String {
    let text = text_or_escaped(bytes);
    let mut short: String = text.chars().take(SHOWN).flat_map(escaped).collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push_str(&format!("… ({} bytes)", bytes.len()));
    }
    short
}

fn escaped(c: char) -> Vec<char> {
    match c.is_control() {
        true => c.escape_default().collect(),
        false => vec![c],
    }
}

fn check(what: &'static str, field: Vec<u8>, value: Vec<u8>, found: &mut BadList) {
    if let Err(why) = SlotKind::Room.check(what, &field, &value) {
        // An element of a list has no field; it stands for itself.
        let (field, value) = match SlotKind::Room.type_of(what) {
            Type::List => (value.clone(), value),
            _ => (field, value),
        };
        found.add(Bad {
            what,
            field: Some(field),
            value,
            why,
        });
    }
}

fn check_meta(answer: Value, found: &mut BadList) -> Result<()> {
    let mut list = Reply::new(answer)?;
    let mut meta = BTreeMap::new();
    while !list.is_empty() {
        meta.insert(bytes(list.value()?)?, bytes(list.value()?)?);
    }
    for field in missing(&meta) {
        found.add(Bad {
            what: "meta",
            field: Some(field.into()),
            value: Vec::new(),
            why: form::MISSING,
        });
    }
    for (field, value) in meta {
        check("meta", field, value, found);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_deleted_room_lacks_nothing() {
        let missing = |fields: &[&str]| {
            let meta = fields
                .iter()
                .map(|field| (field.as_bytes().to_vec(), b"5".to_vec()));
            missing(&meta.collect()).len()
        };
        for fields in [
            &[][..],
            &["rev"],
            &["sealed"],
            &["rev", "sealed"],
            &["timed"],
        ] {
            assert_eq!(missing(fields), 0, "{fields:?}");
        }
        assert_eq!(missing(&["rev", "born"]), ALWAYS.len() - 2);
        assert_eq!(
            missing(&["rev", "head"]),
            ALWAYS.len() + WITH_MESSAGES.len() - 2
        );
    }
}
