//! `GET /rooms`: what a page costs, that pages add up to the whole, and that what is remembered or late decides nothing.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde_json::{Value, json};

use crate::support::clock::{Clock, HOUR};
use crate::support::{App, Own, Pod};

struct Scene(Own);

impl Deref for Scene {
    type Target = Own;

    fn deref(&self) -> &Own {
        &self.0
    }
}

impl Scene {
    fn new() -> Self {
        Self(Own::start(""))
    }

    /// Calls of each command that reads a hash since the server's start.
    fn reads(&self) -> BTreeMap<String, u64> {
        let reads = ["hget", "hmget", "hgetall", "hlen", "evalsha"];
        let mut calls = self.redis.calls();
        calls.retain(|name, _| reads.contains(&name.as_str()));
        calls
    }

    /// What one call costs when this pod has been asked before. The sweeps of the pod go on, so the least of some.
    async fn cost(&self, user: &str, query: &[(&str, &str)]) -> u64 {
        let mut least = u64::MAX;
        for _ in 0..12 {
            let before = self.reads();
            list(&self.app, user, query).await;
            let after = self.reads();
            let calls = after
                .iter()
                .map(|(name, n)| n - before.get(name).unwrap_or(&0));
            least = least.min(calls.sum());
        }
        least
    }
}

/// `totalCount` and the rooms.
async fn list(app: &App, user: &str, query: &[(&str, &str)]) -> (u64, Vec<Value>) {
    let query: Vec<(String, String)> = query
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let body = app.imkit_rooms(user, &query).await.ok();
    let result = &body["result"];
    (
        result["totalCount"].as_u64().unwrap(),
        result["data"].as_array().unwrap().clone(),
    )
}

fn ids(rooms: &[Value]) -> String {
    let ids: Vec<&str> = rooms.iter().map(|r| r["_id"].as_str().unwrap()).collect();
    ids.join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_costs_the_same_whatever_the_number_of_rooms() {
    let scene = Scene::new();
    for (user, friend, rooms) in [("few", "bob", 50), ("many", "ben", 500)] {
        let mut events = Vec::new();
        for n in 0..rooms {
            let room = format!("{user}-{n}");
            events.push(json!({"type": "room.updated", "room": room, "tags": ["work"], "name": format!("name {}", n % 7)}));
            events.push(json!({"type": "member.joined", "room": room, "users": [user, friend]}));
            events.push(json!({"type": "message.sent", "room": room, "id": "1", "sender": friend}));
            events.push(json!({"type": "pref.updated", "room": room, "user": user, "folder": "f", "sticky": true}));
        }
        scene.app.must(&json!(events)).await;
    }
    for query in [
        &[("limit", "20")][..],
        &[("limit", "20"), ("skip", "30")],
        &[("limit", "20"), ("sort", "createdTime")],
        &[
            ("limit", "20"),
            ("sort", "-unread _id"),
            ("sortUnreadFirst", "1"),
        ],
        &[("limit", "20"), ("q", r#"{"roomTags": "work"}"#)],
        &[("limit", "20"), ("pref", r#"{"folder": "f"}"#)],
        &[("limit", "20"), ("pref", r#"{"sticky": true}"#)],
        &[("limit", "20"), ("updatedAfter", "1000")],
        // No two rooms have the same last message, so none is in question.
        &[("limit", "20"), ("sort", "-lastMessage name")],
    ] {
        let mut costs = Vec::new();
        for (user, rooms) in [("few", 50), ("many", 500)] {
            let (total, page) = list(&scene.app, user, query).await;
            assert_eq!((total, page.len()), (rooms, 20), "{query:?}");
            assert_eq!(page[0]["members"].as_array().unwrap().len(), 2);
            costs.push(scene.cost(user, query).await);
        }
        assert_eq!(costs[0], costs[1], "{query:?}");
        // The records, the supergroups, the limit, the settings; 20 rooms; two profiles; what scripts call.
        assert!(costs[0] < 40, "{query:?}: {costs:?}");
    }
    // By what only the rooms know: all of them are asked for that, and those of the page for nothing more than before.
    let plain = scene.cost("few", &[("limit", "20")]).await;
    let by_name = [("limit", "20"), ("sort", "name")];
    assert_eq!(scene.cost("few", &by_name).await, plain + 30);
    let members = list(&scene.app, "many", &[("limit", "1")]).await.1;
    let nobody = list(&scene.app, "nobody", &[("limit", "20")]).await;
    assert_eq!((members.len(), nobody), (1, (0, Vec::new())));
    drop(scene);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_add_up_to_the_whole_list() {
    let scene = Scene::new();
    let mut events = Vec::new();
    for n in 0..40_u64 {
        let room = format!("r{}", (n * 17) % 40);
        let kind = if n % 8 == 0 { "supergroup" } else { "group" };
        events.push(json!({"type": "room.updated", "room": room, "kind": kind, "name": format!("name {}", n % 3),
                           "service_status": n % 2, "time": 1_700_000_000_000 + (n % 4) * 1000}));
        events.push(json!({"type": "member.joined", "room": room, "users": ["alice", "bob"]}));
        if n % 5 > 0 {
            events.push(
                json!({"type": "message.sent", "room": room, "id": "1", "sender": "bob",
                               "time": 1_700_000_100_000 + n % 3, "silent": n % 2 == 0}),
            );
        }
    }
    scene.app.must(&json!(events)).await;
    for sort in [
        "",
        "-lastMessage -createdTime",
        "lastMessage",
        "createdTime name",
        "name -createdTime",
        "unread serviceStatus -name",
        "description",
        "roomType -serviceStatus -_id",
    ] {
        for unread_first in ["0", "1"] {
            let with = |skip: usize, limit: usize| {
                [
                    ("sort", sort.to_owned()),
                    ("sortUnreadFirst", unread_first.to_owned()),
                    ("skip", skip.to_string()),
                    ("limit", limit.to_string()),
                ]
            };
            let whole = with(0, 0);
            let whole: Vec<(&str, &str)> = whole.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let (total, rooms) = list(&scene.app, "alice", &whole).await;
            assert_eq!((total, rooms.len()), (40, 40));
            let mut pages = Vec::new();
            while pages.len() < 40 {
                let page = with(pages.len(), 7);
                let page: Vec<(&str, &str)> = page.iter().map(|(n, v)| (*n, v.as_str())).collect();
                let (total, page) = list(&scene.app, "alice", &page).await;
                assert!(total == 40 && !page.is_empty(), "{sort}");
                pages.extend(page);
            }
            assert_eq!(ids(&pages), ids(&rooms), "{sort:?} {unread_first}");
            assert_eq!(pages, rooms);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_message_moves_the_room_up_for_everybody() {
    let scene = Scene::new();
    // To come, so that it is not their acceptance that makes them news.
    let at = |n: u64| FUTURE + n * 1_000;
    let silent = |room: &str, id: &str, n: u64| json!({"type": "message.sent", "room": room, "id": id, "sender": "bob", "silent": true, "time": at(n)});
    let mut events = Vec::new();
    for (room, kind) in [("g", "group"), ("d", "direct"), ("s", "supergroup")] {
        events.push(json!({"type": "room.updated", "room": room, "kind": kind, "time": at(0)}));
        events.push(json!({"type": "member.joined", "room": room, "users": ["alice", "bob"]}));
        events.push(json!({"type": "message.sent", "room": room, "id": "1", "sender": "bob", "time": at(1)}));
    }
    scene.app.must(&json!(events)).await;
    let after = at(5).to_string();
    for (n, room) in [(10, "g"), (11, "d"), (12, "s"), (13, "g")] {
        scene
            .app
            .must(&json!([silent(room, &format!("s{n}"), n)]))
            .await;
        let (_, rooms) = list(&scene.app, "alice", &[]).await;
        assert_eq!(rooms[0]["_id"], room);
        assert_eq!(rooms[0]["lastMessage"]["_id"], format!("s{n}"));
        assert_eq!(rooms[0]["unread"], 1);
        let (_, news) = list(&scene.app, "alice", &[("updatedAfter", &after)]).await;
        assert!(ids(&news).split(' ').any(|id| id == room), "{n}: {news:?}");
    }
    // Taken back it is still the last one, and nothing but how it looks has changed.
    let recalled = json!([{"type": "message.recalled", "room": "d", "id": "s11"}]);
    scene.app.must(&recalled).await;
    let (_, rooms) = list(&scene.app, "alice", &[("updatedAfter", &after)]).await;
    assert_eq!(ids(&rooms), "g s d");
    assert_eq!(rooms[2]["lastMessage"]["messageType"], "recall");
    let only = [("updatedAfter", at(12).to_string())];
    let (total, rooms) = list(&scene.app, "alice", &[(only[0].0, &only[0].1)]).await;
    assert_eq!((total, ids(&rooms)), (2, "g s".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_a_pod_remembers_are_shown_only_if_they_are_current() {
    let scene = Scene::new();
    let other = Pod::start(&scene.config, &scene.redis);
    let elsewhere = scene.app.on(&other.base);
    scene
        .app
        .must(&json!([
            {"type": "room.updated", "room": "r"},
            {"type": "member.joined", "room": "r", "users": ["alice", "bob"]},
            {"type": "message.sent", "room": "r", "id": "1", "sender": "bob"},
        ]))
        .await;
    let members = async || {
        let (_, rooms) = list(&scene.app, "alice", &[]).await;
        let names = rooms[0]["members"].as_array().unwrap().clone();
        let names = names.iter().map(|m| {
            format!(
                "{}{}",
                m["_id"].as_str().unwrap(),
                m["nickname"].as_str().unwrap()
            )
        });
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(members().await, "alice bob");
    for (event, shown) in [
        (
            json!({"type": "member.joined", "room": "r", "user": "carol"}),
            "alice bob carol",
        ),
        (
            json!({"type": "user.updated", "user": "bob", "nickname": "-by"}),
            "alice bob-by carol",
        ),
        (
            json!({"type": "member.left", "room": "r", "user": "bob"}),
            "alice carol",
        ),
        (
            json!({"type": "user.updated", "user": "carol", "nickname": "-x"}),
            "alice carol-x",
        ),
        (json!({"type": "user.deleted", "user": "carol"}), "alice"),
    ] {
        elsewhere.must(&json!([event])).await;
        assert_eq!(members().await, shown);
        assert_eq!(members().await, shown);
    }
    elsewhere
        .must(&json!([
            {"type": "room.deleted", "room": "r"},
            {"type": "room.updated", "room": "r"},
            {"type": "member.joined", "room": "r", "users": ["dave", "alice"]},
        ]))
        .await;
    assert_eq!(members().await, "alice dave");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_are_gone_leave_no_hole_in_a_page() {
    let scene = Scene::new();
    let mut events = Vec::new();
    for n in 0..9 {
        let room = format!("r{n}");
        events.push(json!({"type": "room.updated", "room": room, "name": format!("n{n}")}));
        events.push(json!({"type": "member.joined", "room": room, "user": "alice"}));
        events.push(json!({"type": "message.sent", "room": room, "id": "1", "sender": "alice", "time": 1_700_000_000_000_u64 + n}));
    }
    scene.app.must(&json!(events)).await;
    // Their deletion is accepted, and nobody has been told.
    for room in ["r7", "r6", "r4"] {
        let key = format!("unread:v1:{{app-0:r:{room}}}:meta");
        scene.redis.cli(&["DEL", &key]);
    }
    let (total, rooms) = list(&scene.app, "alice", &[("limit", "4")]).await;
    assert_eq!((total, ids(&rooms)), (6, "r8 r5 r3 r2".to_owned()));
    let query = [("limit", "2"), ("sort", "-name")];
    let (total, rooms) = list(&scene.app, "alice", &query).await;
    assert_eq!((total, ids(&rooms)), (6, "r8 r5".to_owned()));
    let (total, rooms) = list(&scene.app, "alice", &[]).await;
    assert_eq!((total, ids(&rooms)), (6, "r8 r5 r3 r2 r1 r0".to_owned()));
}

/// Far ahead of every clock.
const FUTURE: u64 = 4_000_000_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_older_than_the_last_one_counts_and_does_not_take_its_place() {
    let scene = Scene::new();
    let at = |n: u64| 1_700_000_000_000 + n * 1_000;
    for kind in ["group", "direct", "supergroup"] {
        scene
            .app
            .must(&json!([
                {"type": "room.updated", "room": kind, "kind": kind, "time": at(0)},
                {"type": "member.joined", "room": kind, "users": ["alice", "bob"]},
            ]))
            .await;
        // The id, its time, and which is the last one then.
        for (n, (id, time, last)) in [
            ("a", Some(at(2)), "a"),
            ("late", Some(at(1)), "a"),
            ("same", Some(at(2)), "same"),
            ("ahead", Some(FUTURE), "ahead"),
            ("behind", Some(at(9)), "ahead"),
            ("sooner", Some(FUTURE - 5_000), "sooner"),
            ("now", None, "now"),
            ("early", Some(at(3)), "now"),
        ]
        .into_iter()
        .enumerate()
        {
            let silent = id == "early";
            let event = json!({"type": "message.sent", "room": kind, "id": id, "sender": "bob", "time": time, "silent": silent});
            scene.app.must(&json!([event])).await;
            let (_, rooms) = list(
                &scene.app,
                "alice",
                &[("q", &format!("{{\"_id\":\"{kind}\"}}"))],
            )
            .await;
            let message = &rooms[0]["lastMessage"];
            assert_eq!(message["_id"], last, "{kind}: {id}");
            assert_eq!(message["createdAtMS"], message["messageTimeMS"]);
            assert_eq!(
                rooms[0]["unread"],
                n + 1 - usize::from(silent),
                "{kind}: {id}"
            );
        }
        // Taken back it does not show, for it is not the last one.
        scene
            .app
            .must(&json!([{"type": "message.recalled", "room": kind, "id": "early"}]))
            .await;
        let (_, rooms) = list(&scene.app, "alice", &[]).await;
        assert!(rooms.iter().all(|room| room["lastMessage"]["_id"] == "now"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_misses_no_message_however_late_it_was_delivered() {
    let scene = Scene::new();
    let start = crate::support::now_seconds() * 1_000;
    let sent = |room: &str, id: &str, time: u64| json!({"type": "message.sent", "room": room, "id": id, "sender": "bob", "time": time});
    let mut events = Vec::new();
    for kind in ["group", "direct", "supergroup"] {
        events.push(json!({"type": "room.updated", "room": kind, "kind": kind, "time": 1_600_000_000_000_u64}));
        events.push(json!({"type": "member.joined", "room": kind, "users": ["alice", "bob"]}));
        events.push(sent(kind, "1", 1_700_000_000_000));
    }
    scene.app.must(&json!(events)).await;
    let news = async |after: u64| {
        let (_, rooms) = list(
            &scene.app,
            "alice",
            &[("updatedAfter", &after.to_string()), ("sort", "_id")],
        )
        .await;
        ids(&rooms)
    };
    let all = "direct group supergroup";
    // Its acceptance is news, whatever its time says.
    assert_eq!(news(start).await, all);
    // The next second of the clock by which they are accepted.
    let now = || {
        let time = scene.redis.cli(&["TIME"]);
        time.lines().next().unwrap().trim().parse::<u64>().unwrap()
    };
    let after = (now() + 1) * 1_000;
    crate::support::until("the next second", || (now() * 1_000 >= after).then_some(()));
    assert_eq!(news(after).await, "");
    for (n, kind) in ["group", "direct", "supergroup"].into_iter().enumerate() {
        // One that does not become the last message.
        scene
            .app
            .must(&json!([sent(kind, "0", 1_650_000_000_000)]))
            .await;
        let (_, rooms) = list(&scene.app, "alice", &[("updatedAfter", &after.to_string())]).await;
        assert_eq!(rooms.len(), n + 1);
        assert!(
            rooms
                .iter()
                .all(|room| room["lastMessage"]["_id"] == "1" && room["unread"] == 2)
        );
    }
    assert_eq!(news(after).await, all);
    // A time in the future is news for as long as it is.
    scene.app.must(&json!([sent("group", "2", FUTURE)])).await;
    assert_eq!(news(FUTURE - 1_000).await, "group");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_a_time_is_never_late_whatever_the_clock_of_its_pod_says() {
    let scene = Scene::new();
    let clock = Clock::new();
    clock.set(-HOUR);
    let behind = Pod::by_clock(&clock, &scene.config, &scene.redis.url());
    let elsewhere = scene.app.on(&behind.base);
    let sent = |id: &str| json!([{"type": "message.sent", "room": "r", "id": id, "sender": "bob"}]);
    scene
        .app
        .must(&json!([
            {"type": "room.updated", "room": "r"},
            {"type": "member.joined", "room": "r", "users": ["alice", "bob"]},
        ]))
        .await;
    for (n, app) in [&scene.app, &elsewhere, &scene.app, &elsewhere]
        .into_iter()
        .enumerate()
    {
        let id = n.to_string();
        app.must(&sent(&id)).await;
        let (_, rooms) = list(&scene.app, "alice", &[]).await;
        assert_eq!(rooms[0]["lastMessage"]["_id"], id);
    }
}
