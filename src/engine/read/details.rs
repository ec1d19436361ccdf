//! What a room is, and who is in it.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use redis::Value;

use super::Reader;
use super::walk::first_step;
use crate::connection::Item;
use crate::counts::number::unreadable;
use crate::counts::room::{Membership, millis};
use crate::counts::{Kind, RoomDetails, RoomMember, ShownDetails};
use crate::engine::members::LONGEST;
use crate::engine::reply::{Reply, maybe_text, number, stored};
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, decode, encode};
use crate::names::{AppId, RoomId, UserId};

/// The fields of a room's meta that are shown, in the order in which [`read_details`] reads them.
const SHOWN: [&str; 15] = [
    "born",
    "kind",
    "type",
    "tags",
    "status",
    "name",
    "cover",
    "description",
    "webhook",
    "bot_state",
    "bot_mode",
    "encrypted",
    "service_status",
    "created",
    "head",
];

impl Reader {
    /// What a room is. `None`: there is no such room.
    pub(crate) async fn room(&self, app: &AppId, room: &RoomId) -> Result<Option<RoomDetails>> {
        let _place = self.admission.read()?;
        let keys = RoomKeys::new(app, &encode(room.as_str()));
        let mut get = redis::cmd("HMGET");
        get.arg(keys.meta()).arg(&SHOWN);
        let mut count = redis::cmd("HLEN");
        count.arg(keys.members());
        let items = [Item::Plain(get), Item::Plain(count)];
        let mut answers = self.redis.send_all(&items).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Value::Nil);
        let (meta, count) = (next(), next());
        let details = number(&count).and_then(|members| read_details(meta, members));
        self.faults.at_key(details, || keys.meta())
    }

    /// The members of a room whose ids come after `after`, by id, at most `limit` of them. `None`: there is no such room. Of a
    /// list that is too long for one answer every page takes a walk through all of it.
    pub(crate) async fn members(
        &self,
        app: &AppId,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Option<Vec<RoomMember>>> {
        let _place = self.admission.read()?;
        let keys = RoomKeys::new(app, &encode(room.as_str()));
        let first = self.redis.send(&first_step(&keys)).await?;
        let mut page = Page {
            after,
            limit,
            rows: Vec::new(),
        };
        let take = |user: Enc, membership| {
            page.add(decode(user.as_str()), membership);
            ControlFlow::Continue(())
        };
        let exists = self.walk(&keys, first, take).await?;
        Ok(exists.then(|| page.finish()))
    }
}

/// The first members in the order of their ids, out of members that come in no order.
struct Page<'a> {
    after: Option<&'a UserId>,
    limit: usize,
    rows: Vec<RoomMember>,
}

impl Page<'_> {
    fn add(&mut self, user: String, membership: Membership) {
        if self.after.is_some_and(|after| *user <= *after.as_str()) {
            return;
        }
        self.rows.push(RoomMember {
            user,
            has_joined: membership.state == 'j',
            since: millis(membership.epoch),
        });
        if self.rows.len() >= self.limit.saturating_mul(2).max(LONGEST) {
            self.keep_first();
        }
    }

    /// Keeps the first rows, each member once: a walk may come by a member twice.
    fn keep_first(&mut self) {
        self.rows.sort_by(by_id);
        self.rows.dedup_by(|one, other| one.user == other.user);
        self.rows.truncate(self.limit);
    }

    fn finish(mut self) -> Vec<RoomMember> {
        self.keep_first();
        self.rows
    }
}

fn by_id(one: &RoomMember, other: &RoomMember) -> Ordering {
    one.user.cmp(&other.user)
}

fn read_details(meta: Value, members: u64) -> Result<Option<RoomDetails>> {
    let mut reply = Reply::new(meta)?;
    let born = reply.value()?;
    if matches!(born, Value::Nil) {
        return match reply.is_nothing() {
            true => Ok(None),
            false => Err(unreadable()),
        };
    }
    stored(&born)?;
    let mut next = || -> Result<String> { Ok(maybe_text(reply.value()?)?.unwrap_or_default()) };
    let kind = Kind::stored(&next()?)?;
    let (custom_type, tags) = (next()?, next()?);
    let active = match next()?.as_str() {
        "1" => true,
        "0" => false,
        _ => return Err(unreadable()),
    };
    let shown = read_shown(&mut next)?;
    let created = next()?.parse().map_err(|_| unreadable())?;
    let head = number(&reply.value()?)?;
    let tags = tags.split(',').filter(|tag| !tag.is_empty());
    Ok(Some(RoomDetails {
        kind,
        custom_type: Some(decode(&custom_type)).filter(|name| !name.is_empty()),
        tags: tags.map(decode).collect(),
        active,
        shown,
        created,
        head,
        members,
    }))
}

/// Reads fields of a room's meta from `name` to `service_status`, in the order of [`SHOWN`].
pub(super) fn read_shown(mut next: impl FnMut() -> Result<String>) -> Result<ShownDetails> {
    Ok(ShownDetails {
        name: next()?,
        cover: next()?,
        description: next()?,
        webhook: next()?,
        bot_state: next()?,
        bot_mode: next()? == "1",
        encrypted: next()? == "1",
        service_status: match next()?.as_str() {
            "" => 0,
            text => text.parse().map_err(|_| unreadable())?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_full_although_a_walk_came_by_members_twice() {
        let mut page = Page {
            after: None,
            limit: 3_000,
            rows: Vec::new(),
        };
        for n in (0..4_000).rev() {
            for _ in 0..2 {
                page.add(format!("u{n:04}"), Membership::parse("j|1|0").unwrap());
            }
        }
        let rows = page.finish();
        assert_eq!(rows.len(), 3_000);
        assert_eq!(rows.last().unwrap().user, "u2999");
    }
}
