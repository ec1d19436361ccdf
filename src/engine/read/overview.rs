//! The overview: everything that a user's slot holds at one moment, with the counts of supergroups worked out.

use std::collections::{BTreeMap, HashMap};

use redis::Value;

use super::Reader;
use super::fields::{ALL_FAMILIES, FAMILIES, PLAIN_KINDS, field, suffixes};
use super::supergroup::{Contribution, Supergroup, SupergroupReply};
use crate::connection::Item;
use crate::counts::number::{add, count};
use crate::counts::record::RoomRecord;
use crate::counts::{CountPref, JoinedRoom, Kind, Totals};
use crate::engine::reply::{Reply, bytes};
use crate::error::Result;
use crate::keys::{Enc, UserKeys, decode, is_encoded};
use crate::names::{AppId, CustomType, RoomId};
use crate::scripts;

/// The counts of one room, from the user's record of it.
pub(super) struct CountedRoom {
    pub(super) room: Enc,
    pub(super) state: char,
    pub(super) unread: u64,
    pub(super) mentions: u64,
    pub(super) kind: Kind,
    /// The other user of a direct room.
    pub(super) peer: Option<String>,
    pub(super) active: bool,
    pub(super) custom_type: Option<String>,
    pub(super) tags: Vec<String>,
    /// What the room adds to sums.
    pub(super) count: CountPref,
    pub(super) read: i64,
    pub(super) head: u64,
    /// Which of the user's preferences are true, by their first letters. The records of supergroups don't hold them.
    pub(super) flags: Option<String>,
}

impl CountedRoom {
    /// Reads the record of a direct room or group.
    fn parse(room: String, text: &str) -> Result<Self> {
        let record = RoomRecord::read(text)?.named()?.sound()?;
        Ok(Self {
            room: Enc::stored(room),
            state: record.state,
            unread: record.unread(),
            mentions: record.unread_mentions(),
            kind: record.kind,
            peer: Some(decode(record.peer)).filter(|peer| !peer.is_empty()),
            active: record.active,
            custom_type: Some(decode(record.custom_type)).filter(|t| !t.is_empty()),
            tags: split(record.tags),
            count: CountPref::at_end(record.flags).1,
            read: record.read,
            head: record.head,
            flags: Some(record.flags.to_owned()),
        })
    }
}

impl CountedRoom {
    /// The unread messages that the room adds to sums.
    fn messages(&self) -> u64 {
        match self.count.counts_messages() {
            true => self.unread,
            false => 0,
        }
    }
}

fn split(list: &str) -> Vec<String> {
    list.split(',')
        .filter(|t| !t.is_empty())
        .map(decode)
        .collect()
}

/// Everything that a user's slot held at one moment, with the counts of supergroups worked out.
#[derive(Default)]
pub(super) struct Overview {
    pub(super) known: bool,
    /// As they are stored: only the counts that a call asks for have to be numbers.
    pub(super) counts: HashMap<String, String>,
    pub(super) refs: Vec<String>,
    pub(super) records: Vec<CountedRoom>,
    /// The user's records of the supergroups among them, and what each adds to totals.
    pub(super) supergroups: Vec<(Supergroup, Contribution)>,
}

impl Overview {
    fn count(&self, field: &str) -> Result<u64> {
        self.counts.get(field).map_or(Ok(0), |text| count(text))
    }

    /// The names of references that begin with `family`, without that beginning.
    fn refs(&self, family: &str) -> impl Iterator<Item = &str> {
        let names = self.refs.iter().filter_map(move |f| f.strip_prefix(family));
        names.filter(|name| is_encoded(name))
    }

    /// Puts the numbers of unread rooms where the plain counts don't have them: in data of an earlier version.
    pub(super) fn work_out_unread_rooms(&mut self) {
        for kind in PLAIN_KINDS {
            let counts = |record: &&CountedRoom| {
                record.kind == kind && record.state == 'j' && record.active && record.messages() > 0
            };
            let rooms = self.records.iter().filter(counts).count();
            let name = field("unread_rooms", kind, "");
            self.counts.insert(name, rooms.to_string());
        }
    }

    fn active_supergroups(&self) -> impl Iterator<Item = &CountedRoom> {
        self.records
            .iter()
            .filter(|record| record.kind == Kind::Supergroup && record.active)
    }

    /// All totals, over rooms of the given custom types, or over all rooms. Rooms with unread messages are only counted over all.
    pub(super) fn totals(&self, types: Option<&[CustomType]>) -> Result<Totals> {
        let mut totals = Totals::default();
        let families = match types {
            Some(_) => &FAMILIES[..],
            None => &ALL_FAMILIES[..],
        };
        for kind in PLAIN_KINDS {
            for suffix in suffixes(types) {
                for family in families {
                    let n = self.count(&field(family, kind, &suffix))?;
                    add(totals.family(family).of(kind), n)?;
                }
            }
        }
        for record in self.active_supergroups() {
            let named = record.custom_type.as_deref();
            if types.is_none_or(|types| types.iter().any(|t| named == Some(t.as_str()))) {
                Contribution::new(record.state, record.count, record.unread, record.mentions)
                    .add_to(&mut totals)?;
            }
        }
        Ok(totals)
    }

    pub(super) fn tags(&self) -> Result<BTreeMap<String, u64>> {
        let mut tags = BTreeMap::new();
        for tag in self.refs("tag:") {
            tags.insert(decode(tag), self.count(&format!("tag:{tag}"))?);
        }
        for record in self
            .active_supergroups()
            .filter(|record| record.state == 'j')
        {
            for tag in &record.tags {
                add(tags.entry(tag.clone()).or_default(), record.messages())?;
            }
        }
        Ok(tags)
    }

    pub(super) fn types(&self) -> Result<BTreeMap<String, u64>> {
        let mut types = BTreeMap::new();
        for name in self.refs("type:") {
            let sum = types.entry(decode(name)).or_default();
            for kind in PLAIN_KINDS {
                add(
                    sum,
                    self.count(&field("messages", kind, &format!(":{name}")))?,
                )?;
            }
        }
        for record in self
            .active_supergroups()
            .filter(|record| record.state == 'j')
        {
            if let Some(name) = &record.custom_type {
                add(types.entry(name.clone()).or_default(), record.messages())?;
            }
        }
        Ok(types)
    }
}

impl Reader {
    pub(super) fn overview_item(app: &AppId, user: &Enc, what: &str) -> Item {
        let keys = UserKeys::new(app, user);
        let call = scripts::USER_OVERVIEW.call(&[
            keys.counts(),
            keys.refs(),
            keys.rooms(),
            keys.supers(),
            keys.marks(),
        ]);
        Item::Script(call.arg(what))
    }

    /// Reads a user's slot, and asks the supergroups in it for their counts.
    pub(super) async fn overview(&self, app: &AppId, user: &Enc, what: &str) -> Result<Overview> {
        // A migration makes the version current while it is read, never the other way round.
        let is_old = self.redis.is_old() && what.contains('c');
        let item = match is_old && !what.contains('o') {
            true => Self::overview_item(app, user, &format!("{what}o")),
            false => Self::overview_item(app, user, what),
        };
        let value = self.redis.send(&item).await?;
        let mut overview = self.read_overview(app, user, value).await;
        if let (true, Ok(overview)) = (is_old, &mut overview) {
            overview.work_out_unread_rooms();
        }
        self.faults
            .at_slot(overview, || UserKeys::new(app, user).counts())
    }

    /// Asks the supergroups in a list of records for their counts. Returns each with the room's answer.
    pub(super) async fn ask_supergroups(
        &self,
        app: &AppId,
        user: &Enc,
        records: Reply,
    ) -> Result<Vec<(Supergroup, Value)>> {
        let supergroups = records
            .pairs()?
            .into_iter()
            .map(|(room, record)| Supergroup::parse(room, &record))
            .collect::<Result<Vec<_>>>()?;
        let items: Vec<Item> = supergroups
            .iter()
            .map(|room| room.unread_item(app, user))
            .collect();
        let answers = self.redis.send_all(&items).await?;
        Ok(supergroups.into_iter().zip(answers).collect())
    }

    pub(super) async fn read_overview(
        &self,
        app: &AppId,
        user: &Enc,
        value: Value,
    ) -> Result<Overview> {
        let mut reply = Reply::new(value)?;
        let known = !reply.text()?.is_empty();
        let mut overview = Overview {
            known,
            ..Overview::default()
        };
        // A field whose name is not UTF-8 is ignored: this program writes none.
        let mut counts = reply.list()?;
        while !counts.is_empty() {
            let (field, value) = (bytes(counts.value()?)?, bytes(counts.value()?)?);
            if let Ok(field) = String::from_utf8(field) {
                let value = String::from_utf8_lossy(&value).into_owned();
                overview.counts.insert(field, value);
            }
        }
        let mut refs = reply.list()?;
        while !refs.is_empty() {
            let field = String::from_utf8(bytes(refs.value()?)?);
            overview.refs.extend(field);
            refs.value()?;
        }
        for (room, record) in reply.list()?.pairs()? {
            overview.records.push(CountedRoom::parse(room, &record)?);
        }
        for (supergroup, answer) in self.ask_supergroups(app, user, reply.list()?).await? {
            let Some(mut answer) = SupergroupReply::of_one(answer)? else {
                continue;
            };
            let Some(counted) = answer.user()? else {
                continue;
            };
            overview.records.push(CountedRoom {
                room: supergroup.room.clone(),
                state: supergroup.state,
                unread: counted.unread,
                mentions: counted.mentions,
                kind: answer.kind,
                peer: None,
                active: answer.active,
                custom_type: answer.custom_type(),
                tags: split(&answer.tags),
                count: supergroup.count,
                head: answer.head,
                read: counted.read,
                flags: None,
            });
            let contribution = answer.contribution(&supergroup, counted);
            overview.supergroups.push((supergroup, contribution));
        }
        Ok(overview)
    }

    /// The rooms that a user has joined, active or not. `None`: an unknown user.
    pub(crate) async fn joined_rooms(
        &self,
        app: &AppId,
        user: &Enc,
        kinds: &[&str],
    ) -> Result<Option<Vec<RoomId>>> {
        let overview = self.overview(app, user, "o").await?;
        let rooms = overview
            .records
            .iter()
            .filter(|record| record.state == 'j' && kinds.contains(&record.kind.as_str()))
            .filter_map(|record| RoomId::parse(decode(record.room.as_str())).ok())
            .collect();
        Ok(overview.known.then_some(rooms))
    }

    /// The counts of the rooms that a user has joined and that are active, by id. `None`: an unknown user.
    pub(crate) async fn counts_of_rooms(
        &self,
        app: &AppId,
        user: &Enc,
    ) -> Result<Option<Vec<JoinedRoom>>> {
        let overview = self.overview(app, user, "o").await?;
        let records = overview.records.into_iter();
        let mut rooms: Vec<JoinedRoom> = records
            .filter(|record| record.state == 'j' && record.active)
            .map(|record| JoinedRoom {
                room: decode(record.room.as_str()),
                kind: record.kind,
                messages: record.unread,
                mentions: record.mentions,
            })
            .collect();
        rooms.sort_by(|a, b| a.room.cmp(&b.room));
        Ok(overview.known.then_some(rooms))
    }
}
