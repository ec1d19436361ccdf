//! `unread migrate`.

use clap::Args;
use serde_json::json;

use super::args::RedisArgs;
use super::connect::readable;
use super::exit::{Failure, well_if};
use super::findings::failed;
use super::output::{counted, print};
use super::process::on_runtime;
use super::progress::Meter;
use crate::audit::{Migrated, Migrator};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Only print what there is to do, and write nothing; exit code 1: there is something to do
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl MigrateArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let config = self.redis.config()?;
        on_runtime(migrate(&config, self.dry_run, self.json))
    }
}

/// Brings the data up to this program's schema. Answers the exit code.
async fn migrate(config: &Config, dry_run: bool, as_json: bool) -> Result<u8, Failure> {
    let (engine, _) = readable(config).await?;
    let meter = Meter::new("migrate");
    let done = Migrator::new(&engine)
        .migrate(dry_run, |progress| meter.show_users(progress))
        .await
        .map_err(failed)?;
    meter.clear();
    if as_json {
        let document = json!({
            "schema": done.version, "was_current": done.was_current, "dry_run": dry_run,
            "users": done.users, "changed": done.changed, "unreadable": done.unreadable,
            "migrated": done.was_current || (!dry_run && done.is_done()),
        });
        print(&format!("{document:#}\n"));
    } else {
        print(&text(&done, dry_run));
    }
    Ok(well_if(match dry_run {
        true => done.was_current,
        false => done.is_done(),
    }))
}

fn text(done: &Migrated, dry_run: bool) -> String {
    let version = done.version;
    if done.was_current {
        return format!("nothing to migrate: the data are of schema {version}\n");
    }
    let users = counted(done.users, "user");
    let changed = done.changed;
    let mut text = String::new();
    if done.unreadable > 0 {
        text.push_str(&format!(
            "{} can't be read; `unread rebuild --mend` mends or removes what can't be read\n",
            counted(done.unreadable, "user")
        ));
    }
    if dry_run {
        text.push_str(&format!(
            "to be migrated to schema {version}: {changed} of {users} would be changed; nothing was written\n"
        ));
        return text;
    }
    if done.unsettled {
        text.push_str(
            "users change again and again: does a pod of an earlier version still run?\n",
        );
    }
    text.push_str(&match done.is_done() {
        true => format!("migrated to schema {version}: {changed} of {users} changed\n"),
        false => format!("not migrated yet: {changed} of {users} changed\n"),
    });
    text
}
