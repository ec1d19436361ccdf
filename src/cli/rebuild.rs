//! `unread rebuild`.

use clap::Args;
use serde_json::{Value, json};

use super::args::ScopeArgs;
use super::connect::readable;
use super::exit::{Failure, well_if};
use super::findings::{
    JsonLists, UnreadableShown, check_known, drift_line, failed, looked_at, sums, unreadable_text,
};
use super::output::{counted, print};
use super::process::on_runtime;
use super::progress::Meter;
use crate::audit::{Finding, Mended, Repair, Repairer, Scope};
use crate::inspector::{drift_rows, unreadable_row};
use crate::keys::decode;
use crate::names::AppId;

#[derive(Debug, Args)]
pub(super) struct RebuildArgs {
    #[command(flatten)]
    of: ScopeArgs,
    /// Also mend what can't be read, as far as it follows from other data, and remove the rest of it
    #[arg(long)]
    mend: bool,
    /// Only print what --mend would do, and write nothing; exit code 1: there is something to mend
    #[arg(long, requires = "mend")]
    dry_run: bool,
}

impl RebuildArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let as_json = self.of.json;
        let (config, scope) = self.of.config_and_scope()?;
        on_runtime(async {
            let (engine, _) = readable(&config).await?;
            let repairer = Repairer::new(&engine);
            check_known(repairer.audit(), &config, &scope).await?;
            let meter = Meter::new("rebuild");
            let list = if self.mend { "mended" } else { "rebuilt" };
            let mut lists = JsonLists::open(as_json, list);
            if self.mend {
                let total =
                    mend(&repairer, &scope, self.dry_run, as_json, &mut lists, &meter).await?;
                if self.dry_run {
                    print_what_would_be_mended(total, as_json, &lists);
                    return Ok(well_if(total == 0));
                }
                lists.next("rebuilt");
            }
            rebuild(&repairer, &scope, as_json, lists, &meter).await
        })
    }
}

/// Mends or removes what can't be read and prints it, or only prints what that would come to. Answers how much it is.
async fn mend(
    repairer: &Repairer,
    scope: &Scope,
    dry_run: bool,
    as_json: bool,
    lists: &mut JsonLists,
    meter: &Meter,
) -> Result<u64, Failure> {
    let mut total = 0u64;
    let found = async |mended: Mended| {
        total += 1;
        meter.clear();
        match as_json {
            true => lists.add(&mended_row(&mended)),
            false => print(&mended_text(&mended, dry_run)),
        }
        Ok(())
    };
    repairer
        .mend(scope, dry_run, found, |progress| meter.show(progress))
        .await
        .map_err(failed)?;
    meter.clear();
    Ok(total)
}

fn mended_row(mended: &Mended) -> Value {
    let mut row = unreadable_row(&mended.was);
    if let Some(row) = row.as_object_mut() {
        row.insert("is".into(), mended.now.clone().into());
    }
    row
}

fn mended_text(mended: &Mended, dry_run: bool) -> String {
    let was = unreadable_text(&mended.was);
    match (&mended.now, dry_run) {
        (Some(now), false) => format!("mended: {was}; is {now:?}\n"),
        (Some(now), true) => format!("would be mended: {was}; would be {now:?}\n"),
        (None, false) => format!("removed: {was}\n"),
        (None, true) => format!("would be removed: {was}\n"),
    }
}

fn print_what_would_be_mended(total: u64, as_json: bool, lists: &JsonLists) {
    if as_json {
        lists.close(&json!({ "mended_total": total }));
        return;
    }
    let of = match total {
        1 => "key or field",
        _ => "keys and fields",
    };
    print(&format!(
        "{total} {of} would be mended or removed; nothing was written\n"
    ));
}

/// Looks for drift, repairs it, and prints what was changed. Answers the exit code.
async fn rebuild(
    repairer: &Repairer,
    scope: &Scope,
    as_json: bool,
    mut lists: JsonLists,
    meter: &Meter,
) -> Result<u8, Failure> {
    let (mut users, mut left, mut is_left) = (0u64, 0u64, false);
    let mut unreadable = UnreadableShown::default();
    let found = async |found: Finding| {
        let found = match found {
            Finding::Drift(found) => found,
            Finding::Unreadable(found) => {
                // What the repair makes anew comes as drift, too.
                if !found.derived {
                    meter.clear();
                    unreadable.add(&found, as_json, "; left alone");
                }
                return Ok(());
            }
        };
        let (app, user) = (found.app.clone(), decode(found.user.as_str()));
        let is_new = !found.again;
        let repair = repairer.rebuild(found).await?;
        let did = !repair.changed.is_empty() || !repair.redelivered.is_empty();
        users += u64::from(is_new && did);
        left += u64::from(is_new && !repair.left.is_empty());
        is_left |= !repair.left.is_empty();
        meter.clear();
        match as_json {
            true => lists.add(&repair_row(&app, &user, &repair)),
            false => print(&repair_text(&app, &user, &repair)),
        }
        Ok(())
    };
    let done = repairer
        .audit()
        .verify(scope, found, |progress| meter.show(progress))
        .await
        .map_err(failed)?;
    meter.clear();
    let left = left.max(u64::from(is_left));
    let left_unreadable = done.unreadable.saturating_sub(done.derived);
    if as_json {
        let mut sums = sums(&done, [("rebuilt_users", users), ("users_left", left)]);
        unreadable.add_to(&mut sums, left_unreadable);
        lists.close(&sums);
    } else {
        unreadable.print_rest(left_unreadable);
        if left_unreadable > 0 {
            print(
                "what can't be read was left alone; `unread rebuild --mend`, without --user, mends or removes it\n",
            );
        }
        let did = match (users, left) {
            (0, 0) => "nothing to rebuild".to_owned(),
            (0, _) => "nothing rebuilt".to_owned(),
            _ => format!("{} rebuilt", counted(users, "user")),
        };
        let left = match left {
            0 => String::new(),
            1 => ", 1 user still drifts".to_owned(),
            more => format!(", {more} users still drift"),
        };
        print(&format!("{did}{left}: {}\n", looked_at(&done)));
    }
    Ok(well_if(left == 0 && left_unreadable == 0))
}

fn repair_row(app: &AppId, user: &str, repair: &Repair) -> Value {
    let told: Vec<String> = repair
        .redelivered
        .iter()
        .map(|room| decode(room.as_str()))
        .collect();
    json!({
        "app": app.as_str(), "user": user, "changed": drift_rows(&repair.changed, ["was", "is"]), "told": told,
        "left": drift_rows(&repair.left, ["stored", "expected"]), "left_alone": repair.unreadable,
    })
}

fn repair_text(app: &AppId, user: &str, repair: &Repair) -> String {
    let done = match repair.unreadable {
        true => "left alone, not all can be read",
        false => "rebuilt",
    };
    let mut text = format!("{done}: app {app}, user {user:?}\n");
    for drift in &repair.changed {
        text.push_str(&format!("  {}\n", drift_line(drift, ["was", "is"])));
    }
    for room in &repair.redelivered {
        text.push_str(&format!(
            "  delivered again: room {:?}\n",
            decode(room.as_str())
        ));
    }
    for drift in &repair.left {
        let still = drift_line(drift, ["stored", "expected"]);
        text.push_str(&format!("  can't be repaired: {still}\n"));
    }
    text
}
