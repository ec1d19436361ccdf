//! A filter as it comes: JSON, or fields in brackets and dots.

use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::QueryError;

/// The longest `pref` or `q`, in bytes.
pub(super) const MAX_FILTER_BYTES: usize = 8 * 1024;

/// A filter whose parts are parameters of their own, as libraries for HTTP write an object: `q[roomTags][$in][]=a`,
/// `pref.tags=vip`. Brackets are an object in an object, or an item of a list; dots are the same, and a part of a field's name
/// where one has them.
pub(super) struct Filter {
    name: &'static str,
    fields: Map<String, Value>,
    bytes: usize,
}

const PARTS: QueryError =
    "q and pref must be JSON objects, or fields in brackets such as q[roomTags][$in][]";
pub(super) const TWICE: QueryError = "A parameter is given twice";

impl Filter {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            fields: Map::new(),
            bytes: 0,
        }
    }

    /// Takes a parameter, if it is a part of this filter.
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
        // A tag may be a number.
        let named = field == "tagColors" && !path.first().is_some_and(|step| step.starts_with('$'));
        let place = self.fields.entry(field.as_str());
        match path {
            [] => insert_once(place, value)?,
            [step] if is_index(step) && !named => push(place, value)?,
            [step] => insert_once(inner(place)?.entry(step.as_str()), value)?,
            [step, index] if is_index(index) => push(inner(place)?.entry(step.as_str()), value)?,
            _ => return Err(PARTS),
        }
        Ok(true)
    }

    /// The fields, if there are any, by parts or as JSON.
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

fn insert_once(place: Entry<'_>, value: Value) -> Result<(), QueryError> {
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
