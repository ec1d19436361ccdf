//! What a Redis must be for counts to be safe in it, checked one by one.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::connection::{Redis, Server};
use crate::engine::reply::{Reply, text};
use crate::engine::{Engine, Health};
use crate::error::{Error, Result, Trouble};
use crate::{keys, scripts};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and something could be better or was not to be seen.
    Warn,
    /// Counts would be lost or wrong, or it does not work at all.
    Fail,
}

impl Level {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
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

/// The check that fails where a server can't be asked anything.
const REACHABLE: &str = "reachable";

impl Check {
    /// Whether it says that a server can't be asked anything.
    pub fn is_unreachable(&self) -> bool {
        self.name == REACHABLE
    }
}

/// Commands that the pods run, in words; `@` is a key. The unit test holds them against the scripts.
const NEEDED: [&str; 40] = [
    "EVALSHA 0123456789012345678901234567890123456789 1 @",
    "EVAL x 1 @",
    "SCRIPT LOAD x",
    "INFO server",
    "PING",
    "TIME",
    "UNWATCH",
    "WAIT 0 0",
    "GET @",
    "SET @ x",
    "DEL @",
    "UNLINK @",
    "EXISTS @",
    "PEXPIRE @ 1",
    "PERSIST @",
    "HGET @ f",
    "HMGET @ f",
    "HGETALL @",
    "HKEYS @",
    "HLEN @",
    "HEXISTS @ f",
    "HSCAN @ 0",
    "HSET @ f v",
    "HSETNX @ f v",
    "HDEL @ f",
    "ZADD @ 0 m",
    "ZREM @ m",
    "ZRANGE @ 0 -1",
    "ZRANGEBYLEX @ - +",
    "ZREMRANGEBYLEX @ - +",
    "ZSCORE @ m",
    "ZMSCORE @ m",
    "ZCOUNT @ 0 1",
    "RPUSH @ v",
    "LPOP @",
    "LLEN @",
    "LINDEX @ 0",
    "LRANGE @ 0 1",
    "ZCARD @",
    "SCAN 0",
];

/// What is asked besides, where it may be: by this command, and by a client when it connects.
const WELCOME: [&str; 7] = [
    "acl|whoami",
    "config|get",
    "memory|usage",
    "cluster",
    "select",
    "role",
    "asking",
];

/// The line that gives a user the least rights that work.
fn least() -> String {
    let commands = NEEDED.iter().map(|words| {
        let mut words = words.split(' ');
        let name = words.next().unwrap_or_default().to_lowercase();
        match words.next() {
            Some("LOAD") => format!("{name}|load"),
            _ => name,
        }
    });
    let all: Vec<String> = commands
        .chain(WELCOME.map(str::to_owned))
        .map(|command| format!("+{command}"))
        .collect();
    format!(
        "ACL SETUSER NAME on >PASSWORD resetkeys resetchannels ~{} -@all {}",
        keys::ALL,
        all.join(" ")
    )
}

/// A round trip that is slower than this, in microseconds, is worth a word.
const SLOW_MICROS: u128 = 5_000;
/// A clock further from this machine's than this is worth a word, in microseconds.
const CLOCK_MICROS: i64 = 1_000_000;
/// So are nodes of a cluster that are further apart than the tests have them.
const APART_MICROS: i64 = 3_600_000_000;

type Fields = BTreeMap<String, String>;

/// The checks of one node, as they come.
struct Checks {
    node: String,
    list: Vec<Check>,
}

impl Checks {
    fn of(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            list: Vec::new(),
        }
    }

    fn add(
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

/// The servers that [`Doctor::new_servers`] has checked: by node, the id of the process that ran there.
#[derive(Debug, Default)]
pub struct KnownServers(BTreeMap<String, String>);

/// Checks the servers that the counts live on.
#[derive(Clone)]
pub struct Doctor {
    redis: Redis,
    health: Health,
}

impl Doctor {
    /// Of the servers of this engine.
    pub fn new(engine: &Engine) -> Self {
        Self {
            redis: engine.redis.clone(),
            health: engine.health.clone(),
        }
    }

    /// Checks the servers that run where none ran, or another did, when this was called last, and answers what should be
    /// changed. Only what costs a few short commands is checked: for all of it there is [`Doctor::doctor`]. A server that
    /// does not answer is left for the next time.
    pub async fn new_servers(&self, known: &mut KnownServers) -> Vec<Check> {
        let Ok(nodes) = self.redis.masters().await else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for node in &nodes {
            let run_id = match self.run_id(node).await {
                Ok(run_id) => run_id,
                Err(error) if error.is_transient() => continue,
                // It may not be asked: the check says so, once.
                Err(_) => String::new(),
            };
            if known.0.get(node.name()) == Some(&run_id) {
                continue;
            }
            let mut checks = Checks::of(node.name());
            let may = May::ask(node).await;
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
        // A cluster gains and loses nodes.
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

    /// Checks the Redis that is configured. Never fails: what can't be done is a check that failed.
    pub async fn doctor(&self) -> Vec<Check> {
        let nodes = match self.redis.masters().await {
            Ok(nodes) => nodes,
            Err(error) => return vec![unreachable(String::new(), &error.to_string())],
        };
        // Which node it is matters only where there are several.
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

    async fn node(&self, node: &Server, checks: &mut Checks) -> Result<i64> {
        self.round_trip(node, checks).await?;
        let clock = self.clock(node, checks).await?;
        // Refused to most on managed services, so nothing depends on it.
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

    /// How the server is set up, by what it says of itself; answers that.
    async fn setup(&self, node: &Server, settings: Option<&Fields>, checks: &mut Checks) -> Fields {
        let info = match self.info(node).await {
            Ok(info) => info,
            Err(error) => {
                checks.add(
                    Level::Fail,
                    "info",
                    error.to_string(),
                    "let the user run INFO: ACL SETUSER … +info",
                );
                Fields::new()
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

    async fn info(&self, node: &Server) -> Result<Fields> {
        let info = node.admin(&redis::cmd("INFO")).await?;
        Ok(text(info)?
            .lines()
            .filter_map(|line| line.trim().split_once(':'))
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .collect())
    }

    async fn settings(&self, node: &Server) -> Result<Fields> {
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

    async fn rights(&self, node: &Server, cluster: Option<&String>, checks: &mut Checks) {
        let mut whoami = redis::cmd("ACL");
        whoami.arg("WHOAMI");
        let who = match node.admin(&whoami).await.map(text) {
            Ok(Ok(name)) => format!("user {name:?}"),
            _ => "this user".to_owned(),
        };
        let mut call = scripts::ACL_REFUSED.call(&[keys::pending_index(0)]);
        for command in NEEDED {
            call.push(command.replace(' ', "\n"));
        }
        if cluster.is_some_and(|on| on == "1") {
            call.push("CLUSTER\nSLOTS");
        }
        let advice = least();
        let refused = self.redis.call(&call).await.and_then(|value| {
            let mut reply = Reply::new(value)?;
            let mut refused = Vec::new();
            while !reply.is_empty() {
                refused.push(reply.text()?.replace('\n', " "));
            }
            Ok(refused)
        });
        match refused {
            Ok(refused) if refused.is_empty() => checks.add(
                Level::Ok,
                "rights",
                format!("{who} may run all that is needed on {}", keys::ALL),
                "",
            ),
            Ok(refused) => {
                let names: Vec<&str> = refused
                    .iter()
                    .map(|command| command.split(" @").next().unwrap_or_default())
                    .collect();
                checks.add(
                    Level::Fail,
                    "rights",
                    format!("{who} may not run {}", names.join(", ")),
                    advice,
                );
            }
            Err(error) => checks.add(
                Level::Fail,
                "rights",
                format!("{who} can't be checked: {error}"),
                advice,
            ),
        }
    }

    async fn cluster(&self, node: &Server, checks: &mut Checks) {
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("INFO");
        let info: Fields = match node.admin(&cmd).await.and_then(text) {
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
        // An address of one node would be redirected to others all the time.
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

/// What our user may ask a server beside what pods need. The server is asked for the rights first: a command that is refused
/// stands in its log of denials, which somebody watches.
struct May {
    read_settings: bool,
    see_cluster: bool,
}

impl May {
    async fn ask(node: &Server) -> Self {
        let (settings, cluster) = ("CONFIG\nGET\nsave", "CLUSTER\nINFO");
        let mut eval = redis::cmd("EVAL");
        eval.arg(&scripts::ACL_REFUSED.text).arg(0);
        let answer = node.admin(eval.arg(settings).arg(cluster)).await;
        let refused: Option<Vec<String>> = answer
            .ok()
            .and_then(|value| redis::from_redis_value(value).ok());
        let may = |command: &str| {
            let refused = refused.as_ref();
            refused.is_some_and(|refused| refused.iter().all(|one| one != command))
        };
        Self {
            read_settings: may(settings),
            see_cluster: may(cluster),
        }
    }
}

fn is_cluster(info: &Fields) -> bool {
    info.get("cluster_enabled").is_some_and(|on| on == "1")
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

fn millis(micros: u128) -> String {
    format!("{:.2} ms", micros as f64 / 1_000.0)
}

fn numbers(version: &str) -> (u32, u32, u32) {
    let mut parts = version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Whether this version of the server has the fix of CVE-2025-49844 (a script can run code on the server).
fn fixed(valkey: bool, version: &str) -> bool {
    let (major, minor, patch) = numbers(version);
    let lines: &[((u32, u32), u32)] = if valkey {
        &[((7, 2), 11), ((8, 0), 6), ((8, 1), 4)]
    } else {
        &[
            ((6, 2), 20),
            ((7, 2), 11),
            ((7, 4), 6),
            ((8, 0), 4),
            ((8, 2), 2),
        ]
    };
    let newest = lines.last().map_or((0, 0), |(line, _)| *line);
    match lines.iter().find(|(line, _)| *line == (major, minor)) {
        Some((_, first)) => patch >= *first,
        None => (major, minor) > newest,
    }
}

fn version(info: &Fields, checks: &mut Checks) {
    let spoken = info
        .get("redis_version")
        .map(String::as_str)
        .unwrap_or_default();
    let (major, minor, _) = numbers(spoken);
    let valkey = info.get("valkey_version");
    let name = match valkey {
        Some(version) => format!("Valkey {version} (speaks Redis {spoken})"),
        None => format!("Redis {spoken}"),
    };
    let level = if (major, minor) >= (7, 0) {
        Level::Ok
    } else {
        Level::Fail
    };
    checks.add(level, "version", name.clone(), "use 7.0 or newer");
    let safe = fixed(valkey.is_some(), valkey.map_or(spoken, String::as_str));
    if safe {
        checks.add(Level::Ok, "CVE-2025-49844", "fixed in this version", "");
    } else {
        checks.add(
            Level::Warn,
            "CVE-2025-49844",
            format!("{name} does not have the fix by its version number"),
            format!(
                "upgrade to {} or newer; distributions backport the fix under an old number: see the package's changelog. \
                 Whoever may run EVAL could take over the server",
                match valkey {
                    Some(_) => "Valkey 7.2.11, 8.0.6, 8.1.4, 9.0",
                    None => "Redis 7.2.11, 7.4.6, 8.0.4, 8.2.2",
                }
            ),
        );
    }
}

fn role(info: &Fields, settings: Option<&Fields>, checks: &mut Checks) {
    let get = |field: &str| info.get(field).map(String::as_str).unwrap_or_default();
    if get("loading") == "1" {
        checks.add(
            Level::Fail,
            "loading",
            "Redis is still reading its data",
            "wait until it is done",
        );
    }
    if get("role") != "master" {
        checks.add(
            Level::Fail,
            "role",
            format!("this is a {}", get("role")),
            "write the master's address into redis.url; a replica refuses events",
        );
        return;
    }
    let replicas: u32 = get("connected_slaves").parse().unwrap_or(0);
    let least = settings.and_then(|s| s.get("min-replicas-to-write"));
    let found = format!(
        "master, {replicas} {}, min-replicas-to-write {}",
        if replicas == 1 { "replica" } else { "replicas" },
        least.map_or("not to be seen", String::as_str)
    );
    let unguarded = replicas > 0 && least.is_some_and(|n| n == "0");
    checks.add(
        if unguarded { Level::Warn } else { Level::Ok },
        "replicas",
        found,
        "CONFIG SET min-replicas-to-write 1: else a master that is cut off goes on accepting events that the failover \
         throws away",
    );
}

fn memory(info: &Fields, checks: &mut Checks) {
    let get = |field: &str| info.get(field).map(String::as_str).unwrap_or_default();
    let number = |field: &str| get(field).parse::<u64>().unwrap_or(0);
    let policy = get("maxmemory_policy");
    checks.add(
        if policy == "noeviction" {
            Level::Ok
        } else {
            Level::Fail
        },
        "maxmemory-policy",
        policy,
        "CONFIG SET maxmemory-policy noeviction, and write it into redis.conf: an evicted key is a wrong count",
    );
    if number("evicted_keys") > 0 {
        checks.add(
            Level::Warn,
            "evicted keys",
            format!("{} since the start", number("evicted_keys")),
            "run `unread verify`, then `unread rebuild`; if other programs share this Redis, they may have been theirs",
        );
    }
    let (used, most) = (number("used_memory"), number("maxmemory"));
    let mib = |bytes: u64| bytes / (1 << 20);
    if most > 0 {
        checks.add(
            if used / 9 > most / 10 {
                Level::Warn
            } else {
                Level::Ok
            },
            "memory",
            format!("{} MiB used of {} MiB", mib(used), mib(most)),
            "raise maxmemory or add nodes: when it is full, events are refused with 503",
        );
    }
}

fn persistence(info: &Fields, settings: Option<&Fields>, checks: &mut Checks) {
    let get = |field: &str| info.get(field).map(String::as_str).unwrap_or_default();
    let setting = |field: &str| settings.and_then(|s| s.get(field)).map(String::as_str);
    if get("aof_enabled") == "1" {
        match setting("appendfsync") {
            Some("no") => checks.add(
                Level::Warn,
                "persistence",
                "append-only file, appendfsync no",
                "CONFIG SET appendfsync everysec: now a crash of the machine can lose half a minute",
            ),
            Some(often) => checks.add(
                Level::Ok,
                "persistence",
                format!("append-only file, appendfsync {often}"),
                "",
            ),
            None => checks.add(
                Level::Ok,
                "persistence",
                "append-only file, appendfsync not to be seen",
                "",
            ),
        }
        if get("aof_last_write_status") == "err" {
            checks.add(
                Level::Fail,
                "append-only file",
                "the last write to it failed",
                "see the server's log: the disk may be full",
            );
        }
    } else {
        let snapshots = setting("save").is_none_or(|save| !save.is_empty());
        let found = match setting("save") {
            Some("") => "none".to_owned(),
            Some(save) => format!("snapshots only (save {save})"),
            None => "no append-only file; snapshots not to be seen".to_owned(),
        };
        checks.add(
            if snapshots { Level::Warn } else { Level::Fail },
            "persistence",
            found,
            "CONFIG SET appendonly yes, and write it into redis.conf: what is not on disk is gone when Redis restarts",
        );
    }
    if get("rdb_last_bgsave_status") == "err" {
        checks.add(
            Level::Fail,
            "snapshot",
            "the last one failed",
            "see the server's log: the disk may be full, or vm.overcommit_memory 0",
        );
    }
}

fn encoding(settings: Option<&Fields>, checks: &mut Checks) {
    let number = |field: &str| {
        let value = settings.and_then(|s| s.get(field));
        value.and_then(|value| value.parse::<u64>().ok())
    };
    let (entries, value) = (
        number("hash-max-listpack-entries"),
        number("hash-max-listpack-value"),
    );
    match (entries, value) {
        (Some(entries), Some(value)) => checks.add(
            if entries >= 512 && value >= 256 {
                Level::Ok
            } else {
                Level::Warn
            },
            "hash encoding",
            format!("hash-max-listpack-entries {entries}, -value {value}"),
            "CONFIG SET hash-max-listpack-entries 512 hash-max-listpack-value 256: users' records then take less memory",
        ),
        _ => checks.add(
            Level::Warn,
            "hash encoding",
            "not to be seen: CONFIG GET is refused",
            "see that hash-max-listpack-entries is 512 and hash-max-listpack-value 256, or allow +config|get",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_is_told_by_line_and_patch() {
        for version in [
            "6.2.20", "7.2.11", "7.4.6", "8.0.4", "8.2.2", "8.2.10", "8.4.0", "9.0.0",
        ] {
            assert!(fixed(false, version), "{version}");
        }
        for version in [
            "6.2.14", "7.0.15", "7.2.10", "7.4.5", "8.0.3", "8.2.1", "5.0.1", "",
        ] {
            assert!(!fixed(false, version), "{version}");
        }
        assert!(fixed(true, "8.1.4") && fixed(true, "9.0.0") && !fixed(true, "8.0.5"));
    }

    /// What `INFO` says on each kind of server, and what the advice then names.
    #[test]
    fn a_server_is_told_by_its_own_name_and_version() {
        let told = |fields: &[(&str, &str)]| {
            let fields = fields.iter();
            let info = fields.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let mut checks = Checks::of("");
            version(&info.collect(), &mut checks);
            let list = checks.list.into_iter();
            list.map(|check| (check.level, check.found, check.advice))
                .collect::<Vec<_>>()
        };
        let redis = |version| told(&[("redis_version", version)]);
        assert_eq!(redis("8.2.3")[0].1, "Redis 8.2.3");
        assert_eq!(redis("8.2.3")[1].0, Level::Ok);
        assert_eq!(redis("6.2.20")[0].0, Level::Fail);
        assert!(
            redis("7.0.15")[1]
                .2
                .starts_with("upgrade to Redis 7.2.11, ")
        );
        let valkey = |version| told(&[("redis_version", "7.2.4"), ("valkey_version", version)]);
        assert_eq!(valkey("9.1.2")[0].1, "Valkey 9.1.2 (speaks Redis 7.2.4)");
        assert_eq!(valkey("9.1.2")[1].0, Level::Ok);
        assert!(
            valkey("8.1.0")[1]
                .2
                .starts_with("upgrade to Valkey 7.2.11, ")
        );
    }

    #[test]
    fn every_command_of_the_scripts_is_asked_for() {
        for script in scripts::all() {
            let text = script.text.replace("redis.pcall('", "redis.call('");
            for part in text.split("redis.call('").skip(1) {
                let command = part.split('\'').next().unwrap();
                assert!(
                    NEEDED
                        .iter()
                        .any(|needed| needed.split(' ').next() == Some(command)),
                    "{command} of {}",
                    script.name
                );
            }
        }
    }
}
