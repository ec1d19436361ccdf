//! The calls that the demo prints.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::shell::quote;
use crate::config::AppConfig;
use crate::http;
use crate::names::UserId;

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
        "\nunread {} is running with sample data; ctrl-c stops it and throws the data away.\n\n\
         \x20 the four endpoints and /v1   http://{listen}\n\
         \x20 /livez /readyz /metrics      http://{admin}\n",
        env!("CARGO_PKG_VERSION")
    );
    // Writing to a String can't fail.
    if let Some(imkit) = &app.imkit {
        let secret = &imkit.jwt_secret.0;
        let token = UserId::parse("alice")
            .ok()
            .and_then(|alice| http::imkit::make_token(secret, &alice, now, TTL_SECONDS))
            .unwrap_or_default();
        let key = imkit.client_keys.first().map_or("", |key| key.0.as_str());
        let _ = write!(
            out,
            "\n# IMKIT: unread messages of alice by room tag\n\
             curl -sS -X POST 'http://{listen}/badges/byRoomTags' -H 'IM-CLIENT-KEY: {key}' \
             -H 'IM-Authorization: {token}' -H 'Content-Type: application/json' -d '{{\"tags\": [\"work\", \"home\"]}}'\n\
             \n# IMKIT: the rooms of alice, those with unread messages first\n\
             curl -sS 'http://{listen}/rooms?limit=20&sortUnreadFirst=1' -H 'IM-CLIENT-KEY: {key}' \
             -H 'IM-CLIENT-ID: alice' -H 'IM-Authorization: {token}'\n"
        );
    }
    if let Some(tencent) = &app.tencent {
        let admin = tencent.admins.first().map_or("", String::as_str);
        let (id, key) = (tencent.sdkappid, &tencent.secret_key.0);
        let sig = http::tencent::make_usersig(id, key, admin, now, TTL_SECONDS).unwrap_or_default();
        let _ = write!(
            out,
            "\n# Tencent Chat: unread one-to-one messages of alice\n\
             curl -sS -X POST 'http://{listen}/v4/openim/get_c2c_unread_msg_num?sdkappid={id}&identifier={admin}\
             &usersig={sig}&random=99999999&contenttype=json' -d '{{\"To_Account\": \"alice\"}}'\n"
        );
    }
    if let Some(sendbird) = &app.sendbird {
        let token = sendbird
            .api_tokens
            .first()
            .unwrap_or(&sendbird.master_token);
        let _ = write!(
            out,
            "\n# Sendbird: all unread items of alice\n\
             curl -sS 'http://{listen}/v3/users/alice/unread_item_count' -H 'Api-Token: {}'\n",
            token.0
        );
    }
    if let Some(url) = redis {
        let program = std::env::current_exe().unwrap_or_else(|_| "unread".into());
        let (program, url) = (quote(&program.to_string_lossy()), quote(url));
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
    fn every_endpoint_gets_a_call_and_an_event_to_paste() {
        let config = demo::config(&Flags::default()).unwrap();
        let listen = "0.0.0.0:8080".parse().unwrap();
        let redis = Some("redis+unix:///tmp/a%20b/redis.sock");
        let text = to_paste(reachable(listen), listen, &config.apps[0], redis);
        for path in [
            "http://127.0.0.1:8080/badges/byRoomTags'",
            "http://127.0.0.1:8080/rooms?",
            "http://127.0.0.1:8080/v4/openim/get_c2c_unread_msg_num?",
            "http://127.0.0.1:8080/v3/users/alice/unread_item_count'",
            "http://127.0.0.1:8080/v1/events'",
        ] {
            let lines = text.lines().filter(|line| line.contains(path));
            let [line] = lines.collect::<Vec<_>>()[..] else {
                panic!("{path} is not on one line of\n{text}");
            };
            assert!(line.starts_with("curl -sS "), "{line}");
        }
        let inspect =
            " inspect --redis-url redis+unix:///tmp/a%20b/redis.sock --app demo --user alice\n";
        assert!(text.contains(inspect), "{text}");
    }
}
