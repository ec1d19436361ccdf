//! Nodes of a cluster whose clocks differ for good, by a millisecond or by an hour. Every event works there at once, as it
//! does where they agree: nothing is refused, and nothing waits until one clock has come to where another was.

use serde_json::{Value, json};

use super::*;
use crate::support::assert_no_drift;
use crate::support::clock::{HOUR, MINUTE, MS, SECOND, in_words};

/// Names on the nodes of a cluster.
struct Cast {
    users: Vec<String>,
    rooms: Vec<String>,
}

impl Cast {
    /// A user on each master, and several rooms, so that the indexes of their work lie everywhere as well.
    fn new(cluster: &Cluster, stem: &str, rooms: usize) -> Self {
        let on = |letter: char, n: usize| {
            let stem = format!("{letter}{n}-{stem}");
            name_on(cluster, n % 3, letter, &stem)
        };
        Self {
            users: (0..3).map(|n| on('u', n)).collect(),
            rooms: (0..rooms).map(|n| on('r', n)).collect(),
        }
    }
}

/// Every kind of event, each in a request of its own and by one pod or the other.
async fn every_event(story: &mut Story, cast: &Cast) -> Check {
    let [a, b, c] = [0, 1, 2].map(|n| cast.users[n].as_str());
    let mut turn = 0;
    let mut ids = 0;
    let mut requests: Vec<Vec<Value>> = vec![vec![
        json!({"type": "user.updated", "user": a, "nickname": "A"}),
        json!({"type": "user.updated", "user": b, "nickname": "B"}),
    ]];
    for (n, r) in cast.rooms.iter().enumerate() {
        let mut id = || {
            ids += 1;
            format!("m{ids}")
        };
        let (one, two, silent) = (id(), id(), id());
        let by = |id: &str, sender: &str, more: Value| {
            let mut event = message(r, id, sender);
            for (field, value) in more.as_object().unwrap() {
                event[field] = value.clone();
            }
            event
        };
        let each = vec![
            json!({"type": "room.updated", "room": r, "tags": ["x"], "name": "n"}),
            joined(r, &[a, b]),
            invited(r, c),
            by(&one, a, json!({"mentions": [b]})),
            joined(r, &[c]),
            by(&two, b, json!({"mentions": "all", "mark_read": false})),
            by(&silent, c, json!({"silent": true})),
            json!({"type": "room.read", "room": r, "user": b, "up_to_id": one}),
            json!({"type": "message.recalled", "room": r, "id": one}),
            json!({"type": "room.read", "room": r, "user": a, "up_to_time": START}),
            by(&two, b, json!({"mentions": "all", "mark_read": false})),
            json!({"type": "pref.updated", "room": r, "user": a, "hidden": true, "folder": "f"}),
            json!({"type": "room.updated", "room": r, "tags": ["y"], "custom_type": "t"}),
            json!({"type": "room.updated", "room": r, "status": 0}),
            json!({"type": "room.updated", "room": r, "status": 1}),
            left(r, b),
            by(&id(), a, json!({})),
            joined(r, &[b]),
            by(&id(), c, json!({"mentions": [a, b]})),
            json!({"type": "room.updated", "room": r, "kind": "supergroup"}),
            by(&id(), a, json!({"mentions": [b]})),
            json!({"type": "room.read", "room": r, "user": c}),
        ];
        requests.extend(each.into_iter().map(|event| vec![event]));
        requests.push(match n % 3 {
            0 => vec![json!({"type": "user.read_all", "user": b})],
            1 => vec![
                json!({"type": "room.deleted", "room": r}),
                room(r, "group"),
                joined(r, &[b, c]),
            ],
            _ => vec![deleted(c), joined(r, &[c]), by(&id(), a, json!({}))],
        });
    }
    for events in requests {
        turn += 1;
        story.send(turn % 2, events).await?;
    }
    story.compare().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_works_at_once_where_nodes_are_apart_for_good() {
    let cluster = Cluster::start_by_clocks();
    let mut story = Story::start(&cluster.url(), 0);
    let mut failures = Vec::new();
    for apart in [MS, 20 * MS, SECOND, 3 * SECOND, 11 * MINUTE, HOUR] {
        // A master and its replica agree, as they will on one machine.
        for (node, clock) in cluster.clocks.iter().enumerate() {
            clock.set([0, apart, -apart][node % 3]);
        }
        let cast = Cast::new(&cluster, &format!("{apart}"), 6);
        story.users.clone_from(&cast.users);
        // Pods that have seen no other clocks.
        story.start_pods(2);
        let done = every_event(&mut story, &cast).await;
        failures.extend(
            done.err()
                .map(|why| format!("{} apart: {why}", in_words(apart))),
        );
    }
    if failures.is_empty() {
        assert_no_drift(&cluster.operators_url(), "app-0");
    }
    none_failed(story, &failures);
}

/// What a room's node stamps is announced on another node, whose clock is 3 s behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_works_although_its_index_is_on_a_node_behind_it() {
    let cluster = Cluster::start_by_clocks();
    cluster.clocks[1].set(3 * SECOND);
    let mut story = Story::start(&cluster.url(), 2);
    let mut failures = Vec::new();
    for n in 0..8 {
        let (u, r) = (format!("u{n}"), name_on(&cluster, 1, 'r', &format!("r{n}")));
        story.users = vec![u.clone()];
        let done = story
            .tell(
                n % 2,
                vec![
                    room(&r, "group"),
                    joined(&r, &[&u]),
                    message(&r, "one", "w"),
                ],
            )
            .await;
        failures.extend(done.err());
    }
    none_failed(story, &failures);
}

/// What a room accepted is brought to users whose nodes are eleven minutes behind it, and ahead of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_told_although_their_nodes_are_eleven_minutes_apart_from_the_rooms() {
    let cluster = Cluster::start_by_clocks();
    cluster.clocks[1].set(11 * MINUTE);
    let mut story = Story::start(&cluster.url(), 2);
    let mut failures = Vec::new();
    for node in [0, 1] {
        let r = name_on(&cluster, node, 'r', &format!("r{node}"));
        let on = |n: usize| name_on(&cluster, n, 'u', &format!("u{node}{n}"));
        story.users = (0..3).map(on).collect();
        let users: Vec<String> = story.users.clone();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        let events = vec![
            room(&r, "group"),
            joined(&r, &users),
            message(&r, "one", "w"),
        ];
        let done = story.tell(0, events).await;
        failures.extend(
            done.err()
                .map(|why| format!("a room on node {node}: {why}")),
        );
    }
    none_failed(story, &failures);
}
