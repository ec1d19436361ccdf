//! `unread verify` and `unread rebuild`.

use serde_json::{Value, json};

use super::progress::Meter;
use super::store;
use crate::cli::print;
use crate::config::Config;
use crate::error::Error;
use crate::keys::decode;
use crate::store::{Drift, Progress, Scope, UserDrift};

fn failed(error: &Error) -> String {
    format!("could not run to its end: {error}")
}

/// `counts messages:group: stored 5, expected 4`
fn line(drift: &Drift, verbs: [&str; 2]) -> String {
    let part = drift
        .part
        .map(|part| format!(" {part}"))
        .unwrap_or_default();
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
    let [stored, expected] = verbs;
    format!(
        "{} {}{part}: {stored} {}, {expected} {}",
        drift.key,
        drift.field,
        shown(&drift.stored),
        shown(&drift.expected)
    )
}

fn table(drift: &[Drift], names: [&str; 2]) -> Vec<Value> {
    drift.iter().map(|drift| row(drift, names)).collect()
}

fn row(drift: &Drift, names: [&str; 2]) -> Value {
    let [stored, expected] = names;
    json!({
        "key": drift.key,
        "field": drift.field,
        "part": drift.part,
        stored: drift.stored,
        expected: drift.expected,
    })
}

/// Writes a JSON document whose list comes bit by bit, so that it need not be held.
struct Rows {
    on: bool,
    some: bool,
}

impl Rows {
    fn open(on: bool, list: &str) -> Self {
        if on {
            print(&format!("{{\"{list}\":["));
        }
        Self { on, some: false }
    }

    fn add(&mut self, row: &Value) {
        if self.on {
            print(&format!("{}\n{row}", if self.some { "," } else { "" }));
            self.some = true;
        }
    }

    /// The members of `rest` follow the list.
    fn close(&self, rest: &Value) {
        if self.on {
            let rest = rest.to_string();
            let rest = rest.trim_start_matches('{');
            print(&format!("{}],{rest}\n", if self.some { "\n" } else { "" }));
        }
    }
}

/// What was looked at, and what came of it.
fn sums(done: &Progress, found: [(&str, u64); 2]) -> Value {
    let mut sums =
        json!({"users": done.users, "memberships": done.members, "in_flight": done.in_flight});
    if let Some(sums) = sums.as_object_mut() {
        sums.extend(found.map(|(name, count)| (name.to_owned(), count.into())));
    }
    sums
}

fn looked(done: &Progress) -> String {
    let mut text = format!(
        "{} users and {} memberships looked at",
        done.users, done.members
    );
    if done.in_flight > 0 {
        text.push_str(&format!(
            "; {} users not judged, since fan-outs to them stayed under way",
            done.in_flight
        ));
    }
    text
}

/// Looks for drift and prints it. Answers whether there is any; an error: it could not run to its end.
pub async fn verify(config: &Config, scope: Scope, as_json: bool) -> Result<bool, String> {
    let (store, _) = store(config)?;
    let meter = Meter::new("verify");
    let mut rows = Rows::open(as_json, "drift");
    let (mut users, mut fields) = (0u64, 0u64);
    let found = async |found: UserDrift| {
        users += u64::from(!found.again);
        fields += found.drift.len() as u64;
        let user = decode(found.user.as_str());
        meter.clear();
        if as_json {
            let drift = table(&found.drift, ["stored", "expected"]);
            rows.add(&json!({"app": found.app.as_str(), "user": user, "fields": drift}));
        } else {
            let mut text = format!("drift: app {}, user {user:?}\n", found.app);
            for drift in &found.drift {
                text.push_str(&format!("  {}\n", line(drift, ["stored", "expected"])));
            }
            print(&text);
        }
        Ok(())
    };
    let done = store
        .verify(&scope, found, |progress| meter.show(progress))
        .await
        .map_err(|error| failed(&error))?;
    meter.clear();
    if as_json {
        rows.close(&sums(
            &done,
            [("drifting_users", users), ("drifting_fields", fields)],
        ));
    } else if users == 0 {
        print(&format!("no drift: {}\n", looked(&done)));
    } else {
        print(&format!(
            "{fields} fields of {users} users drift: {}\n",
            looked(&done)
        ));
    }
    Ok(users > 0)
}

/// Looks for drift, repairs it, and prints what was changed. Answers whether something is left that it can't repair.
pub async fn rebuild(config: &Config, scope: Scope, as_json: bool) -> Result<bool, String> {
    let (store, _) = store(config)?;
    let meter = Meter::new("rebuild");
    let mut rows = Rows::open(as_json, "rebuilt");
    let (mut users, mut left) = (0u64, 0u64);
    let found = async |found: UserDrift| {
        let (app, name) = (found.app.clone(), decode(found.user.as_str()));
        users += u64::from(!found.again);
        let repair = store.rebuild(found).await?;
        left += u64::from(!repair.left.is_empty());
        meter.clear();
        if as_json {
            let told: Vec<String> = repair.told.iter().map(|r| decode(r.as_str())).collect();
            rows.add(&json!({
                "app": app.as_str(), "user": name, "changed": table(&repair.changed, ["was", "is"]), "told": told,
                "left": table(&repair.left, ["stored", "expected"]),
            }));
        } else {
            let mut text = format!("rebuilt: app {app}, user {name:?}\n");
            for drift in &repair.changed {
                text.push_str(&format!("  {}\n", line(drift, ["was", "is"])));
            }
            for room in &repair.told {
                text.push_str(&format!("  told again: room {:?}\n", decode(room.as_str())));
            }
            for drift in &repair.left {
                let still = line(drift, ["stored", "expected"]);
                text.push_str(&format!("  can't be repaired: {still}\n"));
            }
            print(&text);
        }
        Ok(())
    };
    let done = store
        .verify(&scope, found, |progress| meter.show(progress))
        .await
        .map_err(|error| failed(&error))?;
    meter.clear();
    if as_json {
        rows.close(&sums(
            &done,
            [("rebuilt_users", users), ("users_left", left)],
        ));
    } else if users == 0 {
        print(&format!("nothing to rebuild: {}\n", looked(&done)));
    } else {
        print(&format!("{users} users rebuilt: {}\n", looked(&done)));
    }
    Ok(left > 0)
}
