//! Repairs what the self-check finds, in two steps. One script corrects the user's own slot from its positions. Then the rooms
//! that the records differ from are delivered to the user again, by an ordinary delivery. Both steps may be repeated, and made
//! beside live traffic.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::Repairer;
use crate::audit::compare::{RoomView, differences, release_others};
use crate::audit::drift::Drift;
use crate::audit::look::{Consistency, UserDrift};
use crate::audit::slot::{Slot, text_or_escaped};
use crate::counts::room::{Membership, millis};
use crate::engine::SingleDelivery;
use crate::engine::reply::{Reply, bytes};
use crate::engine::snapshot::Snapshot;
use crate::error::Result;
use crate::keys::{Enc, UserKeys};
use crate::names::AppId;
use crate::scripts::{self, ScriptCall};

/// How many times a repair is tried; what still differs after that is reported.
const ROUNDS: usize = 3;

/// What a repair of one user did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repair {
    /// What was changed in the user's slot: the old values, and the new ones as `expected`.
    pub changed: Vec<Drift>,
    /// Rooms that were delivered to the user again.
    pub redelivered: BTreeSet<Enc>,
    /// What still differs.
    pub left: Vec<Drift>,
    /// Whether the user's slot was left unchanged, because not all of it can be read.
    pub unreadable: bool,
}

/// The call that corrects a user's own slot from its positions.
fn rebuild_call(
    app: &AppId,
    user: &Enc,
    slot: &Slot,
    views: &BTreeMap<Enc, RoomView>,
) -> ScriptCall {
    let delivered_next = views.iter().filter(|(room, view)| {
        let entry = view.member();
        let stays = |entry: Membership| slot.left_since(room.as_str()) < entry.epoch;
        slot.record_of(room.as_str()).is_none() && entry.is_some_and(stays)
    });
    let delivered_next: Vec<&str> = delivered_next.map(|(room, _)| room.as_str()).collect();
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
    call.push(delivered_next.join(","));
    for bad in &slot.bad {
        // The rooms of these records say that the user is not in them, so the records are removed.
        if matches!(bad.what, "rooms" | "supers")
            && let Some(field) = &bad.field
        {
            call.push(field);
            call.push(&bad.value);
            call.push("");
        }
    }
    for (room, view) in views {
        let name = room.as_str();
        if !differences(slot, name, view, view).is_empty()
            && let Some((seen, corrected)) = correction(slot, name, view)
        {
            call.push(name);
            call.push(seen);
            call.push(corrected);
        }
    }
    call
}

/// What the script has changed.
fn read_changes(mut reply: Reply) -> Result<Vec<Drift>> {
    let mut changed = Vec::new();
    while !reply.is_empty() {
        let key = match reply.text()?.as_str() {
            "counts" => "counts",
            "rooms" => "rooms",
            "supers" => "supers",
            "refs" => "refs",
            _ => "marks",
        };
        let mut text = || -> Result<String> { Ok(text_or_escaped(&bytes(reply.value()?)?)) };
        let (field, before, after) = (text()?, text()?, text()?);
        changed.push(Drift {
            key,
            field,
            part: None,
            stored: Some(before).filter(|text| !text.is_empty()),
            expected: Some(after).filter(|text| !text.is_empty()),
        });
    }
    Ok(changed)
}

/// The correction of a record that differs from its room: the stored record, and the one to replace it before the room is
/// delivered again (empty: the record is removed).
fn correction(slot: &Slot, room: &str, view: &RoomView) -> Option<(String, String)> {
    let mut corrected = slot.record_of(room)?;
    let records = if corrected.head.is_some() {
        &slot.rooms
    } else {
        &slot.supers
    };
    let seen = records.get(room)?.clone();
    let Some(entry) = view.member() else {
        return Some((seen, String::new()));
    };
    if corrected.epoch > entry.epoch {
        // The room does not know this membership, so the user's record begins anew.
        return Some((seen, String::new()));
    }
    if corrected.epoch < entry.epoch {
        // The next delivery brings the newer membership.
        return None;
    }
    let top = view.snapshot.head;
    corrected.state = entry.state;
    corrected.read = corrected.read.min(i64::try_from(top).unwrap_or(i64::MAX));
    corrected.head = corrected.head.map(|_| top);
    let created = i64::try_from(view.snapshot.created).unwrap_or(i64::MAX);
    corrected.made = created.saturating_sub(millis(corrected.epoch));
    // The slot takes the next delivery, whatever its revision.
    corrected.rev = corrected.epoch;
    corrected.last = None;
    Some((seen, corrected.record()))
}

impl Repairer {
    /// Repairs one user. Answers what was changed, and what still differs.
    pub(crate) async fn rebuild(&self, found: UserDrift) -> Result<Repair> {
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
            match self.audit.look(&app, &user, &rooms).await?.consistency {
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

    /// One round. `false`: nothing was done, because the slot has records that can't be read, and counts that follow from them.
    pub(super) async fn repair(
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
        release_others(&mut slot, &views);
        if !slot.is_whole() {
            return Ok(false);
        }
        views.retain(|room, _| rooms.contains(room));
        let call = rebuild_call(app, user, &slot, &views);
        let reply = Reply::new(self.audit.redis.call(&call).await?)?;
        repair.changed.extend(read_changes(reply)?);
        for (room, view) in views {
            self.redeliver(app, user, &room, view, &slot).await?;
            repair.redelivered.insert(room);
        }
        repair
            .changed
            .sort_by(|a, b| (a.key, &a.field).cmp(&(b.key, &b.field)));
        Ok(true)
    }

    async fn redeliver(
        &self,
        app: &AppId,
        user: &Enc,
        room: &Enc,
        view: RoomView,
        slot: &Slot,
    ) -> Result<()> {
        let snapshot = &view.snapshot;
        let delivery = match (view.member(), slot.record_of(room.as_str())) {
            (Some(entry), _) if slot.left_since(room.as_str()) >= entry.epoch => {
                // The user has left, and the room has lost that change.
                let epoch = Some(entry.epoch);
                return self.writer.leave(app, room, user, epoch, None).await;
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
            (None, Some(record)) => {
                // The stamp is that of now, so that a user who joins later does so with a greater epoch.
                let now = if snapshot.rev == 0 {
                    snapshot.taken
                } else {
                    snapshot.rev
                };
                SingleDelivery {
                    snapshot: Snapshot::deleted(snapshot.taken),
                    membership: Membership {
                        state: 'l',
                        epoch: now.max(record.epoch),
                        base: 0,
                        vouched: None,
                        since: None,
                        reset: None,
                    },
                    peer: "",
                    holes: &[],
                }
            }
            (None, None) => return Ok(()),
        };
        // If the slot refuses, the drift stays, and the next look finds it.
        self.writer.deliver_single(app, room, user, delivery).await
    }
}
