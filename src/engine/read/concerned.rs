//! The new totals of the users whom the events of one request concern.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use redis::Value;

use super::Reader;
use super::walk::first_step;
use crate::connection::Item;
use crate::counts::room::Membership;
use crate::counts::{Kind, Totals};
use crate::engine::admission::ReadPlace;
use crate::engine::members::LONGEST;
use crate::engine::reply::{Reply, maybe_text, stored};
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, decode, encode};
use crate::names::{AppId, RoomId, UserId};

/// The most users whose totals one answer holds.
pub(crate) const MOST_CONCERNED: usize = 1_000;
/// The rooms that are asked for their members at once.
const ROOMS_AT_ONCE: usize = 64;

/// Whom one event concerns.
#[derive(Debug)]
pub(crate) struct Concern {
    /// Users, whatever kind the room is of.
    pub users: Vec<UserId>,
    /// Users who are concerned if the room is a supergroup.
    pub in_supergroup: Vec<UserId>,
    /// The room whose members are concerned unless it is a supergroup.
    pub room: Option<RoomId>,
    /// The room whose members are concerned as they were before the event; of a supergroup only if `true` stands with it.
    pub room_before: Option<(RoomId, bool)>,
}

/// The users whom the events of a request concern, as far as that can be known before the events are applied. It keeps a place
/// among the reads: what the events have come to is then not hidden by a refusal.
pub(crate) struct Concerned<'r> {
    reader: &'r Reader,
    app: &'r AppId,
    concerns: Vec<Concern>,
    /// The rooms that events delete or make supergroups of, as they were before.
    before: HashMap<RoomId, Audience>,
    _place: ReadPlace<'r>,
}

/// New totals, in the order of the events. `None`: an unknown user.
pub(crate) struct ConcernedTotals {
    pub users: Vec<UserId>,
    pub totals: Vec<Option<Totals>>,
    /// Whether there are more users.
    pub truncated: bool,
}

/// The kind of a room, and its members.
struct Audience {
    kind: Kind,
    /// In the order in which they joined; one more than [`MOST_CONCERNED`] at most.
    members: Vec<UserId>,
}

/// Users in the order in which they were named first, up to [`MOST_CONCERNED`].
#[derive(Default)]
struct Named {
    order: Vec<UserId>,
    known: HashSet<UserId>,
    truncated: bool,
}

impl Named {
    fn add(&mut self, user: &UserId) {
        if self.known.contains(user) {
            return;
        }
        if self.order.len() == MOST_CONCERNED {
            self.truncated = true;
            return;
        }
        self.known.insert(user.clone());
        self.order.push(user.clone());
    }
}

impl Concerned<'_> {
    /// The totals as they are now. `counts` says of each event, by its place, whether it is to be regarded.
    pub(crate) async fn totals(&self, counts: impl Fn(usize) -> bool) -> Result<ConcernedTotals> {
        let regarded = self.concerns.iter().enumerate();
        let regarded: Vec<&Concern> = regarded
            .filter_map(|(place, concern)| counts(place).then_some(concern))
            .collect();
        let mut named = Named::default();
        let mut now: HashMap<&RoomId, Option<Audience>> = HashMap::new();
        for (place, concern) in regarded.iter().enumerate() {
            if named.truncated {
                break;
            }
            if let Some(room) = &concern.room
                && !now.contains_key(room)
            {
                let ahead = regarded.get(place..).unwrap_or_default().iter();
                let mut rooms: Vec<&RoomId> = Vec::new();
                for room in ahead.filter_map(|concern| concern.room.as_ref()) {
                    if rooms.len() < ROOMS_AT_ONCE
                        && !now.contains_key(room)
                        && !rooms.contains(&room)
                    {
                        rooms.push(room);
                    }
                }
                let audiences = self.reader.audiences(self.app, &rooms, false).await?;
                now.extend(rooms.into_iter().zip(audiences));
            }
            concern.users.iter().for_each(|user| named.add(user));
            if let Some(Some(audience)) = concern.room.as_ref().and_then(|room| now.get(room)) {
                let users = match audience.kind {
                    Kind::Supergroup => &concern.in_supergroup,
                    _ => &audience.members,
                };
                users.iter().for_each(|user| named.add(user));
            }
            if let Some((room, of_any_kind)) = &concern.room_before
                && let Some(audience) = self.before.get(room)
                && (*of_any_kind || audience.kind != Kind::Supergroup)
            {
                audience.members.iter().for_each(|user| named.add(user));
            }
        }
        let Named {
            order, truncated, ..
        } = named;
        let asked: Vec<&UserId> = order.iter().collect();
        let totals = self.reader.totals_in_place(self.app, &asked).await?;
        Ok(ConcernedTotals {
            users: order,
            totals,
            truncated,
        })
    }
}

impl Reader {
    /// Looks at rooms as they are before events are applied, by whom each event concerns.
    pub(crate) async fn concerned<'r>(
        &'r self,
        app: &'r AppId,
        concerns: Vec<Concern>,
    ) -> Result<Concerned<'r>> {
        let place = self.admission.read()?;
        let mut rooms: Vec<&RoomId> = Vec::new();
        let mut seen = HashSet::new();
        for concern in &concerns {
            if let Some((room, _)) = &concern.room_before
                && seen.insert(room)
            {
                rooms.push(room);
            }
        }
        let mut before = HashMap::new();
        for rooms in rooms.chunks(ROOMS_AT_ONCE) {
            let audiences = self.audiences(app, rooms, true).await?;
            for (room, audience) in rooms.iter().zip(audiences) {
                before.extend(audience.map(|audience| ((*room).clone(), audience)));
            }
        }
        Ok(Concerned {
            reader: self,
            app,
            concerns,
            before,
            _place: place,
        })
    }

    /// The kind and the members of each of these rooms; of supergroups the members only if `of_any_kind`. `None`: no such room.
    async fn audiences(
        &self,
        app: &AppId,
        rooms: &[&RoomId],
        of_any_kind: bool,
    ) -> Result<Vec<Option<Audience>>> {
        let keys: Vec<RoomKeys> = rooms
            .iter()
            .map(|room| RoomKeys::new(app, &encode(room.as_str())))
            .collect();
        let kind_of = |keys: &RoomKeys| {
            let mut get = redis::cmd("HMGET");
            get.arg(keys.meta()).arg("born").arg("kind");
            Item::Plain(get)
        };
        let items: Vec<Item> = keys.iter().map(kind_of).collect();
        let mut found = Vec::with_capacity(rooms.len());
        for (keys, answer) in keys.iter().zip(self.redis.send_all(&items).await?) {
            let kind = read_kind(answer);
            found.push(self.faults.at_key(kind, || keys.meta())?);
        }
        let is_asked =
            |kind: &Option<Kind>| kind.is_some_and(|kind| of_any_kind || kind != Kind::Supergroup);
        let asked = keys.iter().zip(&found).filter(|(_, kind)| is_asked(kind));
        let items: Vec<Item> = asked.map(|(keys, _)| first_step(keys)).collect();
        let mut lists = self.redis.send_all(&items).await?.into_iter();
        let mut audiences = Vec::with_capacity(rooms.len());
        for (keys, kind) in keys.iter().zip(found) {
            let members = match is_asked(&kind) {
                true => self.first_members(keys, lists.next()).await?,
                false => Vec::new(),
            };
            audiences.push(kind.map(|kind| Audience { kind, members }));
        }
        Ok(audiences)
    }

    /// The first members of a room in the order in which they joined, by the answer to the first step of a walk. Of a long list
    /// they are any members, as many as are asked for.
    async fn first_members(&self, keys: &RoomKeys, first: Option<Value>) -> Result<Vec<UserId>> {
        let mut members: Vec<(u64, Enc)> = Vec::new();
        let first = first.unwrap_or(Value::Nil);
        let take = |user: Enc, membership: Membership| {
            members.push((membership.epoch, user));
            match members.len() > LONGEST {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        self.walk(keys, first, take).await?;
        members.sort();
        members.dedup();
        let users = members.into_iter().take(MOST_CONCERNED + 1);
        let users = users.filter_map(|(_, user)| UserId::parse(decode(user.as_str())).ok());
        Ok(users.collect())
    }
}

/// The kind of a room, by its fields `born` and `kind`. `None`: there is no such room.
fn read_kind(answer: Value) -> Result<Option<Kind>> {
    let mut reply = Reply::new(answer)?;
    let born = reply.value()?;
    if matches!(born, Value::Nil) {
        return Ok(None);
    }
    stored(&born)?;
    let kind = maybe_text(reply.value()?)?.unwrap_or_default();
    Kind::stored(&kind).map(Some)
}
