//! What only rooms know: a room's entry in a page, and the counts of supergroups.

use redis::Value;
use serde_json::Map;

use super::query::{Facts, RoomBrief};
use crate::counts::number::{Stored, parse, unreadable};
use crate::counts::room::{Last, millis};
use crate::counts::{Kind, LastMessage, Pref, RoomEntry};
use crate::engine::read::details::read_shown;
use crate::engine::read::supergroup::{Supergroup, SupergroupReply};
use crate::engine::reply::{Reply, maybe_text, stored};
use crate::error::{Error, Result};
use crate::keys::{Enc, decode};
use crate::names::{RoomId, Tag, UserId};

/// One of the user's supergroups, with its count worked out.
pub(super) struct CountedSupergroup {
    pub(super) room: Enc,
    epoch: u64,
    kind: Kind,
    tags: String,
    created: i64,
    last: Option<Last>,
    unread: u64,
}

impl CountedSupergroup {
    pub(super) fn read(supergroup: Supergroup, answer: Value) -> Result<Option<Self>> {
        if supergroup.state != 'j' {
            return Ok(None);
        }
        let Some(mut answer) = SupergroupReply::of_one(answer)?.filter(|answer| answer.active)
        else {
            return Ok(None);
        };
        Ok(answer.user()?.map(|counted| Self {
            room: supergroup.room,
            epoch: supergroup.epoch,
            kind: answer.kind,
            tags: answer.tags,
            created: answer.created,
            last: answer.last,
            unread: counted.unread,
        }))
    }

    pub(super) fn brief(&self) -> RoomBrief<'_> {
        RoomBrief {
            stored: self.room.as_str(),
            epoch: self.epoch,
            kind: self.kind,
            tags: &self.tags,
            created: self.created,
            last: self.last,
            unread: self.unread,
            flags: "",
        }
    }
}

/// A room of the page.
pub(super) struct PageRoom {
    /// Its id, as stored.
    pub(super) name: Enc,
    pub(super) entry: RoomEntry,
    /// The version of its list of members.
    pub(super) born: u64,
    pub(super) mrev: String,
}

impl PageRoom {
    pub(super) fn facts(&self) -> Facts<'_> {
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
            name: &entry.shown.name,
            description: &entry.shown.description,
            service_status: entry.shown.service_status,
        }
    }
}

/// The fields of a room's meta that are shown, in the order in which [`read_entry`] reads them.
pub(super) const SHOWN: [&str; 19] = [
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

/// A number; 0 for an empty text.
fn number_or_zero<T: Stored + Default>(text: &str) -> Result<T> {
    match text {
        "" => Ok(T::default()),
        text => parse(Some(text)),
    }
}

pub(super) fn read_entry(brief: &RoomBrief<'_>, mut reply: Reply) -> Result<Option<PageRoom>> {
    let born = reply.value()?;
    let mrev = maybe_text(reply.value()?)?.unwrap_or_default();
    // A deleted room has none of these fields.
    if matches!(born, Value::Nil) {
        return match mrev.is_empty() && reply.is_nothing() {
            true => Ok(None),
            false => Err(unreadable()),
        };
    }
    // The room was made again after this membership began. The delivery of its deletion is under way, and this user may not see
    // the new room's name, text and members.
    let born = stored(&born)?;
    if brief.epoch < born {
        return Ok(None);
    }
    let mut next = || -> Result<String> { Ok(maybe_text(reply.value()?)?.unwrap_or_default()) };
    let Ok(room) = RoomId::parse(brief.room()) else {
        return Err(Error::unreadable("a room without a legal name"));
    };
    let shown = read_shown(&mut next)?;
    let created = number_or_zero(&next()?)?;
    let last_id = next()?;
    let (sender, text, message_type) = (next()?, next()?, next()?);
    let payload = match next()?.as_str() {
        "" => Map::new(),
        json => serde_json::from_str(json)
            .map_err(|_| Error::unreadable("a payload that is no JSON object"))?,
    };
    let (time, at, updated) = (next()?, next()?, next()?);
    let last = Last::stored(&at, &time)?;
    let updated: u64 = number_or_zero(&updated)?;
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
    let entry = RoomEntry {
        room,
        kind: brief.kind,
        shown,
        tags: brief.tags().filter_map(|t| Tag::parse(t).ok()).collect(),
        created,
        last_message,
        unread: brief.unread,
        pref: Pref::default(),
        members: Vec::new(),
    };
    let name = Enc::stored(brief.stored);
    Ok(Some(PageRoom {
        name,
        entry,
        born,
        mrev,
    }))
}
