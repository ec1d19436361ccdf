use super::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Whole events, each with strings in it.
const WHOLE: &[&str] = &[
    r#"{"type":"user.updated","user":"u1","nickname":"N","is_robot":true,"last_login_time":0}"#,
    r#"{"type":"room.updated","room":"r1","tags":["a","b"],"name":"R","custom_type":null}"#,
    r#"{"type":"member.joined","room":"r1","users":["u1","u2"],"time":"2024-01-02T03:04:05Z"}"#,
    r#"{"type":"message.sent","room":"r1","id":"m1","sender":"u1","text":"hi","mentions":["u2","x"]}"#,
    r#"{"type":"message.sent","to":"u2","sender":"u1","id":"m\u0032","mentions":"all","silent":false}"#,
    r#"{"room":"r1","user":"u2","type":"room.read","up_to_time":1700000000000}"#,
    r#"{"type":"pref.updated","room":"r1","user":"u2","tag_colors":{"a":"red"},"folder":"f"}"#,
];

/// An event, or the error of what is none, as a text that two readings of the same input share: it leaves out the place.
fn told(event: Result<Event, Invalid>) -> String {
    format!(
        "{:?}",
        event.map_err(|invalid| (invalid.field, invalid.problem))
    )
}

fn all_told(batch: Batch) -> Vec<String> {
    let mut refused = batch.refused.into_iter().peekable();
    let mut events = batch.events.into_iter();
    let total = refused.len() + events.len();
    (0..total)
        .map(|place| match refused.next_if(|(at, _)| *at == place) {
            Some((_, invalid)) => told(Err(invalid)),
            None => told(Ok(events.next().unwrap())),
        })
        .collect()
}

/// Puts something into a string of the event, or in the place of a byte of it, that leaves the string a string.
fn spoilt(event: &str, rng: &mut StdRng) -> Vec<u8> {
    let quotes: Vec<usize> = event.match_indices('"').map(|(at, _)| at).collect();
    let nth = rng.random_range(0..quotes.len() / 2) * 2;
    let at = rng.random_range(quotes[nth] + 1..=quotes[nth + 1]);
    // Not between a backslash and what it escapes.
    let at = event[..at]
        .rfind('\\')
        .filter(|slash| at - slash < 6)
        .unwrap_or(at);
    let bytes = *[
        &b"\xff"[..],
        b"\xed\xa0\x80",
        b"\xc3",
        b"\0",
        b"\n",
        b"\t",
        b"\\ud83d",
        b"\\ude00",
        b"\\u00zz",
        b"\\x",
        b"\\u0000",
        b"\xef\xbb\xbf",
        b"plain",
    ]
    .choose(rng)
    .unwrap();
    [&event.as_bytes()[..at], bytes, &event.as_bytes()[at..]].concat()
}

#[test]
fn a_spoilt_event_is_read_as_if_it_were_alone_and_so_are_its_neighbours() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut refused = 0;
    for _ in 0..3_000 {
        let mut events: Vec<Vec<u8>> = Vec::new();
        for _ in 0..rng.random_range(1..6) {
            let event = WHOLE.choose(&mut rng).unwrap();
            events.push(match rng.random_bool(0.5) {
                true => spoilt(event, &mut rng),
                false => event.as_bytes().to_vec(),
            });
        }
        let alone = |event: &[u8]| {
            let batch = read_all(event, BodyForm::Json, 1).unwrap();
            all_told(batch).pop().unwrap()
        };
        let expected: Vec<String> = events.iter().map(|event| alone(event)).collect();
        refused += expected
            .iter()
            .filter(|event| event.starts_with("Err"))
            .count();
        let blank = |rng: &mut StdRng| *["", " ", "\r\n", "\t"].choose(rng).unwrap();
        let mark = *["", "\u{feff}"].choose(&mut rng).unwrap();
        let mut list = format!("{mark}{}[", blank(&mut rng)).into_bytes();
        for (n, event) in events.iter().enumerate() {
            list.extend_from_slice(if n == 0 { b"" } else { b"," });
            list.extend_from_slice(blank(&mut rng).as_bytes());
            list.extend_from_slice(event);
        }
        list.extend_from_slice(b"]");
        assert_eq!(
            all_told(read_all(&list, BodyForm::Json, 10).unwrap()),
            expected
        );

        // In lines, where one more may be cut anywhere.
        events.retain(|event| !event.contains(&b'\n'));
        let whole = WHOLE.choose(&mut rng).unwrap().as_bytes();
        let cut = whole[..rng.random_range(1..whole.len())].to_vec();
        events.insert(rng.random_range(0..=events.len()), cut);
        let expected: Vec<String> = events
            .iter()
            .map(|event| told(read_line(event).unwrap()))
            .collect();
        let end = *["\n", "\r\n", "\n\n \t\r\n"].choose(&mut rng).unwrap();
        let lines = [mark.as_bytes(), &events.join(end.as_bytes())].concat();
        assert_eq!(
            all_told(read_all(&lines, BodyForm::Lines, 10).unwrap()),
            expected
        );
    }
    assert!(refused > 1_000, "{refused}");
}

#[test]
fn whatever_bytes_come_are_events_or_none_and_never_more_than_there_are() {
    let mut rng = StdRng::seed_from_u64(7);
    let pieces: Vec<&[u8]> = WHOLE
        .iter()
        .map(|event| event.as_bytes())
        .chain([
            &b"["[..],
            b"]",
            b"{",
            b"}",
            b",",
            b":",
            b"\"",
            b"\\",
            b"\n",
            b"\r\n",
            b" ",
            b"\0",
            b"\xff",
            b"\xef\xbb\xbf",
            b"null",
            b"1e400",
            b"-0",
            b"01",
            b"\"type\"",
            b"\"t\\u0079pe\"",
            b"\"user.deleted\"",
            b"\"user\"",
            b"\"\\ud800\"",
        ])
        .collect();
    for _ in 0..20_000 {
        let mut body = Vec::new();
        for _ in 0..rng.random_range(0..12) {
            body.extend_from_slice(pieces.choose(&mut rng).unwrap());
        }
        if let Ok(batch) = read_all(&body, BodyForm::Json, 8) {
            // What is JSON to us is JSON to others, but for what is in its strings.
            let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
            let theirs = serde_json::from_slice::<serde::de::IgnoredAny>(text);
            assert!(
                theirs.is_ok() || text.iter().any(|byte| b"\\\n\0\xff\xef\r".contains(byte)),
                "{body:?}"
            );
            assert!(batch.len() <= 8);
        }
        let lines = body.split(|byte| *byte == b'\n');
        let expected: Vec<String> = lines.filter_map(read_line).map(told).collect();
        match read_all(&body, BodyForm::Lines, 8) {
            Ok(batch) => assert_eq!(all_told(batch), expected, "{body:?}"),
            Err(error) => assert!(expected.len() > 8, "{error}: {body:?}"),
        }
    }
}
