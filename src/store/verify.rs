//! The self-check: each user's plain counts against the positions they follow from, and each position against its room.
//! Writes nothing, holds one page of keys at a time, and can run beside live traffic.
//!
//! What is in a user's slot is read at one instant, so a difference inside it is one. Between a user and a room there is
//! no such instant. But whatever a room accepted is pending there until every user concerned has it. So: look at the
//! room, wait until what was pending then is done, look at the user: the user now has all that the room had at the
//! first look, or it is missing. A user may be *ahead* of that look, by what came after it; a third look, at the room
//! again, tells whether it is ahead of its room, which can't be.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Store;
use super::reply::{Reply, maybe_text, number, parse, short, text, unreadable};
use super::room::{Entry, Last, Snapshot};
use super::slot::Slot;
use crate::connection::{Item, Server};
use crate::error::Result;
use crate::keys::{self, Enc, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts;

/// Users looked at side by side.
const USERS_AT_ONCE: usize = 16;
/// Keys in one page of a scan, and members in one page of a room.
const PAGE: usize = 1_000;
/// Pauses between the looks at a user that differs.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(0),
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(1_000),
];
/// Fields that were told of and are not told of again, should a scan or a room lead to them a second time.
const TOLD: usize = 100_000;

/// Something stored that is not what the positions, or the room, say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Which of the user's keys: `counts`, `rooms`, `supers`, `refs`, `marks`.
    pub key: &'static str,
    /// The field of that key, as it stands in Redis.
    pub field: String,
    /// The part of a record that differs from the room, such as `head`.
    pub part: Option<&'static str>,
    /// What is there.
    pub stored: Option<String>,
    /// What ought to be there.
    pub expected: Option<String>,
}

/// All drift of one user.
#[derive(Debug, Clone)]
pub struct UserDrift {
    /// The app.
    pub app: AppId,
    /// The user, as it stands in keys.
    pub user: Enc,
    /// What differs.
    pub drift: Vec<Drift>,
    /// Whether the user was told of before, by other fields.
    pub again: bool,
    /// The rooms that its records differ from.
    pub(super) rooms: BTreeSet<Enc>,
}

/// Whom to look at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// One app; none: all that are in Redis.
    pub app: Option<AppId>,
    /// One user of that app.
    pub user: Option<Enc>,
}

/// How far a walk has come.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Part of the keys seen, 0 to 1.
    pub fraction: f64,
    /// Users looked at.
    pub users: u64,
    /// Memberships looked at from the rooms' side.
    pub members: u64,
    /// Users whose records differ from a room in which fan-outs stayed under way: not judged.
    pub in_flight: u64,
}

/// What a look at one user came to.
pub(super) enum Verdict {
    Clean,
    InFlight,
    Drift(UserDrift),
}

/// A room, and one user's place in it.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) snapshot: Snapshot,
    pub(super) entry: Option<Entry>,
    pub(super) peer: String,
    pub(super) recalled: Vec<u64>,
    pub(super) jobs: BTreeSet<String>,
}

impl View {
    fn read(mut reply: Reply) -> Result<Self> {
        let snapshot = Snapshot::read(&mut reply)?;
        let entry = reply.text()?;
        let peer = reply.text()?;
        let recalled = reply.text()?;
        let mut list = reply.list()?;
        let mut jobs = BTreeSet::new();
        while !list.is_empty() {
            jobs.insert(text(list.value()?)?);
        }
        Ok(Self {
            snapshot,
            entry: (!entry.is_empty())
                .then(|| Entry::parse(&entry))
                .transpose()?,
            peer,
            recalled: recalled
                .split(',')
                .filter(|n| !n.is_empty())
                .map(|n| parse(Some(n)))
                .collect::<Result<_>>()?,
            jobs,
        })
    }

    /// The membership, if there is one of the room as it is now.
    pub(super) fn member(&self) -> Option<Entry> {
        self.entry
            .filter(|entry| entry.is_member(self.snapshot.born))
    }
}

fn differs(
    key: &'static str,
    room: &str,
    part: &'static str,
    stored: impl ToString,
    expected: impl ToString,
) -> Drift {
    Drift {
        key,
        field: room.to_owned(),
        part: Some(part),
        stored: Some(stored.to_string()),
        expected: Some(expected.to_string()),
    }
}

/// What a user's slot says otherwise than the room. `first` was seen before the slot, and what was pending in it has
/// reached everybody before the slot was seen; `last` was seen after the slot.
pub(super) fn against_room(slot: &Slot, room: &str, first: &View, last: &View) -> Vec<Drift> {
    let key = if slot.supers.contains_key(room) {
        "supers"
    } else {
        "rooms"
    };
    let Some(position) = slot.position(room) else {
        let (Some(before), Some(after)) = (first.member(), last.member()) else {
            return Vec::new();
        };
        // A user that was deleted still has to leave the rooms that list it.
        if before.epoch != after.epoch || slot.leaving {
            return Vec::new();
        }
        let key = if last.snapshot.kind == "supergroup" {
            "supers"
        } else {
            "rooms"
        };
        let expected = format!("{} since {}", after.state, after.epoch);
        return vec![Drift {
            key,
            field: room.to_owned(),
            part: Some("record"),
            stored: None,
            expected: Some(expected),
        }];
    };
    let gone = |stored: u64| {
        vec![Drift {
            key,
            field: room.to_owned(),
            part: Some("record"),
            stored: Some(format!("{} since {stored}", position.state)),
            expected: None,
        }]
    };
    // Nothing at all is left of a room only a day after its deletion.
    if last.snapshot.rev == 0 {
        return gone(position.epoch);
    }
    let mut drift = Vec::new();
    if position.rev > last.snapshot.rev {
        drift.push(differs(key, room, "rev", position.rev, last.snapshot.rev));
    }
    if let Some(entry) = last.member()
        && entry.epoch == position.epoch
    {
        let (part, top) = match position.head {
            Some(head) => ("head", head),
            None => ("read", position.read),
        };
        if top > last.snapshot.head {
            drift.push(differs(key, room, part, top, last.snapshot.head));
        }
    }
    // A membership that began after the first look says nothing about it.
    if position.epoch > first.snapshot.rev {
        return drift;
    }
    let Some(entry) = first.member() else {
        return gone(position.epoch);
    };
    if entry.epoch != position.epoch {
        drift.push(differs(key, room, "epoch", position.epoch, entry.epoch));
        return drift;
    }
    if entry.state != position.state {
        drift.push(differs(key, room, "state", position.state, entry.state));
    }
    let room_now = &first.snapshot;
    if let Some(head) = position.head
        && room_now.kind != "supergroup"
    {
        if head < room_now.head {
            drift.push(differs(key, room, "head", head, room_now.head));
        }
        if position.state == 'j' {
            let missing: Vec<String> = first
                .recalled
                .iter()
                .filter(|at| **at > position.read && !slot.has_hole(room, **at))
                .map(u64::to_string)
                .collect();
            if !missing.is_empty() {
                drift.push(Drift {
                    key: "marks",
                    field: room.to_owned(),
                    part: Some("recalled"),
                    stored: None,
                    expected: Some(missing.join(",")),
                });
            }
        }
    }
    // Settings seen after the first look are newer than it.
    if position.rev <= room_now.rev {
        let mut settings = vec![("kind", &position.kind, &room_now.kind)];
        if position.head.is_some() {
            settings.extend([
                ("status", &position.status, &room_now.status),
                ("type", &position.custom_type, &room_now.custom_type),
                ("tags", &position.tags, &room_now.tags),
                ("peer", &position.peer, &first.peer),
            ]);
        }
        for (part, stored, expected) in settings {
            if stored != expected {
                drift.push(differs(key, room, part, stored, expected));
            }
        }
        let created = i64::try_from(room_now.created).unwrap_or(i64::MAX);
        if position.head.is_some() && position.created() != created {
            drift.push(differs(key, room, "created", position.created(), created));
        }
        if position.head.is_some() && position.last != room_now.last {
            let shown = |last: Option<Last>| match last {
                Some(Last { time, at }) => format!("{at} of {time}"),
                None => "none".to_owned(),
            };
            let (stored, expected) = (shown(position.last), shown(room_now.last));
            drift.push(differs(key, room, "last", stored, expected));
        }
    }
    drift
}

/// Drift that was told of.
#[derive(Default)]
struct Told {
    users: HashSet<(AppId, Enc)>,
    fields: HashSet<(AppId, Enc, &'static str, String)>,
}

impl Told {
    /// Leaves what is new; answers whether anything is.
    fn keep_new(&mut self, found: &mut UserDrift) -> bool {
        let (app, user) = (&found.app, &found.user);
        found.drift.retain(|drift| {
            let name = (app.clone(), user.clone(), drift.key, drift.field.clone());
            !self.fields.contains(&name) && (self.fields.len() >= TOLD || self.fields.insert(name))
        });
        if found.drift.is_empty() {
            return false;
        }
        let name = (app.clone(), user.clone());
        found.again =
            self.users.contains(&name) || (self.users.len() < TOLD && !self.users.insert(name));
        true
    }
}

/// What a page of keys holds that is worth a look.
#[derive(Default)]
struct Met {
    users: BTreeSet<(AppId, Enc)>,
    rooms: BTreeSet<(AppId, Enc)>,
}

impl Store {
    pub(super) async fn slot(&self, app: &AppId, user: &Enc) -> Result<Slot> {
        let keys = UserKeys::new(app, user);
        let call = scripts::USER_DUMP.call(&[
            keys.counts(),
            keys.rooms(),
            keys.supers(),
            keys.refs(),
            keys.marks(),
            keys.left(),
            keys.profile(),
            keys.pending(),
            keys.prefs(),
        ]);
        Slot::read(Reply::new(self.inner.redis.call(&call).await?)?)
    }

    /// Looks at rooms on behalf of one user.
    pub(super) async fn views(
        &self,
        app: &AppId,
        user: &Enc,
        rooms: &BTreeSet<Enc>,
        slot: &Slot,
    ) -> Result<BTreeMap<Enc, View>> {
        let items: Vec<Item> = rooms
            .iter()
            .map(|room| {
                let keys = RoomKeys::new(app, room);
                let read = slot.position(room.as_str()).map_or(0, |p| p.read);
                let call = scripts::ROOM_VIEW.call(&[
                    keys.meta(),
                    keys.members(),
                    keys.recalled(),
                    keys.pending(),
                ]);
                Item::Script(call.arg(user.as_str()).arg(read))
            })
            .collect();
        let answers = self.inner.redis.batch(&items).await?;
        rooms
            .iter()
            .zip(answers)
            .map(|(room, answer)| Ok((room.clone(), View::read(Reply::new(answer)?)?)))
            .collect()
    }

    /// Looks at one user, and again a few times if it differs. `also`: rooms that list it.
    pub(super) async fn look(
        &self,
        app: &AppId,
        user: &Enc,
        also: &BTreeSet<Enc>,
    ) -> Result<Verdict> {
        let mut slot = self.slot(app, user).await?;
        let mut rooms: BTreeSet<Enc> = slot.named().union(also).cloned().collect();
        let first = self.views(app, user, &rooms, &slot).await?;
        rooms.retain(|room| {
            first
                .get(room)
                .is_some_and(|view| !against_room(&slot, room.as_str(), view, view).is_empty())
        });
        if rooms.is_empty() && slot.drift().is_empty() {
            return Ok(Verdict::Clean);
        }
        let mut last = first.clone();
        let mut settled: BTreeSet<Enc> = BTreeSet::new();
        let mut seen: Option<UserDrift> = None;
        let mut in_flight = false;
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            // What was pending at the first look has reached everybody, if it was not pending at a later one.
            for room in &rooms {
                if let (Some(first), Some(last)) = (first.get(room), last.get(room))
                    && first.jobs.is_disjoint(&last.jobs)
                {
                    settled.insert(room.clone());
                }
            }
            slot = self.slot(app, user).await?;
            last = self.views(app, user, &rooms, &slot).await?;
            let mut drift = slot.drift();
            let mut different = BTreeSet::new();
            in_flight = false;
            for room in &rooms {
                let (Some(first), Some(last)) = (first.get(room), last.get(room)) else {
                    continue;
                };
                let found = against_room(&slot, room.as_str(), first, last);
                if found.is_empty() {
                    continue;
                }
                if settled.contains(room) {
                    different.insert(room.clone());
                    drift.extend(found);
                } else {
                    in_flight = true;
                }
            }
            if drift.is_empty() {
                if !in_flight {
                    return Ok(Verdict::Clean);
                }
                seen = None;
                continue;
            }
            // Seen twice, with nothing under way that could mend it, it stays.
            let again = seen.as_ref().is_some_and(|seen| seen.drift == drift);
            seen = Some(UserDrift {
                app: app.clone(),
                user: user.clone(),
                drift,
                again: false,
                rooms: different,
            });
            if again && !in_flight {
                break;
            }
        }
        Ok(match seen {
            Some(drift) => Verdict::Drift(drift),
            None if in_flight => Verdict::InFlight,
            None => Verdict::Clean,
        })
    }

    /// Looks at everybody in `scope`. `found` is told of each user with drift (a second time of what only the rooms that
    /// list the user know), `on` of how far it has come.
    pub async fn verify(
        &self,
        scope: &Scope,
        mut found: impl AsyncFnMut(UserDrift) -> Result<()>,
        on: impl Fn(&Progress),
    ) -> Result<Progress> {
        let mut progress = Progress::default();
        if let (Some(app), Some(user)) = (&scope.app, &scope.user) {
            let rooms = self.listing(app, user, &mut progress, &on).await?;
            progress.users = 1;
            match self.look(app, user, &rooms).await? {
                Verdict::Clean => {}
                Verdict::InFlight => progress.in_flight = 1,
                Verdict::Drift(drift) => found(drift).await?,
            }
            progress.fraction = 1.0;
            on(&progress);
            return Ok(progress);
        }
        let mut told = Told::default();
        let pattern = keys::slots(scope.app.as_ref(), false, None);
        let nodes = self.inner.redis.masters().await?;
        for (number, node) in nodes.iter().enumerate() {
            let mut cursor = 0;
            loop {
                let (next, page) = self.scan(node, cursor, &pattern).await?;
                let met = self.met(page).await?;
                let mut looks: BTreeMap<(AppId, Enc), BTreeSet<Enc>> = met
                    .users
                    .into_iter()
                    .map(|user| (user, BTreeSet::new()))
                    .collect();
                progress.users += looks.len() as u64;
                self.all(looks, &mut told, &mut progress, &mut found)
                    .await?;
                on(&progress);
                for (app, room) in met.rooms {
                    let mut cursor = "0".to_owned();
                    loop {
                        let members;
                        (cursor, members) = self.members_page(&app, &room, &cursor).await?;
                        progress.members += members.len() as u64;
                        let missing = self.without_record(&app, &room, members).await?;
                        looks = missing
                            .into_iter()
                            .map(|user| ((app.clone(), user), BTreeSet::from([room.clone()])))
                            .collect();
                        self.all(looks, &mut told, &mut progress, &mut found)
                            .await?;
                        on(&progress);
                        if cursor == "0" {
                            break;
                        }
                    }
                }
                progress.fraction = (number as f64 + done(next)) / nodes.len().max(1) as f64;
                on(&progress);
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(progress)
    }

    async fn all(
        &self,
        looks: BTreeMap<(AppId, Enc), BTreeSet<Enc>>,
        told: &mut Told,
        progress: &mut Progress,
        found: &mut impl AsyncFnMut(UserDrift) -> Result<()>,
    ) -> Result<()> {
        let mut verdicts = stream::iter(looks)
            .map(|((app, user), also)| async move { self.look(&app, &user, &also).await })
            .buffer_unordered(USERS_AT_ONCE);
        while let Some(verdict) = verdicts.try_next().await? {
            match verdict {
                Verdict::Clean => {}
                Verdict::InFlight => progress.in_flight += 1,
                Verdict::Drift(mut drift) => {
                    if told.keep_new(&mut drift) {
                        found(drift).await?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) async fn scan(
        &self,
        node: &Server,
        cursor: u64,
        pattern: &str,
    ) -> Result<(u64, Vec<String>)> {
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
            names.push(text(list.value()?)?);
        }
        Ok((cursor, names))
    }

    /// The users and rooms whose keys are in a page, each by one of its keys.
    async fn met(&self, page: Vec<String>) -> Result<Met> {
        let mut met = Met::default();
        let mut headless = BTreeSet::new();
        for key in &page {
            match keys::parse_key(key) {
                Some((keys::Entry::User(app, user), "counts")) => {
                    met.users.insert((app, user));
                }
                // A user is met by its counts; without them, by whatever else there is.
                Some((keys::Entry::User(app, user), "rooms" | "supers" | "refs" | "marks")) => {
                    headless.insert((app, user));
                }
                Some((keys::Entry::Room(app, room), "members")) => {
                    met.rooms.insert((app, room));
                }
                _ => {}
            }
        }
        let headless: Vec<(AppId, Enc)> = headless.difference(&met.users).cloned().collect();
        let items: Vec<Item> = headless
            .iter()
            .map(|(app, user)| {
                let mut exists = redis::cmd("EXISTS");
                exists.arg(UserKeys::new(app, user).counts());
                Item::Plain(exists)
            })
            .collect();
        let answers = self.inner.redis.batch(&items).await?;
        for (user, answer) in headless.into_iter().zip(answers) {
            if number(&answer)? == 0 {
                met.users.insert(user);
            }
        }
        Ok(met)
    }

    async fn members_page(
        &self,
        app: &AppId,
        room: &Enc,
        cursor: &str,
    ) -> Result<(String, Vec<(Enc, Entry)>)> {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(RoomKeys::new(app, room).members())
            .arg(cursor)
            .arg("COUNT")
            .arg(PAGE);
        let mut page = Reply::new(self.inner.redis.query(&scan).await?)?;
        let cursor = page.text()?;
        let members = page
            .list()?
            .pairs()?
            .into_iter()
            .map(|(user, entry)| Ok((Enc::stored(user), Entry::parse(&entry)?)))
            .collect::<Result<Vec<_>>>()?;
        let members = members
            .into_iter()
            .filter(|(_, entry)| entry.state != 'l')
            .collect();
        Ok((cursor, members))
    }

    /// Those members that have no record of the room, or one of another membership.
    async fn without_record(
        &self,
        app: &AppId,
        room: &Enc,
        members: Vec<(Enc, Entry)>,
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
            let mut answers = self.inner.redis.batch(&items).await?.into_iter();
            for (user, entry) in members {
                let mut same = false;
                for answer in answers.by_ref().take(2) {
                    let record = maybe_text(answer)?.unwrap_or_default();
                    same |= record.split('|').nth(1) == Some(&short(entry.epoch));
                }
                if !same {
                    missing.push(user.clone());
                }
            }
        }
        Ok(missing)
    }

    /// The rooms that list a user, found by asking every room of the app.
    async fn listing(
        &self,
        app: &AppId,
        user: &Enc,
        progress: &mut Progress,
        on: &impl Fn(&Progress),
    ) -> Result<BTreeSet<Enc>> {
        let mut rooms = BTreeSet::new();
        let pattern = keys::slots(Some(app), true, Some("members"));
        let nodes = self.inner.redis.masters().await?;
        for (number, node) in nodes.iter().enumerate() {
            let mut cursor = 0;
            loop {
                let (next, page) = self.scan(node, cursor, &pattern).await?;
                let items: Vec<Item> = page
                    .iter()
                    .map(|key| {
                        let mut get = redis::cmd("HGET");
                        get.arg(key).arg(user.as_str());
                        Item::Plain(get)
                    })
                    .collect();
                progress.members += items.len() as u64;
                for (key, answer) in page.iter().zip(self.inner.redis.batch(&items).await?) {
                    if let Some(entry) = maybe_text(answer)?
                        && !entry.starts_with('l')
                        && let Some((keys::Entry::Room(_, room), _)) = keys::parse_key(key)
                    {
                        rooms.insert(room);
                    }
                }
                progress.fraction = (number as f64 + done(next)) / nodes.len().max(1) as f64;
                on(progress);
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(rooms)
    }
}

/// How much of a table a scan has seen: its cursor counts up from the highest bit.
fn done(cursor: u64) -> f64 {
    if cursor == 0 {
        1.0
    } else {
        cursor.reverse_bits() as f64 / 2f64.powi(64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(record: &str) -> Slot {
        let mut slot = Slot::default();
        slot.rooms.insert("r".into(), record.into());
        slot
    }

    fn view(rev: u64, head: u64, entry: &str) -> View {
        View {
            snapshot: Snapshot {
                taken: 1,
                rev,
                head,
                kind: "group".into(),
                status: "1".into(),
                custom_type: "t".into(),
                tags: "x".into(),
                born: 5,
                mrev: "5".into(),
                created: 2,
                last: Some(Last { time: 3, at: 19 }),
                ..Snapshot::default()
            },
            entry: (!entry.is_empty()).then(|| Entry::parse(entry).unwrap()),
            ..View::default()
        }
    }

    fn parts(slot: &Slot, first: &View, last: &View) -> Vec<&'static str> {
        against_room(slot, "r", first, last)
            .iter()
            .filter_map(|drift| drift.part)
            .collect()
    }

    #[test]
    fn a_record_is_behind_ahead_or_as_its_room() {
        let mine = slot("j|7|d|1|4|0|0|g|1|t|x||2|1,3");
        let same = view(20, 4, "j|7|0");
        assert_eq!(parts(&mine, &same, &same), Vec::<&str>::new());
        // Told of later things than the first look saw.
        assert_eq!(
            parts(&mine, &view(15, 2, "j|7|0"), &same),
            Vec::<&str>::new()
        );
        assert_eq!(
            parts(&mine, &view(25, 5, "j|7|0"), &view(25, 5, "j|7|0")),
            ["head"]
        );
        assert_eq!(parts(&mine, &same, &view(19, 3, "j|7|0")), ["rev", "head"]);
        assert_eq!(parts(&mine, &view(25, 4, ""), &same), ["record"]);
        assert_eq!(parts(&mine, &view(25, 4, "j|9|0"), &same), ["epoch"]);
        assert_eq!(parts(&mine, &view(25, 4, "i|7|0"), &same), ["state"]);
        // Joined after the first look.
        assert_eq!(parts(&mine, &view(6, 4, ""), &same), Vec::<&str>::new());
        let mut other = view(25, 4, "j|7|0");
        other.snapshot.tags = "y".into();
        other.recalled = vec![1, 3];
        assert_eq!(parts(&mine, &other, &other), ["recalled", "tags"]);
        let mut other = view(25, 4, "j|7|0");
        other.snapshot.created = 1;
        other.snapshot.last = None;
        assert_eq!(parts(&mine, &other, &other), ["created", "last"]);
        let nothing = View::default();
        assert_eq!(parts(&mine, &nothing, &nothing), ["record"]);
    }

    #[test]
    fn a_member_without_a_record_is_missing_one() {
        let mut mine = Slot::default();
        let listed = view(20, 4, "j|7|0");
        assert_eq!(parts(&mine, &listed, &listed), ["record"]);
        assert_eq!(parts(&mine, &listed, &view(21, 4, "")), Vec::<&str>::new());
        mine.leaving = true;
        assert_eq!(parts(&mine, &listed, &listed), Vec::<&str>::new());
    }

    #[test]
    fn a_cursor_tells_how_far_a_scan_is() {
        assert_eq!(done(0), 1.0);
        assert_eq!(done(1 << 63), 2f64.powi(-64));
        assert_eq!(done(1), 0.5);
        assert_eq!(done(3), 0.75);
    }
}
