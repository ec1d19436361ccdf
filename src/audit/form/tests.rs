use super::*;

fn right(slot: SlotKind, what: &str, field: &str, value: &str) {
    let form = slot.check(what, field.as_bytes(), value.as_bytes());
    assert_eq!(form, Ok(()), "{what} {field:?} {value:?}");
}

fn wrong(slot: SlotKind, what: &str, field: &str, value: &str) {
    let form = slot.check(what, field.as_bytes(), value.as_bytes());
    assert!(form.is_err(), "{what} {field:?} {value:?}");
}

#[test]
fn what_the_scripts_write_is_in_form() {
    let long_key = format!("{}%2F9999", "x".repeat(255));
    for (what, field, value) in [
        ("counts", "known", "1795347910019664"),
        ("counts", "supers", "1"),
        ("counts", "messages:direct", "0"),
        ("counts", "mentions:group:a%2Cb", "9007199254740991"),
        ("counts", "room:r%2F1", "7"),
        ("refs", "tag:x", "1"),
        ("refs", "direct:bob", "a,b%20c"),
        (
            "rooms",
            "r",
            "j|hoebfz46s0|2bc|2|9|1|0|d|1|t%2C|a%20b,c|bob|-3|3000,7",
        ),
        ("rooms", "r", "i|7|9|0|4|0|0|g|0||||0|"),
        ("rooms", "r", "j|7|9|0|4|0|0|g|0||||0||hsm"),
        ("rooms", "r", "j|7|9|-3|4|0|0|g|0||||0|||2"),
        ("rooms", "r", "j|7|9|1|4|0|0|g|0||||0||h|2,3"),
        ("supers", "s", "j|8|9|-2|1|0||1,9"),
        ("supers", "s", "j|8|9|-2|1|0|e2|1"),
        ("marks", "r|m|0000000000000000", "0"),
        ("marks", "r|m|-999999999999999", "0"),
        ("marks", "r|x|0000000000000006", "0"),
        ("supers", "s", "j|8|9|2|1|0"),
        ("marks", "r|h|0000000000000006", "0"),
        ("left", "r", "5|7"),
        ("left", "*", "5"),
        ("left", "!", "5"),
        ("left", "~", "5"),
        ("keys0", "#", "5"),
        ("keys1", "a%20key", "room.read|"),
        ("keys1", "a%20key#1", "member.joined|17"),
        ("keys1", "a%20key*a%2Fuser", "user.read_all|17"),
        (
            "keys1",
            "waited*a%2Fuser#1700000000000000",
            "room.unread|17",
        ),
        ("keys1", long_key.as_str(), "room.read|17"),
        ("prefs", "r|tags", "5|[\"a|b\"]"),
        ("prefs", "r|hidden", "5|true"),
        ("profile", "nickname", ""),
        ("profile", "is_robot", "1"),
        ("pending", "17", "99\nleave\na,b"),
    ] {
        right(SlotKind::User, what, field, value);
    }
    for (what, field, value) in [
        ("meta", "rev", "5"),
        ("meta", "tags", "a,b"),
        ("meta", "parted", "a%20b,bob"),
        ("meta", "type", ""),
        ("meta", "last_text", "\u{1}\n"),
        ("meta", "service_status", "-9223372036854775808"),
        ("members", "bob", "l|hoebfz46s0|hoebfz46rz"),
        ("members", "bob", "j|hoebfz46s0|7|9|12"),
        ("members", "bob", "hoebfz46s0"),
        ("members", "bob", "hoebfz46s0|7"),
        ("members", "bob", "j|hoebfz46s0|7|||12"),
        ("meta", "resets", "1"),
        ("meta", "last_at", "5"),
        ("meta", "last_at", "5,9"),
        ("meta", "last_payload", "{\"a\":[1]}"),
        ("meta", "mrev", "5.0af91c3e"),
        ("meta", "sealed", "5"),
        ("ids", "m1", "5|1|1700|0|1"),
        ("ids", "m1", "5|1|1700|9|1|s"),
        ("log", "", "5|0|1700|m1"),
        ("log", "", "5|1|1700|m1|bob"),
        ("log", "", "5|1|1700|m1|bob|x,y"),
        ("log", "", "5|1|1700|m1||x"),
        ("recalled", "3", "3"),
        ("pending", "17", "99\nall"),
        ("pending", "17", "99\nall\n\nm|4|h|bob|a,c"),
        ("pending", "17", "99\nsome\nbob\np|hidden\ntrue\n"),
    ] {
        right(SlotKind::Room, what, field, value);
    }
}

#[test]
fn what_no_script_writes_is_out_of_form() {
    for (what, field, value) in [
        ("counts", "known", ""),
        ("counts", "known", "-1"),
        ("counts", "known", "+1"),
        ("counts", "known", "1.5"),
        ("counts", "known", "9007199254740993"),
        ("counts", "known:x", "1"),
        ("counts", "messages:supergroup", "1"),
        ("counts", "messages:group:", "1"),
        ("counts", "room:a b", "1"),
        ("counts", "", "1"),
        ("refs", "tag:x", "one"),
        ("refs", "direct:bob", ""),
        ("refs", "direct:bob", "a,,b"),
        ("refs", "other", "1"),
        ("rooms", "r", ""),
        ("rooms", "r", "j|7|9|0|4|0|0|g|0||||0"),
        ("rooms", "r", "j|7|9|0|4|0|0|g|0||||0|||"),
        ("rooms", "r", "j|7|9|0|4|0|0|g|0||||0||x"),
        ("rooms", "r", "j|7|9|0|4|0|0|g|0||||0||hh"),
        ("rooms", "r", "j|7|9|+1|4|0|0|g|0||||0|"),
        ("rooms", "r", "j|7|9|1|-4|0|0|g|0||||0|"),
        ("rooms", "r", "j|7|9|1|4|0|0|g|0||||0|||"),
        ("rooms", "r", "j|7|9|1|4|0|0|g|0||||0||h|2,x"),
        ("rooms", "r", "j|7|9|0|9007199254740993|0|0|g|0||||0|"),
        ("rooms", "r", "j|7|9|0|4|0|0|g|0|a b||||0|"),
        ("rooms", "r", "j|7|9|0|4|0|0|g|0||a,,b||0|"),
        ("rooms", "a b", "i|7|9|0|4|0|0|g|0||||0|"),
        ("supers", "s", "j|8|9|2|1"),
        ("supers", "s", "l|8|9|2|1|0"),
        ("marks", "r|h|6", "0"),
        ("marks", "r|y|0000000000000006", "0"),
        ("marks", "r|h|-999999999999999", "0"),
        ("marks", "r|m|-99999999999999", "0"),
        ("marks", "r|h|000000000000000x", "0"),
        ("marks", "r|h|0000000000000000", "0"),
        ("marks", "r|h|9999999999999999", "0"),
        ("left", "r", "5"),
        ("left", "*", "5|7"),
        ("prefs", "r|tags", "[]"),
        ("prefs", "r|tags", "5|[1]"),
        ("prefs", "r|other", "5|true"),
        ("prefs", "hidden", "5|true"),
        ("prefs", "r|hidden", "5|maybe"),
        // Valid JSON, but not in the form that is written and that readers of preferences take.
        ("prefs", "r|hidden", "5| true"),
        ("prefs", "r|muted", "5|false\n"),
        ("profile", "is_robot", "yes"),
        ("profile", "other", ""),
        ("pending", "x", "99\nleave\na,b"),
        ("pending", "17", "\nleave\na,b"),
        ("pending", "17", "99\nall"),
    ] {
        wrong(SlotKind::User, what, field, value);
    }
    for (what, field, value) in [
        ("meta", "rev", "x"),
        ("meta", "kind", "channel"),
        ("meta", "status", "2"),
        ("meta", "tags", ","),
        ("meta", "parted", ""),
        ("meta", "parted", "a b"),
        ("meta", "other", "1"),
        ("meta", "service_status", "many"),
        ("meta", "last_at", "5,"),
        ("meta", "last_at", "5,6,7"),
        ("meta", "last_payload", "[]"),
        ("members", "bob", "j"),
        ("members", "bob", "j|"),
        ("members", "bob", "hoebfz46s"),
        ("members", "bob", "hoebfz46s0|"),
        ("members", "bob", "hoebfz46s0|1234567890123456"),
        ("members", "bob", "1234567890"),
        ("members", "bob", "HOEBFZ46S0"),
        ("members", "bob", "hoebfz46s0|7|9"),
        ("members", "bob", "hoebfz46s0|h5"),
        ("members", "bob", "x|5|0"),
        ("members", "bob", "j|5|0|x"),
        ("members", "bob", "j|5|0|1|2|3|4"),
        ("members", "b b", "j|5|0"),
        ("ids", "m1", "5|1|1700|0"),
        ("ids", "m1", "5|1|1700|0|1|x"),
        ("log", "", "5|0|1700"),
        ("log", "", "5|0|1700|a b"),
        ("log", "", "5|1|1700|m1|"),
        ("log", "", "5|1|1700|m1|b b"),
        ("log", "", "5|1|1700|m1|bob|"),
        ("log", "", "5|1|1700|m1|bob|x|y"),
        ("recalled", "x", "3"),
        ("recalled", "3", "4"),
        ("recalled", "3", "inf"),
        ("pending", "17", "all"),
        ("pending", "17", "99\nnobody"),
        ("pending", "17", "99\nall\n\nz|4"),
        ("pending", "17", "99\nsome\nbob\nb|u|4|9||||||"),
        ("pending", "17", "99\nsome\nbob\nb|u|x|9|||||||"),
        ("pending", "17", "99\nsome\nbob\nb|w|4|9|||||||"),
        ("pending", "17", "99\nsome\nbob\nb|u|4|9||||a|||"),
        ("pending", "17", "99\nall\n\nm|4|z|bob|a,c"),
        ("pending", "17", "99\nall\n\nm|4|h|b b|a,c"),
        ("pending", "17", "99\nsome\na,,b"),
        ("pending", "17", "99\nleave\na"),
    ] {
        wrong(SlotKind::Room, what, field, value);
    }
    assert!(SlotKind::User.check("counts", b"tag:\xff", b"1").is_err());
    assert!(
        SlotKind::User
            .check("profile", b"nickname", b"\xff")
            .is_err()
    );
    let app = crate::names::AppId::parse("demo").unwrap();
    let entry = keys::room_entry(&app, &keys::encode("r"));
    let shard = keys::pending_shard(&entry);
    assert_eq!(announced(shard, entry.as_bytes(), b"5"), Ok(()));
    assert!(announced((shard + 1) % 16, entry.as_bytes(), b"5").is_err());
    for entry in [&b"demo:r:a b"[..], b"demo:x:r", b"demo", b"", b"\xff"] {
        assert!((0..16).all(|shard| announced(shard, entry, b"5").is_err()));
    }
    assert!(announced(shard, entry.as_bytes(), b"-inf").is_err());
}
