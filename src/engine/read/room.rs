//! Unread messages in one room, by user.

use redis::Value;

use super::Reader;
use super::overview::Supergroup;
use crate::connection::Item;
use crate::counts::RoomCounts;
use crate::counts::number::stamp;
use crate::counts::room::Membership;
use crate::engine::members::{LIST, parse_members};
use crate::engine::reply::{Reply, maybe_text, stored};
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, UserKeys, decode, encode};
use crate::names::{AppId, RoomId, UserId};
use crate::scripts;

impl Reader {
    /// Unread messages in one room of those of `users` who have joined it, or of all who have, if none are given and the
    /// room is not too large for that.
    pub async fn room_unread(
        &self,
        app: &AppId,
        room: &RoomId,
        users: Option<&[UserId]>,
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
        let born = self.faults.at(stored(&born), || keys.meta())?;
        let entries = match users {
            Some(users) => {
                let users: Vec<Enc> = users.iter().map(|u| encode(u.as_str())).collect();
                let mut get = redis::cmd("HMGET");
                get.arg(keys.members());
                for user in &users {
                    get.arg(user.as_str());
                }
                if users.is_empty() {
                    Vec::new()
                } else {
                    let mut reply = Reply::new(self.redis.query(&get).await?)?;
                    let mut found = Vec::with_capacity(users.len());
                    for user in users {
                        let entry = self
                            .faults
                            .at(maybe_text(reply.value()?), || keys.members())?;
                        if let Some(entry) = entry {
                            let entry = self
                                .faults
                                .at(Membership::parse(&entry), || keys.members())?;
                            found.push((user, entry));
                        }
                    }
                    found
                }
            }
            None => {
                let call = scripts::ROOM_MEMBERS
                    .call(&[keys.meta(), keys.members()])
                    .arg(LIST);
                let mut reply = Reply::new(self.redis.call(&call).await?)?;
                let (_born, _mrev) = (reply.number()?, reply.text()?);
                let (_parted, length) = (reply.text()?, reply.number()?);
                if length > LIST as u64 {
                    return Ok(RoomCounts::TooLarge);
                }
                self.faults.at(parse_members(reply), || keys.members())?
            }
        };
        let joined: Vec<Enc> = entries
            .into_iter()
            .filter(|(_, entry)| entry.is_joined(born))
            .map(|(user, _)| user)
            .collect();
        let items: Vec<Item> = joined
            .iter()
            .map(|user| {
                let keys = UserKeys::new(app, user);
                Item::Script(
                    scripts::USER_ROOM
                        .call(&[keys.counts(), keys.supers(), keys.marks()])
                        .arg(room.as_str()),
                )
            })
            .collect();
        let mut counts = Vec::with_capacity(joined.len());
        let mut asked = Vec::new();
        for (user, answer) in joined.into_iter().zip(self.redis.batch(&items).await?) {
            let mut reply = Reply::new(answer)?;
            match reply.value()? {
                Value::Int(-1) => asked.push((
                    user,
                    Supergroup {
                        room: room.clone(),
                        state: reply.text()?,
                        epoch: stamp(Some(&reply.text()?))?,
                        read: reply.text()?,
                        holes: reply.text()?,
                        mentions: reply.text()?,
                    },
                )),
                count => {
                    let count = self
                        .faults
                        .at(stored(&count), || UserKeys::new(app, &user).counts())?;
                    counts.push((decode(user.as_str()), count));
                }
            }
        }
        let items: Vec<Item> = asked
            .iter()
            .map(|(user, room)| room.ask(app, user.as_str()))
            .collect();
        for ((user, _), answer) in asked.into_iter().zip(self.redis.batch(&items).await?) {
            let mut answer = Reply::new(answer)?;
            if !answer.is_empty() {
                for _ in 0..4 {
                    answer.value()?;
                }
                counts.push((decode(user.as_str()), answer.number()?));
            }
        }
        counts.sort();
        Ok(RoomCounts::Counts(counts))
    }
}
