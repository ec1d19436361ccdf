//! Lines for a shell: quoting, and how `redis-cli` reaches the Redis that is configured. No line holds a password.

use percent_encoding::percent_decode_str;

use crate::config::Secret;

/// A word as a shell takes it, whatever is in it.
pub(super) fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./:@%+=,-".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `redis-cli` with what it needs to get to one Redis.
pub(super) struct RedisCli {
    start: String,
    /// Whether a password has to come from `REDISCLI_AUTH`.
    pub(super) password: bool,
}

impl RedisCli {
    /// For the address in the configuration.
    pub(super) fn new(url: &Secret) -> Self {
        let (scheme, rest) = url.0.split_once("://").unwrap_or(("redis", &url.0));
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let mut words = vec!["redis-cli".to_owned()];
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (login, place),
            None => ("", rest),
        };
        let (user, secret) = login.split_once(':').unwrap_or((login, ""));
        let mut password = !secret.is_empty();
        if scheme.ends_with("unix") {
            // The user and password of a socket's address stand behind the question mark.
            password |= url.0.contains("pass=");
            words.push("-s".into());
            words.push(quote(&decoded(rest)));
            return Self {
                start: words.join(" "),
                password,
            };
        }
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        let sentinel = scheme.contains("sentinel");
        let tls = scheme.starts_with("rediss") || scheme.starts_with("valkeys");
        let first = hosts.split(',').next().unwrap_or_default();
        let first = first.rsplit_once('@').map_or(first, |(_, host)| host);
        let default = if sentinel { "26379" } else { "6379" };
        let (host, port) = match first.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.contains(']') => (host, port),
            _ => (first, default),
        };
        let host = host.trim_matches(['[', ']']);
        if sentinel {
            let name = path.split('/').next().unwrap_or_default();
            let ask = |line| {
                let (host, port) = (quote(host), quote(port));
                let name = quote(&decoded(name));
                format!(
                    "\"$(redis-cli -h {host} -p {port} SENTINEL get-master-addr-by-name {name} | sed -n {line}p)\""
                )
            };
            words.extend(["-h".into(), ask("1"), "-p".into(), ask("2")]);
        } else if (host, port) != ("127.0.0.1", "6379") || tls {
            words.extend(["-h".into(), quote(host), "-p".into(), quote(port)]);
        }
        if scheme.contains("cluster") {
            words.push("-c".into());
        }
        if tls {
            words.push("--tls".into());
        }
        if !user.is_empty() {
            words.extend(["--user".into(), quote(&decoded(user))]);
        }
        let database = if sentinel {
            path.split('/').nth(1).unwrap_or_default()
        } else {
            path
        };
        if database.parse::<u32>().is_ok_and(|n| n > 0) {
            words.extend(["-n".into(), database.to_owned()]);
        }
        Self {
            start: words.join(" "),
            password,
        }
    }

    /// A line that runs one command.
    pub(super) fn line(&self, words: &[&str]) -> String {
        let mut line = self.start.clone();
        for word in words {
            line.push(' ');
            line.push_str(&quote(word));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(url: &str) -> String {
        RedisCli::new(&Secret(url.into())).line(&["PING"])
    }

    #[test]
    fn words_are_quoted_for_any_shell() {
        assert_eq!(quote("HGETALL"), "HGETALL");
        assert_eq!(quote("unread:v1:{demo:u:a}:x"), "'unread:v1:{demo:u:a}:x'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("$(rm x)`;&"), "'$(rm x)`;&'");
    }

    #[test]
    fn every_address_becomes_options_and_no_password_is_shown() {
        assert_eq!(start("redis://127.0.0.1:6379"), "redis-cli PING");
        assert_eq!(start("redis://127.0.0.1"), "redis-cli PING");
        assert_eq!(
            start("redis://h:7000/2"),
            "redis-cli -h h -p 7000 -n 2 PING"
        );
        assert_eq!(
            start("rediss://me:s%3Acret@h:7000"),
            "redis-cli -h h -p 7000 --tls --user me PING"
        );
        assert!(RedisCli::new(&Secret("redis://:pw@h".into())).password);
        assert!(!RedisCli::new(&Secret("redis://h".into())).password);
        assert_eq!(start("redis://[::1]:7000"), "redis-cli -h ::1 -p 7000 PING");
        assert_eq!(
            start("redis+unix:///run/a%20b.sock"),
            "redis-cli -s '/run/a b.sock' PING"
        );
        assert_eq!(
            start("redis+cluster://a:1,b:2"),
            "redis-cli -h a -p 1 -c PING"
        );
        assert!(start("redis+sentinel://:pw@a,b/mymaster").contains(
            "redis-cli -h a -p 26379 SENTINEL get-master-addr-by-name mymaster | sed -n 2p"
        ));
        assert!(!start("redis+sentinel://:pw@a,b/mymaster").contains("pw"));
    }
}
