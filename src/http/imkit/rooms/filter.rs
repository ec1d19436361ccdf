//! What `pref` and `q` ask of a room, and whether it is so.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::room_type;
use crate::counts::Pref;
use crate::engine::RoomBrief;

/// A setting that `pref` asks about.
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

    /// The setting that it is, or is a part of.
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

    pub(super) fn of<'a>(&self, pref: &'a Pref) -> FieldValue<'a> {
        match self {
            Self::Tags => FieldValue::Texts(&pref.tags),
            Self::TagColors => FieldValue::Object(&pref.tag_colors),
            Self::TagColor(tag) => match pref.tag_colors.get(tag) {
                Some(colour) => FieldValue::Any(colour),
                None => FieldValue::Missing,
            },
            Self::Hidden => FieldValue::Flag(pref.hidden),
            Self::Sticky => FieldValue::Flag(pref.sticky),
            Self::Muted => FieldValue::Flag(pref.muted),
            Self::Folder => FieldValue::Text(pref.folder.as_str().into()),
        }
    }
}

/// A field of a room that `q` asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoomField {
    Tags,
    Type,
    Id,
}

impl RoomField {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "roomTags" => Self::Tags,
            "roomType" => Self::Type,
            "_id" => Self::Id,
            _ => return None,
        })
    }

    pub(super) fn of<'a>(self, room: &'a RoomBrief<'_>) -> FieldValue<'a> {
        match self {
            Self::Tags => FieldValue::Tags(room.tags().collect()),
            Self::Type => FieldValue::Text(room_type(room.kind()).into()),
            Self::Id => FieldValue::Text(room.room()),
        }
    }
}

/// A field's value as a filter sees it.
pub(super) enum FieldValue<'a> {
    Text(Cow<'a, str>),
    Flag(bool),
    Texts(&'a [String]),
    Tags(Vec<Cow<'a, str>>),
    Object(&'a Map<String, Value>),
    Any(&'a Value),
    Missing,
}

impl FieldValue<'_> {
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
            FieldValue::Text(text) => wanted.as_str() == Some(&**text),
            FieldValue::Flag(flag) => wanted.as_bool() == Some(*flag),
            FieldValue::Texts(texts) => list(texts.iter().map(String::as_str), wanted),
            FieldValue::Tags(tags) => list(tags.iter().map(|tag| &**tag), wanted),
            FieldValue::Object(object) => wanted.as_object() == Some(object),
            FieldValue::Any(value) => *value == wanted,
            FieldValue::Missing => wanted.is_null(),
        }
    }
}

/// One field and all that must be true of it.
#[derive(Debug, PartialEq)]
pub(super) struct Clause<F> {
    pub(super) field: F,
    pub(super) tests: Vec<Test>,
}

/// Something that must be true of a value.
#[derive(Debug, PartialEq)]
pub(super) enum Test {
    Equal(Value),
    In(Vec<Value>),
    All(Vec<Value>),
    NotEqual(Value),
    Exists(bool),
}

impl Test {
    pub(super) fn holds(&self, seen: &FieldValue<'_>) -> bool {
        match self {
            Self::Equal(wanted) => seen.equals(wanted),
            Self::In(wanted) => wanted.iter().any(|one| seen.equals(one)),
            // Of nothing, all is never true there.
            Self::All(wanted) => !wanted.is_empty() && wanted.iter().all(|one| seen.equals(one)),
            Self::NotEqual(unwanted) => !seen.equals(unwanted),
            Self::Exists(wanted) => matches!(seen, FieldValue::Missing) != *wanted,
        }
    }
}

/// The tests that a filter's value stands for, with `operators` being those that are known there.
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
