use super::text::TextFault;
use super::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::de::IgnoredAny;

fn read(text: &str) -> Raw<'_> {
    parse(text.as_bytes()).unwrap()
}

fn fault(text: &str) -> usize {
    let fault = parse(text.as_bytes()).unwrap_err();
    assert!(!fault.deep, "{text}");
    fault.read
}

/// Texts of many pieces that are JSON now and then, and near it as a rule.
fn random(rng: &mut StdRng) -> String {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\"",
        "\"\\n\\u00e9\"",
        "1",
        "-0.5e+7",
        "01",
        "-",
        "1.",
        "true",
        "nul",
        "null",
        " ",
        "{\"a\":1}",
        "[1,2]",
        "\"x\":",
        "false",
        "\"é🙂\"",
        "\"",
        "1e9",
    ];
    let some = |rng: &mut StdRng| -> String {
        let length = rng.random_range(1..8);
        (0..length)
            .filter_map(|_| PIECES.choose(rng).copied())
            .collect()
    };
    match rng.random_range(0..3) {
        0 => some(rng),
        1 => format!("[{},{}]", some(rng), some(rng)),
        _ => format!("{{\"k\": {}, \"l\":[{}]}}", some(rng), some(rng)),
    }
}

#[test]
fn what_is_json_is_what_serde_takes_for_it() {
    let mut rng = StdRng::seed_from_u64(8);
    let mut good = 0;
    for _ in 0..100_000 {
        let text = random(&mut rng);
        let reference = serde_json::from_str::<IgnoredAny>(&text);
        let found = parse(text.as_bytes());
        assert_eq!(found.is_ok(), reference.is_ok(), "{text}");
        good += usize::from(found.is_ok());
    }
    assert!((1_000..99_000).contains(&good), "{good}");
}

#[test]
fn strings_are_what_serde_takes_them_for() {
    const PIECES: &[&[u8]] = &[
        b"a",
        b"hello",
        "é".as_bytes(),
        "🙂".as_bytes(),
        b"\\n",
        b"\\\"",
        b"\\\\",
        b"\\/",
        b"\\u0041",
        b"\\u00e9",
        b"\\ud83d\\ude42",
        b"\\ud83d",
        b"\\ude42",
        b"\\ud83d\\u0041",
        b"\\uD83D\\uD83D\\uDE42",
        b"\\u12",
        b"\\x",
        b"\\u+123",
        b"\n",
        b"\x01",
        b"\x7f",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\xbd",
        b"\\b\\f\\r\\t",
    ];
    let mut rng = StdRng::seed_from_u64(9);
    let (mut good, mut lossy) = (0, 0);
    for _ in 0..100_000 {
        let pieces = rng.random_range(0..6);
        let inside: Vec<u8> = (0..pieces)
            .filter_map(|_| PIECES.choose(&mut rng).copied())
            .flatten()
            .copied()
            .collect();
        let text = [b"\"", &*inside, b"\""].concat();
        let shown = String::from_utf8_lossy(&text);
        let reference = serde_json::from_slice::<String>(&text);
        let Ok(raw) = parse(&text) else {
            // Only a backslash in front of the last quote makes a string end elsewhere.
            assert!(reference.is_err(), "{shown}");
            continue;
        };
        let found = raw.text(Surrogates::Refuse).unwrap();
        assert_eq!(
            found.as_deref().ok(),
            reference.as_deref().ok(),
            "{shown}: {found:?}, {reference:?}"
        );
        good += usize::from(found.is_ok());
        match (found, raw.text(Surrogates::Replace).unwrap()) {
            (Ok(text), replaced) => assert_eq!(replaced.unwrap(), text, "{shown}"),
            (Err(bad), replaced) if bad.fault == TextFault::Surrogate => {
                lossy += 1;
                if let Ok(replaced) = replaced {
                    assert!(replaced.contains('\u{fffd}'), "{shown}");
                }
            }
            (Err(_), replaced) => assert!(replaced.is_err(), "{shown}"),
        }
    }
    assert!(good > 1_000 && lossy > 1_000, "{good} {lossy}");
}

#[test]
fn faults_are_told_by_kind_and_place() {
    for (text, expected, at) in [
        (&b"\"ab\xffc\""[..], TextFault::Utf8, 3),
        (b"\"ab\\n\xff\"", TextFault::Utf8, 5),
        (b"\"a\\ud800b\"", TextFault::Surrogate, 2),
        (b"\"\\udc00\\ud800\"", TextFault::Surrogate, 1),
        (b"\"a\\n\nb\"", TextFault::Control, 4),
        (b"\"a\\qb\"", TextFault::Escape, 2),
        (b"\"a\\u12\"", TextFault::Escape, 2),
    ] {
        // The same wherever it stands.
        for before in ["", "[1, \"\", "] {
            let list = [
                before.as_bytes(),
                text,
                if before.is_empty() { b"" } else { b"]" },
            ]
            .concat();
            let raw = parse(&list).unwrap();
            let raw = raw.items().and_then(Iterator::last).unwrap_or(raw);
            let at = before.len() + at;
            let bad = BadText {
                fault: expected,
                at,
            };
            assert_eq!(raw.text(Surrogates::Refuse), Some(Err(bad)), "{list:?}");
        }
    }
    assert_eq!(
        read("\"a\\ud800b\\udc00\"").text(Surrogates::Replace),
        Some(Ok("a\u{fffd}b\u{fffd}".into()))
    );
    for (text, read) in [
        ("", 0),
        ("nope", 2),
        ("{\"a\"", 4),
        ("[1,]", 4),
        ("[1 2]", 4),
        ("01", 2),
        ("{} {}", 4),
        ("\"abc", 4),
        ("\"abc\\", 5),
        ("{1:2}", 2),
        ("[1}", 3),
        ("1e", 2),
        ("-", 1),
    ] {
        assert_eq!(fault(text), read, "{text}");
    }
}

#[test]
fn nesting_has_an_end() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(parse(deep(127).as_bytes()).is_ok());
    let error = parse(deep(128).as_bytes()).unwrap_err();
    assert!(error.deep && error.read == 128, "{error:?}");
    let objects = "{\"a\":".repeat(200_000);
    assert!(parse(objects.as_bytes()).unwrap_err().deep);
    // An unequal pair is seen at every depth.
    for (open, close) in [("[", "}"), ("{\"a\":", "]")] {
        for depth in [1, 64, 127] {
            let text = open.repeat(depth) + "1" + close;
            assert!(!parse(text.as_bytes()).unwrap_err().deep);
        }
    }
}

#[test]
fn values_are_looked_into_where_they_lie() {
    let text =
        r#" {"a": [1, "x", {"b": null}], "c\u0064": true, "a": -0, "e": 9223372036854775808} "#;
    let raw = read(text);
    let fields: Vec<_> = raw.fields().unwrap().collect();
    assert_eq!(fields.len(), 4);
    for (key, value) in &fields {
        assert!(text[key.at()..].starts_with('"'));
        assert_eq!(key.bytes(), text[key.at()..].find(':').unwrap());
        assert!(!value.is_null() && !value.is_text());
    }
    let [a, cd, nothing, e] = raw.pick(["a", "cd", "nothing", "e"]).unwrap();
    assert_eq!(
        a.unwrap().integer(),
        None,
        "a fraction, as serde_json has it"
    );
    assert_eq!(cd.unwrap().flag(), Some(true));
    assert_eq!(nothing, None);
    assert_eq!(e.unwrap().integer(), None, "too large");
    let list = fields[0].1;
    let items: Vec<_> = list.items().unwrap().collect();
    assert_eq!(items[0].integer(), Some(1));
    assert_eq!(items[1].text(Surrogates::Refuse), Some(Ok("x".into())));
    let [b] = items[2].pick(["b"]).unwrap();
    assert_eq!(b, None, "null is none");
    assert!(
        items[1].items().is_none() && items[1].fields().is_none() && list.pick(["a"]).is_none()
    );
    for (number, value) in [
        ("7", Some(7)),
        ("-7", Some(-7)),
        ("7.0", None),
        ("7e1", None),
        ("\"7\"", None),
    ] {
        assert_eq!(read(number).integer(), value, "{number}");
    }
}

#[test]
fn positions_are_counted_once() {
    let mut positions = LineIndex::new(b"ab\ncd\n\nef");
    let found: Vec<_> = [0, 1, 2, 3, 5, 6, 7, 8, 9]
        .map(|at| positions.of(at))
        .to_vec();
    assert_eq!(
        found,
        [
            (1, 1),
            (1, 2),
            (1, 3),
            (2, 1),
            (2, 3),
            (3, 1),
            (4, 1),
            (4, 2),
            (4, 3)
        ]
    );
    assert_eq!(parse(b"\xef\xbb\xbf{}").unwrap().at(), 3);
}
