//! Checks whether a Redis server is set up so that counts are safe in it.

mod check;
mod info;
mod rights;

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use self::check::{Checks, NodeFields, REACHABLE};
use self::info::{encoding, is_cluster, memory, millis, persistence, role, version};
use self::rights::Rights;
use crate::connection::schema::{Schema, WRITTEN};
use crate::connection::{Redis, Server};
use crate::engine::reply::{Reply, text};
use crate::engine::{Engine, Health};
use crate::error::{Error, Result, Trouble};
use crate::scripts;

pub(crate) use self::check::{Check, Level};

/// A warning if a round trip is slower than this, in microseconds.
const SLOW_MICROS: u128 = 5_000;
/// A warning if the server's clock differs more than this from this machine's, in microseconds.
const CLOCK_MICROS: i64 = 1_000_000;
/// A warning if the clocks of a cluster's nodes differ more than this, in microseconds: the tests go no further.
const APART_MICROS: i64 = 3_600_000_000;

/// The servers that [`Doctor::new_servers`] has checked: by node, the run id of the server.
#[derive(Debug, Default)]
pub(crate) struct KnownServers(BTreeMap<String, String>);

/// Checks the servers that the counts live on.
#[derive(Clone)]
pub(crate) struct Doctor {
    redis: Redis,
    health: Health,
}

impl Doctor {
    /// Checks the servers of this engine.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            redis: engine.redis.clone(),
            health: engine.health.clone(),
        }
    }

    /// Checks the servers that have started since the last call, and answers what should be changed. It runs only checks that
    /// cost a few short commands; [`Doctor::examine`] runs all. A server that does not answer is checked at the next call.
    pub(crate) async fn new_servers(&self, known: &mut KnownServers) -> Vec<Check> {
        let Ok(nodes) = self.redis.masters().await else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for node in &nodes {
            let run_id = match self.run_id(node).await {
                Ok(run_id) => run_id,
                Err(error) if error.is_transient() => continue,
                // INFO is not allowed: the check reports that once.
                Err(_) => String::new(),
            };
            if known.0.get(node.name()) == Some(&run_id) {
                continue;
            }
            let mut checks = Checks::of(node.name());
            let may = Rights::ask(node).await;
            let settings = match may.read_settings {
                true => self.settings(node).await.ok(),
                false => None,
            };
            let info = self.setup(node, settings.as_ref(), &mut checks).await;
            if self.clock(node, &mut checks).await.is_err() {
                continue;
            }
            if settings.is_some() {
                encoding(settings.as_ref(), &mut checks);
            }
            if is_cluster(&info) && may.see_cluster {
                self.cluster(node, &mut checks).await;
            }
            known.0.insert(node.name().to_owned(), run_id);
            all.extend(checks.list);
        }
        // A cluster may have lost nodes.
        known
            .0
            .retain(|name, _| nodes.iter().any(|node| node.name() == name));
        all.retain(|check| check.level != Level::Ok);
        all
    }

    async fn run_id(&self, node: &Server) -> Result<String> {
        let info = node.admin(redis::cmd("INFO").arg("server")).await?;
        let info = text(info)?;
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        Ok(run_id.unwrap_or_default().trim().to_owned())
    }

    /// Runs all checks. An error is not returned: it is the result of a check.
    pub(crate) async fn examine(&self) -> Vec<Check> {
        let nodes = match self.redis.masters().await {
            Ok(nodes) => nodes,
            Err(error) => return vec![unreachable(String::new(), &error.to_string())],
        };
        // The node is named only where there are several.
        let several = self.redis.spans_slots();
        let mut all = Vec::new();
        let mut clocks: Vec<i64> = Vec::new();
        for node in &nodes {
            let mut checks = Checks::of(if several { node.name() } else { "" });
            match self.node(node, &mut checks).await {
                Ok(clock) => clocks.push(clock),
                Err(error) => {
                    let name = checks.node.clone();
                    checks.list.push(unreachable(name, &error.to_string()));
                }
            }
            all.extend(checks.list);
        }
        all.extend(self.schema().await);
        if let (Some(first), Some(last)) = (clocks.iter().min(), clocks.iter().max())
            && clocks.len() > 1
        {
            let apart = last - first;
            let level = if apart > APART_MICROS {
                Level::Warn
            } else {
                Level::Ok
            };
            all.push(Check {
                name: "clocks of the nodes",
                node: String::new(),
                level,
                found: format!("{} ms apart at most", apart / 1_000),
                advice: if level == Level::Ok {
                    String::new()
                } else {
                    "set the nodes' clocks by NTP: no count depends on them, but the tests have them no more than an hour apart".into()
                },
            });
        }
        all
    }

    /// Which version the data have.
    async fn schema(&self) -> Option<Check> {
        self.redis.look_at_schema().await.ok()?;
        let (schema, why) = self.redis.schema();
        let (level, found, advice) = match schema {
            Schema::Unknown => return None,
            Schema::Current => (Level::Ok, format!("{WRITTEN}, that of this program"), ""),
            Schema::Old => (
                Level::Warn,
                why,
                "reads cost more until then, and all else works",
            ),
            Schema::Newer | Schema::Unreadable => (
                Level::Fail,
                why,
                "use the version of `unread` that wrote the data, or a later one",
            ),
        };
        Some(Check {
            name: "schema",
            node: String::new(),
            level,
            found,
            advice: advice.into(),
        })
    }

    async fn node(&self, node: &Server, checks: &mut Checks) -> Result<i64> {
        self.round_trip(node, checks).await?;
        let clock = self.clock(node, checks).await?;
        // Most managed services refuse CONFIG GET, so no check depends on it.
        let settings = self.settings(node).await.ok();
        let info = self.setup(node, settings.as_ref(), checks).await;
        encoding(settings.as_ref(), checks);
        self.scripts(checks).await;
        self.rights(node, info.get("cluster_enabled"), checks).await;
        if is_cluster(&info) {
            self.cluster(node, checks).await;
        }
        Ok(clock)
    }

    /// Checks how the server is set up, by its INFO, and answers the INFO.
    async fn setup(
        &self,
        node: &Server,
        settings: Option<&NodeFields>,
        checks: &mut Checks,
    ) -> NodeFields {
        let info = match self.info(node).await {
            Ok(info) => info,
            Err(error) => {
                checks.add(
                    Level::Fail,
                    "info",
                    error.to_string(),
                    "let the user run INFO: ACL SETUSER … +info",
                );
                NodeFields::new()
            }
        };
        if !info.is_empty() {
            version(&info, checks);
            role(&info, settings, checks);
            memory(&info, checks);
            persistence(&info, settings, checks);
        }
        info
    }

    async fn round_trip(&self, node: &Server, checks: &mut Checks) -> Result<()> {
        let mut took = Vec::new();
        for _ in 0..11 {
            let start = Instant::now();
            node.admin(&redis::cmd("PING")).await?;
            took.push(start.elapsed().as_micros());
        }
        took.sort_unstable();
        let median = took.get(took.len() / 2).copied().unwrap_or(0);
        let worst = took.last().copied().unwrap_or(0);
        let level = if median > SLOW_MICROS {
            Level::Warn
        } else {
            Level::Ok
        };
        checks.add(
            level,
            "round trip",
            format!("{} (slowest {})", millis(median), millis(worst)),
            "put the pods near Redis: every request costs one round trip at least",
        );
        Ok(())
    }

    /// Answers how many microseconds the server's clock is ahead of ours.
    async fn clock(&self, node: &Server, checks: &mut Checks) -> Result<i64> {
        let before = micros_now();
        let mut time = Reply::new(node.admin(&redis::cmd("TIME")).await?)?;
        let after = micros_now();
        let (seconds, micros) = (time.number()?, time.number()?);
        let theirs = seconds.saturating_mul(1_000_000).saturating_add(micros);
        let ahead = i64::try_from(theirs).unwrap_or(0) - (before + after) / 2;
        let level = if ahead.abs() > CLOCK_MICROS {
            Level::Warn
        } else {
            Level::Ok
        };
        checks.add(
            level,
            "clock",
            format!("{:+.1} ms against this machine", ahead as f64 / 1_000.0),
            "set both clocks by NTP: tokens expire, and events without a time are dated, by the pod's",
        );
        Ok(ahead)
    }

    async fn info(&self, node: &Server) -> Result<NodeFields> {
        let info = node.admin(&redis::cmd("INFO")).await?;
        Ok(text(info)?
            .lines()
            .filter_map(|line| line.trim().split_once(':'))
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .collect())
    }

    async fn settings(&self, node: &Server) -> Result<NodeFields> {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET")
            .arg("hash-max-listpack-*")
            .arg("appendfsync")
            .arg("save")
            .arg("min-replicas-to-write");
        let pairs = Reply::new(node.admin(&get).await?)?.pairs()?;
        Ok(pairs.into_iter().collect())
    }

    async fn scripts(&self, checks: &mut Checks) {
        match self.health.ping().await {
            Ok(()) => checks.add(
                Level::Ok,
                "scripts",
                format!("all {} load, and run", scripts::all().len()),
                "",
            ),
            Err(error) => {
                let advice = match &error {
                    Error::Unavailable(why) if why.trouble != Trouble::Rights => {
                        "pods refuse events as long as this lasts"
                    }
                    _ => "let Redis >= 7.0 run EVAL, EVALSHA and SCRIPT LOAD",
                };
                checks.add(Level::Fail, "scripts", error.to_string(), advice);
            }
        }
    }

    async fn cluster(&self, node: &Server, checks: &mut Checks) {
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("INFO");
        let info: NodeFields = match node.admin(&cmd).await.and_then(text) {
            Ok(info) => info
                .lines()
                .filter_map(|line| line.trim().split_once(':'))
                .map(|(field, value)| (field.to_owned(), value.to_owned()))
                .collect(),
            Err(error) => {
                checks.add(
                    Level::Warn,
                    "cluster",
                    error.to_string(),
                    "let the user run CLUSTER INFO",
                );
                return;
            }
        };
        let get = |field: &str| info.get(field).map(String::as_str).unwrap_or("?");
        let (state, assigned) = (get("cluster_state"), get("cluster_slots_assigned"));
        let fine = state == "ok" && assigned == "16384" && get("cluster_slots_fail") == "0";
        checks.add(
            if fine { Level::Ok } else { Level::Fail },
            "cluster",
            format!(
                "state {state}, {assigned} of 16384 slots assigned, {} failing, {}",
                get("cluster_slots_fail"),
                match get("cluster_known_nodes") {
                    "1" => "1 node".to_owned(),
                    known => format!("{known} nodes"),
                }
            ),
            "see `redis-cli --cluster check`; users and rooms in slots without a node can't be served",
        );
        // With the address of one node, the cluster would redirect most commands to other nodes.
        if !self.redis.spans_slots() {
            checks.add(
                Level::Fail,
                "address",
                "redis.url names one server, and that is a node of a cluster",
                "write redis.url = \"redis+cluster://HOST:PORT,HOST:PORT\"",
            );
        }
    }
}

fn unreachable(node: String, why: &str) -> Check {
    Check {
        name: REACHABLE,
        node,
        level: Level::Fail,
        found: why.to_owned(),
        advice: "see that Redis runs, and that redis.url (host, port, user, password) is right"
            .into(),
    }
}

fn micros_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}
