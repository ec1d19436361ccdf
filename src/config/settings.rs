//! The one table of settings: of each its key, its type, its default and range, and what it is. What reads a configuration,
//! prints it, and checks the example file comes from here. A dialect writes its section the same way, in a file of its own.

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use ipnet::IpNet;

use super::printer::{Printer, masked};
use super::rules::{
    Choice, Derived, File, Inline, Networks, Number, OptionalSecret, Secrets, Text, Texts,
};
use super::schema::{Row, Rule, settings};
use super::table::Table;
use super::{RedisAddress, Secret};
use crate::names::AppId;

settings! {
    /// `[server]`: the HTTP side.
    pub(crate) struct ServerConfig {
        /// `host:port` of the vendor endpoints and of `/v1`. With port 0 the system chooses a free port, and the log names it.
        listen: String = Text("127.0.0.1:8080", address),
        /// `host:port` of the console (`/`), `/livez`, `/readyz`, `/metrics` and `/openapi.yaml`. Without `admin_token` it has
        /// no credentials: keep it away from the public.
        admin_listen: String = Text("127.0.0.1:9090", address),
        /// The token of the admin address: what the console shows and `/metrics` want it as bearer token. `/livez`, `/readyz`
        /// and the API's description want none. Without it, everybody who reaches the address sees the names of users and rooms.
        admin_token: Option<Secret> = OptionalSecret(header_text),
        /// Number of HTTP worker threads; 0: one for each core.
        workers: usize = Number(0, 0..=512),
        /// The most events that one `POST /v1/events` may hold.
        max_events: usize = Number(10_000, 1..=100_000),
        /// The most bytes that the body of `POST /v1/events` may have.
        max_events_bytes: usize = Number(8 << 20, 1 << 10..=1 << 30),
        /// The most bytes that any other body may have. Lists of users (`POST /v1/unread` and `POST /v1/rooms/{room}/unread`)
        /// may have 2 MiB.
        max_body_bytes: usize = Number(64 << 10, 1 << 10..=64 << 20),
        /// The most bytes that all bodies together may have that the pod is reading or working on. It must be at least 4 times
        /// max_events_bytes and max_body_bytes.
        max_bodies_bytes: usize = Derived(1 << 20..=64 << 30, "4 times the longest body, or 32 MiB where that is more"),
        /// Milliseconds within which a whole body must have arrived.
        body_timeout_ms: u64 = Number(10_000, 100..=600_000),
        /// The most open connections. The pod answers each one beyond them with a refusal (503). While more than 15 of 16 are
        /// taken, the pod closes as many as that is too many, of those that have waited for more than a second.
        max_connections: usize = Number(12_000, 1..=1_000_000),
        /// The most open connections from one address (IPv6: from one network of 64 bits); 0: no bound, because one proxy may
        /// hold them all. It does not hold for `trusted_proxies`.
        max_connections_per_address: usize = Number(0, 0..=1_000_000),
        /// The most bytes that the request line and the headers of a request may have.
        max_head_bytes: usize = Number(32 << 10, 1 << 10..=64 << 10),
        /// Milliseconds within which the request line and the headers must have arrived.
        head_timeout_ms: u64 = Number(15_000, 100..=600_000),
        /// Milliseconds for which a caller may take nothing of its answer before the pod closes the connection. Each 4 KiB
        /// that the caller takes add a second.
        write_timeout_ms: u64 = Number(10_000, 100..=600_000),
        /// Seconds after which the pod closes a connection that sends no request. It should be longer than the idle time of
        /// the balancer in front (often 60), so that the balancer closes first.
        keep_alive_seconds: u64 = Number(75, 1..=3_600),
        /// The most bytes that answers of more than 16 KiB may take while they wait to be sent. An answer beyond them becomes
        /// a refusal (503). From half of it on, the pod cuts off callers that take nothing for a second, the slowest first.
        max_answers_bytes: usize = Number(64 << 20, 1 << 20..=1 << 40),
        /// The most reads that the pod works on at once. It refuses more of them at once (503).
        max_reads: usize = Number(2_048, 1..=1_000_000),
        /// The most requests with events that the pod works on at once. Up to 4 times as many wait for up to a second; the pod
        /// refuses the rest (503).
        max_writes: usize = Number(64, 1..=100_000),
        /// Seconds for which the pod goes on serving after SIGTERM, while `/readyz` says that it is not ready. Ctrl-c skips
        /// them.
        drain_seconds: u64 = Number(5, 0..=3_600),
        /// Seconds that requests in flight have after that.
        grace_seconds: u64 = Number(20, 0..=3_600),
        /// Addresses and networks of the proxies that the pod believes when they name a caller's address, such as
        /// `10.0.0.0/8`.
        trusted_proxies: Vec<IpNet> = Networks,
        /// The header in which these proxies name the caller's address: `forwarded` (RFC 7239), or one that holds addresses
        /// with commas between them.
        client_address_header: String = Text("x-forwarded-for", header_name),
        /// How many calls with bad credentials from one address get the dialect's word for them. The pod answers those beyond
        /// with the dialect's word for a limit.
        refused_credentials: RefusedCredentials = Inline,
    }
}

settings! {
    /// How often credentials from one address may be refused at one pod.
    #[derive(Copy, PartialEq, Eq)]
    pub(crate) struct RefusedCredentials {
        /// Such calls per second; 0: no limit.
        per_second: u32 = Number(20, 0..=1_000_000),
        /// Such calls that may come at once.
        burst: u32 = Number(200, 1..=1_000_000),
    }
}

settings! {
    /// `[redis]`: where the counts live.
    pub(crate) struct RedisConfig {
        /// `redis://`, `redis+unix://`, `redis+cluster://` or `redis+sentinel://`; `rediss` in place of `redis` for TLS.
        /// `docs/redis.md` has the forms. Without it the pod starts a private `redis-server`.
        url: Option<Secret> = RedisUrl,
        /// PEM file with the authorities that sign the servers' certificates; without it: those of the system. Only with TLS.
        ca_file: Option<PathBuf> = File,
        /// PEM file with the certificate that the pod shows to the servers. Only with TLS, and together with `key_file`.
        cert_file: Option<PathBuf> = File,
        /// PEM file with the key of that certificate.
        key_file: Option<PathBuf> = File,
        /// Directory in which the private `redis-server` keeps its append-only file.
        data_dir: PathBuf = Text("./data", not_empty),
        /// Connections to each server: so many for the HTTP workers, and as many for all other work. One for each worker is
        /// best.
        connections: usize = Number(4, 1..=64),
        /// Milliseconds within which a connection to a server must be made.
        connect_timeout_ms: u64 = Number(1_000, 10..=60_000),
        /// Milliseconds within which a server must answer a command.
        response_timeout_ms: u64 = Number(1_000, 10..=60_000),
        /// When the pod answers an event: `none`: when the master has it; `wait`: when `durability_replicas` replicas have it
        /// too.
        durability: Durability = Choice(Durability::None, &[("none", Durability::None), ("wait", Durability::Wait)]),
        /// With `durability = "wait"`: the number of replicas that must have an event.
        durability_replicas: u32 = Number(1, 1..=16),
        /// With `durability = "wait"`: milliseconds within which they must have it. After that the answer is a 503.
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
        /// The number of a room's last messages that the room remembers by their ids.
        max_messages: u32 = Number(1_000, 1..=1_000_000),
        /// Days for which a room remembers a message, from its acceptance.
        max_age_days: u32 = Number(7, 1..=3_650),
        /// Characters (Unicode scalar values) that are kept of the text of a room's last message. Texts of any length are
        /// taken.
        text_characters: u32 = Number(1_000, 0..=100_000),
        /// Hours for which the key of an event is known at least; twice as many at most.
        key_hours: u32 = Number(24, 1..=8_760),
    }
}

settings! {
    /// `[live]`: streams of counts as they change.
    pub(crate) struct LiveConfig {
        /// The most streams that the pod holds open at once; 0: none. Four of five connections at most are streams, whatever
        /// stands here. A stream beyond them is told at once that the pod is full.
        max_streams: usize = Number(10_000, 0..=1_000_000),
        /// The most of them that one app may have.
        max_streams_per_app: usize = Number(10_000, 0..=1_000_000),
        /// The most streams of one user's own devices, by user tokens, on this pod. Streams of the app's back end don't count.
        max_streams_per_user: usize = Number(100, 1..=1_000_000),
        /// The most users that one stream may watch.
        max_users: usize = Number(5_000, 1..=100_000),
        /// The least milliseconds between two updates of a user on a stream. In between, changes come together.
        window_ms: u64 = Number(50, 1..=10_000),
        /// Milliseconds between two beats on a stream, on average.
        beat_ms: u64 = Number(20_000, 100..=60_000),
        /// Seconds after which a stream ends at the latest. Each ends at a moment of its own in the second half of them, so that
        /// not all come back at once.
        max_seconds: u64 = Number(1_800, 1..=86_400),
        /// The cookie in which a browser sends a user token to `/v1/live`; empty: none.
        token_cookie: String = Text("", cookie_name),
    }
}

settings! {
    /// `[log]`: logs.
    pub(crate) struct LogConfig {
        /// The form of a log line: for people, or one JSON object.
        format: LogFormat = Choice(LogFormat::Text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        /// What the log shows: a filter such as `info`, `warn` or `info,unread=debug`.
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
        /// The app's id: 1 to 64 of A-Z a-z 0-9 _ . -, a part of every key in Redis.
        id: AppId = Id,
        /// The keys of the native API. Any of them is good.
        server_keys: Vec<Secret> = Secrets,
        /// How often each vendor endpoint may be called for this app.
        rate_limit: RateLimit = Inline,
    }
}

settings! {
    /// The limit of each vendor endpoint of one app.
    #[derive(Copy, PartialEq, Eq)]
    pub(crate) struct RateLimit {
        /// Calls per second; 0: no limit.
        per_second: u32 = Number(200, 0..=1_000_000),
        /// Calls that may come at once.
        burst: u32 = Derived(1..=1_000_000, "as many as per_second"),
        /// Which calls count together: those of one pod, or those of all pods (`cluster`).
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
        /// Origins whose pages may read the answers to users' devices in a browser (CORS), those of `/v1/live` and
        /// `/v1/live.js` too, and open WebSockets; `*`: every page, but not with a cookie. Capitals make no difference.
        allowed_origins: Vec<String> = Texts(&["*"], origin),
        /// The secrets that sign user tokens (HS256), the newest first: any of them is good. A user token lets its user's own
        /// device ask the native API for that user's counts.
        token_secret: Vec<Secret> = Secrets,
        /// How often one user may call with user tokens.
        rate_limit: UserRateLimit = Inline,
    }
}

settings! {
    /// The limit that each user has on the calls that take user tokens.
    #[derive(Copy, PartialEq, Eq)]
    pub(crate) struct UserRateLimit {
        /// Calls per second; 0: no limit.
        per_second: u32 = Number(10, 0..=1_000_000),
        /// Calls that may come at once.
        burst: u32 = Derived(1..=1_000_000, "twice per_second"),
        /// Which calls count together: those of one pod, or those of all pods (`cluster`).
        scope: LimitScope = Choice(LimitScope::Cluster, &[("pod", LimitScope::Pod), ("cluster", LimitScope::Cluster)]),
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

fn cookie_name(name: &str) -> Result<(), String> {
    let part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (name.len() <= 64 && name.bytes().all(part))
        .then_some(())
        .ok_or_else(|| "must be the name of a cookie, such as `unread_token`".into())
}

fn header_text(text: &str) -> Result<(), String> {
    let legal = text.bytes().all(|b| b.is_ascii_graphic());
    legal
        .then_some(())
        .ok_or_else(|| "must be of printable ASCII without blanks".into())
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
        .ok_or_else(|| {
            "must be \"*\" or origins such as \"https://chat.example.com\", without a path or a slash at the end"
                .into()
        })
}
