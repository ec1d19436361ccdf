//! `unread doctor`.

use serde_json::{Value, json};

use super::observe;
use crate::audit::{Check, Doctor, Level};
use crate::cli::{Failure, print};
use crate::config::Config;

/// What the checks come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// None has failed.
    Fine,
    /// Some have.
    Ill,
    /// No server could be asked anything.
    Away,
}

/// Checks the Redis that is configured, and prints one line a check.
pub async fn doctor(config: &Config, as_json: bool) -> Result<Health, Failure> {
    let (engine, _) = observe(config)?;
    let checks = Doctor::new(&engine).doctor().await;
    let worst = checks.iter().map(|c| c.level).max().unwrap_or(Level::Ok);
    if as_json {
        let rows: Vec<Value> = checks.iter().map(row).collect();
        let document = json!({"result": worst.as_str(), "checks": rows});
        print(&format!("{document:#}\n"));
    } else {
        let text: String = checks.iter().map(line).collect();
        let of = |level| checks.iter().filter(|c| c.level == level).count();
        print(&format!(
            "{text}{} ok, {} warn, {} fail\n",
            of(Level::Ok),
            of(Level::Warn),
            of(Level::Fail)
        ));
    }
    Ok(match worst {
        Level::Ok | Level::Warn => Health::Fine,
        Level::Fail if checks.iter().all(Check::is_unreachable) => Health::Away,
        Level::Fail => Health::Ill,
    })
}

fn row(check: &Check) -> Value {
    json!({
        "check": check.name, "node": check.node, "result": check.level.as_str(), "found": check.found,
        "advice": check.advice,
    })
}

fn line(check: &Check) -> String {
    let node = if check.node.is_empty() {
        String::new()
    } else {
        format!(" [{}]", check.node)
    };
    let advice = if check.advice.is_empty() {
        String::new()
    } else {
        format!("; {}", check.advice)
    };
    let (level, name, found) = (check.level.as_str(), check.name, &check.found);
    format!("{level:<4}  {name}{node}: {found}{advice}\n")
}
