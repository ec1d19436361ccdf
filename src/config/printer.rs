//! Prints settings as TOML, with secrets masked.

use std::fmt::Write as _;

const MASK: &str = "****";

/// The TOML printed so far.
pub(crate) struct Printer(String);

impl Printer {
    pub(super) fn new() -> Self {
        Self(String::new())
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    pub(super) fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// The head of a table, with an empty line before it.
    pub(super) fn head(&mut self, head: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(head);
    }

    pub(super) fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "{key} = {value}");
    }

    pub(super) fn text(&mut self, key: &str, text: &str) {
        self.plain(key, toml::Value::from(text));
    }

    pub(super) fn list<'a>(&mut self, key: &str, texts: impl Iterator<Item = &'a str>) {
        self.plain(key, toml::Value::Array(texts.map(Into::into).collect()));
    }

    pub(super) fn secret(&mut self, key: &str) {
        self.text(key, MASK);
    }

    pub(super) fn secrets(&mut self, key: &str, count: usize) {
        self.list(key, std::iter::repeat_n(MASK, count));
    }

    /// A table on one line.
    pub(super) fn inline(&mut self, key: &str, show: impl FnOnce(&mut Printer)) {
        let mut parts = Printer::new();
        show(&mut parts);
        let parts: Vec<&str> = parts.0.lines().collect();
        self.line(&format!("{key} = {{ {} }}", parts.join(", ")));
    }
}

/// The address with its password masked, wherever a Redis address can hold one.
pub(super) fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return MASK.to_owned();
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let mut out = format!("{scheme}://");
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let name = user.split_once(':').map_or(user, |(name, _)| name);
            let _ = write!(out, "{name}:{MASK}@{host}");
        }
        None => out.push_str(rest),
    }
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    for (index, pair) in pairs.enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name @ ("pass" | "password" | "sentinel_password"), _)) => {
                let _ = write!(out, "{name}={MASK}");
            }
            _ => out.push_str(pair),
        }
    }
    out
}
