//! Turns the tree of settings into [`Config`]: each section by its rows in `settings`, and then what several settings must be
//! together.

use std::collections::HashMap;

use super::schema::Settings;
use super::section::{Credential, SectionKind, Sections};
use super::settings::{AppSettings, RedisConfig, ServerConfig, UsersConfig};
use super::table::{Problems, Table};
use super::tree::TreeNode;
use super::{AppConfig, Config, ConfigError, HistoryConfig, LiveConfig, LogConfig, RedisAddress};

/// Reads the whole tree; `earlier` are the problems found while it was put together.
pub(super) fn config(
    root: TreeNode,
    earlier: Vec<String>,
    dialects: &[&SectionKind],
) -> Result<Config, ConfigError> {
    let problems = Problems::new(earlier);
    let mut root = Table::of(String::new(), root, &problems);
    let server = server(root.table_or_empty("server"));
    let redis = redis(root.table_or_empty("redis"));
    let history = HistoryConfig::read_all(root.table_or_empty("history"));
    let live = LiveConfig::read_all(root.table_or_empty("live"));
    let log = LogConfig::read_all(root.table_or_empty("log"));
    let apps = root.tables("apps").into_iter().enumerate();
    let apps: Vec<(usize, AppConfig)> = apps
        .filter_map(|(index, table)| Some((index, app(table, dialects)?)))
        .collect();
    root.reject_unknown();
    shared_credentials(&apps, &problems);
    let problems = problems.into_lines();
    let whole = || {
        Some(Config {
            server: server?,
            redis: redis?,
            history: history?,
            live: live?,
            log: log?,
            apps: apps.into_iter().map(|(_, app)| app).collect(),
        })
    };
    match whole() {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(ConfigError(problems)),
    }
}

fn server(mut table: Table<'_>) -> Option<ServerConfig> {
    let mut server = ServerConfig::read(&mut table)?;
    let longest = server.max_events_bytes.max(server.max_body_bytes);
    if server.max_bodies_bytes == 0 {
        server.max_bodies_bytes = (4 * longest).max(32 << 20);
    }
    if server.max_bodies_bytes < 4 * longest {
        table.problem(
            "max_bodies_bytes",
            "must be at least 4 times max_events_bytes and max_body_bytes",
        );
    }
    if server.listen == server.admin_listen && !server.listen.ends_with(":0") {
        table.problem("admin_listen", "must differ from server.listen");
    }
    // As names of headers are compared.
    server.client_address_header.make_ascii_lowercase();
    table.reject_unknown();
    Some(server)
}

fn redis(mut table: Table<'_>) -> Option<RedisConfig> {
    let redis = RedisConfig::read(&mut table);
    if let Some(redis) = &redis {
        let address = redis.url.as_ref().map(|url| RedisAddress::parse(&url.0));
        // Of an address that can't be read nobody knows.
        let tls = address.is_some_and(|address| address.map_or(true, |address| address.tls));
        for (key, file) in [
            ("ca_file", &redis.ca_file),
            ("cert_file", &redis.cert_file),
            ("key_file", &redis.key_file),
        ] {
            let Some(path) = file else { continue };
            if !tls {
                table.problem(key, "is of use only with TLS: url must begin with rediss");
            } else if let Err(error) = std::fs::read(path) {
                let path = path.display();
                table.problem(key, format_args!("{path}: cannot be read: {error}"));
            }
        }
        if redis.cert_file.is_some() != redis.key_file.is_some() {
            table.problem("cert_file", "and key_file go together");
        }
    }
    table.reject_unknown();
    redis
}

fn app(mut table: Table<'_>, dialects: &[&SectionKind]) -> Option<AppConfig> {
    let own = AppSettings::read(&mut table);
    let users = UsersConfig::read_all(table.table_or_empty("users"));
    let dialects = Sections::read(&mut table, dialects);
    table.reject_unknown();
    let AppSettings {
        id,
        server_keys,
        mut rate_limit,
    } = own?;
    if rate_limit.burst == 0 {
        rate_limit.burst = rate_limit.per_second.max(1);
    }
    let mut users = users?;
    if users.rate_limit.burst == 0 {
        users.rate_limit.burst = users.rate_limit.per_second.saturating_mul(2).max(1);
    }
    // As browsers write them.
    for origin in &mut users.allowed_origins {
        origin.make_ascii_lowercase();
    }
    Some(AppConfig {
        id,
        server_keys,
        rate_limit,
        users,
        dialects,
    })
}

/// A credential decides which app a call belongs to, so no two apps may have the same.
fn shared_credentials(apps: &[(usize, AppConfig)], problems: &Problems) {
    let mut seen: HashMap<(&str, String), usize> = HashMap::new();
    for (index, app) in apps {
        for (path, Credential { kind, value, .. }) in credentials(app) {
            // The first app that has it is named in what is said of the others.
            let first = *seen.entry((kind, value.0)).or_insert(*index);
            if first != *index {
                problems.add(
                    &format!("apps[{index}].{path}"),
                    format_args!("apps[{first}] has the same"),
                );
            }
        }
    }
}

/// All credentials of an app, with the paths of their settings.
fn credentials(app: &AppConfig) -> Vec<(String, Credential)> {
    let id = super::Secret(app.id.as_str().to_owned());
    let mut all = vec![("id".to_owned(), Credential::secret("id", "id", &id))];
    for key in &app.server_keys {
        let key = Credential::secret("server key", "server_keys", key);
        all.push((key.key.to_owned(), key));
    }
    for secret in &app.users.token_secret {
        let secret = Credential::secret("user token secret", "token_secret", secret);
        all.push((format!("users.{}", secret.key), secret));
    }
    for (name, section) in app.dialects.iter() {
        for credential in section.credentials() {
            all.push((format!("{name}.{}", credential.key), credential));
        }
    }
    all
}
