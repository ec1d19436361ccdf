//! The structure of the program: which word may stand in which file of `src/`.
//!
//! Comments and unit tests may say anything.

use std::collections::BTreeMap;
use std::path::Path;

/// The word may stand in these files only. `*` at the end: in all whose path begins like that.
struct Rule {
    word: &'static str,
    /// In any case, and inside of longer words too.
    anywhere: bool,
    places: &'static [&'static str],
    because: &'static str,
}

const fn only(word: &'static str, places: &'static [&'static str], because: &'static str) -> Rule {
    Rule {
        word,
        anywhere: false,
        places,
        because,
    }
}

const fn anywhere(
    word: &'static str,
    places: &'static [&'static str],
    because: &'static str,
) -> Rule {
    Rule {
        anywhere: true,
        ..only(word, places, because)
    }
}

#[rustfmt::skip]
const RULES: &[Rule] = &[
    // HTTP on top.
    only("actix", &["app.rs", "app/*", "http*", "pages*", "telemetry/access.rs", "telemetry/logs.rs"], "only the HTTP side knows the web framework"),
    only("http::edge", &["app.rs", "app/*", "http/state.rs"], "handlers know nothing of connections"),
    only("crate::engine", &["app.rs", "app/*", "audit*", "cli/*", "engine*", "http.rs", "http/imkit*", "http/native*", "http/state.rs", "intake*", "pages/console.rs"],
         "the services are used from above; the edge knows nothing of counts"),
    only("crate::audit", &["app.rs", "audit*", "cli/*", "inspector*"], "nothing that serves apps depends on what looks after the data"),
    only("crate::intake", &["cli/export.rs", "cli/files.rs", "cli/import.rs", "intake*"], "files are one door, HTTP is another"),
    only("crate::counts", &["audit*", "counts*", "engine*", "http/imkit*", "http/native*", "http/sendbird*", "http/tencent*"],
         "words for counts are for those who count, and for the dialects"),
    only("httparse", &["http/edge/head.rs"], "one file reads heads"),
    only("StatusCode", &["http*"], "each dialect picks its own status codes"),
    only("crate::http", &["app.rs", "app/*", "cli*", "http*", "pages*"], "nothing below HTTP knows of it"),
    only("crate::limiter", &["http*"], "limits belong to the endpoints"),
    only("crate::event", &["engine/write*", "http/native*", "intake/*"], "events come in by two doors"),
    only("crate::json", &["event/*", "http/imkit*", "http/native*", "http/tencent*"], "bodies are taken apart where they come in"),
    only("crate::shares", &["engine/admission.rs", "http/body.rs"], "what is bounded is shared out in two places"),
    only("Value::Object", &["http/imkit/*"], "no body is built up in memory"),

    // Redis at the bottom.
    only("deadpool_redis", &["connection/node.rs"], "one file knows how connections are kept"),
    only("redis::", &["audit/*", "connection*", "engine/*", "scripts.rs"], "only the services and what they stand on speak to Redis"),
    only("crate::connection", &["audit*", "engine*"], "only the services have connections"),
    only("crate::scripts", &["audit/*", "connection.rs", "connection/outgoing.rs", "connection/router.rs", "connection/schema.rs", "engine/*"],
         "only the services call scripts, and the link for the version of the data"),
    only("crate::keys", &["audit/*", "cli/*", "connection/failure.rs", "connection/schema.rs", "counts/*", "engine/*", "inspector*", "scripts.rs"],
         "keys are for the services, for the commands that show them, for the place that names a key which can't be read, and for the version"),
    only("unread:v1", &["keys.rs"], "one file spells the keys"),
    only("private_redis", &["app.rs", "cli/connect.rs", "cli/demo.rs", "demo.rs"], "who has a Redis never hears of it"),

    // Each dialect by itself, and the one list of them.
    anywhere("imkit", &["http.rs", "http/imkit*"], "a vendor is named in its folder and in one list"),
    anywhere("tencent", &["http.rs", "http/tencent*"], "a vendor is named in its folder and in one list"),
    anywhere("sendbird", &["http.rs", "http/sendbird*"], "a vendor is named in its folder and in one list"),
    only("\"RC\"", &["http/imkit*"], "an envelope belongs to its dialect"),
    only("totalBadge", &["http/imkit*"], "an envelope belongs to its dialect"),
    only("\"roomTags", &["http/imkit*"], "an envelope belongs to its dialect"),
    only("jsonwebtoken", &["http/jwt.rs"], "one file reads tokens"),
    only("ActionStatus", &["http/tencent*"], "an envelope belongs to its dialect"),
    only("C2CUnread", &["http/tencent*"], "an envelope belongs to its dialect"),
    only("Peer_Account", &["http/tencent*"], "an envelope belongs to its dialect"),
    only("TLS.", &["http/tencent*"], "a dialect's credentials are its own"),
    only("item_keys", &["http/sendbird*"], "an envelope belongs to its dialect"),
    only("super_group_channel", &["http/sendbird*"], "an envelope belongs to its dialect"),
    only("problem+json", &["http/native*"], "an envelope belongs to its dialect"),

    // The process and the world.
    only("env::var", &["config/load.rs"], "no setting is read anywhere else"),
    only("std::fs", &["cli/demo.rs", "cli/files.rs", "config/*", "connection/settings.rs", "demo/private_redis/*"], "counts are in Redis, not in files"),
    only("Command::new", &["demo/private_redis/child.rs"], "one file starts processes"),
    only("process::exit(", &["cli/process.rs"], "the command line ends the process"),
    only("stdout()", &["cli/output.rs"], "the command line prints"),
    only("println!", &[], "what is printed goes through `cli/output.rs`"),
    only("tokio::", &["app.rs", "audit/*", "cli/demo.rs", "cli/process.rs", "cli/serve.rs", "cli/watch.rs", "connection*", "demo/*", "engine*", "http/body.rs", "http/edge/*", "http/native/live/*", "http/request.rs", "intake/*", "pages/console*", "shares.rs"],
         "the rest is pure, or waits for one of these"),
    only("rustix", &["open_files.rs", "huge_pages.rs"], "what the system lets this process have"),
    only("unsafe", &["demo/private_redis/child.rs"], "one place needs it"),
];

/// Files by their path below `src/`.
pub(crate) type Sources = BTreeMap<String, String>;

/// The program, without what may say anything: comments and unit tests.
pub(crate) fn sources() -> Sources {
    fn collect(dir: &Path, root: &Path, found: &mut Sources) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("tests") || path.ends_with("tests.rs") {
                continue;
            }
            if path.is_dir() {
                collect(&path, root, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                let text = std::fs::read_to_string(&path).unwrap();
                found.insert(name.to_owned(), bare(&text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Sources::new();
    collect(&root, &root, &mut found);
    found
}

fn bare(text: &str) -> String {
    let text = text
        .split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    lines.join("\n")
}

/// What the rules look for words in.
fn code(text: &str) -> String {
    ungrouped(&bare(text))
}

fn searchable() -> Sources {
    let mut sources = sources();
    for text in sources.values_mut() {
        *text = ungrouped(text);
    }
    sources
}

/// `use crate::{a, b::C};` also says `crate::a` and `crate::b::C`.
fn ungrouped(text: &str) -> String {
    let mut out = text.to_owned();
    for group in text.split("crate::{").skip(1) {
        let mut depth = 0;
        let mut item = "crate::".to_owned();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    out.push_str(&format!("\n{item}"));
                    item.truncate("crate::".len());
                }
                c if c.is_whitespace() => {}
                c => item.push(c),
            }
        }
        out.push_str(&format!("\n{item}"));
    }
    out
}

impl Rule {
    /// Whether the word stands in the text and, unless `anywhere`, is not merely the end of a longer one.
    fn is_said(&self, text: &str) -> bool {
        if self.anywhere {
            return text.to_lowercase().contains(self.word);
        }
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        text.match_indices(self.word).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            !(before.is_some_and(inside) && self.word.starts_with(inside))
        })
    }

    fn allows(&self, file: &str) -> bool {
        self.places.iter().any(|place| is_at(file, place))
    }

    fn complaint(&self, file: &str) -> String {
        format!("src/{file} says `{}`: {}", self.word, self.because)
    }
}

fn is_at(file: &str, place: &str) -> bool {
    match place.strip_suffix('*') {
        Some(start) => file.starts_with(start),
        None => file == place,
    }
}

/// One line for each rule and file that do not agree.
fn broken(sources: &Sources) -> Vec<String> {
    let mut broken = Vec::new();
    for rule in RULES {
        for (file, text) in sources {
            if rule.is_said(text) && !rule.allows(file) {
                broken.push(rule.complaint(file));
            }
        }
    }
    broken
}

#[test]
fn every_word_stands_where_it_belongs() {
    let broken = broken(&searchable());
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// A place that no longer needs its word is struck off, so that the list stays as short as the truth.
#[test]
fn no_rule_allows_more_than_is_needed() {
    let sources = searchable();
    for rule in RULES {
        for place in rule.places {
            let needed = sources
                .iter()
                .any(|(file, text)| is_at(file, place) && rule.is_said(text));
            assert!(needed, "`{}` no longer stands in src/{place}", rule.word);
        }
    }
}

#[test]
fn every_rule_can_be_broken() {
    let program = searchable();
    for rule in RULES {
        for file in ["names.rs", "limiter.rs", "telemetry/metrics.rs"] {
            let mut sources = program.clone();
            let text = sources.get_mut(file).unwrap();
            text.push_str(&code(&format!("\n    call({});\n", rule.word)));
            assert_eq!(broken(&sources), [rule.complaint(file)]);
        }
    }
}

/// What would hide a word from a plain search, and what only looks like one.
#[test]
fn a_word_is_told_from_its_likes() {
    let said = |word, text: &str| only(word, &[], "").is_said(&code(text));
    let grouped = "use crate::{\n    error::Error,\n    store::{Store, Wait},\n};\n";
    assert!(said("crate::error", grouped) && said("crate::store", grouped));
    assert!(said("redis::", "(redis::cmd)"));
    assert!(!said("redis::", "crate::private_redis::x; Redis::new()"));
    assert!(!said("println!", "eprintln!(1)"));
    assert!(!said("actix", "    // actix\n"));
    assert!(!said(
        "actix",
        "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use actix;\n}\n"
    ));
    assert!(anywhere("imkit", &[], "").is_said("struct ImkitConfig"));
}
