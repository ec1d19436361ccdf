//! A page of a user's rooms, with all that a client shows of them.

use std::collections::HashMap;

use redis::Value;

use super::read::Record;
use super::reply::{Reply, maybe_text};
use super::room::Entry;
use super::{LastMessage, Pref, Profile, RoomEntry, RoomPage, Store};
use crate::connection::Item;
use crate::error::{Error, Result};
use crate::keys::{RoomKeys, UserKeys, decode, encode};
use crate::names::{AppId, CustomType, RoomId, Tag, UserId};
use crate::quota::{Charge, Charged};
use crate::scripts;

/// The longest list of members that is shown whole.
const SHOWN_MEMBERS: usize = 1_000;

impl Store {
    /// The joined active rooms of `user`: all of them are handed to `choose`, which filters, sorts and pages them and says
    /// how many matched; members and profiles are then filled in for those it returns. An unknown user has no rooms.
    /// A room of more than 1,000 members names the caller only.
    pub async fn rooms<F>(
        &self,
        app: &AppId,
        user: &UserId,
        choose: F,
        charge: Option<&Charge>,
    ) -> Result<Charged<RoomPage>>
    where
        F: FnOnce(Vec<RoomEntry>) -> (u64, Vec<RoomEntry>),
    {
        let _place = self.inner.admission.read()?;
        let name = encode(user.as_str());
        let item = Self::overview_item(app, &name, "op");
        let (mut values, verdict) = match self.charged(vec![item], charge).await? {
            Charged::Refused(verdict) => return Ok(Charged::Refused(verdict)),
            Charged::Granted(values, verdict) => (values, verdict),
        };
        let mut overview = self
            .complete(app, values.next().unwrap_or(Value::Nil))
            .await?;
        let records: Vec<Record> = std::mem::take(&mut overview.records)
            .into_iter()
            .filter(|record| record.state == 'j' && record.active)
            .collect();
        let items: Vec<Item> = records
            .iter()
            .map(|record| {
                let mut get = redis::cmd("HMGET");
                get.arg(RoomKeys::new(app, &record.room).meta());
                for field in SHOWN {
                    get.arg(field);
                }
                Item::Plain(get)
            })
            .collect();
        let answers = self.inner.redis.batch(&items).await?;
        let mut rooms = Vec::with_capacity(records.len());
        for (record, answer) in records.into_iter().zip(answers) {
            let pref = overview
                .prefs
                .remove(record.room.as_str())
                .unwrap_or_default();
            rooms.extend(room_entry(record, Reply::new(answer)?, pref)?);
        }
        let (total, mut rooms) = choose(rooms);
        self.fill_members(app, user, &mut rooms).await?;
        let profiles = self.profiles(app, &rooms).await?;
        Ok(Charged::Granted(
            RoomPage {
                total,
                rooms,
                profiles,
            },
            verdict,
        ))
    }

    async fn fill_members(
        &self,
        app: &AppId,
        caller: &UserId,
        rooms: &mut [RoomEntry],
    ) -> Result<()> {
        let items: Vec<Item> = rooms
            .iter()
            .map(|room| {
                let keys = RoomKeys::new(app, &encode(room.room.as_str()));
                Item::Script(
                    scripts::ROOM_MEMBERS
                        .call(&[keys.meta(), keys.members()])
                        .arg(SHOWN_MEMBERS),
                )
            })
            .collect();
        for (room, answer) in rooms.iter_mut().zip(self.inner.redis.batch(&items).await?) {
            let mut reply = Reply::new(answer)?;
            let (born, _mrev, length) = (reply.number()?, reply.number()?, reply.number()?);
            if length > SHOWN_MEMBERS as u64 {
                room.members = vec![caller.clone()];
                continue;
            }
            let mut members: Vec<(u64, String)> = Vec::new();
            for (user, entry) in reply.pairs()? {
                let entry = Entry::parse(&entry)?;
                if entry.is_joined(born) {
                    members.push((entry.epoch, decode(&user)));
                }
            }
            members.sort();
            room.members = members
                .into_iter()
                .filter_map(|(_, user)| UserId::parse(user).ok())
                .collect();
        }
        Ok(())
    }

    async fn profiles(&self, app: &AppId, rooms: &[RoomEntry]) -> Result<HashMap<UserId, Profile>> {
        let mut users: Vec<&UserId> = rooms
            .iter()
            .flat_map(|room| {
                let sender = room.last_message.as_ref().and_then(|m| m.sender.as_ref());
                room.members.iter().chain(sender)
            })
            .collect();
        users.sort();
        users.dedup();
        let items: Vec<Item> = users
            .iter()
            .map(|user| {
                let mut get = redis::cmd("HMGET");
                get.arg(UserKeys::new(app, &encode(user.as_str())).profile())
                    .arg("nickname")
                    .arg("avatar_url")
                    .arg("is_robot")
                    .arg("last_login_time");
                Item::Plain(get)
            })
            .collect();
        let answers = self.inner.redis.batch(&items).await?;
        users
            .into_iter()
            .zip(answers)
            .map(|(user, answer)| {
                let mut reply = Reply::new(answer)?;
                let profile = Profile {
                    user: user.clone(),
                    nickname: maybe_text(reply.value()?)?,
                    avatar_url: maybe_text(reply.value()?)?,
                    is_robot: reply.number()? == 1,
                    last_login_time: i64::try_from(reply.number()?).unwrap_or(0),
                };
                Ok((user.clone(), profile))
            })
            .collect()
    }
}

/// The fields of a room's meta that `GET /rooms` shows, in the order in which [`room_entry`] reads them.
const SHOWN: [&str; 17] = [
    "born",
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
    "last_time",
    "last_at",
    "last_updated",
];

fn room_entry(
    record: Record,
    mut reply: Reply,
    pref: Vec<(String, String)>,
) -> Result<Option<RoomEntry>> {
    // Deleted, or made again since this membership: the telling of that is on the way, and the room's new name, text and
    // members are none of this user's business.
    let born = reply.number()?;
    if born == 0 || record.epoch < born {
        return Ok(None);
    }
    let mut next = || -> Result<String> { Ok(maybe_text(reply.value()?)?.unwrap_or_default()) };
    let Ok(room) = RoomId::parse(decode(record.room.as_str())) else {
        return Err(Error::Internal("a stored room has no legal name".into()));
    };
    let (name, cover, description, webhook) = (next()?, next()?, next()?, next()?);
    let (bot_state, bot_mode, encrypted) = (next()?, next()? == "1", next()? == "1");
    let service_status = next()?.parse().unwrap_or(0);
    let created = next()?.parse().unwrap_or(0);
    let last_id = next()?;
    let (sender, text, message_type) = (next()?, next()?, next()?);
    let (time, at, updated) = (next()?, next()?, next()?);
    let micros = |text: &str| text.parse::<u64>().unwrap_or(0);
    let millis = |micros: u64| i64::try_from(micros / 1000).unwrap_or(0);
    let last_message = (!last_id.is_empty()).then(|| LastMessage {
        id: decode(&last_id),
        sender: UserId::parse(decode(&sender)).ok(),
        text,
        message_type,
        time: time.parse().unwrap_or(0),
        updated: millis(micros(&updated)),
        created: millis(micros(&at)),
        order: micros(&at),
    });
    Ok(Some(RoomEntry {
        room,
        kind: record.kind,
        name,
        cover,
        description,
        webhook,
        bot_state,
        bot_mode,
        encrypted,
        service_status,
        tags: record
            .tags
            .into_iter()
            .filter_map(|t| Tag::parse(t).ok())
            .collect(),
        custom_type: record.custom_type.and_then(|t| CustomType::parse(t).ok()),
        created,
        last_message,
        unread: record.unread,
        pref: read_pref(pref)?,
        members: Vec::new(),
    }))
}

fn read_pref(settings: Vec<(String, String)>) -> Result<Pref> {
    let mut pref = Pref::default();
    for (setting, json) in settings {
        let bad = |_| Error::Internal("a stored setting is not JSON".into());
        let flag = json == "true";
        match setting.as_str() {
            "tags" => pref.tags = serde_json::from_str(&json).map_err(bad)?,
            "tag_colors" => pref.tag_colors = serde_json::from_str(&json).map_err(bad)?,
            "folder" => pref.folder = serde_json::from_str(&json).map_err(bad)?,
            "hidden" => pref.hidden = flag,
            "sticky" => pref.sticky = flag,
            "muted" => pref.muted = flag,
            _ => {}
        }
    }
    Ok(pref)
}
