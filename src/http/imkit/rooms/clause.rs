//! What `q` and `pref` ask of a room: clauses, each of which tests one field.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::room_type;
use crate::counts::Pref;
use crate::engine::RoomBrief;

/// A setting that `pref` can ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PrefField {
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
    /// By its name in `pref`.
    pub(super) fn parse(name: &str) -> Option<Self> {
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

    /// The setting that the reader has to read for it.
    pub(super) fn setting(&self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::TagColors | Self::TagColor(_) => "tag_colors",
            Self::Hidden => "hidden",
            Self::Sticky => "sticky",
            Self::Muted => "muted",
            Self::Folder => "folder",
        }
    }

    /// Its value in a room's settings.
    pub(super) fn of<'a>(&self, pref: &'a Pref) -> Found<'a> {
        match self {
            Self::Tags => Found::Texts(&pref.tags),
            Self::TagColors => Found::Object(&pref.tag_colors),
            Self::TagColor(tag) => match pref.tag_colors.get(tag) {
                Some(colour) => Found::Any(colour),
                None => Found::Missing,
            },
            Self::Hidden => Found::Flag(pref.hidden),
            Self::Sticky => Found::Flag(pref.sticky),
            Self::Muted => Found::Flag(pref.muted),
            Self::Folder => Found::Text(pref.folder.as_str().into()),
        }
    }
}

/// A field of a room that `q` can ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoomField {
    Tags,
    Type,
    Id,
}

impl RoomField {
    /// By its name in `q`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "roomTags" => Self::Tags,
            "roomType" => Self::Type,
            "_id" => Self::Id,
            _ => return None,
        })
    }

    /// Its value in a room.
    pub(super) fn of<'a>(self, room: &'a RoomBrief<'_>) -> Found<'a> {
        match self {
            Self::Tags => Found::Tags(room.tags().collect()),
            Self::Type => Found::Text(room_type(room.kind()).into()),
            Self::Id => Found::Text(room.room()),
        }
    }
}

/// The value of a field.
pub(super) enum Found<'a> {
    Text(Cow<'a, str>),
    Flag(bool),
    Texts(&'a [String]),
    Tags(Vec<Cow<'a, str>>),
    Object(&'a Map<String, Value>),
    Any(&'a Value),
    Missing,
}

impl Found<'_> {
    /// Equality as in MongoDB, whose filters the vendor takes (I3): a list also equals each of its items.
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
            Found::Text(text) => wanted.as_str() == Some(&**text),
            Found::Flag(flag) => wanted.as_bool() == Some(*flag),
            Found::Texts(texts) => list(texts.iter().map(String::as_str), wanted),
            Found::Tags(tags) => list(tags.iter().map(|tag| &**tag), wanted),
            Found::Object(object) => wanted.as_object() == Some(object),
            Found::Any(value) => *value == wanted,
            Found::Missing => wanted.is_null(),
        }
    }
}

/// A field, and the tests that it must all pass.
#[derive(Debug, PartialEq)]
pub(super) struct Clause<F> {
    pub(super) field: F,
    pub(super) tests: Vec<Test>,
}

/// A test of a value.
#[derive(Debug, PartialEq)]
pub(super) enum Test {
    Equal(Value),
    In(Vec<Value>),
    All(Vec<Value>),
    NotEqual(Value),
    Exists(bool),
}

impl Test {
    /// Whether a value passes the test.
    pub(super) fn passes(&self, found: &Found<'_>) -> bool {
        match self {
            Self::Equal(wanted) => found.equals(wanted),
            Self::In(wanted) => wanted.iter().any(|one| found.equals(one)),
            // In MongoDB an empty `$all` finds nothing.
            Self::All(wanted) => !wanted.is_empty() && wanted.iter().all(|one| found.equals(one)),
            Self::NotEqual(unwanted) => !found.equals(unwanted),
            Self::Exists(wanted) => matches!(found, Found::Missing) != *wanted,
        }
    }
}

/// The tests that the value of a field in a filter stands for. `operators` are those that the filter takes. `whole_object` says
/// whether the field may be compared with an object. None: it stands for no tests.
pub(super) fn tests(wanted: Value, operators: &[&str], whole_object: bool) -> Option<Vec<Test>> {
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

/// The test of one operator.
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

/// Whether a value is a scalar, or a list or an object of scalars. No field holds anything deeper.
fn plain(value: &Value) -> bool {
    match value {
        Value::Array(all) => all.iter().all(scalar),
        Value::Object(map) => map.values().all(scalar),
        _ => true,
    }
}
