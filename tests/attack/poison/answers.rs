//! What the endpoints answer about poisoned data: what the model says, or an error in the words of the dialect.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::PEOPLE;
use crate::support::check::{self, Questions};
use crate::support::model::{Model, Peer, Room, RoomsQuery};
use crate::support::{App, Reply};

/// Whether that is the dialect's internal error.
fn is_internal(dialect: &str, reply: &Reply) -> bool {
    match dialect {
        "native" => {
            let json = reply.header("content-type");
            reply.status == 500 && json.is_some_and(|t| t.starts_with("application/problem+json"))
        }
        "imkit" => reply.status == 500 && reply.body["error"]["code"] == "INTERNAL_ERROR",
        "tencent" => reply.status == 200 && reply.body["ErrorCode"] == 91000,
        _ => reply.status == 500 && reply.body["code"] == 500_901,
    }
}

/// Asks all endpoints about one user: each says what the model says, or its dialect's internal error. Answers how many erred.
pub(super) async fn right_or_error(app: &App, model: &Model, user: &str) -> Result<usize, String> {
    let every: Option<&[&str]> = None;
    let (native, total, peers, nine, badges, rooms) = tokio::join!(
        app.unread(user, true),
        app.tencent_total(user),
        app.tencent_peers(user, &["bob"]),
        app.sendbird(user, None, None),
        app.imkit_badges(user, every),
        app.imkit_rooms(user, &[]),
    );
    let listed = |reply: &Reply| -> Value {
        let rows = reply.body["result"]["data"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let rows = rows.iter().map(|row| {
            (
                row["_id"].as_str().unwrap_or_default().to_owned(),
                row["unread"].clone(),
            )
        });
        rows.collect::<BTreeMap<String, Value>>()
            .into_iter()
            .collect::<Map<_, _>>()
            .into()
    };
    let joined = |name: &(&str, &Room)| name.1.has_joined(user);
    let unread: Map<String, Value> = model
        .rooms_of(user)
        .filter(joined)
        .map(|(id, room)| (id.to_owned(), room.unread(user).into()))
        .collect();
    let numbers = |body: &Value| {
        json!([
            body["messages"],
            body["mentions"],
            body["invitations"],
            body["tags"],
            body["types"]
        ])
    };
    let expected = model.native(user, false).unwrap();
    let bob = model.tencent_peers(user, &["bob".to_owned()]);
    let bob = bob.unwrap().into_iter().map(|(_, answer)| match answer {
        Peer::Count(count) => json!(count),
        Peer::Unknown => Value::Null,
    });
    let mut refused = 0;
    for (dialect, what, reply, found, wanted) in [
        (
            "native",
            "unread",
            &native,
            numbers(&native.body),
            numbers(&expected),
        ),
        (
            "tencent",
            "total",
            &total,
            total.body["AllC2CUnreadMsgNum"].clone(),
            json!(model.tencent_total(user)),
        ),
        (
            "tencent",
            "peers",
            &peers,
            peers.body["C2CUnreadMsgNumList"][0]["C2CUnreadMsgNum"].clone(),
            bob.collect::<Vec<_>>()[0].clone(),
        ),
        (
            "sendbird",
            "all",
            &nine,
            nine.body.clone(),
            json!(model.sendbird(user, None)),
        ),
        (
            "imkit",
            "badges",
            &badges,
            badges.body["result"]["data"].clone(),
            json!(model.badges(user, None)),
        ),
        ("imkit", "rooms", &rooms, listed(&rooms), unread.into()),
    ] {
        if is_internal(dialect, reply) {
            refused += 1;
        } else if found != wanted {
            return Err(format!(
                "{dialect} {what} of {user}: {found}, not {wanted}: {}",
                reply.text
            ));
        }
    }
    Ok(refused)
}

pub(super) fn questions() -> Questions {
    Questions {
        tags: vec!["x".into(), "none".into()],
        types: Vec::new(),
        peers: vec!["bob".into(), "carol".into()],
        rooms: vec![RoomsQuery::default()],
    }
}

/// Compares with the model: all endpoints for the users of whom the poison hid something (`hit`), and everybody's totals.
/// `rooms`: whether the list of rooms is asked for as well.
pub(super) async fn all_right(app: &App, model: &Model, rooms: bool, hit: &[&str]) -> check::Check {
    let ask = match rooms {
        true => questions(),
        false => Questions {
            rooms: Vec::new(),
            ..questions()
        },
    };
    for user in hit {
        check::user(app, model, user, &ask).await?;
    }
    check::many(app, model, &PEOPLE.map(str::to_owned)).await?;
    for room in ["group", "super"] {
        check::room(app, model, room, &["bob".to_owned()]).await?;
    }
    Ok(())
}

/// Panics with the first of what went wrong.
#[track_caller]
pub(super) fn none_failed(failed: &[String]) {
    let first: Vec<String> = failed
        .iter()
        .take(12)
        .map(|why| why.chars().take(500).collect())
        .collect();
    assert!(
        failed.is_empty(),
        "{} failed, such as {first:#?}",
        failed.len()
    );
}
