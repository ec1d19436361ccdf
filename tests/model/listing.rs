//! The parameters of IMKIT's `GET /rooms`: which rooms they choose, and in which order.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::{Message, Room};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    LastMessage,
    CreatedTime,
    Id,
    Name,
    Description,
    RoomType,
    ServiceStatus,
    Unread,
}

impl SortBy {
    pub const ALL: [Self; 8] = [
        Self::LastMessage,
        Self::CreatedTime,
        Self::Id,
        Self::Name,
        Self::Description,
        Self::RoomType,
        Self::ServiceStatus,
        Self::Unread,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::LastMessage => "lastMessage",
            Self::CreatedTime => "createdTime",
            Self::Id => "_id",
            Self::Name => "name",
            Self::Description => "description",
            Self::RoomType => "roomType",
            Self::ServiceStatus => "serviceStatus",
            Self::Unread => "unread",
        }
    }
}

/// One condition on one field, of `q` or of `pref`.
#[derive(Clone, Debug)]
pub enum Condition {
    /// On a list: contains.
    Equal(Value),
    In(Vec<Value>),
    All(Vec<Value>),
    NotEqual(Value),
    Exists(bool),
}

impl Condition {
    fn to_json(&self) -> Value {
        match self {
            Self::Equal(value) => value.clone(),
            Self::In(values) => json!({ "$in": values }),
            Self::All(values) => json!({ "$all": values }),
            Self::NotEqual(value) => json!({ "$ne": value }),
            Self::Exists(yes) => json!({ "$exists": yes }),
        }
    }

    fn holds(&self, actual: &Value) -> bool {
        let has = |wanted: &Value| {
            actual == wanted || actual.as_array().is_some_and(|list| list.contains(wanted))
        };
        match self {
            Self::Equal(value) => has(value),
            Self::In(values) => values.iter().any(has),
            Self::All(values) => values.iter().all(has),
            Self::NotEqual(value) => !has(value),
            // Only asked of fields that have a default.
            Self::Exists(yes) => *yes,
        }
    }
}

/// The parameters of `GET /rooms`.
#[derive(Clone, Debug, Default)]
pub struct RoomsQuery {
    pub skip: usize,
    pub limit: usize,
    /// With true for descending; empty: the parameter is left out.
    pub sort: Vec<(SortBy, bool)>,
    pub unread_first: bool,
    pub updated_after: Option<i64>,
    /// `updatedAfter` as ISO 8601 and not as a number.
    pub as_iso: bool,
    /// `roomTags`, `roomType`, `_id`.
    pub q: Vec<(&'static str, Condition)>,
    /// Send `members` in `q`, as the vendor's web client does.
    pub q_members: bool,
    pub pref: Vec<(&'static str, Condition)>,
}

impl RoomsQuery {
    /// As parameters, not yet encoded.
    pub fn parameters(&self, user: &str) -> Vec<(String, String)> {
        let mut list = Vec::new();
        let mut add = |name: &str, value: String| list.push((name.to_owned(), value));
        if self.skip > 0 {
            add("skip", self.skip.to_string());
        }
        if self.limit > 0 {
            add("limit", self.limit.to_string());
        }
        if !self.sort.is_empty() {
            let word = |(by, descending): &(SortBy, bool)| {
                format!("{}{}", if *descending { "-" } else { "" }, by.name())
            };
            add(
                "sort",
                self.sort.iter().map(word).collect::<Vec<_>>().join(" "),
            );
        }
        if self.unread_first {
            add("sortUnreadFirst", "1".to_owned());
        }
        if let Some(ms) = self.updated_after {
            let iso = || jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
            add(
                "updatedAfter",
                if self.as_iso { iso() } else { ms.to_string() },
            );
        }
        let object = |conditions: &[(&str, Condition)]| {
            conditions
                .iter()
                .map(|(field, c)| ((*field).to_owned(), c.to_json()))
                .collect::<Map<_, _>>()
        };
        let mut q = object(&self.q);
        if self.q_members {
            q.insert("members".to_owned(), user.into());
        }
        if !q.is_empty() {
            add("q", Value::from(q).to_string());
        }
        if !self.pref.is_empty() {
            add("pref", Value::from(object(&self.pref)).to_string());
        }
        list
    }

    pub(super) fn matches(&self, user: &str, id: &str, room: &Room) -> bool {
        let news = self.updated_after.is_none_or(|ms| {
            let second = ms.div_euclid(1000) * 1000;
            let is_new = |m: &Message| m.time.max(m.accepted) >= second;
            room.last().is_some_and(is_new) || room.created > ms
        });
        let field = |name: &str| match name {
            "roomTags" => json!(room.tags),
            "roomType" => room.room_type().into(),
            "_id" => id.into(),
            other => panic!("no such field of a room: {other}"),
        };
        let pref = room.pref(user);
        news && self.q.iter().all(|(name, c)| c.holds(&field(name)))
            && self.pref.iter().all(|(name, c)| c.holds(&pref[*name]))
    }

    pub(super) fn order(&self, user: &str, a: (&str, &Room), b: (&str, &Room)) -> Ordering {
        let sort = if self.sort.is_empty() {
            &[(SortBy::LastMessage, true), (SortBy::CreatedTime, true)][..]
        } else {
            &self.sort
        };
        // None, for a room without messages, is less than any message.
        let last = |room: &Room| room.last().map(|m| (m.time, m.serial));
        fn text<'a>(room: &'a Room, name: &str) -> &'a str {
            let text = room.details.get(name).and_then(Value::as_str);
            text.unwrap_or("")
        }
        let by_sort = sort.iter().map(|(by, descending)| {
            let order = match by {
                SortBy::LastMessage => last(a.1).cmp(&last(b.1)),
                SortBy::CreatedTime => a.1.created.cmp(&b.1.created),
                SortBy::Id => a.0.cmp(b.0),
                SortBy::Name => text(a.1, "name").cmp(text(b.1, "name")),
                SortBy::Description => text(a.1, "description").cmp(text(b.1, "description")),
                SortBy::RoomType => a.1.room_type().cmp(b.1.room_type()),
                SortBy::ServiceStatus => {
                    let status = |room: &Room| {
                        let status = room.details.get("service_status");
                        status.and_then(Value::as_i64).unwrap_or(0)
                    };
                    status(a.1).cmp(&status(b.1))
                }
                SortBy::Unread => a.1.unread(user).cmp(&b.1.unread(user)),
            };
            if *descending { order.reverse() } else { order }
        });
        let read = |room: &Room| room.unread(user) == 0;
        let unread_first = if self.unread_first {
            read(a.1).cmp(&read(b.1))
        } else {
            Ordering::Equal
        };
        by_sort
            .fold(unread_first, Ordering::then)
            .then(a.0.cmp(b.0))
    }
}
