//! `unread import`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::progress::Meter;
use super::{connect, counted};
use crate::cli::{Failure, print};
use crate::config::Config;
use crate::intake::{Cut, ImportOptions, Importer, NotedLine, RefusedLine, Remarks};
use crate::metrics::Metrics;
use crate::names::AppId;

/// Lines of which is said what is wrong with them, or what was left out of them; more are counted.
const FIRST: usize = 20;
/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// What to import.
#[derive(Debug, Clone)]
pub struct Import<'a> {
    /// The app it is for.
    pub app: &'a AppId,
    /// The file; `-`: standard input.
    pub file: &'a Path,
    /// What tells this import from others; the file's path, if it is none.
    pub name: Option<&'a str>,
    /// The first line to be taken.
    pub from_line: u64,
    /// How long to go on trying while Redis is away.
    pub patience: Duration,
    /// Print JSON.
    pub json: bool,
}

/// Applies the events of a file and prints what came of them. Answers whether any was refused; an error: it did not come to
/// the end.
pub async fn import(
    config: &Config,
    what: &Import<'_>,
    stop: impl Future<Output = ()>,
) -> Result<bool, Failure> {
    let (lines, length): (Box<dyn BufRead + Send>, Option<u64>) = match what.file.to_str() {
        Some("-") => (
            Box::new(BufReader::with_capacity(BUFFER, std::io::stdin())),
            None,
        ),
        _ => {
            let failed = |error| Failure::Failed(format!("{}: {error}", what.file.display()));
            let file = File::open(what.file).map_err(failed)?;
            let about = file.metadata().map_err(failed)?;
            let length = about.is_file().then_some(about.len());
            (Box::new(BufReader::with_capacity(BUFFER, file)), length)
        }
    };
    let metrics = Arc::new(Metrics::new());
    let engine = connect(config, Arc::clone(&metrics)).await?;
    let options = ImportOptions {
        name: name(what),
        from_line: what.from_line,
        max_line: config.server.max_events_bytes,
        patience: what.patience,
        told: FIRST,
    };
    let meter = Meter::new("import");
    let start = Instant::now();
    let (mut told, mut shown) = (0, Vec::new());
    let (mut noted, mut notes) = (0, Vec::new());
    let on = |done: &crate::intake::Imported, remarks: Remarks| {
        for line in remarks.noted {
            noted += 1;
            if noted > FIRST {
                continue;
            }
            if what.json {
                notes.push(noted_row(&line));
            } else {
                meter.clear();
                let NotedLine { line, notes } = line;
                let notes: Vec<&str> = notes.iter().collect();
                print(&format!("line {line}: note: {}\n", notes.join("; ")));
            }
        }
        for line in remarks.refused {
            told += 1;
            if what.json {
                shown.push(row(&line));
            } else {
                meter.clear();
                print(&format!(
                    "line {}: {}: {}\n",
                    line.line, line.code, line.message
                ));
            }
        }
        let fraction = length.map(|length| done.bytes as f64 / (length.max(1)) as f64);
        meter.at(fraction, || {
            let events = counted(done.events, "event");
            format!("{events}, {} rejected", done.rejected)
        });
    };
    let (done, failed) = Importer::new(&engine)
        .import(what.app, lines, options, stop, on)
        .await;
    meter.clear();
    let seconds = start.elapsed().as_secs_f64();
    let deliveries = metrics.deliveries();
    let untold = done.rejected.saturating_sub(told);
    let per_second = |n: u64| (n as f64 / seconds.max(1e-9)).round();
    if what.json {
        let document = json!({
            "events": done.events, "applied": done.applied, "duplicates": done.duplicates, "rejected": done.rejected,
            "deliveries": deliveries, "seconds": (seconds * 1e3).round() / 1e3,
            "events_per_second": per_second(done.events), "deliveries_per_second": per_second(deliveries),
            "done_to_line": done.done_to, "complete": failed.is_none(), "errors": shown,
            "errors_not_shown": untold,
            "noted": noted, "notes": notes, "notes_not_shown": noted.saturating_sub(FIRST),
        });
        print(&format!("{document:#}\n"));
    } else {
        let mut more = match untold {
            0 => String::new(),
            1 => "1 more line was rejected\n".to_owned(),
            more => format!("{more} more lines were rejected\n"),
        };
        if noted > FIRST {
            more.push_str(&format!("{} more lines have notes\n", noted - FIRST));
        }
        print(&format!(
            "{more}{}: {} applied, {}, {} rejected; {}; {seconds:.1} s, {} events/s, {} deliveries/s\n",
            counted(done.events, "event"),
            done.applied,
            counted(done.duplicates, "duplicate"),
            done.rejected,
            counted(deliveries, "delivery"),
            per_second(done.events),
            per_second(deliveries)
        ));
    }
    let Some(cut) = failed else {
        return Ok(done.rejected > 0);
    };
    let failure = match cut {
        Cut::Engine(error) => Failure::from(error),
        cut => Failure::Failed(cut.to_string()),
    };
    Err(failure.map(|why| {
        format!(
            "stopped: {why}; all lines up to {} are done: go on with --from-line {}",
            done.done_to,
            done.done_to + 1
        )
    }))
}

/// What the lines are known by: standard input has no name, so that each import of it is one of its own.
fn name(what: &Import<'_>) -> String {
    match (what.name, what.file.to_str()) {
        (Some(name), _) => name.to_owned(),
        (None, Some("-")) => rand::random::<u128>().to_string(),
        (None, _) => {
            let path = std::fs::canonicalize(what.file);
            let path = path.unwrap_or_else(|_| what.file.to_owned());
            path.to_string_lossy().into_owned()
        }
    }
}

fn noted_row(line: &NotedLine) -> Value {
    let notes: Vec<&str> = line.notes.iter().collect();
    json!({"line": line.line, "notes": notes})
}

fn row(line: &RefusedLine) -> Value {
    json!({"line": line.line, "error": {"code": line.code, "message": line.message}})
}
