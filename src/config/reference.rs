//! Every setting by its path, for people.

use super::SectionKind;
use super::schema::{Row, Settings as _};
use super::settings::{
    AppSettings, HistoryConfig, LiveConfig, LogConfig, RedisConfig, ServerConfig, UsersConfig,
};

/// Every setting with its path: `server.listen`, `apps.rate_limit.burst`.
pub(crate) fn reference(dialects: &[&SectionKind]) -> Vec<(String, Row)> {
    let mut all = Vec::new();
    for (section, rows) in [
        ("server", ServerConfig::rows()),
        ("redis", RedisConfig::rows()),
        ("history", HistoryConfig::rows()),
        ("live", LiveConfig::rows()),
        ("log", LogConfig::rows()),
        ("apps", AppSettings::rows()),
        ("apps.users", UsersConfig::rows()),
    ] {
        add(&mut all, section, rows);
    }
    for section in dialects {
        add(
            &mut all,
            &format!("apps.{}", section.name),
            (section.rows)(),
        );
    }
    all
}

/// Of a setting with parts, only the parts are listed.
fn add(all: &mut Vec<(String, Row)>, section: &str, rows: Vec<Row>) {
    for mut row in rows {
        let path = format!("{section}.{}", row.key);
        let parts = std::mem::take(&mut row.parts);
        match parts.is_empty() {
            true => all.push((path, row)),
            false => add(all, &path, parts),
        }
    }
}
