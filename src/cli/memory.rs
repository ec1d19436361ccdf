//! `unread inspect --memory`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::connect::readable;
use super::exit::Failure;
use super::output::{counted, print};
use crate::audit::{Audit, KeyTotals, MemoryUse};
use crate::config::Config;
use crate::keys::encode;
use crate::names::{AppId, UserId};

/// Prints what a sample of users, or one user, takes in Redis.
pub(super) async fn memory(
    config: &Config,
    app: &AppId,
    user: Option<&UserId>,
    sample: usize,
    as_json: bool,
) -> Result<(), Failure> {
    let (engine, _) = readable(config).await?;
    let name = user.map(|user| encode(user.as_str()));
    let found = Audit::new(&engine)
        .memory(app, name.as_ref(), sample)
        .await?;
    if found.users == 0 {
        let user = user.map(|user| ("user", user.as_str()));
        return Err(Failure::nothing_kept(app, user));
    }
    match as_json {
        true => print(&format!("{:#}\n", document(app, user, &found))),
        false => print(&table(app, user, &found)),
    }
    Ok(())
}

fn tenths(n: f64) -> f64 {
    (n * 10.0).round() / 10.0
}

fn document(app: &AppId, user: Option<&UserId>, found: &MemoryUse) -> Value {
    let part = |part: &KeyTotals, of: u64| json!({"keys": part.keys, "bytes": part.bytes, "bytes_per_pair": tenths(part.per(of))});
    let of_users: serde_json::Map<String, Value> = found
        .of_users
        .iter()
        .map(|(name, one)| ((*name).to_owned(), part(one, found.pairs)))
        .collect();
    json!({
        "app": app.as_str(),
        "user": user.map(UserId::as_str),
        "users": found.users,
        "pairs": found.pairs,
        "user_keys": of_users,
        "rooms": found.rooms,
        "members": found.members,
        "members_key": part(&found.lists, found.members),
        "room_keys_bytes": found.of_rooms.bytes,
        "room_keys_bytes_per_room": tenths(found.of_rooms.per(found.rooms)),
        "bytes_per_pair": tenths(found.user_side() + found.room_side()),
    })
}

fn table(app: &AppId, user: Option<&UserId>, found: &MemoryUse) -> String {
    let mut out = format!("app: {app}\n");
    if let Some(user) = user {
        let _ = writeln!(out, "user: {:?}", user.as_str());
    }
    let _ = writeln!(
        out,
        "sample: {} in {} (pairs of user and room); {} of {}\n",
        counted(found.users, "user"),
        counted(found.pairs, "room"),
        counted(found.rooms, "room"),
        counted(found.members, "member")
    );
    let _ = writeln!(
        out,
        "{:<16} {:>10} {:>12} {:>10}",
        "key", "keys", "bytes", "per pair"
    );
    let mut row = |name: &str, part: &KeyTotals, of: u64| {
        if part.keys > 0 {
            let _ = writeln!(
                out,
                "{name:<16} {:>10} {:>12} {:>10.1}",
                part.keys,
                part.bytes,
                part.per(of)
            );
        }
    };
    for (name, part) in &found.of_users {
        row(&format!("user {name}"), part, found.pairs);
    }
    row("room members", &found.lists, found.members);
    let _ = writeln!(
        out,
        "\nbytes for each user and room: {:.1}\nbeside that for each room: {:.0} (settings, history)",
        found.user_side() + found.room_side(),
        found.of_rooms.per(found.rooms)
    );
    out
}
