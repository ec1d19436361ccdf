//! `GET /rooms`: the query, what it selects and in which order, and how a room looks. Pure functions; the rooms come
//! from the reader.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serialize;
use serde_json::map::Entry;
use serde_json::{Map, Value, json};

use crate::counts::{Kind, LastMessage, Pref, Profile, RoomEntry, RoomPage};
use crate::engine::{PrefQuery, RoomBrief, RoomQuery, SortBy};
use crate::http::request::Query;
use crate::names::{Tag, UserId};

/// The longest `pref` or `q`, in bytes.
const MAX_FILTER_BYTES: usize = 8 * 1024;
/// Fields in `sort`.
const MAX_SORT_FIELDS: usize = 16;

/// What a call asks for.
#[derive(Debug)]
pub struct Listing {
    sort: Vec<(SortBy, bool)>,
    skip: usize,
    /// 0 = all.
    limit: usize,
    /// Milliseconds since the epoch.
    updated_after: Option<i64>,
    unread_first: bool,
    pref: Vec<Clause<PrefField>>,
    q: Vec<Clause<RoomField>>,
    /// The filters as they came, for `inspect`.
    shown: Map<String, Value>,
}

/// What is wrong with a query. It names the parameter and the rule, never the value.
pub type QueryError = &'static str;

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

#[derive(Debug, Clone, PartialEq, Eq)]
enum PrefField {
    Tags,
    TagColors,
    /// The colour of one tag.
    TagColor(String),
    Hidden,
    Sticky,
    Muted,
    Folder,
}

impl PrefField {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "tags" => Self::Tags,
            "tagColors" => Self::TagColors,
            "hidden" => Self::Hidden,
            "sticky" => Self::Sticky,
            "muted" => Self::Muted,
            "folder" => Self::Folder,
            _ => Self::TagColor(name.strip_prefix("tagColors.")?.to_owned()),
        })
    }

    /// The setting that it is, or is a part of.
    fn setting(&self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::TagColors | Self::TagColor(_) => "tag_colors",
            Self::Hidden => "hidden",
            Self::Sticky => "sticky",
            Self::Muted => "muted",
            Self::Folder => "folder",
        }
    }

    fn of<'a>(&self, pref: &'a Pref) -> Seen<'a> {
        match self {
            Self::Tags => Seen::Texts(&pref.tags),
            Self::TagColors => Seen::Object(&pref.tag_colors),
            Self::TagColor(tag) => match pref.tag_colors.get(tag) {
                Some(colour) => Seen::Any(colour),
                None => Seen::Missing,
            },
            Self::Hidden => Seen::Flag(pref.hidden),
            Self::Sticky => Seen::Flag(pref.sticky),
            Self::Muted => Seen::Flag(pref.muted),
            Self::Folder => Seen::Text(pref.folder.as_str().into()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoomField {
    Tags,
    Type,
    Id,
}

impl RoomField {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "roomTags" => Self::Tags,
            "roomType" => Self::Type,
            "_id" => Self::Id,
            _ => return None,
        })
    }

    fn of<'a>(self, room: &'a RoomBrief<'_>) -> Seen<'a> {
        match self {
            Self::Tags => Seen::Tags(room.tags().collect()),
            Self::Type => Seen::Text(room_type(room.kind()).into()),
            Self::Id => Seen::Text(room.room()),
        }
    }
}

/// A field's value as a filter sees it.
enum Seen<'a> {
    Text(Cow<'a, str>),
    Flag(bool),
    Texts(&'a [String]),
    Tags(Vec<Cow<'a, str>>),
    Object(&'a Map<String, Value>),
    Any(&'a Value),
    Missing,
}

impl Seen<'_> {
    /// Equality as the vendor's database has it: a list also equals each of its elements.
    fn equals(&self, wanted: &Value) -> bool {
        fn list<'a>(texts: impl ExactSizeIterator<Item = &'a str>, wanted: &Value) -> bool {
            match wanted {
                Value::String(one) => texts.into_iter().any(|text| text == one),
                Value::Array(all) => {
                    texts.len() == all.len()
                        && texts.zip(all).all(|(text, one)| one.as_str() == Some(text))
                }
                _ => false,
            }
        }
        match self {
            Seen::Text(text) => wanted.as_str() == Some(&**text),
            Seen::Flag(flag) => wanted.as_bool() == Some(*flag),
            Seen::Texts(texts) => list(texts.iter().map(String::as_str), wanted),
            Seen::Tags(tags) => list(tags.iter().map(|tag| &**tag), wanted),
            Seen::Object(object) => wanted.as_object() == Some(object),
            Seen::Any(value) => *value == wanted,
            Seen::Missing => wanted.is_null(),
        }
    }
}

/// One field and all that must be true of it.
#[derive(Debug, PartialEq)]
struct Clause<F> {
    field: F,
    tests: Vec<Test>,
}

#[derive(Debug, PartialEq)]
enum Test {
    Equal(Value),
    In(Vec<Value>),
    All(Vec<Value>),
    NotEqual(Value),
    Exists(bool),
}

impl Test {
    fn holds(&self, seen: &Seen<'_>) -> bool {
        match self {
            Self::Equal(wanted) => seen.equals(wanted),
            Self::In(wanted) => wanted.iter().any(|one| seen.equals(one)),
            // Of nothing, all is never true there.
            Self::All(wanted) => !wanted.is_empty() && wanted.iter().all(|one| seen.equals(one)),
            Self::NotEqual(unwanted) => !seen.equals(unwanted),
            Self::Exists(wanted) => matches!(seen, Seen::Missing) != *wanted,
        }
    }
}

/// The tests that a filter's value stands for, with `operators` being those that are known there.
fn tests(wanted: Value, operators: &[&str], whole_object: bool) -> Option<Vec<Test>> {
    match wanted {
        Value::Object(map) if map.keys().any(|key| key.starts_with('$')) => {
            let test = |(name, value): (String, Value)| {
                let known = operators.contains(&name.as_str());
                known.then(|| operator(&name, value)).flatten()
            };
            map.into_iter().map(test).collect()
        }
        Value::Object(_) if !whole_object => None,
        wanted => plain(&wanted).then(|| vec![Test::Equal(wanted)]),
    }
}

fn operator(name: &str, value: Value) -> Option<Test> {
    let listed = |value| match value {
        Value::Array(all) if all.iter().all(scalar) => Some(all),
        _ => None,
    };
    match name {
        "$in" => listed(value).map(Test::In),
        "$all" => listed(value).map(Test::All),
        "$ne" => plain(&value).then_some(Test::NotEqual(value)),
        "$exists" => match value {
            Value::Bool(wanted) => Some(Test::Exists(wanted)),
            Value::Number(number) => Some(Test::Exists(number.as_f64() != Some(0.0))),
            _ => None,
        },
        _ => None,
    }
}

fn scalar(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

/// A scalar, or a list or object of them: nothing that a field could hold goes deeper.
fn plain(value: &Value) -> bool {
    match value {
        Value::Array(all) => all.iter().all(scalar),
        Value::Object(map) => map.values().all(scalar),
        _ => true,
    }
}

impl Listing {
    /// Reads the query. An empty value is like none; names that are not known are left to whoever knows them.
    pub fn parse(query: Query<'_>, caller: &UserId) -> Result<Self, QueryError> {
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
            for (name, value) in fields {
                shown.insert(name.clone(), value.clone());
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
                listing.q.push(Clause { field, tests });
            }
        }
        if let Some(fields) = pref.or_json(take("pref"), "pref must be a JSON object")? {
            shown.insert("pref".to_owned(), Value::Object(fields.clone()));
            for (name, value) in fields {
                let field = PrefField::parse(&name).ok_or(
                    "pref: only tags, tagColors, hidden, sticky, muted and folder can be asked for",
                )?;
                let whole = field == PrefField::TagColors;
                let tests = tests(value, &["$in", "$all", "$ne", "$exists"], whole)
                    .ok_or("pref: only equality, $in, $all, $ne and $exists can be asked for")?;
                listing.pref.push(Clause { field, tests });
            }
        }
        listing.shown = shown;
        Ok(listing)
    }

    /// What `inspect.query` shows: the vendor's own shape of the question.
    pub fn inspect(&self, app: &str, caller: &UserId) -> Value {
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
    pub fn query<'a>(
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
    pub fn matches(&self, room: &RoomBrief<'_>) -> bool {
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
    pub fn matches_pref(&self, pref: &Pref) -> bool {
        self.pref.iter().all(|clause| {
            let seen = clause.field.of(pref);
            clause.tests.iter().all(|test| test.holds(&seen))
        })
    }
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

/// A filter whose parts are parameters of their own, as libraries for HTTP write an object: `q[roomTags][$in][]=a`,
/// `pref.tags=vip`. Brackets are an object in an object, or an item of a list; dots are the same, and a part of a field's name
/// where one has them.
struct Filter {
    name: &'static str,
    fields: Map<String, Value>,
    bytes: usize,
}

const PARTS: QueryError =
    "q and pref must be JSON objects, or fields in brackets such as q[roomTags][$in][]";
const TWICE: QueryError = "A parameter is given twice";

impl Filter {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            fields: Map::new(),
            bytes: 0,
        }
    }

    /// Takes a parameter, if it is a part of this filter.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, QueryError> {
        let Some(path) = name
            .strip_prefix(self.name)
            .filter(|path| path.starts_with(['[', '.']))
        else {
            return Ok(false);
        };
        self.bytes = self.bytes.saturating_add(name.len() + value.len());
        if self.bytes > MAX_FILTER_BYTES {
            return Err(PARTS);
        }
        let path = steps(path).ok_or(PARTS)?;
        let (field, path) = path.split_first().ok_or(PARTS)?;
        let is_flag = matches!(field.as_str(), "hidden" | "sticky" | "muted")
            || path.iter().any(|step| step == "$exists");
        let value = match value {
            "true" | "1" if is_flag => Value::Bool(true),
            "false" | "0" if is_flag => Value::Bool(false),
            text => text.into(),
        };
        // A tag may be a number.
        let named = field == "tagColors" && !path.first().is_some_and(|step| step.starts_with('$'));
        let place = self.fields.entry(field.as_str());
        match path {
            [] => once(place, value)?,
            [step] if is_index(step) && !named => push(place, value)?,
            [step] => once(inner(place)?.entry(step.as_str()), value)?,
            [step, index] if is_index(index) => push(inner(place)?.entry(step.as_str()), value)?,
            _ => return Err(PARTS),
        }
        Ok(true)
    }

    /// The fields, if there are any, by parts or as JSON.
    fn or_json(
        self,
        json: Option<String>,
        no_object: QueryError,
    ) -> Result<Option<Map<String, Value>>, QueryError> {
        match json {
            Some(_) if !self.fields.is_empty() => Err(TWICE),
            Some(json) => object(&json).map(Some).ok_or(no_object),
            None => Ok((!self.fields.is_empty()).then_some(self.fields)),
        }
    }
}

/// The steps of `[a][b]`, `.a.b` or both. A tag that `tagColors` names by a dot is part of that name, as in JSON.
fn steps(path: &str) -> Option<Vec<String>> {
    const MOST: usize = 4;
    let (mut steps, mut rest): (Vec<String>, &str) = (Vec::new(), path);
    while !rest.is_empty() {
        let (step, dotted);
        if let Some(inside) = rest.strip_prefix('[') {
            (step, rest) = inside.split_once(']')?;
            dotted = false;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            (step, rest) = after.split_at_checked(end)?;
            dotted = true;
        }
        let colours = match steps.as_mut_slice() {
            [field] if field == "tagColors" || field.starts_with("tagColors.") => Some(field),
            _ => None,
        };
        match colours.filter(|_| dotted && !step.starts_with('$')) {
            Some(field) => {
                field.push('.');
                field.push_str(step);
            }
            None => steps.push(step.to_owned()),
        }
        if steps.len() > MOST {
            return None;
        }
    }
    Some(steps)
}

fn is_index(step: &str) -> bool {
    step.bytes().all(|byte| byte.is_ascii_digit())
}

fn once(place: Entry<'_>, value: Value) -> Result<(), QueryError> {
    match place {
        Entry::Vacant(place) => {
            place.insert(value);
            Ok(())
        }
        Entry::Occupied(_) => Err(TWICE),
    }
}

fn push(place: Entry<'_>, value: Value) -> Result<(), QueryError> {
    match place.or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(list) => {
            list.push(value);
            Ok(())
        }
        _ => Err(TWICE),
    }
}

fn inner(place: Entry<'_>) -> Result<&mut Map<String, Value>, QueryError> {
    match place.or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(fields) => Ok(fields),
        _ => Err(TWICE),
    }
}

fn object(text: &str) -> Option<Map<String, Value>> {
    if text.len() > MAX_FILTER_BYTES {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// `2020-10-16T03:01:07.923Z`. What is beyond the calendar is shown at its end.
fn iso(ms: i64) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    let time = Timestamp::from_millisecond(ms).unwrap_or(match ms {
        0.. => Timestamp::MAX,
        _ => Timestamp::MIN,
    });
    PRINTER.timestamp_to_string(&time)
}

fn room_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Direct => "direct",
        // The vendor knows no larger kind.
        Kind::Group | Kind::Supergroup => "group",
    }
}

/// A user as a member or sender.
#[derive(Serialize)]
struct Client<'a> {
    #[serde(rename = "_id")]
    key: &'a str,
    nickname: &'a str,
    #[serde(rename = "avatarUrl")]
    avatar_url: &'a str,
    #[serde(rename = "isRobot")]
    is_robot: bool,
    id: &'a str,
    #[serde(rename = "lastLoginTimeMS")]
    last_login: i64,
    /// Not a group of users, which the vendor has as members too.
    #[serde(rename = "clientType")]
    client_type: &'a str,
}

fn client<'a>(user: &'a UserId, profiles: &'a HashMap<UserId, Profile>) -> Client<'a> {
    let profile = profiles.get(user);
    let text = |value: Option<&'a String>| value.map_or("", String::as_str);
    Client {
        key: user.as_str(),
        id: user.as_str(),
        nickname: text(profile.and_then(|p| p.nickname.as_ref())),
        avatar_url: text(profile.and_then(|p| p.avatar_url.as_ref())),
        is_robot: profile.is_some_and(|p| p.is_robot),
        last_login: profile.map_or(0, |p| p.last_login_time),
        client_type: "user",
    }
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "_id")]
    key: &'a str,
    message: &'a str,
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<Client<'a>>,
    #[serde(rename = "messageType")]
    message_type: &'a str,
    #[serde(rename = "appID")]
    app: &'a str,
    #[serde(rename = "messageTime")]
    time: String,
    id: &'a str,
    #[serde(rename = "messageTimeMS")]
    time_ms: i64,
    #[serde(rename = "updatedAtMS")]
    updated_ms: i64,
    #[serde(rename = "createdAtMS")]
    created_ms: i64,
    #[serde(rename = "reactionCount")]
    reactions: u32,
    /// What the message's payload adds to these.
    #[serde(flatten)]
    more: BTreeMap<&'a str, &'a Value>,
}

/// The names of the fields that a message has without its payload.
const OWN: [&str; 11] = [
    "_id",
    "message",
    "room",
    "messageType",
    "appID",
    "messageTime",
    "id",
    "messageTimeMS",
    "updatedAtMS",
    "createdAtMS",
    "reactionCount",
];

/// Whether the vendor's clients look for more than a text in a message of that type, and show no list at all where they don't
/// find it.
fn is_taken_apart(message_type: &str) -> bool {
    const TYPES: [&str; 14] = [
        "assignAdmin",
        "audio",
        "cancelInvitations",
        "encrypted",
        "file",
        "flex",
        "image",
        "images",
        "location",
        "payment",
        "sticker",
        "template",
        "url",
        "video",
    ];
    TYPES.contains(&message_type)
        || message_type.starts_with("addMember")
        || message_type.starts_with("deleteMember")
}

fn message<'a>(
    app: &'a str,
    room: &'a RoomEntry,
    last: &'a LastMessage,
    profiles: &'a HashMap<UserId, Profile>,
) -> Message<'a> {
    let sender = last.sender.as_ref().map(|user| client(user, profiles));
    let is_own = |name: &str| OWN.contains(&name) || (name == "sender" && sender.is_some());
    let payload = last.payload.iter().filter(|(name, _)| !is_own(name));
    let is_text = last.payload.is_empty() && is_taken_apart(&last.message_type);
    Message {
        more: payload
            .map(|(name, value)| (name.as_str(), value))
            .collect(),
        key: &last.id,
        id: &last.id,
        message: &last.text,
        room: room.room.as_str(),
        sender,
        message_type: if is_text { "text" } else { &last.message_type },
        app,
        time: iso(last.time),
        time_ms: last.time,
        updated_ms: last.updated,
        // Clients sort by it.
        created_ms: last.time,
        reactions: 0,
    }
}

#[derive(Serialize)]
struct Room<'a> {
    #[serde(rename = "_id")]
    key: &'a str,
    name: &'a str,
    cover: &'a str,
    description: &'a str,
    #[serde(rename = "roomType")]
    room_type: &'a str,
    webhook: &'a str,
    #[serde(rename = "botState")]
    bot_state: &'a str,
    #[serde(rename = "botMode")]
    bot_mode: bool,
    encrypted: bool,
    #[serde(rename = "serviceStatus")]
    service_status: i64,
    #[serde(rename = "roomTags")]
    tags: Vec<&'a str>,
    status: u32,
    unread: u64,
    muted: bool,
    #[serde(rename = "lastMessage", skip_serializing_if = "Option::is_none")]
    last_message: Option<Message<'a>>,
    members: Vec<Client<'a>>,
    pref: Settings<'a>,
    id: &'a str,
    #[serde(rename = "createdTimeMS")]
    created_ms: i64,
}

#[derive(Serialize)]
struct Settings<'a> {
    tags: &'a [String],
    #[serde(rename = "tagColors")]
    tag_colors: &'a Map<String, Value>,
    hidden: bool,
    sticky: bool,
    muted: bool,
    folder: &'a str,
}

/// The `result` of an answer.
#[derive(Serialize)]
pub struct Listed<'a> {
    #[serde(rename = "totalCount")]
    total: u64,
    inspect: Inspect,
    data: Vec<Room<'a>>,
}

#[derive(Serialize)]
struct Inspect {
    query: Value,
    #[serde(rename = "tookMS")]
    took_ms: u64,
}

/// Shows a page of rooms as the vendor does.
pub fn show<'a>(app: &'a str, page: &'a RoomPage, query: Value, took_ms: u64) -> Listed<'a> {
    let room = |room: &'a RoomEntry| Room {
        key: room.room.as_str(),
        id: room.room.as_str(),
        name: &room.name,
        cover: &room.cover,
        description: &room.description,
        room_type: room_type(room.kind),
        webhook: &room.webhook,
        bot_state: &room.bot_state,
        bot_mode: room.bot_mode,
        encrypted: room.encrypted,
        service_status: room.service_status,
        tags: room.tags.iter().map(Tag::as_str).collect(),
        // Others are not listed.
        status: 1,
        unread: room.unread,
        muted: room.pref.muted,
        last_message: room
            .last_message
            .as_ref()
            .map(|last| message(app, room, last, &page.profiles)),
        members: room
            .members
            .iter()
            .map(|user| client(user, &page.profiles))
            .collect(),
        pref: Settings {
            tags: &room.pref.tags,
            tag_colors: &room.pref.tag_colors,
            hidden: room.pref.hidden,
            sticky: room.pref.sticky,
            muted: room.pref.muted,
            folder: &room.pref.folder,
        },
        created_ms: room.created,
    };
    Listed {
        total: page.total,
        inspect: Inspect { query, took_ms },
        data: page.rooms.iter().map(room).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RoomId;

    fn me() -> UserId {
        UserId::parse("me").unwrap()
    }

    fn room(id: &str) -> RoomEntry {
        RoomEntry {
            room: RoomId::parse(id).unwrap(),
            kind: Kind::Group,
            name: String::new(),
            cover: String::new(),
            description: String::new(),
            webhook: String::new(),
            bot_state: String::new(),
            bot_mode: false,
            encrypted: false,
            service_status: 0,
            tags: Vec::new(),
            custom_type: None,
            created: 0,
            last_message: None,
            unread: 0,
            pref: Pref::default(),
            members: Vec::new(),
        }
    }

    fn said(mut room: RoomEntry, time: i64, order: u64) -> RoomEntry {
        room.last_message = Some(LastMessage {
            id: format!("m{order}"),
            sender: None,
            text: "hi".into(),
            message_type: "text".into(),
            payload: Map::new(),
            time,
            updated: time + 2,
            order,
        });
        room
    }

    fn listing(query: &str) -> Result<Listing, QueryError> {
        Listing::parse(Query::new(query), &me())
    }

    fn with(name: &str, value: Value) -> Result<Listing, QueryError> {
        let value = value.to_string();
        listing(
            &form_urlencoded::Serializer::new(String::new())
                .append_pair(name, &value)
                .finish(),
        )
    }

    fn ids(listing: &Listing, rooms: &[RoomEntry]) -> (u64, String) {
        let matches = |room: &RoomBrief<'_>| listing.matches(room);
        let by_pref = |pref: &Pref| listing.matches_pref(pref);
        let (total, ids) = listing.query(&matches, &by_pref).choose(rooms);
        (total, ids.join(" "))
    }

    fn order(query: &str, rooms: &[RoomEntry]) -> String {
        ids(&listing(query).unwrap(), rooms).1
    }

    #[test]
    fn rooms_sort_by_last_message_then_creation_then_id() {
        let mut early = room("silent-early");
        early.created = 5;
        let mut late = room("silent-late");
        late.created = 9;
        let rooms = [
            early,
            said(room("a"), 100, 1),
            said(room("b"), 100, 7),
            said(room("c"), 50, 9),
            late,
            room("z"),
            room("y"),
        ];
        let newest_first = "b a c silent-late silent-early y z";
        assert_eq!(order("", &rooms), newest_first);
        assert_eq!(order("sort=", &rooms), newest_first);
        assert_eq!(
            order("sort=-lastMessage+-createdTime", &rooms),
            newest_first
        );
        assert_eq!(
            order("sort=-lastMessage%20-createdTime", &rooms),
            newest_first
        );
        assert_eq!(
            order("sort=lastMessage", &rooms),
            "silent-early silent-late y z c a b"
        );
        assert_eq!(
            order("sort=createdTime", &rooms),
            "a b c y z silent-early silent-late"
        );
        assert_eq!(order("sort=-_id&limit=2", &rooms), "z y");
        for bad in [
            "sort=nope",
            "sort=-",
            "sort=--name",
            "sort=lastMessage,name",
        ] {
            assert!(listing(bad).is_err(), "{bad}");
        }
        assert!(listing(&format!("sort={}", "name+".repeat(17))).is_err());
    }

    #[test]
    fn pages_are_cut_after_counting() {
        let rooms: Vec<_> = (0..9).map(|n| said(room(&format!("r{n}")), n, 1)).collect();
        let page = |query: &str| ids(&listing(query).unwrap(), &rooms);
        assert_eq!(page("skip=2&limit=3"), (9, "r6 r5 r4".into()));
        assert_eq!(page("skip=7&limit=3"), (9, "r1 r0".into()));
        assert_eq!(page("skip=7"), (9, "r1 r0".into()));
        assert_eq!(page("skip=99&limit=3"), (9, String::new()));
        assert_eq!(page("limit=0").1.len(), 9 * 3 - 1);
        assert_eq!(
            page(&format!("skip=1&limit={}", usize::MAX)).1.len(),
            8 * 3 - 1
        );
        for bad in [
            "skip=-1",
            "limit=x",
            "limit=1.5",
            "limit=%2B1",
            "limit=99999999999999999999",
            "skip=1&skip=2",
        ] {
            assert!(listing(bad).is_err(), "{bad}");
        }
        assert_eq!(page("unknown=1&limit=1"), (9, "r8".into()));
    }

    #[test]
    fn unread_first_sorts_within_halves() {
        let unread = |mut room: RoomEntry, n| {
            room.unread = n;
            room
        };
        let rooms = [
            said(room("a"), 4, 4),
            unread(said(room("b"), 3, 3), 1),
            said(room("c"), 2, 2),
            unread(said(room("d"), 1, 1), 9),
        ];
        assert_eq!(order("sortUnreadFirst=1", &rooms), "b d a c");
        assert_eq!(order("sortUnreadFirst=-1", &rooms), "b d a c");
        assert_eq!(order("sortUnreadFirst=true", &rooms), "b d a c");
        for no in ["0", "false"] {
            assert_eq!(order(&format!("sortUnreadFirst={no}"), &rooms), "a b c d");
        }
        assert_eq!(order("sortUnreadFirst=1&sort=_id&limit=3", &rooms), "b d a");
        assert!(listing("sortUnreadFirst=yes").is_err());
    }

    #[test]
    fn updated_after_takes_the_whole_second_of_messages_but_creation_strictly() {
        let at = 1_602_732_534_500; // 2020-10-15T03:28:54.500Z
        let mut born = room("born-at");
        born.created = at;
        let mut younger = room("born-after");
        younger.created = at + 1;
        let rooms = [
            said(room("second"), 1_602_732_534_000, 1),
            said(room("before"), 1_602_732_533_999, 2),
            born,
            younger,
        ];
        for time in [
            "2020-10-15T03:28:54.5Z",
            "2020-10-15T03:28:54.500Z",
            "2020-10-15T05:28:54.5%2B02:00",
            "2020-10-15T05:28:54.5+02:00",
            "2020-10-15T01:28:54.5-02:00",
            "1602732534500",
        ] {
            let listing = listing(&format!("updatedAfter={time}")).unwrap();
            assert_eq!(listing.updated_after, Some(at), "{time}");
            assert_eq!(
                ids(&listing, &rooms),
                (2, "second born-after".into()),
                "{time}"
            );
        }
        for (time, ms) in [
            ("2020-10-15T03:28:54", 1_602_732_534_000),
            ("2020-10-15+03:28:54", 1_602_732_534_000),
            ("2020-10-15t03:28:54z", 1_602_732_534_000),
            ("2020-10-15T03:28:54.1", 1_602_732_534_100),
            ("2020-10-15T03:28:54,123", 1_602_732_534_123),
            ("2020-10-15T03:28:54.123456", 1_602_732_534_123),
            ("2020-10-15T03:28:54.123999999999999Z", 1_602_732_534_123),
            ("2020-10-15T05:28:54.123456789012+02:00", 1_602_732_534_123),
            ("2020-10-15+05:28:54%2B0200", 1_602_732_534_000),
            ("2020-10-15T03:28", 1_602_732_480_000),
            ("2020-10-15", 1_602_720_000_000),
            ("2020-10-14T24:00:00", 1_602_720_000_000),
            ("2020-10-14T24:00:00.000Z", 1_602_720_000_000),
            ("2020-10-14T24:00:00-02:00", 1_602_727_200_000),
            ("2020-12-31T24:00:00Z", 1_609_459_200_000),
        ] {
            let listing = listing(&format!("updatedAfter={time}"));
            assert_eq!(listing.unwrap().updated_after, Some(ms), "{time}");
        }
        for bad in [
            "yesterday",
            "2020-10-15T",
            "2020-10-15T24:00:01Z",
            "2020-10-15T24:30",
            "2020-10-15T25:00:00",
            "2020-10-15T03:28:54.12x",
            "2020-02-30",
            "2020-10-15T03:28:54Z%5BUTC%5D",
            "2020-13-15T03:28:54Z",
            "-",
            "1e12",
            "16027325345.5",
            "99999999999999999999",
        ] {
            assert!(listing(&format!("updatedAfter={bad}")).is_err(), "{bad}");
        }
        assert_eq!(listing("updatedAfter=-5").unwrap().updated_after, Some(-5));
        assert_eq!(order("updatedAfter=", &rooms).split(' ').count(), 4);
    }

    #[test]
    fn pref_filters_against_the_defaulted_settings() {
        let mut kept = room("kept");
        kept.pref.tags = vec!["a".into(), "b".into()];
        kept.pref.hidden = true;
        kept.pref.folder = "Work".into();
        kept.pref.tag_colors.insert("a".into(), "#f00".into());
        let rooms = [kept, room("plain")];
        for (pref, expected) in [
            (json!({}), "kept plain"),
            (json!({"tags": "a"}), "kept"),
            (json!({"tags": "A"}), ""),
            (json!({"tags": ["a", "b"]}), "kept"),
            (json!({"tags": ["b", "a"]}), ""),
            (json!({"tags": []}), "plain"),
            (json!({"tags": {"$in": ["x", "b"]}}), "kept"),
            (json!({"tags": {"$in": []}}), ""),
            (json!({"tags": {"$all": ["a", "b"]}}), "kept"),
            (json!({"tags": {"$all": ["a", "x"]}}), ""),
            (json!({"tags": {"$all": []}}), ""),
            (json!({"tags": {"$ne": "a"}}), "plain"),
            (json!({"tags": {"$in": ["a"], "$ne": "b"}}), ""),
            (json!({"hidden": false}), "plain"),
            (json!({"hidden": {"$ne": false}}), "kept"),
            (json!({"hidden": "true"}), ""),
            (json!({"folder": "Work", "hidden": true}), "kept"),
            (json!({"folder": ""}), "plain"),
            (json!({"folder": {"$in": ["", "Work"]}}), "kept plain"),
            (json!({"folder": {"$exists": true}}), "kept plain"),
            (json!({"folder": {"$exists": false}}), ""),
            (json!({"sticky": true}), ""),
            (json!({"muted": false}), "kept plain"),
            (json!({"tagColors": {"a": "#f00"}}), "kept"),
            (json!({"tagColors": {}}), "plain"),
            (json!({"tagColors.a": "#f00"}), "kept"),
            (json!({"tagColors.a": {"$exists": false}}), "plain"),
        ] {
            let listing = with("pref", pref.clone()).unwrap();
            assert_eq!(ids(&listing, &rooms).1, expected, "{pref}");
        }
        for bad in [
            json!([]),
            json!("tags"),
            json!(null),
            json!({"nope": 1}),
            json!({"$or": [{"tags": "a"}]}),
            json!({"tags": {"$regex": "a"}}),
            json!({"tags": {"$gt": "a"}}),
            json!({"tags": {"$in": "a"}}),
            json!({"tags": {"$in": [["a"]]}}),
            json!({"tags": {"$in": ["a"], "x": 1}}),
            json!({"tags": {"$exists": "yes"}}),
            json!({"tags": {"x": 1}}),
            json!({"tags": [["a"]]}),
            json!({"folder": {}}),
        ] {
            assert!(with("pref", bad.clone()).is_err(), "{bad}");
        }
        assert!(listing("pref=%7B").is_err());
        assert!(with("pref", json!({"tags": "x".repeat(MAX_FILTER_BYTES)})).is_err());
        assert!(listing(&format!("pref={}", "%5B".repeat(500))).is_err());
    }

    #[test]
    fn q_filters_the_room_and_only_for_the_caller() {
        let mut tagged = room("tagged");
        tagged.tags = vec![Tag::parse("work").unwrap(), Tag::parse("x").unwrap()];
        let mut direct = room("direct");
        direct.kind = Kind::Direct;
        let mut large = room("large");
        large.kind = Kind::Supergroup;
        let rooms = [tagged, direct, large];
        for (q, expected) in [
            (json!({"members": "me"}), "direct large tagged"),
            (json!({"members": "me", "roomTags": "work"}), "tagged"),
            (json!({"roomTags": {"$in": ["x", "y"]}}), "tagged"),
            (json!({"roomTags": {"$all": ["x", "y"]}}), ""),
            (json!({"roomType": "group"}), "large tagged"),
            (json!({"roomType": {"$in": ["direct"]}}), "direct"),
            (json!({"_id": "large"}), "large"),
            (
                json!({"_id": {"$in": ["large", "direct", "other"]}}),
                "direct large",
            ),
        ] {
            assert_eq!(
                ids(&with("q", q.clone()).unwrap(), &rooms).1,
                expected,
                "{q}"
            );
        }
        for bad in [
            json!({"members": "you"}),
            json!({"members": ["me"]}),
            json!({"members": {"$in": ["me"]}}),
            json!({"name": "x"}),
            json!({"roomTags": {"$ne": "x"}}),
            json!({"roomTags": {"$exists": true}}),
            json!({"$and": []}),
            json!([]),
        ] {
            assert!(with("q", bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_in_brackets_and_dots_are_those_of_json() {
        for (parts, q, pref) in [
            ("q[roomTags]=work", json!({"roomTags": "work"}), json!(null)),
            (
                "q%5BroomTags%5D=work",
                json!({"roomTags": "work"}),
                json!(null),
            ),
            ("q.roomTags=a+b", json!({"roomTags": "a b"}), json!(null)),
            ("q[roomTags]=", json!({"roomTags": ""}), json!(null)),
            (
                "q[roomTags][$in][]=a&q[roomTags][$in][]=b&q[roomType]=group",
                json!({"roomTags": {"$in": ["a", "b"]}, "roomType": "group"}),
                json!(null),
            ),
            (
                "q[roomTags][$all][0]=a&q[roomTags][$all][1]=b",
                json!({"roomTags": {"$all": ["a", "b"]}}),
                json!(null),
            ),
            (
                "q.roomTags.$in[0]=a",
                json!({"roomTags": {"$in": ["a"]}}),
                json!(null),
            ),
            ("q[roomTags][]=a", json!({"roomTags": ["a"]}), json!(null)),
            ("q[members]=me", json!({"members": "me"}), json!(null)),
            ("pref[tags]=vip", json!(null), json!({"tags": "vip"})),
            ("pref.tags=1", json!(null), json!({"tags": "1"})),
            (
                "pref[hidden]=false&pref.muted=1&pref[sticky][$ne]=true",
                json!(null),
                json!({"hidden": false, "muted": true, "sticky": {"$ne": true}}),
            ),
            (
                "pref[folder][$exists]=0",
                json!(null),
                json!({"folder": {"$exists": false}}),
            ),
            (
                "pref.tagColors.a.b=red",
                json!(null),
                json!({"tagColors.a.b": "red"}),
            ),
            (
                "pref.tagColors.5[$ne]=red",
                json!(null),
                json!({"tagColors.5": {"$ne": "red"}}),
            ),
            (
                "pref[tagColors][a]=red&pref[tagColors][5]=blue",
                json!(null),
                json!({"tagColors": {"a": "red", "5": "blue"}}),
            ),
        ] {
            let mut query = form_urlencoded::Serializer::new(String::new());
            for (name, value) in [("q", q), ("pref", pref)] {
                if !value.is_null() {
                    query.append_pair(name, &value.to_string());
                }
            }
            let (by_parts, by_json) = (listing(parts).unwrap(), listing(&query.finish()).unwrap());
            assert_eq!(format!("{by_parts:?}"), format!("{by_json:?}"), "{parts}");
        }
        for bad in [
            "q[roomTags=a",
            "q[]=a",
            "q[roomTags]x=a",
            "q[roomTags]=a&q[roomTags]=b",
            "q[roomTags]=a&q[roomTags][$in][]=b",
            "q[roomTags][$in]=a",
            "q[roomTags][$nin][]=a",
            "q[roomTags][$in][][x]=a",
            "q[a][b][c][d][e]=1",
            "q[members]=you",
            "q[name]=x",
            "q.=x",
            "pref[nope]=x",
            "pref[tags]=x&pref=%7B%22folder%22:%22x%22%7D",
        ] {
            assert!(listing(bad).is_err(), "{bad}");
        }
        let long = "x".repeat(MAX_FILTER_BYTES);
        assert!(listing(&format!("q[roomTags]={long}")).is_err());
        // Whose name only begins like that is somebody else's.
        assert!(
            listing("query[x]=1&preferences.x=1&qx=1")
                .unwrap()
                .shown
                .is_empty()
        );
    }

    #[test]
    fn a_payload_adds_to_a_message_and_changes_nothing_of_it() {
        let shown = |message_type: &str, payload: Value| {
            let mut room = said(room("r"), 1_000, 1);
            if let Some(last) = &mut room.last_message {
                last.message_type = message_type.to_owned();
                last.payload = payload.as_object().cloned().unwrap_or_default();
            }
            let page = RoomPage {
                total: 1,
                rooms: vec![room],
                profiles: HashMap::new(),
            };
            let shown = serde_json::to_string(&show("a", &page, json!({}), 0)).unwrap();
            for name in OWN {
                let field = format!("\"{name}\":");
                let message = shown.split("lastMessage").nth(1).unwrap();
                let message = message.split("members").next().unwrap();
                assert_eq!(message.matches(&field).count(), 1, "{name}: {message}");
            }
            let shown: Value = serde_json::from_str(&shown).unwrap();
            shown["data"][0]["lastMessage"].clone()
        };
        let mut payload =
            json!({"sticker": "s1", "extra": {"k": [1, null]}, "sender": {"nickname": "system"}});
        for name in OWN {
            payload[name] = json!("no");
        }
        let message = shown("sticker", payload);
        assert_eq!(
            (
                &message["messageType"],
                &message["sticker"],
                &message["extra"]
            ),
            (&json!("sticker"), &json!("s1"), &json!({"k": [1, null]}))
        );
        assert_eq!(
            (&message["message"], &message["_id"]),
            (&json!("hi"), &json!("m1"))
        );
        // Nobody else sent it.
        assert_eq!(message["sender"], json!({"nickname": "system"}));
        for taken_apart in [
            "sticker",
            "addMember",
            "addMembers",
            "deleteMember",
            "deleteMembers",
            "payment",
            "image",
            "video",
            "file",
        ] {
            assert_eq!(
                shown(taken_apart, json!({}))["messageType"],
                "text",
                "{taken_apart}"
            );
        }
        for plain in ["text", "recall", "order", "announcement", "joinRoom"] {
            assert_eq!(shown(plain, json!({}))["messageType"], plain);
        }
    }

    #[test]
    fn inspect_has_the_documented_shape() {
        let listing =
            listing("updatedAfter=2020-10-15T03:32:31Z&pref=%7B%22hidden%22:false%7D").unwrap();
        assert_eq!(
            listing.inspect("SampleApp", &me()),
            json!({
                "appID": "SampleApp", "members": "me", "status": 1, "pref": {"hidden": false},
                "$or": [
                    {"lastMessage": {"$gt": "5f87c2cf0000000000000000"}},
                    {"createdTime": {"$gt": "2020-10-15T03:32:31.000Z"}}]
            })
        );
    }

    #[test]
    fn rooms_show_every_documented_field() {
        let user = UserId::parse("sss").unwrap();
        let mut demo = said(room("demo-room"), 1_602_817_267_923, 3);
        demo.members = vec![user.clone(), UserId::parse("bare").unwrap()];
        demo.kind = Kind::Supergroup;
        demo.tags = vec![Tag::parse("demo").unwrap()];
        demo.unread = 4;
        demo.pref.muted = true;
        demo.created = 1_525_001_412_492;
        if let Some(last) = &mut demo.last_message {
            last.sender = Some(user.clone());
        }
        let profile = Profile {
            user: user.clone(),
            nickname: Some("Elsa".into()),
            avatar_url: Some("https://a/b.jpg".into()),
            is_robot: false,
            last_login_time: 1_588_744_338_369,
        };
        let page = RoomPage {
            total: 8,
            rooms: vec![demo, room("quiet")],
            profiles: HashMap::from([(user, profile)]),
        };
        let elsa = json!({"_id": "sss", "nickname": "Elsa", "avatarUrl": "https://a/b.jpg",
            "isRobot": false, "id": "sss", "lastLoginTimeMS": 1_588_744_338_369_i64, "clientType": "user"});
        let shown = serde_json::to_value(show("SampleApp", &page, json!({}), 22)).unwrap();
        assert_eq!(shown["totalCount"], 8);
        assert_eq!(shown["inspect"], json!({"query": {}, "tookMS": 22}));
        assert_eq!(
            shown["data"][0],
            json!({
                "_id": "demo-room", "id": "demo-room", "name": "", "cover": "", "description": "",
                "roomType": "group", "webhook": "", "botState": "", "botMode": false, "encrypted": false,
                "serviceStatus": 0, "roomTags": ["demo"], "status": 1, "unread": 4, "muted": true,
                "lastMessage": {
                    "_id": "m3", "id": "m3", "message": "hi", "room": "demo-room", "sender": elsa,
                    "messageType": "text", "appID": "SampleApp", "messageTime": "2020-10-16T03:01:07.923Z",
                    "messageTimeMS": 1_602_817_267_923_i64, "updatedAtMS": 1_602_817_267_925_i64,
                    "createdAtMS": 1_602_817_267_923_i64, "reactionCount": 0},
                "members": [elsa, {"_id": "bare", "id": "bare", "nickname": "", "avatarUrl": "",
                    "isRobot": false, "lastLoginTimeMS": 0, "clientType": "user"}],
                "pref": {"tags": [], "tagColors": {}, "hidden": false, "sticky": false, "muted": true, "folder": ""},
                "createdTimeMS": 1_525_001_412_492_i64
            })
        );
        assert!(shown["data"][1].get("lastMessage").is_none());
        assert_eq!(iso(i64::MAX).len(), iso(0).len());
    }
}
