//! Secrets that are no protection, by the setting they stand in. Such a configuration works, so these are warnings.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use super::section::SectionKind;
use super::{Config, Destination, EXAMPLE, Flags, RedisAddress, Settings, load_text};

/// Fewer bytes than these can be guessed by trying: with 16 random letters and digits there are 2^95 to try.
const MIN_BYTES: usize = 16;
/// However long it is, a secret of fewer different bytes is a pattern and not random. Of 16 random hexadecimal digits 98 in
/// 100 have as many.
const MIN_DIFFERENT: usize = 8;

/// Server keys beside those of the example file that this program's files show: those of the load tests and of the tests.
const SHOWN: &[&str] = &[
    "load-server-key",
    "limited-server-key",
    "sdk-test-server-key",
];

/// A secret that is no protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeakSecret {
    /// The setting it stands in, such as `apps[0].server_keys[0]`.
    pub setting: String,
    /// What is wrong with it, without the secret itself.
    pub why: String,
}

/// The secrets that are published, short, or the same as another. `dialects` as in [`super::load()`].
pub(crate) fn weak_secrets(config: &Config, dialects: &[&SectionKind]) -> Vec<WeakSecret> {
    let published = published(dialects);
    let mut first: HashMap<&str, &str> = HashMap::new();
    let all = all(config);
    let mut weak = Vec::new();
    for (setting, secret) in &all {
        let mut add = |why: String| {
            weak.push(WeakSecret {
                setting: setting.clone(),
                why,
            });
        };
        if published.contains(secret.as_str()) {
            add(
                "is published in this program's example, documents or tests: anybody can use it"
                    .into(),
            );
        } else if is_short(secret) {
            add(format!(
                "is short: below {MIN_BYTES} bytes, or {MIN_DIFFERENT} different ones, it can be guessed"
            ));
        }
        match first.get(secret.as_str()) {
            Some(other) => add(format!("is the same as {other}: who knows one knows both")),
            None => {
                first.insert(secret, setting);
            }
        }
    }
    weak
}

fn is_short(secret: &str) -> bool {
    let different: HashSet<u8> = secret.bytes().collect();
    secret.len() < MIN_BYTES || different.len() < MIN_DIFFERENT
}

/// The secrets that everybody can read. Those of the demo are the example file's, which it runs with.
fn published(dialects: &[&SectionKind]) -> HashSet<String> {
    let shown = dialects.iter().flat_map(|dialect| dialect.shown);
    let shown = SHOWN.iter().chain(shown);
    let mut published: HashSet<String> = shown.map(|secret| (*secret).to_owned()).collect();
    if let Ok(example) = load_text(EXAMPLE, &Flags::default(), dialects) {
        published.extend(all(&example).into_iter().map(|(_, secret)| secret));
    }
    published
}

/// Every secret of the configuration and the setting it stands in.
fn all(config: &Config) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (key, secret) in config.server.secrets() {
        all.push((format!("server.{key}"), secret.0.clone()));
    }
    if let Some(url) = &config.redis.url {
        let passwords = RedisAddress::parse(&url.0).map(passwords);
        let passwords = passwords.unwrap_or_default().into_iter();
        all.extend(passwords.map(|password| ("redis.url".to_owned(), password)));
    }
    for (index, app) in config.apps.iter().enumerate() {
        let own = app.server_keys.iter().enumerate();
        let own = own.map(|(n, secret)| (format!("server_keys[{n}]"), secret.0.clone()));
        all.extend(own.map(|(key, secret)| (format!("apps[{index}].{key}"), secret)));
        let users: (&str, &dyn Settings) = ("users", &app.users);
        let dialects = app.dialects.iter();
        let dialects = dialects.map(|(name, section)| (name, section as &dyn Settings));
        for (name, section) in std::iter::once(users).chain(dialects) {
            let secrets = section.secrets().into_iter();
            all.extend(
                secrets
                    .map(|(key, secret)| (format!("apps[{index}].{name}.{key}"), secret.0.clone())),
            );
        }
    }
    all
}

fn passwords(address: RedisAddress) -> Vec<String> {
    let sentinels = match address.destination {
        Destination::Sentinel { password, .. } => password,
        Destination::Server { .. } | Destination::Socket { .. } | Destination::Cluster(_) => None,
    };
    // One for both is usual, and no fault.
    let sentinels = sentinels.filter(|one| Some(one) != address.password.as_ref());
    address.password.into_iter().chain(sentinels).collect()
}
