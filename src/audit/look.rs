//! A look at one user: what its slot has otherwise than its rooms. Why it takes several looks, the header of `verify.rs` says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::audit::Audit;
use crate::audit::compare::{RoomView, differences, release_others};
use crate::audit::drift::Drift;
use crate::audit::slot::{Bad, Slot};
use crate::connection::Item;
use crate::engine::reply::{Reply, readable};
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts;

/// Pauses between the looks at a user that differs.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(0),
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(1_000),
];

/// All drift of one user.
#[derive(Debug, Clone)]
pub(crate) struct UserDrift {
    /// The app.
    pub app: AppId,
    /// The user, as it stands in keys.
    pub user: Enc,
    /// What differs.
    pub drift: Vec<Drift>,
    /// Whether other fields of the user have been reported before.
    pub again: bool,
    /// The rooms that its records differ from.
    pub(super) rooms: BTreeSet<Enc>,
}

/// The result of a look at one user.
pub(super) enum Consistency {
    Clean,
    InFlight,
    Drift(UserDrift),
}

/// A look at one user.
pub(super) struct Look {
    pub(super) consistency: Consistency,
    /// What can't be read of the user's slot, and whether the repair makes it anew.
    pub(super) bad: Vec<(Bad, bool)>,
    /// Rooms that can't be read, so that the user's records of them can't be compared.
    pub(super) blind: BTreeSet<Enc>,
}

/// The rooms that both looks show and that differ from the slot, with their differences.
fn all_differences<'a>(
    slot: &Slot,
    rooms: &'a BTreeSet<Enc>,
    first: &BTreeMap<Enc, RoomView>,
    last: &BTreeMap<Enc, RoomView>,
) -> Vec<(&'a Enc, Vec<Drift>)> {
    let looks = rooms.iter().filter_map(|room| {
        let found = differences(slot, room.as_str(), first.get(room)?, last.get(room)?);
        (!found.is_empty()).then_some((room, found))
    });
    looks.collect()
}

impl Audit {
    pub(super) async fn slot(&self, app: &AppId, user: &Enc) -> Result<Slot> {
        let keys = UserKeys::new(app, user);
        let call = scripts::USER_DUMP.call(&[
            keys.counts(),
            keys.rooms(),
            keys.supers(),
            keys.refs(),
            keys.marks(),
            keys.left(),
            keys.prefs(),
            keys.profile(),
            keys.pending(),
        ]);
        let mut slot = Slot::read(Reply::new(self.redis.call(&call).await?)?)?;
        slot.old = self.redis.is_old();
        Ok(slot)
    }

    /// Reads rooms as [`RoomView`]s for one user. Rooms that can't be read are left out.
    pub(super) async fn views(
        &self,
        app: &AppId,
        user: &Enc,
        rooms: &BTreeSet<Enc>,
        slot: &Slot,
    ) -> Result<BTreeMap<Enc, RoomView>> {
        let items: Vec<Item> = rooms
            .iter()
            .map(|room| {
                let keys = RoomKeys::new(app, room);
                let read = slot.record_of(room.as_str()).map_or(0, |p| p.read);
                let call = scripts::ROOM_VIEW.call(&[
                    keys.meta(),
                    keys.members(),
                    keys.recalled(),
                    keys.pending(),
                    keys.arrived(),
                ]);
                Item::Script(call.arg(user.as_str()).arg(read))
            })
            .collect();
        let answers = self.redis.send_each(&items).await?;
        let mut views = BTreeMap::new();
        for (room, answer) in rooms.iter().zip(answers) {
            let view = answer.and_then(|answer| RoomView::read(Reply::new(answer)?));
            if let Some(view) = readable(view)? {
                views.insert(room.clone(), view);
            }
        }
        Ok(views)
    }

    /// Looks at one user, and a few more times if it differs. `also`: rooms that list the user as a member.
    pub(super) async fn look(&self, app: &AppId, user: &Enc, also: &BTreeSet<Enc>) -> Result<Look> {
        let mut slot = self.slot(app, user).await?;
        let mut look = Look {
            consistency: Consistency::Clean,
            bad: Vec::new(),
            blind: BTreeSet::new(),
        };
        let mut rooms: BTreeSet<Enc> = slot.recorded_rooms().union(also).cloned().collect();
        rooms.extend(slot.blocked.iter().map(Enc::stored));
        let first = self.views(app, user, &rooms, &slot).await?;
        let unread_rooms = rooms.iter().filter(|room| !first.contains_key(*room));
        look.blind = unread_rooms.cloned().collect();
        release_others(&mut slot, &first);
        let bad = slot.bad.iter();
        look.bad = bad.map(|bad| (bad.clone(), slot.is_derived(bad))).collect();
        rooms.retain(|room| {
            first
                .get(room)
                .is_some_and(|view| !differences(&slot, room.as_str(), view, view).is_empty())
        });
        if rooms.is_empty() && slot.drift().is_empty() {
            return Ok(look);
        }
        let mut last = first.clone();
        let mut settled: BTreeSet<Enc> = BTreeSet::new();
        let mut seen: Option<UserDrift> = None;
        let mut in_flight = false;
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            // A room is settled once none of the jobs of the first look is pending any more.
            let now_settled = rooms.iter().filter(|room| {
                let looks = first.get(*room).zip(last.get(*room));
                looks.is_some_and(|(first, last)| first.jobs.is_disjoint(&last.jobs))
            });
            settled.extend(now_settled.cloned());
            slot = self.slot(app, user).await?;
            last = self.views(app, user, &rooms, &slot).await?;
            release_others(&mut slot, &first);
            let mut drift = slot.drift();
            let mut different = BTreeSet::new();
            in_flight = false;
            for (room, found) in all_differences(&slot, &rooms, &first, &last) {
                if settled.contains(room) {
                    different.insert(room.clone());
                    drift.extend(found);
                } else {
                    in_flight = true;
                }
            }
            if drift.is_empty() {
                if !in_flight {
                    return Ok(look);
                }
                seen = None;
                continue;
            }
            // The same drift twice, and no pending job that could change it: it is real.
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
        look.consistency = match seen {
            Some(drift) => Consistency::Drift(drift),
            None if in_flight => Consistency::InFlight,
            None => Consistency::Clean,
        };
        Ok(look)
    }
}
