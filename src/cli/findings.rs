//! How `verify` and `rebuild` show what they find: fields that differ, and what can't be read.

use serde_json::{Value, json};

use super::exit::Failure;
use super::output::{counted, print};
use crate::audit::{Audit, Drift, Progress, Scope, UnreadableData};
use crate::config::Config;
use crate::error::Error;
use crate::inspector::unreadable_row;
use crate::keys::decode;

/// So much of what can't be read is named; the rest is counted.
const UNREADABLE: u64 = 1_000;
/// A value is shown up to so many characters.
const VALUE: usize = 400;

/// The failure of a command that had begun to look.
pub(super) fn failed(error: Error) -> Failure {
    Failure::from(error).map(|why| format!("could not run to its end: {why}"))
}

/// Fails if nothing is kept of the app or user that the command is about. An app that is configured may have nothing yet.
pub(super) async fn check_known(
    audit: &Audit,
    config: &Config,
    scope: &Scope,
) -> Result<(), Failure> {
    let Some(app) = &scope.app else {
        return Ok(());
    };
    let configured = config.apps.iter().any(|one| one.id == *app);
    if (configured && scope.user.is_none()) || audit.knows(scope).await.map_err(failed)? {
        return Ok(());
    }
    let user = scope.user.as_ref().map(|user| decode(user.as_str()));
    Err(Failure::nothing_kept(
        app,
        user.as_ref().map(|user| ("user", user.as_str())),
    ))
}

/// `counts messages:group: stored 5, expected 4`
pub(super) fn drift_line(drift: &Drift, verbs: [&str; 2]) -> String {
    let part = drift
        .part
        .map(|part| format!(" {part}"))
        .unwrap_or_default();
    let value = |value: &Option<String>| value.as_deref().map_or("nothing".into(), printable);
    let [stored, expected] = verbs;
    format!(
        "{} {}{part}: {stored} {}, {expected} {}",
        drift.key,
        printable(&drift.field),
        value(&drift.stored),
        value(&drift.expected)
    )
}

/// A text as it is stored, without what a terminal would obey, and not all of a long one.
fn printable(text: &str) -> String {
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

/// A JSON document whose lists are printed row by row, so that they need not be held. Prints nothing if the command prints text.
pub(super) struct JsonLists {
    as_json: bool,
    list_has_rows: bool,
}

impl JsonLists {
    /// Begins the document with this list.
    pub(super) fn open(as_json: bool, list: &str) -> Self {
        if as_json {
            print(&format!("{{\"{list}\":["));
        }
        Self {
            as_json,
            list_has_rows: false,
        }
    }

    pub(super) fn add(&mut self, row: &Value) {
        if self.as_json {
            let comma = if self.list_has_rows { "," } else { "" };
            print(&format!("{comma}\n{row}"));
            self.list_has_rows = true;
        }
    }

    /// Ends the list and begins another one.
    pub(super) fn next(&mut self, list: &str) {
        if self.as_json {
            print(&format!("{}],\"{list}\":[", self.end_of_rows()));
            self.list_has_rows = false;
        }
    }

    /// Ends the list and the document, with the members of `rest` between them.
    pub(super) fn close(&self, rest: &Value) {
        if self.as_json {
            let rest = rest.to_string();
            let rest = rest.trim_start_matches('{');
            print(&format!("{}],{rest}\n", self.end_of_rows()));
        }
    }

    fn end_of_rows(&self) -> &'static str {
        match self.list_has_rows {
            true => "\n",
            false => "",
        }
    }
}

/// The first of what can't be read: printed at once as text, held for the end of the document as JSON.
#[derive(Default)]
pub(super) struct UnreadableShown {
    shown: u64,
    rows: Vec<Value>,
}

impl UnreadableShown {
    pub(super) fn add(&mut self, unreadable: &UnreadableData, as_json: bool, note: &str) {
        if self.shown >= UNREADABLE {
            return;
        }
        self.shown += 1;
        if as_json {
            self.rows.push(unreadable_row(unreadable));
        } else {
            let text = unreadable_text(unreadable);
            print(&format!("can't be read: {text}{note}\n"));
        }
    }

    /// Prints how many more there are.
    pub(super) fn print_rest(&self, total: u64) {
        if total > self.shown {
            print(&format!("can't be read: {} more\n", total - self.shown));
        }
    }

    /// Adds all of them to the end of the document.
    pub(super) fn add_to(self, sums: &mut Value, total: u64) {
        if let Some(sums) = sums.as_object_mut() {
            sums.insert("unreadable".into(), self.rows.into());
            sums.insert("unreadable_total".into(), total.into());
        }
    }
}

/// `unread:v1:{demo:u:alice}:counts tag:x: not a number from 0 to 2^53: "many" (#1a2b3c4d in logs)`
pub(super) fn unreadable_text(unreadable: &UnreadableData) -> String {
    let UnreadableData {
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

/// How much was looked at, and what was found, for the end of a document.
pub(super) fn sums(done: &Progress, found: [(&str, u64); 2]) -> Value {
    let mut sums =
        json!({"users": done.users, "memberships": done.members, "in_flight": done.in_flight});
    if let Some(sums) = sums.as_object_mut() {
        sums.extend(found.map(|(name, count)| (name.to_owned(), count.into())));
    }
    sums
}

/// How much was looked at, as text.
pub(super) fn looked_at(done: &Progress) -> String {
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
