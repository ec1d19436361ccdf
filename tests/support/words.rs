//! Words for the events and fields that a random history may be without. So each of them can be let in alone.

use serde_json::Value;

use super::model::Order;

pub static ALL: [&str; 10] = [
    "room.unread",
    "room.cleared",
    "counts.set",
    "message.updated",
    "except",
    // `sender` and `to` of a recall.
    "recall.to",
    // `up_to_position` of `room.read`.
    "position",
    // Of `pref.updated`.
    "count",
    "extra",
    // `?order=time`.
    "order",
];

/// Those of histories by arrival: also of those on servers whose clocks step apart, which the model does not know. (One clock it can
/// be told: `History::ahead`.)
pub fn by_arrival() -> &'static [&'static str] {
    let (order, others) = ALL.split_last().unwrap();
    assert_eq!(*order, "order");
    others
}

/// The words that an event needs.
pub fn of(order: Order, event: &Value) -> Vec<&'static str> {
    let mut words = Vec::new();
    let kind = event["type"].as_str().unwrap_or_default();
    for word in [
        "room.unread",
        "room.cleared",
        "counts.set",
        "message.updated",
    ] {
        if kind == word {
            words.push(word);
        }
    }
    for (field, word) in [("except", "except"), ("count", "count"), ("extra", "extra")] {
        if !event[field].is_null() {
            words.push(word);
        }
    }
    if !event["up_to_position"].is_null() && kind == "room.read" {
        words.push("position");
    }
    if !event["to"].is_null() && kind != "message.sent" {
        words.push("recall.to");
    }
    if order != Order::Arrival {
        words.push("order");
    }
    words
}
