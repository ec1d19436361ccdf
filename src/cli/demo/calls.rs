//! The calls that the demo prints.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::AppConfig;
use crate::http;
use crate::http::dialect::Sample;
use crate::shell::quote;

const TTL_SECONDS: u64 = 86_400;

/// What to paste. All values in the calls are made of characters that need no quoting inside '…'.
pub(super) fn to_paste(
    listen: SocketAddr,
    admin: SocketAddr,
    app: &AppConfig,
    redis: Option<&str>,
) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut out = format!(
        "\n\x20 the demo page                http://{listen}/\n\
         \x20 the console                  http://{admin}/\n\n\
         unread {} is running with sample data; ctrl-c stops it and throws the data away.\n\n\
         \x20 the four endpoints and /v1   http://{listen}\n\
         \x20 /livez /readyz /metrics      http://{admin}\n",
        env!("CARGO_PKG_VERSION")
    );
    let sample = Sample {
        listen,
        now,
        ttl: TTL_SECONDS,
    };
    for dialect in http::dialects() {
        out.push_str(&dialect.samples(app, &sample));
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "unread".into());
    let program = quote(&program.to_string_lossy());
    // Writing to a String can't fail.
    if !app.users.token_secret.is_empty() {
        let _ = write!(
            out,
            "\n# Another user token, as a back end makes them for its users' devices\n\
             {program} token user --app {} --user bob\n",
            app.id
        );
    }
    if let Some(url) = redis {
        let url = quote(url);
        let _ = write!(
            out,
            "\n# What stands in Redis of alice, and how to look at it by redis-cli\n\
             {program} inspect --redis-url {url} --app {} --user alice\n",
            app.id
        );
    }
    if let Some(key) = app.server_keys.first() {
        let _ = write!(
            out,
            "\n# Send alice one more message, then ask again\n\
             curl -sS -X POST 'http://{listen}/v1/events' -H 'Authorization: Bearer {}' \
             -H 'Content-Type: application/json' -d '{{\"type\": \"message.sent\", \"to\": \"alice\", \
             \"sender\": \"bob\", \"id\": \"pasted-'\"$(date +%s)\"'\", \"text\": \"Are you there?\"}}'\n\n",
            key.0
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::reachable;
    use crate::config::Flags;
    use crate::demo;

    #[test]
    fn the_first_line_says_where_the_page_is() {
        let config = demo::config(&Flags::default(), Vec::new(), &http::sections()).unwrap();
        let (listen, admin) = (
            "127.0.0.1:1".parse().unwrap(),
            "127.0.0.1:2".parse().unwrap(),
        );
        let text = to_paste(listen, admin, &config.apps[0], None);
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let words = |line: Option<&str>| {
            line.unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(words(lines.next()), "the demo page http://127.0.0.1:1/");
        assert_eq!(words(lines.next()), "the console http://127.0.0.1:2/");
    }

    #[test]
    fn every_endpoint_gets_a_call_and_an_event_to_paste() {
        let config = demo::config(&Flags::default(), Vec::new(), &http::sections()).unwrap();
        let listen = "0.0.0.0:8080".parse().unwrap();
        let redis = Some("redis+unix:///tmp/a%20b/redis.sock");
        let text = to_paste(reachable(listen), listen, &config.apps[0], redis);
        for path in [
            "http://127.0.0.1:8080/badges/byRoomTags'",
            "http://127.0.0.1:8080/rooms?",
            "http://127.0.0.1:8080/v4/openim/get_c2c_unread_msg_num?",
            "http://127.0.0.1:8080/v3/users/alice/unread_item_count'",
            "http://127.0.0.1:8080/v1/live?users=alice,bob'",
            "http://127.0.0.1:8080/v1/me/unread'",
            "http://127.0.0.1:8080/v1/events'",
        ] {
            let lines = text.lines().filter(|line| line.contains(path));
            let [line] = lines.collect::<Vec<_>>()[..] else {
                panic!("{path} is not on one line of\n{text}");
            };
            let curl = match path.contains("/v1/live?") {
                true => "curl -sSN ",
                false => "curl -sS ",
            };
            assert!(line.starts_with(curl), "{line}");
        }
        let token = " token user --app demo --user bob\n";
        assert!(text.contains(token), "{text}");
        let inspect =
            " inspect --redis-url redis+unix:///tmp/a%20b/redis.sock --app demo --user alice\n";
        assert!(text.contains(inspect), "{text}");
    }
}
