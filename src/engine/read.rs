//! Reading counts. A user's own slot is read at one instant, in one round trip, together with the call's charge against
//! its app's limit; supergroups are then asked in a second one. What few calls need is boxed: every call would carry its
//! place with it.

pub(crate) mod rooms;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::{Cmd, RedisWrite as _, Value};

use crate::connection::{Item, Redis};
use crate::counts::Kind;
use crate::counts::PeerCount;
use crate::counts::RoomCounts;
use crate::counts::RoomUnread;
use crate::counts::Totals;
use crate::counts::UserUnread;
use crate::counts::number::{add, count, parse, stamp, unreadable};
use crate::counts::record::{RoomRecord, SupergroupRecord};
use crate::counts::room::Entry;
use crate::engine::admission::Admission;
use crate::engine::faults::Faults;
use crate::engine::limits::Limits;
use crate::engine::members::MemberLists;
use crate::engine::members::{LIST, parse_members};
use crate::engine::reply::{Reply, bytes, fields, maybe_text, number, stored};
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys, UserKeys, decode, encode, encoded, is_encoded};
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

/// A user's record of a room, as far as its numbers are wanted.
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
    /// Reads the record of a direct room or group.
    fn parse(room: String, text: &str) -> Result<Self> {
        let record = RoomRecord::read(text)?.named()?.sound()?;
        Ok(Self {
            room: Enc::stored(room),
            state: record.state,
            unread: record.unread(),
            mentions: record.unread_mentions(),
            kind: record.kind,
            active: record.active,
            custom_type: Some(decode(record.custom_type)).filter(|t| !t.is_empty()),
            tags: split(record.tags),
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
pub(crate) struct Super {
    pub(crate) room: Enc,
    pub(crate) state: String,
    pub(crate) epoch: u64,
    read: String,
    holes: String,
    mentions: String,
}

impl Super {
    /// `state|epoch|rev|read|holes|mentions|positions of holes|positions of mentions`
    pub(crate) fn parse(room: String, text: &str) -> Result<Self> {
        let (rest, mentions) = text.rsplit_once('|').ok_or_else(unreadable)?;
        let (record, holes) = rest.rsplit_once('|').ok_or_else(unreadable)?;
        let record = SupergroupRecord::read(record)?;
        Ok(Self {
            room: Enc::stored(room),
            state: record.state.to_string(),
            epoch: record.epoch,
            read: record.read.to_string(),
            holes: holes.to_owned(),
            mentions: mentions.to_owned(),
        })
    }

    /// What the room has unread for `user`.
    pub(crate) fn ask(&self, app: &AppId, user: &str) -> Item {
        let keys = RoomKeys::new(app, &self.room);
        Item::Script(
            scripts::ROOM_UNREAD
                .call(&[
                    keys.meta(),
                    keys.recalled(),
                    keys.allmentions(),
                    keys.pending(),
                ])
                .arg(&self.state)
                .arg(self.epoch)
                .arg(&self.read)
                .arg(&self.holes)
                .arg(&self.mentions)
                .arg(user),
        )
    }
}

/// All that a user's slot said at one instant, supergroups worked out.
#[derive(Default)]
struct Overview {
    known: bool,
    /// As they stand there: only those that are asked for have to be numbers.
    counts: HashMap<String, String>,
    refs: Vec<String>,
    records: Vec<Record>,
}

impl Overview {
    fn count(&self, field: &str) -> Result<u64> {
        self.counts.get(field).map_or(Ok(0), |text| count(text))
    }

    /// What the names of references begin with, without that.
    fn refs(&self, family: &str) -> impl Iterator<Item = &str> {
        let names = self.refs.iter().filter_map(move |f| f.strip_prefix(family));
        names.filter(|name| is_encoded(name))
    }

    fn supers(&self) -> impl Iterator<Item = &Record> {
        self.records
            .iter()
            .filter(|record| record.kind == Kind::Supergroup && record.active)
    }

    fn totals(&self, types: Option<&[CustomType]>) -> Result<Totals> {
        let mut totals = Totals::default();
        for kind in KEPT {
            for suffix in suffixes(types) {
                for family in FAMILIES {
                    let n = self.count(&field(family, kind, &suffix))?;
                    add(totals.family(family).of(kind), n)?;
                }
            }
        }
        for record in self.supers() {
            let named = record.custom_type.as_deref();
            if types.is_none_or(|types| types.iter().any(|t| named == Some(t.as_str()))) {
                add(&mut totals.messages.supergroup, record.unread)?;
                add(&mut totals.mentions.supergroup, record.mentions)?;
                totals.invitations.supergroup += u64::from(record.state == 'i');
            }
        }
        Ok(totals)
    }

    fn tags(&self) -> Result<BTreeMap<String, u64>> {
        let mut tags = BTreeMap::new();
        for tag in self.refs("tag:") {
            tags.insert(decode(tag), self.count(&format!("tag:{tag}"))?);
        }
        for record in self.supers().filter(|record| record.state == 'j') {
            for tag in &record.tags {
                add(tags.entry(tag.clone()).or_default(), record.unread)?;
            }
        }
        Ok(tags)
    }

    fn types(&self) -> Result<BTreeMap<String, u64>> {
        let mut types = BTreeMap::new();
        for name in self.refs("type:") {
            let sum = types.entry(decode(name)).or_default();
            for kind in KEPT {
                add(
                    sum,
                    self.count(&field("messages", kind, &format!(":{name}")))?,
                )?;
            }
        }
        for record in self.supers().filter(|record| record.state == 'j') {
            if let Some(name) = &record.custom_type {
                add(types.entry(name.clone()).or_default(), record.unread)?;
            }
        }
        Ok(types)
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

/// An HMGET with space for so many fields of so many bytes.
fn hmget(key: &str, fields: usize, length: usize) -> Cmd {
    let mut get = Cmd::with_capacity(fields + 2, key.len() + length + 8);
    get.arg("HMGET").arg(key);
    get
}

/// Appends one argument that is put together from several parts.
fn joined(cmd: &mut Cmd, parts: &[&str]) {
    let mut arg = cmd.writer_for_next_arg();
    for part in parts {
        // Writing to memory can't fail.
        let _ = arg.write_all(part.as_bytes());
    }
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

/// Answers what is asked of the counts.
pub struct Reader {
    redis: Redis,
    admission: Arc<Admission>,
    limits: Limits,
    lists: Arc<MemberLists>,
    faults: Faults,
}

impl Reader {
    pub(crate) fn new(
        redis: Redis,
        admission: Arc<Admission>,
        limits: Limits,
        lists: Arc<MemberLists>,
        faults: Faults,
    ) -> Self {
        Self {
            redis,
            admission,
            limits,
            lists,
            faults,
        }
    }

    /// Has the charge made together with what is read; what a refused call read is thrown away.
    async fn charged<T>(
        &self,
        mut read: Pin<&mut impl Future<Output = Result<T>>>,
        charge: Option<&Charge>,
    ) -> Result<Charged<T>> {
        let Some(charge) = charge else {
            return Ok(Charged::Granted(read.await?, None));
        };
        let redis = &self.redis;
        if let Some(verdict) = self.limits.on_credit(charge) {
            return Ok(Charged::Granted(read.await?, Some(verdict)));
        }
        // Boxed, or calls on credit would carry the place of all this with them.
        let both = async {
            let charged = self.limits.charge(charge);
            if !redis.spans_slots() {
                // Both go to the same server at the same time.
                return tokio::join!(charged, read.as_mut());
            }
            let late = |_| {
                Err(Error::Unavailable(
                    "the limit did not answer in time".into(),
                ))
            };
            let charged = tokio::time::timeout(CHARGE, charged);
            let (charged, read) = tokio::join!(charged, read.as_mut());
            (charged.unwrap_or_else(late), read)
        };
        let (verdict, read) = Box::pin(both).await;
        let read = read?;
        let verdict = match verdict {
            Ok(verdict) => Some(verdict),
            // The limit may be on a node of a cluster that does not answer, and the user on another that does. What the
            // pod has let through by its own share then stands.
            Err(error) if error.is_transient() => None,
            Err(error) => return Err(error),
        };
        match verdict {
            Some(verdict) if !verdict.allowed => Ok(Charged::Refused(verdict)),
            _ => Ok(Charged::Granted(read, verdict)),
        }
    }

    pub(crate) fn overview_item(app: &AppId, user: &Enc, what: &str) -> Item {
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
        let item = Self::overview_item(app, user, what);
        let value = self.redis.one(&item).await?;
        let overview = self.complete(app, user, value).await;
        self.faults
            .at_slot(overview, || UserKeys::new(app, user).counts())
    }

    /// Asks the supergroups of a list of records for their numbers.
    pub(crate) async fn ask_supers(
        &self,
        app: &AppId,
        user: &Enc,
        records: Reply,
    ) -> Result<Vec<(Super, Value)>> {
        let supers = records
            .pairs()?
            .into_iter()
            .map(|(room, record)| Super::parse(room, &record))
            .collect::<Result<Vec<_>>>()?;
        let items: Vec<Item> = supers
            .iter()
            .map(|room| room.ask(app, user.as_str()))
            .collect();
        let answers = self.redis.batch(&items).await?;
        Ok(supers.into_iter().zip(answers).collect())
    }

    async fn complete(&self, app: &AppId, user: &Enc, value: Value) -> Result<Overview> {
        let mut reply = Reply::new(value)?;
        let known = !reply.text()?.is_empty();
        let mut overview = Overview {
            known,
            ..Overview::default()
        };
        // Names that are no text are none that anybody asks for.
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
            overview.records.push(Record::parse(room, &record)?);
        }
        for (asked, answer) in self.ask_supers(app, user, reply.list()?).await? {
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
        let _place = self.admission.read()?;
        let mut get = hmget(&UserKeys::of(app, user).counts(), 2, 22);
        get.arg("known").arg("messages:direct");
        let get = Item::Plain(get);
        let read = pin!(self.redis.one(&get));
        match self.charged(read, charge).await? {
            Charged::Refused(verdict) => Ok(Charged::Refused(verdict)),
            Charged::Granted(answer, verdict) => {
                let read = || -> Result<Option<u64>> {
                    let mut reply = fields(&answer)?;
                    let known = reply.text()?.is_some();
                    let total = reply.number()?;
                    Ok(known.then_some(total))
                };
                let total = self
                    .faults
                    .at(read(), || UserKeys::of(app, user).counts())?;
                Ok(Charged::Granted(total, verdict))
            }
        }
    }

    /// The same for each of `peers`, in their order; `None`: `user` is unknown.
    pub async fn direct_by_peer(
        &self,
        app: &AppId,
        user: &UserId,
        peers: &[&UserId],
        charge: Option<&Charge>,
    ) -> Result<Charged<Option<Vec<PeerCount>>>> {
        let _place = self.admission.read()?;
        let keys = UserKeys::of(app, user);
        let length = peers.iter().map(|p| p.as_str().len() + 7).sum();
        let mut counts = hmget(&keys.counts(), peers.len() + 1, length);
        let mut rooms = hmget(&keys.refs(), peers.len(), length);
        counts.arg("known");
        for peer in peers {
            let peer = encoded(peer.as_str());
            joined(&mut counts, &["peer:", &peer]);
            joined(&mut rooms, &["direct:", &peer]);
        }
        let items = [Item::Plain(counts), Item::Plain(rooms)];
        let read = pin!(self.redis.batch(&items));
        let (answers, verdict) = match self.charged(read, charge).await? {
            Charged::Refused(verdict) => return Ok(Charged::Refused(verdict)),
            Charged::Granted(answers, verdict) => (answers, verdict),
        };
        let [counts, rooms] = &answers[..] else {
            return Err(unreadable());
        };
        let (mut counts, mut rooms) = (fields(counts)?, fields(rooms)?);
        if self.faults.at(counts.text(), || keys.counts())?.is_none() {
            return Ok(Charged::Granted(None, verdict));
        }
        let mut found = Vec::with_capacity(peers.len());
        let mut strangers = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            let count = self.faults.at(counts.number(), || keys.counts())?;
            found.push(PeerCount::Known(count));
            // Whoever shares a direct room with the user exists; all others have to be asked for.
            if self.faults.at(rooms.text(), || keys.refs())?.is_none() {
                let mut exists = redis::cmd("HEXISTS");
                exists.arg(UserKeys::of(app, peer).counts()).arg("known");
                strangers.push((at, Item::Plain(exists)));
            }
        }
        let (places, items): (Vec<usize>, Vec<Item>) = strangers.into_iter().unzip();
        if items.is_empty() {
            return Ok(Charged::Granted(Some(found), verdict));
        }
        let exist = Box::pin(self.redis.batch(&items)).await?;
        for (at, exists) in places.into_iter().zip(exist) {
            if let (0, Some(place)) = (number(&exists)?, found.get_mut(at)) {
                *place = PeerCount::Unknown;
            }
        }
        Ok(Charged::Granted(Some(found), verdict))
    }

    fn quick_item(app: &AppId, user: &UserId, suffixes: &[String]) -> Item {
        let length = suffixes.iter().map(|suffix| 20 + suffix.len());
        let each = KEPT.len() * FAMILIES.len();
        let mut get = hmget(
            &UserKeys::of(app, user).counts(),
            2 + each * suffixes.len(),
            11 + each * length.sum::<usize>(),
        );
        get.arg("known").arg("supers");
        for kind in KEPT {
            for suffix in suffixes {
                for family in FAMILIES {
                    joined(&mut get, &[family, ":", kind.as_str(), suffix]);
                }
            }
        }
        Item::Plain(get)
    }

    fn quick(answer: &Value, suffixes: &[String]) -> Result<Quick> {
        let mut reply = fields(answer)?;
        let known = reply.text()?.is_some();
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
                    add(totals.family(family).of(kind), reply.number()?)?;
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
        let _place = self.admission.read()?;
        let suffixes = suffixes(types);
        let get = Self::quick_item(app, user, &suffixes);
        let read = pin!(self.redis.one(&get));
        match self.charged(read, charge).await? {
            Charged::Refused(verdict) => Ok(Charged::Refused(verdict)),
            Charged::Granted(answer, verdict) => {
                let quick = Self::quick(&answer, &suffixes);
                let totals = match self.faults.at(quick, || UserKeys::of(app, user).counts())? {
                    Quick::Unknown => None,
                    Quick::Totals(totals) => Some(totals),
                    Quick::HasSupergroups => {
                        let name = encode(user.as_str());
                        let overview = Box::pin(self.overview(app, &name, "c")).await?;
                        let totals = overview.known.then(|| overview.totals(types));
                        self.faults
                            .at(totals.transpose(), || UserKeys::of(app, user).counts())?
                    }
                };
                Ok(Charged::Granted(totals, verdict))
            }
        }
    }

    /// All totals of each of `users`, in their order; `None`: an unknown user.
    pub async fn totals_of(&self, app: &AppId, users: &[&UserId]) -> Result<Vec<Option<Totals>>> {
        let _place = self.admission.read()?;
        let suffixes = suffixes(None);
        let items: Vec<Item> = users
            .iter()
            .map(|user| Self::quick_item(app, user, &suffixes))
            .collect();
        let answers = self.redis.batch(&items).await?;
        let mut totals = Vec::with_capacity(users.len());
        let mut slower = Vec::new();
        for (at, answer) in answers.iter().enumerate() {
            let quick = self.faults.at(Self::quick(answer, &suffixes), || {
                let user = users.get(at).map(|user| UserKeys::of(app, user).counts());
                user.unwrap_or_default()
            });
            totals.push(match quick? {
                Quick::Unknown => None,
                Quick::Totals(totals) => Some(totals),
                Quick::HasSupergroups => {
                    slower.extend(users.get(at).map(|user| (at, user)));
                    None
                }
            });
        }
        let mut overviews = stream::iter(slower)
            .map(|(at, user)| async move {
                Ok((at, self.overview(app, &encode(user.as_str()), "c").await?))
            })
            .buffer_unordered(USERS_AT_ONCE);
        while let Some((at, overview)) = overviews.try_next().await? {
            if let Some(place) = totals.get_mut(at) {
                *place = overview.known.then(|| overview.totals(None)).transpose()?;
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
        tags: Option<Vec<Tag>>,
        charge: Option<&Charge>,
    ) -> Result<Charged<Vec<(Tag, u64)>>> {
        let _place = self.admission.read()?;
        let keys = UserKeys::of(app, user);
        let Some(tags) = tags else {
            return Box::pin(self.all_tags(app, user, &keys, charge)).await;
        };
        let length = tags.iter().map(|tag| tag.as_str().len() + 4).sum::<usize>();
        let mut get = hmget(&keys.counts(), tags.len() + 1, length + 6);
        get.arg("supers");
        for tag in &tags {
            joined(&mut get, &["tag:", &encoded(tag.as_str())]);
        }
        let get = Item::Plain(get);
        let read = pin!(self.redis.one(&get));
        let (answer, verdict) = match self.charged(read, charge).await? {
            Charged::Refused(verdict) => return Ok(Charged::Refused(verdict)),
            Charged::Granted(answer, verdict) => (answer, verdict),
        };
        let mut reply = fields(&answer)?;
        let large = self.faults.at(reply.number(), || keys.counts())?;
        let counted = if large > 0 {
            let user = encode(user.as_str());
            let overview = Box::pin(self.overview(app, &user, "cr")).await?;
            let all = self.faults.at(overview.tags(), || keys.counts())?;
            let counted = tags.into_iter().map(|tag| {
                let n = all.get(tag.as_str()).copied().unwrap_or(0);
                (tag, n)
            });
            counted.collect()
        } else {
            let counted = tags.into_iter().map(|tag| Ok((tag, reply.number()?)));
            let counted: Result<_> = counted.collect();
            self.faults.at(counted, || keys.counts())?
        };
        Ok(Charged::Granted(counted, verdict))
    }

    async fn all_tags(
        &self,
        app: &AppId,
        user: &UserId,
        keys: &UserKeys,
        charge: Option<&Charge>,
    ) -> Result<Charged<Vec<(Tag, u64)>>> {
        let call = scripts::USER_TAGS.call(&[keys.counts(), keys.refs()]);
        let read = pin!(self.redis.call(&call));
        let (answer, verdict) = match self.charged(read, charge).await? {
            Charged::Refused(verdict) => return Ok(Charged::Refused(verdict)),
            Charged::Granted(answer, verdict) => (answer, verdict),
        };
        let mut reply = Reply::new(answer)?;
        let large = self.faults.at(stored(&reply.value()?), || keys.counts())?;
        let all = if large > 0 {
            let overview = self.overview(app, &encode(user.as_str()), "cr").await?;
            self.faults.at(overview.tags(), || keys.counts())?
        } else {
            let mut all = BTreeMap::new();
            while !reply.is_empty() {
                let (tag, n) = (bytes(reply.value()?)?, stored(&reply.value()?));
                // A name that is none is nobody's tag.
                if let Ok(tag) = String::from_utf8(tag)
                    && is_encoded(&tag)
                {
                    all.insert(decode(&tag), self.faults.at(n, || keys.counts())?);
                }
            }
            all
        };
        let named = |(tag, n)| Some((Tag::parse(tag).ok()?, n));
        let counted = all.into_iter().filter_map(named).collect();
        Ok(Charged::Granted(counted, verdict))
    }

    /// Everything the native API shows of one user; `None`: an unknown user.
    pub async fn user_unread(
        &self,
        app: &AppId,
        user: &UserId,
        rooms: bool,
    ) -> Result<Option<UserUnread>> {
        let _place = self.admission.read()?;
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
        let counts = || UserKeys::of(app, user).counts();
        Ok(Some(UserUnread {
            totals: self.faults.at(overview.totals(None), counts)?,
            tags: self.faults.at(overview.tags(), counts)?,
            types: self.faults.at(overview.types(), counts)?,
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
        let _place = self.admission.read()?;
        let room = encode(room.as_str());
        let keys = RoomKeys::new(app, &room);
        let mut get = redis::cmd("HGET");
        get.arg(keys.meta()).arg("born");
        let born = self.redis.query(&get).await?;
        if matches!(born, Value::Nil) {
            return Ok(RoomCounts::NoRoom);
        }
        let born = self.faults.at(stored(&born), || keys.meta())?;
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
                    let mut reply = Reply::new(self.redis.query(&get).await?)?;
                    let mut found = Vec::with_capacity(users.len());
                    for user in users {
                        let entry = self
                            .faults
                            .at(maybe_text(reply.value()?), || keys.members())?;
                        if let Some(entry) = entry {
                            let entry = self.faults.at(Entry::parse(&entry), || keys.members())?;
                            found.push((user, entry));
                        }
                    }
                    found
                }
            }
            None => {
                let call = scripts::ROOM_MEMBERS
                    .call(&[keys.meta(), keys.members()])
                    .arg(LIST);
                let mut reply = Reply::new(self.redis.call(&call).await?)?;
                let (_born, _mrev) = (reply.number()?, reply.text()?);
                let (_parted, length) = (reply.text()?, reply.number()?);
                if length > LIST as u64 {
                    return Ok(RoomCounts::TooLarge);
                }
                self.faults.at(parse_members(reply), || keys.members())?
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
        for (user, answer) in joined.into_iter().zip(self.redis.batch(&items).await?) {
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
                count => {
                    let count = self
                        .faults
                        .at(stored(&count), || UserKeys::new(app, &user).counts())?;
                    counts.push((decode(user.as_str()), count));
                }
            }
        }
        let items: Vec<Item> = asked
            .iter()
            .map(|(user, room)| room.ask(app, user.as_str()))
            .collect();
        for ((user, _), answer) in asked.into_iter().zip(self.redis.batch(&items).await?) {
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
}
