//! For the fuzz target `events`: the body of `POST /v1/events`, and lines that are imported.
#![allow(missing_docs)]

use serde::de::IgnoredAny;

use super::{Batch, BodyFault, BodyForm, read_all, read_line};

/// Runs a closure, and fails if it holds more bytes than allowed.
type Bounded = fn(usize, &mut dyn FnMut());

/// The most bytes that reading a body may hold: twelve times the body, and half a KiB for each event.
fn most(body: &[u8], events: usize) -> usize {
    12 * body.len() + 512 * (events + 1) + 4_096
}

fn read(body: &[u8], form: BodyForm, events: usize, bounded: Bounded) -> Result<Batch, BodyFault> {
    let mut read = None;
    bounded(most(body, events), &mut || {
        read = Some(read_all(body, form, events))
    });
    let read = read.unwrap();
    if let Ok(batch) = &read {
        assert!(batch.len() <= events);
    }
    read
}

/// Whether every string is one that serde takes. The reader itself looks only into strings that somebody asks for.
fn strings_are_right(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'"' {
            continue;
        }
        loop {
            match bytes.next() {
                None | Some(b'"') => break,
                Some(0..0x20) => return false,
                Some(b'\\') => match bytes.next() {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                    Some(b'u') => {
                        if !bytes.by_ref().take(4).all(u8::is_ascii_hexdigit) {
                            return false;
                        }
                    }
                    _ => return false,
                },
                Some(_) => {}
            }
        }
    }
    true
}

fn json(body: &[u8], events: usize, bounded: Bounded) {
    let read = read(body, BodyForm::Json, events, bounded);
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let theirs = serde_json::from_slice::<IgnoredAny>(text);
    match &read {
        Err(BodyFault::NotJson(_) | BodyFault::AnotherEvent(_)) => assert!(theirs.is_err()),
        Err(BodyFault::Nested(_) | BodyFault::TooMany(_)) => {}
        Err(BodyFault::NoEvents) => {
            assert!(!matches!(text.trim_ascii_start(), [b'[' | b'{', ..]));
            assert!(theirs.is_ok() || !strings_are_right(text));
        }
        Ok(_) => assert!(theirs.is_ok() || !strings_are_right(text)),
    }
    // One event fewer is too many of them.
    if let Ok(batch) = &read
        && let Some(fewer) = batch.len().checked_sub(1)
    {
        let found = read_all(body, BodyForm::Json, fewer);
        assert!(matches!(found, Err(BodyFault::TooMany(n)) if n == fewer));
    }
}

fn lines(body: &[u8], events: usize, bounded: Bounded) {
    let read = read(body, BodyForm::Lines, events, bounded);
    let of_lines: Vec<_> = body
        .split(|byte| *byte == b'\n')
        .filter_map(read_line)
        .collect();
    let Ok(batch) = read else {
        assert!(of_lines.len() > events);
        return;
    };
    assert_eq!(batch.len(), of_lines.len());
    let mut refused = batch.refused.into_iter().peekable();
    let mut found = batch.events.into_iter();
    for (place, line) in of_lines.into_iter().enumerate() {
        match line {
            Ok(event) => assert_eq!(format!("{event:?}"), format!("{:?}", found.next().unwrap())),
            Err(invalid) => {
                let (at, mut told) = refused.next().unwrap();
                assert_eq!(at, place);
                if let Some(position) = &mut told.position {
                    position.line = None;
                }
                assert_eq!(told, invalid);
            }
        }
    }
}

/// The lowest bit of the first byte says whether the other bytes are JSON or lines. The other bits say how many events are
/// allowed.
pub fn check(data: &[u8], bounded: Bounded) {
    let Some((select, body)) = data.split_first() else {
        return;
    };
    let events = usize::from(select >> 1);
    match select & 1 {
        0 => json(body, events, bounded),
        _ => lines(body, events, bounded),
    }
}
