//! All that the endpoints say at one moment, asked once and compared with many states of the model.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::operations::EVERYBODY;
use crate::serial::States;
use crate::support::check::{self, Answers, Check, Questions};
use crate::support::model::{Model, RoomsQuery};
use crate::support::{App, Reply};

/// Asks the app once for each thing.
pub(crate) struct Seen {
    app: App,
    replies: Mutex<HashMap<String, Reply>>,
}

impl Seen {
    pub(crate) fn of(app: &App) -> Self {
        Self {
            app: app.clone(),
            replies: Mutex::default(),
        }
    }

    async fn once(&self, what: String, ask: impl Future<Output = Reply> + Send) -> Reply {
        let known = self.replies.lock().unwrap().get(&what).cloned();
        if let Some(reply) = known {
            return reply;
        }
        let reply = ask.await;
        self.replies.lock().unwrap().insert(what, reply.clone());
        reply
    }
}

impl Answers for Seen {
    async fn unread(&self, user: &str, include_rooms: bool) -> Reply {
        let ask = self.app.unread(user, include_rooms);
        self.once(format!("unread {user} {include_rooms}"), ask)
            .await
    }

    async fn unread_many(&self, users: &[String]) -> Reply {
        let ask = self.app.unread_many(users);
        self.once(format!("unread_many {users:?}"), ask).await
    }

    async fn room_unread(&self, room: &str, users: Option<&[String]>) -> Reply {
        let ask = self.app.room_unread(room, users);
        self.once(format!("room_unread {room} {users:?}"), ask)
            .await
    }

    async fn room_read(&self, room: &str, users: Option<&[String]>) -> Reply {
        let ask = self.app.room_read(room, users);
        self.once(format!("room_read {room} {users:?}"), ask).await
    }

    async fn imkit_badges(&self, user: &str, tags: Option<&[String]>) -> Reply {
        let ask = self.app.imkit_badges(user, tags);
        self.once(format!("badges {user} {tags:?}"), ask).await
    }

    async fn imkit_rooms(&self, user: &str, query: &[(String, String)]) -> Reply {
        let ask = self.app.imkit_rooms(user, query);
        self.once(format!("rooms {user} {query:?}"), ask).await
    }

    async fn tencent_total(&self, to: &str) -> Reply {
        let ask = self.app.tencent_total(to);
        self.once(format!("tencent_total {to}"), ask).await
    }

    async fn tencent_peers(&self, to: &str, peers: &[String]) -> Reply {
        let ask = self.app.tencent_peers(to, peers);
        self.once(format!("tencent_peers {to} {peers:?}"), ask)
            .await
    }

    async fn sendbird(&self, user: &str, keys: Option<&str>, types: Option<&str>) -> Reply {
        let ask = self.app.sendbird(user, keys, types);
        self.once(format!("sendbird {user} {keys:?} {types:?}"), ask)
            .await
    }
}

fn names() -> Vec<String> {
    EVERYBODY.map(str::to_owned).to_vec()
}

/// What to ask of a user: of `a` more than of the others, since each question costs as much as an event.
fn questions(user: &str) -> Questions {
    let list = |words: &[&str]| match user {
        "a" => words.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    Questions {
        tags: list(&["x", "y"]),
        types: list(&["t", "u"]),
        peers: names(),
        rooms: vec![RoomsQuery::default()],
    }
}

/// Whether one of the states explains everything that is said: all that every user reads, and all that is read of the rooms.
pub(crate) async fn explain_all(seen: &Seen, states: Vec<Model>, room: &str) -> Check {
    let mut reasons = Reasons::default();
    for mut state in states {
        name_rooms(seen, &mut state).await;
        match all(seen, &state, room).await {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.add(reason),
        }
    }
    reasons.told()
}

async fn all(seen: &Seen, state: &Model, room: &str) -> Check {
    check::many(seen, state, &names()).await?;
    for user in EVERYBODY {
        match user {
            // Seldom concerned.
            "c" => check::native(seen, state, user).await?,
            _ => check::user(seen, state, user, &questions(user)).await?,
        }
    }
    for room in rooms(state, room) {
        check::room(seen, state, &room, &names()).await?;
    }
    Ok(())
}

/// Whether what each user reads of the own counts is explained by one of the states, while something is under way: one user may
/// have been told of it and another not. `answered` are the events that were answered meanwhile, so that whom they concern has
/// been told of them. Who may be gone by what is under way may not know it yet, and is then told of nothing else. The calls that
/// put together what a user's slot and what a room says are not asked: the room knows of an event before its members do.
pub(crate) async fn explain_each(seen: &Seen, mut states: States, answered: &[Value]) -> Check {
    for state in states.complete.iter_mut().chain(&mut states.partial) {
        name_rooms(seen, state).await;
    }
    let States { complete, partial } = &states;
    for user in EVERYBODY {
        let rooms = |state: &Model| {
            let theirs = state
                .rooms
                .values()
                .filter(|room| room.members.contains_key(user));
            theirs.count()
        };
        let may_be_gone =
            complete.iter().map(rooms).min() < complete.iter().chain(partial).map(rooms).max();
        // What was answered is in one of several rooms, and what is under way may be in another.
        let elsewhere = complete.iter().any(|state| rooms(state) > 1);
        let concerned = answered.iter().any(|event| concerns(event, user));
        let late = may_be_gone || elsewhere || !concerned;
        let mut reasons = Reasons::default();
        for state in complete.iter().chain(partial.iter().filter(|_| late)) {
            reasons.take(check::native(seen, state, user).await);
        }
        reasons.told()?;
    }
    Ok(())
}

/// Whether a user's own counts may have to change by an event.
fn concerns(event: &Value, user: &str) -> bool {
    match event["type"].as_str().unwrap_or_default() {
        "message.sent" if event["to"].is_string() => event["sender"] == user || event["to"] == user,
        "room.read" | "pref.updated" | "user.updated" | "user.deleted" | "user.read_all" => {
            event["user"] == user
        }
        _ => true,
    }
}

/// Why each of several states does not explain what is said.
#[derive(Default)]
struct Reasons {
    explained: bool,
    against: BTreeSet<String>,
}

impl Reasons {
    fn add(&mut self, reason: String) {
        self.against.insert(reason);
    }

    fn take(&mut self, check: Check) {
        match check {
            Ok(()) => self.explained = true,
            Err(reason) => self.add(reason),
        }
    }

    fn told(self) -> Check {
        if self.explained {
            return Ok(());
        }
        let all: Vec<String> = self.against.into_iter().collect();
        Err(all.join("\n  or "))
    }
}

fn rooms(state: &Model, room: &str) -> BTreeSet<String> {
    let known = state.rooms.keys().cloned();
    known.chain([room.to_owned()]).collect()
}

/// Finds out which ids the rooms have that messages by `to` made: those that nothing else in the state explains.
async fn name_rooms(seen: &Seen, state: &mut Model) {
    let unnamed: Vec<String> = state
        .rooms
        .keys()
        .filter(|id| id.starts_with('\u{1}'))
        .cloned()
        .collect();
    for id in unnamed {
        let pair: Vec<&str> = id.split('\u{1}').skip(1).collect();
        let members: BTreeSet<&str> = state.rooms[&id].joined().collect();
        let mut found = None;
        for user in &pair {
            let reply = seen
                .imkit_rooms(user, &RoomsQuery::default().parameters(user))
                .await;
            let rows = reply.body["result"]["data"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let rows = rows
                .into_iter()
                .filter(|row| row["roomType"] == json!("direct"));
            let new = rows.filter(|row| !state.rooms.contains_key(id_of(row)));
            for row in new {
                let list = row["members"].as_array();
                let theirs: BTreeSet<&str> = list.into_iter().flatten().map(id_of).collect();
                if found.is_none() || theirs == members {
                    found = Some(id_of(&row).to_owned());
                }
            }
        }
        if let Some(found) = found {
            state.learn(pair[0], pair[1], &found);
        }
    }
}

fn id_of(row: &Value) -> &str {
    row["_id"].as_str().unwrap_or("")
}
