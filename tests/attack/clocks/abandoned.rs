//! Fan-outs that a dead pod left, and a step of Redis' clock before anybody has found them. Another pod finishes them as
//! soon as it would have without the step, and says how many there are.

use std::time::Instant;

use serde_json::json;

use super::*;
use crate::support::check;
use crate::support::clock::{HOUR, MINUTE, SECOND, YEAR, in_words};
use crate::support::servers::Sentinels;
use crate::support::stopped::Stopped;

/// How long it may take until all is delivered that a dead pod has accepted.
const FOUND: Duration = Duration::from_secs(30);

/// What pods that have died accepted and told nobody: messages of three members, a departure, a room's end, a user's end.
/// Answers what the counts have to become.
async fn abandon(story: &mut Story, redis: &RedisServer) -> Check {
    let users = ["a", "b", "c", "d"];
    story.users = users.map(str::to_owned).to_vec();
    story
        .tell(
            0,
            vec![
                room("talk", "group"),
                joined("talk", &users),
                room("short", "group"),
                joined("short", &users),
                message("short", "last words", "a"),
                room("own", "group"),
                joined("own", &["a", "d"]),
                message("own", "hello", "a"),
                // So that Redis knows the scripts at which pods are to stop.
                joined("own", &["e"]),
                room("gone", "group"),
                json!({"type": "room.deleted", "room": "gone"}),
                deleted("e"),
            ],
        )
        .await?;
    let messages = (0..40).map(|n| {
        let mut event = message("talk", &format!("m{n}"), users[n % 3]);
        event["mentions"] = json!([users[(n + 1) % 4]]);
        event["mark_read"] = (n % 4 == 0).into();
        event
    });
    let room_jobs = |room: &str| format!("unread:v1:{{app-0:r:{room}}}:pending");
    let steps = [
        ("message_send", room_jobs("talk"), messages.collect()),
        ("member_change", room_jobs("talk"), vec![left("talk", "c")]),
        (
            "room_delete",
            room_jobs("short"),
            vec![json!({"type": "room.deleted", "room": "short"})],
        ),
        (
            "user_delete",
            "unread:v1:{app-0:u:d}:pending".to_owned(),
            vec![deleted("d")],
        ),
    ];
    // Nobody who could find anything yet.
    story.pods.clear();
    for (script, pending, events) in steps {
        let events = story.timed(events);
        for event in &events {
            story.model.apply(event);
        }
        let mut config = Config::apps(1);
        config.extra = "response_timeout_ms = 60000\n".to_owned();
        let app = &story.apps[0];
        let stopped = Stopped::at(&config, redis, app, script, &pending, json!(events));
        // It blocks until the pod stops, and other tasks have to go on.
        let runtime = tokio::runtime::Handle::current();
        let stopped = tokio::task::block_in_place(|| runtime.block_on(stopped));
        stopped.dies().await;
    }
    Ok(())
}

/// Waits for the end of what was left; it has to come in time, and to be told of by the metrics.
async fn found(story: &Story) -> Check {
    let start = Instant::now();
    let (mut seen, mut done) = (0.0_f64, None);
    loop {
        let waiting = story.pods[0].metric("unread_fanouts_pending");
        seen = seen.max(waiting.unwrap_or(0.0));
        let state = story.compare().await;
        match (state, done) {
            (Ok(()), None) => done = Some(start.elapsed()),
            (Ok(()), Some(_)) if seen > 0.0 => return Ok(()),
            // The gauge is set once in a sweep.
            (Ok(()), Some(at)) if start.elapsed() > at + Duration::from_secs(3) => {
                return Err("the metrics never said that fan-outs wait".to_owned());
            }
            (Err(why), _) if start.elapsed() > FOUND => {
                return Err(format!(
                    "not delivered within {FOUND:?} ({seen} said to wait): {why}"
                ));
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn over_a_step(step: i64) -> Check {
    let (redis, clock) = one_redis();
    let mut story = Story::start(&redis.url(), 1);
    abandon(&mut story, &redis).await?;
    clock.step(step);
    story.start_pods(1);
    let done = found(&story).await;
    story.pods.clear();
    done.map_err(|why| format!("a step of {}: {why}", in_words(step)))
}

async fn over_steps(steps: [i64; 3]) {
    // One Redis for each, all at the same time: what takes time here is waiting.
    let mut tasks = tokio::task::JoinSet::new();
    for step in steps {
        tasks.spawn(over_a_step(step));
    }
    check::all(tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dead_pod_left_is_finished_after_a_step_back() {
    over_steps([-MINUTE, -HOUR, -YEAR]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dead_pod_left_is_finished_after_a_step_forward() {
    over_steps([MINUTE, HOUR, YEAR]).await;
}

/// Rooms and users that had work and have none any more are forgotten, and that is what the indexes of work are small by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_work_leaves_the_indexes_after_a_step_back() {
    let (redis, clock) = one_redis();
    let mut story = Story::start(&redis.url(), 1);
    let rooms = (0..30).map(|n| room(&format!("r{n}"), "group"));
    story.send(0, rooms.collect()).await.unwrap();
    clock.step(-YEAR);
    let start = Instant::now();
    loop {
        let entries = |shard: u32, key: &str| {
            let key = format!("unread:v1:{{pending:{shard}}}:{key}");
            redis.cli(&["ZCARD", &key]).parse::<u32>().unwrap()
        };
        let left: u32 = (0..16)
            .map(|shard| entries(shard, "index") + entries(shard, "look"))
            .sum();
        if left == 0 {
            break;
        }
        assert!(start.elapsed() < FOUND, "{left} entries are left");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// The replica has it all, and its clock is an hour behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dead_pod_left_is_finished_after_a_failover() {
    let sentinels = Sentinels::start_by_clocks(60_000);
    let master = sentinels.master();
    sentinels.clocks[1 - master].set(-HOUR);
    let mut story = Story::start(&sentinels.url(), 1);
    abandon(&mut story, &sentinels.servers[master])
        .await
        .unwrap();
    sentinels.replicated();
    sentinels.fail_over();
    story.start_pods(1);
    found(&story).await.unwrap();
}

/// A cluster whose nodes are an hour apart: the room's, the index's of its work, and those of its members.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dead_pod_left_is_finished_where_nodes_are_apart() {
    let cluster = Cluster::start_by_clocks();
    for (node, clock) in cluster.clocks.iter().enumerate() {
        clock.set([0, HOUR, -HOUR][node % 3]);
    }
    let mut story = Story::start(&cluster.url(), 1);
    for node in 0..3 {
        let r = name_on(&cluster, node, 'r', &format!("r{node}"));
        let pending = format!("unread:v1:{{app-0:r:{r}}}:pending");
        let users = [0, 1, 2].map(|n| name_on(&cluster, n, 'u', &format!("u{node}{n}")));
        let all = users.each_ref().map(String::as_str);
        let setup = vec![room(&r, "group"), joined(&r, &all)];
        story.send(0, setup).await.unwrap();
        // A pod may be quicker than its death.
        for attempt in 0..20 {
            let mut victim = Pod::start_at(&Config::apps(1), &cluster.url());
            let id = |n: usize| format!("m{attempt}-{n}");
            let messages = (0..300).map(|n| message(&r, &id(n), all[n % 2]));
            let events = story.timed(messages.collect());
            for event in &events {
                story.model.apply(event);
            }
            let app = story.apps[0].on(&victim.base);
            let reply = app.events(&json!(events), Wait::Accepted).await;
            victim.kill9();
            assert_eq!(reply.status, 200, "{}", reply.text);
            if cluster.nodes[node].cli(&["HLEN", &pending]) != "0" {
                break;
            }
        }
        story.users.extend(users);
    }
    let start = Instant::now();
    while let Err(why) = story.compare().await {
        assert!(start.elapsed() < FOUND, "not delivered: {why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A pod that lives and has more to deliver than it can at once: a step forward ends its leases, one back makes them long.
/// Nothing is delivered twice for that, and nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn work_of_living_pods_is_delivered_once_while_the_clock_steps() {
    let (redis, clock) = one_redis();
    let mut story = Story::start(&redis.url(), 2);
    story.users = (0..5).map(|n| format!("u{n}")).collect();
    let users = story.users.clone();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let setup = vec![room("r", "group"), joined("r", &users)];
    story.tell(0, setup).await.unwrap();
    for (round, step) in [MINUTE, -HOUR, 2 * MINUTE, -YEAR, 30 * SECOND]
        .into_iter()
        .enumerate()
    {
        let events = (0..200).map(|n| message("r", &format!("m{round}-{n}"), users[n % 3]));
        let events = story.timed(events.collect());
        for event in &events {
            story.model.apply(event);
        }
        let reply = story.apps[round % 2]
            .events(&json!(events), Wait::Accepted)
            .await;
        clock.step(step);
        assert_eq!(reply.ok()["accepted"], 200);
    }
    let start = Instant::now();
    while let Err(why) = story.compare().await {
        assert!(start.elapsed() < FOUND, "{why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
