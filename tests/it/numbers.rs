//! Whatever has happened to a room or to who is in it: what two endpoints say of one thing is the same, totals are the sums
//! of the parts that are listed, and what is in one list is in the other.
//!
//! Nothing here knows what the numbers ought to be; the model does.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::support::check::Check;
use crate::support::{App, app, assert_no_drift};

/// What happens to the room `r` of `a` and `b`, of whom `c` knows; each is one request.
const CHANGES: [&str; 20] = [
    "a leaves",
    "b leaves",
    "both leave",
    "a comes back",
    "c is invited",
    "c declines",
    "c joins",
    "a is deleted",
    "b is deleted",
    "goes off",
    "goes on",
    "is deleted",
    "is made again",
    "becomes a supergroup",
    "other tags",
    "no tags",
    "another type",
    "a reads",
    "a message by name",
    "a message to a",
];

/// The users and rooms of one scene; each scene has its own.
struct Scene {
    app: App,
    users: [String; 3],
    room: String,
    beside: String,
    kind: &'static str,
}

impl Scene {
    fn new(app: &App, n: usize, kind: &'static str) -> Self {
        Self {
            app: app.clone(),
            users: ["a", "b", "c"].map(|user| format!("{user}{n}")),
            room: format!("r{n}"),
            beside: format!("beside{n}"),
            kind,
        }
    }

    /// A room of two with something unread and mentioned for both, and one beside it that stays as it is.
    async fn begin(&self) {
        let [a, b, c] = &self.users;
        let (room, beside) = (&self.room, &self.beside);
        let sent = |room: &str, id: &str, sender: &str| json!({"type": "message.sent", "room": room, "id": id, "sender": sender, "mentions": "all"});
        let events = json!([
            {"type": "room.updated", "room": room, "kind": self.kind, "tags": ["x", "y"], "custom_type": "t"},
            {"type": "room.updated", "room": beside, "kind": "group", "tags": ["y", "z"], "custom_type": "u"},
            {"type": "member.joined", "room": room, "users": [a, b]},
            {"type": "member.joined", "room": beside, "users": [a, b, c]},
            sent(room, "1", b),
            {"type": "message.sent", "room": room, "id": "2", "sender": a, "mark_read": false},
            sent(room, "3", b),
            sent(beside, "1", c),
        ]);
        self.app.must(&events).await;
    }

    async fn change(&self, what: &str, n: usize) {
        let [a, b, c] = &self.users;
        let room = &self.room;
        let member = |word: &str, users: &[&String]| json!({"type": format!("member.{word}"), "room": room, "users": users});
        let updated = |field: &str, value: Value| {
            let mut event = json!({"type": "room.updated", "room": room});
            event[field] = value;
            event
        };
        let id = format!("then {n}");
        let event = match what {
            "a leaves" => member("left", &[a]),
            "b leaves" => member("left", &[b]),
            "both leave" => member("left", &[a, b]),
            "a comes back" => json!([member("left", &[a]), member("joined", &[a])]),
            "c is invited" => member("invited", &[c]),
            "c declines" => json!([member("invited", &[c]), member("left", &[c])]),
            "c joins" => member("joined", &[c]),
            "a is deleted" => json!({"type": "user.deleted", "user": a}),
            "b is deleted" => json!({"type": "user.deleted", "user": b}),
            "goes off" => updated("status", json!(0)),
            "goes on" => json!([updated("status", json!(0)), updated("status", json!(1))]),
            "is deleted" => json!({"type": "room.deleted", "room": room}),
            "is made again" => json!([
                {"type": "room.deleted", "room": room},
                {"type": "room.updated", "room": room, "kind": self.kind, "tags": ["z"]},
                member("joined", &[a, b]),
            ]),
            "becomes a supergroup" => updated("kind", json!("supergroup")),
            "other tags" => updated("tags", json!(["y", "w"])),
            "no tags" => updated("tags", json!([])),
            "another type" => updated("custom_type", json!("u")),
            "a reads" => json!({"type": "room.read", "room": room, "user": a}),
            "a message by name" => {
                json!({"type": "message.sent", "room": room, "id": id, "sender": b, "mentions": [a]})
            }
            "a message to a" => {
                json!({"type": "message.sent", "to": a, "id": id, "sender": b, "mentions": [a]})
            }
            other => panic!("no such change: {other}"),
        };
        // Some of it is refused, as a third one in a direct room is.
        self.app
            .events(&event, crate::support::Wait::Applied)
            .await
            .ok();
    }

    /// Asks everybody for everything.
    async fn agrees(&self) -> Check {
        for user in &self.users {
            self.agrees_for(user)
                .await
                .map_err(|why| format!("{user}: {why}"))?;
        }
        Ok(())
    }

    async fn agrees_for(&self, user: &str) -> Check {
        let app = &self.app;
        let native = app.unread(user, true).await;
        let many = app.unread_many(&[user]).await.ok();
        let total = app.tencent_total(user).await.ok();
        let nine = app.sendbird(user, None, None).await;
        let badges = app.imkit_badges::<&str>(user, None).await.ok();
        let listed = app.imkit_rooms(user, &[]).await.ok();
        let (badges, listed) = (&badges["result"], &listed["result"]);
        if native.status == 404 {
            // Nobody knows the user, in any dialect.
            same("POST /v1/unread", &many["users"][user], &Value::Null)?;
            same("Tencent", &total["ErrorCode"], &json!(90003))?;
            same("Sendbird", &nine.body["code"], &json!(400_201))?;
            same("badges", badges, &json!({"totalBadge": 0, "data": {}}))?;
            return same("GET /rooms", &listed["totalCount"], &json!(0));
        }
        let (native, nine) = (native.ok(), nine.ok());
        let families = ["messages", "mentions", "invitations", "unread_rooms"];
        for family in families {
            same(
                "POST /v1/unread",
                &many["users"][user][family],
                &native[family],
            )?;
        }

        // The rows of the list, summed up.
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        let mut unread: BTreeMap<&str, u64> = BTreeMap::new();
        for row in native["rooms"].as_array().unwrap() {
            let text = |field: &str| row[field].as_str().unwrap_or("");
            unread.insert(text("room"), row["messages"].as_u64().unwrap());
            *sums
                .entry(format!("unread_rooms {}", text("kind")))
                .or_default() += u64::from(row["messages"] != 0);
            for family in ["messages", "mentions"] {
                let n = row[family].as_u64().unwrap();
                *sums
                    .entry(format!("{family} {}", text("kind")))
                    .or_default() += n;
                *sums
                    .entry(format!(
                        "{family} {} of {}",
                        text("kind"),
                        text("custom_type")
                    ))
                    .or_default() += n;
                if family == "messages" {
                    *sums
                        .entry(format!("type {}", text("custom_type")))
                        .or_default() += n;
                    for tag in row["tags"].as_array().unwrap() {
                        *sums
                            .entry(format!("tag {}", tag.as_str().unwrap()))
                            .or_default() += n;
                    }
                }
            }
        }
        let sum = |what: &str| json!(sums.get(what).copied().unwrap_or(0));
        for family in ["messages", "mentions", "unread_rooms"] {
            for kind in ["direct", "group", "supergroup"] {
                same(
                    "a total",
                    &native[family][kind],
                    &sum(&format!("{family} {kind}")),
                )?;
            }
        }
        for (name, field) in [("tag", "tags"), ("type", "types")] {
            let named = format!("{name} ");
            let of = sums
                .iter()
                .filter_map(|(what, n)| Some((what.strip_prefix(&named)?, n)));
            let expected: BTreeMap<&str, &u64> = of.filter(|(what, _)| !what.is_empty()).collect();
            same(field, &native[field], &json!(expected))?;
        }

        // The other dialects.
        same(
            "Tencent",
            &total["AllC2CUnreadMsgNum"],
            &native["messages"]["direct"],
        )?;
        let peers = app.tencent_peers(user, &self.users).await.ok();
        let of_peers = peers["C2CUnreadMsgNumList"]
            .as_array()
            .into_iter()
            .flatten();
        let of_peers: u64 = of_peers
            .map(|row| row["C2CUnreadMsgNum"].as_u64().unwrap())
            .sum();
        same(
            "Tencent by peer",
            &json!(of_peers),
            &native["messages"]["direct"],
        )?;
        sendbird("Sendbird", &nine, |family, kind| {
            native[family][kind].as_u64().unwrap_or(0)
        })?;
        for of_type in ["t", "u"] {
            let of_those = app.sendbird(user, None, Some(of_type)).await.ok();
            let number = |family: &str, kind: &str| {
                if family == "invitations" {
                    // No list has these.
                    return of_those[format!("{}_invitation_count", super_or_not(kind))]
                        .as_u64()
                        .filter(|_| kind != "direct")
                        .unwrap_or(0);
                }
                sums.get(&format!("{family} {kind} of {of_type}"))
                    .copied()
                    .unwrap_or(0)
            };
            sendbird("Sendbird by type", &of_those, number)?;
        }
        same("badges", &badges["data"], &native["tags"])?;
        let asked = ["w", "x", "y", "z"];
        let of_those = app.imkit_badges(user, Some(&asked)).await.ok();
        let expected: BTreeMap<&str, Value> = asked
            .iter()
            .map(|tag| (*tag, sum(&format!("tag {tag}"))))
            .collect();
        same(
            "badges of tags",
            &of_those["result"]["data"],
            &json!(expected),
        )?;
        let added: u64 = expected.values().filter_map(Value::as_u64).sum();
        same(
            "totalBadge",
            &of_those["result"]["totalBadge"],
            &json!(added),
        )?;
        let rows = listed["data"].as_array().unwrap();
        let shown: BTreeMap<&str, u64> = rows
            .iter()
            .map(|row| {
                (
                    row["_id"].as_str().unwrap(),
                    row["unread"].as_u64().unwrap(),
                )
            })
            .collect();
        same("GET /rooms", &json!(shown), &json!(unread))?;
        same("totalCount", &listed["totalCount"], &json!(unread.len()))?;

        // The rooms themselves: who is in none of the lists has nothing there.
        let rooms = [self.room.as_str(), self.beside.as_str()]
            .into_iter()
            .chain(unread.keys().copied());
        for room in rooms.collect::<BTreeSet<_>>() {
            let reply = app.room_unread(room, Some(&[user])).await;
            let said = reply.body["unread"][user].as_u64().unwrap_or(0);
            same(
                room,
                &json!(said),
                &json!(unread.get(room).copied().unwrap_or(0)),
            )?;
            let whole = app.room_unread::<&str>(room, None).await;
            same(
                room,
                &whole.body["unread"][user],
                &reply.body["unread"][user],
            )?;
        }
        Ok(())
    }
}

fn super_or_not(kind: &str) -> &'static str {
    match kind {
        "supergroup" => "super_group_channel",
        _ => "non_super_group_channel",
    }
}

/// The nine keys, from numbers by family and kind.
fn sendbird(what: &str, nine: &Value, number: impl Fn(&str, &str) -> u64) -> Check {
    let names = [
        ("messages", "unread_message_count"),
        ("mentions", "unread_mention_count"),
        ("invitations", "invitation_count"),
    ];
    for (family, name) in names {
        let small = number(family, "direct") + number(family, "group");
        let large = number(family, "supergroup");
        for (prefix, expected) in [
            ("non_super_", small),
            ("super_", large),
            ("", small + large),
        ] {
            let key = format!("{prefix}group_channel_{name}");
            same(&format!("{what}, {key}"), &nine[&key], &json!(expected))?;
        }
    }
    Ok(())
}

fn same(what: &str, got: &Value, expected: &Value) -> Check {
    match got == expected {
        true => Ok(()),
        false => Err(format!("{what}: {got} where {expected} was expected")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_numbers_disagree_whatever_has_happened() {
    let app = app();
    let mut scenes = Vec::new();
    for kind in ["direct", "group", "supergroup"] {
        for (a, first) in CHANGES.into_iter().enumerate() {
            for (b, second) in CHANGES.into_iter().enumerate() {
                // Of two who are alone in their room all that there is; of the others every change before and after a third of
                // all.
                if kind == "direct" || (a + b) % 3 == 0 {
                    scenes.push((kind, first, second));
                }
            }
        }
    }
    let failures: Vec<String> = stream::iter(scenes.into_iter().enumerate())
        .map(|(n, (kind, first, second))| {
            let scene = Scene::new(&app, n, kind);
            async move {
                scene.begin().await;
                scene.change(first, 1).await;
                scene.change(second, 2).await;
                let why = scene.agrees().await.err()?;
                Some(format!("{kind}, {first}, {second}: {why}"))
            }
        })
        .buffer_unordered(8)
        .filter_map(|failure| async move { failure })
        .collect()
        .await;
    let first = failures.iter().take(20).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{} scenes:\n{}",
        failures.len(),
        first.join("\n")
    );
    assert_no_drift(&app.redis_url(), &app.keys.id);
}
