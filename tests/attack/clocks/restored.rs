//! Data of an earlier day come back, and the clock is behind: revisions are given a second time, for something else.

use serde_json::json;

use super::*;
use crate::support::clock::{DAY, HOUR, MINUTE, in_words};

/// What is in memory goes to disk, and nothing that comes after it: the server's next start begins there.
fn back_up(redis: &RedisServer) {
    assert_eq!(redis.cli(&["SAVE"]), "OK");
}

/// A member list in a pod's memory has the revision of the room's, and is another list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_member_list_is_not_taken_for_another_of_the_same_revision() {
    for kind in ["group", "direct"] {
        let (mut redis, clock) = one_redis();
        let mut story = Story::start(&redis.url(), 2);
        story.users = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let others: &[&str] = if kind == "group" { &["a", "b"] } else { &["a"] };
        let setup = vec![
            json!({"type": "user.updated", "user": "c"}),
            json!({"type": "user.updated", "user": "d"}),
            room("r", kind),
            joined("r", others),
            message("r", "before", "a"),
        ];
        story.tell(0, setup).await.unwrap();
        // From here on every revision is the last one and one more.
        clock.step(-HOUR);
        back_up(&redis);
        let saved = story.model.clone();
        // The first pod learns a list with `c` in it, and that list is lost.
        story.tell(0, vec![joined("r", &["c"])]).await.unwrap();
        story
            .tell(0, vec![message("r", "lost", "a")])
            .await
            .unwrap();
        redis.restart();
        story.model = saved;
        eventually("both pods are back", || async {
            for app in &story.apps {
                check::many(app, &story.model, &story.users).await?;
            }
            Ok(())
        })
        .await;
        // Another pod, which has kept nothing, gives the same revision to a list with `d` in it.
        let fresh = Pod::start(&Config::apps(1), &redis);
        story.apps[1].base.clone_from(&fresh.base);
        story.pods[1] = fresh;
        story.tell(1, vec![joined("r", &["d"])]).await.unwrap();
        story
            .tell(0, vec![message("r", "after", "a")])
            .await
            .unwrap();
        story
            .tell(0, vec![message("r", "answer", "d")])
            .await
            .unwrap();
    }
}

/// A room's node lost the last changes of the room, and its clock is behind: what its members were told is ahead of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_who_are_ahead_of_their_room_are_told_all_the_same() {
    let mut cluster = Cluster::start_by_clocks();
    let mut failures = Vec::new();
    let mut story = Story::start(&cluster.url(), 1);
    for (n, fresh) in [(0, true), (1, false)] {
        let u = name_on(&cluster, 0, 'u', &format!("u{n}"));
        let w = name_on(&cluster, 0, 'u', &format!("w{n}"));
        cluster.clocks[2].set(0);
        let v = name_on(&cluster, 0, 'u', &format!("v{n}"));
        let r = name_on(&cluster, 2, 'r', &format!("r{n}"));
        story.users = vec![u.clone(), v.clone(), w.clone()];
        let done = async {
            story
                .tell(
                    0,
                    vec![
                        room(&r, "group"),
                        joined(&r, &[&w]),
                        message(&r, "before", &w),
                    ],
                )
                .await?;
            cluster.clocks[2].set(-5 * MINUTE);
            back_up(&cluster.nodes[2]);
            let saved = story.model.clone();
            // `u` comes and goes, `v` comes and stays; the room will know nothing of it.
            for _ in 0..5 {
                story.send(0, vec![joined(&r, &[&u])]).await?;
                story
                    .send(0, vec![message(&r, "lost", &w), left(&r, &u)])
                    .await?;
            }
            story.send(0, vec![joined(&r, &[&v])]).await?;
            cluster.nodes[2].restart();
            cluster.settled();
            story.model = saved;
            story.model.lost_messages = true;
            if fresh {
                story.start_pods(2);
            }
            // Users come to exist by being named, and these were.
            for user in [&u, &v] {
                story
                    .model
                    .apply(&json!({"type": "user.updated", "user": user}));
            }
            story.users = vec![u.clone(), w.clone()];
            eventually("the pod is back", || async {
                check::many(&story.apps[0], &story.model, &story.users).await
            })
            .await;
            story.tell(0, vec![joined(&r, &[&u])]).await?;
            story.tell(0, vec![message(&r, "one", &w)]).await?;
            // `v` is in the room by what `v` was told, and not by what the room says: joining puts that right.
            story.users.push(v.clone());
            story
                .tell(0, vec![joined(&r, &[&v]), message(&r, "two", &w)])
                .await?;
            story.tell(0, vec![left(&r, &u), left(&r, &v)]).await?;
            story
                .tell(0, vec![joined(&r, &[&u, &v]), message(&r, "three", &w)])
                .await
        };
        let done: Check = done.await;
        failures.extend(
            done.err()
                .map(|why| format!("pods started anew: {fresh}: {why}")),
        );
    }
    none_failed(story, &failures);
}

/// A room's node was a day ahead, so it has forgotten that the room was there; its users' nodes have not forgotten that they
/// left it. The clock is put right, and the room is made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_made_again_after_all_of_it_was_forgotten_is_a_new_room() {
    let cluster = Cluster::start_by_clocks();
    let u = name_on(&cluster, 0, 'u', "u");
    let r = name_on(&cluster, 2, 'r', "r");
    let mut story = Story::start(&cluster.url(), 1);
    story.users = vec![u.clone()];
    let first = vec![
        room(&r, "group"),
        joined(&r, &[&u]),
        message(&r, "one", "w"),
        json!({"type": "room.deleted", "room": r}),
    ];
    story.tell(0, first).await.unwrap();
    let mut failures = Vec::new();
    for back in [0, 5 * MINUTE] {
        story.start_pods(2);
        cluster.clocks[2].set(2 * DAY);
        // Looked at, and so forgotten.
        let key = format!("unread:v1:{{app-0:r:{r}}}:meta");
        assert_eq!(cluster.nodes[2].cli(&["EXISTS", &key]), "0");
        cluster.clocks[2].set(-back);
        let again = vec![
            room(&r, "group"),
            joined(&r, &[&u]),
            message(&r, "one", "w"),
        ];
        let done = async {
            story.tell(0, again).await?;
            story
                .tell(1, vec![json!({"type": "room.deleted", "room": r})])
                .await
        };
        let done: Check = done.await;
        failures.extend(
            done.err()
                .map(|why| format!("the room's node {}: {why}", in_words(-back))),
        );
    }
    none_failed(story, &failures);
}
