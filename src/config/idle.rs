//! What is configured and of no use. Such a configuration works, so these are warnings.

use super::{AppConfig, Config, Flags, UsersConfig, load_text};

/// What is of no use, one line each.
pub(crate) fn idle(config: &Config) -> Vec<String> {
    if config.apps.is_empty() {
        return vec!["no app is configured: every call will be refused".to_owned()];
    }
    let bare = load_text("[[apps]]\nid = \"a\"", &Flags::default(), &[]);
    let default = bare.ok().and_then(|bare| bare.apps.into_iter().next());
    let default = default.map(|app| app.users);
    let apps = config.apps.iter().enumerate();
    let idle = apps.flat_map(|(index, app)| idle_parts(index, app, default.as_ref()));
    idle.collect()
}

/// `default`: what `[apps.users]` has if nothing is set there.
fn idle_parts(index: usize, app: &AppConfig, default: Option<&UsersConfig>) -> Vec<String> {
    let mut idle = Vec::new();
    let has_dialect = app.dialects.iter().next().is_some();
    if !app.users.token_secret.is_empty() {
        return idle;
    }
    if app.server_keys.is_empty() && !has_dialect {
        idle.push(format!(
            "apps[{index}] has no server_keys, no token_secret and no section of a dialect: every call for it will be refused"
        ));
    }
    let is_set = default.is_some_and(|default| {
        // The origins hold for a dialect's calls, too.
        (app.users.allowed_origins != default.allowed_origins && !has_dialect)
            || app.users.rate_limit != default.rate_limit
    });
    if is_set {
        idle.push(format!(
            "apps[{index}].users has no token_secret: nobody can call with a user token"
        ));
    }
    idle
}
