//! Random queries to `GET /rooms`.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;

use super::universe::{FUTURE, START, TAGS, Universe};
use crate::support::model::{Condition, RoomsQuery, SortBy};

impl Universe {
    pub(super) fn query(&self, rng: &mut StdRng) -> RoomsQuery {
        let mut query = RoomsQuery {
            unread_first: rng.random_bool(0.4),
            as_iso: rng.random_bool(0.5),
            q_members: rng.random_bool(0.3),
            ..RoomsQuery::default()
        };
        if rng.random_bool(0.5) {
            query.sort.push((SortBy::LastMessage, rng.random_bool(0.5)));
        }
        if rng.random_bool(0.4) {
            query.sort.push((SortBy::CreatedTime, rng.random_bool(0.5)));
        }
        while rng.random_bool(0.3) {
            let by = SortBy::ALL[rng.random_range(0..SortBy::ALL.len())];
            let at = rng.random_range(0..=query.sort.len());
            query.sort.insert(at, (by, rng.random_bool(0.5)));
        }
        if rng.random_bool(0.4) {
            query.skip = rng.random_range(0..5);
            query.limit = rng.random_range(0..5);
        }
        if rng.random_bool(0.3) {
            // All was accepted after the one, and before the other.
            let start = if rng.random_bool(0.5) { FUTURE } else { START };
            query.updated_after = Some(start + rng.random_range(0..300_000));
        }
        let tag = |rng: &mut StdRng| json!(TAGS.choose(rng).unwrap());
        match rng.random_range(0..10) {
            0 => query.q.push(("roomTags", Condition::Equal(tag(rng)))),
            1 => query
                .q
                .push(("roomTags", Condition::In(vec![tag(rng), tag(rng)]))),
            2 => query
                .q
                .push(("roomTags", Condition::All(vec![tag(rng), tag(rng)]))),
            3 => query.q.push(("roomType", Condition::Equal(json!("group")))),
            4 => {
                query.q.push((
                    "roomType",
                    Condition::In(vec![json!("direct"), json!("custom")]),
                ));
                query.q.push(("roomTags", Condition::Equal(tag(rng))));
            }
            5 => query.q.push((
                "_id",
                Condition::Equal(json!(self.groups.choose(rng).unwrap())),
            )),
            6 => query.q.push((
                "_id",
                Condition::In(self.groups[..4].iter().map(|id| json!(id)).collect()),
            )),
            _ => {}
        }
        match rng.random_range(0..12) {
            0 => query.pref.push(("tags", Condition::Equal(json!("vip")))),
            1 => query
                .pref
                .push(("tags", Condition::All(vec![json!("vip"), json!("a b")]))),
            2 => query
                .pref
                .push(("folder", Condition::NotEqual(json!("Work")))),
            3 => query.pref.push(("hidden", Condition::Equal(json!(false)))),
            7 => query.pref.push(("muted", Condition::Equal(json!(true)))),
            8 => query.pref.extend([
                ("sticky", Condition::Equal(json!(true))),
                ("hidden", Condition::NotEqual(json!(true))),
            ]),
            4 => query
                .pref
                .push(("tags", Condition::In(vec![json!("later"), json!("x")]))),
            5 => query
                .pref
                .push(("sticky", Condition::Exists(rng.random_bool(0.7)))),
            6 => query
                .pref
                .push(("folder", Condition::In(vec![json!("Work"), json!("f/o")]))),
            _ => {}
        }
        query
    }
}
