//! Puts the layers on top of each other: file, then environment, then flags; and has `read` give the settings their types.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::section::SectionKind;
use super::tree::{TreeNode, parse, put};
use super::{Config, ConfigError, read};

const PREFIX: &str = "UNREAD_";

/// The flags that override a setting.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// The configuration file; else the one that `UNREAD_CONFIG` names; else none.
    pub file: Option<PathBuf>,
    /// `server.listen`.
    pub listen: Option<String>,
    /// `server.admin_listen`.
    pub admin_listen: Option<String>,
    /// `redis.url`.
    pub redis_url: Option<String>,
    /// `redis.data_dir`.
    pub data_dir: Option<PathBuf>,
}

/// Reads the configuration of this process: file, environment, flags. `dialects` are the sections that an app may have beside the
/// program's own.
pub(crate) fn load(flags: &Flags, dialects: &[&SectionKind]) -> Result<Config, ConfigError> {
    load_from(flags, environment()?, dialects)
}

/// The variables of this process that belong to this program, with their values.
pub(crate) fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let ours = name
            .get(..PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
        if !ours {
            continue;
        }
        match value.into_string() {
            Ok(value) => variables.push((name.to_owned(), value)),
            Err(_) => problems.push(format!("{name}: is not UTF-8")),
        }
    }
    if problems.is_empty() {
        Ok(variables)
    } else {
        Err(ConfigError(problems))
    }
}

/// The same with the environment given, for tests.
pub(crate) fn load_from(
    flags: &Flags,
    variables: impl IntoIterator<Item = (String, String)>,
    dialects: &[&SectionKind],
) -> Result<Config, ConfigError> {
    let mut file = None;
    let mut settings = settings_of(variables);
    settings.retain(|(path, _, value)| {
        let is_setting = path != "config";
        if !is_setting {
            file = Some(PathBuf::from(value));
        }
        is_setting
    });
    let root = match flags.file.as_ref().or(file.as_ref()) {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot be read: {error}"))
            .and_then(|text| parse(&text))
            .map_err(|why| ConfigError(vec![format!("{}: {why}", path.display())]))?,
        None => TreeNode::Table(BTreeMap::new()),
    };
    layered(root, settings, flags, dialects)
}

/// Reads a configuration that is part of the program, under the flags only.
pub(crate) fn load_text(
    text: &str,
    flags: &Flags,
    dialects: &[&SectionKind],
) -> Result<Config, ConfigError> {
    load_text_under(text, &[], Vec::new(), flags, dialects)
}

/// Reads a configuration that is part of the program, under those variables that set something in one of `sections`, and under
/// the flags.
pub(crate) fn load_text_under(
    text: &str,
    sections: &[&str],
    variables: Vec<(String, String)>,
    flags: &Flags,
    dialects: &[&SectionKind],
) -> Result<Config, ConfigError> {
    let root = parse(text).map_err(|why| ConfigError(vec![why]))?;
    let mut settings = settings_of(variables);
    settings.retain(|(path, ..)| sections.contains(&path.split("__").next().unwrap_or_default()));
    layered(root, settings, flags, dialects)
}

/// Path, variable and value of each variable that is ours.
fn settings_of(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Vec<(String, String, String)> {
    let settings = variables.into_iter().filter_map(|(name, value)| {
        let (start, path) = name.split_at_checked(PREFIX.len())?;
        let path = path.to_ascii_lowercase();
        let ours = start.eq_ignore_ascii_case(PREFIX) && !is_service_link(&path);
        ours.then_some((path, name, value))
    });
    settings.collect()
}

/// `settings`: path, variable and value of each.
fn layered(
    mut root: TreeNode,
    mut settings: Vec<(String, String, String)>,
    flags: &Flags,
    dialects: &[&SectionKind],
) -> Result<Config, ConfigError> {
    // Parents before children and elements in their order, whatever order the environment has.
    settings.sort_by_cached_key(|(path, name, _)| {
        let key: Vec<(usize, String)> = path
            .split("__")
            .map(|part| (part.parse().unwrap_or(0), part.to_owned()))
            .collect();
        (key, name.clone())
    });
    let mut problems = Vec::new();
    for (path, variable, text) in settings {
        let parts: Vec<&str> = path.split("__").collect();
        let leaf = TreeNode::Text {
            text,
            variable: variable.clone(),
        };
        if let Err(why) = put(&mut root, &parts, leaf) {
            problems.push(format!("{variable}: {why}"));
        }
    }
    let texts = [
        ("server", "listen", flags.listen.clone()),
        ("server", "admin_listen", flags.admin_listen.clone()),
        ("redis", "url", flags.redis_url.clone()),
        (
            "redis",
            "data_dir",
            flags.data_dir.as_ref().map(|p| p.display().to_string()),
        ),
    ];
    for (section, key, value) in texts {
        let Some(value) = value else { continue };
        // The flag also replaces a secret that was to be read from a file.
        if let TreeNode::Table(table) = &mut root
            && let Some(TreeNode::Table(section)) = table.get_mut(section)
        {
            section.remove(&format!("{key}_file"));
        }
        let leaf = TreeNode::Value(toml::Value::String(value));
        if let Err(why) = put(&mut root, &[section, key], leaf) {
            problems.push(format!("{section}.{key}: {why}"));
        }
    }
    read::config(root, problems, dialects)
}

/// Kubernetes gives every pod the addresses of the services beside it. Beside a service named `unread` or `unread-admin`
/// those variables begin as ours do; none of them names a setting, since all settings sit in a section.
fn is_service_link(path: &str) -> bool {
    if path.contains("__") {
        return false;
    }
    let path = format!("_{path}");
    if path.ends_with("_service_host")
        || path.ends_with("_service_port")
        || path.contains("_service_port_")
        || path.ends_with("_port")
    {
        return true;
    }
    path.split_once("_port_").is_some_and(|(_, rest)| {
        let mut parts = rest.split('_');
        let port = parts.next().is_some_and(|p| p.parse::<u16>().is_ok());
        port && matches!(parts.next(), Some("tcp" | "udp" | "sctp"))
    })
}
