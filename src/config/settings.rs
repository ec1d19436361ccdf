//! The one table of settings: of each its key, its type, its default and range, and what it is. What reads a configuration, prints
//! it, and checks the example file comes from here. A dialect writes its section the same way, in a file of its own.

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use ipnet::IpNet;

use super::printer::{Printer, masked};
use super::rules::{Choice, Derived, File, Inline, Networks, Number, Secrets, Text, Texts};
use super::schema::{Row, Rule, settings};
use super::table::Table;
use super::{RedisAddress, Secret};
use crate::names::AppId;

settings! {
    /// `[server]`: the HTTP side.
    pub(crate) struct ServerConfig {
        /// Address of the endpoints and `/v1`. Port 0: any free one, told in the log.
        listen: String = Text("127.0.0.1:8080", address),
        /// Address of `/livez`, `/readyz`, `/metrics`.
        admin_listen: String = Text("127.0.0.1:9090", address),
        /// Worker threads; 0: one per core.
        workers: usize = Number(0, 0..=512),
        /// Events in one request.
        max_events: usize = Number(10_000, 1..=100_000),
        /// Bytes in the body of `POST /v1/events`.
        max_events_bytes: usize = Number(8 << 20, 1 << 10..=1 << 30),
        /// Bytes in the body of every other request; `POST /v1/unread` may have 2 MiB.
        max_body_bytes: usize = Number(64 << 10, 1 << 10..=64 << 20),
        /// Bytes of all bodies that are being read or worked on; 4 times the longest body at least.
        max_bodies_bytes: usize = Derived(1 << 20..=64 << 30, "4 times the longest body, or 32 MiB where that is more"),
        /// Milliseconds until a body must have arrived whole.
        body_timeout_ms: u64 = Number(10_000, 100..=600_000),
        /// Open connections in all; 10,000 hostile ones of every kind take less than 512 MB. Those beyond are answered
        /// with a refusal. When fifteen of sixteen are taken, those that only wait make room.
        max_connections: usize = Number(12_000, 1..=1_000_000),
        /// Open connections from one address (of IPv6: one network of 64 bits); 0: no bound, since all connections may
        /// come from one proxy. Those from `trusted_proxies` are never bound by it.
        max_connections_per_address: usize = Number(0, 0..=1_000_000),
        /// Bytes in a request's line and headers.
        max_head_bytes: usize = Number(32 << 10, 1 << 10..=64 << 10),
        /// Milliseconds until they must have arrived whole.
        head_timeout_ms: u64 = Number(15_000, 100..=600_000),
        /// Milliseconds that a caller may leave its answer waiting; every 4 KiB that it takes earn it another second.
        write_timeout_ms: u64 = Number(10_000, 100..=600_000),
        /// Seconds until a connection without a request is closed. By default longer than the idle time of the usual
        /// balancers (60), so that it is they who close.
        keep_alive_seconds: u64 = Number(75, 1..=3_600),
        /// Bytes of finished answers that wait to be taken, those of up to 16 KiB not counted. Answers beyond are
        /// refusals; from half of it on, callers who take nothing for a second are cut off, the slowest first.
        max_answers_bytes: usize = Number(64 << 20, 1 << 20..=1 << 40),
        /// Reads being worked on at once; more are refused at once.
        max_reads: usize = Number(2_048, 1..=1_000_000),
        /// Requests with events being worked on at once; a few more wait up to a second.
        max_writes: usize = Number(64, 1..=100_000),
        /// Seconds between not ready and not accepting, after SIGTERM (not after ctrl-c).
        drain_seconds: u64 = Number(5, 0..=3_600),
        /// Seconds for requests in flight, after that.
        grace_seconds: u64 = Number(20, 0..=3_600),
        /// The proxies whose word on the caller's address is taken, by their own addresses.
        trusted_proxies: Vec<IpNet> = Networks,
        /// The header in which they name it: `forwarded` (RFC 7239), or one that holds addresses with commas between.
        client_address_header: String = Text("x-forwarded-for", header_name),
        /// How often credentials from one address may be refused before the refusals become those of a limit.
        refused_credentials: RefusedCredentials = Inline,
    }
}

settings! {
    /// How often credentials from one address may be refused at one pod.
    #[derive(Copy, PartialEq, Eq)]
    pub(crate) struct RefusedCredentials {
        /// Per second; 0: no limit.
        per_second: u32 = Number(20, 0..=1_000_000),
        /// At once.
        burst: u32 = Number(200, 1..=1_000_000),
    }
}

settings! {
    /// `[redis]`: where the counts live.
    pub(crate) struct RedisConfig {
        /// `redis://…`, or another form that [`RedisAddress`] knows; absent: a private `redis-server`.
        url: Option<Secret> = RedisUrl,
        /// PEM file of the authorities that may have signed the servers' certificates; absent: the system's.
        ca_file: Option<PathBuf> = File,
        /// PEM file of the certificate to show to the servers.
        cert_file: Option<PathBuf> = File,
        /// PEM file of that certificate's key.
        key_file: Option<PathBuf> = File,
        /// Where the private `redis-server` keeps its append-only file.
        data_dir: PathBuf = Text("./data", not_empty),
        /// Shared multiplexed connections to each server: so many for the HTTP workers, and as many for all else. Best
        /// one for each worker, which then drives it itself.
        connections: usize = Number(4, 1..=64),
        /// Milliseconds until a connection must stand.
        connect_timeout_ms: u64 = Number(1_000, 10..=60_000),
        /// Milliseconds until a command must be answered.
        response_timeout_ms: u64 = Number(1_000, 10..=60_000),
        /// When events count as safe.
        durability: Durability = Choice(Durability::None, &[("none", Durability::None), ("wait", Durability::Wait)]),
        /// Replicas that must have them, with `wait`.
        durability_replicas: u32 = Number(1, 1..=16),
        /// Milliseconds until they must have them.
        durability_timeout_ms: u64 = Number(1_000, 10..=5_000),
    }
}

/// When events count as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When the master has them.
    None,
    /// When so many replicas have them as well.
    Wait,
}

settings! {
    /// `[history]`: how far back message ids are known, per room, and keys of events.
    pub(crate) struct HistoryConfig {
        /// Messages per room.
        max_messages: u32 = Number(1_000, 1..=1_000_000),
        /// Days since acceptance.
        max_age_days: u32 = Number(7, 1..=3_650),
        /// Characters (Unicode scalar values) kept of the text of a room's last message. Texts of any length are taken.
        text_characters: u32 = Number(1_000, 0..=100_000),
        /// Hours for which the key of an event is known at least.
        key_hours: u32 = Number(24, 1..=8_760),
    }
}

settings! {
    /// `[log]`: logs.
    pub(crate) struct LogConfig {
        /// The form of a line.
        format: LogFormat = Choice(LogFormat::Text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        /// A filter such as `info`, `warn` or `info,unread=debug`.
        level: String = Text("info", log_filter),
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

settings! {
    /// What stands in `[[apps]]` itself.
    pub(crate) struct AppSettings {
        /// The app's id, part of every key.
        id: AppId = Id,
        /// Bearer keys of the native API.
        server_keys: Vec<Secret> = Secrets,
        /// The limit of each vendor endpoint.
        rate_limit: RateLimit = Inline,
    }
}

settings! {
    /// The limit of each vendor endpoint of one app.
    #[derive(Copy, PartialEq, Eq)]
    pub(crate) struct RateLimit {
        /// Calls per second; 0: no limit.
        per_second: u32 = Number(200, 0..=1_000_000),
        /// Calls that may come at once on top of it.
        burst: u32 = Derived(1..=1_000_000, "as many as per_second"),
        /// Whose calls count together.
        scope: LimitScope = Choice(LimitScope::Cluster, &[("pod", LimitScope::Pod), ("cluster", LimitScope::Cluster)]),
    }
}

/// Whose calls count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitScope {
    /// Those of one pod.
    Pod,
    /// Those of all pods.
    Cluster,
}

settings! {
    /// `[apps.users]`: what users' own devices may do.
    pub(crate) struct UsersConfig {
        /// The origins whose pages may read the answers to users' devices (CORS), in lower case; `*` is any.
        allowed_origins: Vec<String> = Texts(&["*"], origin),
    }
}

// What only one setting is.

/// The address of a Redis, which may hold passwords.
struct RedisUrl;

impl Rule<Option<Secret>> for RedisUrl {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<Option<Secret>> {
        let url = table.secret(key);
        if let Some(Err(why)) = url.as_ref().map(|url| RedisAddress::parse(&url.0)) {
            table.problem(key, why);
        }
        Some(url)
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &Option<Secret>) {
        match value {
            Some(url) => printer.text(key, &masked(&url.0)),
            None => printer.line("# no url: a private redis-server in data_dir"),
        }
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        Row {
            key,
            form: "address, default none".to_owned(),
            help,
            secret: true,
            parts: Vec::new(),
        }
    }
}

/// The id of an app.
struct Id;

impl Rule<AppId> for Id {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<AppId> {
        let text = table.needed(key, |table| table.text(key))?;
        let id = AppId::parse(text);
        if id.is_none() {
            table.problem(key, "must be 1 to 64 of A-Z a-z 0-9 _ . -");
        }
        id
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &AppId) {
        printer.text(key, value.as_str());
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        Row {
            key,
            form: "text, needed".to_owned(),
            help,
            secret: false,
            parts: Vec::new(),
        }
    }
}

fn address(text: &str) -> Result<(), String> {
    let legal = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    legal
        .then_some(())
        .ok_or_else(|| "must be host:port, such as `127.0.0.1:8080` or `[::]:8080`".into())
}

fn header_name(name: &str) -> Result<(), String> {
    let part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let legal = !name.is_empty() && name.len() <= 64 && name.bytes().all(part);
    legal.then_some(()).ok_or_else(|| {
        "must be the name of a header, such as `x-forwarded-for` or `forwarded`".into()
    })
}

fn log_filter(text: &str) -> Result<(), String> {
    crate::telemetry::logs::filter(text).map(drop)
}

fn not_empty(text: &str) -> Result<(), String> {
    match text.is_empty() {
        true => Err("must not be empty".into()),
        false => Ok(()),
    }
}

fn origin(origin: &str) -> Result<(), String> {
    let host = origin.split_once("://").map(|(_, host)| host);
    let legal = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'?' | b'#' | b'@' | b'*');
    let is_origin = host.is_some_and(|host| !host.is_empty() && host.bytes().all(legal));
    (origin == "*" || is_origin)
        .then_some(())
        .ok_or_else(|| "must be \"*\" or origins such as \"https://chat.example.com\"".into())
}
