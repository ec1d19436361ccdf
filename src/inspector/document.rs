//! A user or a room as one JSON document. Each part has the line for `redis-cli` that shows the same.

use serde_json::{Value, json};

use super::findings::unreadable_row;
use super::redis_cli::RedisCli;
use crate::audit::{ListedRoom, RoomShown, UnreadableData, UserShown};
use crate::keys::{Enc, RoomKeys, UserKeys, decode};
use crate::names::{AppId, RoomId, UserId};

/// A job's record is shown up to so many characters.
const RECORD: usize = 160;

/// Microseconds as a moment; what is none stays a number.
fn moment(micros: &str) -> String {
    micros
        .parse()
        .ok()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .map_or_else(|| micros.to_owned(), |time| format!("{time:.0}"))
}

fn state(letter: char) -> &'static str {
    match letter {
        'j' => "joined",
        'i' => "invited",
        _ => "leaving",
    }
}

pub(super) fn user_document(
    app: &AppId,
    user: &UserId,
    name: &Enc,
    shown: &UserShown,
    cli: &RedisCli,
) -> Value {
    let keys = UserKeys::new(app, name);
    let counts: serde_json::Map<String, Value> = shown
        .counts
        .iter()
        .filter(|(field, _)| field.as_str() != "known")
        .map(|(field, n)| {
            let value = n.parse::<i64>().map_or_else(|_| json!(n), |n| json!(n));
            (field.clone(), value)
        })
        .collect();
    let rooms: Vec<Value> = shown
        .rooms
        .iter()
        .map(|room| {
            let line = cli.line(&["HGET", &keys.rooms(), &room.room]);
            listed(room, vec![line])
        })
        .collect();
    let supers: Vec<Value> = shown
        .supers
        .iter()
        .map(|room| {
            let of = RoomKeys::new(app, &Enc::stored(room.room.clone()));
            let above = format!("({}", room.read);
            let lines = vec![
                cli.line(&["HGET", &keys.supers(), &room.room]),
                cli.line(&["HGET", &of.meta(), "head"]),
                cli.line(&["ZCOUNT", &of.recalled(), &above, "+inf"]),
            ];
            listed(room, lines)
        })
        .collect();
    let left: Vec<Value> = shown
        .left
        .iter()
        .map(|(room, text)| {
            let (epoch, at) = text.split_once('|').unwrap_or((text, text));
            json!({"room": if room == "*" { "every room (user deleted)".into() } else { decode(room) },
                   "epoch": epoch, "since": moment(at)})
        })
        .collect();
    json!({
        "app": app.as_str(),
        "user": user.as_str(),
        "known_since": shown.counts.get("known").map(|known| moment(known)),
        "deletion_under_way": shown.leaving,
        "counts": {"redis_cli": cli.line(&["HGETALL", &keys.counts()]), "fields": counts},
        "rooms": {"redis_cli": cli.line(&["HGETALL", &keys.rooms()]), "list": rooms},
        "supergroups": {"redis_cli": cli.line(&["HGETALL", &keys.supers()]), "list": supers},
        "references": {"redis_cli": cli.line(&["HGETALL", &keys.refs()]), "fields": shown.refs},
        "preferences": {"redis_cli": cli.line(&["HGETALL", &keys.prefs()]), "count": shown.preferences},
        "marks": {"redis_cli": cli.line(&["ZCARD", &keys.marks()]), "count": shown.marks},
        "tombstones": {"redis_cli": cli.line(&["HGETALL", &keys.left()]), "list": left},
        "unreadable": unread(&shown.unreadable, shown.unreadable.len() as u64),
    })
}

/// What can't be read, if there is any.
fn unread(unreadable: &[UnreadableData], total: u64) -> Value {
    if total == 0 {
        return Value::Null;
    }
    let list: Vec<Value> = unreadable.iter().map(unreadable_row).collect();
    json!({ "count": total, "list": list })
}

fn listed(room: &ListedRoom, lines: Vec<String>) -> Value {
    let tags: Vec<String> = room
        .tags
        .split(',')
        .filter(|t| !t.is_empty())
        .map(decode)
        .collect();
    let preferences: serde_json::Map<String, Value> = room
        .preferences
        .iter()
        .map(|(name, value)| {
            let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            (name.clone(), value)
        })
        .collect();
    json!({
        "room": decode(&room.room), "state": state(room.state), "kind": room.kind, "active": room.status == "1",
        "custom_type": (!room.custom_type.is_empty()).then(|| decode(&room.custom_type)), "tags": tags,
        "peer": (!room.peer.is_empty()).then(|| decode(&room.peer)),
        "unread": room.unread, "mentions": room.mentions, "count": room.count.as_str(), "head": room.head, "read": room.read, "reset": room.reset, "holes": room.holes,
        "epoch": room.epoch, "rev": room.rev, "created": room.created,
        "preferences": (!preferences.is_empty()).then_some(preferences),
        "last_at": room.last.map(|(at, _)| at), "last_time": room.last.map(|(_, time)| time), "redis_cli": lines,
    })
}

pub(super) fn room_document(
    app: &AppId,
    room: &RoomId,
    name: &Enc,
    shown: &RoomShown,
    cli: &RedisCli,
) -> Value {
    let keys = RoomKeys::new(app, name);
    let first: Vec<Value> = shown
        .first
        .iter()
        .map(|member| {
            let (read, unread) = member.read.unzip();
            json!({
                "user": decode(&member.user), "state": state(member.state), "epoch": member.epoch, "base": member.base,
                "read": read, "unread": unread.flatten(),
                "redis_cli": cli.line(&["HGET", &keys.members(), &member.user]),
            })
        })
        .collect();
    let jobs: Vec<Value> = shown
        .jobs
        .iter()
        .map(|(job, record)| {
            let mut lines = record.splitn(3, '\n');
            let lease = lines.next().unwrap_or_default();
            let audience = lines.next().unwrap_or_default();
            let rest: String = lines.next().unwrap_or_default().chars().take(RECORD).collect();
            json!({
                "job": job, "accepted": moment(job), "lease_until": moment(lease), "audience": audience,
                "rest": rest.replace('\n', " "),
                "redis_cli": cli.line(&["HGET", &keys.pending(), job]),
            })
        })
        .collect();
    let mut meta = match shown.meta.is_empty() {
        true => vec!["HGETALL".to_owned(), keys.meta()],
        false => vec!["HMGET".to_owned(), keys.meta()],
    };
    meta.extend(shown.meta.keys().map(ToString::to_string));
    let meta: Vec<&str> = meta.iter().map(String::as_str).collect();
    json!({
        "app": app.as_str(),
        "room": room.as_str(),
        "meta": {"redis_cli": cli.line(&meta), "fields": shown.meta},
        "members": {"redis_cli": cli.line(&["HLEN", &keys.members()]), "count": shown.members, "list": first},
        "pending": {"redis_cli": cli.line(&["HLEN", &keys.pending()]), "count": shown.pending, "list": jobs},
        "history": {"redis_cli": cli.line(&["LLEN", &keys.log()]), "count": shown.history},
        "recalled": {"redis_cli": cli.line(&["ZCARD", &keys.recalled()]), "count": shown.recalled},
        "unreadable": unread(&shown.unreadable, shown.unreadable_total),
    })
}
