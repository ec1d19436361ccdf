use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn slot() -> Slot {
    Slot {
        counts: map(&[
            ("known", "5"),
            ("supers", "1"),
            ("messages:direct", "2"),
            ("messages:group", "3"),
            ("messages:group:t", "3"),
            ("mentions:group", "1"),
            ("mentions:group:t", "1"),
            ("invitations:group", "1"),
            ("room:d", "2"),
            ("room:g", "3"),
            ("peer:bob", "2"),
            ("tag:x", "3"),
            ("unread_rooms:direct", "1"),
            ("unread_rooms:group", "1"),
        ]),
        rooms: map(&[
            ("d", "j|5|9|1|3|0|0|d|1|||bob|-3|0,-2"),
            ("g", "j|6|9|4|8|1|1|g|1|t|x,y||0|"),
            ("i", "i|7|9|0|4|0|0|g|1||x||0|"),
            ("off", "j|7|9|0|4|0|0|g|0||x||0|"),
        ]),
        supers: map(&[("s", "j|8|9|2|0|0")]),
        refs: map(&[
            ("direct:bob", "d"),
            ("tag:x", "1"),
            ("tag:y", "1"),
            ("type:t", "1"),
        ]),
        marks: vec!["g|h|0000000000000006".into(), "g|m|0000000000000007".into()],
        ..Slot::default()
    }
}

/// The same, with the count of the tag `y`, too.
fn right() -> Slot {
    let mut slot = slot();
    slot.counts.insert("tag:y".into(), "3".into());
    slot
}

#[test]
fn a_slot_that_adds_up_has_no_drift() {
    assert_eq!(right().drift(), vec![]);
    assert_eq!(Slot::default().drift(), vec![]);
}

#[test]
fn records_tell_the_preferences_that_are_true() {
    let mut slot = right();
    for (field, stored) in [
        ("g|sticky", "5|true"),
        ("g|muted", "5|false"),
        ("g|folder", "5|\"hidden|true\""),
        ("g|hidden", "6|true"),
        ("d|tags", "7|[\"|true\"]"),
        ("s|sticky", "7|true"),
    ] {
        slot.prefs.insert(field.into(), stored.into());
    }
    let drift = slot.drift();
    assert_eq!(drift.len(), 1, "{drift:?}");
    let expected = "j|6|9|4|8|1|1|g|1|t|x,y||0||hs";
    assert_eq!(drift[0].expected.as_deref(), Some(expected));
    slot.rooms.insert("g".into(), expected.into());
    assert_eq!(slot.drift(), vec![]);
}

#[test]
fn what_is_missing_wrong_or_too_much_is_named() {
    let drift = slot().drift();
    assert_eq!(drift.len(), 1);
    assert_eq!((drift[0].key, drift[0].field.as_str()), ("counts", "tag:y"));
    assert_eq!(drift[0].stored, None);
    assert_eq!(drift[0].expected.as_deref(), Some("3"));

    let mut slot = right();
    slot.marks.push("g|m|0000000000000006".into());
    slot.marks.push("g|h|0000000000000002".into());
    slot.marks.push("gone|h|0000000000000002".into());
    slot.marks.push("nonsense".into());
    assert_eq!(slot.drift().len(), 4);

    let mut slot = right();
    slot.marks.pop();
    let fields: Vec<String> = slot.drift().into_iter().map(|d| d.field).collect();
    assert_eq!(fields, ["mentions:group", "mentions:group:t", "g"]);

    let mut slot = right();
    slot.counts.remove("known");
    slot.rooms.insert("bad".into(), "j|x".into());
    let drift = slot.drift();
    assert_eq!(drift.len(), 2);
    assert_eq!(drift[0].expected.as_deref(), Some("5"));
    assert_eq!(drift[1].expected, None);
}

type Pairs<'a> = &'a [(&'a str, &'a [u8])];

/// As `user_dump.lua` answers it.
fn dump(keys: [Option<Pairs<'_>>; 9]) -> Slot {
    let names = [
        "counts", "rooms", "supers", "refs", "left", "prefs", "profile", "pending", "marks",
    ];
    let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
    let mut reply = vec![Value::Int(9)];
    for (name, key) in names.into_iter().zip(keys) {
        reply.push(match key {
            None => bulk(name.as_bytes()),
            Some(pairs) => {
                let flat = pairs
                    .iter()
                    .flat_map(|(f, v)| [bulk(f.as_bytes()), bulk(v)]);
                Value::Array(flat.collect())
            }
        });
    }
    Slot::read(Reply::new(Value::Array(reply)).unwrap()).unwrap()
}

const NONE: Option<Pairs<'static>> = Some(&[]);

#[test]
fn what_follows_from_records_that_cannot_be_read_is_not_judged() {
    let counts: Pairs<'_> = &[("known", b"5"), ("room:g", b"3"), ("tag:x", b"bad")];
    let rooms: Pairs<'_> = &[
        ("g", b"j|cut"),
        ("a b", b"x"),
        ("ok", b"j|6|9|4|4|0|0|g|1||||0|"),
    ];
    let mut slot = dump([
        Some(counts),
        Some(rooms),
        NONE,
        NONE,
        NONE,
        NONE,
        NONE,
        NONE,
        NONE,
    ]);
    let bad: Vec<&str> = slot.bad.iter().map(|bad| bad.what).collect();
    assert_eq!(bad, ["counts", "rooms", "rooms"]);
    assert_eq!(slot.blocked, BTreeSet::from(["g".to_owned()]));
    assert!(!slot.is_whole() && !slot.is_readable("g") && slot.is_readable("ok"));
    // Only the record under an invalid name is drift; the counts may be right.
    let fields = |slot: &Slot| -> Vec<String> {
        let drift = slot.drift().into_iter();
        drift.map(|drift| drift.field).collect()
    };
    assert_eq!(fields(&slot), ["a b"]);
    assert_eq!(slot.hinted_rooms().len(), 2);
    assert_eq!(slot.recorded_rooms().len(), 1);
    assert!(!slot.bad.iter().any(|bad| slot.is_derived(bad)));
    // The room says that the user is not there.
    slot.release("g");
    assert_eq!(fields(&slot), ["room:g", "tag:x", "a b", "g"]);
    assert!(slot.bad.iter().all(|bad| slot.is_derived(bad)));
}

#[test]
fn a_key_of_another_type_is_none_that_is_empty() {
    let record: Pairs<'_> = &[("g", b"j|6|9|4|8|1|1|g|1|t|x||0||h")];
    for wrong in 0..9 {
        let mut keys = [NONE; 9];
        keys[1] = Some(record);
        keys[wrong] = None;
        let slot = dump(keys);
        assert_eq!(slot.bad.len(), 1);
        let drift: BTreeSet<&str> = slot.drift().iter().map(|drift| drift.key).collect();
        let expected: &[&str] = match wrong {
            // Without records and marks nothing can be compared.
            1 | 2 | 8 => &[],
            0 => &["refs", "rooms"],
            3 => &["counts", "rooms"],
            _ => &["counts", "refs", "rooms"],
        };
        assert_eq!(drift, expected.iter().copied().collect(), "{wrong}");
        assert_eq!(slot.leaving, wrong == 7);
        // Preferences that can't be read leave the letters of the record as they are.
        let recorded = slot.recorded_preferences();
        assert_eq!(recorded.contains_key("g|hidden"), wrong != 1);
    }
}
