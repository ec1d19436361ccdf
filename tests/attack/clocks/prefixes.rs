//! What members see while another pod finishes what a dead one accepted: at each look the counts are those after some first
//! part of the events, and never those after a smaller part than at an earlier look. No clock steps here; what a step may
//! make late has to be right when it comes.

use std::collections::BTreeMap;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::*;
use crate::support::stopped::Stopped;

/// Until when all is delivered that a dead pod accepted.
const DONE: Duration = Duration::from_secs(15);

const MEMBERS: [&str; 5] = ["u0", "u1", "u2", "u3", "u4"];

/// Unread messages, and mentions among them.
type State = (u64, u64);

/// Messages of members, of others and of nobody, with mentions; members read up to their own messages, or don't. The last
/// member sends none, and one other reads by none.
fn messages(room: &str, count: usize, rng: &mut StdRng) -> Vec<Value> {
    (0..count)
        .map(|n| {
            let mut event = json!({
                "type": "message.sent", "room": room, "id": format!("m{n}"), "text": "hello",
                "time": START + n as i64,
            });
            let sender = *["u0", "u0", "u1", "u2", "u3", "outsider", ""]
                .choose(rng)
                .unwrap();
            if !sender.is_empty() {
                event["sender"] = sender.into();
                event["mark_read"] = (sender != "u3" && rng.random_bool(0.01)).into();
            }
            match rng.random_range(0..20) {
                0..8 => {
                    event["mentions"] = json!(MEMBERS.choose_multiple(rng, 2).collect::<Vec<_>>())
                }
                8 => event["mentions"] = "all".into(),
                _ => {}
            }
            event
        })
        .collect()
}

/// What a member's counts are after each first part of the messages, from none to all.
fn states(member: &str, events: &[Value]) -> Vec<State> {
    let (mut unread, mut mentions) = (0, 0);
    let mut states = vec![(0, 0)];
    for event in events {
        let named = event["mentions"] == "all"
            || event["mentions"]
                .as_array()
                .is_some_and(|users| users.iter().any(|user| user == member));
        if event["sender"] != member {
            unread += 1;
            mentions += u64::from(named);
        } else if event["mark_read"] == true {
            (unread, mentions) = (0, 0);
        }
        states.push((unread, mentions));
    }
    states
}

/// Looks at all members' counts, again and again.
struct Watch {
    app: App,
    /// By member: the states that there may be, how many events the last look showed at least, and what it showed.
    members: BTreeMap<&'static str, (Vec<State>, usize, State)>,
    wrong: Vec<String>,
}

impl Watch {
    fn new(app: &App, events: &[Value]) -> Self {
        let of = |member| (member, (states(member, events), 0, (0, 0)));
        Self {
            app: app.clone(),
            members: MEMBERS.map(of).into(),
            wrong: Vec::new(),
        }
    }

    /// Looks once. Answers whether every member sees all of the events.
    async fn look(&mut self) -> bool {
        let answer = self.app.unread_many(&MEMBERS).await.ok();
        let mut whole = true;
        for (member, (states, at_least, last)) in &mut self.members {
            let counts = &answer["users"][*member];
            let total = |family: &str| counts[family]["total"].as_u64().unwrap();
            let seen = (total("messages"), total("mentions"));
            whole &= Some(&seen) == states.last();
            if seen == *last {
                continue;
            }
            *last = seen;
            match (*at_least..states.len()).find(|first| states[*first] == seen) {
                Some(first) => *at_least = first,
                None if self.wrong.len() < 5 => self.wrong.push(format!(
                    "{member} has {} unread and {} mentions, which is so after no first part of the events with {at_least} or more",
                    seen.0, seen.1
                )),
                None => {}
            }
        }
        whole
    }

    /// Looks until every member sees all of the events. Not to have come there by `deadline` is noted as wrong.
    async fn until(&mut self, start: Instant, deadline: Duration) {
        let mut waits = 0;
        while !self.look().await {
            if start.elapsed() > deadline {
                let last: Vec<_> = self
                    .members
                    .iter()
                    .map(|(member, (_, _, last))| (member, last))
                    .collect();
                self.wrong
                    .push(format!("not done within {deadline:?}: {last:?}"));
                return;
            }
            waits += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        println!("all seen after {:?} and {waits} looks", start.elapsed());
    }
}

/// A pod accepts so many messages, and dies before it has told anybody.
async fn left_behind(kind: &str, count: usize) {
    let redis = RedisServer::start();
    let story = Story::start(&redis.url(), 1);
    let app = &story.apps[0];
    app.must(&json!([room("r", kind), joined("r", &MEMBERS)]))
        .await;
    let events = messages("r", count, &mut StdRng::seed_from_u64(13));
    let mut config = Config::apps(1);
    config.extra = "response_timeout_ms = 60000\n".to_owned();
    let stopped = Stopped::before(&config, &redis, app, "deliver", json!(events));
    let jobs = redis.cli(&["HLEN", "unread:v1:{app-0:r:r}:pending"]);
    assert_ne!(jobs, "0", "nothing is left to finish");
    let mut watch = Watch::new(app, &events);
    watch.look().await;
    stopped.dies().await;
    watch.until(Instant::now(), DONE).await;
    assert!(
        watch.wrong.is_empty(),
        "{jobs} fan-outs were left\n{}",
        watch.wrong.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_messages_of_a_dead_pod_are_seen_in_order() {
    left_behind("group", 3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_of_a_dead_pod_are_seen_in_order() {
    left_behind("group", 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_of_a_dead_pod_are_seen_in_order_in_a_supergroup() {
    left_behind("supergroup", 1_000).await;
}

/// The same while all pods live: one request with more mentions of everybody than go out at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_request_is_seen_in_order() {
    let redis = RedisServer::start();
    let story = Story::start(&redis.url(), 2);
    let app = &story.apps[0];
    app.must(&json!([room("r", "group"), joined("r", &MEMBERS)]))
        .await;
    let mut events = messages("r", 3_000, &mut StdRng::seed_from_u64(14));
    for event in &mut events {
        event["mentions"] = "all".into();
    }
    let mut watch = Watch::new(app, &events);
    let other = story.apps[1].clone();
    let body = json!(events);
    let sending = tokio::spawn(async move { other.events(&body, Wait::Accepted).await });
    watch.until(Instant::now(), DONE).await;
    assert_eq!(sending.await.unwrap().ok()["accepted"], 3_000);
    assert!(watch.wrong.is_empty(), "{}", watch.wrong.join("\n"));
}
