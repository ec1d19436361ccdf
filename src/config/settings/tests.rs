//! Defaults, and the example file.

use crate::config::load::load_from;
use crate::config::{EXAMPLE, Flags, effective, load_text, reference};
use crate::http::sections;

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = load_from(&Flags::default(), [], &[]).unwrap();
    assert_eq!(
        effective(&config),
        r#"[server]
listen = "127.0.0.1:8080"
admin_listen = "127.0.0.1:9090"
workers = 0
max_events = 10000
max_events_bytes = 8388608
max_body_bytes = 65536
max_bodies_bytes = 33554432
body_timeout_ms = 10000
max_connections = 12000
max_connections_per_address = 0
max_head_bytes = 32768
head_timeout_ms = 15000
write_timeout_ms = 10000
keep_alive_seconds = 75
max_answers_bytes = 67108864
max_reads = 2048
max_writes = 64
drain_seconds = 5
grace_seconds = 20
trusted_proxies = []
client_address_header = "x-forwarded-for"
refused_credentials = { per_second = 20, burst = 200 }

[redis]
# no url: a private redis-server in data_dir
data_dir = "./data"
connections = 4
connect_timeout_ms = 1000
response_timeout_ms = 1000
durability = "none"
durability_replicas = 1
durability_timeout_ms = 1000

[history]
max_messages = 1000
max_age_days = 7
text_characters = 1000
key_hours = 24

[live]
max_streams = 10000
max_streams_per_app = 10000
max_streams_per_user = 100
max_users = 5000
window_ms = 50
beat_ms = 20000
max_seconds = 1800
token_cookie = ""

[log]
format = "text"
level = "info"
"#
    );
}

#[test]
fn the_commented_defaults_of_the_example_are_the_defaults() {
    let example = EXAMPLE;
    // A default that is commented out is `# name = value`; neither the address of a Redis, the
    // files of its certificates, nor the token of the admin address have one.
    let uncommented: Vec<&str> = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.starts_with("url ") || setting.starts_with("admin_token ") => {
                ""
            }
            Some(setting)
                if ["ca_", "cert_", "key_"]
                    .iter()
                    .any(|s| setting.starts_with(s)) =>
            {
                ""
            }
            Some(setting) if setting.split(' ').nth(1) == Some("=") => setting,
            _ => line,
        })
        .collect();
    let uncommented = uncommented.join("\n");
    assert!(uncommented.contains("\nmax_events = 10_000 "));
    let defaults = load_text(example, &Flags::default(), &sections()).unwrap();
    let spelt_out = load_text(&uncommented, &Flags::default(), &sections()).unwrap();
    assert_eq!(effective(&spelt_out), effective(&defaults));
}

#[test]
fn the_example_names_exactly_the_settings_that_there_are() {
    let rows = reference(&sections());
    assert!(
        rows.iter()
            .all(|(_, row)| !row.help.is_empty() && !row.form.is_empty())
    );
    let mut known: Vec<String> = rows.into_iter().map(|(path, _)| path).collect();
    // `name = value`, commented out or not.
    let (mut section, mut named) = (String::new(), Vec::new());
    for line in EXAMPLE.lines() {
        if let Some(head) = line.strip_prefix('[') {
            section = head
                .trim_start_matches('[')
                .split(']')
                .next()
                .unwrap()
                .to_owned();
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, value)) = line.split_once(" = ") else {
            continue;
        };
        if section.is_empty() || key.contains(' ') {
            continue;
        }
        let value = value.split(" # ").next().unwrap();
        match value.trim().strip_prefix("{ ") {
            None => named.push(format!("{section}.{key}")),
            Some(parts) => named.extend(parts.split(", ").map(|part| {
                let part = part.split(" = ").next().unwrap();
                format!("{section}.{key}.{part}")
            })),
        }
    }
    known.sort();
    named.sort();
    assert_eq!(named, known);
}
