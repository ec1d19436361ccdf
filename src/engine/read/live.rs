//! What streams show of watched users.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use redis::Value;

use super::Reader;
use super::fields::{ALL_FAMILIES, PLAIN_KINDS, field};
use super::supergroup::{Contribution, Supergroup, SupergroupReply, unread_item};
use super::user::RoomRows;
use crate::connection::Item;
use crate::counts::{RoomUnread, Totals};
use crate::error::{Error, Result};
use crate::keys::{Enc, ONLOOKERS, RoomKeys, UserKeys, encode};
use crate::names::{AppId, UserId};
use crate::scripts;

/// How many users of one batch are worked out at the same time: only those in supergroups, or with rooms, take more round trips.
const AT_ONCE: usize = 16;

/// What streams show of one user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// All totals: zeros of an unknown user.
    pub totals: Totals,
    /// The joined active rooms by id, if they were asked for.
    pub rooms: Option<Vec<RoomUnread>>,
}

/// A supergroup that a watched user is in: the user's record of it, and its contribution to the totals.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    pub(crate) record: Arc<Supergroup>,
    pub(crate) contribution: Contribution,
}

/// A supergroup, and the users to whose totals it is asked for its contributions, with their records of it.
#[derive(Debug)]
pub(crate) struct SupergroupQuestion {
    pub(crate) room: Enc,
    pub(crate) users: Vec<(Enc, Arc<Supergroup>)>,
}

impl Reader {
    /// Says to all pods that these apps have streams.
    pub(crate) async fn tell_onlookers(&self, apps: &[&AppId]) -> Result<()> {
        let items: Vec<Item> = apps
            .iter()
            .map(|app| {
                let mut publish = redis::cmd("SPUBLISH");
                publish.arg(ONLOOKERS).arg(app.as_str());
                Item::Plain(publish)
            })
            .collect();
        self.redis.send_each(&items).await.map(drop)
    }

    /// Has the next change of each of these supergroups told. Answers of each whether it will be.
    pub(crate) async fn watch_rooms(&self, app: &AppId, rooms: &[Enc]) -> Vec<bool> {
        let items: Vec<Item> = rooms
            .iter()
            .map(|room| Item::Script(scripts::ROOM_WATCH.call(&[RoomKeys::new(app, room).meta()])))
            .collect();
        let answers = match self.redis.send_each(&items).await {
            Ok(answers) => answers,
            Err(error) => {
                self.complain(&error);
                return vec![false; rooms.len()];
            }
        };
        let is_told = answers.into_iter().zip(rooms).map(|(answer, room)| {
            let answer = self
                .faults
                .at_key(answer, || RoomKeys::new(app, room).meta());
            answer.map_err(|error| self.complain(&error)).is_ok()
        });
        is_told.collect()
    }

    /// The contributions of supergroups to the totals of users whose records of them have not changed: an answer for each
    /// question. Without one, these users have to be read one by one.
    pub(crate) async fn contributions(
        &self,
        app: &AppId,
        asked: &[SupergroupQuestion],
    ) -> Vec<Option<Vec<Contribution>>> {
        let items = asked.iter().map(|one| {
            let users = one.users.iter();
            unread_item(
                app,
                &one.room,
                users.map(|(user, record)| (user, record.as_ref())),
            )
        });
        let items: Vec<Item> = items.collect();
        let answers = match self.redis.send_each(&items).await {
            Ok(answers) => answers,
            Err(error) => {
                self.complain(&error);
                return vec![None; asked.len()];
            }
        };
        let contributions = asked.iter().zip(answers).map(|(one, answer)| {
            let contributions = answer.and_then(|answer| contributions_of(answer, &one.users));
            let contributions = self
                .faults
                .at_key(contributions, || RoomKeys::new(app, &one.room).meta());
            contributions.unwrap_or_else(|error| {
                self.complain(&error);
                None
            })
        });
        contributions.collect()
    }

    /// Reads users that are watched, each with or without rooms, and which supergroups each is in; and has the next change of
    /// each of them told. Such a call is no read that a caller waits for: it takes no place among these.
    pub(crate) async fn watch(
        &self,
        app: &AppId,
        users: Vec<(UserId, bool)>,
    ) -> Result<Vec<Result<(Shown, Vec<Followed>)>>> {
        // Before the counts are read: a migration may end meanwhile.
        let is_old = self.redis.is_old();
        let items: Vec<Item> = users
            .iter()
            .map(|(user, rooms)| watch_item(app, user, *rooms || is_old))
            .collect();
        let answers = match self.redis.send_each(&items).await {
            // Where no mark can be set, nothing changes either.
            Err(Error::Unavailable(why)) if why.trouble.is_of_writes() => {
                let items: Vec<Item> = users
                    .iter()
                    .map(|(user, rooms)| {
                        let what = if *rooms || is_old { "co" } else { "c" };
                        Self::overview_item(app, &encode(user.as_str()), what)
                    })
                    .collect();
                self.redis.send_each(&items).await?
            }
            answers => answers?,
        };
        let shown = users.into_iter().zip(answers);
        let shown =
            shown.map(|((user, rooms), answer)| self.shown(app, user, rooms, is_old, answer));
        Ok(stream::iter(shown).buffered(AT_ONCE).collect().await)
    }

    /// Takes away what [`Self::watch`] has left of those of these users of whom nothing is known. What fails is left.
    pub(crate) async fn unwatch(&self, app: &AppId, users: &[UserId]) {
        let item = |user| {
            let keys = UserKeys::of(app, user);
            Item::Script(scripts::USER_UNWATCH.call(&[keys.counts()]))
        };
        let items: Vec<Item> = users.iter().map(item).collect();
        // The link logs a failure.
        let _ = self.redis.send_each(&items).await;
    }

    async fn shown(
        &self,
        app: &AppId,
        user: UserId,
        rooms: bool,
        is_old: bool,
        answer: Result<Value>,
    ) -> Result<(Shown, Vec<Followed>)> {
        let name = encode(user.as_str());
        let keys = UserKeys::new(app, &name);
        let mut overview = match answer {
            Ok(answer) => self.read_overview(app, &name, answer).await,
            Err(error) => Err(error),
        };
        if let (true, Ok(overview)) = (is_old, &mut overview) {
            overview.work_out_unread_rooms();
        }
        let mut overview = self.faults.at_slot(overview, || keys.counts())?;
        if !overview.known {
            let rooms = rooms.then(Vec::new);
            let shown = Shown {
                rooms,
                ..Shown::default()
            };
            return Ok((shown, Vec::new()));
        }
        let supergroups = std::mem::take(&mut overview.supergroups);
        let supergroups = supergroups
            .into_iter()
            .map(|(record, contribution)| Followed {
                record: Arc::new(record),
                contribution,
            });
        let supergroups = supergroups.collect();
        let totals = self
            .faults
            .at_key(overview.totals(None), || keys.counts())?;
        let rooms = match rooms {
            true => Some(
                self.room_rows(&keys, &RoomRows::default(), overview.records)
                    .await?,
            ),
            false => None,
        };
        Ok((Shown { totals, rooms }, supergroups))
    }

    /// Logs why a watched user can't be read, if that is for what is stored.
    pub(crate) fn complain(&self, error: &Error) {
        self.faults.complain(error);
    }
}

fn contributions_of(
    answer: Value,
    users: &[(Enc, Arc<Supergroup>)],
) -> Result<Option<Vec<Contribution>>> {
    let mut answer = match SupergroupReply::parse(answer)? {
        SupergroupReply::Counts(answer) => answer,
        SupergroupReply::Gone => return Ok(Some(vec![Contribution::default(); users.len()])),
        SupergroupReply::Busy => return Ok(None),
    };
    let mut contributions = Vec::with_capacity(users.len());
    for (_, record) in users {
        let counted = answer.user()?;
        let contribution = counted.map(|counted| answer.contribution(record, counted));
        contributions.push(contribution.unwrap_or_default());
    }
    Ok(Some(contributions))
}

fn watch_item(app: &AppId, user: &UserId, rooms: bool) -> Item {
    let keys = UserKeys::of(app, user);
    let call =
        scripts::USER_WATCH.call(&[keys.counts(), keys.rooms(), keys.supers(), keys.marks()]);
    let mut call = call.arg(if rooms { "1" } else { "0" });
    for kind in PLAIN_KINDS {
        for family in ALL_FAMILIES {
            call.push(field(family, kind, ""));
        }
    }
    Item::Script(call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::CountPref;

    #[test]
    fn a_room_that_is_gone_adds_nothing_and_a_busy_one_has_its_users_read() {
        let users = [(encode("u"), Arc::new(Supergroup::just_joined("r")))];
        let text = |text: &str| Value::BulkString(text.into());
        let contributions = |answer| contributions_of(Value::Array(answer), &users).unwrap();
        assert_eq!(contributions(vec![]), Some(vec![Contribution::default()]));
        assert_eq!(contributions(vec![text("MANY")]), None);
        let of_room = ["supergroup", "1", "", "", "5", "", "", "7"].map(text);
        let of_user = ["3", "1", "4"].map(text);
        let contribution = Contribution::new('j', CountPref::default(), 3, 1).by(4);
        assert_eq!(
            contributions([&of_room[..], &of_user].concat()),
            Some(vec![contribution])
        );
        assert!(contributions_of(Value::Array(of_room.into()), &users).is_err());
    }
}
