//! What the query of `GET /rooms` asks for.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::clause::{Clause, PrefField, RoomField, tests};
use super::filter::{Filter, TWICE};
use super::moment::moment;
use super::{QueryError, iso};
use crate::counts::Pref;
use crate::engine::{PrefQuery, RoomBrief, RoomQuery, SortBy};
use crate::http::request::Query;
use crate::names::UserId;

/// The most fields in `sort`.
const MAX_SORT_FIELDS: usize = 16;

/// What a call asks for.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The fields to sort by, and whether each sorts downwards.
    pub(super) sort: Vec<(SortBy, bool)>,
    pub(super) skip: usize,
    /// 0: all rooms.
    pub(super) limit: usize,
    /// Milliseconds since the epoch.
    pub(super) updated_after: Option<i64>,
    pub(super) unread_first: bool,
    pub(super) pref: Vec<Clause<PrefField>>,
    pub(super) q: Vec<Clause<RoomField>>,
    /// The filters as they came, for `inspect`.
    pub(super) shown: Map<String, Value>,
}

/// A field by its name in `sort`.
fn sort_field(name: &str) -> Option<SortBy> {
    Some(match name {
        "lastMessage" => SortBy::LastMessage,
        "createdTime" | "createdTimeMS" => SortBy::Created,
        "_id" | "id" => SortBy::Id,
        "name" => SortBy::Name,
        "description" => SortBy::Description,
        // The vendor's names for the two kinds sort like this.
        "roomType" => SortBy::Direct,
        "serviceStatus" => SortBy::ServiceStatus,
        "unread" => SortBy::Unread,
        _ => return None,
    })
}

impl Listing {
    /// Reads the query. An empty value is like none. Parameters that are not known are passed over.
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
                Some(text) => {
                    flag(text.trim()).ok_or("sortUnreadFirst must be an integer, true or false")?
                }
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

    /// What `inspect.query` shows: the question in the shape in which the vendor shows it (I2).
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

    /// The question as the reader takes it. The two functions are to call [`Listing::matches`] and [`Listing::matches_pref`].
    pub(crate) fn query<'a>(
        &'a self,
        matches: &'a (dyn Fn(&RoomBrief<'_>) -> bool + Sync),
        matches_pref: &'a (dyn Fn(&Pref) -> bool + Sync),
    ) -> RoomQuery<'a> {
        let mut preferences: Vec<&str> = self.pref.iter().map(|c| c.field.setting()).collect();
        preferences.sort_unstable();
        preferences.dedup();
        RoomQuery {
            matches,
            by_pref: (!preferences.is_empty()).then_some(PrefQuery {
                preferences,
                matches: matches_pref,
            }),
            sort: &self.sort,
            unread_first: self.unread_first,
            skip: self.skip,
            limit: self.limit,
        }
    }

    /// Whether a room passes all filters but `pref`.
    pub(crate) fn matches(&self, room: &RoomBrief<'_>) -> bool {
        let fresh = self.updated_after.is_none_or(|after| {
            // The vendor compares ids of messages, which begin with their second (I2): every message of that second counts.
            let second = after.saturating_sub(after.rem_euclid(1_000));
            // A message that was accepted since is new, however old its time is.
            let latest = room.last_time().max(room.newest());
            latest.is_some_and(|time| time >= second) || room.created() > after
        });
        fresh
            && self.q.iter().all(|clause| {
                let found = clause.field.of(room);
                clause.tests.iter().all(|test| test.passes(&found))
            })
    }

    /// Whether a room with these settings passes `pref`.
    pub(crate) fn matches_pref(&self, pref: &Pref) -> bool {
        self.pref.iter().all(|clause| {
            let found = clause.field.of(pref);
            clause.tests.iter().all(|test| test.passes(&found))
        })
    }
}

/// A number without a sign; none given is 0.
fn count(given: Option<String>) -> Option<usize> {
    match given {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Some(_) => None,
        None => Some(0),
    }
}

/// `true`, `false`, or an integer, of which 0 is false.
fn flag(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        text.parse().ok().map(|number: i64| number != 0)
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
            // The vendor's web client names the caller (I4). The rooms of others are not for this caller to see.
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

/// Reads `sort`: names with blanks between, each with a minus before it to sort downwards.
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
