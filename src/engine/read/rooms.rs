//! A page of a user's rooms, with all that a client shows of them.
//!
//! The user's own slot says enough of each room to filter and sort by: one round trip, and one more for the numbers of
//! supergroups if there are any. Only the rooms of the page are then asked for the rest, in a further one. What only the room knows (its
//! name, for one) takes more if it is sorted by: then all rooms are asked that the other fields leave in question.

mod entry;
mod people;
mod prefs;
mod query;

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use redis::Value;

use self::entry::{CountedSupergroup, PageRoom, SHOWN, read_entry};
use self::people::{Members, People, joined, members_item, profile_item};
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

pub use self::query::{PrefQuery, RoomBrief, RoomQuery, SortBy};

/// Of so many rooms the user's settings are asked by name, of more all there are.
const SHORT: usize = 100;

impl Reader {
    /// A page of the joined active rooms of `user`. An unknown user has no rooms. A room of more than 1,000 members names
    /// the caller only.
    pub async fn rooms(
        &self,
        app: &AppId,
        user: &UserId,
        query: &RoomQuery<'_>,
        limit: &mut dyn Limit,
    ) -> Result<RoomPage> {
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
        let values = self.charged(read, limit).await?;
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
        Ok(RoomPage {
            total: total as u64,
            rooms,
            profiles: people.profiles,
        })
    }

    /// The supergroups that a user has joined.
    async fn large(
        &self,
        app: &AppId,
        user: &Enc,
        overview: Value,
    ) -> Result<Vec<CountedSupergroup>> {
        let mut reply = Reply::new(overview)?;
        for _ in 0..4 {
            reply.value()?;
        }
        let large = self.ask_supers(app, user, reply.list()?).await?.into_iter();
        large
            .filter_map(|(asked, answer)| CountedSupergroup::read(asked, answer).transpose())
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
    ) -> Result<(usize, Vec<PageRoom>)> {
        let mut order: Vec<usize> = (0..found.len()).collect();
        let mut asked: HashMap<usize, Option<PageRoom>> = HashMap::new();
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
            let mut rooms: Vec<(&RoomBrief, PageRoom)> = near
                .iter()
                .filter_map(|at| Some((found.get(*at)?, asked.remove(at)??)))
                .collect();
            if page != around {
                // By what the user's slot knows, as they were sorted, and by what only the rooms know.
                fn facts<'b>((brief, asked): &'b (&RoomBrief<'_>, PageRoom)) -> Facts<'b> {
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
            let mut rooms: Vec<PageRoom> = rooms.into_iter().map(|(_, asked)| asked).collect();
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
    ) -> Result<Vec<Option<PageRoom>>> {
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
}
