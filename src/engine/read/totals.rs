//! Totals of one user or of many.

use std::pin::pin;

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;

use super::Reader;
use super::fields::{ALL_FAMILIES, FAMILIES, PLAIN_KINDS, hmget, push_joined, suffixes};
use crate::connection::Item;
use crate::counts::Totals;
use crate::counts::number::add;
use crate::engine::reply::fields;
use crate::error::Result;
use crate::keys::{Enc, UserKeys, encode};
use crate::names::{AppId, CustomType, UserId};
use crate::quota::Limit;

/// Users with supergroups that one request reads at the same time.
const USERS_AT_ONCE: usize = 32;

/// What the plain counts say of one user's totals.
enum PlainTotals {
    Unknown,
    Totals(Totals),
    /// The user has supergroups, whose counts have to be worked out.
    HasSupergroups,
}

impl Reader {
    fn plain_totals_item(
        app: &AppId,
        user: &UserId,
        suffixes: &[String],
        families: &[&str],
    ) -> Item {
        let length = suffixes.iter().map(|suffix| 20 + suffix.len());
        let each = PLAIN_KINDS.len() * families.len();
        let mut get = hmget(
            &UserKeys::of(app, user).counts(),
            2 + each * suffixes.len(),
            11 + each * length.sum::<usize>(),
        );
        get.arg("known").arg("supers");
        for kind in PLAIN_KINDS {
            for suffix in suffixes {
                for family in families {
                    push_joined(&mut get, &[family, ":", kind.as_str(), suffix]);
                }
            }
        }
        Item::Plain(get)
    }

    fn plain_totals(answer: &Value, suffixes: &[String], families: &[&str]) -> Result<PlainTotals> {
        let mut reply = fields(answer)?;
        let known = reply.text()?.is_some();
        let supers = reply.number()?;
        if !known {
            return Ok(PlainTotals::Unknown);
        }
        if supers > 0 {
            return Ok(PlainTotals::HasSupergroups);
        }
        let mut totals = Totals::default();
        for kind in PLAIN_KINDS {
            for _ in suffixes {
                for family in families {
                    add(totals.family(family).of(kind), reply.number()?)?;
                }
            }
        }
        Ok(PlainTotals::Totals(totals))
    }

    /// All totals of `user` but the number of unread rooms, over rooms of the given custom types, or over all rooms. `None`: an
    /// unknown user.
    pub(crate) async fn totals(
        &self,
        app: &AppId,
        user: &UserId,
        types: Option<&[CustomType]>,
        limit: &mut dyn Limit,
    ) -> Result<Option<Totals>> {
        let _place = self.admission.read()?;
        let suffixes = suffixes(types);
        let get = Self::plain_totals_item(app, user, &suffixes, &FAMILIES);
        let read = pin!(self.redis.send(&get));
        let answer = self.charged(read, limit).await?;
        let plain = Self::plain_totals(&answer, &suffixes, &FAMILIES);
        Ok(
            match self
                .faults
                .at_key(plain, || UserKeys::of(app, user).counts())?
            {
                PlainTotals::Unknown => None,
                PlainTotals::Totals(totals) => Some(totals),
                PlainTotals::HasSupergroups => {
                    let name = encode(user.as_str());
                    let overview = Box::pin(self.overview(app, &name, "c")).await?;
                    let totals = overview.known.then(|| overview.totals(types));
                    self.faults
                        .at_key(totals.transpose(), || UserKeys::of(app, user).counts())?
                }
            },
        )
    }

    /// All totals of each of `users`, in their order. `None`: an unknown user.
    pub(crate) async fn totals_of(
        &self,
        app: &AppId,
        users: &[&UserId],
    ) -> Result<Vec<Option<Totals>>> {
        let _place = self.admission.read()?;
        self.totals_in_place(app, users).await
    }

    /// The same, for a call that has its place among the reads already.
    pub(super) async fn totals_in_place(
        &self,
        app: &AppId,
        users: &[&UserId],
    ) -> Result<Vec<Option<Totals>>> {
        let suffixes = suffixes(None);
        // Before the counts are read: a migration may end meanwhile.
        let is_old = self.redis.is_old();
        let items: Vec<Item> = users
            .iter()
            .map(|user| Self::plain_totals_item(app, user, &suffixes, &ALL_FAMILIES))
            .collect();
        let answers = self.redis.send_all(&items).await?;
        let mut totals = Vec::with_capacity(users.len());
        let mut with_supergroups = Vec::new();
        for (at, answer) in answers.iter().enumerate() {
            let plain =
                self.faults
                    .at_key(Self::plain_totals(answer, &suffixes, &ALL_FAMILIES), || {
                        let user = users.get(at).map(|user| UserKeys::of(app, user).counts());
                        user.unwrap_or_default()
                    });
            totals.push(match plain? {
                PlainTotals::Unknown => None,
                PlainTotals::Totals(totals) if !is_old => Some(totals),
                _ => {
                    let user = users.get(at).map(|user| encode(user.as_str()));
                    with_supergroups.extend(user.map(|user| (at, user)));
                    None
                }
            });
        }
        let mut overviews = stream::iter(with_supergroups)
            .map(|(at, user): (usize, Enc)| async move {
                Ok((at, self.overview(app, &user, "c").await?))
            })
            .buffer_unordered(USERS_AT_ONCE);
        while let Some((at, overview)) = overviews.try_next().await? {
            if let Some(place) = totals.get_mut(at) {
                *place = overview.known.then(|| overview.totals(None)).transpose()?;
            }
        }
        Ok(totals)
    }
}
