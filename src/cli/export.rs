//! `unread export`.

use clap::Args;

use super::args::{RedisArgs, app_id};
use super::connect::readable;
use super::exit::{Failure, well_if};
use super::findings::check_known;
use super::output::write_all;
use super::process::on_runtime;
use super::progress::Meter;
use crate::audit::{CountsAudit, ListProgress, Scope};
use crate::config::Config;
use crate::intake::RowWriter;
use crate::names::AppId;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// The app's id
    #[arg(long)]
    app: String,
    /// Write what every user has unread in every room, as CSV with the columns room, user, kind, unread, mentions, time
    #[arg(long, required = true)]
    counts: bool,
}

impl ExportArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let app = app_id(self.app)?;
        let config = self.redis.config()?;
        on_runtime(export(&config, &app))
    }
}

/// Writes the counts of an app to standard output. Answers the exit code; an error: it did not come to the end.
async fn export(config: &Config, app: &AppId) -> Result<u8, Failure> {
    let (engine, _) = readable(config).await?;
    let counts = CountsAudit::new(&engine);
    let scope = Scope {
        app: Some(app.clone()),
        user: None,
    };
    check_known(counts.audit(), config, &scope).await?;
    let meter = Meter::new("export");
    let mut rows = RowWriter::new();
    write_all(&rows.take())?;
    let mut unreadable = 0u64;
    let done = counts.list(
        app,
        |user| {
            match user.rooms {
                Ok(rooms) => {
                    for room in rooms {
                        let counts = [room.messages, room.mentions];
                        rows.add(
                            &room.room,
                            &user.user,
                            room.kind.as_str(),
                            counts,
                            user.time,
                        );
                    }
                }
                Err(why) => {
                    unreadable += 1;
                    meter.clear();
                    eprintln!("unread: left out: user {:?}: {why}", user.user);
                }
            }
            write_all(&rows.take())
        },
        |progress: &ListProgress| meter.show_list(progress.fraction, progress),
    );
    done.await.map_err(|failure: Failure| {
        failure.map(|why| format!("could not run to its end: {why}"))
    })?;
    Ok(well_if(unreadable == 0))
}
