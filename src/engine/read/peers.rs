//! Unread messages of direct rooms: the total, and by peer.

use std::pin::pin;

use super::Reader;
use super::fields::{hmget, push_joined};
use crate::connection::Item;
use crate::counts::PeerCount;
use crate::counts::number::unreadable;
use crate::engine::reply::{fields, number};
use crate::error::Result;
use crate::keys::{UserKeys, encoded};
use crate::names::{AppId, UserId};
use crate::quota::Limit;

impl Reader {
    /// Unread messages in all direct rooms of `user`. `None`: an unknown user.
    pub(crate) async fn direct_total(
        &self,
        app: &AppId,
        user: &UserId,
        limit: &mut dyn Limit,
    ) -> Result<Option<u64>> {
        let _place = self.admission.read()?;
        let mut get = hmget(&UserKeys::of(app, user).counts(), 2, 22);
        get.arg("known").arg("messages:direct");
        let get = Item::Plain(get);
        let read = pin!(self.redis.send(&get));
        let answer = self.charged(read, limit).await?;
        let read = || -> Result<Option<u64>> {
            let mut reply = fields(&answer)?;
            let known = reply.text()?.is_some();
            let total = reply.number()?;
            Ok(known.then_some(total))
        };
        self.faults
            .at_key(read(), || UserKeys::of(app, user).counts())
    }

    /// The same for each of `peers`, in their order. `None`: `user` is unknown.
    pub(crate) async fn direct_by_peer(
        &self,
        app: &AppId,
        user: &UserId,
        peers: &[&UserId],
        limit: &mut dyn Limit,
    ) -> Result<Option<Vec<PeerCount>>> {
        let _place = self.admission.read()?;
        let keys = UserKeys::of(app, user);
        let length = peers.iter().map(|p| p.as_str().len() + 7).sum();
        let mut counts = hmget(&keys.counts(), peers.len() + 1, length);
        let mut rooms = hmget(&keys.refs(), peers.len(), length);
        counts.arg("known");
        for peer in peers {
            let peer = encoded(peer.as_str());
            push_joined(&mut counts, &["peer:", &peer]);
            push_joined(&mut rooms, &["direct:", &peer]);
        }
        let items = [Item::Plain(counts), Item::Plain(rooms)];
        let read = pin!(self.redis.send_all(&items));
        let answers = self.charged(read, limit).await?;
        let [counts, rooms] = &answers[..] else {
            return Err(unreadable());
        };
        let (mut counts, mut rooms) = (fields(counts)?, fields(rooms)?);
        if self
            .faults
            .at_key(counts.text(), || keys.counts())?
            .is_none()
        {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(peers.len());
        let mut others = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            let count = self.faults.at_key(counts.number(), || keys.counts())?;
            found.push(PeerCount::Known(count));
            // A peer who shares a direct room with the user exists. Whether the others exist has to be asked.
            if self.faults.at_key(rooms.text(), || keys.refs())?.is_none() {
                let mut exists = redis::cmd("HEXISTS");
                exists.arg(UserKeys::of(app, peer).counts()).arg("known");
                others.push((at, Item::Plain(exists)));
            }
        }
        let (places, items): (Vec<usize>, Vec<Item>) = others.into_iter().unzip();
        if items.is_empty() {
            return Ok(Some(found));
        }
        let exist = Box::pin(self.redis.send_all(&items)).await?;
        for (at, exists) in places.into_iter().zip(exist) {
            if let (0, Some(place)) = (number(&exists)?, found.get_mut(at)) {
                *place = PeerCount::Unknown;
            }
        }
        Ok(Some(found))
    }
}
