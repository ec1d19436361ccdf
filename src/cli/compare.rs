//! `unread compare`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::args::{RedisArgs, app_id};
use super::connect::readable;
use super::exit::{Failure, well_if};
use super::files::Rereadable;
use super::findings::{JsonLists, check_known};
use super::output::{counted, print};
use super::process::on_runtime;
use super::progress::Meter;
use crate::audit::{CountsAudit, CountsHere, Difference, ListProgress, ListedCounts, Scope};
use crate::config::Config;
use crate::names::AppId;

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// The app's id
    #[arg(long)]
    app: String,
    /// Compare the rows of the file only; without it, a room with unread messages that the file leaves out differs too
    #[arg(long)]
    only_listed: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// The file: CSV with the columns room, user, unread, and if it has them kind, mentions, time; `-`: standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl CompareArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let app = app_id(self.app.clone())?;
        let file = Rereadable::open(&self.file)?;
        let rows = file.check_rows("compared", |_| Ok(()))?;
        let config = self.redis.config()?;
        let how = Comparison {
            file,
            rows,
            only_listed: self.only_listed,
            as_json: self.json,
        };
        on_runtime(compare(&config, &app, &how))
    }
}

struct Comparison {
    file: Rereadable,
    rows: u64,
    only_listed: bool,
    as_json: bool,
}

impl Comparison {
    /// The rows of the file, from the first one on.
    fn rows(&self) -> Result<impl Iterator<Item = Result<ListedCounts, Failure>>, Failure> {
        let rows = self.file.rows()?;
        Ok(rows.map(|row| {
            let (line, row) = row?;
            Ok(ListedCounts {
                line,
                room: row.room,
                user: row.user,
                unread: row.unread,
                mentions: row.mentions,
            })
        }))
    }
}

/// Compares a file with the counts here, and prints what differs. Answers the exit code; an error: it did not come to the end.
async fn compare(config: &Config, app: &AppId, how: &Comparison) -> Result<u8, Failure> {
    let (engine, _) = readable(config).await?;
    let counts = CountsAudit::new(&engine);
    let scope = Scope {
        app: Some(app.clone()),
        user: None,
    };
    check_known(counts.audit(), config, &scope).await?;
    let failed = |failure: Failure| failure.map(|why| format!("could not run to its end: {why}"));
    let meter = Meter::new("compare");
    let mut lists = JsonLists::open(how.as_json, "differences");
    let (mut differing, mut left_out) = (0u64, 0u64);
    let mut show = |found: Difference| {
        meter.clear();
        match found.line {
            Some(_) => differing += 1,
            None => left_out += 1,
        }
        if how.as_json {
            lists.add(&json_row(&found));
        } else {
            print(&text_row(&found));
        }
    };
    // Of two passes, the first one is half of the work.
    let part = if how.only_listed { 1.0 } else { 0.5 };
    let total = how.rows.max(1) as f64;
    let done = counts.compare(app, how.rows()?, &mut show, |progress: &ListProgress| {
        meter.show_list(progress.rows as f64 / total * part, progress);
    });
    let done = done.await.map_err(failed)?;
    if !how.only_listed {
        let rows = || how.rows();
        let pass = counts.left_out(app, rows, how.rows, &mut show, |progress| {
            meter.show_list(part + progress.fraction * part, progress);
        });
        pass.await.map_err(failed)?;
    }
    meter.clear();
    if how.as_json {
        let sums = json!({"rows": done.rows, "differing_rows": differing, "left_out": left_out});
        lists.close(&sums);
    } else {
        print(&sums(done.rows, differing, left_out));
    }
    Ok(well_if(differing == 0 && left_out == 0))
}

/// `12 rows compared: 1 differs, and 2 rooms with unread messages are not in the file`
fn sums(rows: u64, differing: u64, left_out: u64) -> String {
    let differing = match differing {
        0 => "none differs".to_owned(),
        1 => "1 differs".to_owned(),
        more => format!("{more} differ"),
    };
    let left_out = match left_out {
        0 => String::new(),
        1 => ", and 1 room with unread messages is not in the file".to_owned(),
        more => format!(", and {more} rooms with unread messages are not in the file"),
    };
    format!("{} compared: {differing}{left_out}\n", counted(rows, "row"))
}

/// `line 7: room "orders", user "alice": file 3, here 4`
fn text_row(found: &Difference) -> String {
    let line = found.line.map(|line| format!("line {line}: "));
    let room = found.room.as_ref().map(|room| format!("room {room:?}, "));
    let number = |unread: u64, mentions: Option<u64>| match mentions {
        None => unread.to_string(),
        Some(mentions) => format!("{unread} ({})", counted(mentions, "mention")),
    };
    let (listed, with_mentions) = match found.listed {
        Some((unread, mentions)) => (
            format!("file {}", number(unread, mentions)),
            mentions.is_some(),
        ),
        None => ("not in the file".to_owned(), false),
    };
    let here = match &found.here {
        CountsHere::Counts { unread, mentions } => {
            number(*unread, with_mentions.then_some(*mentions))
        }
        CountsHere::NotThere => "not there".to_owned(),
        CountsHere::Unreadable(why) => format!("can't be read: {why}"),
    };
    format!(
        "{}{}user {:?}: {listed}, here {here}\n",
        line.unwrap_or_default(),
        room.unwrap_or_default(),
        found.user,
    )
}

fn json_row(found: &Difference) -> Value {
    let counts =
        |unread: u64, mentions: Option<u64>| json!({"unread": unread, "mentions": mentions});
    let (here, unreadable) = match &found.here {
        CountsHere::Counts { unread, mentions } => (counts(*unread, Some(*mentions)), None),
        CountsHere::NotThere => (Value::Null, None),
        CountsHere::Unreadable(why) => (Value::Null, Some(why)),
    };
    json!({
        "line": found.line, "room": found.room, "user": found.user,
        "file": found.listed.map(|(unread, mentions)| counts(unread, mentions)),
        "here": here, "unreadable": unreadable,
    })
}
