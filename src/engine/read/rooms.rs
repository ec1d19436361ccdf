//! A page of a user's rooms, with all that a client shows of them.
//!
//! The user's own slot holds enough of each room to filter and sort by: one round trip, and a second one for the counts of
//! supergroups if there are any. A further round trip asks only the rooms of the page for everything else. If rooms are sorted by
//! something that only they know (their name, for example), more rooms are asked: all those whose order the other fields leave
//! open.

mod entry;
mod people;
mod prefs;
mod query;

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use redis::Value;

use self::entry::{CountedSupergroup, PageRoom, SHOWN, read_entry};
use self::people::{Members, People, joined_members, members_item, profile_item};
use self::prefs::{all_prefs, pairs, prefs_item, read_prefs, whole_item};
use self::query::Facts;
use super::Reader;
use crate::connection::Item;
use crate::counts::{Pref, RoomPage};
use crate::engine::reply::Reply;
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, UserKeys, encode};
use crate::names::{AppId, UserId};
use crate::quota::Limit;

#[cfg(fuzzing)]
pub(crate) use self::prefs::set_pref;
pub(crate) use self::query::{PrefQuery, RoomBrief, RoomQuery, SortBy};

/// For at most this many rooms the user's preferences are read by name; for more rooms all preferences of the user are read.
const PREFS_BY_NAME: usize = 100;

impl Reader {
    /// A page of the active rooms that `user` has joined. An unknown user has no rooms. A room with more than 1,000 members names
    /// only the caller as a member.
    pub(crate) async fn rooms(
        &self,
        app: &AppId,
        user: &UserId,
        query: &RoomQuery<'_>,
        limit: &mut dyn Limit,
    ) -> Result<RoomPage> {
        let _place = self.admission.read()?;
        let name = encode(user.as_str());
        let keys = UserKeys::new(app, &name);
        // No script: it costs Redis several times as much to carry thousands of records through Lua as to send them. A room that
        // becomes a supergroup between these calls is in both answers, because its record is read first.
        let mut items = vec![
            whole_item(keys.rooms()),
            Self::overview_item(app, &name, ""),
        ];
        let by_pref = query.by_pref.as_ref();
        if by_pref.is_some_and(|by_pref| !by_pref.is_recorded()) {
            items.push(whole_item(keys.prefs()));
        }
        let read = pin!(self.redis.send_all(&items));
        let values = self.charged(read, limit).await?;
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or(Value::Nil);
        let (records, overview, prefs) = (next(), next(), next());
        let supergroups = self.supergroups(app, &name, overview).await;
        let supergroups = self.faults.at_slot(supergroups, || keys.supers())?;
        let mut matching = self.matching(&keys, query, &records, &supergroups)?;
        if let Some(by_pref) = by_pref {
            let has_supergroups = !supergroups.is_empty();
            self.retain_by_pref(&keys, by_pref, prefs, has_supergroups, &mut matching)
                .await?;
        }
        let mut people = People::default();
        let (total, page) = self.page(app, &name, query, &matching, &mut people).await?;
        let rooms = self.with_members(app, user, page, &mut people).await?;
        Ok(RoomPage {
            total: total as u64,
            rooms,
            profiles: people.profiles,
        })
    }

    /// The rooms that match the query, apart from its condition on preferences.
    fn matching<'v>(
        &self,
        keys: &UserKeys,
        query: &RoomQuery<'_>,
        records: &'v Value,
        supergroups: &'v [CountedSupergroup],
    ) -> Result<Vec<RoomBrief<'v>>> {
        let ids: HashSet<&str> = supergroups.iter().map(|room| room.room.as_str()).collect();
        // An unreadable record is a failure: a list without that room would have the wrong length.
        let records = self.faults.at_key(pairs(records), || keys.rooms())?;
        let rooms = records.map(|record| {
            let (room, record) = record?;
            match ids.contains(room) {
                true => Ok(None),
                false => RoomBrief::read(room, record),
            }
        });
        let supergroups = supergroups.iter().map(|room| Ok(Some(room.brief())));
        let mut matching = Vec::new();
        for room in rooms.chain(supergroups) {
            if let Some(room) = self.faults.at_key(room, || keys.rooms())?
                && (query.matches)(&room)
            {
                matching.push(room);
            }
        }
        Ok(matching)
    }

    /// Keeps the rooms that match the condition on the user's preferences. These stand in `prefs`, unless the records hold them.
    async fn retain_by_pref(
        &self,
        keys: &UserKeys,
        by_pref: &PrefQuery<'_>,
        mut prefs: Value,
        has_supergroups: bool,
        rooms: &mut Vec<RoomBrief<'_>>,
    ) -> Result<()> {
        let is_recorded = by_pref.is_recorded();
        // The records of supergroups don't hold preferences.
        let is_missing = is_recorded && has_supergroups;
        if is_missing {
            prefs = self.redis.send(&whole_item(keys.prefs())).await?;
        }
        let all = match is_missing || !is_recorded {
            true => {
                let all = all_prefs(&prefs, &by_pref.preferences);
                self.faults.at_key(all, || keys.prefs())?
            }
            false => HashMap::new(),
        };
        let default_matches = (by_pref.matches)(&Pref::default());
        rooms.retain(|room| match all.get(room.stored) {
            Some(pref) => (by_pref.matches)(pref),
            None if room.flags.is_empty() => default_matches,
            None => (by_pref.matches)(&room.recorded()),
        });
        Ok(())
    }

    /// The supergroups that a user has joined.
    async fn supergroups(
        &self,
        app: &AppId,
        user: &Enc,
        overview: Value,
    ) -> Result<Vec<CountedSupergroup>> {
        let mut reply = Reply::new(overview)?;
        for _ in 0..4 {
            reply.value()?;
        }
        let answers = self.ask_supergroups(app, user, reply.list()?).await?;
        answers
            .into_iter()
            .filter_map(|(supergroup, answer)| {
                CountedSupergroup::read(supergroup, answer).transpose()
            })
            .collect()
    }

    /// The number of rooms, and the rooms of the page in their order. A room that turns out to be gone (the delivery of its end
    /// is under way) is left out, and the next rooms move up.
    async fn page(
        &self,
        app: &AppId,
        user: &Enc,
        query: &RoomQuery<'_>,
        matching: &[RoomBrief<'_>],
        people: &mut People,
    ) -> Result<(usize, Vec<PageRoom>)> {
        let mut order: Vec<usize> = (0..matching.len()).collect();
        let mut fetched: HashMap<usize, Option<PageRoom>> = HashMap::new();
        loop {
            let (page, around) = query.arrange(matching, &mut order);
            let near = order.get(around.clone()).unwrap_or_default();
            let missing: Vec<usize> = near
                .iter()
                .copied()
                .filter(|at| !fetched.contains_key(at))
                .collect();
            if !missing.is_empty() {
                let rooms: Vec<&RoomBrief> =
                    missing.iter().filter_map(|at| matching.get(*at)).collect();
                // If no other rooms are in question, all of these are shown, and so are their members.
                let people = (page == around).then_some(&mut *people);
                let rooms = self.fetch(app, user, &rooms, people).await?;
                let some_gone = rooms.iter().any(Option::is_none);
                fetched.extend(missing.into_iter().zip(rooms));
                if some_gone {
                    order.retain(|at| !matches!(fetched.get(at), Some(None)));
                    continue;
                }
            }
            let mut rooms: Vec<(&RoomBrief, PageRoom)> = near
                .iter()
                .filter_map(|at| Some((matching.get(*at)?, fetched.remove(at)??)))
                .collect();
            if page != around {
                rooms.sort_by(|a, b| query.compare_all(&joint_facts(a), &joint_facts(b)));
                rooms.drain(..page.start - around.start);
                rooms.truncate(page.len());
            }
            let mut rooms: Vec<PageRoom> = rooms.into_iter().map(|(_, room)| room).collect();
            // The page shows messages that were accepted in between, so it is sorted by what it shows.
            rooms.sort_by(|a, b| query.compare_all(&a.facts(), &b.facts()));
            return Ok((order.len(), rooms));
        }
    }

    /// Asks rooms for what only they know, and, with `people`, for their members. `None`: the room is gone.
    async fn fetch(
        &self,
        app: &AppId,
        user: &Enc,
        rooms: &[&RoomBrief<'_>],
        mut people: Option<&mut People>,
    ) -> Result<Vec<Option<PageRoom>>> {
        let mut items: Vec<Item> = Vec::new();
        for room in rooms {
            let mut get = redis::cmd("HMGET");
            get.arg(RoomKeys::new(app, &Enc::stored(room.stored)).meta())
                .arg(&SHOWN);
            items.push(Item::Plain(get));
        }
        let names: Vec<&str> = rooms.iter().map(|room| room.stored).collect();
        let all_prefs = rooms.len() > PREFS_BY_NAME;
        let keys = UserKeys::new(app, user);
        items.push(prefs_item(&keys, &names, all_prefs));
        let (unlisted, users) = match people.as_deref_mut() {
            Some(people) => self.add_kept_lists(app, rooms, people),
            None => Default::default(),
        };
        items.extend(unlisted.iter().map(|room| members_item(app, room)));
        items.extend(users.iter().map(|user| profile_item(app, user)));
        let mut answers = self.redis.send_each(&items).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
        let mut fetched = Vec::with_capacity(rooms.len());
        for room in rooms {
            let entry = Reply::new(next()?).and_then(|reply| read_entry(room, reply));
            let meta = || RoomKeys::new(app, &Enc::stored(room.stored)).meta();
            fetched.push(self.faults.at_key(entry, meta)?);
        }
        let prefs = read_prefs(&next()?, &names, all_prefs);
        let prefs = self.faults.at_key(prefs, || keys.prefs())?;
        for (room, pref) in fetched.iter_mut().zip(prefs) {
            if let (Some(room), Some(pref)) = (room, pref) {
                room.entry.pref = pref;
            }
        }
        if let Some(people) = people {
            for room in unlisted {
                let members = self.read_members(app, &room, next()?)?;
                people.lists.insert(room, members);
            }
            for user in users {
                people.profiles.extend(self.profile(app, &user, next())?);
            }
        }
        Ok(fetched)
    }

    /// Adds the lists of members that this pod keeps. Returns the rooms without such a list, and the members in the lists.
    fn add_kept_lists(
        &self,
        app: &AppId,
        rooms: &[&RoomBrief<'_>],
        people: &mut People,
    ) -> (Vec<Enc>, Vec<Enc>) {
        let (mut unlisted, mut users) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for room in rooms {
            let name = (app.clone(), Enc::stored(room.stored));
            let Some(list) = self.lists.get(&name) else {
                unlisted.push(name.1);
                continue;
            };
            for (user, _) in joined_members(&list) {
                if !seen.contains(user) {
                    seen.insert(user.clone());
                    users.push(user.clone());
                }
            }
            people.lists.insert(name.1, Members::Kept(list));
        }
        (unlisted, users)
    }
}

/// What rooms are sorted by: from the user's slot, as the rooms were arranged, and from the room what only it knows.
fn joint_facts<'a>((brief, room): &'a (&RoomBrief<'_>, PageRoom)) -> Facts<'a> {
    Facts {
        name: &room.entry.shown.name,
        description: &room.entry.shown.description,
        service_status: room.entry.shown.service_status,
        ..brief.facts()
    }
}
