//! A check of a server, its result, and advice.

use std::collections::BTreeMap;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, but something could be better or could not be checked.
    Warn,
    /// Counts could get lost or wrong, or it does not work at all.
    Fail,
}

impl Level {
    /// As it is printed.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// On which node of a cluster; empty where there is one server.
    pub node: String,
    /// How it came out.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to change; empty if nothing.
    pub advice: String,
}

/// The check that fails if a server does not answer at all.
pub(super) const REACHABLE: &str = "reachable";

impl Check {
    /// Whether this is the check of a server that does not answer at all.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.name == REACHABLE
    }
}

pub(super) type NodeFields = BTreeMap<String, String>;

/// The checks of one node so far.
pub(super) struct Checks {
    pub(super) node: String,
    pub(super) list: Vec<Check>,
}

impl Checks {
    pub(super) fn of(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            list: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        level: Level,
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.list.push(Check {
            name,
            node: self.node.clone(),
            level,
            found: found.into(),
            advice: if level == Level::Ok {
                String::new()
            } else {
                advice.into()
            },
        });
    }
}
