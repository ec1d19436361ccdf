//! Turns the tree of settings into [`Config`]. Every problem is collected, so that one run of `check-config` shows all
//! of them; no message holds a value that may be secret.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use super::load::{ConfigError, Node};
use super::{
    AppConfig, Config, Durability, HistoryConfig, ImkitConfig, LogConfig, LogFormat, RateLimit,
    RedisAddress, RedisConfig, RefusedCredentials, Scope, Secret, SendbirdConfig, ServerConfig,
    TencentConfig, UsersConfig,
};
use crate::names::{AppId, DirectRoomIds};

#[derive(Default)]
struct Problems(RefCell<Vec<String>>);

impl Problems {
    fn add(&self, path: &str, why: impl std::fmt::Display) {
        self.0.borrow_mut().push(format!("{path}: {why}"));
    }
}

/// One table being read: every `take` removes its key, what is left at the end is unknown.
struct Section<'p> {
    path: String,
    table: BTreeMap<String, Node>,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    fn of(path: String, node: Node, problems: &'p Problems) -> Self {
        let table = match node.parsed() {
            Node::Table(table) => table,
            _ => {
                problems.add(&path, "must be a table");
                BTreeMap::new()
            }
        };
        Self {
            path,
            table,
            problems,
        }
    }

    fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn problem(&self, key: &str, why: impl std::fmt::Display) {
        self.problems.add(&self.path(key), why);
    }

    fn section(&mut self, key: &str) -> Option<Section<'p>> {
        let node = self.table.remove(key)?;
        Some(Section::of(self.path(key), node, self.problems))
    }

    /// A section that may be left out as a whole, with the defaults in its place.
    fn section_or_empty(&mut self, key: &str) -> Section<'p> {
        self.section(key).unwrap_or_else(|| Section {
            path: self.path(key),
            table: BTreeMap::new(),
            problems: self.problems,
        })
    }

    fn list(&mut self, key: &str) -> Vec<Node> {
        match self.table.remove(key).map(Node::parsed) {
            None => Vec::new(),
            Some(Node::List(items)) => items,
            Some(_) => {
                self.problem(key, "must be an array");
                Vec::new()
            }
        }
    }

    fn text_of(&self, key: &str, node: Node) -> Option<String> {
        match node {
            Node::Text { text, .. } => Some(text),
            Node::Value(toml::Value::String(text)) => Some(text),
            _ => {
                self.problem(key, "must be a string");
                None
            }
        }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let node = self.table.remove(key)?;
        self.text_of(key, node)
    }

    fn texts(&mut self, key: &str) -> Vec<String> {
        self.list(key)
            .into_iter()
            .enumerate()
            .filter_map(|(index, node)| self.text_of(&format!("{key}[{index}]"), node))
            .collect()
    }

    fn number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        match self.table.remove(key)?.parsed() {
            Node::Value(toml::Value::Integer(number)) => {
                let number = u64::try_from(number).ok();
                let found = number.filter(|number| range.contains(number));
                if found.is_none() {
                    let (low, high) = (range.start(), range.end());
                    self.problem(key, format_args!("must be {low} to {high}"));
                }
                found
            }
            _ => {
                self.problem(key, "must be an integer");
                None
            }
        }
    }

    fn number_or(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.number(key, range).unwrap_or(default)
    }

    /// A part of a whole: at least a thousandth, and at most all of it.
    fn part_or(&mut self, key: &str, default: f64) -> f64 {
        let Some(node) = self.table.remove(key) else {
            return default;
        };
        let part = match node.parsed() {
            Node::Value(toml::Value::Float(part)) => part,
            Node::Value(toml::Value::Integer(1)) => 1.0,
            // Any other integer is out of range, which is said below.
            Node::Value(toml::Value::Integer(_)) => 0.0,
            _ => {
                self.problem(key, "must be a number");
                return default;
            }
        };
        // NaN is in no range.
        if !(0.001..=1.0).contains(&part) {
            self.problem(key, "must be 0.001 to 1");
            return default;
        }
        part
    }

    /// Networks such as `10.0.0.0/8`; an address alone is a network of one.
    fn networks(&mut self, key: &str) -> Vec<IpNet> {
        let texts = self.texts(key).into_iter().enumerate();
        let parsed = texts.filter_map(|(index, text)| {
            let network = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            if network.is_err() {
                let key = format!("{key}[{index}]");
                self.problem(&key, "must be an address or a network such as `10.0.0.0/8`");
            }
            network.ok()
        });
        parsed.collect()
    }

    fn choice<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        let Some(text) = self.text(key) else {
            return default;
        };
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => *value,
            None => {
                let words: Vec<String> = choices.iter().map(|(w, _)| format!("`{w}`")).collect();
                self.problem(key, format_args!("must be {}", words.join(" or ")));
                default
            }
        }
    }

    /// The file that `<key>_file` names, if there is one and `key` itself is absent.
    fn file_of(&mut self, key: &str) -> Option<String> {
        let file_key = format!("{key}_file");
        let path = self.text(&file_key)?;
        if self.table.contains_key(key) {
            self.problem(
                &file_key,
                format_args!("`{key}` is also given; only one can be"),
            );
            return None;
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problem(&file_key, format_args!("{path}: cannot be read: {error}"));
                // A stand-in of its own, so that it is not told to be missing or shared as well.
                Some(self.path(key))
            }
        }
    }

    fn secret(&mut self, key: &str) -> Option<Secret> {
        let text = match self.file_of(key) {
            Some(text) => {
                self.table.remove(key);
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            None => self.text(key)?,
        };
        self.checked(key, text)
    }

    fn secrets(&mut self, key: &str) -> Vec<Secret> {
        let texts = match self.file_of(key) {
            Some(text) => text
                .lines()
                .map(|line| line.trim_end_matches('\r').to_owned())
                .filter(|line| !line.is_empty())
                .collect(),
            None => self.texts(key),
        };
        texts
            .into_iter()
            .enumerate()
            .filter_map(|(index, text)| self.checked(&format!("{key}[{index}]"), text))
            .collect()
    }

    fn checked(&self, key: &str, text: String) -> Option<Secret> {
        // Blanks around a key are never meant, and no HTTP header could carry them.
        if text.trim().is_empty() {
            self.problem(key, "must not be empty");
            None
        } else if text.trim() != text || text.chars().any(char::is_control) {
            self.problem(
                key,
                "must not begin or end with a blank or hold control characters",
            );
            None
        } else {
            Some(Secret(text))
        }
    }

    fn required<T>(&self, key: &str, before: usize, value: Option<T>) -> Option<T> {
        // Not twice: a value that is there but wrong has been told already.
        if value.is_none() && self.problems.0.borrow().len() == before {
            self.problem(key, "is missing");
        }
        value
    }

    fn needed_secret(&mut self, key: &str) -> Option<Secret> {
        let before = self.problems.0.borrow().len();
        let value = self.secret(key);
        self.required(key, before, value)
    }

    fn address(&mut self, key: &str, default: &str) -> String {
        let Some(text) = self.text(key) else {
            return default.to_owned();
        };
        let legal = text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !legal {
            self.problem(
                key,
                "must be host:port, such as `127.0.0.1:8080` or `[::]:8080`",
            );
        }
        text
    }

    fn done(self) {
        for (key, node) in &self.table {
            match node.variable() {
                Some(name) => self.problem(key, format_args!("unknown key (from {name})")),
                None => self.problem(key, "unknown key"),
            }
        }
    }
}

/// Reads the whole tree; `earlier` are the problems found while it was put together.
pub(super) fn config(root: Node, earlier: Vec<String>) -> Result<Config, ConfigError> {
    let problems = Problems(RefCell::new(earlier));
    let mut root = Section::of(String::new(), root, &problems);
    let server = server(root.section_or_empty("server"));
    let redis = redis(root.section_or_empty("redis"));
    let history = history(root.section_or_empty("history"));
    let log = log(root.section_or_empty("log"));
    let apps: Vec<(usize, AppConfig)> = root
        .list("apps")
        .into_iter()
        .enumerate()
        .filter_map(|(index, node)| {
            let section = Section::of(format!("apps[{index}]"), node, &problems);
            app(section).map(|app| (index, app))
        })
        .collect();
    root.done();
    shared_credentials(&apps, &problems);
    let problems = problems.0.into_inner();
    if problems.is_empty() {
        Ok(Config {
            server,
            redis,
            history,
            log,
            apps: apps.into_iter().map(|(_, app)| app).collect(),
        })
    } else {
        Err(ConfigError(problems))
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn server(mut s: Section<'_>) -> ServerConfig {
    let max_events_bytes = s.number_or("max_events_bytes", 8 << 20, 1 << 10..=1 << 30);
    let max_body_bytes = s.number_or("max_body_bytes", 64 << 10, 1 << 10..=64 << 20);
    let longest = max_events_bytes.max(max_body_bytes);
    let max_bodies_bytes = s.number_or(
        "max_bodies_bytes",
        (4 * longest).max(32 << 20),
        1 << 20..=64 << 30,
    );
    if max_bodies_bytes < 4 * longest {
        s.problem(
            "max_bodies_bytes",
            "must be at least 4 times max_events_bytes and max_body_bytes",
        );
    }
    let config = ServerConfig {
        listen: s.address("listen", "127.0.0.1:8080"),
        admin_listen: s.address("admin_listen", "127.0.0.1:9090"),
        workers: size(s.number_or("workers", 0, 0..=512)),
        max_events: size(s.number_or("max_events", 10_000, 1..=100_000)),
        max_events_bytes: size(max_events_bytes),
        max_body_bytes: size(max_body_bytes),
        max_bodies_bytes: size(max_bodies_bytes),
        body_timeout_ms: s.number_or("body_timeout_ms", 10_000, 100..=600_000),
        max_connections: size(s.number_or("max_connections", 12_000, 1..=1_000_000)),
        max_connections_per_address: size(s.number_or(
            "max_connections_per_address",
            0,
            0..=1_000_000,
        )),
        max_head_bytes: size(s.number_or("max_head_bytes", 32 << 10, 1 << 10..=64 << 10)),
        head_timeout_ms: s.number_or("head_timeout_ms", 15_000, 100..=600_000),
        write_timeout_ms: s.number_or("write_timeout_ms", 10_000, 100..=600_000),
        keep_alive_seconds: s.number_or("keep_alive_seconds", 75, 1..=3_600),
        max_answers_bytes: size(s.number_or("max_answers_bytes", 64 << 20, 1 << 20..=1 << 40)),
        max_reads: size(s.number_or("max_reads", 2_048, 1..=1_000_000)),
        max_writes: size(s.number_or("max_writes", 64, 1..=100_000)),
        drain_seconds: s.number_or("drain_seconds", 5, 0..=3_600),
        grace_seconds: s.number_or("grace_seconds", 20, 0..=3_600),
        trusted_proxies: s.networks("trusted_proxies"),
        client_address_header: header_name(&mut s),
        refused_credentials: refused_credentials(s.section_or_empty("refused_credentials")),
    };
    if config.listen == config.admin_listen && !config.listen.ends_with(":0") {
        s.problem("admin_listen", "must differ from server.listen");
    }
    s.done();
    config
}

/// In lower case, as header names are compared.
fn header_name(s: &mut Section<'_>) -> String {
    let key = "client_address_header";
    let Some(name) = s.text(key) else {
        return "x-forwarded-for".to_owned();
    };
    let legal = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !legal {
        s.problem(
            key,
            "must be the name of a header, such as `x-forwarded-for` or `forwarded`",
        );
    }
    name.to_ascii_lowercase()
}

fn refused_credentials(mut s: Section<'_>) -> RefusedCredentials {
    let limit = RefusedCredentials {
        per_second: small(s.number_or("per_second", 20, 0..=1_000_000)),
        burst: small(s.number_or("burst", 200, 1..=1_000_000)),
    };
    s.done();
    limit
}

fn redis(mut s: Section<'_>) -> RedisConfig {
    let url = s.secret("url");
    let mut tls = true;
    match url.as_ref().map(|url| RedisAddress::parse(&url.0)) {
        Some(Ok(address)) => tls = address.tls,
        Some(Err(why)) => s.problem("url", why),
        None => tls = false,
    }
    let [ca_file, cert_file, key_file] = ["ca_file", "cert_file", "key_file"].map(|key| {
        let path = PathBuf::from(s.text(key)?);
        if !tls {
            s.problem(key, "is of use only with TLS: url must begin with rediss");
        } else if let Err(error) = std::fs::read(&path) {
            s.problem(
                key,
                format_args!("{}: cannot be read: {error}", path.display()),
            );
        }
        Some(path)
    });
    if cert_file.is_some() != key_file.is_some() {
        s.problem("cert_file", "and key_file go together");
    }
    let data_dir = s.text("data_dir").unwrap_or_else(|| "./data".to_owned());
    if data_dir.is_empty() {
        s.problem("data_dir", "must not be empty");
    }
    let config = RedisConfig {
        url,
        ca_file,
        cert_file,
        key_file,
        data_dir: data_dir.into(),
        connections: size(s.number_or("connections", 4, 1..=64)),
        connect_timeout_ms: s.number_or("connect_timeout_ms", 1_000, 10..=60_000),
        response_timeout_ms: s.number_or("response_timeout_ms", 1_000, 10..=60_000),
        durability: s.choice(
            "durability",
            Durability::None,
            &[("none", Durability::None), ("wait", Durability::Wait)],
        ),
        durability_replicas: small(s.number_or("durability_replicas", 1, 1..=16)),
        durability_timeout_ms: s.number_or("durability_timeout_ms", 1_000, 10..=5_000),
    };
    s.done();
    config
}

fn history(mut s: Section<'_>) -> HistoryConfig {
    let config = HistoryConfig {
        max_messages: small(s.number_or("max_messages", 1_000, 1..=1_000_000)),
        max_age_days: small(s.number_or("max_age_days", 7, 1..=3_650)),
        text_characters: small(s.number_or("text_characters", 1_000, 0..=100_000)),
        key_hours: small(s.number_or("key_hours", 24, 1..=8_760)),
    };
    s.done();
    config
}

fn log(mut s: Section<'_>) -> LogConfig {
    let format = s.choice(
        "format",
        LogFormat::Text,
        &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    );
    let level = s.text("level").unwrap_or_else(|| "info".to_owned());
    if let Err(why) = crate::telemetry::filter(&level) {
        s.problem("level", why);
    }
    s.done();
    LogConfig { format, level }
}

fn app(mut s: Section<'_>) -> Option<AppConfig> {
    let before = s.problems.0.borrow().len();
    let id = s.text("id");
    let id = s.required("id", before, id).and_then(|text| {
        let id = AppId::parse(text);
        if id.is_none() {
            s.problem("id", "must be 1 to 64 of A-Z a-z 0-9 _ . -");
        }
        id
    });
    let server_keys = s.secrets("server_keys");
    let rate_limit = rate_limit(s.section_or_empty("rate_limit"));
    let users = users(s.section_or_empty("users"));
    let imkit = s.section("imkit").and_then(imkit);
    let tencent = s.section("tencent").and_then(tencent);
    let sendbird = s.section("sendbird").and_then(sendbird);
    s.done();
    Some(AppConfig {
        id: id?,
        server_keys,
        rate_limit,
        users,
        imkit,
        tencent,
        sendbird,
    })
}

fn rate_limit(mut s: Section<'_>) -> RateLimit {
    let per_second = small(s.number_or("per_second", 200, 0..=1_000_000));
    let burst = s.number("burst", 1..=1_000_000);
    let scope = s.choice(
        "scope",
        Scope::Cluster,
        &[("pod", Scope::Pod), ("cluster", Scope::Cluster)],
    );
    s.done();
    RateLimit {
        per_second,
        burst: burst.map_or(per_second.max(1), small),
        scope,
    }
}

fn users(mut s: Section<'_>) -> UsersConfig {
    let given = s.table.contains_key("allowed_origins");
    let mut allowed_origins = s.texts("allowed_origins");
    for origin in &mut allowed_origins {
        origin.make_ascii_lowercase();
        let host = origin.split_once("://").map(|(_, host)| host);
        let legal = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'?' | b'#' | b'@' | b'*');
        let is_origin = host.is_some_and(|host| !host.is_empty() && host.bytes().all(legal));
        if origin != "*" && !is_origin {
            s.problem(
                "allowed_origins",
                "must be \"*\" or origins such as \"https://chat.example.com\"",
            );
        }
    }
    if !given {
        allowed_origins.push("*".to_owned());
    }
    s.done();
    UsersConfig { allowed_origins }
}

fn imkit(mut s: Section<'_>) -> Option<ImkitConfig> {
    let before = s.problems.0.borrow().len();
    let client_keys = s.secrets("client_keys");
    let client_keys = s.required(
        "client_keys",
        before,
        (!client_keys.is_empty()).then_some(client_keys),
    );
    let jwt_secret = s.needed_secret("jwt_secret");
    let user_share = s.part_or("user_share", 0.5);
    let direct_room_ids = s.choice(
        "direct_room_ids",
        DirectRoomIds::Own,
        &[
            ("own", DirectRoomIds::Own),
            ("imkit", DirectRoomIds::LoweredMd5),
        ],
    );
    s.done();
    Some(ImkitConfig {
        client_keys: client_keys?,
        jwt_secret: jwt_secret?,
        user_share,
        direct_room_ids,
    })
}

fn tencent(mut s: Section<'_>) -> Option<TencentConfig> {
    let before = s.problems.0.borrow().len();
    let sdkappid = s.number("sdkappid", 1..=i64::MAX.unsigned_abs());
    let sdkappid = s.required("sdkappid", before, sdkappid);
    let secret_key = s.needed_secret("secret_key");
    let given = s.table.contains_key("admins");
    let mut admins = s.texts("admins");
    if admins.iter().any(String::is_empty) {
        s.problem("admins", "must not hold an empty name");
    }
    if !given {
        admins.push("administrator".to_owned());
    }
    s.done();
    Some(TencentConfig {
        sdkappid: sdkappid?,
        secret_key: secret_key?,
        admins,
    })
}

fn sendbird(mut s: Section<'_>) -> Option<SendbirdConfig> {
    let before = s.problems.0.borrow().len();
    let application_id = s.text("application_id");
    let application_id = s
        .required("application_id", before, application_id)
        .filter(|id| {
            // It is a part of a host name.
            let legal = !id.is_empty()
                && id.len() <= 63
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
            if !legal {
                s.problem("application_id", "must be 1 to 63 of A-Z a-z 0-9 - _");
            }
            legal
        });
    let master_token = s.needed_secret("master_token");
    let api_tokens = s.secrets("api_tokens");
    s.done();
    Some(SendbirdConfig {
        application_id: application_id?,
        master_token: master_token?,
        api_tokens,
    })
}

/// A credential decides which app a call belongs to, so no two apps may have the same.
fn shared_credentials(apps: &[(usize, AppConfig)], problems: &Problems) {
    let mut seen: HashMap<(&str, String), usize> = HashMap::new();
    for (index, app) in apps {
        for (kind, path, value) in credentials(app) {
            // The first app that has it is named in what is said of the others.
            let first = *seen.entry((kind, value)).or_insert(*index);
            if first != *index {
                problems.add(
                    &format!("apps[{index}].{path}"),
                    format_args!("apps[{first}] has the same"),
                );
            }
        }
    }
}

/// All credentials of an app: what they compete with, where they stand, and their value.
fn credentials(app: &AppConfig) -> Vec<(&'static str, &'static str, String)> {
    let mut all = vec![("id", "id", app.id.as_str().to_owned())];
    let mut add = |kind, path, secret: &Secret| all.push((kind, path, secret.0.clone()));
    for key in &app.server_keys {
        add("server key", "server_keys", key);
    }
    if let Some(imkit) = &app.imkit {
        for key in &imkit.client_keys {
            add("client key", "imkit.client_keys", key);
        }
        add("jwt secret", "imkit.jwt_secret", &imkit.jwt_secret);
    }
    if let Some(tencent) = &app.tencent {
        add("secret key", "tencent.secret_key", &tencent.secret_key);
        add(
            "sdkappid",
            "tencent.sdkappid",
            &Secret(tencent.sdkappid.to_string()),
        );
    }
    if let Some(sendbird) = &app.sendbird {
        add("token", "sendbird.master_token", &sendbird.master_token);
        for token in &sendbird.api_tokens {
            add("token", "sendbird.api_tokens", token);
        }
        // Host names know no case.
        let id = sendbird.application_id.to_ascii_lowercase();
        add("application id", "sendbird.application_id", &Secret(id));
    }
    all
}
