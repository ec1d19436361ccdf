//! Times as callers write them: milliseconds since the epoch, or RFC 3339. Both forms have the same bounds. No I/O.

use jiff::civil::{Date, DateTime, Time, date};
use jiff::fmt::temporal::Pieces;

/// The earliest time, in March 1973. A smaller number is taken for seconds, sent by mistake.
const FIRST: i64 = 100_000_000_000;
/// The latest time: the end of the year 9999.
const LAST: i64 = 253_402_300_799_999;
/// The longest text that can be a time.
const MAX_BYTES: usize = 256;
const DAY_SECONDS: u32 = 86_400;
const EPOCH: Date = date(1970, 1, 1);

/// What a time is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeUse {
    /// The time at which something happened.
    Event,
    /// A bound, or the time of something that may never have happened. 0 is allowed, and is before all times.
    Bound,
}

/// The problem of a value that is not a time.
pub(super) const NOT_A_TIME: &str =
    "must be milliseconds since the epoch or RFC 3339 with a zone, between 1973-03-03 and 9999";

/// A number of milliseconds, if it can be a time.
pub(super) fn of_number(number: i64, what_for: TimeUse) -> Result<i64, &'static str> {
    match number {
        1..FIRST => Err("is before 1973-03-03: these are seconds, where milliseconds belong"),
        _ => within(number, what_for),
    }
}

/// The milliseconds that a text stands for, if it can be a time.
pub(super) fn of_text(text: &str, what_for: TimeUse) -> Result<i64, &'static str> {
    let time = (text.len() <= MAX_BYTES).then(|| instant(text)).flatten();
    within(time.ok_or(NOT_A_TIME)?, what_for)
}

fn within(time: i64, what_for: TimeUse) -> Result<i64, &'static str> {
    match time {
        0 if what_for == TimeUse::Bound => Ok(0),
        FIRST..=LAST => Ok(time),
        ..FIRST => Err("is before 1973-03-03"),
        _ => Err("is after the year 9999"),
    }
}

/// The milliseconds of a date and a time of day with its offset. It is worked out here, because the
/// library's own instants end a day before the calendar does.
fn instant(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = pieces.to_numeric_offset()?;
    // The library also takes offsets of a day or more, which RFC 3339 does not have.
    if offset.seconds().unsigned_abs() >= DAY_SECONDS {
        return None;
    }
    let local = DateTime::from_parts(pieces.date(), pieces.time()?);
    let local = local.duration_since(DateTime::from_parts(EPOCH, Time::midnight()));
    let milliseconds = local.as_nanos().div_euclid(1_000_000);
    i64::try_from(milliseconds - i128::from(offset.seconds()) * 1_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_instant_are_one() {
        for (text, milliseconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1973-03-03T09:46:40Z", FIRST),
            ("1973-03-03T00:46:40-09:00", FIRST),
            ("2024-02-29T23:59:59.999+05:30", 1_709_231_399_999),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("2023-11-14t22:13:20.1239z", 1_700_000_000_123),
            ("9999-12-31T23:59:59.999Z", LAST),
            ("9999-12-30T22:00:01Z", 253_402_207_201_000),
        ] {
            assert_eq!(instant(text), Some(milliseconds), "{text}");
            let of_text = of_text(text, TimeUse::Event);
            assert_eq!(
                of_text.is_ok(),
                of_number(milliseconds, TimeUse::Event).is_ok(),
                "{text}"
            );
        }
        assert_eq!(instant("2020-01-01T00:00:00+24:00"), None);
        assert_eq!(instant("2020-01-01T00:00:00-25:00"), None);
        // Beyond the calendar, but still an instant.
        assert_eq!(
            instant("9999-12-31T23:59:59.999-23:59"),
            Some(LAST + 86_340_000)
        );
        assert_eq!(instant("1969-12-31T23:59:59.9995Z"), Some(-1));
    }

    #[test]
    fn a_bound_may_be_nought_and_nothing_else_before_the_first() {
        for (number, event, bound) in [
            (i64::MIN, false, false),
            (-1, false, false),
            (0, false, true),
            (1, false, false),
            (FIRST - 1, false, false),
            (FIRST, true, true),
            (LAST, true, true),
            (LAST + 1, false, false),
            (i64::MAX, false, false),
        ] {
            assert_eq!(of_number(number, TimeUse::Event).is_ok(), event, "{number}");
            assert_eq!(of_number(number, TimeUse::Bound).is_ok(), bound, "{number}");
        }
        assert!(
            of_text(
                &format!("2023-11-14T22:13:20.{}Z", "0".repeat(300)),
                TimeUse::Event
            )
            .is_err()
        );
    }
}
