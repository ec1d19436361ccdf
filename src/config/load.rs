//! Puts the layers on top of each other: file, then environment, then flags. What comes out is a tree whose leaves still
//! know whether they were typed (file) or are mere text (environment); `read` gives them their types.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::{Config, read};

const PREFIX: &str = "UNREAD_";

/// The flags that override a setting.
#[derive(Debug, Clone, Default)]
pub struct Flags {
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

/// Everything that is wrong with a configuration, one line each. No line holds a secret.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// A value on its way to its type.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A table.
    Table(BTreeMap<String, Node>),
    /// An array.
    List(Vec<Node>),
    /// A typed value of the file or of a flag.
    Value(toml::Value),
    /// The text of an environment variable, with its name: what it is depends on the setting.
    Text { text: String, variable: String },
}

impl Node {
    fn of(value: toml::Value) -> Self {
        match value {
            toml::Value::Table(table) => Node::Table(
                table
                    .into_iter()
                    .map(|(key, value)| (key, Node::of(value)))
                    .collect(),
            ),
            toml::Value::Array(items) => Node::List(items.into_iter().map(Node::of).collect()),
            other => Node::Value(other),
        }
    }

    /// The node, with a text that is a TOML literal of something else than a string turned into that.
    pub(super) fn parsed(self) -> Self {
        match self {
            Node::Text { text, variable } => match literal(&text) {
                Some(value) => Node::of(value),
                None => Node::Text { text, variable },
            },
            other => other,
        }
    }

    /// The environment variable that this, or something in it, came from.
    pub(super) fn variable(&self) -> Option<&str> {
        match self {
            Node::Table(table) => table.values().find_map(Node::variable),
            Node::List(items) => items.iter().find_map(Node::variable),
            Node::Value(_) => None,
            Node::Text { variable, .. } => Some(variable),
        }
    }
}

fn literal(text: &str) -> Option<toml::Value> {
    let mut table: toml::Table = toml::from_str(&format!("v = {text}")).ok()?;
    // A text with line breaks could smuggle in more than one key.
    if table.len() != 1 {
        return None;
    }
    table
        .remove("v")
        .filter(|value| !matches!(value, toml::Value::String(_) | toml::Value::Datetime(_)))
}

/// Reads the configuration of this process: file, environment, flags.
pub fn load(flags: &Flags) -> Result<Config, ConfigError> {
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
        load_from(flags, variables)
    } else {
        Err(ConfigError(problems))
    }
}

/// The same with the environment given, for tests.
pub fn load_from(
    flags: &Flags,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut file = None;
    let mut settings = Vec::new();
    for (name, value) in variables {
        let Some((start, path)) = name.split_at_checked(PREFIX.len()) else {
            continue;
        };
        if !start.eq_ignore_ascii_case(PREFIX) {
            continue;
        }
        let path = path.to_ascii_lowercase();
        if path == "config" {
            file = Some(PathBuf::from(value));
        } else if !is_service_link(&path) {
            settings.push((path, name, value));
        }
    }
    let root = match flags.file.as_ref().or(file.as_ref()) {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot be read: {error}"))
            .and_then(|text| parse(&text))
            .map_err(|why| ConfigError(vec![format!("{}: {why}", path.display())]))?,
        None => Node::Table(BTreeMap::new()),
    };
    layered(root, settings, flags)
}

/// Reads a configuration that is part of the program, under the flags only.
pub fn load_text(text: &str, flags: &Flags) -> Result<Config, ConfigError> {
    let root = parse(text).map_err(|why| ConfigError(vec![why]))?;
    layered(root, Vec::new(), flags)
}

/// `settings`: path, variable and value of each.
fn layered(
    mut root: Node,
    mut settings: Vec<(String, String, String)>,
    flags: &Flags,
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
        let leaf = Node::Text {
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
        if let Node::Table(table) = &mut root
            && let Some(Node::Table(section)) = table.get_mut(section)
        {
            section.remove(&format!("{key}_file"));
        }
        let leaf = Node::Value(toml::Value::String(value));
        if let Err(why) = put(&mut root, &[section, key], leaf) {
            problems.push(format!("{section}.{key}: {why}"));
        }
    }
    read::config(root, problems)
}

fn parse(text: &str) -> Result<Node, String> {
    match toml::from_str::<toml::Table>(text) {
        Ok(table) => Ok(Node::of(toml::Value::Table(table))),
        Err(error) => {
            // The error's own text quotes the line, which may hold a secret.
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1);
            let message = error.message().replace('\n', " ");
            Err(format!("line {line}: {message}"))
        }
    }
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

fn put(node: &mut Node, path: &[&str], leaf: Node) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *node = leaf;
        return Ok(());
    };
    if first.is_empty() {
        return Err("is no setting".to_owned());
    }
    // An inline table or array of a shorter variable may be completed by a longer one.
    if matches!(node, Node::Text { .. }) {
        let text = std::mem::replace(node, Node::List(Vec::new()));
        *node = text.parsed();
    }
    match node {
        Node::Table(table) => {
            let child = table
                .entry((*first).to_owned())
                .or_insert_with(|| container(rest));
            put(child, rest, leaf)
        }
        Node::List(items) => {
            let Ok(index) = first.parse::<usize>() else {
                return Err(format!("`{first}` is not an index"));
            };
            if index == items.len() {
                items.push(container(rest));
            }
            let count = items.len();
            match items.get_mut(index) {
                Some(child) => put(child, rest, leaf),
                None => Err(format!(
                    "index {index} leaves a gap: there are {count} before it"
                )),
            }
        }
        Node::Value(_) | Node::Text { .. } => {
            Err("goes into a setting that has no parts".to_owned())
        }
    }
}

/// What a path that goes on with `rest` goes into.
fn container(rest: &[&str]) -> Node {
    match rest.first() {
        Some(part) if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => {
            Node::List(Vec::new())
        }
        _ => Node::Table(BTreeMap::new()),
    }
}
