//! The console's calls, and who may make them. The pages themselves are tested in a browser: `make test-web`.

use serde_json::{Value, json};

use crate::support::{App, Config, Pod, RedisServer, escaped, raw, run, unread, until};

const TOKEN: &str = "an-admin-token-5f0c2b7a9e31";

/// A request to the admin address: the status, and the whole answer.
fn call(pod: &Pod, line: &str, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    let answer = raw(&pod.admin, request.as_bytes()).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

const HERE: &str = "Host: 127.0.0.1:9090\r\n";

fn get(pod: &Pod, path: &str) -> (u16, Value) {
    let (status, answer) = call(pod, &format!("GET {path}"), HERE, "");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_room_are_shown_as_inspect_prints_them_and_verified() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let pod = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &pod.base);
    let odd = "<b>{odd}|, &a=b";
    app.must(&json!([
        {"type": "room.updated", "room": "group", "tags": ["work"]},
        {"type": "member.joined", "room": "group", "users": ["alice", "bob"]},
        {"type": "message.sent", "room": "group", "sender": "bob", "id": "1", "mentions": ["alice"]},
        {"type": "room.updated", "room": odd},
        {"type": "member.joined", "room": odd, "users": ["alice", odd]},
    ]))
    .await;

    let inspected = |what: &str, id: &str| {
        let url = redis.url();
        let flag = format!("--{what}");
        let ran = run(unread().args([
            "inspect",
            "--redis-url",
            &url,
            "--app",
            "app-0",
            &flag,
            id,
            "--json",
        ]));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.json()
    };
    for (what, id) in [
        ("user", "alice"),
        ("user", odd),
        ("room", "group"),
        ("room", odd),
    ] {
        let (status, shown) = get(
            &pod,
            &format!("/console/{what}?app=app-0&{what}={}", escaped(id)),
        );
        assert_eq!(status, 200, "{shown}");
        let mut stored = shown["stored"].clone();
        // How many rooms there are, and how many of them were looked for.
        for part in ["rooms", "supergroups"] {
            if let Some(part) = stored.get_mut(part) {
                for count in ["total", "matching"] {
                    assert!(part.as_object_mut().unwrap().remove(count).is_some());
                }
            }
        }
        assert_eq!(stored, inspected(what, id), "{what} {id}");
    }
    let (_, shown) = get(&pod, "/console/user?app=app-0&user=alice&find=GRO");
    assert_eq!(shown["totals"]["messages"]["group"], 1);
    assert_eq!(shown["totals"]["mentions"]["total"], 1);
    assert_eq!(
        shown["stored"]["rooms"]["list"].as_array().unwrap().len(),
        1
    );
    assert_eq!(shown["stored"]["rooms"]["total"], 2);

    for (path, status) in [
        ("/console/user?app=app-0&user=nobody", 404),
        ("/console/user?app=other&user=alice", 404),
        ("/console/user?app=app-0", 400),
        ("/console/room?app=a%20b&room=group", 400),
    ] {
        let (answered, body) = get(&pod, path);
        assert_eq!(answered, status, "{path}: {body}");
        assert!(!body["detail"].as_str().unwrap().is_empty());
    }

    let media = format!("{HERE}Content-Type: application/json\r\n");
    let asked = json!({"app": "app-0", "user": "alice"}).to_string();
    let verify = || {
        let (status, answer) = call(&pod, "POST /console/verify", &media, &asked);
        assert_eq!(status, 200, "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<Value>(body).unwrap()
    };
    let checked = verify();
    assert_eq!(
        (&checked["clean"], &checked["rooms_asked"]),
        (&json!(true), &json!(2))
    );
    redis.cli(&[
        "HINCRBY",
        "unread:v1:{app-0:u:alice}:counts",
        "messages:group",
        "5",
    ]);
    let checked = verify();
    assert_eq!(checked["clean"], false);
    let row = &checked["drift"][0];
    assert_eq!(
        (&row["stored"], &row["expected"]),
        (&json!("6"), &json!("1"))
    );
    // A browser sends a page's form to another origin without asking first.
    for media in ["", "Content-Type: text/plain\r\n"] {
        let headers = format!("{HERE}{media}");
        assert_eq!(call(&pod, "POST /console/verify", &headers, &asked).0, 415);
    }
    for body in ["", "{}", "[]", "{\"app\": \"app-0\", \"user\": 1}", "x"] {
        assert_eq!(
            call(&pod, "POST /console/verify", &media, body).0,
            400,
            "{body}"
        );
    }
    assert_eq!(call(&pod, "GET /console/verify", HERE, "").0, 405);
    assert_eq!(call(&pod, "POST /console/overview", HERE, "").0, 405);
    // The page is the admin port's.
    assert_eq!(
        App::send(app.request(reqwest::Method::GET, "/"))
            .await
            .status,
        404
    );
    assert_eq!(
        App::send(app.request(reqwest::Method::GET, "/demo/session"))
            .await
            .status,
        404
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overview_has_the_numbers_of_the_last_minutes() {
    let redis = RedisServer::start();
    let config = Config::apps(2);
    let pod = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &pod.base);
    app.must(&json!([
        {"type": "room.updated", "room": "group"},
        {"type": "member.joined", "room": "group", "users": ["alice"]},
    ]))
    .await;
    app.unread("alice", false).await.ok();
    let last =
        |shown: &Value, name: &str| shown["samples"][name].as_array().unwrap().last().cloned();
    let shown = until("a sample with the events", || {
        let (status, shown) = get(&pod, "/console/overview");
        assert_eq!(status, 200);
        (last(&shown, "events") == Some(json!(2))).then_some(shown)
    });
    assert_eq!(last(&shown, "reads"), Some(json!(1)));
    assert_eq!(last(&shown, "redis_up"), Some(json!(1)));
    assert_eq!(shown["apps"], json!(["app-0", "app-1"]));
    assert_eq!(
        shown["pod"],
        json!({"ready": true, "server": "serving", "redis": "up", "schema": "current", "reason": ""})
    );
    let at = shown["samples"]["at"].as_array().unwrap();
    let since = at.last().unwrap();
    let (_, newer) = get(&pod, &format!("/console/overview?since={since}"));
    let newer = newer["samples"]["at"].as_array().unwrap();
    assert!(newer.len() < at.len() && newer.iter().all(|one| one.as_u64() > since.as_u64()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_all_but_health_and_the_description_want_it() {
    let redis = RedisServer::start();
    let mut config = Config::apps(1);
    config.server += &format!("admin_token = \"{TOKEN}\"\n");
    let pod = Pod::start(&config, &redis);
    let good = format!("Host: a.name\r\nAuthorization: Bearer {TOKEN}\r\n");
    let open = [
        "/livez",
        "/readyz",
        "/openapi.yaml",
        "/openapi.json",
        "/",
        "/console.js",
        "/console.css",
    ];
    for path in open {
        assert_eq!(
            call(&pod, &format!("GET {path}"), HERE, "").0,
            200,
            "{path}"
        );
    }
    let shut = [
        "/metrics",
        "/console/overview",
        "/console/user?app=app-0&user=a",
        "/console/room?app=app-0&room=a",
    ];
    let bad = [
        "",
        "Bearer wrong",
        "Basic YTpi",
        "Bearer",
        "Bearer  ",
        TOKEN,
    ];
    for path in shut {
        for credential in bad {
            let headers = format!("{HERE}Authorization: {credential}\r\n");
            let (status, answer) = call(&pod, &format!("GET {path}"), &headers, "");
            assert_eq!(status, 401, "{path} {credential}: {answer}");
            assert!(
                answer
                    .to_ascii_lowercase()
                    .contains("\r\nwww-authenticate: bearer\r\n")
            );
        }
        let (status, answer) = call(&pod, &format!("GET {path}"), &good, "");
        assert!(matches!(status, 200 | 404), "{path}: {answer}");
    }
    let in_address = format!("GET /console/overview?token={TOKEN}");
    assert_eq!(call(&pod, &in_address, HERE, "").0, 401);
    assert_eq!(call(&pod, "POST /console/verify", HERE, "{}").0, 401);
    assert!(!pod.log().join("\n").contains(TOKEN), "{}", pod.log_tail());
    let url = format!("http://{}/readyz", pod.admin);
    let ran = run(unread().args(["probe", "--url", &url]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_guesses_is_told_to_wait_and_the_token_still_lets_in() {
    let redis = RedisServer::start();
    let mut config = Config::apps(1);
    config.server = format!(
        "admin_token = \"{TOKEN}\"\nrefused_credentials = {{ per_second = 1, burst = 2 }}\n"
    );
    let pod = Pod::start(&config, &redis);
    let bad = format!("{HERE}Authorization: Bearer a-guess\r\n");
    let answer = until("a refusal because of too many", || {
        let (status, answer) = call(&pod, "GET /console/overview", &bad, "");
        (status == 429).then_some(answer)
    });
    assert!(
        answer.to_ascii_lowercase().contains("\r\nretry-after: "),
        "{answer}"
    );
    let good = format!("{HERE}Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(call(&pod, "GET /console/overview", &good, "").0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_only_an_address_shows_names() {
    let redis = RedisServer::start();
    let pod = Pod::start(&Config::apps(1), &redis);
    for (host, status) in [
        ("127.0.0.1:9090", 200),
        ("[::1]:9090", 200),
        ("localhost", 200),
        ("evil.example:9090", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
    ] {
        let headers = format!("Host: {host}\r\n");
        assert_eq!(
            call(&pod, "GET /console/overview", &headers, "").0,
            status,
            "{host}"
        );
        // Prometheus comes by a name.
        assert_eq!(call(&pod, "GET /metrics", &headers, "").0, 200, "{host}");
    }
}

/// What keeps a browser from taking an answer for something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_says_what_a_page_may_do() {
    let redis = RedisServer::start();
    let pod = Pod::start(&Config::apps(1), &redis);
    for path in [
        "/",
        "/console.js",
        "/console.css",
        "/console/overview",
        "/console/user?app=app-0&user=a",
    ] {
        let (_, answer) = call(&pod, &format!("GET {path}"), HERE, "");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        for part in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-",
        ] {
            assert!(head.contains(part), "{path}: {part} is not in\n{head}");
        }
        assert!(!head.contains("access-control-"), "{head}");
        if path == "/" {
            for inline in ["<style", " style=", " onclick=", "<script>"] {
                assert!(!body.contains(inline), "{inline}");
            }
        }
        // As some balancers ask.
        let (status, answer) = call(&pod, &format!("HEAD {path}"), HERE, "");
        assert!(
            matches!(status, 200 | 404) && answer.ends_with("\r\n\r\n"),
            "{answer}"
        );
    }
}
