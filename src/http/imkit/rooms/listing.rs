//! What the query of `GET /rooms` asks for.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::filter::{Clause, PrefField, RoomField, tests};
use super::parts::{Filter, TWICE};
use super::{QueryError, iso};
use crate::counts::Pref;
use crate::engine::{PrefQuery, RoomBrief, RoomQuery, SortBy};
use crate::http::request::Query;
use crate::names::UserId;

/// Fields in `sort`.
const MAX_SORT_FIELDS: usize = 16;

/// What a call asks for.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(super) sort: Vec<(SortBy, bool)>,
    pub(super) skip: usize,
    /// 0 = all.
    pub(super) limit: usize,
    /// Milliseconds since the epoch.
    pub(super) updated_after: Option<i64>,
    pub(super) unread_first: bool,
    pub(super) pref: Vec<Clause<PrefField>>,
    pub(super) q: Vec<Clause<RoomField>>,
    /// The filters as they came, for `inspect`.
    pub(super) shown: Map<String, Value>,
}

fn sort_field(name: &str) -> Option<SortBy> {
    Some(match name {
        "lastMessage" => SortBy::LastMessage,
        "createdTime" | "createdTimeMS" => SortBy::Created,
        "_id" | "id" => SortBy::Id,
        "name" => SortBy::Name,
        "description" => SortBy::Description,
        // In the order of the names that the vendor has for kinds.
        "roomType" => SortBy::Direct,
        "serviceStatus" => SortBy::ServiceStatus,
        "unread" => SortBy::Unread,
        _ => return None,
    })
}

impl Listing {
    /// Reads the query. An empty value is like none; names that are not known are left to whoever knows them.
    pub(crate) fn parse(query: Query<'_>, caller: &UserId) -> Result<Self, QueryError> {
        let mut values: HashMap<_, String> = HashMap::new();
        let (mut q, mut pref) = (Filter::new("q"), Filter::new("pref"));
        for (name, value) in query {
            if q.take(&name, &value)? || pref.take(&name, &value)? {
                continue;
            }
            let name = match &*name {
                "sort" => "sort",
                "skip" => "skip",
                "limit" => "limit",
                "updatedAfter" => "updatedAfter",
                "pref" => "pref",
                "q" => "q",
                "sortUnreadFirst" => "sortUnreadFirst",
                _ => continue,
            };
            if values.insert(name, value.into_owned()).is_some() {
                return Err(TWICE);
            }
        }
        let mut take = |name: &str| values.remove(name).filter(|value| !value.trim().is_empty());
        let count = |value: Option<String>| match value {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Some(_) => None,
            None => Some(0),
        };
        let mut shown = Map::new();
        let mut listing = Self {
            skip: count(take("skip")).ok_or("skip must be an integer of at least 0")?,
            limit: count(take("limit")).ok_or("limit must be an integer of at least 0")?,
            sort: sort(
                take("sort")
                    .as_deref()
                    .unwrap_or("-lastMessage -createdTime"),
            )?,
            updated_after: match take("updatedAfter") {
                Some(text) => Some(
                    moment(&text)
                        .ok_or("updatedAfter must be an ISO-8601 time, or integer milliseconds")?,
                ),
                None => None,
            },
            unread_first: match take("sortUnreadFirst") {
                Some(text) => match text.trim() {
                    text if text.eq_ignore_ascii_case("true") => true,
                    text if text.eq_ignore_ascii_case("false") => false,
                    text => {
                        let number: Result<i64, _> = text.parse();
                        number.map_err(|_| "sortUnreadFirst must be an integer, true or false")?
                            != 0
                    }
                },
                None => false,
            },
            pref: Vec::new(),
            q: Vec::new(),
            shown: Map::new(),
        };
        if let Some(fields) = q.or_json(take("q"), "q must be a JSON object")? {
            shown.extend(fields.clone());
            listing.q = room_clauses(fields, caller)?;
        }
        if let Some(fields) = pref.or_json(take("pref"), "pref must be a JSON object")? {
            shown.insert("pref".to_owned(), Value::Object(fields.clone()));
            listing.pref = pref_clauses(fields)?;
        }
        listing.shown = shown;
        Ok(listing)
    }

    /// What `inspect.query` shows: the vendor's own shape of the question.
    pub(crate) fn inspect(&self, app: &str, caller: &UserId) -> Value {
        let mut query = self.shown.clone();
        query.insert("appID".to_owned(), app.into());
        query.insert("members".to_owned(), caller.as_str().into());
        query.insert("status".to_owned(), 1.into());
        if let Some(after) = self.updated_after {
            let second = u32::try_from(after.div_euclid(1_000).max(0)).unwrap_or(u32::MAX);
            query.insert(
                "$or".to_owned(),
                json!([
                    {"lastMessage": {"$gt": format!("{second:08x}0000000000000000")}},
                    {"createdTime": {"$gt": iso(after)}},
                ]),
            );
        }
        Value::Object(query)
    }

    /// As the reader takes it; the functions call [`Listing::matches`] and [`Listing::matches_pref`].
    pub(crate) fn query<'a>(
        &'a self,
        matches: &'a (dyn Fn(&RoomBrief<'_>) -> bool + Sync),
        matches_pref: &'a (dyn Fn(&Pref) -> bool + Sync),
    ) -> RoomQuery<'a> {
        let mut settings: Vec<&str> = self.pref.iter().map(|c| c.field.setting()).collect();
        settings.sort_unstable();
        settings.dedup();
        RoomQuery {
            matches,
            by_pref: (!settings.is_empty()).then_some(PrefQuery {
                settings,
                matches: matches_pref,
            }),
            sort: &self.sort,
            unread_first: self.unread_first,
            skip: self.skip,
            limit: self.limit,
        }
    }

    /// Whether a room is meant, as far as that is not a matter of settings.
    pub(crate) fn matches(&self, room: &RoomBrief<'_>) -> bool {
        let fresh = self.updated_after.is_none_or(|after| {
            // The vendor compares a message id that begins with its second: all of that second counts.
            let second = after.saturating_sub(after.rem_euclid(1_000));
            // However late a message was delivered: it is news since then.
            let latest = room.last_time().max(room.newest());
            latest.is_some_and(|time| time >= second) || room.created() > after
        });
        fresh
            && self.q.iter().all(|clause| {
                let seen = clause.field.of(room);
                clause.tests.iter().all(|test| test.holds(&seen))
            })
    }

    /// Whether a room with these settings is meant.
    pub(crate) fn matches_pref(&self, pref: &Pref) -> bool {
        self.pref.iter().all(|clause| {
            let seen = clause.field.of(pref);
            clause.tests.iter().all(|test| test.holds(&seen))
        })
    }
}

/// What `q` asks of a room.
fn room_clauses(
    fields: Map<String, Value>,
    caller: &UserId,
) -> Result<Vec<Clause<RoomField>>, QueryError> {
    let mut clauses = Vec::new();
    for (name, value) in fields {
        if name == "members" {
            // The vendor's web client names the caller; anybody else's rooms are not for this caller to see.
            if value.as_str() != Some(caller.as_str()) {
                return Err("q: members must be the caller");
            }
            continue;
        }
        let field = RoomField::parse(&name)
            .ok_or("q: only roomTags, roomType, _id and members can be asked for")?;
        let tests = tests(value, &["$in", "$all"], false)
            .ok_or("q: only equality, $in and $all can be asked for")?;
        clauses.push(Clause { field, tests });
    }
    Ok(clauses)
}

/// What `pref` asks of the caller's settings.
fn pref_clauses(fields: Map<String, Value>) -> Result<Vec<Clause<PrefField>>, QueryError> {
    let mut clauses = Vec::new();
    for (name, value) in fields {
        let field = PrefField::parse(&name).ok_or(
            "pref: only tags, tagColors, hidden, sticky, muted and folder can be asked for",
        )?;
        let whole = field == PrefField::TagColors;
        let tests = tests(value, &["$in", "$all", "$ne", "$exists"], whole)
            .ok_or("pref: only equality, $in, $all, $ne and $exists can be asked for")?;
        clauses.push(Clause { field, tests });
    }
    Ok(clauses)
}

fn sort(text: &str) -> Result<Vec<(SortBy, bool)>, QueryError> {
    let mut fields = Vec::new();
    for word in text.split_whitespace() {
        let (name, down) = match word.strip_prefix('-') {
            Some(name) => (name, true),
            None => (word, false),
        };
        let field = sort_field(name).ok_or("sort: a field is not known")?;
        fields.push((field, down));
        if fields.len() > MAX_SORT_FIELDS {
            return Err("sort: too many fields");
        }
    }
    Ok(fields)
}

/// A point in time, in milliseconds since the epoch: such a number, or a time as ISO 8601 has it, with a `T` or a blank after
/// the date. Without a zone it is UTC, without a time of the day it is midnight.
fn moment(text: &str) -> Option<i64> {
    let text = text.trim();
    let number = text.strip_prefix('-').unwrap_or(text);
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    // A zone in brackets is no ISO-8601.
    if text.contains('[') {
        return None;
    }
    let (date, rest) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00"));
    let zone = rest.find(['Z', 'z', '+', '-', ' ']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at_checked(zone)?;
    let zone = match zone.strip_prefix(' ') {
        // A plus that was not encoded arrives as a blank.
        Some(zone) => format!("+{zone}"),
        None if zone.is_empty() => "Z".to_owned(),
        None => zone.to_owned(),
    };
    // The end of a day is the beginning of the next one.
    let last = time.strip_prefix("24");
    let last = last.filter(|rest| {
        rest.bytes()
            .all(|byte| matches!(byte, b':' | b'0' | b'.' | b','))
    });
    let time = match last {
        Some(rest) => format!("00{rest}"),
        None => time.to_owned(),
    };
    // Nothing is so exact that it needs more digits than these.
    let time = match time.split_once(['.', ',']) {
        Some((time, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{time}.{}", digits.get(..9).unwrap_or(digits))
        }
        _ => time,
    };
    let moment: Timestamp = format!("{date}T{time}{zone}").parse().ok()?;
    // Downwards, so that a fraction below a millisecond asks for more rather than less.
    let moment = i64::try_from(moment.as_nanosecond().div_euclid(1_000_000)).ok()?;
    Some(match last {
        Some(_) => moment.saturating_add(86_400_000),
        None => moment,
    })
}
