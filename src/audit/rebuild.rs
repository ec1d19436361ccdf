//! Repair of what the self-check finds. Two steps: the user's own slot is put right from its positions by one script, and
//! rooms that its records differ from are told to it again, the way every delivery goes. Both may be repeated, and made
//! while events flow.

use std::collections::BTreeSet;

use crate::audit::Repairer;
use crate::audit::compare::{View, against_room, release};
use crate::audit::drift::Drift;
use crate::audit::slot::{Slot, plain};
use crate::audit::verify::{Consistency, UserDrift};
use crate::counts::room::{Membership, millis};
use crate::engine::SingleDelivery;
use crate::engine::reply::{Reply, bytes};
use crate::engine::snapshot::Snapshot;
use crate::error::Result;
use crate::keys::{Enc, UserKeys};
use crate::names::AppId;
use crate::scripts;

/// Rounds of repair and another look, before what is left is given up.
const ROUNDS: usize = 3;

/// What a repair of one user did.
#[derive(Debug, Clone, Default)]
pub struct Repair {
    /// What was changed in the user's slot: what was there, and what is there now.
    pub changed: Vec<Drift>,
    /// Rooms that were told to the user again.
    pub told: BTreeSet<Enc>,
    /// What still differs.
    pub left: Vec<Drift>,
    /// Whether the user was left alone, since not all of the slot can be read.
    pub unreadable: bool,
}

/// A record that its room contradicts, as it was seen, and what it has to become before the room can be told again
/// (empty: nothing at all).
fn correction(slot: &Slot, room: &str, view: &View) -> Option<(String, String)> {
    let mut put = slot.position(room)?;
    let records = if put.head.is_some() {
        &slot.rooms
    } else {
        &slot.supers
    };
    let seen = records.get(room)?.clone();
    let Some(entry) = view.member() else {
        return Some((seen, String::new()));
    };
    if put.epoch > entry.epoch {
        // Of a membership that the room knows nothing of: it begins anew.
        return Some((seen, String::new()));
    }
    if put.epoch < entry.epoch {
        // What is told next is newer.
        return None;
    }
    let top = view.snapshot.head;
    put.state = entry.state;
    put.read = put.read.min(top);
    put.head = put.head.map(|_| top);
    let created = i64::try_from(view.snapshot.created).unwrap_or(i64::MAX);
    put.made = created.saturating_sub(millis(put.epoch));
    // Whatever is told next is taken.
    put.rev = put.epoch;
    put.last = None;
    Some((seen, put.record()))
}

impl Repairer {
    /// Repairs one user. Answers what was done and what could not be.
    pub async fn rebuild(&self, found: UserDrift) -> Result<Repair> {
        let mut repair = Repair::default();
        let UserDrift {
            app,
            user,
            mut rooms,
            drift,
            ..
        } = found;
        repair.left = drift;
        for _ in 0..ROUNDS {
            if !self.repair(&app, &user, &rooms, &mut repair).await? {
                repair.unreadable = true;
                break;
            }
            match self.audit.look(&app, &user, &rooms).await?.verdict {
                Consistency::Drift(drift) => {
                    rooms.extend(drift.rooms);
                    repair.left = drift.drift;
                }
                Consistency::Clean | Consistency::InFlight => {
                    repair.left.clear();
                    break;
                }
            }
        }
        Ok(repair)
    }

    /// One round. Answers whether there could be one: what follows from records that can't be read is not known.
    pub(crate) async fn repair(
        &self,
        app: &AppId,
        user: &Enc,
        rooms: &BTreeSet<Enc>,
        repair: &mut Repair,
    ) -> Result<bool> {
        let mut slot = self.audit.slot(app, user).await?;
        let mut asked = rooms.clone();
        asked.extend(slot.blocked.iter().map(Enc::stored));
        let mut views = self.audit.views(app, user, &asked, &slot).await?;
        release(&mut slot, &views);
        if !slot.is_whole() {
            return Ok(false);
        }
        views.retain(|room, _| rooms.contains(room));
        let told_next = views.iter().filter(|(room, view)| {
            let entry = view.member();
            let stays = |entry: Membership| slot.left_since(room.as_str()) < entry.epoch;
            slot.position(room.as_str()).is_none() && entry.is_some_and(stays)
        });
        let told_next: Vec<&str> = told_next.map(|(room, _)| room.as_str()).collect();
        let keys = UserKeys::new(app, user);
        let mut call = scripts::USER_REBUILD.call(&[
            keys.counts(),
            keys.rooms(),
            keys.supers(),
            keys.refs(),
            keys.marks(),
            keys.profile(),
            keys.prefs(),
        ]);
        call.push(told_next.join(","));
        for bad in &slot.bad {
            // What is left of these says nothing, and no room stands behind it.
            if matches!(bad.what, "rooms" | "supers")
                && let Some(field) = &bad.field
            {
                call.push(field);
                call.push(&bad.value);
                call.push("");
            }
        }
        for (room, view) in &views {
            let name = room.as_str();
            if !against_room(&slot, name, view, view).is_empty()
                && let Some((seen, put)) = correction(&slot, name, view)
            {
                call.push(name);
                call.push(seen);
                call.push(put);
            }
        }
        let mut reply = Reply::new(self.audit.redis.call(&call).await?)?;
        while !reply.is_empty() {
            let key = match reply.text()?.as_str() {
                "counts" => "counts",
                "rooms" => "rooms",
                "supers" => "supers",
                "refs" => "refs",
                _ => "marks",
            };
            let mut text = || -> Result<String> { Ok(plain(&bytes(reply.value()?)?)) };
            let (field, before, after) = (text()?, text()?, text()?);
            repair.changed.push(Drift {
                key,
                field,
                part: None,
                stored: Some(before).filter(|text| !text.is_empty()),
                expected: Some(after).filter(|text| !text.is_empty()),
            });
        }
        for (room, view) in views {
            self.tell_again(app, user, &room, view, &slot).await?;
            repair.told.insert(room);
        }
        repair
            .changed
            .sort_by(|a, b| (a.key, &a.field).cmp(&(b.key, &b.field)));
        Ok(true)
    }

    async fn tell_again(
        &self,
        app: &AppId,
        user: &Enc,
        room: &Enc,
        view: View,
        slot: &Slot,
    ) -> Result<()> {
        let snapshot = &view.snapshot;
        let told = match (view.member(), slot.position(room.as_str())) {
            (Some(entry), _) if slot.left_since(room.as_str()) >= entry.epoch => {
                // The user has left, and the room has lost that.
                return self.writer.leave(app, room, user, Some(entry.epoch)).await;
            }
            (Some(entry), _) => SingleDelivery {
                snapshot: snapshot.clone(),
                membership: entry,
                peer: &view.peer,
                holes: if snapshot.kind == "supergroup" {
                    &[]
                } else {
                    &view.recalled
                },
            },
            (None, Some(position)) => {
                // As of now: whoever joins later does so by a greater epoch.
                let now = if snapshot.rev == 0 {
                    snapshot.taken
                } else {
                    snapshot.rev
                };
                SingleDelivery {
                    snapshot: Snapshot::deleted(snapshot.taken),
                    membership: Membership {
                        state: 'l',
                        epoch: now.max(position.epoch),
                        base: 0,
                        vouched: None,
                        since: None,
                    },
                    peer: "",
                    holes: &[],
                }
            }
            (None, None) => return Ok(()),
        };
        // A slot that refuses is drift that is left, and found by the look that follows.
        self.writer.deliver_single(app, room, user, told).await
    }
}
