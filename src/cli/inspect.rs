//! `unread inspect`: one user or one room, each part with the line for `redis-cli` that shows the same.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::args::{RedisArgs, app_id, user_id};
use super::connect::readable;
use super::exit::{self, Failure};
use super::memory::memory;
use super::output::print;
use super::process::on_runtime;
use crate::audit::Audit;
use crate::config::Config;
use crate::inspector::Inspector;
use crate::names::{AppId, RoomId, UserId};

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
    let inspector = Inspector::new(Audit::new(&engine), &config.redis)?;
    let document = match subject {
        Inspected::User(user) => inspector.user(app, user).await?,
        Inspected::Room(room) => inspector.room(app, room).await?,
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
        print(&rendered(&document, inspector.passwords()));
    }
    Ok(())
}

/// The parts of a document, and the fields of a row, in the order in which they are read with most ease.
const PARTS: [&str; 13] = [
    "counts",
    "rooms",
    "supergroups",
    "references",
    "preferences",
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
const COLUMNS: [&str; 27] = [
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
    "preferences",
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
fn rendered(document: &Value, passwords: Option<&str>) -> String {
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
    if let Some(passwords) = passwords {
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
