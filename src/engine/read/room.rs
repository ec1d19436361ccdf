//! Unread messages in one room, by user.

use redis::Value;

use super::Reader;
use super::supergroup::{Supergroup, SupergroupReply};
use crate::connection::Item;
use crate::counts::number::{parse, stamp};
use crate::counts::record::{Reset, RoomRecord};
use crate::counts::room::Membership;
use crate::counts::{CountPref, MemberCount, RoomCounts};
use crate::engine::members::{LONGEST, parse_members};
use crate::engine::reply::{Reply, maybe_text, stored};
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, UserKeys, decode, encode};
use crate::names::{AppId, RoomId, UserId};
use crate::scripts;

impl Reader {
    /// Unread messages in one room, and if asked for (`positions`) read positions, for those of `users` who have joined it.
    /// Without `users`: for all who have joined it, unless the room has too many members.
    pub(crate) async fn room_unread(
        &self,
        app: &AppId,
        room: &RoomId,
        users: Option<&[UserId]>,
        positions: bool,
    ) -> Result<RoomCounts> {
        let _place = self.admission.read()?;
        let room = encode(room.as_str());
        let keys = RoomKeys::new(app, &room);
        let mut get = redis::cmd("HGET");
        get.arg(keys.meta()).arg("born");
        let born = self.redis.query(&get).await?;
        if matches!(born, Value::Nil) {
            return Ok(RoomCounts::NoRoom);
        }
        let born = self.faults.at_key(stored(&born), || keys.meta())?;
        let members = match users {
            Some(users) => self.memberships(&keys, users).await?,
            None => match self.all_memberships(&keys).await? {
                Some(members) => members,
                None => return Ok(RoomCounts::TooLarge),
            },
        };
        let joined = members
            .into_iter()
            .filter(|(_, membership)| membership.is_joined(born));
        let joined: Vec<(Enc, Membership)> = joined.collect();
        let mut counts = self.counts_in_room(app, &room, joined, positions).await?;
        counts.sort();
        Ok(RoomCounts::Counts(counts))
    }

    /// The memberships of those of `users` who have one.
    async fn memberships(
        &self,
        keys: &RoomKeys,
        users: &[UserId],
    ) -> Result<Vec<(Enc, Membership)>> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let users: Vec<Enc> = users.iter().map(|user| encode(user.as_str())).collect();
        let mut get = redis::cmd("HMGET");
        get.arg(keys.members());
        for user in &users {
            get.arg(user.as_str());
        }
        let mut reply = Reply::new(self.redis.query(&get).await?)?;
        let mut found = Vec::with_capacity(users.len());
        for user in users {
            let text = maybe_text(reply.value()?);
            if let Some(text) = self.faults.at_key(text, || keys.members())? {
                let membership = Membership::parse(&text);
                found.push((user, self.faults.at_key(membership, || keys.members())?));
            }
        }
        Ok(found)
    }

    /// All memberships of a room. `None`: there are too many.
    async fn all_memberships(&self, keys: &RoomKeys) -> Result<Option<Vec<(Enc, Membership)>>> {
        let call = scripts::ROOM_MEMBERS
            .call(&[keys.meta(), keys.members()])
            .arg(LONGEST);
        let mut reply = Reply::new(self.redis.call(&call).await?)?;
        let (_born, _mrev) = (reply.number()?, reply.text()?);
        let (_parted, length) = (reply.text()?, reply.number()?);
        if length > LONGEST as u64 {
            return Ok(None);
        }
        let members = self
            .faults
            .at_key(parse_members(reply), || keys.members())?;
        Ok(Some(members))
    }

    /// Unread messages in a room for each of these users, and if asked for their read positions.
    async fn counts_in_room(
        &self,
        app: &AppId,
        room: &Enc,
        joined: Vec<(Enc, Membership)>,
        positions: bool,
    ) -> Result<Vec<MemberCount>> {
        let items = joined.iter().map(|(user, _)| {
            let keys = UserKeys::new(app, user);
            let (counts, supers, marks) = (keys.counts(), keys.supers(), keys.marks());
            let script = &scripts::USER_ROOM;
            Item::Script(match positions {
                false => script.call(&[counts, supers, marks]).arg(room.as_str()),
                true => {
                    let call = script.call(&[counts, supers, marks, keys.rooms()]);
                    call.arg(room.as_str()).arg("r")
                }
            })
        });
        let items: Vec<Item> = items.collect();
        let mut counts = Vec::with_capacity(joined.len());
        let mut supergroups = Vec::new();
        let answers = self.redis.send_all(&items).await?;
        for ((user, membership), answer) in joined.into_iter().zip(answers) {
            let mut reply = Reply::new(answer)?;
            match reply.value()? {
                Value::Int(-1) => {
                    let state = parse(Some(&reply.text()?))?;
                    let epoch = stamp(Some(&reply.text()?))?;
                    let read = reply.text()?;
                    let (holes, mentions) = (reply.text()?, reply.text()?);
                    let reset = reply.text()?;
                    let supergroup = Supergroup {
                        room: room.clone(),
                        state,
                        epoch,
                        read,
                        holes,
                        mentions,
                        unset: reply.text()?,
                        edits: reply.text()?,
                        reset: Reset::recorded(&reset, epoch)?,
                        count: CountPref::All,
                    };
                    supergroups.push((user, supergroup));
                }
                count => {
                    let keys = UserKeys::new(app, &user);
                    let unread = self.faults.at_key(stored(&count), || keys.counts())?;
                    let mut read = 0;
                    if positions {
                        let position = read_position(&reply.text()?, membership);
                        read = self.faults.at_key(position, || keys.rooms())?;
                    }
                    let user = decode(user.as_str());
                    counts.push(MemberCount { user, unread, read });
                }
            }
        }
        let items: Vec<Item> = supergroups
            .iter()
            .map(|(user, supergroup)| supergroup.unread_item(app, user))
            .collect();
        for ((user, _), answer) in supergroups
            .into_iter()
            .zip(self.redis.send_all(&items).await?)
        {
            let Some(mut answer) = SupergroupReply::of_one(answer)? else {
                continue;
            };
            if let Some(counted) = answer.user()? {
                counts.push(MemberCount {
                    user: decode(user.as_str()),
                    unread: counted.unread,
                    read: counted.read,
                });
            }
        }
        Ok(counts)
    }
}

/// A user's read position by the user's record of the room; without a record of this membership, its base.
fn read_position(record: &str, membership: Membership) -> Result<i64> {
    let base = i64::try_from(membership.base).unwrap_or(i64::MAX);
    if record.is_empty() {
        return Ok(base);
    }
    let record = RoomRecord::read(record)?;
    Ok(match record.epoch == membership.epoch {
        true => record.read,
        false => base,
    })
}
