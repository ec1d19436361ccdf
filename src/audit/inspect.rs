//! Shows people one user or one room as it stands in Redis. Names are shown as they stand in keys and fields.

use std::collections::BTreeMap;

use redis::Value;

use crate::audit::Audit;
use crate::audit::record::AuditRecord;
use crate::audit::slot::text_or_escaped;
use crate::audit::unreadable::UnreadableData;
use crate::connection::Item;
use crate::counts::CountPref;
use crate::counts::record::Reset;
use crate::counts::room::Membership;
use crate::engine::reply::{Reply, bytes, number, readable};
use crate::engine::{Supergroup, SupergroupReply};
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, UserKeys, is_encoded};
use crate::names::AppId;

/// The fields of a room's meta to show: not the text of the last message, nor what apps only display.
const META: [&str; 14] = [
    "rev",
    "born",
    "mrev",
    "head",
    "kind",
    "status",
    "type",
    "tags",
    "created",
    "parted",
    "cleared",
    "last_id",
    "last_time",
    "last_at",
];

/// How many findings that can't be read are named for one user or room.
const UNREADABLE: usize = 20;

/// What to show; `None`: there is nothing of that name.
pub(crate) type Shown<T> = Option<T>;

/// One room among a user's.
#[derive(Debug, Clone)]
pub(crate) struct ListedRoom {
    /// The room.
    pub room: String,
    /// `j` joined or `i` invited.
    pub state: char,
    /// The stamp at which the membership began.
    pub epoch: u64,
    /// The revision of the room that was delivered last.
    pub rev: u64,
    /// The read position, below 0 where another system knows of more messages than the room.
    pub read: i64,
    /// The revision of the last reset of the read position.
    pub reset: Option<u64>,
    /// The head that was delivered last; of a supergroup: the room's.
    pub head: u64,
    /// How many positions above `read` don't count.
    pub holes: u64,
    /// Unread mentions.
    pub mentions: u64,
    /// `direct`, `group`, `supergroup`.
    pub kind: String,
    /// 1 active, 0 inactive.
    pub status: String,
    /// Custom type.
    pub custom_type: String,
    /// Tags, a comma list.
    pub tags: String,
    /// The peer in a direct room.
    pub peer: String,
    /// Unread messages.
    pub unread: u64,
    /// What the room adds to the user's sums.
    pub count: CountPref,
    /// Creation of the room, milliseconds since the Unix epoch.
    pub created: i64,
    /// When its last message was accepted (microseconds), and that message's time (milliseconds).
    pub last: Option<(u64, i64)>,
    /// The user's preferences of it, each with its value as JSON.
    pub preferences: Vec<(String, String)>,
}

/// A user's slot.
#[derive(Debug, Clone)]
pub(crate) struct UserShown {
    /// Plain counts and since when the user is known.
    pub counts: BTreeMap<String, String>,
    /// How many rooms carry a tag or type; direct rooms by peer.
    pub refs: BTreeMap<String, String>,
    /// Direct rooms and groups.
    pub rooms: Vec<ListedRoom>,
    /// Supergroups.
    pub supers: Vec<ListedRoom>,
    /// Tombstones: room → epoch and microseconds.
    pub left: BTreeMap<String, String>,
    /// How many holes and mentions there are.
    pub marks: usize,
    /// How many fields the preferences of all rooms take.
    pub preferences: usize,
    /// Whether the user was deleted and still has to leave rooms.
    pub leaving: bool,
    /// What can't be read of it.
    pub unreadable: Vec<UnreadableData>,
}

/// One member.
#[derive(Debug, Clone)]
pub(crate) struct MemberShown {
    /// The user.
    pub user: String,
    /// `j` joined, `i` invited, `l` left.
    pub state: char,
    /// The stamp at which that began.
    pub epoch: u64,
    /// The base of the membership.
    pub base: u64,
    /// What the user's slot holds of the room: the read position, and (not of a supergroup) the unread messages.
    pub read: Option<(i64, Option<u64>)>,
}

/// A room's slot.
#[derive(Debug, Clone)]
pub(crate) struct RoomShown {
    /// Its details and numbers.
    pub meta: BTreeMap<&'static str, String>,
    /// How many entries of members there are.
    pub members: u64,
    /// The first of them.
    pub first: Vec<MemberShown>,
    /// How many jobs have not reached their whole audience.
    pub pending: u64,
    /// The first of them: stamp and record.
    pub jobs: Vec<(String, String)>,
    /// Messages in the history.
    pub history: u64,
    /// Recalled positions.
    pub recalled: u64,
    /// What can't be read of it: the first findings.
    pub unreadable: Vec<UnreadableData>,
    /// How many findings there are in all.
    pub unreadable_total: u64,
}

impl Audit {
    /// A user's slot; `None` if it is empty.
    pub(crate) async fn inspect_user(&self, app: &AppId, user: &Enc) -> Result<Shown<UserShown>> {
        let mut slot = self.slot(app, user).await?;
        // These fields belong to no room: when tombstones were swept, the token of a seal, and a deletion.
        slot.left
            .retain(|room, _| !matches!(room.as_str(), "#" | "!" | "~"));
        let nothing =
            slot.counts.is_empty() && slot.recorded_rooms().is_empty() && slot.left.is_empty();
        if nothing && slot.bad.is_empty() {
            return Ok(None);
        }
        let keys = UserKeys::new(app, user);
        let mut unreadable = Vec::new();
        for bad in slot.bad.iter().take(UNREADABLE) {
            let shown = self.describe(keys.key(bad.what).as_bytes(), bad).await?;
            unreadable.push(shown);
        }
        let (mut rooms, mut supers) = (Vec::new(), Vec::new());
        let mut asked = Vec::new();
        for room in slot.recorded_rooms() {
            let Some(record) = slot.record_of(room.as_str()) else {
                continue;
            };
            let shown = listed(room.as_str(), &record, slot.preferences_of(room.as_str()));
            if record.head.is_some() {
                rooms.push(shown);
                continue;
            }
            let marked = |letter| slot.marked(room.as_str(), letter);
            let supergroup = Supergroup {
                state: record.state,
                epoch: record.epoch,
                read: record.read.to_string(),
                holes: marked('h'),
                mentions: marked('m'),
                unset: marked('x'),
                edits: match record.flags.contains('e') {
                    true => slot.edited(room.as_str()),
                    false => String::new(),
                },
                reset: record.reset.map(|reset| Reset {
                    stamp: reset.rev,
                    unknown: reset.unknown,
                }),
                count: CountPref::default(),
                room,
            };
            asked.push(supergroup.unread_item(app, user));
            supers.push(shown);
        }
        let mut answers = self.redis.send_each(&asked).await?.into_iter();
        for room in &mut supers {
            let Some(numbers) = answers.next() else {
                break;
            };
            let shown = numbers.and_then(|numbers| ask_room(room, numbers));
            if readable(shown)?.is_none() {
                let list = self
                    .check_room(app, &Enc::stored(room.room.as_str()))
                    .await?;
                let keys = RoomKeys::new(app, &Enc::stored(room.room.as_str()));
                for bad in list.bad.iter().take(UNREADABLE) {
                    let shown = self.describe(keys.key(bad.what).as_bytes(), bad).await?;
                    unreadable.push(shown);
                }
            }
        }
        Ok(Some(UserShown {
            counts: slot.counts,
            refs: slot.refs,
            rooms,
            supers,
            left: slot.left,
            marks: slot.marks.len(),
            preferences: slot.prefs.len(),
            leaving: slot.leaving,
            unreadable,
        }))
    }

    /// A room's slot with its first `most` members; `None` if it is empty.
    pub(crate) async fn inspect_room(
        &self,
        app: &AppId,
        room: &Enc,
        most: usize,
    ) -> Result<Shown<RoomShown>> {
        let keys = RoomKeys::new(app, room);
        let items = room_commands(&keys, most).map(Item::Plain);
        let mut answers = self.redis.send_each(&items).await?.into_iter();
        let mut next = || readable(answers.next().unwrap_or(Ok(Value::Nil)));
        let meta = read_meta(next()?)?;
        let counted = |answer: Option<Value>| answer.map_or(Ok(0), |answer| number(&answer));
        let members = counted(next()?)?;
        let first = first_pairs(next()?, most)?;
        // Entries and jobs that can't be read are among the findings instead.
        let first = first.into_iter().filter_map(|(user, entry)| {
            let entry = Membership::parse(&entry)
                .ok()
                .filter(|_| is_encoded(&user))?;
            Some(MemberShown {
                user,
                state: entry.state,
                epoch: entry.epoch,
                base: entry.base,
                read: None,
            })
        });
        let mut first: Vec<MemberShown> = first.collect();
        self.add_reads(app, room, &mut first).await?;
        let pending = counted(next()?)?;
        let mut jobs = first_pairs(next()?, most)?;
        jobs.retain(|(job, _)| job.bytes().all(|byte| byte.is_ascii_digit()));
        let (history, recalled) = (counted(next()?)?, counted(next()?)?);
        let list = self.check_room(app, room).await?;
        let mut unreadable = Vec::new();
        for bad in list.bad.iter().take(UNREADABLE) {
            unreadable.push(self.describe(keys.key(bad.what).as_bytes(), bad).await?);
        }
        let shown = RoomShown {
            meta,
            members,
            first,
            pending,
            jobs,
            history,
            recalled,
            unreadable,
            unreadable_total: list.total,
        };
        let nothing = shown.meta.is_empty() && shown.members == 0 && shown.pending == 0;
        Ok((!nothing || list.total > 0).then_some(shown))
    }
}

impl Audit {
    /// Adds to members of a room how far each has read. Of a member whose record can't be read nothing is added.
    async fn add_reads(&self, app: &AppId, room: &Enc, members: &mut [MemberShown]) -> Result<()> {
        let get = |key: String| {
            let mut get = redis::cmd("HGET");
            get.arg(key).arg(room.as_str());
            Item::Plain(get)
        };
        let items: Vec<Item> = members
            .iter()
            .flat_map(|member| {
                let keys = UserKeys::new(app, &Enc::stored(member.user.as_str()));
                [get(keys.rooms()), get(keys.supers())]
            })
            .collect();
        let mut answers = self.redis.send_each(&items).await?.into_iter();
        for member in members {
            let mut record = || -> Result<Option<String>> {
                let answer = readable(answers.next().unwrap_or(Ok(Value::Nil)))?;
                match answer {
                    None | Some(Value::Nil) => Ok(None),
                    Some(value) => Ok(Some(text_or_escaped(&bytes(value)?))),
                }
            };
            let (kept, counted) = (record()?, record()?);
            let kept = kept.and_then(|record| AuditRecord::of_room(&record).ok());
            let counted = counted.and_then(|record| AuditRecord::of_supergroup(&record).ok());
            let of_this = |record: &AuditRecord| record.epoch == member.epoch;
            member.read = match (kept.filter(of_this), counted.filter(of_this)) {
                (Some(record), _) => Some((record.read, Some(record.unread()))),
                (None, Some(record)) => Some((record.read, None)),
                (None, None) => None,
            };
        }
        Ok(())
    }
}

/// What a room's slot is asked for, in the order in which [`Audit::inspect_room`] reads the answers.
fn room_commands(keys: &RoomKeys, most: usize) -> [redis::Cmd; 7] {
    let command = |name: &str, key: String| {
        let mut cmd = redis::cmd(name);
        cmd.arg(key);
        cmd
    };
    let mut meta = command("HMGET", keys.meta());
    meta.arg(&META);
    let mut members = command("HSCAN", keys.members());
    members.arg(0).arg("COUNT").arg(most);
    let mut jobs = command("HSCAN", keys.pending());
    jobs.arg(0).arg("COUNT").arg(most);
    [
        meta,
        command("HLEN", keys.members()),
        members,
        command("HLEN", keys.pending()),
        jobs,
        command("LLEN", keys.log()),
        command("ZCARD", keys.recalled()),
    ]
}

/// The fields of a room's `meta` that are there. `None`: the key can't be read.
fn read_meta(answer: Option<Value>) -> Result<BTreeMap<&'static str, String>> {
    let mut meta = BTreeMap::new();
    let Some(fields) = answer else {
        return Ok(meta);
    };
    let mut reply = Reply::new(fields)?;
    for field in META {
        match reply.value()? {
            Value::Nil => {}
            value => {
                meta.insert(field, text_or_escaped(&bytes(value)?));
            }
        }
    }
    Ok(meta)
}

/// The first `most` fields of a page of a hash, with their values. `None`: the key can't be read.
fn first_pairs(answer: Option<Value>, most: usize) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let Some(answer) = answer else {
        return Ok(pairs);
    };
    let mut page = Reply::new(answer)?;
    page.value()?;
    let mut list = page.list()?;
    while !list.is_empty() && pairs.len() < most {
        let (field, value) = (bytes(list.value()?)?, bytes(list.value()?)?);
        pairs.push((text_or_escaped(&field), text_or_escaped(&value)));
    }
    Ok(pairs)
}

/// Fills in what only the room knows of a supergroup.
fn ask_room(room: &mut ListedRoom, reply: Value) -> Result<()> {
    let Some(mut answer) = SupergroupReply::of_one(reply)? else {
        return Ok(());
    };
    room.head = answer.head;
    // The room may be gone for the user.
    let Some(counted) = answer.user()? else {
        return Ok(());
    };
    room.kind = answer.kind.as_str().to_owned();
    room.status = u8::from(answer.active).to_string();
    room.created = answer.created;
    room.last = answer.last.map(|last| (last.at, last.time));
    (room.custom_type, room.tags) = (answer.custom_type, answer.tags);
    (room.unread, room.mentions) = (counted.unread, counted.mentions);
    Ok(())
}

fn listed(room: &str, record: &AuditRecord, preferences: Vec<(String, String)>) -> ListedRoom {
    ListedRoom {
        room: room.to_owned(),
        state: record.state,
        epoch: record.epoch,
        rev: record.rev,
        read: record.read,
        reset: record.reset.map(|reset| reset.rev),
        head: record.head.unwrap_or(0),
        holes: record.holes,
        mentions: record.mentions,
        kind: record.kind.clone(),
        status: record.status.clone(),
        custom_type: record.custom_type.clone(),
        tags: record.tags.clone(),
        peer: record.peer.clone(),
        unread: record.unread(),
        count: CountPref::at_end(&record.flags).1,
        created: record.created(),
        last: record.last.map(|last| (last.at, last.time)),
        preferences,
    }
}
