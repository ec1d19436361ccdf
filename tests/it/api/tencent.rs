//! Tencent's endpoint, and the vendor's own signatures.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use super::{is_json, tencent_error};
use crate::support::{
    App, Config, Own, Reply, app, escaped, now_seconds, pack_usersig, tencent_usersig,
};

const PATH: &str = "/v4/openim/get_c2c_unread_msg_num";

async fn filled() -> App {
    let app = app();
    app.must(&json!([
        {"type": "message.sent", "to": "alice", "sender": "bob", "id": "1"},
        {"type": "message.sent", "to": "alice", "sender": "bob", "id": "2"},
        {"type": "message.sent", "to": "alice", "sender": "carol", "id": "1"},
        {"type": "user.updated", "user": "dave"},
    ]))
    .await;
    app
}

async fn ask(app: &App, body: Value) -> Reply {
    App::send(app.tencent(&body)).await
}

/// With that query and a body that is right.
async fn with_query(app: &App, query: &[(&str, &str)]) -> Reply {
    let query: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    let request = app.request(Method::POST, &format!("{PATH}?{}", query.join("&")));
    App::send(request.body(r#"{"To_Account":"alice"}"#)).await
}

#[tokio::test]
async fn both_modes_answer_right_in_every_field() {
    let app = filled().await;
    let total =
        json!({"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "AllC2CUnreadMsgNum": 3});
    for body in [
        json!({"To_Account": "alice"}),
        json!({"To_Account": "alice", "Peer_Account": null}),
        json!({"To_Account": "alice", "Peer_Account": []}),
        json!({"To_Account": "alice", "More": {"a": []}}),
    ] {
        let reply = ask(&app, body.clone()).await;
        is_json(&reply);
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert_eq!(reply.ok(), total, "{body}");
    }
    // The type of the body does not matter.
    for content_type in [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "nonsense",
    ] {
        let request = app
            .tencent(&json!({"To_Account": "alice"}))
            .header("content-type", content_type);
        assert_eq!(App::send(request).await.ok(), total, "{content_type}");
    }

    let count = |peer: &str, count: u64| json!({"Peer_Account": peer, "C2CUnreadMsgNum": count});
    let unknown = |peer: &str| json!({"Peer_Account": peer, "ErrorCode": 70107});
    let long = "x".repeat(256);
    for (peers, counts, errors) in [
        (
            json!(["carol", "bob"]),
            json!([count("carol", 1), count("bob", 2)]),
            json!(null),
        ),
        // Distinct peers once, in the order of the question; without a conversation and oneself: 0.
        (
            json!(["dave", "bob", "ghost", "bob", "alice", "ghost", "Bob"]),
            json!([count("dave", 0), count("bob", 2), count("alice", 0)]),
            json!([unknown("ghost"), unknown("Bob")]),
        ),
        (json!(["alice"]), json!([count("alice", 0)]), json!(null)),
        // What can't be an id is nobody's.
        (
            json!(["", "a\nb", long, "bob"]),
            json!([count("bob", 2)]),
            json!([unknown(""), unknown("a\nb"), unknown(&long)]),
        ),
        (
            json!((0..10).map(|n| format!("ghost{n}")).collect::<Vec<_>>()),
            json!(null),
            json!(
                (0..10)
                    .map(|n| unknown(&format!("ghost{n}")))
                    .collect::<Vec<_>>()
            ),
        ),
    ] {
        let mut reply = ask(&app, json!({"To_Account": "alice", "Peer_Account": peers}))
            .await
            .ok();
        let mut take = |name: &str| {
            reply
                .as_object_mut()
                .unwrap()
                .remove(name)
                .unwrap_or(Value::Null)
        };
        let (found, failed) = (take("C2CUnreadMsgNumList"), take("ErrorList"));
        // Left out or empty: the vendor's documents show neither.
        assert_eq!(
            if found == json!([]) {
                Value::Null
            } else {
                found
            },
            counts,
            "{peers}"
        );
        assert_eq!(failed, errors, "{peers}");
        assert_eq!(
            reply,
            json!({"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0}),
            "{peers}"
        );
    }
}

#[tokio::test]
async fn bad_bodies_are_refused() {
    let app = filled().await;
    let post = |body: Vec<u8>| App::send(app.tencent(&json!({})).body(body));
    for body in [
        "",
        " ",
        "nope",
        "null",
        "[]",
        "17",
        "\"alice\"",
        r#"{"To_Account":"alice""#,
        r#"[["alice"]]"#,
        "{} {}",
    ] {
        tencent_error(&post(body.into()).await, 90001);
    }
    tencent_error(&post(b"{\"To_Account\":\"\xff\"}".to_vec()).await, 90001);
    tencent_error(
        &post(
            json!({"To_Account": "alice", "x": "x".repeat(70_000)})
                .to_string()
                .into(),
        )
        .await,
        93000,
    );
    let encoded = app
        .tencent(&json!({"To_Account": "alice"}))
        .header("content-encoding", "gzip");
    tencent_error(&App::send(encoded).await, 60002);
    for (body, code) in [
        (json!({}), 90003),
        (json!({"To_Account": null}), 90003),
        (json!({"To_Account": ""}), 90003),
        (json!({"To_Account": "a\nb"}), 90003),
        (json!({"To_Account": "x".repeat(256)}), 90003),
        (json!({"To_Account": "ghost"}), 90003),
        (
            json!({"To_Account": "ghost", "Peer_Account": ["bob"]}),
            90003,
        ),
        (
            json!({"To_Account": "ghost", "Peer_Account": ["ghost"]}),
            90003,
        ),
        (json!({"to_account": "alice"}), 90003),
        (json!({"To_Account": 17}), 60015),
        (json!({"To_Account": ["alice"]}), 60015),
        (json!({"To_Account": {}}), 60015),
        (json!({"To_Account": "alice", "Peer_Account": "bob"}), 60015),
        (json!({"To_Account": "alice", "Peer_Account": {}}), 60015),
        (json!({"To_Account": "alice", "Peer_Account": 1}), 60015),
        (
            json!({"To_Account": "alice", "Peer_Account": ["bob", 17]}),
            60015,
        ),
        (
            json!({"To_Account": "alice", "Peer_Account": [null]}),
            60015,
        ),
        (
            json!({"To_Account": "alice", "Peer_Account": [["bob"]]}),
            60015,
        ),
        (
            json!({"To_Account": "alice", "Peer_Account": vec!["bob"; 11]}),
            90018,
        ),
        (
            json!({"To_Account": "alice", "Peer_Account": (0..11).map(|n| n.to_string()).collect::<Vec<_>>()}),
            90018,
        ),
    ] {
        tencent_error(&ask(&app, body).await, code);
    }
    let ten = ask(
        &app,
        json!({"To_Account": "alice", "Peer_Account": vec!["bob"; 10]}),
    )
    .await
    .ok();
    assert_eq!(
        ten["C2CUnreadMsgNumList"],
        json!([{"Peer_Account": "bob", "C2CUnreadMsgNum": 2}])
    );
}

#[tokio::test]
async fn credentials_of_every_wrong_kind_are_refused() {
    let (app, other) = (filled().await, app());
    let id = app.keys.sdkappid.to_string();
    let admin = app.keys.admin.as_str();
    let sign = |app: &App, identifier: &str, time: u64, expire: u64| {
        tencent_usersig(
            app.keys.sdkappid,
            &app.keys.secret_key,
            identifier,
            time,
            expire,
        )
    };
    let now = now_seconds();
    let good = sign(&app, admin, now, 3600);
    let right = [
        ("sdkappid", id.as_str()),
        ("identifier", admin),
        ("usersig", good.as_str()),
    ];
    let ok = with_query(&app, &right).await.ok();
    assert_eq!(ok["AllC2CUnreadMsgNum"], 3);
    // What nobody checks may be anything, and the order does not matter.
    let [a, b, c] = right;
    with_query(
        &app,
        &[
            ("random", "x"),
            c,
            b,
            ("contenttype", "xml"),
            a,
            ("random", ""),
        ],
    )
    .await
    .ok();

    let expired = sign(&app, admin, now - 3600, 1800);
    let forged = tencent_usersig(app.keys.sdkappid, "another key", admin, now, 3600);
    let others = sign(&other, admin, now, 3600);
    let somebody = sign(&app, "bob", now, 3600);
    let unknown = sign(&other, &other.keys.admin, now, 3600);
    let other_id = other.keys.sdkappid.to_string();
    let huge = "x".repeat(4_000);
    for (query, code) in [
        (&[][..], 60012),
        (&[b, c], 60012),
        (&[("sdkappid", ""), b, c], 60012),
        (&[("SdkAppid", &id), b, c], 60012),
        (&[("sdkappid", "x"), b, c], 60006),
        (&[("sdkappid", "-1"), b, c], 60006),
        (&[("sdkappid", "+1"), b, c], 60006),
        (&[("sdkappid", "1.5"), b, c], 60006),
        (&[("sdkappid", "99999999999999999999999"), b, c], 60006),
        (&[("sdkappid", "17"), b, c], 70020),
        (&[a, c], 60004),
        (&[a, ("identifier", ""), c], 60004),
        (&[a, ("Identifier", admin), c], 60004),
        (&[a, b], 60004),
        (&[a, b, ("UserSig", &good)], 60004),
        (&[a, b, ("usersig", "")], 70002),
        (&[a, b, ("usersig", "nope")], 70003),
        (&[a, b, ("usersig", "eJw1")], 70003),
        (&[a, b, ("usersig", &good[1..])], 70003),
        (&[a, b, ("usersig", &huge)], 70003),
        (&[a, b, ("usersig", &forged)], 70009),
        (&[a, b, ("usersig", &expired)], 70001),
        (&[a, ("identifier", "bob"), c], 70013),
        (&[a, b, ("usersig", &somebody)], 70013),
        (&[a, b, ("usersig", &others)], 70014),
        (&[("sdkappid", &other_id), b, c], 70014),
        (
            &[a, ("identifier", &other.keys.admin), ("usersig", &unknown)],
            70014,
        ),
        (&[a, ("identifier", "bob"), ("usersig", &somebody)], 60010),
    ] {
        let reply = with_query(&app, query).await;
        tencent_error(&reply, code);
    }
}

#[tokio::test]
async fn wrong_methods_and_unknown_paths_are_refused() {
    let app = filled().await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        tencent_error(&App::send(app.request(method, PATH)).await, 60002);
    }
    for path in [
        "/v4",
        "/v4/",
        "/v4/openim",
        "/v4/openim/sendmsg",
        "/v4/openim/get_c2c_unread_msg_num/x",
        "/v4/OpenIM/get_c2c_unread_msg_num",
        "/v4/group_open_http_svc/get_group_list",
    ] {
        for method in [Method::GET, Method::POST] {
            tencent_error(&App::send(app.request(method, path)).await, 60009);
        }
    }
}

/// Made by the vendor's packages (T6 in `docs/vendors.md`): identifier and signature. All of them expired in 2023.
const VECTORS: [(&str, &str); 5] = [
    (
        "administrator",
        "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDCDAECqXWlGQWZQKlLEwA0pBBUsyc0FChuZQxTDx4sx0kCXp6d7ZqW6JwY65Tl6JoeGG5SV5UU7GxS4uocW*FdkVvgHl3uFJlaEVQX6etkq1AFbvNk0_",
    ),
    (
        "administrator",
        "eJw1ytEKwiAYBeB3*a9jaI0KoYvGCGotojUG3Rma-IgmKs2I3j3Y1rk73zkfuB6b7CU9MJhnBGZDRyFtxAcOzIVBiyF6Hp9*OgShuXMogNGcjKHjEtFIYHQ1KRlVJodeAlsv8z8FVMBAqUrLHW*2pjjwtqN9tLdiEcqyDXXSqT73VXd-t*ly2m-g*wPF7DTt",
    ),
    (
        "administrator",
        "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDCDAECqXWlGQWZQKlLEwA0pBBUsyc0FChuZQxTDx0uLUoqTSNJBFkeFeWXDzM9NBQs6pFUnumWbJHmYWwZ6Fnn4ejoZm5RZOYR4lfs5uhe4pXkH6voGW2WbFTtm2SrUAL0k7NQ__",
    ),
    (
        "user_测试",
        "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkSotTi*JjSs1STJJiSi2SUkxhyopTshMLCjJTgIoMTQwgwBAql1pRkFmUCpQxMzCxMDCAipZk5oLEDM2hqmHixZnpIJuKk9J93JOjnPOq-Mo9ogojcwOMcw3cnYudDSpSvdKqkguM0kICfIwSC0sdbZVqARumNus_",
    ),
    (
        "user_测试",
        "eJyrVgrxCdYrSy1SslIy0jNQ0gHzM1NS80oy0zLBwqXFqUXxz7Z2v1g-FSpdnJKdWFCQmaJkZWhiAAGGEJmSzNxUJStDc6ioAUQ0taIgsyhVycrMwMQCJlacma5kpVSclO7jnhzlnFflV*4RVRiZG2Cca*DuXOxsUJHqlVaVXGCUFhLgY5RYWOpoq1QLAFR3Ndg_",
    ),
];

fn unpacked(usersig: &str) -> Value {
    let standard = usersig
        .replace('*', "+")
        .replace('-', "/")
        .replace('_', "=");
    let bytes = STANDARD.decode(standard).unwrap();
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(bytes.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn the_vendors_own_signatures_are_right_but_expired() {
    let mut config = Config::apps(1);
    config.apps[0].sdkappid = 1_400_000_001;
    config.apps[0].secret_key = "unread-test-key-0001-not-a-real-secret".to_owned();
    let (app, _pod, _redis) = Own::with(config).parts();
    for (identifier, usersig) in VECTORS {
        let query = |usersig: &str| {
            // Not escaped: its alphabet needs none.
            let query = format!(
                "sdkappid=1400000001&identifier={}&usersig={usersig}",
                escaped(identifier)
            );
            let request = app.request(Method::POST, &format!("{PATH}?{query}"));
            App::send(request.body(r#"{"To_Account":"alice"}"#))
        };
        // Expiry is looked at after the MAC, so this answer says that the MAC was right.
        tencent_error(&query(usersig).await, 70001);
        let document = unpacked(usersig);
        tencent_error(&query(&pack_usersig(&document)).await, 70001);
        for (field, value) in [
            ("TLS.time", json!(now_seconds())),
            ("TLS.expire", json!(3_000_000_000_u64)),
            ("TLS.sig", json!(STANDARD.encode([0; 32]))),
            ("TLS.sig", json!("")),
            ("TLS.userbuf", json!("eHl6")),
        ] {
            let mut tampered = document.clone();
            tampered[field] = value;
            tencent_error(&query(&pack_usersig(&tampered)).await, 70009);
        }
    }
}
