//! The moment in `updatedAfter`.

use jiff::Timestamp;

/// Reads a moment: a number of milliseconds since the epoch, or a time in ISO 8601, with a `T` or a blank after the date. Without
/// a zone it is UTC; without a time of day it is midnight. Answers milliseconds since the epoch.
pub(super) fn moment(text: &str) -> Option<i64> {
    let text = text.trim();
    let number = text.strip_prefix('-').unwrap_or(text);
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    // ISO 8601 knows no zone in brackets, which the parser would take.
    if text.contains('[') {
        return None;
    }
    let (date, rest) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00"));
    let zone = rest.find(['Z', 'z', '+', '-', ' ']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at_checked(zone)?;
    let zone = match zone.strip_prefix(' ') {
        // A plus that was not percent-encoded arrives as a blank.
        Some(zone) => format!("+{zone}"),
        None if zone.is_empty() => "Z".to_owned(),
        None => zone.to_owned(),
    };
    let (time, is_end_of_day) = end_of_day(time);
    let time = cut_fraction(time);
    let moment: Timestamp = format!("{date}T{time}{zone}").parse().ok()?;
    // Rounded down, so that a fraction of a millisecond finds more rooms rather than fewer.
    let moment = i64::try_from(moment.as_nanosecond().div_euclid(1_000_000)).ok()?;
    Some(match is_end_of_day {
        true => moment.saturating_add(86_400_000),
        false => moment,
    })
}

/// Turns 24:00, the end of a day, into 00:00. Answers whether it did: a day is then to be added.
fn end_of_day(time: &str) -> (String, bool) {
    let is_zero = |byte: u8| matches!(byte, b':' | b'0' | b'.' | b',');
    match time.strip_prefix("24") {
        Some(rest) if rest.bytes().all(is_zero) => (format!("00{rest}"), true),
        _ => (time.to_owned(), false),
    }
}

/// Cuts a fraction of a second after nine digits: the parser takes no more.
fn cut_fraction(time: String) -> String {
    match time.split_once(['.', ',']) {
        Some((time, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{time}.{}", digits.get(..9).unwrap_or(digits))
        }
        _ => time,
    }
}
