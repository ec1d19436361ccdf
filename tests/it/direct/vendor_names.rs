//! Direct rooms that are called as the vendor's SDKs call them.

use serde_json::{Value, json};

use super::{by_peer, member, sent, the_room, to};
use crate::support::{App, Config, Pod, RedisServer, Wait, assert_no_drift};

/// A pod whose direct rooms are called as the vendor's SDKs call them.
fn called_by_the_vendor() -> (App, Pod, RedisServer) {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let toml = config.toml(&redis.url());
    let section = "[apps.imkit]\n";
    assert_eq!(toml.matches(section).count(), 1, "{toml}");
    let toml = toml.replace(section, &format!("{section}direct_room_ids = \"imkit\"\n"));
    let pod = Pod::start_toml(&toml);
    (App::new(&config.apps[0], &pod.base), pod, redis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_room_may_be_called_as_the_vendor_calls_it() {
    let (app, _pod, redis) = called_by_the_vendor();
    app.must(&to("aaa", "ccc", "1")).await;
    // The MD5 of "aaa_ccc", the room of the documented answer.
    assert_eq!(
        the_room(&app, "ccc").await,
        "2bec603e94a210092439e83ff2d79ac1"
    );
    app.must(&to("ccc", "aaa", "2")).await;
    assert_eq!(
        the_room(&app, "aaa").await,
        "2bec603e94a210092439e83ff2d79ac1"
    );
    // A message that names the room by that id goes to the same room.
    let by_name = json!([
        {"type": "room.updated", "room": "2bec603e94a210092439e83ff2d79ac1", "kind": "direct"},
        sent("2bec603e94a210092439e83ff2d79ac1", "3", "ccc"),
    ]);
    app.must(&by_name).await;
    assert_eq!(by_peer(&app, "aaa", &["ccc"]).await, [Some(2)]);
    assert_no_drift(&redis.url(), "app-0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_whose_room_would_have_the_name_of_other_users_are_refused() {
    let (app, _pod, redis) = called_by_the_vendor();
    app.must(&json!([
        to("ann", "bob", "secret"),
        to("a_b", "c", "secret")
    ]))
    .await;
    let others = [
        to("Ann", "bob", "1"),
        to("bob", "ANN", "2"),
        to("a", "b_c", "3"),
    ];
    for round in 0..3 {
        match round {
            // Nor when one of the two has left, nor when both have.
            1 => {
                app.must(&json!([leaves(&app, "ann").await, leaves(&app, "c").await]))
                    .await
            }
            2 => {
                app.must(&json!([
                    leaves(&app, "bob").await,
                    leaves(&app, "a_b").await
                ]))
                .await
            }
            _ => Vec::new(),
        };
        for event in &others {
            let reply = app.events(event, Wait::Applied).await.ok();
            let code = &reply["results"][0]["error"]["code"];
            assert_eq!(code, "direct_room_full", "round {round}: {event}");
        }
        for user in ["Ann", "ANN", "a", "b_c"] {
            assert_eq!(
                app.unread(user, true).await.status,
                404,
                "round {round}: {user}"
            );
        }
    }
    // The two go on in their room all the same.
    app.must(&json!([to("bob", "ann", "again"), to("c", "a_b", "again")]))
        .await;
    assert_eq!(by_peer(&app, "ann", &["bob"]).await, [Some(1)]);
    assert_eq!(by_peer(&app, "a_b", &["c"]).await, [Some(1)]);
    assert_no_drift(&redis.url(), "app-0");
}

async fn leaves(app: &App, user: &str) -> Value {
    member("left", &the_room(app, user).await, user)
}
