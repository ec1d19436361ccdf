//! Reading counts. A user's own slot is read at one instant, in one round trip, together with the call's charge against
//! its app's limit; supergroups are then asked in a second one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::{Cmd, Value};

use super::deliver::{LIST, parse_members};
use super::reply::{Reply, maybe_text, number, parse, stamp, unreadable};
use super::room::Entry;
use super::{ByKind, Kind, PeerCount, RoomCounts, RoomUnread, Store, Totals, UserUnread};
use crate::connection::Item;
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys, UserKeys, decode, encode};
use crate::names::{AppId, CustomType, RoomId, Tag, UserId};
use crate::quota::{Charge, Charged};
use crate::scripts;

/// Users worked on at once for one request.
const USERS_AT_ONCE: usize = 32;
/// How long a call's charge is waited for where it lies elsewhere than what is read.
const CHARGE: Duration = Duration::from_millis(200);
/// Kinds whose counts are kept ready; supergroups are worked out at reading.
const KEPT: [Kind; 2] = [Kind::Direct, Kind::Group];
const FAMILIES: [&str; 3] = ["messages", "mentions", "invitations"];

impl Kind {
    /// As it stands in Redis and in the native API.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Group => "group",
            Kind::Supergroup => "supergroup",
        }
    }

    /// The letter of a user's record.
    pub(super) fn recorded(text: &str) -> Result<Self> {
        match text {
            "d" => Ok(Kind::Direct),
            "g" => Ok(Kind::Group),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn stored(text: &str) -> Result<Self> {
        match text {
            "direct" => Ok(Kind::Direct),
            "group" => Ok(Kind::Group),
            "supergroup" => Ok(Kind::Supergroup),
            _ => Err(Error::Internal("a stored kind can't be read".into())),
        }
    }
}

impl ByKind {
    /// Over all kinds.
    pub fn total(&self) -> u64 {
        self.direct + self.group + self.supergroup
    }

    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Direct => &mut self.direct,
            Kind::Group => &mut self.group,
            Kind::Supergroup => &mut self.supergroup,
        }
    }
}

/// A user's record of a direct room or group.
struct Record {
    room: Enc,
    state: char,
    unread: u64,
    mentions: u64,
    kind: Kind,
    active: bool,
    custom_type: Option<String>,
    tags: Vec<String>,
}

impl Record {
    /// `state|epoch|rev|read|head|holes|mentions|kind|status|type|tags|…`
    fn parse(room: String, text: &str) -> Result<Self> {
        let mut parts = text.split('|');
        let state = parse(parts.next())?;
        let (_epoch, _rev) = (parts.next(), parts.next());
        let (read, head): (u64, u64) = (parse(parts.next())?, parse(parts.next())?);
        let (holes, mentions): (u64, u64) = (parse(parts.next())?, parse(parts.next())?);
        let kind = Kind::recorded(parts.next().unwrap_or_default())?;
        let active = parts.next() == Some("1");
        let custom_type = parts.next().unwrap_or_default();
        let tags = parts.next().unwrap_or_default();
        let counts = state == 'j' && active;
        Ok(Self {
            room: Enc::stored(room),
            state,
            unread: if counts {
                head.saturating_sub(read).saturating_sub(holes)
            } else {
                0
            },
            mentions: if counts { mentions } else { 0 },
            kind,
            active,
            custom_type: Some(decode(custom_type)).filter(|t| !t.is_empty()),
            tags: split(tags),
        })
    }
}

fn split(list: &str) -> Vec<String> {
    list.split(',')
        .filter(|t| !t.is_empty())
        .map(decode)
        .collect()
}

/// A user's record of a supergroup, and the positions that go with it.
pub(super) struct Super {
    pub(super) room: Enc,
    pub(super) state: String,
    pub(super) epoch: u64,
    read: String,
    holes: String,
    mentions: String,
}

impl Super {
    /// `state|epoch|rev|read|holes|mentions|positions of holes|positions of mentions`
    pub(super) fn parse(room: String, text: &str) -> Result<Self> {
        let mut parts = text.split('|');
        let mut next = || parts.next().map(str::to_owned).unwrap_or_default();
        let (state, epoch, _rev, read) = (next(), stamp(Some(&next()))?, next(), next());
        let (_, _) = (next(), next());
        let (holes, mentions) = (next(), next());
        Ok(Self {
            room: Enc::stored(room),
            state,
            epoch,
            read,
            holes,
            mentions,
        })
    }

    pub(super) fn ask(&self, app: &AppId) -> Item {
        let keys = RoomKeys::new(app, &self.room);
        Item::Script(
            scripts::ROOM_UNREAD
                .call(&[keys.meta(), keys.recalled(), keys.allmentions()])
                .arg(&self.state)
                .arg(self.epoch)
                .arg(&self.read)
                .arg(&self.holes)
                .arg(&self.mentions),
        )
    }
}

/// All that a user's slot said at one instant, supergroups worked out.
#[derive(Default)]
struct Overview {
    known: bool,
    counts: HashMap<String, u64>,
    refs: Vec<String>,
    records: Vec<Record>,
}

impl Overview {
    fn count(&self, field: &str) -> u64 {
        self.counts.get(field).copied().unwrap_or(0)
    }

    fn supers(&self) -> impl Iterator<Item = &Record> {
        self.records
            .iter()
            .filter(|record| record.kind == Kind::Supergroup && record.active)
    }

    fn totals(&self, types: Option<&[CustomType]>) -> Totals {
        let mut totals = Totals::default();
        for kind in KEPT {
            for suffix in suffixes(types) {
                for family in FAMILIES {
                    *totals.family(family).of(kind) += self.count(&field(family, kind, &suffix));
                }
            }
        }
        for record in self.supers() {
            let named = record.custom_type.as_deref();
            if types.is_none_or(|types| types.iter().any(|t| named == Some(t.as_str()))) {
                totals.messages.supergroup += record.unread;
                totals.mentions.supergroup += record.mentions;
                totals.invitations.supergroup += u64::from(record.state == 'i');
            }
        }
        totals
    }

    fn tags(&self) -> BTreeMap<String, u64> {
        let mut tags: BTreeMap<String, u64> = self
            .refs
            .iter()
            .filter_map(|field| field.strip_prefix("tag:"))
            .map(|tag| (decode(tag), self.count(&format!("tag:{tag}"))))
            .collect();
        for record in self.supers().filter(|record| record.state == 'j') {
            for tag in &record.tags {
                *tags.entry(tag.clone()).or_default() += record.unread;
            }
        }
        tags
    }

    fn types(&self) -> BTreeMap<String, u64> {
        let mut types: BTreeMap<String, u64> = self
            .refs
            .iter()
            .filter_map(|field| field.strip_prefix("type:"))
            .map(|name| {
                let n = KEPT.map(|kind| self.count(&format!("messages:{}:{name}", kind.as_str())));
                (decode(name), n.iter().sum())
            })
            .collect();
        for record in self.supers().filter(|record| record.state == 'j') {
            if let Some(name) = &record.custom_type {
                *types.entry(name.clone()).or_default() += record.unread;
            }
        }
        types
    }
}

impl Totals {
    fn family(&mut self, family: &str) -> &mut ByKind {
        match family {
            "messages" => &mut self.messages,
            "mentions" => &mut self.mentions,
            _ => &mut self.invitations,
        }
    }
}

/// `''` for everything, or `:T` for each type, each once.
fn suffixes(types: Option<&[CustomType]>) -> Vec<String> {
    match types {
        None => vec![String::new()],
        Some(types) => {
            let mut types: Vec<String> = types
                .iter()
                .map(|t| format!(":{}", encode(t.as_str()).as_str()))
                .collect();
            types.sort();
            types.dedup();
            types
        }
    }
}

/// The fields that [`Store::quick`] reads, in its order.
fn quick_fields(suffixes: &[String]) -> Vec<String> {
    let mut fields = vec!["known".to_owned(), "supers".to_owned()];
    for kind in KEPT {
        for suffix in suffixes {
            for family in FAMILIES {
                fields.push(field(family, kind, suffix));
            }
        }
    }
    fields
}

fn field(family: &str, kind: Kind, suffix: &str) -> String {
    [family, ":", kind.as_str(), suffix].concat()
}

/// The kept totals of one user, or word that the slower way is needed.
enum Quick {
    Unknown,
    Totals(Totals),
    HasSupergroups,
}

impl Store {
    /// Sends the charge and the reads together; a refused call's reads are thrown away.
    pub(super) async fn charged(
        &self,
        items: Vec<Item>,
        charge: Option<&Charge>,
    ) -> Result<Charged<std::vec::IntoIter<Value>>> {
        let Some(charge) = charge else {
            return Ok(Charged::Granted(
                self.inner.redis.batch(&items).await?.into_iter(),
                None,
            ));
        };
        let redis = &self.inner.redis;
        if let Some(verdict) = self.inner.charges.on_credit(redis, charge) {
            let values = redis.batch(&items).await?.into_iter();
            return Ok(Charged::Granted(values, Some(verdict)));
        }
        let charged = self.inner.charges.charge(redis, charge);
        let (verdict, values) = if redis.spans_slots() {
            let late = |_| {
                Err(Error::Unavailable(
                    "the limit did not answer in time".into(),
                ))
            };
            let charged = tokio::time::timeout(CHARGE, charged);
            let (charged, values) = tokio::join!(charged, redis.batch(&items));
            (charged.unwrap_or_else(late), values)
        } else {
            // Both go to the same server at the same time.
            tokio::join!(charged, redis.batch(&items))
        };
        let values = values?.into_iter();
        let verdict = match verdict {
            Ok(verdict) => Some(verdict),
            // The limit may be on a node of a cluster that does not answer, and the user on another that does. What the
            // pod has let through by its own share then stands.
            Err(error) if error.is_transient() => None,
            Err(error) => return Err(error),
        };
        match verdict {
            Some(verdict) if !verdict.allowed => Ok(Charged::Refused(verdict)),
            _ => Ok(Charged::Granted(values, verdict)),
        }
    }

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

    /// Reads a user's slot and asks its supergroups.
    async fn overview(&self, app: &AppId, user: &Enc, what: &str) -> Result<Overview> {
        let value = self
            .inner
            .redis
            .batch(&[Self::overview_item(app, user, what)])
            .await?;
        self.complete(app, value.into_iter().next().unwrap_or(Value::Nil))
            .await
    }

    /// Asks the supergroups of a list of records for their numbers.
    pub(super) async fn ask_supers(
        &self,
        app: &AppId,
        records: Reply,
    ) -> Result<Vec<(Super, Value)>> {
        let supers = records
            .pairs()?
            .into_iter()
            .map(|(room, record)| Super::parse(room, &record))
            .collect::<Result<Vec<_>>>()?;
        let items: Vec<Item> = supers.iter().map(|room| room.ask(app)).collect();
        let answers = self.inner.redis.batch(&items).await?;
        Ok(supers.into_iter().zip(answers).collect())
    }

    async fn complete(&self, app: &AppId, value: Value) -> Result<Overview> {
        let mut reply = Reply::new(value)?;
        let known = !reply.text()?.is_empty();
        let mut overview = Overview {
            known,
            ..Overview::default()
        };
        for (field, value) in reply.list()?.pairs()? {
            overview.counts.insert(field, parse(Some(&value))?);
        }
        overview.refs = reply
            .list()?
            .pairs()?
            .into_iter()
            .map(|(field, _)| field)
            .collect();
        for (room, record) in reply.list()?.pairs()? {
            overview.records.push(Record::parse(room, &record)?);
        }
        for (asked, answer) in self.ask_supers(app, reply.list()?).await? {
            let mut answer = Reply::new(answer)?;
            if answer.is_empty() {
                continue;
            }
            overview.records.push(Record {
                room: asked.room,
                state: parse(Some(&asked.state))?,
                kind: Kind::stored(&answer.text()?)?,
                active: answer.text()? == "1",
                custom_type: Some(decode(&answer.text()?)).filter(|t| !t.is_empty()),
                tags: split(&answer.text()?),
                unread: answer.number()?,
                mentions: answer.number()?,
            });
        }
        Ok(overview)
    }

    /// Unread messages over the direct rooms of `user`; `None`: an unknown user.
    pub async fn direct_total(
        &self,
        app: &AppId,
        user: &UserId,
        charge: Option<&Charge>,
    ) -> Result<Charged<Option<u64>>> {
        let _place = self.inner.admission.read()?;
        let mut get = redis::cmd("HMGET");
        get.arg(UserKeys::new(app, &encode(user.as_str())).counts())
            .arg("known")
            .arg("messages:direct");
        match self.charged(vec![Item::Plain(get)], charge).await? {
            Charged::Refused(verdict) => Ok(Charged::Refused(verdict)),
            Charged::Granted(mut values, verdict) => {
                let mut reply = Reply::new(values.next().unwrap_or(Value::Nil))?;
                let known = maybe_text(reply.value()?)?.is_some();
                let total = reply.number()?;
                Ok(Charged::Granted(known.then_some(total), verdict))
            }
        }
    }

    /// The same for each of `peers`, in their order; `None`: `user` is unknown.
    pub async fn direct_by_peer(
        &self,
        app: &AppId,
        user: &UserId,
        peers: &[UserId],
        charge: Option<&Charge>,
    ) -> Result<Charged<Option<Vec<PeerCount>>>> {
        let _place = self.inner.admission.read()?;
        let keys = UserKeys::new(app, &encode(user.as_str()));
        let peers: Vec<Enc> = peers.iter().map(|p| encode(p.as_str())).collect();
        let (mut counts, mut rooms) = (redis::cmd("HMGET"), redis::cmd("HMGET"));
        counts.arg(keys.counts()).arg("known");
        rooms.arg(keys.refs());
        for peer in &peers {
            counts.arg(["peer:", peer.as_str()].concat());
            rooms.arg(["direct:", peer.as_str()].concat());
        }
        let items = vec![Item::Plain(counts), Item::Plain(rooms)];
        let (mut values, verdict) = match self.charged(items, charge).await? {
            Charged::Refused(verdict) => return Ok(Charged::Refused(verdict)),
            Charged::Granted(values, verdict) => (values, verdict),
        };
        let mut next = || Reply::new(values.next().unwrap_or(Value::Nil));
        let (mut counts, mut rooms) = (next()?, next()?);
        if maybe_text(counts.value()?)?.is_none() {
            return Ok(Charged::Granted(None, verdict));
        }
        let mut found = Vec::with_capacity(peers.len());
        let mut strangers = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            found.push(PeerCount::Known(counts.number()?));
            // Whoever shares a direct room with the user exists; all others have to be asked for.
            if maybe_text(rooms.value()?)?.is_none() {
                let mut exists = redis::cmd("HEXISTS");
                exists.arg(UserKeys::new(app, peer).counts()).arg("known");
                strangers.push((at, Item::Plain(exists)));
            }
        }
        let (places, items): (Vec<usize>, Vec<Item>) = strangers.into_iter().unzip();
        for (at, exists) in places
            .into_iter()
            .zip(self.inner.redis.batch(&items).await?)
        {
            if let (0, Some(place)) = (number(&exists)?, found.get_mut(at)) {
                *place = PeerCount::Unknown;
            }
        }
        Ok(Charged::Granted(Some(found), verdict))
    }

    fn quick_item(app: &AppId, user: &Enc, fields: &[String]) -> Item {
        let key = UserKeys::new(app, user).counts();
        let length = fields.iter().map(String::len).sum::<usize>();
        let mut get = Cmd::with_capacity(fields.len() + 2, key.len() + length + 8);
        get.arg("HMGET").arg(key).arg(fields);
        Item::Plain(get)
    }

    fn quick(value: Value, suffixes: &[String]) -> Result<Quick> {
        let mut reply = Reply::new(value)?;
        let known = maybe_text(reply.value()?)?.is_some();
        let supers = reply.number()?;
        if !known {
            return Ok(Quick::Unknown);
        }
        if supers > 0 {
            return Ok(Quick::HasSupergroups);
        }
        let mut totals = Totals::default();
        for kind in KEPT {
            for _ in suffixes {
                for family in FAMILIES {
                    *totals.family(family).of(kind) += reply.number()?;
                }
            }
        }
        Ok(Quick::Totals(totals))
    }

    /// All totals of `user`, over rooms of the given custom types if any are given; `None`: an unknown user.
    pub async fn totals(
        &self,
        app: &AppId,
        user: &UserId,
        types: Option<&[CustomType]>,
        charge: Option<&Charge>,
    ) -> Result<Charged<Option<Totals>>> {
        let _place = self.inner.admission.read()?;
        let user = encode(user.as_str());
        let suffixes = suffixes(types);
        match self
            .charged(
                vec![Self::quick_item(app, &user, &quick_fields(&suffixes))],
                charge,
            )
            .await?
        {
            Charged::Refused(verdict) => Ok(Charged::Refused(verdict)),
            Charged::Granted(mut values, verdict) => {
                let totals = match Self::quick(values.next().unwrap_or(Value::Nil), &suffixes)? {
                    Quick::Unknown => None,
                    Quick::Totals(totals) => Some(totals),
                    Quick::HasSupergroups => {
                        let overview = self.overview(app, &user, "c").await?;
                        overview.known.then(|| overview.totals(types))
                    }
                };
                Ok(Charged::Granted(totals, verdict))
            }
        }
    }

    /// All totals of each of `users`, in their order; `None`: an unknown user.
    pub async fn totals_of(&self, app: &AppId, users: &[UserId]) -> Result<Vec<Option<Totals>>> {
        let _place = self.inner.admission.read()?;
        let users: Vec<Enc> = users.iter().map(|u| encode(u.as_str())).collect();
        let suffixes = suffixes(None);
        let fields = quick_fields(&suffixes);
        let items: Vec<Item> = users
            .iter()
            .map(|u| Self::quick_item(app, u, &fields))
            .collect();
        let values = self.inner.redis.batch(&items).await?;
        let mut totals = Vec::with_capacity(users.len());
        let mut slower = Vec::new();
        for (at, value) in values.into_iter().enumerate() {
            totals.push(match Self::quick(value, &suffixes)? {
                Quick::Unknown => None,
                Quick::Totals(totals) => Some(totals),
                Quick::HasSupergroups => {
                    slower.extend(users.get(at).map(|user| (at, user)));
                    None
                }
            });
        }
        let mut overviews = stream::iter(slower)
            .map(|(at, user)| async move { Ok((at, self.overview(app, user, "c").await?)) })
            .buffer_unordered(USERS_AT_ONCE);
        while let Some((at, overview)) = overviews.try_next().await? {
            if let Some(place) = totals.get_mut(at) {
                *place = overview.known.then(|| overview.totals(None));
            }
        }
        Ok(totals)
    }

    /// Unread messages by room tag: the asked tags in the order given (absent ones 0), or every tag of the user's joined
    /// active rooms (sorted, zeros included) where none are given. An unknown user is a user without rooms.
    pub async fn tags(
        &self,
        app: &AppId,
        user: &UserId,
        tags: Option<&[Tag]>,
        charge: Option<&Charge>,
    ) -> Result<Charged<Vec<(Tag, u64)>>> {
        let _place = self.inner.admission.read()?;
        let user = encode(user.as_str());
        let keys = UserKeys::new(app, &user);
        let item = match tags {
            Some(tags) => {
                let mut get = redis::cmd("HMGET");
                get.arg(keys.counts()).arg("supers");
                for tag in tags {
                    get.arg(format!("tag:{}", encode(tag.as_str()).as_str()));
                }
                Item::Plain(get)
            }
            None => Item::Script(scripts::USER_TAGS.call(&[keys.counts(), keys.refs()])),
        };
        let (mut values, verdict) = match self.charged(vec![item], charge).await? {
            Charged::Refused(verdict) => return Ok(Charged::Refused(verdict)),
            Charged::Granted(values, verdict) => (values, verdict),
        };
        let mut reply = Reply::new(values.next().unwrap_or(Value::Nil))?;
        let counted = if reply.number()? > 0 {
            let overview = self.overview(app, &user, "cr").await?;
            let mut all = overview.tags();
            match tags {
                Some(tags) => tags
                    .iter()
                    .map(|tag| (tag.clone(), all.get(tag.as_str()).copied().unwrap_or(0)))
                    .collect(),
                None => {
                    let names = std::mem::take(&mut all).into_iter();
                    names
                        .filter_map(|(tag, n)| Some((Tag::parse(tag).ok()?, n)))
                        .collect()
                }
            }
        } else {
            match tags {
                Some(tags) => tags
                    .iter()
                    .map(|tag| Ok((tag.clone(), reply.number()?)))
                    .collect::<Result<_>>()?,
                None => {
                    let mut all = BTreeMap::new();
                    while !reply.is_empty() {
                        let (tag, n) = (decode(&reply.text()?), reply.number()?);
                        all.insert(tag, n);
                    }
                    all.into_iter()
                        .filter_map(|(tag, n)| Some((Tag::parse(tag).ok()?, n)))
                        .collect()
                }
            }
        };
        Ok(Charged::Granted(counted, verdict))
    }

    /// Everything the native API shows of one user; `None`: an unknown user.
    pub async fn user_unread(
        &self,
        app: &AppId,
        user: &UserId,
        rooms: bool,
    ) -> Result<Option<UserUnread>> {
        let _place = self.inner.admission.read()?;
        let what = if rooms { "cro" } else { "cr" };
        let overview = self.overview(app, &encode(user.as_str()), what).await?;
        if !overview.known {
            return Ok(None);
        }
        let list = rooms.then(|| {
            let mut list: Vec<RoomUnread> = overview
                .records
                .iter()
                .filter(|record| record.state == 'j' && record.active)
                .map(|record| RoomUnread {
                    room: decode(record.room.as_str()),
                    kind: record.kind,
                    custom_type: record.custom_type.clone(),
                    tags: record.tags.clone(),
                    messages: record.unread,
                    mentions: record.mentions,
                })
                .collect();
            list.sort_by(|a, b| a.room.cmp(&b.room));
            list
        });
        Ok(Some(UserUnread {
            totals: overview.totals(None),
            tags: overview.tags(),
            types: overview.types(),
            rooms: list,
        }))
    }

    /// Unread messages in one room of those of `users` who have joined it, or of all who have, if none are given and the
    /// room is not too large for that.
    pub async fn room_unread(
        &self,
        app: &AppId,
        room: &RoomId,
        users: Option<&[UserId]>,
    ) -> Result<RoomCounts> {
        let _place = self.inner.admission.read()?;
        let room = encode(room.as_str());
        let keys = RoomKeys::new(app, &room);
        let mut get = redis::cmd("HGET");
        get.arg(keys.meta()).arg("born");
        let born = number(&self.inner.redis.query(&get).await?)?;
        if born == 0 {
            return Ok(RoomCounts::NoRoom);
        }
        let entries = match users {
            Some(users) => {
                let users: Vec<Enc> = users.iter().map(|u| encode(u.as_str())).collect();
                let mut get = redis::cmd("HMGET");
                get.arg(keys.members());
                for user in &users {
                    get.arg(user.as_str());
                }
                if users.is_empty() {
                    Vec::new()
                } else {
                    let mut reply = Reply::new(self.inner.redis.query(&get).await?)?;
                    let mut found = Vec::with_capacity(users.len());
                    for user in users {
                        if let Some(entry) = maybe_text(reply.value()?)? {
                            found.push((user, Entry::parse(&entry)?));
                        }
                    }
                    found
                }
            }
            None => {
                let call = scripts::ROOM_MEMBERS
                    .call(&[keys.meta(), keys.members()])
                    .arg(LIST);
                let mut reply = Reply::new(self.inner.redis.call(&call).await?)?;
                let (_born, _mrev, length) = (reply.number()?, reply.number()?, reply.number()?);
                if length > LIST as u64 {
                    return Ok(RoomCounts::TooLarge);
                }
                parse_members(reply)?
            }
        };
        let joined: Vec<Enc> = entries
            .into_iter()
            .filter(|(_, entry)| entry.is_joined(born))
            .map(|(user, _)| user)
            .collect();
        let items: Vec<Item> = joined
            .iter()
            .map(|user| {
                let keys = UserKeys::new(app, user);
                Item::Script(
                    scripts::USER_ROOM
                        .call(&[keys.counts(), keys.supers(), keys.marks()])
                        .arg(room.as_str()),
                )
            })
            .collect();
        let mut counts = Vec::with_capacity(joined.len());
        let mut asked = Vec::new();
        for (user, answer) in joined
            .into_iter()
            .zip(self.inner.redis.batch(&items).await?)
        {
            let mut reply = Reply::new(answer)?;
            match reply.value()? {
                Value::Int(-1) => asked.push((
                    user,
                    Super {
                        room: room.clone(),
                        state: reply.text()?,
                        epoch: stamp(Some(&reply.text()?))?,
                        read: reply.text()?,
                        holes: reply.text()?,
                        mentions: reply.text()?,
                    },
                )),
                count => counts.push((decode(user.as_str()), number(&count)?)),
            }
        }
        let items: Vec<Item> = asked.iter().map(|(_, s)| s.ask(app)).collect();
        for ((user, _), answer) in asked.into_iter().zip(self.inner.redis.batch(&items).await?) {
            let mut answer = Reply::new(answer)?;
            if !answer.is_empty() {
                for _ in 0..4 {
                    answer.value()?;
                }
                counts.push((decode(user.as_str()), answer.number()?));
            }
        }
        counts.sort();
        Ok(RoomCounts::Counts(counts))
    }

    /// The rooms that a user has joined, whatever their status; `None`: an unknown user.
    pub(super) async fn joined_rooms(
        &self,
        app: &AppId,
        user: &Enc,
    ) -> Result<Option<Vec<RoomId>>> {
        let overview = self.overview(app, user, "o").await?;
        let rooms = overview
            .records
            .iter()
            .filter(|record| record.state == 'j')
            .filter_map(|record| RoomId::parse(decode(record.room.as_str())).ok())
            .collect();
        Ok(overview.known.then_some(rooms))
    }
}
