//! `unread doctor`.

use clap::Args;
use serde_json::{Value, json};

use super::args::RedisArgs;
use super::connect::observe;
use super::exit::{self, Failure};
use super::output::print;
use super::process::on_runtime;
use crate::audit::{self, Check, Level};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl DoctorArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let config = self.redis.config()?;
        on_runtime(doctor(&config, self.json))
    }
}

/// Checks the Redis that is configured, and prints one line a check. Answers the exit code.
async fn doctor(config: &Config, as_json: bool) -> Result<u8, Failure> {
    let (engine, _) = observe(config)?;
    let checks = audit::Doctor::new(&engine).examine().await;
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
        Level::Ok | Level::Warn => exit::WELL,
        Level::Fail if checks.iter().all(Check::is_unreachable) => exit::REDIS_AWAY,
        Level::Fail => exit::NOT_WELL,
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
