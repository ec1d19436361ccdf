//! The fields of an event.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Checked, Mentions};

pub(super) const INVALID: &str = "invalid";

fn legal_id(id: &str) -> bool {
    (1..=255).contains(&id.len()) && !id.chars().any(char::is_control)
}

/// A field that has to be a string that can be an id.
pub(super) fn id<'a>(event: &'a Value, field: &str) -> Checked<&'a str> {
    event
        .get(field)
        .and_then(Value::as_str)
        .filter(|id| legal_id(id))
        .ok_or(INVALID)
}

/// The same, where it may be left out.
pub(super) fn optional_id<'a>(event: &'a Value, field: &str) -> Checked<Option<&'a str>> {
    if event.get(field).is_none() {
        Ok(None)
    } else {
        id(event, field).map(Some)
    }
}

pub(super) fn ids(list: &Value) -> Checked<BTreeSet<String>> {
    let list = list.as_array().ok_or(INVALID)?;
    list.iter()
        .map(|id| {
            id.as_str()
                .filter(|id| legal_id(id))
                .map(str::to_owned)
                .ok_or(INVALID)
        })
        .collect()
}

/// The same, where a name that nobody can have is left out and does not cost the event.
fn usable_ids(list: &Value) -> Checked<BTreeSet<String>> {
    let list = list.as_array().ok_or(INVALID)?;
    let names = list.iter().filter_map(Value::as_str);
    Ok(names.filter(|id| legal_id(id)).map(str::to_owned).collect())
}

pub(super) fn text(event: &Value, field: &str) -> Checked<Option<String>> {
    event
        .get(field)
        .map(|v| v.as_str().map(str::to_owned).ok_or(INVALID))
        .transpose()
}

pub(super) fn flag(event: &Value, field: &str) -> Checked<Option<bool>> {
    event
        .get(field)
        .map(|v| v.as_bool().ok_or(INVALID))
        .transpose()
}

pub(super) fn object(event: &Value, field: &str) -> Checked<Option<Map<String, Value>>> {
    event
        .get(field)
        .map(|v| v.as_object().cloned().ok_or(INVALID))
        .transpose()
}

/// A number that counts something.
pub(super) fn number(event: &Value, field: &str) -> Checked<Option<u64>> {
    event
        .get(field)
        .map(|v| v.as_u64().ok_or(INVALID))
        .transpose()
}

/// Milliseconds, given as an integer or as RFC 3339.
pub(super) fn time(event: &Value, field: &str) -> Checked<Option<i64>> {
    let parse = |v: &Value| match v {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s
            .parse::<jiff::Timestamp>()
            .ok()
            .map(|t| t.as_millisecond()),
        _ => None,
    };
    event
        .get(field)
        .map(|v| parse(v).ok_or(INVALID))
        .transpose()
}

/// Whom a message mentions; none: the event does not say.
pub(super) fn mentions(event: &Value) -> Checked<Option<Mentions>> {
    match event.get("mentions") {
        None => Ok(None),
        Some(Value::String(all)) if all == "all" => Ok(Some(Mentions::All)),
        Some(list) => Ok(Some(Mentions::Users(usable_ids(list)?))),
    }
}

/// The users for whom a message does not count.
pub(super) fn except(event: &Value) -> Checked<BTreeSet<String>> {
    let list = event.get("except");
    if list
        .and_then(Value::as_array)
        .is_some_and(|list| list.len() > 1000)
    {
        return Err(INVALID);
    }
    list.map_or(Ok(BTreeSet::new()), usable_ids)
}

/// A place in the history of a room.
#[derive(Clone, Debug)]
pub(super) enum Point {
    Id(String),
    Time(i64),
    Position(i64),
}

/// The place that an event names, by the prefix of its three fields: `up_to` or `from`. At most one of them; a position below 1
/// is invalid.
pub(super) fn point(event: &Value, prefix: &str) -> Checked<Option<Point>> {
    let id = optional_id(event, &format!("{prefix}_id"))?.map(|id| Point::Id(id.to_owned()));
    let time = time(event, &format!("{prefix}_time"))?.map(Point::Time);
    let position = match event.get(format!("{prefix}_position")) {
        None => None,
        Some(position) => {
            let position = position.as_i64().filter(|position| *position >= 1);
            Some(Point::Position(position.ok_or(INVALID)?))
        }
    };
    let mut given = [id, time, position].into_iter().flatten();
    let first = given.next();
    if given.next().is_some() {
        return Err(INVALID);
    }
    Ok(first)
}
