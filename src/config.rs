//! Every setting, its default, unit and range. They stand in one table, `settings`, by the `rules` that a setting can have;
//! `schema` says what such a table is made of. What a dialect adds is a `section` of the same kind, which stands with the
//! dialect.
//!
//! `load` puts the layers on top of each other in a `tree`; `read` turns it, one `table` after the other, into these types;
//! `show` prints them back by a `printer` that masks the secrets; `reference` lists them all; `secrets` names those that are no
//! protection, and `idle` what is of no use. No setting is read after start.

mod idle;
mod load;
mod printer;
mod read;
mod redis_address;
mod reference;
pub(crate) mod rules;
pub(crate) mod schema;
mod secrets;
mod section;
mod settings;
mod show;
mod table;
mod tree;
#[cfg(test)]
mod tests;

use crate::names::{AppId, DirectRoomIds};

pub(crate) use idle::idle;
pub(crate) use load::{Flags, environment, load, load_text, load_text_under};
pub(crate) use printer::Printer;
pub(crate) use redis_address::{Destination, Host, RedisAddress};
pub(crate) use reference::reference;
pub(crate) use schema::{Row, Settings, settings};
pub(crate) use secrets::{WeakSecret, weak_secrets};
pub(crate) use section::{Credential, Section, SectionKind, Sections};
pub(crate) use settings::{
    Durability, HistoryConfig, LimitScope, LiveConfig, LogConfig, LogFormat, RateLimit,
    RedisConfig, ServerConfig, UserRateLimit, UsersConfig,
};
pub(crate) use show::effective;
pub(crate) use table::Table;

/// The example file, which the demo runs with. Its secrets are published, and so no secrets.
pub(crate) const EXAMPLE: &str = include_str!("../unread.example.toml");

/// A text that must never be printed: keys, tokens, and addresses that may hold a password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("****")
    }
}

/// The whole configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The HTTP side.
    pub server: ServerConfig,
    /// Where the counts live.
    pub redis: RedisConfig,
    /// How far back message ids are known, per room, and keys of events.
    pub history: HistoryConfig,
    /// Streams of counts as they change.
    pub live: LiveConfig,
    /// Logs.
    pub log: LogConfig,
    /// The tenants.
    pub apps: Vec<AppConfig>,
}

/// Everything that is wrong with a configuration, one line each. No line holds a secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(pub Vec<String>);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// One tenant.
#[derive(Debug, Clone)]
pub(crate) struct AppConfig {
    /// Its id, part of every key.
    pub id: AppId,
    /// Bearer keys of the native API.
    pub server_keys: Vec<Secret>,
    /// The limit of each vendor endpoint.
    pub rate_limit: RateLimit,
    /// What users' own devices may do.
    pub users: UsersConfig,
    /// The sections of the dialects that it uses.
    pub dialects: Sections,
}

impl AppConfig {
    /// A dialect's section, by the type of its settings.
    pub(crate) fn section<S: Section>(&self) -> Option<&S> {
        self.dialects.get()
    }

    /// How the direct rooms are called that messages make.
    pub(crate) fn direct_room_ids(&self) -> DirectRoomIds {
        let mut sections = self.dialects.iter();
        sections
            .find_map(|(_, section)| section.direct_room_ids())
            .unwrap_or_default()
    }

    /// What stands in `[[apps]]` itself.
    fn own(&self) -> settings::AppSettings {
        settings::AppSettings {
            id: self.id.clone(),
            server_keys: self.server_keys.clone(),
            rate_limit: self.rate_limit,
        }
    }
}
