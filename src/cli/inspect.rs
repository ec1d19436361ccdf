//! `unread inspect`: one user or one room, each part with the line for `redis-cli` that shows the same.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::args::{RedisArgs, app_id, user_id};
use super::connect::readable;
use super::exit::{self, Failure};
use super::findings::unreadable_row;
use super::memory::memory;
use super::output::print;
use super::process::on_runtime;
use super::redis_cli::RedisCli;
use crate::audit::{Audit, ListedRoom, RoomShown, UnreadableData, UserShown};
use crate::config::Config;
use crate::keys::{Enc, RoomKeys, UserKeys, decode, encode};
use crate::names::{AppId, RoomId, UserId};

/// Members of a room that are shown, and pending jobs.
const FIRST: usize = 20;
/// A job's record is shown up to so many characters.
const RECORD: usize = 160;

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// The app's id
    #[arg(long)]
    app: String,
    #[command(flatten)]
    what: SubjectArgs,
    /// Show instead how many bytes the data take in Redis for each user and room: of a sample, or of --user
    #[arg(long, conflicts_with = "room")]
    memory: bool,
    /// How many users, and how many rooms, the sample has
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, requires = "memory",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

// The command checks by itself that one of them is given: the parser would report both as missing.
#[derive(Debug, Args)]
struct SubjectArgs {
    /// The user to show
    #[arg(long)]
    user: Option<String>,
    /// The room to show, instead of a user
    #[arg(long)]
    room: Option<String>,
}

impl InspectArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let app = app_id(self.app)?;
        if self.memory {
            let user = self.what.user.map(user_id).transpose()?;
            let config = self.redis.config()?;
            let sample = self.sample as usize;
            on_runtime(memory(&config, &app, user.as_ref(), sample, self.json))?;
        } else {
            let subject = self.what.subject()?;
            let config = self.redis.config()?;
            on_runtime(inspect(&config, &app, &subject, self.json))?;
        }
        Ok(exit::WELL)
    }
}

/// What to show.
#[derive(Debug, Clone)]
enum Inspected {
    /// A user's counts, rooms, supergroups and tombstones.
    User(UserId),
    /// A room's head, members, pending jobs and history.
    Room(RoomId),
}

impl SubjectArgs {
    fn subject(self) -> Result<Inspected, Failure> {
        match (self.user, self.room) {
            (Some(user), None) => user_id(user).map(Inspected::User),
            (None, Some(room)) => RoomId::parse(room)
                .map(Inspected::Room)
                .map_err(|why| Failure::Failed(format!("--room {why}"))),
            (given, _) => {
                let given = given.map_or("neither was given", |_| "both were given");
                let why = format!("inspect shows one of --user and --room, and {given}");
                Err(Failure::Failed(why))
            }
        }
    }
}

/// Prints a user or a room.
async fn inspect(
    config: &Config,
    app: &AppId,
    subject: &Inspected,
    as_json: bool,
) -> Result<(), Failure> {
    let (engine, config) = readable(config).await?;
    let audit = Audit::new(&engine);
    let cli = RedisCli::new(&config.redis)?;
    let document = match subject {
        Inspected::User(user) => {
            let name = encode(user.as_str());
            let shown = audit.inspect_user(app, &name).await?;
            shown.map(|shown| user_document(app, user, &name, &shown, &cli))
        }
        Inspected::Room(room) => {
            let name = encode(room.as_str());
            let shown = audit.inspect_room(app, &name, FIRST).await?;
            shown.map(|shown| room_document(app, room, &name, &shown, &cli))
        }
    };
    let Some(document) = document else {
        return Err(Failure::nothing_kept(
            app,
            Some(match subject {
                Inspected::User(user) => ("user", user.as_str()),
                Inspected::Room(room) => ("room", room.as_str()),
            }),
        ));
    };
    if as_json {
        print(&format!("{document:#}\n"));
    } else {
        print(&rendered(&document, &cli));
    }
    Ok(())
}

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

fn user_document(
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
    json!({
        "room": decode(&room.room), "state": state(room.state), "kind": room.kind, "active": room.status == "1",
        "custom_type": (!room.custom_type.is_empty()).then(|| decode(&room.custom_type)), "tags": tags,
        "peer": (!room.peer.is_empty()).then(|| decode(&room.peer)),
        "unread": room.unread, "mentions": room.mentions, "count": room.count.as_str(), "head": room.head, "read": room.read, "reset": room.reset, "holes": room.holes,
        "epoch": room.epoch, "rev": room.rev, "created": room.created,
        "last_at": room.last.map(|(at, _)| at), "last_time": room.last.map(|(_, time)| time), "redis_cli": lines,
    })
}

fn room_document(
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
            json!({
                "user": decode(&member.user), "state": state(member.state), "epoch": member.epoch, "base": member.base,
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

/// The parts of a document, and the fields of a row, in the order in which they are read with most ease.
const PARTS: [&str; 12] = [
    "counts",
    "rooms",
    "supergroups",
    "references",
    "marks",
    "tombstones",
    "meta",
    "members",
    "pending",
    "history",
    "recalled",
    "unreadable",
];
const NAMES: [&str; 4] = ["room", "user", "job", "key"];
const COLUMNS: [&str; 26] = [
    "field",
    "reason",
    "stored",
    "state",
    "kind",
    "unread",
    "mentions",
    "count",
    "head",
    "read",
    "holes",
    "custom_type",
    "tags",
    "peer",
    "active",
    "since",
    "accepted",
    "lease_until",
    "audience",
    "rest",
    "base",
    "epoch",
    "rev",
    "created",
    "last_at",
    "last_time",
];

/// The document as text: a line each, indented, with the shell's lines after a dollar.
fn rendered(document: &Value, cli: &RedisCli) -> String {
    let mut out = String::new();
    for name in ["app", "user", "room", "known_since", "deletion_under_way"] {
        if let Some(value) = document.get(name)
            && !value.is_null()
            && *value != json!(false)
        {
            let _ = writeln!(out, "{}: {}", name.replace('_', " "), plain(value));
        }
    }
    for (name, part) in PARTS
        .iter()
        .filter_map(|name| Some((name, document.get(name)?)))
        .filter(|(_, part)| !part.is_null())
    {
        let count = part.get("count").map(|n| format!(": {}", plain(n)));
        let _ = writeln!(out, "\n{name}{}", count.unwrap_or_default());
        let fields = part.get("fields").and_then(Value::as_object);
        for (field, value) in fields.into_iter().flatten() {
            let field = plain(&json!(field));
            let _ = writeln!(out, "  {field} {}", plain(value));
        }
        let list = part.get("list").and_then(Value::as_array);
        for row in list.into_iter().flatten() {
            let _ = writeln!(out, "  {}", row_text(row));
            // The part's own line shows the rest.
            let lines = row.get("redis_cli").and_then(Value::as_array);
            for line in lines.into_iter().flatten().skip(1) {
                let _ = writeln!(out, "    $ {}", line.as_str().unwrap_or_default());
            }
        }
        if let Some(line) = part.get("redis_cli").and_then(Value::as_str) {
            let _ = writeln!(out, "  $ {line}");
        }
    }
    if let Some(passwords) = cli.passwords() {
        let _ = writeln!(out, "\nThe lines want {passwords}.");
    }
    out
}

fn row_text(row: &Value) -> String {
    let name = NAMES.iter().find_map(|name| row.get(name));
    let mut text = name.map(plain).unwrap_or_default();
    text.push(':');
    for column in COLUMNS {
        match row.get(column) {
            None | Some(Value::Null) => {}
            Some(value) if *value == json!([]) || *value == json!("") => {}
            Some(Value::Bool(true)) if column == "active" => {}
            Some(Value::Bool(false)) if column == "active" => text.push_str(" inactive"),
            Some(value) if matches!(column, "state" | "kind") => {
                let _ = write!(text, " {}", plain(value));
            }
            Some(value) => {
                let _ = write!(text, " {column} {}", plain(value));
            }
        }
    }
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if !text.chars().any(char::is_control) => text.clone(),
        other => other.to_string(),
    }
}
