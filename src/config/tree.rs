//! A configuration before its settings have types: a tree whose leaves still know whether they were typed (file) or are mere
//! text (environment).

use std::collections::BTreeMap;

/// A value on its way to its type.
#[derive(Debug, Clone)]
pub(super) enum TreeNode {
    /// A table.
    Table(BTreeMap<String, TreeNode>),
    /// An array.
    List(Vec<TreeNode>),
    /// A typed value of the file or of a flag.
    Value(toml::Value),
    /// The text of an environment variable, with its name: what it is depends on the setting.
    Text { text: String, variable: String },
}

impl TreeNode {
    pub(super) fn of(value: toml::Value) -> Self {
        match value {
            toml::Value::Table(table) => TreeNode::Table(
                table
                    .into_iter()
                    .map(|(key, value)| (key, TreeNode::of(value)))
                    .collect(),
            ),
            toml::Value::Array(items) => {
                TreeNode::List(items.into_iter().map(TreeNode::of).collect())
            }
            other => TreeNode::Value(other),
        }
    }

    /// The node, with a text that is a TOML literal of something else than a string turned into that.
    pub(super) fn parsed(self) -> Self {
        match self {
            TreeNode::Text { text, variable } => match literal(&text) {
                Some(value) => TreeNode::of(value),
                None => TreeNode::Text { text, variable },
            },
            other => other,
        }
    }

    /// The environment variable that this, or something in it, came from.
    pub(super) fn variable(&self) -> Option<&str> {
        match self {
            TreeNode::Table(table) => table.values().find_map(TreeNode::variable),
            TreeNode::List(items) => items.iter().find_map(TreeNode::variable),
            TreeNode::Value(_) => None,
            TreeNode::Text { variable, .. } => Some(variable),
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

/// Reads a file's text.
pub(super) fn parse(text: &str) -> Result<TreeNode, String> {
    match toml::from_str::<toml::Table>(text) {
        Ok(table) => Ok(TreeNode::of(toml::Value::Table(table))),
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

/// Puts a leaf at the end of a path. The error says what is wrong with the path.
pub(super) fn put(node: &mut TreeNode, path: &[&str], leaf: TreeNode) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *node = leaf;
        return Ok(());
    };
    if first.is_empty() {
        return Err("is no setting".to_owned());
    }
    // An inline table or array of a shorter variable may be completed by a longer one.
    if matches!(node, TreeNode::Text { .. }) {
        let text = std::mem::replace(node, TreeNode::List(Vec::new()));
        *node = text.parsed();
    }
    match node {
        TreeNode::Table(table) => {
            let child = table
                .entry((*first).to_owned())
                .or_insert_with(|| container(rest));
            put(child, rest, leaf)
        }
        TreeNode::List(items) => {
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
        TreeNode::Value(_) | TreeNode::Text { .. } => {
            Err("goes into a setting that has no parts".to_owned())
        }
    }
}

/// What a path that goes on with `rest` goes into.
fn container(rest: &[&str]) -> TreeNode {
    match rest.first() {
        Some(part) if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => {
            TreeNode::List(Vec::new())
        }
        _ => TreeNode::Table(BTreeMap::new()),
    }
}
