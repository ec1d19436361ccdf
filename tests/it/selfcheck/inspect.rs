//! What `inspect` shows is what its `redis-cli` lines show; and what users and rooms take.

use serde_json::{Value, json};

use super::{ALICE, Scene, last_message, sh, stamp};

/// The pairs that `HGETALL` prints.
fn hash(line: &str) -> Value {
    let text = sh(line);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks(2)
        .map(|pair| (pair[0].to_owned(), Value::from(pair[1])))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inspect_shows_what_its_redis_cli_lines_show() {
    let scene = Scene::new().await;
    scene
        .app
        .must(&json!([
            {"type": "room.updated", "room": "left"},
            {"type": "member.joined", "room": "left", "users": ["alice"]},
            {"type": "member.left", "room": "left", "user": "alice"},
            {"type": "pref.updated", "room": "group", "user": "alice", "sticky": true},
        ]))
        .await;
    let ran = scene.run("inspect", &["--app", "app-0", "--user", "alice", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown = ran.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();

    let counts = hash(&text(&shown["counts"]["redis_cli"]));
    assert!(counts.as_object().unwrap().len() > 10, "{counts}");
    for (field, n) in shown["counts"]["fields"].as_object().unwrap() {
        assert_eq!(counts[field], n.to_string(), "{field}");
    }
    assert_eq!(shown["counts"]["fields"]["messages:group"], 4);
    let rooms = shown["rooms"]["list"].as_array().unwrap();
    assert_eq!(rooms.len(), 4);
    let all = hash(&text(&shown["rooms"]["redis_cli"]));
    assert_eq!(all.as_object().unwrap().len(), 4);
    for room in rooms {
        let record = sh(&text(&room["redis_cli"][0]));
        let parts: Vec<&str> = record.split('|').collect();
        for (at, name) in [(3, "read"), (4, "head"), (5, "holes"), (6, "mentions")] {
            assert_eq!(parts[at], room[name].to_string(), "{room}");
        }
        let (epoch, after) = (stamp(parts[1]), stamp(parts[2]));
        assert_eq!(room["epoch"], epoch, "{room}");
        assert_eq!(room["rev"], epoch + after, "{room}");
        if parts[13].is_empty() {
            assert_eq!(room["last_at"], Value::Null);
        } else {
            let (at, time) = last_message(&parts);
            assert_eq!(
                (&room["last_at"], &room["last_time"]),
                (&json!(at), &json!(time))
            );
        }
        assert_eq!(parts[7], &room["kind"].as_str().unwrap()[..1]);
    }
    let group = rooms.iter().find(|room| room["room"] == "group").unwrap();
    assert_eq!((&group["unread"], &group["holes"]), (&json!(3), &json!(1)));
    assert!(
        rooms
            .iter()
            .any(|room| room["room"] == "it's {odd}" && room["state"] == "invited")
    );

    let large = &shown["supergroups"]["list"][0];
    assert_eq!(
        (&large["room"], &large["unread"], &large["mentions"]),
        (&json!("super"), &json!(2), &json!(1))
    );
    let lines: Vec<String> = large["redis_cli"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    let record = sh(&lines[0]);
    let read: u64 = record.split('|').nth(3).unwrap().parse().unwrap();
    let (head, recalled): (u64, u64) = (
        sh(&lines[1]).parse().unwrap(),
        sh(&lines[2]).parse().unwrap(),
    );
    assert_eq!(head - read - recalled, 2);
    assert_eq!(
        hash(&text(&shown["references"]["redis_cli"])),
        shown["references"]["fields"]
    );
    assert_eq!(
        sh(&text(&shown["marks"]["redis_cli"])),
        shown["marks"]["count"].to_string()
    );
    let tombs = hash(&text(&shown["tombstones"]["redis_cli"]));
    assert!(
        tombs["left"]
            .as_str()
            .unwrap()
            .starts_with(shown["tombstones"]["list"][0]["epoch"].as_str().unwrap())
    );

    let preferences = hash(&text(&shown["preferences"]["redis_cli"]));
    assert_eq!(
        shown["preferences"]["count"],
        preferences.as_object().unwrap().len()
    );
    let stored = text(&preferences["group|sticky"]);
    assert_eq!(stored.split_once('|').unwrap().1, "true");
    assert_eq!(group["preferences"], json!({"sticky": true}));

    // A room, by a name that a shell would trip over.
    let ran = scene.run(
        "inspect",
        &["--app", "app-0", "--room", "it's {odd}", "--json"],
    );
    let shown = ran.json();
    let line = text(&shown["members"]["redis_cli"]);
    assert_eq!(
        (sh(&line), &shown["members"]["count"]),
        ("2".to_owned(), &json!(2))
    );
    for member in shown["members"]["list"].as_array().unwrap() {
        let entry = sh(&text(&member["redis_cli"]));
        // It stands first, or behind the state.
        let epoch = entry.split('|').find(|part| part.len() > 1).unwrap();
        assert_eq!(member["epoch"], stamp(epoch));
    }
    let ran = scene.run("inspect", &["--app", "app-0", "--room", "group", "--json"]);
    let of_alice = (group["read"].clone(), group["unread"].clone());
    let shown = ran.json();
    let members = shown["members"]["list"].as_array().unwrap();
    let alice = members.iter().find(|one| one["user"] == "alice").unwrap();
    assert_eq!((alice["read"].clone(), alice["unread"].clone()), of_alice);
    assert_eq!(shown["meta"]["fields"]["head"], "6");
    let fields = shown["meta"]["fields"].as_object().unwrap();
    let values: Vec<&str> = fields
        .values()
        .map(|value| value.as_str().unwrap())
        .collect();
    assert_eq!(
        sh(&text(&shown["meta"]["redis_cli"]))
            .lines()
            .collect::<Vec<_>>(),
        values
    );
    for part in ["members", "pending", "history", "recalled"] {
        let line = text(&shown[part]["redis_cli"]);
        assert_eq!(sh(&line), shown[part]["count"].to_string(), "{part}");
    }
    assert_eq!(
        (&shown["history"]["count"], &shown["recalled"]["count"]),
        (&json!(6), &json!(1))
    );

    // The text for people carries the same lines, and they run as they stand.
    let ran = scene.run("inspect", &["--app", "app-0", "--user", "alice"]);
    let lines: Vec<&str> = ran
        .stdout
        .lines()
        .filter_map(|l| l.trim().strip_prefix("$ "))
        .collect();
    assert!(lines.len() >= 8, "{}", ran.stdout);
    for line in lines {
        assert!(!sh(line).is_empty(), "{line}");
    }
    let ran = scene.run("inspect", &["--app", "app-0", "--user", "nobody"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "unread: nothing is kept of user \"nobody\" in app \"app-0\"\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_and_rooms_take_is_weighed() {
    let scene = Scene::new().await;
    let weighed = |more: &[&str]| {
        let ran = scene.run(
            "inspect",
            &[&["--app", "app-0", "--memory", "--json"], more].concat(),
        );
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        ran.json()
    };
    let usage = |key: &str| -> u64 {
        let bytes = scene.redis.cli(&["MEMORY", "USAGE", key]);
        bytes.parse().unwrap_or(0)
    };
    // alice is in five rooms: two groups, a supergroup, a direct room, and asked into another.
    let one = weighed(&["--user", "alice"]);
    assert_eq!((&one["users"], &one["pairs"]), (&json!(1), &json!(5)));
    let mut sum = 0;
    for what in ["counts", "rooms", "supers", "refs", "marks"] {
        let bytes = usage(&format!("{ALICE}{what}"));
        assert_eq!(one["user_keys"][what]["bytes"], bytes, "{what}: {one}");
        sum += bytes;
    }
    let others = ["left", "prefs", "profile", "pending"];
    sum += others
        .map(|what| usage(&format!("{ALICE}{what}")))
        .iter()
        .sum::<u64>();
    let lists = one["members_key"]["bytes"].as_f64().unwrap() / one["members"].as_f64().unwrap();
    let expected = sum as f64 / 5.0 + lists;
    let shown = one["bytes_per_pair"].as_f64().unwrap();
    assert!((shown - expected).abs() < 0.2, "{shown}, {expected}: {one}");

    let all = weighed(&[]);
    // alice, bob, carol; three groups, a supergroup and a direct room of 3 + 2 + 2 + 2 + 2 members.
    assert_eq!((&all["users"], &all["pairs"]), (&json!(3), &json!(11)));
    assert_eq!((&all["rooms"], &all["members"]), (&json!(5), &json!(11)));
    assert!(all["user_keys"]["rooms"]["keys"] == 3, "{all}");
    assert_eq!(weighed(&["--sample", "1"])["users"], 1);
    let table = scene.run("inspect", &["--app", "app-0", "--memory"]);
    assert_eq!(table.code, 0, "{}", table.stderr);
    let shown = all["bytes_per_pair"].as_f64().unwrap();
    let line = format!("bytes for each user and room: {shown:.1}\n");
    assert!(table.stdout.contains(&line), "{line}{}", table.stdout);

    let nobody = scene.run(
        "inspect",
        &["--app", "app-0", "--memory", "--user", "nobody"],
    );
    assert_eq!(nobody.code, 1, "{}", nobody.stdout);
    let nothing = scene.run("inspect", &["--app", "other", "--memory"]);
    assert_eq!(nothing.code, 1, "{}", nothing.stdout);
    for args in [
        &["--memory", "--room", "r"][..],
        &["--sample", "5", "--user", "x"],
        &[],
    ] {
        let ran = scene.run("inspect", &[&["--app", "app-0"], args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
    }
}
