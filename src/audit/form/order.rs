//! The forms of what a room keeps for the order of time: `lua/lib/time.lua` and `lua/lib/arrived.lua`.

use super::{FormCheck, NO_FIELD, NO_RECORD, id, number};
use crate::counts::number::stamp;

/// `time:accepted`, of everybody with `:rev`, in a comma list that may be empty.
fn moments(list: &str, parts: usize) -> FormCheck {
    let moments = list.split(',').filter(|_| !list.is_empty());
    moments.into_iter().try_for_each(|moment| {
        let numbers: Vec<&str> = moment.split(':').collect();
        let count = (numbers.len() == parts).then_some(()).ok_or(NO_RECORD);
        count.and_then(|()| numbers.into_iter().try_for_each(number))
    })
}

/// What `lua/lib/time.lua` keeps of events that are placed by their times.
pub(super) fn timed(field: &str, value: &str) -> FormCheck {
    let (letter, name) = field.split_once('|').ok_or(NO_FIELD)?;
    match (letter, name) {
        ("u", _) => {
            let (epoch, lists) = value.split_once('|').ok_or(NO_RECORD)?;
            let (bounds, set) = lists.split_once('|').ok_or(NO_RECORD)?;
            let parts = match name {
                "*" if epoch.is_empty() => 3,
                _ => {
                    id(name)?;
                    stamp(Some(epoch)).map_err(|_| NO_RECORD)?;
                    2
                }
            };
            moments(bounds, parts).and_then(|()| moments(set, parts))
        }
        ("s", user) => id(user).and_then(|()| moments(value, 2)),
        ("c", user) => id(user).and_then(|()| number(value)),
        ("w", message) => {
            id(message)?;
            let waiting: Result<Vec<Vec<String>>, _> = serde_json::from_str(value);
            let acts = waiting.map_err(|_| NO_RECORD)?;
            let is_act = |act: &Vec<String>| {
                matches!(
                    (act.first().map(String::as_str), act.len()),
                    (Some("c"), 2) | (Some("u"), 5) | (Some("r" | "e"), 6)
                )
            };
            acts.iter().all(is_act).then_some(()).ok_or(NO_RECORD)
        }
        _ => Err(NO_FIELD),
    }
}

/// A user, or `*`, with a time; or a field of `timed` with when it was written, below zero.
pub(super) fn bounds(member: &str, score: &str) -> FormCheck {
    match score.strip_prefix('-') {
        Some(written) => {
            let (_, name) = member.split_once('|').ok_or(NO_FIELD)?;
            (name == "*").then_some(()).ok_or(()).or(id(name))?;
            number(written)
        }
        None if member == "*" => number(score),
        None => id(member).and_then(|()| number(score)),
    }
}

/// A user's epoch and positions, or of everybody `position:rev`.
pub(super) fn arrived(field: &str, value: &str) -> FormCheck {
    if field == "*" {
        return value.split(',').try_for_each(|one| {
            let (at, rev) = one.split_once(':').ok_or(NO_RECORD)?;
            position(at).and_then(|()| number(rev))
        });
    }
    if let Some(user) = field.strip_prefix("r|") {
        id(user)?;
        let parts: Vec<&str> = value.split('|').collect();
        let [epoch, reset, as_of, up_to, exempt] = parts.as_slice() else {
            return Err(NO_RECORD);
        };
        stamp(Some(epoch)).map_err(|_| NO_RECORD)?;
        let mut numbers = [*reset, *as_of].into_iter().chain(exempt.split(','));
        numbers.try_for_each(|text| {
            if text.is_empty() {
                Ok(())
            } else {
                number(text)
            }
        })?;
        return number(up_to);
    }
    id(field)?;
    let (epoch, positions) = value.split_once('|').ok_or(NO_RECORD)?;
    stamp(Some(epoch)).map_err(|_| NO_RECORD)?;
    positions.split(',').try_for_each(position)
}

/// A position; of a silent message `-` and its number.
fn position(text: &str) -> FormCheck {
    number(text.strip_prefix('-').unwrap_or(text))
}
