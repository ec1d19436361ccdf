//! The parameters `q` and `pref` as they come: each is a filter, as JSON, or as fields in brackets or dots.

use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::QueryError;

/// The most bytes of one filter.
pub(super) const MAX_FILTER_BYTES: usize = 8 * 1024;

/// A filter whose fields are parameters of their own, as libraries for HTTP write an object: `q[roomTags][$in][]=a`,
/// `pref.tags=vip`. Brackets or a dot name a field of an object; empty brackets, or a number in them, an item of a list. A dot
/// can also be part of a tag's name in `tagColors`.
pub(super) struct Filter {
    name: &'static str,
    fields: Map<String, Value>,
    bytes: usize,
}

const PARTS: QueryError =
    "q and pref must be JSON objects, or fields in brackets such as q[roomTags][$in][]";
pub(super) const TWICE: QueryError = "A parameter is given twice";

impl Filter {
    /// The filter of that name, without a field.
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            fields: Map::new(),
            bytes: 0,
        }
    }

    /// Takes a parameter that is a field of this filter. Answers false for any other parameter.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, QueryError> {
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
        // In `tagColors` a number is the name of a tag.
        let is_tag =
            field == "tagColors" && !path.first().is_some_and(|step| step.starts_with('$'));
        let place = self.fields.entry(field.as_str());
        match path {
            [] => once(place, value)?,
            [step] if is_index(step) && !is_tag => push(place, value)?,
            [step] => once(inner(place)?.entry(step.as_str()), value)?,
            [step, index] if is_index(index) => push(inner(place)?.entry(step.as_str()), value)?,
            _ => return Err(PARTS),
        }
        Ok(true)
    }

    /// The fields, from the parameters that were taken or from `json`. None: there is no such filter.
    pub(super) fn or_json(
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

/// The names in `[a][b]`, `.a.b` or a mix of both. In `tagColors`, a name after a dot belongs to the name before it, as in JSON:
/// `.tagColors.a.b` is the one name `tagColors.a.b`.
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

/// Whether a name, possibly empty, stands for an item of a list.
fn is_index(step: &str) -> bool {
    step.bytes().all(|byte| byte.is_ascii_digit())
}

/// Sets a field that has no value yet.
fn once(place: Entry<'_>, value: Value) -> Result<(), QueryError> {
    match place {
        Entry::Vacant(place) => {
            place.insert(value);
            Ok(())
        }
        Entry::Occupied(_) => Err(TWICE),
    }
}

/// Adds an item to a field that is a list.
fn push(place: Entry<'_>, value: Value) -> Result<(), QueryError> {
    match place.or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(list) => {
            list.push(value);
            Ok(())
        }
        _ => Err(TWICE),
    }
}

/// The fields of a field that is an object.
fn inner(place: Entry<'_>) -> Result<&mut Map<String, Value>, QueryError> {
    match place.or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(fields) => Ok(fields),
        _ => Err(TWICE),
    }
}

/// Reads a filter that is JSON.
fn object(text: &str) -> Option<Map<String, Value>> {
    if text.len() > MAX_FILTER_BYTES {
        return None;
    }
    serde_json::from_str(text).ok()
}
