//! A page of a user's rooms, with all that a client shows of them.
//!
//! The user's own slot says enough of each room to filter and sort by: one round trip, and one more for the numbers of
//! supergroups if there are any. Only the rooms of the page are then asked for the rest, in a further one. What only the room knows (its
//! name, for one) takes more if it is sorted by: then all rooms are asked that the other fields leave in question.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use redis::Value;
use serde_json::Map;

use crate::connection::Item;
use crate::counts::Kind;
use crate::counts::LastMessage;
use crate::counts::Pref;
use crate::counts::Profile;
use crate::counts::RoomEntry;
use crate::counts::RoomPage;
use crate::counts::number::{Stored, parse, unreadable};
use crate::counts::record::RoomRecord;
use crate::counts::room::{Entry, Last, millis, names};
use crate::engine::members::MemberList;
use crate::engine::read::{Reader, Super};
use crate::engine::reply::{Reply, maybe_text, readable, stored, texts};
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys, UserKeys, decode, decoded, encode, is_encoded};
use crate::names::{AppId, CustomType, RoomId, Tag, UserId};
use crate::quota::{Charge, Charged};
use crate::scripts;

/// The longest list of members that is shown whole.
const SHOWN_MEMBERS: usize = 1_000;
/// Of so many rooms the user's settings are asked by name, of more all there are.
const SHORT: usize = 100;

/// What rooms are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortBy {
    /// The last message: its time, then the order of acceptance. Nothing comes before something.
    LastMessage,
    /// When the room was made.
    Created,
    /// The room's id.
    Id,
    /// The shown name.
    Name,
    /// The description.
    Description,
    /// Direct rooms before all others.
    Direct,
    /// Service status.
    ServiceStatus,
    /// The user's unread messages.
    Unread,
}

impl SortBy {
    /// Whether only the room knows it.
    fn is_remote(self) -> bool {
        matches!(self, Self::Name | Self::Description | Self::ServiceStatus)
    }

    fn compare(self, a: &Facts<'_>, b: &Facts<'_>) -> Ordering {
        match self {
            Self::LastMessage => a.last.map(Last::order).cmp(&b.last.map(Last::order)),
            Self::Created => a.created.cmp(&b.created),
            Self::Id => by_id(a, b),
            Self::Name => a.name.cmp(b.name),
            Self::Description => a.description.cmp(b.description),
            Self::Direct => (a.kind != Kind::Direct).cmp(&(b.kind != Kind::Direct)),
            Self::ServiceStatus => a.service_status.cmp(&b.service_status),
            Self::Unread => a.unread.cmp(&b.unread),
        }
    }
}

/// What rooms are sorted by, of one of them.
struct Facts<'a> {
    /// As it stands in Redis.
    room: &'a str,
    kind: Kind,
    created: i64,
    last: Option<Last>,
    unread: u64,
    name: &'a str,
    description: &'a str,
    service_status: i64,
}

fn by_id(a: &Facts<'_>, b: &Facts<'_>) -> Ordering {
    match a.room.contains('%') || b.room.contains('%') {
        true => decoded(a.room).cmp(&decoded(b.room)),
        false => a.room.cmp(b.room),
    }
}

/// Which of a user's rooms, in which order.
pub struct RoomQuery<'a> {
    /// Whether a room is meant.
    pub matches: &'a (dyn Fn(&RoomBrief<'_>) -> bool + Sync),
    /// What is asked of the user's own settings.
    pub by_pref: Option<PrefQuery<'a>>,
    /// What to sort by, and whether in descending order; in the end it is by id.
    pub sort: &'a [(SortBy, bool)],
    /// Rooms with unread messages before the others.
    pub unread_first: bool,
    /// Rooms to leave out at the front.
    pub skip: usize,
    /// Rooms in the page; 0: all.
    pub limit: usize,
}

/// The settings that a user's record of a room tells, by their first letters.
const FLAGS: [&str; 3] = ["hidden", "sticky", "muted"];

/// Which of them by the user's own settings.
pub struct PrefQuery<'a> {
    /// The settings that are looked at, each once: `tags`, `tag_colors`, `hidden`, `sticky`, `muted`, `folder`.
    pub settings: Vec<&'static str>,
    /// Whether a room with these settings is meant. What is not looked at has its default.
    pub matches: &'a (dyn Fn(&Pref) -> bool + Sync),
}

impl PrefQuery<'_> {
    /// Whether the user's records of the rooms tell all of it.
    fn is_recorded(&self) -> bool {
        self.settings.iter().all(|setting| FLAGS.contains(setting))
    }
}

/// One of a user's rooms, as the user's own slot has it.
pub struct RoomBrief<'a> {
    stored: &'a str,
    epoch: u64,
    kind: Kind,
    tags: &'a str,
    custom_type: &'a str,
    created: i64,
    last: Option<Last>,
    unread: u64,
    /// Which settings are true, by their first letters.
    flags: &'a str,
}

impl<'a> RoomBrief<'a> {
    /// The room's id.
    pub fn room(&self) -> Cow<'a, str> {
        decoded(self.stored)
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its tags, in the order given.
    pub fn tags(&self) -> impl Iterator<Item = Cow<'a, str>> {
        let names = self.tags.split(',').filter(|tag| !tag.is_empty());
        names.map(decoded)
    }

    /// When it was made, in milliseconds since the epoch.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// The last message's time, in milliseconds since the epoch.
    pub fn last_time(&self) -> Option<i64> {
        self.last.map(|last| last.time)
    }

    /// When the newest message was accepted, in milliseconds since the epoch: also one whose time lies before the last one's.
    pub fn newest(&self) -> Option<i64> {
        self.last.map(|last| millis(last.newest))
    }

    /// Reads a record; nothing of a room that the user has not joined or that is not active.
    pub(crate) fn read(stored: &'a str, record: &'a str) -> Result<Option<Self>> {
        let Some(record) = RoomRecord::read_listed(record)? else {
            return Ok(None);
        };
        let record = record.sound()?;
        Ok(Some(Self {
            stored,
            epoch: record.epoch,
            kind: record.kind,
            tags: record.tags,
            custom_type: record.custom_type,
            created: record.created(),
            last: record.last,
            unread: record.unread(),
            flags: record.flags,
        }))
    }

    /// The settings that its record tells.
    fn recorded(&self) -> Pref {
        Pref {
            hidden: self.flags.contains('h'),
            sticky: self.flags.contains('s'),
            muted: self.flags.contains('m'),
            ..Pref::default()
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            room: self.stored,
            kind: self.kind,
            created: self.created,
            last: self.last,
            unread: self.unread,
            name: "",
            description: "",
            service_status: 0,
        }
    }
}

impl RoomQuery<'_> {
    fn compare(&self, sort: &[(SortBy, bool)], a: &Facts<'_>, b: &Facts<'_>) -> Ordering {
        let halves = match self.unread_first {
            true => (a.unread == 0).cmp(&(b.unread == 0)),
            false => Ordering::Equal,
        };
        sort.iter().fold(halves, |sofar, (by, down)| {
            sofar.then_with(|| {
                let order = by.compare(a, b);
                if *down { order.reverse() } else { order }
            })
        })
    }

    /// With the last word.
    fn compare_all(&self, a: &Facts<'_>, b: &Facts<'_>) -> Ordering {
        let by_fields = self.compare(self.sort, a, b);
        by_fields.then_with(|| by_id(a, b))
    }

    /// As far as the user's slot can tell; nothing where it can tell all.
    fn known_part(&self) -> Option<&[(SortBy, bool)]> {
        let remote = self.sort.iter().position(|(by, _)| by.is_remote())?;
        self.sort.get(..remote)
    }

    /// Puts the rooms of the page in their places in `order`, as far as can be told without asking them. Answers these
    /// places, and those of all rooms that may have to change places with them.
    fn arrange(
        &self,
        found: &[RoomBrief<'_>],
        order: &mut [usize],
    ) -> (Range<usize>, Range<usize>) {
        let total = order.len();
        let skip = self.skip.min(total);
        let end = match self.limit {
            0 => total,
            limit => skip.saturating_add(limit).min(total),
        };
        let facts: Vec<Facts<'_>> = found.iter().map(RoomBrief::facts).collect();
        let compare = |a: &usize, b: &usize, by: &dyn Fn(&Facts<'_>, &Facts<'_>) -> Ordering| match (
            facts.get(*a),
            facts.get(*b),
        ) {
            (Some(a), Some(b)) => by(a, b),
            _ => Ordering::Equal,
        };
        if skip == end {
            return (skip..end, skip..end);
        }
        let Some(part) = self.known_part() else {
            // A page of many rooms does not need the rest in order. No two rooms compare equal, so the page is the same
            // either way.
            let all = |a: &usize, b: &usize| compare(a, b, &|a, b| self.compare_all(a, b));
            let mut page = order;
            if end < total {
                page.select_nth_unstable_by(end - 1, all);
                page = page.get_mut(..end).unwrap_or_default();
            }
            if skip > 0 {
                page.select_nth_unstable_by(skip, all);
                page = page.get_mut(skip..).unwrap_or_default();
            }
            page.sort_unstable_by(all);
            return (skip..end, skip..end);
        };
        let known = |a: &usize, b: &usize| compare(a, b, &|a, b| self.compare(part, a, b));
        order.sort_by(known);
        let same = |a: usize, b: usize| match (order.get(a), order.get(b)) {
            (Some(a), Some(b)) => known(a, b).is_eq(),
            _ => false,
        };
        let (mut from, mut to) = (skip, end);
        while from > 0 && same(from - 1, skip) {
            from -= 1;
        }
        while to < total && same(to, end - 1) {
            to += 1;
        }
        (skip..end, from..to)
    }
}

/// A supergroup of the user's, its numbers worked out.
struct Large {
    room: Enc,
    epoch: u64,
    kind: Kind,
    custom_type: String,
    tags: String,
    created: i64,
    last: Option<Last>,
    unread: u64,
}

impl Large {
    fn read(asked: Super, answer: Value) -> Result<Option<Self>> {
        let mut answer = Reply::new(answer)?;
        if answer.is_empty() || asked.state != "j" {
            return Ok(None);
        }
        let kind = Kind::stored(&answer.text()?)?;
        let status = answer.text()?;
        let (custom_type, tags) = (answer.text()?, answer.text()?);
        let (unread, _mentions) = (answer.number()?, answer.number()?);
        let created = i64::try_from(answer.number()?).unwrap_or(0);
        let last = Last::read(&mut answer)?;
        Ok((status == "1").then_some(Self {
            room: asked.room,
            epoch: asked.epoch,
            kind,
            custom_type,
            tags,
            created,
            last,
            unread,
        }))
    }

    fn brief(&self) -> RoomBrief<'_> {
        RoomBrief {
            stored: self.room.as_str(),
            epoch: self.epoch,
            kind: self.kind,
            tags: &self.tags,
            custom_type: &self.custom_type,
            created: self.created,
            last: self.last,
            unread: self.unread,
            flags: "",
        }
    }
}

fn text(value: &Value) -> Result<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| unreadable()),
        Value::SimpleString(text) => Ok(text),
        _ => Err(unreadable()),
    }
}

/// The pairs of a hash that has been asked for as it is.
fn pairs(hash: &Value) -> Result<impl Iterator<Item = Result<(&str, &str)>>> {
    let mut texts = texts(hash)?.map(|text| text?.ok_or_else(unreadable));
    Ok(std::iter::from_fn(move || {
        let field = texts.next()?;
        let value = texts.next().unwrap_or_else(|| Err(unreadable()));
        Some(field.and_then(|field| Ok((field, value?))))
    }))
}

/// What a user's settings of some rooms are asked with: by name, or all there are.
fn prefs_item(keys: &UserKeys, rooms: &[&str], whole: bool) -> Item {
    if whole {
        return whole_item(keys.prefs());
    }
    let mut get = redis::cmd("HMGET");
    get.arg(keys.prefs());
    for room in rooms {
        for setting in SETTINGS {
            get.arg(format!("{room}|{setting}"));
        }
    }
    Item::Plain(get)
}

/// All of a hash, for [`pairs`].
fn whole_item(key: String) -> Item {
    let mut get = redis::cmd("HGETALL");
    get.arg(key);
    Item::Plain(get)
}

/// Reads the answer: of each room what is set there; nothing where nothing is.
fn read_prefs(answer: &Value, rooms: &[&str], whole: bool) -> Result<Vec<Option<Pref>>> {
    if whole {
        let mut all = all_prefs(answer, &SETTINGS)?;
        return Ok(rooms.iter().map(|room| all.remove(room)).collect());
    }
    let Value::Array(values) = answer else {
        return Err(unreadable());
    };
    let mut prefs = Vec::with_capacity(rooms.len());
    for values in values.chunks(SETTINGS.len()) {
        let mut pref = None;
        for (setting, value) in SETTINGS.iter().zip(values) {
            if !matches!(value, Value::Nil) {
                let pref = pref.get_or_insert_with(Pref::default);
                set_pref(pref, setting, text(value)?)?;
            }
        }
        prefs.push(pref);
    }
    Ok(prefs)
}

/// Of all rooms that have one of these settings, what they are.
fn all_prefs<'a>(answer: &'a Value, settings: &[&str]) -> Result<HashMap<&'a str, Pref>> {
    let mut all: HashMap<&str, Pref> = HashMap::new();
    for pair in pairs(answer)? {
        let (field, stored) = pair?;
        if let Some((room, setting)) = field.rsplit_once('|')
            && settings.contains(&setting)
        {
            set_pref(all.entry(room).or_default(), setting, stored)?;
        }
    }
    Ok(all)
}

/// Takes a setting as it is stored: `stamp|JSON`.
pub(crate) fn set_pref(pref: &mut Pref, setting: &str, stored: &str) -> Result<()> {
    let (_, json) = stored.split_once('|').ok_or_else(unreadable)?;
    let bad = |_| Error::unreadable("a setting that is not JSON of its type");
    let flag = || match json {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(unreadable()),
    };
    match setting {
        "tags" => pref.tags = serde_json::from_str(json).map_err(bad)?,
        "tag_colors" => pref.tag_colors = serde_json::from_str(json).map_err(bad)?,
        "folder" => pref.folder = serde_json::from_str(json).map_err(bad)?,
        "hidden" => pref.hidden = flag()?,
        "sticky" => pref.sticky = flag()?,
        "muted" => pref.muted = flag()?,
        _ => {}
    }
    Ok(())
}

/// The settings that a user may have of a room.
const SETTINGS: [&str; 6] = ["tags", "tag_colors", "hidden", "sticky", "muted", "folder"];

/// A room that was asked, by its name as it stands in Redis, and how current a list of its members has to be.
struct Asked {
    name: Enc,
    entry: RoomEntry,
    born: u64,
    mrev: String,
}

impl Asked {
    fn facts(&self) -> Facts<'_> {
        let entry = &self.entry;
        let last = entry.last_message.as_ref();
        Facts {
            room: self.name.as_str(),
            kind: entry.kind,
            created: entry.created,
            last: last.map(|last| Last {
                time: last.time,
                at: last.order,
                newest: last.order,
            }),
            unread: entry.unread,
            name: &entry.name,
            description: &entry.description,
            service_status: entry.service_status,
        }
    }
}

/// Lists of members and profiles, as far as they are there.
#[derive(Default)]
struct People {
    lists: HashMap<Enc, Members>,
    profiles: HashMap<UserId, Profile>,
}

/// The members of a room.
enum Members {
    /// More than are shown.
    Many,
    /// As this pod remembers them: to be used only if the room agrees.
    Kept(Arc<MemberList>),
    /// As the room said.
    Told(Arc<MemberList>),
}

impl People {
    /// Whether the members are known, as of `room` or later.
    fn knows(&self, room: &Asked) -> bool {
        match self.lists.get(&room.name) {
            None => false,
            Some(Members::Kept(list)) => list.mrev == room.mrev && list.born == room.born,
            Some(Members::Told(_) | Members::Many) => true,
        }
    }
}

impl Reader {
    /// A page of the joined active rooms of `user`. An unknown user has no rooms. A room of more than 1,000 members names
    /// the caller only.
    pub async fn rooms(
        &self,
        app: &AppId,
        user: &UserId,
        query: &RoomQuery<'_>,
        charge: Option<&Charge>,
    ) -> Result<Charged<RoomPage>> {
        let _place = self.admission.read()?;
        let name = encode(user.as_str());
        let keys = UserKeys::new(app, &name);
        // Not by one script: to carry thousands of records through Lua costs Redis several times as much as to send them. A
        // room that becomes a supergroup in between is in both: its record is read first.
        let mut items = vec![
            whole_item(keys.rooms()),
            Self::overview_item(app, &name, ""),
        ];
        let by_pref = query.by_pref.as_ref();
        if by_pref.is_some_and(|by_pref| !by_pref.is_recorded()) {
            items.push(whole_item(keys.prefs()));
        }
        let read = pin!(self.redis.batch(&items));
        let (values, verdict) = match self.charged(read, charge).await? {
            Charged::Refused(verdict) => return Ok(Charged::Refused(verdict)),
            Charged::Granted(values, verdict) => (values, verdict),
        };
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or(Value::Nil);
        let (records, overview, mut prefs) = (next(), next(), next());
        let large = self.large(app, &name, overview).await;
        let large = self.faults.at_slot(large, || keys.supers())?;
        let also: HashSet<&str> = large.iter().map(|room| room.room.as_str()).collect();
        // A list that leaves out what can't be read would have the wrong length.
        let records = || self.faults.at(pairs(&records), || keys.rooms());
        let kept = records()?.map(|pair| {
            let (room, record) = pair?;
            match also.contains(room) {
                true => Ok(None),
                false => RoomBrief::read(room, record),
            }
        });
        let mut found = Vec::new();
        for room in kept.chain(large.iter().map(|room| Ok(Some(room.brief())))) {
            if let Some(room) = self.faults.at(room, || keys.rooms())?
                && (query.matches)(&room)
            {
                found.push(room);
            }
        }
        if let Some(by_pref) = by_pref {
            // The records of supergroups don't tell.
            let missing = by_pref.is_recorded() && !large.is_empty();
            if missing {
                prefs = self.redis.one(&whole_item(keys.prefs())).await?;
            }
            let all = match missing || !by_pref.is_recorded() {
                true => {
                    let all = all_prefs(&prefs, &by_pref.settings);
                    self.faults.at(all, || keys.prefs())?
                }
                false => HashMap::new(),
            };
            let unset = (by_pref.matches)(&Pref::default());
            found.retain(|room| match all.get(room.stored) {
                Some(pref) => (by_pref.matches)(pref),
                None if room.flags.is_empty() => unset,
                None => (by_pref.matches)(&room.recorded()),
            });
        }

        let mut people = People::default();
        let (total, page) = self.page(app, &name, query, &found, &mut people).await?;
        let rooms = self.with_members(app, user, page, &mut people).await?;
        Ok(Charged::Granted(
            RoomPage {
                total: total as u64,
                rooms,
                profiles: people.profiles,
            },
            verdict,
        ))
    }

    /// The supergroups that a user has joined.
    async fn large(&self, app: &AppId, user: &Enc, overview: Value) -> Result<Vec<Large>> {
        let mut reply = Reply::new(overview)?;
        for _ in 0..4 {
            reply.value()?;
        }
        let large = self.ask_supers(app, user, reply.list()?).await?.into_iter();
        large
            .filter_map(|(asked, answer)| Large::read(asked, answer).transpose())
            .collect()
    }

    /// How many rooms there are, and those of the page, in their order. Rooms that turn out to be gone (the telling of that
    /// is on the way) are left out, and the next ones move up.
    async fn page(
        &self,
        app: &AppId,
        user: &Enc,
        query: &RoomQuery<'_>,
        found: &[RoomBrief<'_>],
        people: &mut People,
    ) -> Result<(usize, Vec<Asked>)> {
        let mut order: Vec<usize> = (0..found.len()).collect();
        let mut asked: HashMap<usize, Option<Asked>> = HashMap::new();
        loop {
            let (page, around) = query.arrange(found, &mut order);
            let near = order.get(around.clone()).unwrap_or_default();
            let missing: Vec<usize> = near
                .iter()
                .copied()
                .filter(|at| !asked.contains_key(at))
                .collect();
            if !missing.is_empty() {
                let rooms: Vec<&RoomBrief> =
                    missing.iter().filter_map(|at| found.get(*at)).collect();
                // Whom to show is known in advance where the page is.
                let people = (page == around).then_some(&mut *people);
                let entries = self.ask(app, user, &rooms, people).await?;
                let gone = entries.iter().any(Option::is_none);
                asked.extend(missing.into_iter().zip(entries));
                if gone {
                    order.retain(|at| !matches!(asked.get(at), Some(None)));
                    continue;
                }
            }
            let mut rooms: Vec<(&RoomBrief, Asked)> = near
                .iter()
                .filter_map(|at| Some((found.get(*at)?, asked.remove(at)??)))
                .collect();
            if page != around {
                // By what the user's slot knows, as they were sorted, and by what only the rooms know.
                fn facts<'b>((brief, asked): &'b (&RoomBrief<'_>, Asked)) -> Facts<'b> {
                    Facts {
                        name: &asked.entry.name,
                        description: &asked.entry.description,
                        service_status: asked.entry.service_status,
                        ..brief.facts()
                    }
                }
                rooms.sort_by(|a, b| query.compare_all(&facts(a), &facts(b)));
                rooms.drain(..page.start - around.start);
                rooms.truncate(page.len());
            }
            let mut rooms: Vec<Asked> = rooms.into_iter().map(|(_, asked)| asked).collect();
            // What was accepted in between is shown, so it has its place among what is shown.
            rooms.sort_by(|a, b| query.compare_all(&a.facts(), &b.facts()));
            return Ok((order.len(), rooms));
        }
    }

    /// Asks rooms for what only they know, and for their members if it is `people` that are wanted. Nothing: the room is gone.
    async fn ask(
        &self,
        app: &AppId,
        user: &Enc,
        rooms: &[&RoomBrief<'_>],
        people: Option<&mut People>,
    ) -> Result<Vec<Option<Asked>>> {
        let mut items: Vec<Item> = Vec::new();
        for room in rooms {
            let mut get = redis::cmd("HMGET");
            get.arg(RoomKeys::new(app, &Enc::stored(room.stored)).meta())
                .arg(&SHOWN);
            items.push(Item::Plain(get));
        }
        let names: Vec<&str> = rooms.iter().map(|room| room.stored).collect();
        let many = rooms.len() > SHORT;
        let keys = UserKeys::new(app, user);
        items.push(prefs_item(&keys, &names, many));
        let (mut unknown, mut users) = (Vec::new(), Vec::new());
        let mut people = people;
        if let Some(people) = people.as_deref_mut() {
            let mut seen = HashSet::new();
            for room in rooms {
                let name = (app.clone(), Enc::stored(room.stored));
                let Some(list) = self.lists.get(&name) else {
                    unknown.push(name.1);
                    continue;
                };
                for (user, _) in joined(&list) {
                    if !seen.contains(user) {
                        seen.insert(user.clone());
                        users.push(user.clone());
                    }
                }
                people.lists.insert(name.1, Members::Kept(list));
            }
        }
        items.extend(unknown.iter().map(|room| members_item(app, room)));
        items.extend(users.iter().map(|user| profile_item(app, user)));
        let mut answers = self.redis.each(&items).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
        let mut entries = Vec::with_capacity(rooms.len());
        for room in rooms {
            let entry = Reply::new(next()?).and_then(|reply| read_entry(room, reply));
            let name = || RoomKeys::new(app, &Enc::stored(room.stored)).meta();
            entries.push(self.faults.at(entry, name)?);
        }
        let prefs = read_prefs(&next()?, &names, many);
        let prefs = self.faults.at(prefs, || keys.prefs())?;
        for (asked, pref) in entries.iter_mut().zip(prefs) {
            if let (Some(asked), Some(pref)) = (asked, pref) {
                asked.entry.pref = pref;
            }
        }
        if let Some(people) = people {
            for room in unknown {
                let members = self.told(app, &room, next()?)?;
                people.lists.insert(room, members);
            }
            for user in users {
                people.profiles.extend(self.profile(app, &user, next())?);
            }
        }
        Ok(entries)
    }

    /// What others see of a user. Who has a profile that can't be read is shown by the id alone: a room is not hidden from all
    /// its members for that.
    fn profile(
        &self,
        app: &AppId,
        user: &Enc,
        answer: Result<Value>,
    ) -> Result<Option<(UserId, Profile)>> {
        let profile = answer.and_then(|answer| read_profile(user, answer));
        let profile = self
            .faults
            .at(profile, || UserKeys::new(app, user).profile());
        match readable(profile)? {
            Some(profile) => Ok(profile),
            None => Ok(user_id(user).map(|user| {
                let profile = Profile {
                    user: user.clone(),
                    nickname: None,
                    avatar_url: None,
                    is_robot: false,
                    last_login_time: 0,
                };
                (user, profile)
            })),
        }
    }

    /// Reads the members that a room told, and remembers them. One whose entry can't be read is not shown, for the same reason;
    /// such a list is not remembered.
    fn told(&self, app: &AppId, room: &Enc, answer: Value) -> Result<Members> {
        let mut reply = Reply::new(answer)?;
        let (born, mrev) = (reply.number()?, reply.text()?);
        let (parted, length) = (names(&reply.text()?), reply.number()?);
        if length > SHOWN_MEMBERS as u64 {
            return Ok(Members::Many);
        }
        let mut entries = Vec::new();
        let mut whole = true;
        while !reply.is_empty() {
            let (user, entry) = (reply.value()?, reply.value()?);
            let entry = member(user, entry);
            match readable(self.faults.at(entry, || RoomKeys::new(app, room).members()))? {
                Some(entry) => entries.push(entry),
                None => whole = false,
            }
        }
        let list = Arc::new(MemberList {
            born,
            mrev,
            parted,
            entries,
        });
        if born != 0 && whole {
            self.lists.remember(app, room, &list);
        }
        Ok(Members::Told(list))
    }

    /// Fills in the members, in the order in which they joined, and sees that all profiles are there.
    async fn with_members(
        &self,
        app: &AppId,
        caller: &UserId,
        page: Vec<Asked>,
        people: &mut People,
    ) -> Result<Vec<RoomEntry>> {
        for room in &page {
            let name = (app.clone(), room.name.clone());
            if !people.lists.contains_key(&room.name)
                && let Some(list) = self.lists.get(&name)
            {
                people.lists.insert(name.1, Members::Kept(list));
            }
        }
        let missing: Vec<&Enc> = page
            .iter()
            .filter(|room| !people.knows(room))
            .map(|room| &room.name)
            .collect();
        let items: Vec<Item> = missing.iter().map(|room| members_item(app, room)).collect();
        let answers = self.redis.batch(&items).await?;
        for (room, answer) in missing.into_iter().zip(answers) {
            let members = self.told(app, room, answer)?;
            people.lists.insert(room.clone(), members);
        }
        let mut entries = Vec::with_capacity(page.len());
        let mut missing: BTreeMap<UserId, Enc> = BTreeMap::new();
        for Asked {
            name, mut entry, ..
        } in page
        {
            entry.members = match people.lists.get(&name) {
                Some(Members::Kept(list) | Members::Told(list)) if is_shown(list) => {
                    let mut members: Vec<(u64, UserId)> = joined(list)
                        .filter_map(|(user, epoch)| Some((epoch, user_id(user)?)))
                        .collect();
                    members.sort();
                    members.into_iter().map(|(_, user)| user).collect()
                }
                _ => vec![caller.clone()],
            };
            let sender = entry.last_message.as_ref().and_then(|m| m.sender.as_ref());
            for user in entry.members.iter().chain(sender) {
                if !people.profiles.contains_key(user) && !missing.contains_key(user) {
                    missing.insert(user.clone(), encode(user.as_str()));
                }
            }
            entries.push(entry);
        }
        let items: Vec<Item> = missing
            .values()
            .map(|user| profile_item(app, user))
            .collect();
        let answers = self.redis.each(&items).await?;
        for (user, answer) in missing.values().zip(answers) {
            people.profiles.extend(self.profile(app, user, answer)?);
        }
        Ok(entries)
    }
}

fn is_shown(list: &MemberList) -> bool {
    list.entries.len() <= SHOWN_MEMBERS
}

/// Who has joined, and when, if that is shown.
fn joined(list: &MemberList) -> impl Iterator<Item = (&Enc, u64)> {
    let entries = list.entries.iter().filter(|_| is_shown(list));
    let joined = entries.filter(|(_, entry)| entry.is_joined(list.born));
    joined.map(|(user, entry)| (user, entry.epoch))
}

/// A member and its entry, as the room has them.
fn member(user: Value, entry: Value) -> Result<(Enc, Entry)> {
    let user = crate::engine::reply::text(user)?;
    if !is_encoded(&user) {
        return Err(unreadable());
    }
    let entry = Entry::parse(&crate::engine::reply::text(entry)?)?;
    Ok((Enc::stored(user), entry))
}

fn user_id(user: &Enc) -> Option<UserId> {
    UserId::parse(decode(user.as_str())).ok()
}

fn members_item(app: &AppId, room: &Enc) -> Item {
    let keys = RoomKeys::new(app, room);
    let call = scripts::ROOM_MEMBERS.call(&[keys.meta(), keys.members()]);
    Item::Script(call.arg(SHOWN_MEMBERS))
}

fn profile_item(app: &AppId, user: &Enc) -> Item {
    let mut get = redis::cmd("HMGET");
    get.arg(UserKeys::new(app, user).profile())
        .arg("nickname")
        .arg("avatar_url")
        .arg("is_robot")
        .arg("last_login_time");
    Item::Plain(get)
}

fn read_profile(user: &Enc, answer: Value) -> Result<Option<(UserId, Profile)>> {
    let mut reply = Reply::new(answer)?;
    let Some(user) = user_id(user) else {
        return Ok(None);
    };
    let profile = Profile {
        user: user.clone(),
        nickname: maybe_text(reply.value()?)?,
        avatar_url: maybe_text(reply.value()?)?,
        is_robot: reply.number()? == 1,
        last_login_time: i64::try_from(reply.number()?).unwrap_or(0),
    };
    Ok(Some((user, profile)))
}

/// The fields of a room's meta that are shown, in the order in which [`read_entry`] reads them.
const SHOWN: [&str; 19] = [
    "born",
    "mrev",
    "name",
    "cover",
    "description",
    "webhook",
    "bot_state",
    "bot_mode",
    "encrypted",
    "service_status",
    "created",
    "last_id",
    "last_sender",
    "last_text",
    "last_type",
    "last_payload",
    "last_time",
    "last_at",
    "last_updated",
];

/// A number; without a text, 0.
fn or_nothing<T: Stored + Default>(text: &str) -> Result<T> {
    match text {
        "" => Ok(T::default()),
        text => parse(Some(text)),
    }
}

fn read_entry(brief: &RoomBrief<'_>, mut reply: Reply) -> Result<Option<Asked>> {
    let born = reply.value()?;
    let mrev = maybe_text(reply.value()?)?.unwrap_or_default();
    // Deleted: of such a room there is none of these fields.
    if matches!(born, Value::Nil) {
        return match mrev.is_empty() && reply.is_nothing() {
            true => Ok(None),
            false => Err(unreadable()),
        };
    }
    // Or made again since this membership: the telling of that is on the way, and the room's new name, text and members are
    // none of this user's business.
    let born = stored(&born)?;
    if brief.epoch < born {
        return Ok(None);
    }
    let mut next = || -> Result<String> { Ok(maybe_text(reply.value()?)?.unwrap_or_default()) };
    let Ok(room) = RoomId::parse(brief.room()) else {
        return Err(Error::unreadable("a room without a legal name"));
    };
    let (name, cover, description, webhook) = (next()?, next()?, next()?, next()?);
    let (bot_state, bot_mode, encrypted) = (next()?, next()? == "1", next()? == "1");
    let service_status = match next()?.as_str() {
        "" => 0,
        text => text.parse().map_err(|_| unreadable())?,
    };
    let created = or_nothing(&next()?)?;
    let last_id = next()?;
    let (sender, text, message_type) = (next()?, next()?, next()?);
    let payload = match next()?.as_str() {
        "" => Map::new(),
        json => serde_json::from_str(json)
            .map_err(|_| Error::unreadable("a payload that is no JSON object"))?,
    };
    let (time, at, updated) = (next()?, next()?, next()?);
    let last = Last::stored(&at, &time)?;
    let updated: u64 = or_nothing(&updated)?;
    let last_message = (!last_id.is_empty()).then(|| LastMessage {
        id: decode(&last_id),
        sender: UserId::parse(decode(&sender)).ok(),
        text,
        message_type,
        payload,
        time: last.map_or(0, |last| last.time),
        updated: millis(updated),
        order: last.map_or(0, |last| last.at),
    });
    let custom_type = decode(brief.custom_type);
    let entry = RoomEntry {
        room,
        kind: brief.kind,
        name,
        cover,
        description,
        webhook,
        bot_state,
        bot_mode,
        encrypted,
        service_status,
        tags: brief.tags().filter_map(|t| Tag::parse(t).ok()).collect(),
        custom_type: CustomType::parse(custom_type).ok(),
        created,
        last_message,
        unread: brief.unread,
        pref: Pref::default(),
        members: Vec::new(),
    };
    let name = Enc::stored(brief.stored);
    Ok(Some(Asked {
        name,
        entry,
        born,
        mrev,
    }))
}

#[cfg(test)]
impl RoomQuery<'_> {
    /// For the tests of who asks: how many of these rooms match, and the ids of the page.
    pub(crate) fn choose(&self, rooms: &[RoomEntry]) -> (u64, Vec<String>) {
        let stored: Vec<(Enc, String)> = rooms
            .iter()
            .map(|room| {
                let tags: Vec<Enc> = room.tags.iter().map(|t| encode(t.as_str())).collect();
                let tags: Vec<&str> = tags.iter().map(Enc::as_str).collect();
                (encode(room.room.as_str()), tags.join(","))
            })
            .collect();
        let mut found: Vec<RoomBrief> = Vec::new();
        for (room, (name, tags)) in rooms.iter().zip(&stored) {
            let last = room.last_message.as_ref();
            let brief = RoomBrief {
                stored: name.as_str(),
                epoch: 0,
                kind: room.kind,
                tags,
                custom_type: "",
                created: room.created,
                last: last.map(|last| Last {
                    time: last.time,
                    at: last.order,
                    newest: last.order,
                }),
                unread: room.unread,
                flags: "",
            };
            let by_pref = self.by_pref.as_ref();
            if (self.matches)(&brief) && by_pref.is_none_or(|by| (by.matches)(&room.pref)) {
                found.push(brief);
            }
        }
        let mut order: Vec<usize> = (0..found.len()).collect();
        let (page, around) = self.arrange(&found, &mut order);
        assert_eq!(page, around);
        let ids = order[page].iter().map(|at| found[*at].room().into_owned());
        (order.len() as u64, ids.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_stands() {
        let record = "j|hoebfz46s0|2bc|2|9|1|0|d|1|t%2C|a%20b,c|bob|-3|3000,7";
        let room = RoomBrief::read("r%2F1", record).unwrap().unwrap();
        assert_eq!(room.room(), "r/1");
        assert_eq!((room.kind(), room.unread), (Kind::Direct, 6));
        assert_eq!(room.tags().collect::<Vec<_>>(), ["a b", "c"]);
        assert_eq!(room.created(), 1_795_347_910_016);
        let last = Last {
            time: 1_795_347_910_026,
            at: 1_795_347_910_019_664,
            newest: 1_795_347_910_019_664,
        };
        assert_eq!(room.last, Some(last));
        for left_out in ["i|5|9|1|3|0|0|d|1|||bob|0|", "j|5|9|1|3|0|0|d|0|||bob|0|"] {
            assert!(RoomBrief::read("r", left_out).unwrap().is_none());
        }
        let quiet = RoomBrief::read("r", "j|5|9|1|3|0|0|g|1||||0|")
            .unwrap()
            .unwrap();
        assert_eq!((quiet.last, quiet.tags().count()), (None, 0));
        for bad in [
            "j|5|9|1|3|0|0|g|1||||0",
            "j|5|9|1|3|0|0|g|1||||x|",
            "j|5|9|1|3|0|0|g|1||||0|1",
            "j|5|-9|1|3|0|0|g|1||||0|",
            "j|5||1|3|0|0|g|1||||0|",
            "j|5|1234567890123|1|3|0|0|g|1||||0|",
            "j|5|9|12345678901234567890|3|0|0|g|1||||0|",
            "j|x",
            "",
        ] {
            assert!(RoomBrief::read("r", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_are_read_one_by_one_or_all_at_once() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let rooms = ["a%7C", "b", "c"];
        let all = [
            ("c|hidden", "7|false"),
            ("a%7C|hidden", "6|true"),
            ("a%7C|folder", "5|\"x|y\""),
        ];
        let named = rooms.iter().flat_map(|room| {
            let field = move |setting| format!("{room}|{setting}");
            SETTINGS.map(|setting| {
                let found = all.iter().find(|(name, _)| *name == field(setting));
                found.map_or(Value::Nil, |(_, value)| bulk(value))
            })
        });
        let one = read_prefs(&Value::Array(named.collect()), &rooms, false).unwrap();
        let texts = all.iter().flat_map(|(field, value)| [field, value]);
        let texts = texts.map(|text| format!("${}\r\n{text}\r\n", text.len()));
        let all = bulk(&format!("*6\r\n{}", texts.collect::<String>()));
        let two = read_prefs(&all, &rooms, true).unwrap();
        assert_eq!(one, two);
        let [Some(a), None, Some(c)] = two.as_slice() else {
            panic!("{two:?}");
        };
        assert_eq!((a.folder.as_str(), a.hidden), ("x|y", true));
        assert_eq!(*c, Pref::default());
        let folders = all_prefs(&all, &["folder"]).unwrap();
        assert_eq!(folders.len(), 1);
        assert!(!folders["a%7C"].hidden);
        assert!(read_prefs(&Value::Nil, &rooms, false).is_err());
        assert!(read_prefs(&Value::Nil, &rooms, true).is_err());
    }

    /// Rooms of few different values, so that many are alike; names and the like are the room's own.
    fn rooms() -> (Vec<RoomBrief<'static>>, Vec<(&'static str, i64)>) {
        const NAMES: [&str; 5] = ["a", "b%20", "b", "%7Ec", "d"];
        let brief = |n: usize| RoomBrief {
            stored: format!("{}{}", NAMES[n % 5], (n * 37) % 101).leak(),
            epoch: 0,
            kind: [Kind::Direct, Kind::Group, Kind::Supergroup][n % 3],
            tags: "",
            custom_type: "",
            created: (n % 7) as i64,
            last: (!n.is_multiple_of(5)).then_some(Last {
                time: (n % 4) as i64,
                at: (n % 2) as u64,
                newest: n as u64,
            }),
            unread: (n % 3) as u64,
            flags: "",
        };
        let remote = |n: usize| (["x", "", "y", "z"][n * 7 % 4], (n % 2) as i64);
        ((0..60).map(brief).collect(), (0..60).map(remote).collect())
    }

    #[test]
    fn a_page_is_what_the_whole_order_has_in_its_place() {
        use SortBy::{Created, Direct, Id, LastMessage, Name, ServiceStatus, Unread};
        let (found, remote) = rooms();
        let facts = |at: usize| Facts {
            name: remote[at].0,
            service_status: remote[at].1,
            ..found[at].facts()
        };
        let sorts: &[&[(SortBy, bool)]] = &[
            &[],
            &[(LastMessage, true), (Created, true)],
            &[(Unread, true), (Direct, false)],
            &[(Name, false)],
            &[(LastMessage, true), (Name, false), (Id, true)],
            &[
                (Created, false),
                (ServiceStatus, true),
                (LastMessage, false),
            ],
            &[(Id, true), (Name, false)],
        ];
        for sort in sorts {
            for (skip, limit) in [
                (0, 0),
                (0, 1),
                (0, 9),
                (7, 9),
                (20, 20),
                (58, 9),
                (59, 1),
                (60, 3),
                (99, 0),
            ] {
                for unread_first in [false, true] {
                    let query = RoomQuery {
                        matches: &|_| true,
                        by_pref: None,
                        sort,
                        unread_first,
                        skip,
                        limit,
                    };
                    let mut all: Vec<usize> = (0..60).collect();
                    all.sort_by(|a, b| query.compare_all(&facts(*a), &facts(*b)));
                    let limit = if limit == 0 { 60 } else { limit };
                    let wanted: Vec<usize> = all.iter().copied().skip(skip).take(limit).collect();

                    let mut order: Vec<usize> = (0..60).rev().collect();
                    let (page, around) = query.arrange(&found, &mut order);
                    let mut near = order[around.clone()].to_vec();
                    let remote = sort.iter().any(|(by, _)| by.is_remote());
                    assert!(remote || page == around);
                    if remote {
                        near.sort_by(|a, b| query.compare_all(&facts(*a), &facts(*b)));
                    }
                    let cut = &near[page.start - around.start..page.end - around.start];
                    assert_eq!(cut, wanted, "{sort:?} {skip} {limit} {unread_first}");
                }
            }
        }
        // No more rooms are asked than are in question.
        let query = RoomQuery {
            matches: &|_| true,
            by_pref: None,
            sort: &[(Created, false), (Name, false)],
            unread_first: false,
            skip: 20,
            limit: 3,
        };
        let mut order: Vec<usize> = (0..60).collect();
        let (page, around) = query.arrange(&found, &mut order);
        assert_eq!((page, around), (20..23, 18..27));
    }
}
