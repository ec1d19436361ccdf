//! Settings that the documents name: those of the example file, which the program reads.

use std::collections::BTreeSet;

use super::markdown::Document;

pub(super) struct Known {
    /// Such as `server.listen` and `apps.imkit.user_share`.
    paths: BTreeSet<String>,
}

impl Known {
    /// Those of the example file. That they are exactly those of the program is for a test beside the table of settings.
    pub(super) fn read() -> Self {
        let example = include_str!("../../../unread.example.toml");
        let paths: BTreeSet<_> = keys(example, true)
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        assert!(paths.len() > 40, "{paths:?}");
        Self { paths }
    }

    fn has(&self, path: &str) -> bool {
        // Every secret can be read from a file.
        let secret = path.strip_suffix("_file");
        self.paths.contains(path) || secret.is_some_and(|path| self.paths.contains(path))
    }

    /// Whether a section has that setting, whichever section it is.
    fn has_name(&self, name: &str) -> bool {
        let ends = |name: &str| {
            self.paths
                .iter()
                .any(|p| p.rsplit('.').next() == Some(name))
        };
        ends(name) || name.strip_suffix("_file").is_some_and(ends)
    }

    fn is_section(&self, path: &str) -> bool {
        let start = format!("{path}.");
        self.paths.iter().any(|known| known.starts_with(&start))
    }
}

/// The settings of a TOML file, with their paths; also those in comments, as in `# listen = …`.
fn keys(toml: &str, commented: bool) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in toml.lines() {
        if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_start_matches('[');
            section = name.split(']').next().unwrap_or_default().to_owned();
            continue;
        }
        let line = match line.strip_prefix("# ") {
            Some(line) if commented => line,
            _ => line,
        };
        let Some((name, value)) = line.split_once(" = ") else {
            continue;
        };
        if !is_word(name) {
            continue;
        }
        found.push((join(&section, name), name.to_owned()));
        // { per_second = 20, burst = 200 }
        if let Some(inner) = value.strip_prefix("{ ") {
            let inner = inner.split('}').next().unwrap_or_default();
            for (inner, _) in inner.split(',').filter_map(|part| part.split_once(" = ")) {
                let path = join(&join(&section, name), inner.trim());
                found.push((path, inner.trim().to_owned()));
            }
        }
    }
    found
}

fn join(section: &str, name: &str) -> String {
    match section {
        "" => name.to_owned(),
        section => format!("{section}.{name}"),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// What a document names as a setting and is none.
pub(super) fn unknown(document: &Document, known: &Known) -> Vec<(usize, String)> {
    let mut unknown = Vec::new();
    for (line, span) in &document.spans {
        for word in words(span) {
            if !is_known(word, known) {
                unknown.push((*line, word.to_owned()));
            }
        }
    }
    for block in &document.blocks {
        let words = block.text.split([' ', '\n']);
        let variables = words.filter(|word| word.starts_with("UNREAD_"));
        let mut named: Vec<String> = variables
            .filter_map(|word| word.split_once('='))
            .filter(|(name, _)| !is_known(name, known))
            .map(|(name, _)| name.to_owned())
            .collect();
        if block.language == "toml" {
            let keys = keys(&block.text, false).into_iter();
            named.extend(keys.map(|(path, _)| path).filter(|path| !known.has(path)));
        }
        unknown.extend(named.into_iter().map(|name| (block.line, name)));
    }
    unknown
}

/// The words of a code span that could be settings: `redis.durability = "wait"` names one, `connect_timeout_ms +
/// response_timeout_ms` two.
fn words(span: &str) -> impl Iterator<Item = &str> {
    let part = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    span.split(part).filter(|word| !word.is_empty())
}

fn is_known(word: &str, known: &Known) -> bool {
    /// What only settings end with, or begin with.
    const ENDS: [&str; 8] = [
        "_ms",
        "_seconds",
        "_bytes",
        "_file",
        "_hours",
        "_days",
        "_characters",
        "_share",
    ];
    /// What ends like one and is in a message.
    const FIELDS: [&str; 1] = ["retry_ms"];
    const SECTIONS: [&str; 6] = ["server", "redis", "history", "live", "log", "apps"];
    if let Some(variable) = word.strip_prefix("UNREAD_") {
        let path = variable.to_ascii_lowercase().replace("__", ".");
        let path: Vec<&str> = path.split('.').filter(|part| *part != "0").collect();
        let path = path.join(".");
        return path.is_empty() || path == "config" || known.has(&path) || !variable.contains("__");
    }
    if let Some((section, _)) = word.split_once('.')
        && SECTIONS.contains(&section)
    {
        // What ends with a dot is the end of a sentence, or the name of a file.
        let is_file = [".toml", ".rs", ".js"]
            .iter()
            .any(|end| word.ends_with(end));
        return is_file || known.has(word) || known.is_section(word);
    }
    // Of metrics it is a unit.
    let is_setting = is_word(word)
        && !word.starts_with("unread_")
        && !FIELDS.contains(&word)
        && (word.starts_with("max_") || ENDS.iter().any(|end| word.ends_with(end)));
    !is_setting || known.has_name(word)
}

#[test]
fn what_is_no_setting_is_found() {
    let known = Known::read();
    let document = Document::parse(
        "`server.max_events`, `max_evnts`, `redis.durabilty = \"wait\"`, `keys_file`, `url_file`, `UNREAD_REDIS__URI`\n\
         `apps.imkit`, `unread_fanout_oldest_seconds`, `UNREAD_CONFIG`, `connect_timeout_ms + response_timeout_s_ms`\n\
         ```toml\n[server]\nlisten = 1\nlissen = 2\n```\n",
    );
    let found = unknown(&document, &known);
    let found: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(
        found,
        [
            "max_evnts",
            "redis.durabilty",
            "keys_file",
            "UNREAD_REDIS__URI",
            "response_timeout_s_ms",
            "server.lissen"
        ]
    );
}
