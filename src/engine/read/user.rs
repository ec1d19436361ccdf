//! Everything that the native API shows of one user.

use redis::Value;

use super::Reader;
use super::overview::CountedRoom;
use crate::connection::Item;
use crate::counts::number::unreadable;
use crate::counts::{RoomUnread, UserUnread};
use crate::engine::reply::{Reply, maybe_text};
use crate::error::Result;
use crate::keys::{UserKeys, decode, encode};
use crate::names::{AppId, RoomId, UserId};

/// Which of a user's rooms to list.
#[derive(Debug, Default)]
pub(crate) struct RoomRows {
    /// Only rooms with unread messages.
    pub only_unread: bool,
    /// Only rooms whose ids come after that one.
    pub after: Option<RoomId>,
    /// The most rooms; `None`: all.
    pub limit: Option<usize>,
}

impl Reader {
    /// The counts of one user, and, if asked for, the joined active rooms, by id. `None`: an unknown user.
    pub(crate) async fn user_unread(
        &self,
        app: &AppId,
        user: &UserId,
        rows: Option<&RoomRows>,
    ) -> Result<Option<UserUnread>> {
        let _place = self.admission.read()?;
        let what = if rows.is_some() { "cro" } else { "cr" };
        let overview = self.overview(app, &encode(user.as_str()), what).await?;
        if !overview.known {
            return Ok(None);
        }
        let keys = UserKeys::of(app, user);
        let counts = || keys.counts();
        let totals = self.faults.at_key(overview.totals(None), counts)?;
        let tags = self.faults.at_key(overview.tags(), counts)?;
        let types = self.faults.at_key(overview.types(), counts)?;
        let rooms = match rows {
            Some(rows) => Some(self.room_rows(&keys, rows, overview.records).await?),
            None => None,
        };
        Ok(Some(UserUnread {
            totals,
            tags,
            types,
            rooms,
        }))
    }

    /// The rows of a page of rooms. The user's preferences for its supergroups take a command more.
    pub(super) async fn room_rows(
        &self,
        keys: &UserKeys,
        rows: &RoomRows,
        records: Vec<CountedRoom>,
    ) -> Result<Vec<RoomUnread>> {
        let listed = records.into_iter().filter(|record| {
            record.state == 'j' && record.active && (!rows.only_unread || record.unread > 0)
        });
        let mut page: Vec<(String, CountedRoom)> = listed
            .map(|record| (decode(record.room.as_str()), record))
            .filter(|(room, _)| {
                rows.after
                    .as_ref()
                    .is_none_or(|after| room.as_str() > after.as_str())
            })
            .collect();
        page.sort_by(|(a, _), (b, _)| a.cmp(b));
        page.truncate(rows.limit.unwrap_or(usize::MAX));
        let unknown = page.iter().filter(|(_, record)| record.flags.is_none());
        let unknown: Vec<&str> = unknown.map(|(_, record)| record.room.as_str()).collect();
        let mut flags = Vec::new();
        if !unknown.is_empty() {
            let answer = self.redis.send(&flags_item(keys, &unknown)).await?;
            flags = self.faults.at_key(read_flags(answer), || keys.prefs())?;
        }
        let mut flags = flags.into_iter();
        let row = |(room, record): (String, CountedRoom)| {
            let (hidden, muted) = match &record.flags {
                Some(flags) => (flags.contains('h'), flags.contains('m')),
                None => flags.next().unwrap_or_default(),
            };
            RoomUnread {
                room,
                kind: record.kind,
                peer: record.peer,
                custom_type: record.custom_type,
                tags: record.tags,
                messages: record.unread,
                mentions: record.mentions,
                muted,
                hidden,
                count: record.count,
                read_position: record.read,
                head: record.head,
            }
        };
        Ok(page.into_iter().map(row).collect())
    }
}

/// The call that reads whether some rooms are hidden and muted for a user.
fn flags_item(keys: &UserKeys, rooms: &[&str]) -> Item {
    let mut get = redis::cmd("HMGET");
    get.arg(keys.prefs());
    for room in rooms {
        get.arg(format!("{room}|hidden"))
            .arg(format!("{room}|muted"));
    }
    Item::Plain(get)
}

/// Reads the answer to [`flags_item`].
fn read_flags(answer: Value) -> Result<Vec<(bool, bool)>> {
    let mut reply = Reply::new(answer)?;
    let mut flags = Vec::new();
    while !reply.is_empty() {
        flags.push((read_flag(reply.value()?)?, read_flag(reply.value()?)?));
    }
    Ok(flags)
}

/// A setting as it is stored, `stamp|JSON`; false if it is not there.
fn read_flag(stored: Value) -> Result<bool> {
    match maybe_text(stored)?
        .as_deref()
        .map(|text| text.split_once('|'))
    {
        None | Some(Some((_, "false"))) => Ok(false),
        Some(Some((_, "true"))) => Ok(true),
        Some(_) => Err(unreadable()),
    }
}
