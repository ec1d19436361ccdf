//! What went wrong, so that it can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// The scene itself did not come about.
    Scene,
    /// No answer, though nothing was in its way.
    Refused,
    /// The answers to the events, in no order.
    Outcome,
    /// What was read in the end.
    Wrong,
    /// What was read when all had been answered, and came right by itself later.
    Late,
    /// What was read while the first operation was held.
    Meanwhile,
    /// What the self-check finds.
    Drift,
}

const FAULTS: [Fault; 7] = [
    Fault::Scene,
    Fault::Refused,
    Fault::Outcome,
    Fault::Wrong,
    Fault::Late,
    Fault::Meanwhile,
    Fault::Drift,
];

/// Where it went wrong: the operations, the scene, and the command before which the first one was held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Site {
    pub operations: String,
    pub meeting: String,
    pub at: usize,
    pub before: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub fault: Fault,
    pub site: Site,
    pub why: String,
}

impl Failure {
    /// One line, to be kept in a file.
    pub(crate) fn line(&self) -> String {
        let Site {
            operations,
            meeting,
            at,
            before,
        } = &self.site;
        serde_json::json!([
            format!("{:?}", self.fault),
            operations,
            meeting,
            at,
            before,
            self.why
        ])
        .to_string()
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let parts: Vec<Value> = serde_json::from_str(line).ok()?;
        let text = |at: usize| parts.get(at)?.as_str().map(str::to_owned);
        let site = Site {
            operations: text(1)?,
            meeting: text(2)?,
            at: parts.get(3)?.as_u64()? as usize,
            before: text(4)?,
        };
        let fault = FAULTS
            .into_iter()
            .find(|fault| Some(format!("{fault:?}")) == text(0))?;
        Some(Self {
            fault,
            site,
            why: text(5)?,
        })
    }
}

/// The failures by what is wrong and what met, each with one case to look at and with the names of all.
pub(crate) fn report(failures: &[Failure]) -> String {
    let mut classes: BTreeMap<(Fault, &str), Vec<&Failure>> = BTreeMap::new();
    for failure in failures {
        classes
            .entry((failure.fault, &failure.site.operations))
            .or_default()
            .push(failure);
    }
    let mut text = String::new();
    for ((fault, operations), mut failures) in classes {
        failures.sort_by(|one, two| one.site.cmp(&two.site));
        let names: BTreeSet<&str> = failures
            .iter()
            .map(|failure| failure.site.meeting.as_str())
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        let Site {
            meeting,
            at,
            before,
            ..
        } = &failures[0].site;
        writeln!(
            text,
            "{fault:?} {operations}, {} times, first INTERLEAVE={meeting}.{at} (before {before}), in {}{}",
            failures.len(),
            names.join(" "),
            shortened(&failures[0].why)
        )
        .unwrap();
    }
    text
}

/// Of answers that differ only what differs.
fn shortened(why: &str) -> String {
    let lines: Vec<&str> = why.lines().collect();
    let mut text = String::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let json = |at: usize, before: &str| {
            let line = lines.get(at)?.trim_start().strip_prefix(before)?;
            serde_json::from_str::<Value>(line).ok()
        };
        match (json(at, "got "), json(at + 1, "expected ")) {
            (Some(got), Some(expected)) => {
                let mut found = Vec::new();
                differences("", &got, &expected, &mut found);
                write!(text, "\n      {}", found.join(", ")).unwrap();
                at += 1;
            }
            _ => write!(text, "\n    {line}").unwrap(),
        }
        at += 1;
    }
    text
}

fn differences(path: &str, got: &Value, expected: &Value, found: &mut Vec<String>) {
    match (got, expected) {
        _ if got == expected => {}
        (Value::Object(one), Value::Object(two)) => {
            let names: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
            for name in names {
                differences(
                    &format!("{path}.{name}"),
                    &got[name],
                    &expected[name],
                    found,
                );
            }
        }
        (Value::Array(one), Value::Array(two)) if one.len() == two.len() => {
            for (n, (one, two)) in one.iter().zip(two).enumerate() {
                differences(&format!("{path}[{n}]"), one, two, found);
            }
        }
        _ => found.push(format!(
            "{}: {got} not {expected}",
            path.trim_start_matches('.')
        )),
    }
}
