//! A table of the tree while its settings are read. Every problem is collected, so that one run of `check-config` shows all of
//! them; no message holds a value that may be secret.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Secret;
use super::tree::TreeNode;

/// What is wrong, one line each.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<String>>);

impl Problems {
    pub(super) fn new(earlier: Vec<String>) -> Self {
        Self(RefCell::new(earlier))
    }

    pub(super) fn add(&self, path: &str, why: impl std::fmt::Display) {
        self.0.borrow_mut().push(format!("{path}: {why}"));
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.0.into_inner()
    }

    fn count(&self) -> usize {
        self.0.borrow().len()
    }
}

/// A table whose settings are being read: each takes its key away, and what is left at the end is unknown.
pub(crate) struct Table<'p> {
    path: String,
    nodes: BTreeMap<String, TreeNode>,
    problems: &'p Problems,
}

impl<'p> Table<'p> {
    pub(super) fn of(path: String, node: TreeNode, problems: &'p Problems) -> Self {
        let nodes = match node.parsed() {
            TreeNode::Table(nodes) => nodes,
            _ => {
                problems.add(&path, "must be a table");
                BTreeMap::new()
            }
        };
        Self {
            path,
            nodes,
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

    /// Says what is wrong with a setting.
    pub(crate) fn problem(&self, key: &str, why: impl std::fmt::Display) {
        self.problems.add(&self.path(key), why);
    }

    /// Whether a setting is given and has not been read yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.nodes.contains_key(key)
    }

    /// Takes a table out of this one.
    pub(super) fn table(&mut self, key: &str) -> Option<Table<'p>> {
        let node = self.nodes.remove(key)?;
        Some(Table::of(self.path(key), node, self.problems))
    }

    /// The same of a table that may be left out, which then has no settings.
    pub(super) fn table_or_empty(&mut self, key: &str) -> Table<'p> {
        self.table(key).unwrap_or_else(|| Table {
            path: self.path(key),
            nodes: BTreeMap::new(),
            problems: self.problems,
        })
    }

    /// Takes an array of tables.
    pub(super) fn tables(&mut self, key: &str) -> Vec<Table<'p>> {
        let (path, problems) = (self.path(key), self.problems);
        let nodes = self.list(key).into_iter().enumerate();
        nodes
            .map(|(index, node)| Table::of(format!("{path}[{index}]"), node, problems))
            .collect()
    }

    /// Takes the node of a setting, with a text of the environment turned into what it is.
    pub(super) fn node(&mut self, key: &str) -> Option<TreeNode> {
        self.nodes.remove(key).map(TreeNode::parsed)
    }

    fn list(&mut self, key: &str) -> Vec<TreeNode> {
        match self.node(key) {
            None => Vec::new(),
            Some(TreeNode::List(items)) => items,
            Some(_) => {
                self.problem(key, "must be an array");
                Vec::new()
            }
        }
    }

    fn text_of(&self, key: &str, node: TreeNode) -> Option<String> {
        match node {
            TreeNode::Text { text, .. } => Some(text),
            TreeNode::Value(toml::Value::String(text)) => Some(text),
            _ => {
                self.problem(key, "must be a string");
                None
            }
        }
    }

    /// Takes a text. From the environment a number is a text as well.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let node = self.nodes.remove(key)?;
        self.text_of(key, node)
    }

    /// Takes an array of texts.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        self.list(key)
            .into_iter()
            .enumerate()
            .filter_map(|(index, node)| self.text_of(&format!("{key}[{index}]"), node))
            .collect()
    }

    /// The text of the file that `<key>_file` names, if there is one and `key` itself is absent.
    fn file_of(&mut self, key: &str) -> Option<String> {
        let file_key = format!("{key}_file");
        let path = self.text(&file_key)?;
        if self.has(key) {
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

    /// Takes a secret, or the file that holds it.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let text = match self.file_of(key) {
            Some(text) => {
                self.nodes.remove(key);
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            None => self.text(key)?,
        };
        self.checked(key, text)
    }

    /// Takes an array of secrets, or the file that holds them, one a line.
    pub(super) fn secrets(&mut self, key: &str) -> Vec<Secret> {
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

    /// Reads a setting that must be there.
    pub(super) fn needed<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let before = self.problems.count();
        let value = read(self);
        // Not twice: a value that is there but wrong has been told already.
        if value.is_none() && self.problems.count() == before {
            self.problem(key, "is missing");
        }
        value
    }

    /// Names what nobody has read.
    pub(super) fn reject_unknown(self) {
        for (key, node) in &self.nodes {
            match node.variable() {
                Some(name) => {
                    let hint = underscores(key).filter(|_| self.path.is_empty());
                    let hint = hint.unwrap_or_default();
                    self.problem(key, format_args!("unknown key (from {name}){hint}"));
                }
                None => self.problem(key, "unknown key"),
            }
        }
    }
}

/// What is said of the key that a variable with too few underscores comes to: `redis_url` of `UNREAD_REDIS_URL`.
fn underscores(key: &str) -> Option<String> {
    const SECTIONS: [&str; 5] = ["server", "redis", "history", "log", "apps"];
    let (section, setting) = key.split_once('_')?;
    let is_section = SECTIONS.contains(&section);
    let example = match section {
        "apps" => "APPS__0__ID".to_owned(),
        _ => format!("{section}__{setting}").to_ascii_uppercase(),
    };
    is_section.then(|| format!(": two underscores stand between levels, as in UNREAD_{example}"))
}
