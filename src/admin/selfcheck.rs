//! `unread verify` and `unread rebuild`.

use serde_json::{Value, json};

use super::progress::Meter;
use super::{counted, nothing_kept, observe};
use crate::audit::{Audit, Drift, Finding, Mended, Progress, Repairer, Scope, Unreadable};
use crate::cli::{Failure, print};
use crate::config::Config;
use crate::error::Error;
use crate::keys::decode;

/// So much of what can't be read is named; the rest is counted.
const UNREADABLE: u64 = 1_000;
/// A value is shown up to so many characters.
const VALUE: usize = 400;

fn failed(error: Error) -> Failure {
    Failure::from(error).map(|why| format!("could not run to its end: {why}"))
}

/// Looks whether anything is kept of whom the command is about. An app that is configured may have nothing yet.
async fn known(audit: &Audit, config: &Config, scope: &Scope) -> Result<(), Failure> {
    let Some(app) = &scope.app else {
        return Ok(());
    };
    let configured = config.apps.iter().any(|one| one.id == *app);
    if (configured && scope.user.is_none()) || audit.knows(scope).await.map_err(failed)? {
        return Ok(());
    }
    let user = scope.user.as_ref().map(|user| decode(user.as_str()));
    Err(nothing_kept(
        app,
        user.as_ref().map(|user| ("user", user.as_str())),
    ))
}

/// `counts messages:group: stored 5, expected 4`
fn line(drift: &Drift, verbs: [&str; 2]) -> String {
    let part = drift
        .part
        .map(|part| format!(" {part}"))
        .unwrap_or_default();
    let shown = |value: &Option<String>| value.as_deref().map_or("nothing".into(), shown);
    let [stored, expected] = verbs;
    format!(
        "{} {}{part}: {stored} {}, {expected} {}",
        drift.key,
        self::shown(&drift.field),
        shown(&drift.stored),
        shown(&drift.expected)
    )
}

/// The beginning of a long text.
fn cut(text: &str) -> String {
    text.chars().take(VALUE * 10).collect()
}

/// A text as it is stored, without what a terminal would obey, and not all of a long one.
fn shown(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars().take(VALUE) {
        match c.is_control() {
            true => short.extend(c.escape_default()),
            false => short.push(c),
        }
    }
    if text.chars().nth(VALUE).is_some() {
        short.push('…');
    }
    short
}

fn table(drift: &[Drift], names: [&str; 2]) -> Vec<Value> {
    drift.iter().map(|drift| row(drift, names)).collect()
}

fn row(drift: &Drift, names: [&str; 2]) -> Value {
    let [stored, expected] = names;
    json!({
        "key": drift.key,
        "field": cut(&drift.field),
        "part": drift.part,
        stored: drift.stored.as_deref().map(cut),
        expected: drift.expected.as_deref().map(cut),
    })
}

/// Writes a JSON document whose lists come bit by bit, so that they need not be held.
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

    /// Another list follows.
    fn next(&mut self, list: &str) {
        if self.on {
            let end = if self.some { "\n" } else { "" };
            print(&format!("{end}],\"{list}\":["));
            self.some = false;
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

/// The first of what can't be read, printed or held for the document.
#[derive(Default)]
struct Unread {
    shown: u64,
    rows: Vec<Value>,
}

impl Unread {
    fn add(&mut self, unreadable: &Unreadable, as_json: bool, note: &str) {
        if self.shown >= UNREADABLE {
            return;
        }
        self.shown += 1;
        if as_json {
            self.rows.push(unreadable_row(unreadable));
        } else {
            print(&format!("can't be read: {}{note}\n", named(unreadable)));
        }
    }

    /// Says how many more there are.
    fn rest(&self, total: u64) {
        if total > self.shown {
            print(&format!("can't be read: {} more\n", total - self.shown));
        }
    }
}

/// Something that can't be read, in a document.
pub(super) fn unreadable_row(unreadable: &Unreadable) -> Value {
    json!({
        "key": unreadable.key, "field": unreadable.field, "reason": unreadable.why, "stored": unreadable.stored,
        "log": (!unreadable.log.is_empty()).then_some(&unreadable.log),
        "repaired_by": if unreadable.derived { "rebuild" } else { "rebuild --mend" },
    })
}

/// `unread:v1:{demo:u:alice}:counts tag:x: not a number from 0 to 2^53: "many" (#1a2b3c4d in logs)`
fn named(unreadable: &Unreadable) -> String {
    let Unreadable {
        key,
        field,
        why,
        stored,
        log,
        ..
    } = unreadable;
    let field = field.as_ref().map(|field| format!(" {field}"));
    let stored = stored.as_ref().map(|stored| format!(": {stored:?}"));
    let log = match log.is_empty() {
        true => String::new(),
        false => format!(" ({log} in logs)"),
    };
    let (field, stored) = (field.unwrap_or_default(), stored.unwrap_or_default());
    format!("{key}{field}: {why}{stored}{log}")
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
        "{} and {} looked at",
        counted(done.users, "user"),
        counted(done.members, "membership")
    );
    if done.in_flight > 0 {
        text.push_str(&format!(
            "; {} not judged, since fan-outs stayed under way",
            counted(done.in_flight, "user")
        ));
    }
    text
}

/// Looks for drift, and for what can't be read, and prints it. Answers whether there is any; an error: it could not run to its
/// end.
pub async fn verify(config: &Config, scope: Scope, as_json: bool) -> Result<bool, Failure> {
    let (engine, _) = observe(config)?;
    let audit = Audit::new(&engine);
    known(&audit, config, &scope).await?;
    let meter = Meter::new("verify");
    let mut rows = Rows::open(as_json, "drift");
    let (mut users, mut fields, mut unread) = (0u64, 0u64, Unread::default());
    let found = async |found: Finding| {
        let found = match found {
            Finding::Drift(found) => found,
            Finding::Unreadable(found) => {
                meter.clear();
                unread.add(&found, as_json, "");
                return Ok(());
            }
        };
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
    let done = audit
        .verify(&scope, found, |progress| meter.show(progress))
        .await
        .map_err(failed)?;
    meter.clear();
    if as_json {
        let mut sums = sums(
            &done,
            [("drifting_users", users), ("drifting_fields", fields)],
        );
        with_unreadable(&mut sums, unread.rows, done.unreadable);
        rows.close(&sums);
    } else {
        unread.rest(done.unreadable);
        print(&match (users, done.unreadable) {
            (0, 0) => format!("no drift: {}\n", looked(&done)),
            (0, _) => format!("no drift in what can be read: {}\n", looked(&done)),
            _ => format!(
                "{} of {} {}: {}\n",
                counted(fields, "field"),
                counted(users, "user"),
                if fields == 1 { "drifts" } else { "drift" },
                looked(&done)
            ),
        });
    }
    Ok(users > 0 || done.unreadable > 0)
}

fn with_unreadable(sums: &mut Value, rows: Vec<Value>, total: u64) {
    if let Some(sums) = sums.as_object_mut() {
        sums.insert("unreadable".into(), rows.into());
        sums.insert("unreadable_total".into(), total.into());
    }
}

/// Prints what was mended, or would be.
fn tell_of(mended: &Mended, rows: &mut Rows, dry: bool) {
    if rows.on {
        let mut row = unreadable_row(&mended.was);
        if let Some(row) = row.as_object_mut() {
            row.insert("is".into(), mended.now.clone().into());
        }
        rows.add(&row);
        return;
    }
    let was = named(&mended.was);
    print(&match (&mended.now, dry) {
        (Some(now), false) => format!("mended: {was}; is {now:?}\n"),
        (Some(now), true) => format!("would be mended: {was}; would be {now:?}\n"),
        (None, false) => format!("removed: {was}\n"),
        (None, true) => format!("would be removed: {was}\n"),
    });
}

/// What is to become of what can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    /// It is named and left alone.
    No,
    /// What that would come to is told; nothing else is done.
    Try,
    /// It is mended or removed.
    Yes,
}

/// Looks for drift, repairs it, and prints what was changed; mends first what can't be read, if that is asked for. Answers
/// whether something is left.
pub async fn rebuild(
    config: &Config,
    scope: Scope,
    mending: Mending,
    as_json: bool,
) -> Result<bool, Failure> {
    let (engine, _) = observe(config)?;
    let repairer = Repairer::new(&engine);
    let audit = repairer.audit();
    known(audit, config, &scope).await?;
    let meter = Meter::new("rebuild");
    let first = match mending {
        Mending::No => "rebuilt",
        Mending::Try | Mending::Yes => "mended",
    };
    let mut rows = Rows::open(as_json, first);
    if mending != Mending::No {
        let dry = mending == Mending::Try;
        let mut total = 0u64;
        let found = async |mended: Mended| {
            total += 1;
            meter.clear();
            tell_of(&mended, &mut rows, dry);
            Ok(())
        };
        repairer
            .mend(&scope, dry, found, |progress| meter.show(progress))
            .await
            .map_err(failed)?;
        meter.clear();
        if dry {
            rows.close(&json!({ "mended_total": total }));
            if !as_json {
                let of = match total {
                    1 => "key or field",
                    _ => "keys and fields",
                };
                print(&format!(
                    "{total} {of} would be mended or removed; nothing was written\n"
                ));
            }
            return Ok(total > 0);
        }
        rows.next("rebuilt");
    }
    let (mut users, mut left, mut unread) = (0u64, 0u64, Unread::default());
    let found = async |found: Finding| {
        let found = match found {
            Finding::Drift(found) => found,
            Finding::Unreadable(found) => {
                // What the repair makes anew is drift as well.
                if !found.derived {
                    meter.clear();
                    unread.add(&found, as_json, "; left alone");
                }
                return Ok(());
            }
        };
        let (app, name) = (found.app.clone(), decode(found.user.as_str()));
        users += u64::from(!found.again);
        let repair = repairer.rebuild(found).await?;
        left += u64::from(!repair.left.is_empty());
        meter.clear();
        if as_json {
            let told: Vec<String> = repair.told.iter().map(|r| decode(r.as_str())).collect();
            rows.add(&json!({
                "app": app.as_str(), "user": name, "changed": table(&repair.changed, ["was", "is"]), "told": told,
                "left": table(&repair.left, ["stored", "expected"]), "left_alone": repair.unreadable,
            }));
        } else {
            let done = match repair.unreadable {
                true => "left alone, not all can be read",
                false => "rebuilt",
            };
            let mut text = format!("{done}: app {app}, user {name:?}\n");
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
    let done = audit
        .verify(&scope, found, |progress| meter.show(progress))
        .await
        .map_err(failed)?;
    meter.clear();
    let unreadable = done.unreadable.saturating_sub(done.derived);
    if as_json {
        let mut sums = sums(&done, [("rebuilt_users", users), ("users_left", left)]);
        with_unreadable(&mut sums, unread.rows, unreadable);
        rows.close(&sums);
    } else {
        unread.rest(unreadable);
        if unreadable > 0 {
            print(
                "what can't be read was left alone; `unread rebuild --mend` mends or removes it\n",
            );
        }
        print(&match users {
            0 => format!("nothing to rebuild: {}\n", looked(&done)),
            _ => format!("{} rebuilt: {}\n", counted(users, "user"), looked(&done)),
        });
    }
    Ok(left > 0 || unreadable > 0)
}
