//! Words for the events and fields that a random history may be without. So each of them can be let in alone.

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
