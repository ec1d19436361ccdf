//! Many writers and readers at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use crate::support::check;
use crate::support::traffic::{self, Answered, Writer};
use crate::support::{Wait, app};

/// Twenty connections write into the same five rooms, a third of the requests twice at the same time, while others read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_writers_and_five_readers_agree_in_the_end() {
    let app = app();
    app.must(&traffic::setup()).await;
    let answered = Arc::new(Answered::default());
    let over = Arc::new(AtomicBool::new(false));

    let mut writers = tokio::task::JoinSet::new();
    for name in 0..20 {
        let (mut one, mut other) = (app.on(&app.base), app.on(&app.base));
        let answered = Arc::clone(&answered);
        writers.spawn(async move {
            let rng = StdRng::seed_from_u64(name as u64);
            let mut writer = Writer::new(name, rng).with_rooms_of_its_own();
            for round in 0..12 {
                let batch = writer.next(5);
                (one.by_time, other.by_time) = (batch.by_time, batch.by_time);
                if round % 3 == 0 {
                    let (a, b) = tokio::join!(
                        one.events(&batch.events, Wait::Applied),
                        other.events(&batch.events, Wait::Applied)
                    );
                    answered.record_batch(&batch, &a);
                    answered.record_batch(&batch, &b);
                } else {
                    let reply = one.events(&batch.events, Wait::Applied).await;
                    answered.record_batch(&batch, &reply);
                }
            }
        });
    }
    let mut readers = tokio::task::JoinSet::new();
    for first in 0..5 {
        let (app, over) = (app.on(&app.base), Arc::clone(&over));
        readers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                for user in traffic::everybody().iter().skip(first).step_by(5) {
                    check::sums(&app, user).await?;
                }
            }
            Ok::<(), String>(())
        });
    }
    writers.join_all().await;
    over.store(true, Ordering::Relaxed);
    for outcome in readers.join_all().await {
        outcome.unwrap();
    }
    traffic::compare(&app, &answered.model()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_sent_twice_at_once_is_one_message() {
    let one = app();
    let other = one.on(&one.base);
    one.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "users": ["alice", "bob"]},
    ]))
    .await;
    for n in 1..=50 {
        let event =
            json!({"type": "message.sent", "room": "r", "id": format!("m{n}"), "sender": "alice"});
        let (a, b) = tokio::join!(one.must(&event), other.must(&event));
        let mut states = [
            a[0]["status"].as_str().unwrap(),
            b[0]["status"].as_str().unwrap(),
        ];
        states.sort_unstable();
        assert_eq!(states, ["applied", "duplicate"], "{a:?} {b:?}");
        assert_eq!(
            (&a[0]["position"], &b[0]["position"]),
            (&json!(n), &json!(n))
        );
        // Both answers, also that of the duplicate, promise that the counts show the message.
        assert_eq!(one.unread("bob", false).await.ok()["messages"]["total"], n);
    }
}
