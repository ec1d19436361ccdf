//! `unread verify`.

use clap::Args;
use serde_json::json;

use super::args::ScopeArgs;
use super::connect::readable;
use super::exit::{Failure, well_if};
use super::findings::{
    JsonLists, UnreadableShown, check_known, drift_line, failed, looked_at, sums,
};
use super::output::{counted, print};
use super::process::on_runtime;
use super::progress::Meter;
use crate::audit::{Audit, Finding, Scope};
use crate::config::Config;
use crate::inspector::drift_rows;
use crate::keys::decode;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    of: ScopeArgs,
}

impl VerifyArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let as_json = self.of.json;
        let (config, scope) = self.of.config_and_scope()?;
        on_runtime(verify(&config, scope, as_json))
    }
}

/// Looks for drift, and for what can't be read, and prints it. Answers the exit code; an error: it could not run to its end.
async fn verify(config: &Config, scope: Scope, as_json: bool) -> Result<u8, Failure> {
    let (engine, _) = readable(config).await?;
    let audit = Audit::new(&engine);
    check_known(&audit, config, &scope).await?;
    let meter = Meter::new("verify");
    let mut lists = JsonLists::open(as_json, "drift");
    let (mut users, mut fields) = (0u64, 0u64);
    let mut unreadable = UnreadableShown::default();
    let found = async |found: Finding| {
        let found = match found {
            Finding::Drift(found) => found,
            Finding::Unreadable(found) => {
                meter.clear();
                unreadable.add(&found, as_json, "");
                return Ok(());
            }
        };
        users += u64::from(!found.again);
        fields += found.drift.len() as u64;
        let user = decode(found.user.as_str());
        meter.clear();
        if as_json {
            let drift = drift_rows(&found.drift, ["stored", "expected"]);
            lists.add(&json!({"app": found.app.as_str(), "user": user, "fields": drift}));
        } else {
            let mut text = format!("drift: app {}, user {user:?}\n", found.app);
            for drift in &found.drift {
                let line = drift_line(drift, ["stored", "expected"]);
                text.push_str(&format!("  {line}\n"));
            }
            print(&text);
        }
        Ok(())
    };
    let done = audit
        .verify(&scope, found, |progress| meter.show(progress))
        .await
        .map_err(failed)?;
    meter.clear();
    if as_json {
        let found = [("drifting_users", users), ("drifting_fields", fields)];
        let mut sums = sums(&done, found);
        unreadable.add_to(&mut sums, done.unreadable);
        lists.close(&sums);
    } else {
        unreadable.print_rest(done.unreadable);
        print(&match (users, done.unreadable) {
            (0, 0) => format!("no drift: {}\n", looked_at(&done)),
            (0, _) => format!("no drift in what can be read: {}\n", looked_at(&done)),
            _ => format!(
                "{} of {} {}: {}\n",
                counted(fields, "field"),
                counted(users, "user"),
                if fields == 1 { "drifts" } else { "drift" },
                looked_at(&done)
            ),
        });
    }
    Ok(well_if(users == 0 && done.unreadable == 0))
}
