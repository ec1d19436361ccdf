//! Lists the counts of all users, and compares them with a list from elsewhere. It reads what callers are answered, and writes
//! nothing. A user's rows are read together: rooms whose counts are kept at one instant, supergroups right after it.
//!
//! What is held does not grow with the list. Its rows are compared part by part. To find what the list leaves out, a pass over all
//! users looks each room with unread messages up among the rows, of which a number stands for each; a list with more rows than
//! can be held so takes several passes.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::audit::Audit;
use crate::counts::JoinedRoom;
use crate::engine::{Engine, Reader};
use crate::error::{Error, Result};
use crate::keys::{self, Enc, decode, encode};
use crate::names::{AppId, RoomId, UserId};

/// How many users are read at the same time.
const USERS_AT_ONCE: usize = 16;
/// How many rows of a list are compared together, so that the user of many of them is read once.
const ROWS_AT_ONCE: usize = 200_000;
/// How many rows are remembered in one pass over all users.
const REMEMBERED: u64 = 8_000_000;

/// One row of a list: how much a user has unread in a room.
#[derive(Debug, Clone)]
pub(crate) struct ListedCounts {
    /// The number of its line.
    pub line: u64,
    /// The room.
    pub room: RoomId,
    /// The user.
    pub user: UserId,
    /// Unread messages.
    pub unread: u64,
    /// The unread messages that mention the user, if the list says it.
    pub mentions: Option<u64>,
}

/// What a user has unread in a room here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CountsHere {
    /// So many messages, and so many of them mention the user.
    Counts {
        /// Unread messages.
        unread: u64,
        /// Of these, those that mention the user.
        mentions: u64,
    },
    /// The user has not joined the room, or the room is inactive, or there is no such user or room.
    NotThere,
    /// The user's slot can't be read: why.
    Unreadable(String),
}

/// A row of a list that differs from what is here, or a room with unread messages that the list leaves out.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    /// The number of the row's line; `None`: the list leaves the room out.
    pub line: Option<u64>,
    /// The room; `None`: all rooms of a user who can't be read and of whom the list need not have any.
    pub room: Option<String>,
    /// The user.
    pub user: String,
    /// What the list says, if it says anything: unread messages, and mentions if it says those.
    pub listed: Option<(u64, Option<u64>)>,
    /// What is here.
    pub here: CountsHere,
}

/// The counts of one user.
#[derive(Debug)]
pub(crate) struct UserCounts {
    /// The user.
    pub user: String,
    /// When they were read: milliseconds since the epoch.
    pub time: i64,
    /// The user's joined active rooms, by id; an error: the user's slot can't be read, and why.
    pub rooms: Result<Vec<JoinedRoom>, String>,
}

/// How far a walk or a comparison has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ListProgress {
    /// How much of the work is done, 0 to 1.
    pub fraction: f64,
    /// Users looked at.
    pub users: u64,
    /// Rows written or compared.
    pub rows: u64,
}

/// Reads the counts of all users.
pub(crate) struct CountsAudit {
    audit: Audit,
    reader: Arc<Reader>,
}

impl CountsAudit {
    /// Of what this engine keeps.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            audit: Audit::new(engine),
            reader: Arc::clone(&engine.reader),
        }
    }

    /// The audit that walks through the users.
    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Calls `found` with the counts of each user of an app. A user may come twice while Redis changes the size of its tables.
    pub(crate) async fn list<E: From<Error>>(
        &self,
        app: &AppId,
        mut found: impl FnMut(UserCounts) -> Result<(), E>,
        on_progress: impl Fn(&ListProgress),
    ) -> Result<ListProgress, E> {
        let mut progress = ListProgress::default();
        let pattern = keys::pattern_of_slots(Some(app), false, Some("counts"));
        let mut walk = self.audit.scan_all(pattern).await?;
        while let Some(page) = self.audit.next_page(&mut walk).await? {
            let mut users = stream::iter(page.users.into_keys())
                .map(|(app, user)| async move { self.user(&app, &user).await })
                .buffered(USERS_AT_ONCE);
            while let Some(user) = users.try_next().await? {
                let Some(user) = user else { continue };
                progress.users += 1;
                progress.rows += user.rooms.as_ref().map_or(0, Vec::len) as u64;
                found(user)?;
            }
            progress.fraction = walk.fraction();
            on_progress(&progress);
        }
        Ok(progress)
    }

    /// The counts of one user; `None`: there is no such user.
    async fn user(&self, app: &AppId, user: &Enc) -> Result<Option<UserCounts>> {
        let time = now();
        let rooms = match self.reader.counts_of_rooms(app, user).await {
            Ok(Some(rooms)) => Ok(rooms),
            Ok(None) => return Ok(None),
            Err(Error::Unreadable(what)) => Err(what.to_string()),
            Err(error) => return Err(error),
        };
        Ok(Some(UserCounts {
            user: decode(user.as_str()),
            time,
            rooms,
        }))
    }

    /// Compares rows of a list with what is here, and calls `found` with those that differ, in their order.
    pub(crate) async fn compare<E: From<Error>>(
        &self,
        app: &AppId,
        rows: impl Iterator<Item = Result<ListedCounts, E>>,
        mut found: impl FnMut(Difference),
        on_progress: impl Fn(&ListProgress),
    ) -> Result<ListProgress, E> {
        let mut progress = ListProgress::default();
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            let mut by_user: BTreeMap<UserId, Vec<ListedCounts>> = BTreeMap::new();
            for row in rows.by_ref().take(ROWS_AT_ONCE) {
                let row = row?;
                progress.rows += 1;
                by_user.entry(row.user.clone()).or_default().push(row);
            }
            progress.users += by_user.len() as u64;
            let mut users = stream::iter(by_user)
                .map(|(user, rows)| async move {
                    let here = self.user(app, &encode(user.as_str())).await?;
                    Ok::<_, Error>(differences(here.as_ref(), rows))
                })
                .buffer_unordered(USERS_AT_ONCE);
            let mut differing = BTreeMap::new();
            while let Some(differences) = users.try_next().await? {
                differing.extend(differences);
            }
            differing.into_values().for_each(&mut found);
            on_progress(&progress);
        }
        Ok(progress)
    }

    /// Calls `found` with each room of a user that has unread messages and is in none of `rows`, so many there are of them. `rows`
    /// reads them anew for each pass.
    pub(crate) async fn left_out<E: From<Error>, I: Iterator<Item = Result<ListedCounts, E>>>(
        &self,
        app: &AppId,
        rows: impl Fn() -> Result<I, E>,
        count: u64,
        mut found: impl FnMut(Difference),
        on_progress: impl Fn(&ListProgress),
    ) -> Result<(), E> {
        let numbers = RandomState::new();
        let number = |user: &str, room: &str| numbers.hash_one((user, room));
        let passes = count.div_ceil(REMEMBERED).max(1);
        for pass in 0..passes {
            let is_due = |number: &u64| number % passes == pass;
            let mut listed = HashSet::new();
            for row in rows()? {
                let row = row?;
                listed.extend(Some(number(row.user.as_str(), row.room.as_str())).filter(is_due));
            }
            let user = |user: UserCounts| {
                let rooms = match user.rooms {
                    Ok(rooms) => rooms,
                    Err(_) if pass > 0 => return Ok(()),
                    Err(why) => {
                        found(Difference {
                            line: None,
                            room: None,
                            user: user.user,
                            listed: None,
                            here: CountsHere::Unreadable(why),
                        });
                        return Ok(());
                    }
                };
                for room in rooms.into_iter().filter(|room| room.messages > 0) {
                    let number = number(&user.user, &room.room);
                    if is_due(&number) && !listed.contains(&number) {
                        found(Difference {
                            line: None,
                            here: CountsHere::Counts {
                                unread: room.messages,
                                mentions: room.mentions,
                            },
                            room: Some(room.room),
                            user: user.user.clone(),
                            listed: None,
                        });
                    }
                }
                Ok(())
            };
            let on_progress = |progress: &ListProgress| {
                let fraction = (pass as f64 + progress.fraction) / passes as f64;
                on_progress(&ListProgress {
                    fraction,
                    ..*progress
                });
            };
            self.list(app, user, on_progress).await?;
        }
        Ok(())
    }
}

/// The rows of one user that differ from what is here, by line.
fn differences(here: Option<&UserCounts>, rows: Vec<ListedCounts>) -> Vec<(u64, Difference)> {
    let mut rooms: HashMap<&str, CountsHere> = HashMap::new();
    let mut unreadable = None;
    match here.map(|here| &here.rooms) {
        Some(Ok(found)) => {
            rooms.extend(found.iter().map(|room| {
                let (unread, mentions) = (room.messages, room.mentions);
                (room.room.as_str(), CountsHere::Counts { unread, mentions })
            }));
        }
        Some(Err(why)) => unreadable = Some(CountsHere::Unreadable(why.clone())),
        None => {}
    }
    let mut differing = Vec::new();
    for row in rows {
        let here = rooms.get(row.room.as_str()).or(unreadable.as_ref());
        let here = here.cloned().unwrap_or(CountsHere::NotThere);
        if !is_equal(&row, &here) {
            let difference = Difference {
                line: Some(row.line),
                room: Some(row.room.to_string()),
                user: row.user.to_string(),
                listed: Some((row.unread, row.mentions)),
                here,
            };
            differing.push((row.line, difference));
        }
    }
    differing
}

fn is_equal(row: &ListedCounts, here: &CountsHere) -> bool {
    match here {
        CountsHere::Counts { unread, mentions } => {
            row.unread == *unread && row.mentions.is_none_or(|listed| listed == *mentions)
        }
        CountsHere::NotThere | CountsHere::Unreadable(_) => false,
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let milliseconds = since.and_then(|since| i64::try_from(since.as_millis()).ok());
    milliseconds.unwrap_or(0)
}
