//! Long random histories against the model, step by step.

/// What the generator makes, and what holds of the model whatever comes. No server is asked.
mod generator;

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;

use crate::support::check;
use crate::support::history::{History, Universe, chosen_seeds, setting};
use crate::support::model::{Model, Outcome};
use crate::support::{App, Config, Pod, RedisServer, app, assert_no_drift};

/// Fixed seeds: a history that fails can be run again.
const SEEDS: [u64; 5] = [4, 5, 6, 7, 8];

/// Histories under way at the same time.
const AT_ONCE: usize = 8;

/// Of a range of seeds those that are a history by arrival, or those that are one by time: four and four in turn, so that a long
/// run has both. One seed that is named, and those of the test itself, are whatever they are asked for.
fn seeds(is_by_time: bool, usual: &[u64]) -> Vec<u64> {
    match chosen_seeds() {
        None => usual.to_vec(),
        Some(one) if one.len() == 1 => one,
        Some(mut range) => {
            range.retain(|seed| (seed / 4 % 2 == 1) == is_by_time);
            range
        }
    }
}

/// Runs all seeds, some at the same time, each in an app of its own. `start` makes the history.
async fn histories(
    label: &'static str,
    start: fn(App, u64) -> History,
    seeds: Vec<u64>,
    twice: bool,
) {
    let steps = setting("TEST_STEPS").unwrap_or(500);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = tokio::task::JoinSet::new();
    let mut shared = None;
    for seed in seeds {
        let app = app();
        let (own, place) = (
            app.clone(),
            Arc::clone(&places).acquire_owned().await.unwrap(),
        );
        tasks.spawn(async move {
            let mut history = start(own.clone(), seed);
            history.run(steps, twice).await.map_err(|reason| {
                let file = history.save(label);
                format!(
                    "TEST_SEED={seed} (all events in {file}), after {} events: {reason}",
                    history.events()
                )
            })?;
            // Nor is there anything that no endpoint shows and that does not add up.
            let look = move || assert_no_drift(&own.redis_url(), &own.keys.id);
            let looked = tokio::task::spawn_blocking(look).await;
            drop(place);
            looked.map_err(|error| format!("TEST_SEED={seed}: {error}"))
        });
        shared = Some(app);
    }
    check::all(tasks).await;
    if let Some(app) = shared {
        app.assert_no_secret_logged();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_agrees_with_the_model() {
    histories("once", History::new, seeds(false, &SEEDS), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_agrees_with_the_model_by_time() {
    histories("time", History::by_time, seeds(true, &[1, 2, 321]), false).await;
}

/// A room that has forgotten all but its last four messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_the_history_is_answered_as_the_model_does() {
    let redis = RedisServer::start();
    let seeds = chosen_seeds().unwrap_or_else(|| vec![201, 202, 203, 205, 206]);
    let mut config = Config::apps(seeds.len());
    config.extra = "[history]\nmax_messages = 4\n".to_owned();
    let pod = Pod::start(&config, &redis);
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, keys) in seeds.into_iter().zip(config.apps) {
        let start = match seed < 203 {
            true => History::new,
            false => History::by_time,
        };
        let mut history = start(App::new(&keys, &pod.base), seed);
        history.model.history = Some(4);
        tasks.spawn(async move {
            let steps = setting("TEST_STEPS").unwrap_or(400);
            history.run(steps, false).await.map_err(|reason| {
                let file = history.save("edges");
                format!("TEST_SEED={seed} (all events in {file}): {reason}")
            })
        });
    }
    check::all(tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_may_be_sent_twice() {
    histories("twice", History::new, seeds(false, &[101]), true).await;
    histories("twice-by-time", History::by_time, seeds(true, &[102]), true).await;
}

#[test]
fn the_generator_reaches_every_outcome() {
    let universe = Universe::new();
    let mut rng = StdRng::seed_from_u64(1);
    let mut model = Model::default();
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..20_000 {
        let event = universe.event(&model, &mut rng);
        // Nobody here to name the rooms that `to` makes.
        if event.get("to").is_some() || !universe.is_defined(&model, &event) {
            continue;
        }
        let outcome = match model.apply(&event) {
            Outcome::Applied(_) => "applied",
            Outcome::Duplicate(_) => "duplicate",
            Outcome::Rejected(code) => code,
        };
        *seen
            .entry((event["type"].as_str().unwrap_or("").to_owned(), outcome))
            .or_insert(0) += 1;
    }
    for expected in [
        ("message.sent", "applied"),
        ("message.sent", "duplicate"),
        ("message.sent", "room_not_found"),
        ("message.updated", "applied"),
        ("message.updated", "duplicate"),
        ("message.updated", "message_not_found"),
        ("message.updated", "room_not_found"),
        ("message.recalled", "applied"),
        ("message.recalled", "duplicate"),
        ("message.recalled", "message_not_found"),
        ("room.read", "applied"),
        ("room.read", "not_a_member"),
        ("room.read", "message_not_found"),
        ("room.updated", "kind_change"),
        ("member.joined", "direct_room_full"),
        ("member.joined", "room_not_found"),
        ("pref.updated", "applied"),
        ("pref.updated", "not_a_member"),
        ("user.deleted", "user_not_found"),
        ("user.read_all", "applied"),
        ("user.read_all", "duplicate"),
        ("room.read", "duplicate"),
        ("room.read", "invalid"),
        ("room.cleared", "applied"),
        ("room.cleared", "duplicate"),
        ("room.cleared", "message_not_found"),
        ("room.cleared", "room_not_found"),
        ("room.updated", "duplicate"),
        ("member.joined", "duplicate"),
        ("pref.updated", "duplicate"),
        ("user.updated", "invalid"),
    ] {
        let count = seen
            .get(&(expected.0.to_owned(), expected.1))
            .copied()
            .unwrap_or(0);
        assert!(count >= 3, "{expected:?} came {count} times: {seen:?}");
    }
}
