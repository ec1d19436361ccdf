//! Unread messages by room tag.

use std::collections::BTreeMap;
use std::pin::pin;

use super::Reader;
use super::fields::{hmget, push_joined};
use crate::connection::Item;
use crate::engine::reply::{Reply, bytes, fields, stored};
use crate::error::Result;
use crate::keys::{UserKeys, decode, encode, encoded, is_encoded};
use crate::names::{AppId, Tag, UserId};
use crate::quota::Limit;
use crate::scripts;

impl Reader {
    /// Unread messages by tag: of the given tags in their order (0 for a tag that no room has), or, without given tags, of all
    /// tags of the active rooms that the user has joined, sorted, zeros included. An unknown user counts as a user without rooms.
    pub(crate) async fn tags(
        &self,
        app: &AppId,
        user: &UserId,
        tags: Option<Vec<Tag>>,
        limit: &mut dyn Limit,
    ) -> Result<Vec<(Tag, u64)>> {
        let _place = self.admission.read()?;
        let keys = UserKeys::of(app, user);
        let Some(tags) = tags else {
            return Box::pin(self.all_tags(app, user, &keys, limit)).await;
        };
        let length = tags.iter().map(|tag| tag.as_str().len() + 4).sum::<usize>();
        let mut get = hmget(&keys.counts(), tags.len() + 1, length + 6);
        get.arg("supers");
        for tag in &tags {
            push_joined(&mut get, &["tag:", &encoded(tag.as_str())]);
        }
        let get = Item::Plain(get);
        let read = pin!(self.redis.send(&get));
        let answer = self.charged(read, limit).await?;
        let mut reply = fields(&answer)?;
        let supergroups = self.faults.at_key(reply.number(), || keys.counts())?;
        let counted = if supergroups > 0 {
            let user = encode(user.as_str());
            let overview = Box::pin(self.overview(app, &user, "cr")).await?;
            let all = self.faults.at_key(overview.tags(), || keys.counts())?;
            let counted = tags.into_iter().map(|tag| {
                let n = all.get(tag.as_str()).copied().unwrap_or(0);
                (tag, n)
            });
            counted.collect()
        } else {
            let counted = tags.into_iter().map(|tag| Ok((tag, reply.number()?)));
            let counted: Result<_> = counted.collect();
            self.faults.at_key(counted, || keys.counts())?
        };
        Ok(counted)
    }

    async fn all_tags(
        &self,
        app: &AppId,
        user: &UserId,
        keys: &UserKeys,
        limit: &mut dyn Limit,
    ) -> Result<Vec<(Tag, u64)>> {
        let call = scripts::USER_TAGS.call(&[keys.counts(), keys.refs()]);
        let read = pin!(self.redis.call(&call));
        let answer = self.charged(read, limit).await?;
        let mut reply = Reply::new(answer)?;
        let supergroups = self
            .faults
            .at_key(stored(&reply.value()?), || keys.counts())?;
        let all = if supergroups > 0 {
            let overview = self.overview(app, &encode(user.as_str()), "cr").await?;
            self.faults.at_key(overview.tags(), || keys.counts())?
        } else {
            let mut all = BTreeMap::new();
            while !reply.is_empty() {
                let (tag, n) = (bytes(reply.value()?)?, stored(&reply.value()?));
                // A field name that this program does not write is no tag.
                if let Ok(tag) = String::from_utf8(tag)
                    && is_encoded(&tag)
                {
                    all.insert(decode(&tag), self.faults.at_key(n, || keys.counts())?);
                }
            }
            all
        };
        let named = |(tag, n)| Some((Tag::parse(tag).ok()?, n));
        let counted = all.into_iter().filter_map(named).collect();
        Ok(counted)
    }
}
