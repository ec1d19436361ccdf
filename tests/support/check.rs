//! Asks every endpoint and compares the answers with the model's.
//!
//! Every function answers `Err` with what differs instead of panicking, so that a test can also wait for agreement.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::model::{ITEM_KEYS, Model, Outcome, Peer, RoomsQuery};
use super::{App, Reply};

pub type Check = Result<(), String>;

/// Waits for checks that run at the same time, and panics with the reasons of all that fail.
pub async fn all(checks: JoinSet<Check>) {
    let done = checks.join_all().await;
    let failures: Vec<String> = done.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// What is asked: an app, or answers that it gave before.
pub trait Answers: Sync {
    fn unread(&self, user: &str, include_rooms: bool) -> impl Future<Output = Reply> + Send;
    fn unread_many(&self, users: &[String]) -> impl Future<Output = Reply> + Send;
    fn room_unread(
        &self,
        room: &str,
        users: Option<&[String]>,
    ) -> impl Future<Output = Reply> + Send;
    fn room_read(&self, room: &str, users: Option<&[String]>)
    -> impl Future<Output = Reply> + Send;
    fn imkit_badges(
        &self,
        user: &str,
        tags: Option<&[String]>,
    ) -> impl Future<Output = Reply> + Send;
    fn imkit_rooms(
        &self,
        user: &str,
        query: &[(String, String)],
    ) -> impl Future<Output = Reply> + Send;
    fn tencent_total(&self, to: &str) -> impl Future<Output = Reply> + Send;
    fn tencent_peers(&self, to: &str, peers: &[String]) -> impl Future<Output = Reply> + Send;
    fn sendbird(
        &self,
        user: &str,
        keys: Option<&str>,
        types: Option<&str>,
    ) -> impl Future<Output = Reply> + Send;
}

impl Answers for App {
    async fn unread(&self, user: &str, include_rooms: bool) -> Reply {
        self.unread(user, include_rooms).await
    }

    async fn unread_many(&self, users: &[String]) -> Reply {
        self.unread_many(users).await
    }

    async fn room_unread(&self, room: &str, users: Option<&[String]>) -> Reply {
        self.room_unread(room, users).await
    }

    async fn room_read(&self, room: &str, users: Option<&[String]>) -> Reply {
        self.room_read(room, users).await
    }

    async fn imkit_badges(&self, user: &str, tags: Option<&[String]>) -> Reply {
        self.imkit_badges(user, tags).await
    }

    async fn imkit_rooms(&self, user: &str, query: &[(String, String)]) -> Reply {
        self.imkit_rooms(user, query).await
    }

    async fn tencent_total(&self, to: &str) -> Reply {
        self.tencent_total(to).await
    }

    async fn tencent_peers(&self, to: &str, peers: &[String]) -> Reply {
        self.tencent_peers(to, peers).await
    }

    async fn sendbird(&self, user: &str, keys: Option<&str>, types: Option<&str>) -> Reply {
        self.sendbird(user, keys, types).await
    }
}

fn same(what: impl Fn() -> String, got: &Value, expected: &Value) -> Check {
    if got == expected {
        Ok(())
    } else {
        Err(format!("{}:\n     got {got}\nexpected {expected}", what()))
    }
}

fn status(what: impl Fn() -> String, reply: &Reply, expected: u16) -> Check {
    if reply.status == expected {
        return Ok(());
    }
    Err(format!(
        "{}: HTTP {} where {expected} was expected: {}",
        what(),
        reply.status,
        reply.text
    ))
}

/// Compares one event's result. `accepted_will_do`: the caller did not wait, so `accepted` is as good as `applied`.
pub fn result(event: &Value, got: &Value, expected: &Outcome, accepted_will_do: bool) -> Check {
    let word = got["status"].as_str().unwrap_or("");
    let as_applied = word == "applied" || accepted_will_do && word == "accepted";
    let position = got["position"].as_u64();
    let right = match expected {
        Outcome::Applied(at) => as_applied && position == *at,
        Outcome::Duplicate(at) => word == "duplicate" && position == *at,
        Outcome::Rejected(code) => {
            word == "rejected" && got["error"]["code"] == *code && position.is_none()
        }
    };
    if right {
        Ok(())
    } else {
        Err(format!(
            "event {event}:\n     got {got}\nexpected {expected:?}"
        ))
    }
}

/// Compares the whole answer to `POST /v1/events`.
pub fn results(
    events: &[Value],
    reply: &Reply,
    expected: &[Outcome],
    accepted_will_do: bool,
) -> Check {
    status(|| "POST /v1/events".to_owned(), reply, 200)?;
    let got = reply.body["results"]
        .as_array()
        .ok_or_else(|| format!("no results: {}", reply.text))?;
    if got.len() != events.len() {
        return Err(format!(
            "{} results for {} events: {}",
            got.len(),
            events.len(),
            reply.text
        ));
    }
    for ((event, got), expected) in events.iter().zip(got).zip(expected) {
        result(event, got, expected, accepted_will_do)?;
    }
    let count = |of: fn(&Outcome) -> bool| expected.iter().filter(|o| of(o)).count();
    let sums = json!({
        "applied": count(|o| matches!(o, Outcome::Applied(_))),
        "duplicate": count(|o| matches!(o, Outcome::Duplicate(_))),
        "rejected": count(|o| matches!(o, Outcome::Rejected(_))),
    });
    for (name, expected) in sums.as_object().into_iter().flatten() {
        let mut got = reply.body[name].as_u64().unwrap_or(0);
        if name == "applied" && accepted_will_do {
            got += reply.body["accepted"].as_u64().unwrap_or(0);
        }
        same(|| format!("the number of {name}"), &json!(got), expected)?;
    }
    Ok(())
}

/// The counts of all these users in one call.
pub async fn many(app: &impl Answers, model: &Model, users: &[String]) -> Check {
    let reply = app.unread_many(users).await;
    let what = || "POST /v1/unread".to_owned();
    status(what, &reply, 200)?;
    let expected = model.native_many(users);
    for user in users {
        same(
            || format!("POST /v1/unread, user {user:?}"),
            &reply.body["users"][user],
            &expected[user],
        )?;
    }
    same(
        what,
        &json!(reply.body["users"].as_object().map(Map::len)),
        &json!(expected.as_object().map(Map::len)),
    )
}

/// What to ask about one user beyond what is always asked.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    pub tags: Vec<String>,
    pub types: Vec<String>,
    /// At most ten.
    pub peers: Vec<String>,
    pub rooms: Vec<RoomsQuery>,
}

/// All endpoints, for one user.
pub async fn user(app: &impl Answers, model: &Model, user: &str, ask: &Questions) -> Check {
    let plain = async {
        native(app, model, user).await?;
        tencent(app, model, user, &ask.peers).await?;
        sendbird(app, model, user, None).await?;
        if !ask.types.is_empty() {
            sendbird(app, model, user, Some(&ask.types)).await?;
        }
        Ok(())
    };
    let imkit = async {
        badges(app, model, user, None).await?;
        if !ask.tags.is_empty() {
            badges(app, model, user, Some(&ask.tags)).await?;
        }
        for query in &ask.rooms {
            rooms(app, model, user, query).await?;
        }
        Ok(())
    };
    let (one, other): (Check, Check) = tokio::join!(plain, imkit);
    one.and(other)
}

/// All counts of one user by the native API.
pub async fn native(app: &impl Answers, model: &Model, user: &str) -> Check {
    let what = || format!("GET /v1/users/{user:?}/unread?include=rooms");
    let mut reply = app.unread(user, true).await;
    let Some(expected) = model.native(user, true) else {
        return status(what, &reply, 404);
    };
    status(what, &reply, 200)?;
    for room in reply.body["rooms"].as_array_mut().into_iter().flatten() {
        sort(&mut room["tags"]);
        if let (Some(row), true) = (room.as_object_mut(), model.lost_messages) {
            row.retain(|name, _| name != "read_position" && name != "head");
        }
        room.as_object_mut()
            .map(|room| room.entry("custom_type").or_insert(Value::Null));
    }
    // Only its changes say something.
    let stamp = reply
        .body
        .as_object_mut()
        .and_then(|body| body.remove("stamp"));
    if !stamp.is_some_and(|stamp| stamp.is_string()) {
        return Err(format!("{}: no stamp", what()));
    }
    same(what, &reply.body, &expected)
}

async fn tencent(app: &impl Answers, model: &Model, user: &str, peers: &[String]) -> Check {
    let what = || format!("Tencent, total of {user:?}");
    let reply = app.tencent_total(user).await;
    status(what, &reply, 200)?;
    let Some(total) = model.tencent_total(user) else {
        same(what, &reply.body["ActionStatus"], &json!("FAIL"))?;
        return same(what, &reply.body["ErrorCode"], &json!(90003));
    };
    let envelope = json!({"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0});
    let mut expected = envelope.clone();
    expected["AllC2CUnreadMsgNum"] = total.into();
    same(what, &reply.body, &expected)?;

    if peers.is_empty() {
        return Ok(());
    }
    let what = || format!("Tencent, peers {peers:?} of {user:?}");
    let mut reply = app.tencent_peers(user, peers).await;
    status(what, &reply, 200)?;
    let (mut counts, mut errors) = (Vec::new(), Vec::new());
    for (peer, answer) in model.tencent_peers(user, peers).unwrap_or_default() {
        match answer {
            Peer::Count(count) => {
                counts.push(json!({"Peer_Account": peer, "C2CUnreadMsgNum": count}))
            }
            Peer::Unknown => errors.push(json!({"Peer_Account": peer, "ErrorCode": 70107})),
        }
    }
    let mut expected = envelope;
    if counts.is_empty() {
        // Left out or empty: the vendor's documents show neither.
        if reply.body["C2CUnreadMsgNumList"] == json!([]) {
            reply
                .body
                .as_object_mut()
                .map(|body| body.remove("C2CUnreadMsgNumList"));
        }
    } else {
        expected["C2CUnreadMsgNumList"] = counts.into();
    }
    if !errors.is_empty() {
        expected["ErrorList"] = errors.into();
    }
    same(what, &reply.body, &expected)
}

async fn sendbird(
    app: &impl Answers,
    model: &Model,
    user: &str,
    types: Option<&[String]>,
) -> Check {
    let what = || format!("Sendbird, {user:?}, custom types {types:?}");
    let list = types.map(|types| types.join(","));
    let reply = app.sendbird(user, None, list.as_deref()).await;
    let Some(expected) = model.sendbird(user, types) else {
        status(what, &reply, 400)?;
        return same(
            what,
            &reply.body,
            &json!({"error": true, "code": 400_201, "message": "\"User\" not found."}),
        );
    };
    status(what, &reply, 200)?;
    same(what, &reply.body, &json!(expected))?;
    // A part of the keys: those and no others.
    let two = [ITEM_KEYS[2], ITEM_KEYS[6]];
    let reply = app
        .sendbird(user, Some(&two.join(",")), list.as_deref())
        .await;
    same(
        what,
        &reply.body,
        &two.iter()
            .map(|key| (*key, expected[key]))
            .collect::<BTreeMap<_, _>>()
            .into_json(),
    )
}

async fn badges(app: &impl Answers, model: &Model, user: &str, tags: Option<&[String]>) -> Check {
    let what = || format!("IMKIT badges of {user:?}, tags {tags:?}");
    let reply = app.imkit_badges(user, tags).await;
    status(what, &reply, 200)?;
    let data = model.badges(user, tags);
    let total: u64 = data.values().sum();
    same(
        what,
        &reply.body,
        &json!({"RC": 0, "RM": "OK", "result": {"totalBadge": total, "data": data}}),
    )
}

async fn rooms(app: &impl Answers, model: &Model, user: &str, query: &RoomsQuery) -> Check {
    let parameters = query.parameters(user);
    let what = || format!("IMKIT GET /rooms of {user:?} with {parameters:?}");
    let reply = app.imkit_rooms(user, &parameters).await;
    status(what, &reply, 200)?;
    same(
        what,
        &json!([reply.body["RC"], reply.body["RM"]]),
        &json!([0, "OK"]),
    )?;
    let (total, expected) = model.rooms(user, query);
    let result = &reply.body["result"];
    let got = result["data"]
        .as_array()
        .ok_or_else(|| format!("{}: no data: {}", what(), reply.text))?;
    let ids = |rows: &[Value]| rows.iter().map(|row| row["_id"].clone()).collect::<Value>();
    same(
        || format!("{}: the order", what()),
        &ids(got),
        &ids(&expected),
    )?;
    same(
        || format!("{}: totalCount", what()),
        &result["totalCount"],
        &json!(total),
    )?;
    for (got, expected) in got.iter().zip(&expected) {
        same(what, &normal(got, expected), expected)?;
    }
    Ok(())
}

/// A room of the answer in the model's normal form.
fn normal(got: &Value, expected: &Value) -> Value {
    let mut row = Map::new();
    for (name, wanted) in expected.as_object().into_iter().flatten() {
        let mut value = got[name].clone();
        match name.as_str() {
            "roomTags" => sort(&mut value),
            "members" => {
                let members = value.as_array_mut().map(std::mem::take).unwrap_or_default();
                let mut members: Vec<Value> = members.iter().map(member).collect();
                members.sort_by(|a, b| a["_id"].as_str().cmp(&b["_id"].as_str()));
                value = members.into();
            }
            "lastMessage" if value.is_object() => {
                let mut last = Map::new();
                for name in [
                    "_id",
                    "id",
                    "room",
                    "messageTimeMS",
                    "createdAtMS",
                    "extra",
                    "messageType",
                    "message",
                ] {
                    last.insert(name.to_owned(), value[name].clone());
                }
                if last["message"].is_null() {
                    last["message"] = "".into();
                }
                let sender = if wanted["sender"].is_null() {
                    Value::Null
                } else {
                    value["sender"]["_id"].clone()
                };
                last.insert("sender".to_owned(), sender);
                value = last.into();
            }
            _ => {}
        }
        row.insert(name.clone(), value);
    }
    row.into()
}

fn member(got: &Value) -> Value {
    let or = |name: &str, default: Value| {
        if got[name].is_null() {
            default
        } else {
            got[name].clone()
        }
    };
    json!({
        "_id": got["_id"], "id": got["id"], "nickname": or("nickname", json!("")),
        "avatarUrl": or("avatarUrl", json!("")), "isRobot": or("isRobot", json!(false)),
        "lastLoginTimeMS": or("lastLoginTimeMS", json!(0)), "clientType": got["clientType"],
    })
}

/// All members of a room, and a choice of them.
pub async fn room(app: &impl Answers, model: &Model, room: &str, users: &[String]) -> Check {
    for users in [None, Some(users)] {
        let what = || format!("GET /v1/rooms/{room:?}/unread, users {users:?}");
        let reply = app.room_unread(room, users).await;
        match model.native_room(room, users) {
            None => status(what, &reply, 404)?,
            Some(expected) => {
                status(what, &reply, 200)?;
                same(what, &reply.body, &json!({ "unread": expected }))?;
                let what =
                    || format!("GET /v1/rooms/{room:?}/unread?include=read, users {users:?}");
                let reply = app.room_read(room, users).await;
                status(what, &reply, 200)?;
                let read = model.native_read(room, users);
                same(
                    what,
                    &reply.body,
                    &json!({ "unread": expected, "read": read }),
                )?;
            }
        }
    }
    Ok(())
}

/// What holds for any answer at any moment, whatever else goes on: no count is negative, and totals are sums.
pub async fn sums(app: &impl Answers, user: &str) -> Check {
    let reply = app.unread(user, true).await;
    let what = || format!("sums of {user:?}: {}", reply.text);
    status(what, &reply, 200)?;
    let number = |value: &Value| value.as_u64().ok_or_else(what);
    let mut in_rooms = BTreeMap::from([("messages", 0), ("mentions", 0)]);
    for room in reply.body["rooms"].as_array().ok_or_else(what)? {
        for (family, sum) in &mut in_rooms {
            let number = number(&room[*family])?;
            // The room's own row has both, whatever the user lets count.
            if room["count"] == "all" || room["count"] == *family {
                *sum += number;
            }
        }
    }
    for family in ["messages", "mentions", "invitations", "unread_rooms"] {
        let counts = &reply.body[family];
        let total = number(&counts["total"])?;
        let parts =
            number(&counts["direct"])? + number(&counts["group"])? + number(&counts["supergroup"])?;
        if total != parts || in_rooms.get(family).is_some_and(|sum| *sum != total) {
            return Err(what());
        }
    }

    let reply = app.sendbird(user, None, None).await;
    let what = || format!("sums of {user:?}: {}", reply.text);
    status(what, &reply, 200)?;
    for family in [
        "unread_message_count",
        "unread_mention_count",
        "invitation_count",
    ] {
        let of = |kind: &str| {
            reply.body[format!("{kind}group_channel_{family}")]
                .as_u64()
                .ok_or_else(what)
        };
        if of("")? != of("non_super_")? + of("super_")? {
            return Err(what());
        }
    }

    let reply = app.imkit_badges(user, None).await;
    let what = || format!("sums of {user:?}: {}", reply.text);
    status(what, &reply, 200)?;
    let mut sum = 0;
    for count in reply.body["result"]["data"]
        .as_object()
        .ok_or_else(what)?
        .values()
    {
        sum += count.as_u64().ok_or_else(what)?;
    }
    same(what, &reply.body["result"]["totalBadge"], &json!(sum))
}

fn sort(list: &mut Value) {
    if let Some(list) = list.as_array_mut() {
        list.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}

trait IntoJson {
    fn into_json(self) -> Value;
}

impl<V: Into<Value>> IntoJson for BTreeMap<&str, V> {
    fn into_json(self) -> Value {
        self.into_iter()
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect::<Map<_, _>>()
            .into()
    }
}
