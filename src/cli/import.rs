//! `unread import`.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::{RedisArgs, app_id, not_configured};
use super::connect::connect;
use super::exit::{Failure, well_if};
use super::files::{Rereadable, name_of, open, reject_counts};
use super::output::{counted, print};
use super::process::{Signals, on_runtime};
use super::progress::Meter;
use crate::app::Stop;
use crate::audit::{Audit, Scope};
use crate::config::Config;
use crate::engine::Engine;
use crate::intake::{
    EarlyEnd, ImportOptions, Imported, Importer, LineForm, LineOptions, NO_TIME, NotedLine,
    RefusedLine, Remarks, time_of,
};
use crate::names::AppId;
use crate::telemetry::metrics::Metrics;

/// So many rejected lines are shown with what is wrong with them, and so many lines with what was left out of them. The rest is
/// counted.
const FIRST: usize = 20;

/// How far ahead of this machine's clock the time of a number may be, in milliseconds. Whatever is known of a user and room as of
/// a later time would keep all that comes until then from changing it.
const AHEAD: i64 = 600_000;
const IN_THE_FUTURE: &str =
    "time: is in the future: neither the row nor --as-of may be more than ten minutes ahead";

/// What places the events of a file.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// The order of the lines
    Arrival,
    /// The events' own times
    Time,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// The app's id
    #[arg(long)]
    app: String,
    /// Begin with this line; the first line is 1
    #[arg(long, value_name = "LINE", default_value_t = 1)]
    from_line: u64,
    /// The name by which the lines are known: a file that is imported again under the same name within history.key_hours
    /// changes nothing [default: the file's path; for standard input: none]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Seconds for which to go on trying while Redis is away, up to 86400
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(..=86_400))]
    patience_seconds: u64,
    /// The file is a counts file: CSV with the columns room, user, unread, and if it has them kind, mentions, time
    #[arg(long)]
    counts: bool,
    /// When the counts were so, for rows that don't say it by themselves: milliseconds since the epoch, or RFC 3339
    #[arg(long, value_name = "TIME", requires = "counts", value_parser = time_of)]
    as_of: Option<i64>,
    /// Make the rooms of the rows where they are not there, and let the users into them
    #[arg(long, requires = "counts")]
    join: bool,
    /// What places the events: `arrival`, the order of the lines; or `time`, their own times, as always with --counts
    #[arg(long, value_enum, default_value_t = Order::Arrival, conflicts_with = "counts")]
    order: Order,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// The file; `-`: standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl ImportArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let app = app_id(self.app)?;
        let config = self.redis.config()?;
        if !config.apps.is_empty() && !config.apps.iter().any(|one| one.id == app) {
            return Err(not_configured(app.as_str()));
        }
        let form = match self.counts {
            false => LineForm::Events {
                max_line: config.server.max_events_bytes,
                by_time: matches!(self.order, Order::Time),
            },
            true => LineForm::Counts {
                as_of: self.as_of,
                join: self.join,
            },
        };
        let (lines, length): (Box<dyn BufRead + Send>, _) = match self.counts {
            false => {
                let (mut lines, length) = open(&self.file)?;
                reject_counts(&self.file, &mut lines)?;
                (lines, length)
            }
            true => {
                let file = Rereadable::open(&self.file)?;
                let latest = Timestamp::now().as_millisecond() + AHEAD;
                file.check_rows("imported", |row| match row.time.or(self.as_of) {
                    Some(time) if time <= latest => Ok(()),
                    Some(_) => Err(IN_THE_FUTURE.to_owned()),
                    None => Err(NO_TIME.to_owned()),
                })?;
                (Box::new(file.lines()?), file.length())
            }
        };
        let options = ImportOptions {
            lines: LineOptions {
                name: self.name.unwrap_or_else(|| name_of(&self.file)),
                from_line: self.from_line,
                form,
            },
            patience: Duration::from_secs(self.patience_seconds),
            max_reported: FIRST,
        };
        on_runtime(async {
            let mut signals = Signals::listen()?;
            let stop = async {
                let _: Stop = signals.next().await;
            };
            import(&config, &app, (lines, length), options, self.json, stop).await
        })
    }
}

/// Applies the events of a file and prints what came of them. Answers the exit code; an error: it did not come to the end.
async fn import(
    config: &Config,
    app: &AppId,
    (lines, length): (Box<dyn BufRead + Send>, Option<u64>),
    options: ImportOptions,
    as_json: bool,
    stop: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    let metrics = Arc::new(Metrics::new());
    let engine = connect(config, Arc::clone(&metrics)).await?;
    tell_if_new(config, &engine, app).await;
    let mut report = Report {
        as_json,
        of_counts: matches!(options.lines.form, LineForm::Counts { .. }),
        from_line: options.lines.from_line,
        length,
        meter: Meter::new("import"),
        start: Instant::now(),
        refused: 0,
        refused_rows: Vec::new(),
        noted: 0,
        noted_rows: Vec::new(),
    };
    let on = |done: &Imported, remarks: Remarks| report.add(done, remarks);
    let (done, early_end) = Importer::new(&engine)
        .import(app, lines, options, stop, on)
        .await;
    report.finish(&done, metrics.deliveries(), early_end.is_none());
    let Some(early_end) = early_end else {
        return Ok(well_if(done.rejected == 0));
    };
    let failure = match early_end {
        EarlyEnd::Engine(error) => Failure::from(error),
        early_end => Failure::Failed(early_end.to_string()),
    };
    Err(failure.map(|why| {
        format!(
            "stopped: {why}; all lines up to {} are done: go on with --from-line {}",
            done.done_to,
            done.done_to + 1
        )
    }))
}

/// Says so if the app begins with this import: its name may be misspelt. A configuration would have told.
async fn tell_if_new(config: &Config, engine: &Engine, app: &AppId) {
    let scope = Scope {
        app: Some(app.clone()),
        user: None,
    };
    if config.apps.is_empty() && matches!(Audit::new(engine).knows(&scope).await, Ok(false)) {
        eprintln!("unread: nothing is kept of app \"{app}\" yet: it begins with this import");
    }
}

/// Shows how far the import has come and what is said of single lines: at once as text, at the end as JSON.
struct Report {
    as_json: bool,
    /// Whether the file is a counts file.
    of_counts: bool,
    from_line: u64,
    /// Bytes of the file.
    length: Option<u64>,
    meter: Meter,
    start: Instant,
    refused: u64,
    refused_rows: Vec<Value>,
    noted: usize,
    noted_rows: Vec<Value>,
}

impl Report {
    fn add(&mut self, done: &Imported, remarks: Remarks) {
        for line in remarks.noted {
            self.noted += 1;
            if self.noted <= FIRST {
                self.add_noted(&line);
            }
        }
        for line in remarks.refused {
            self.refused += 1;
            self.add_refused(&line);
        }
        let fraction = self
            .length
            .map(|length| done.bytes as f64 / (length.max(1)) as f64);
        self.meter.update(fraction, || {
            let events = counted(done.events, "event");
            format!("{events}, {} rejected", done.rejected)
        });
    }

    fn add_noted(&mut self, NotedLine { line, notes }: &NotedLine) {
        let notes: Vec<&str> = notes.iter().collect();
        if self.as_json {
            self.noted_rows.push(json!({"line": line, "notes": notes}));
        } else {
            self.meter.clear();
            print(&format!("line {line}: note: {}\n", notes.join("; ")));
        }
    }

    fn add_refused(&mut self, refused: &RefusedLine) {
        let RefusedLine {
            line,
            code,
            message,
        } = refused;
        if self.as_json {
            let error = json!({"code": code, "message": message});
            self.refused_rows
                .push(json!({"line": line, "error": error}));
        } else {
            self.meter.clear();
            print(&format!("line {line}: {code}: {message}\n"));
        }
    }

    /// Why there was nothing in a file whose last line this is.
    fn why_nothing(&self, last: u64) -> String {
        let from = self.from_line;
        let unit = if self.of_counts { "a row" } else { "an event" };
        match last {
            0 => "the file is empty".to_owned(),
            _ if last < from => format!("line {last} is the last one, and --from-line is {from}"),
            _ => format!("line {last} is the last one, and no line holds {unit}"),
        }
    }

    fn finish(self, done: &Imported, deliveries: u64, is_complete: bool) {
        self.meter.clear();
        let seconds = self.start.elapsed().as_secs_f64();
        let per_second = |n: u64| (n as f64 / seconds.max(1e-9)).round();
        let refused_more = done.rejected.saturating_sub(self.refused);
        let noted_more = self.noted.saturating_sub(FIRST);
        if self.as_json {
            let document = json!({
                "events": done.events, "applied": done.applied, "duplicates": done.duplicates, "rejected": done.rejected,
                "deliveries": deliveries, "seconds": (seconds * 1e3).round() / 1e3,
                "events_per_second": per_second(done.events), "deliveries_per_second": per_second(deliveries),
                "done_to_line": done.done_to, "complete": is_complete, "errors": self.refused_rows,
                "errors_not_shown": refused_more,
                "noted": self.noted, "notes": self.noted_rows, "notes_not_shown": noted_more,
            });
            print(&format!("{document:#}\n"));
            return;
        }
        if done.events == 0 && is_complete {
            print(&format!(
                "nothing to import: {}\n",
                self.why_nothing(done.done_to)
            ));
        }
        let mut more = match refused_more {
            0 => String::new(),
            1 => "1 more line was rejected\n".to_owned(),
            more => format!("{more} more lines were rejected\n"),
        };
        if noted_more > 0 {
            more.push_str(&format!("{noted_more} more lines have notes\n"));
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
        if self.of_counts && done.duplicates > 0 {
            eprintln!(
                "unread: duplicates changed nothing: such a row was imported before, or is not later than what set the user's read \
                 position last; `unread compare` shows which numbers differ"
            );
        }
    }
}
