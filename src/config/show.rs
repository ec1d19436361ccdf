//! Prints a configuration as the TOML that would give it, with every secret masked.

use std::fmt::Write as _;

use crate::names::DirectRoomIds;

use super::{Config, Durability, LogFormat, RefusedCredentials, Scope, Secret};

const MASK: &str = "****";

/// The configuration as TOML, defaults filled in and secrets shown as `****`.
pub fn effective(config: &Config) -> String {
    let mut out = Out(String::new());
    let server = &config.server;
    out.head("[server]");
    out.text("listen", &server.listen);
    out.text("admin_listen", &server.admin_listen);
    out.plain("workers", server.workers);
    out.plain("max_events", server.max_events);
    out.plain("max_events_bytes", server.max_events_bytes);
    out.plain("max_body_bytes", server.max_body_bytes);
    out.plain("max_bodies_bytes", server.max_bodies_bytes);
    out.plain("body_timeout_ms", server.body_timeout_ms);
    out.plain("max_connections", server.max_connections);
    out.plain(
        "max_connections_per_address",
        server.max_connections_per_address,
    );
    out.plain("max_head_bytes", server.max_head_bytes);
    out.plain("head_timeout_ms", server.head_timeout_ms);
    out.plain("write_timeout_ms", server.write_timeout_ms);
    out.plain("keep_alive_seconds", server.keep_alive_seconds);
    out.plain("max_answers_bytes", server.max_answers_bytes);
    out.plain("max_reads", server.max_reads);
    out.plain("max_writes", server.max_writes);
    out.plain("drain_seconds", server.drain_seconds);
    out.plain("grace_seconds", server.grace_seconds);
    let networks: Vec<String> = server
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    out.list("trusted_proxies", networks.iter().map(String::as_str));
    out.text("client_address_header", &server.client_address_header);
    let RefusedCredentials { per_second, burst } = server.refused_credentials;
    out.line(&format!(
        "refused_credentials = {{ per_second = {per_second}, burst = {burst} }}"
    ));

    let redis = &config.redis;
    out.head("[redis]");
    match &redis.url {
        Some(url) => out.text("url", &masked(&url.0)),
        None => out.line("# no url: a private redis-server in data_dir"),
    }
    for (key, file) in [
        ("ca_file", &redis.ca_file),
        ("cert_file", &redis.cert_file),
        ("key_file", &redis.key_file),
    ] {
        if let Some(file) = file {
            out.text(key, &file.to_string_lossy());
        }
    }
    out.text("data_dir", &redis.data_dir.to_string_lossy());
    out.plain("connections", redis.connections);
    out.plain("connect_timeout_ms", redis.connect_timeout_ms);
    out.plain("response_timeout_ms", redis.response_timeout_ms);
    let durability = match redis.durability {
        Durability::None => "none",
        Durability::Wait => "wait",
    };
    out.text("durability", durability);
    out.plain("durability_replicas", redis.durability_replicas);
    out.plain("durability_timeout_ms", redis.durability_timeout_ms);

    out.head("[history]");
    out.plain("max_messages", config.history.max_messages);
    out.plain("max_age_days", config.history.max_age_days);
    out.plain("text_characters", config.history.text_characters);
    out.plain("key_hours", config.history.key_hours);

    out.head("[log]");
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    out.text("format", format);
    out.text("level", &config.log.level);

    for app in &config.apps {
        out.head("[[apps]]");
        out.text("id", app.id.as_str());
        out.secrets("server_keys", &app.server_keys);
        let limit = &app.rate_limit;
        let scope = match limit.scope {
            Scope::Pod => "pod",
            Scope::Cluster => "cluster",
        };
        let (per_second, burst) = (limit.per_second, limit.burst);
        out.line(&format!(
            "rate_limit = {{ per_second = {per_second}, burst = {burst}, scope = \"{scope}\" }}"
        ));
        out.head("[apps.users]");
        let origins = app.users.allowed_origins.iter();
        out.list("allowed_origins", origins.map(String::as_str));
        if let Some(imkit) = &app.imkit {
            out.head("[apps.imkit]");
            out.secrets("client_keys", &imkit.client_keys);
            out.text("jwt_secret", MASK);
            out.plain("user_share", toml::Value::Float(imkit.user_share));
            let ids = match imkit.direct_room_ids {
                DirectRoomIds::Own => "own",
                DirectRoomIds::LoweredMd5 => "imkit",
            };
            out.text("direct_room_ids", ids);
        }
        if let Some(tencent) = &app.tencent {
            out.head("[apps.tencent]");
            out.plain("sdkappid", tencent.sdkappid);
            out.text("secret_key", MASK);
            out.list("admins", tencent.admins.iter().map(String::as_str));
        }
        if let Some(sendbird) = &app.sendbird {
            out.head("[apps.sendbird]");
            out.text("application_id", &sendbird.application_id);
            out.text("master_token", MASK);
            out.secrets("api_tokens", &sendbird.api_tokens);
        }
    }
    out.0
}

struct Out(String);

impl Out {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn head(&mut self, head: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(head);
    }

    fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn text(&mut self, key: &str, text: &str) {
        self.plain(key, toml::Value::from(text));
    }

    fn list<'a>(&mut self, key: &str, texts: impl Iterator<Item = &'a str>) {
        self.plain(key, toml::Value::Array(texts.map(Into::into).collect()));
    }

    fn secrets(&mut self, key: &str, secrets: &[Secret]) {
        self.list(key, secrets.iter().map(|_| MASK));
    }
}

/// The address with its password masked, wherever a Redis address can hold one.
fn masked(url: &str) -> String {
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
