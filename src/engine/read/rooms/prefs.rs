//! A user's preferences of rooms.

use std::collections::HashMap;

use redis::Value;

use crate::connection::Item;
use crate::counts::number::unreadable;
use crate::counts::{CountPref, Pref};
use crate::engine::reply::texts;
use crate::error::{Error, Result};
use crate::keys::UserKeys;

fn text(value: &Value) -> Result<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| unreadable()),
        Value::SimpleString(text) => Ok(text),
        _ => Err(unreadable()),
    }
}

/// The pairs of a hash that has been asked for as it is.
pub(super) fn pairs(hash: &Value) -> Result<impl Iterator<Item = Result<(&str, &str)>>> {
    let mut texts = texts(hash)?.map(|text| text?.ok_or_else(unreadable));
    Ok(std::iter::from_fn(move || {
        let field = texts.next()?;
        let value = texts.next().unwrap_or_else(|| Err(unreadable()));
        Some(field.and_then(|field| Ok((field, value?))))
    }))
}

/// The call that reads a user's preferences of some rooms: by name, or (`whole`) all preferences of the user.
pub(super) fn prefs_item(keys: &UserKeys, rooms: &[&str], whole: bool) -> Item {
    if whole {
        return whole_item(keys.prefs());
    }
    let mut get = redis::cmd("HMGET");
    get.arg(keys.prefs());
    for room in rooms {
        for preference in PREFERENCES {
            get.arg(format!("{room}|{preference}"));
        }
    }
    Item::Plain(get)
}

/// The call that reads a whole hash, for [`pairs`].
pub(super) fn whole_item(key: String) -> Item {
    let mut get = redis::cmd("HGETALL");
    get.arg(key);
    Item::Plain(get)
}

/// Reads the answer to [`prefs_item`]: the preferences of each room; `None` if nothing is set there.
pub(super) fn read_prefs(answer: &Value, rooms: &[&str], whole: bool) -> Result<Vec<Option<Pref>>> {
    if whole {
        let mut all = all_prefs(answer, &PREFERENCES)?;
        return Ok(rooms.iter().map(|room| all.remove(room)).collect());
    }
    let Value::Array(values) = answer else {
        return Err(unreadable());
    };
    let mut prefs = Vec::with_capacity(rooms.len());
    for values in values.chunks(PREFERENCES.len()) {
        let mut pref = None;
        for (preference, value) in PREFERENCES.iter().zip(values) {
            if !matches!(value, Value::Nil) {
                let pref = pref.get_or_insert_with(Pref::default);
                set_pref(pref, preference, text(value)?)?;
            }
        }
        prefs.push(pref);
    }
    Ok(prefs)
}

/// The preferences of all rooms where one of these is set.
pub(super) fn all_prefs<'a>(
    answer: &'a Value,
    preferences: &[&str],
) -> Result<HashMap<&'a str, Pref>> {
    let mut all: HashMap<&str, Pref> = HashMap::new();
    for pair in pairs(answer)? {
        let (field, stored) = pair?;
        if let Some((room, preference)) = field.rsplit_once('|')
            && preferences.contains(&preference)
        {
            set_pref(all.entry(room).or_default(), preference, stored)?;
        }
    }
    Ok(all)
}

/// Adds a preference as it is stored: `stamp|JSON`.
pub(crate) fn set_pref(pref: &mut Pref, preference: &str, stored: &str) -> Result<()> {
    let (_, json) = stored.split_once('|').ok_or_else(unreadable)?;
    let bad = |_| Error::unreadable("a setting that is not JSON of its type");
    let flag = || match json {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(unreadable()),
    };
    match preference {
        "tags" => pref.tags = serde_json::from_str(json).map_err(bad)?,
        "tag_colors" => pref.tag_colors = serde_json::from_str(json).map_err(bad)?,
        "folder" => pref.folder = serde_json::from_str(json).map_err(bad)?,
        "hidden" => pref.hidden = flag()?,
        "sticky" => pref.sticky = flag()?,
        "muted" => pref.muted = flag()?,
        "count" => {
            let word: String = serde_json::from_str(json).map_err(bad)?;
            pref.count = Some(CountPref::of(&word).ok_or_else(unreadable)?);
        }
        "extra" => pref.extra = Some(serde_json::from_str(json).map_err(bad)?),
        _ => {}
    }
    Ok(())
}

/// The preferences that a user may have for a room.
const PREFERENCES: [&str; 8] = [
    "tags",
    "tag_colors",
    "hidden",
    "sticky",
    "muted",
    "folder",
    "count",
    "extra",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_one_by_one_or_all_at_once() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let rooms = ["a%7C", "b", "c"];
        let all = [
            ("c|hidden", "7|false"),
            ("a%7C|hidden", "6|true"),
            ("a%7C|folder", "5|\"x|y\""),
        ];
        let named = rooms.iter().flat_map(|room| {
            let field = move |preference| format!("{room}|{preference}");
            PREFERENCES.map(|preference| {
                let found = all.iter().find(|(name, _)| *name == field(preference));
                found.map_or(Value::Nil, |(_, value)| bulk(value))
            })
        });
        let one = read_prefs(&Value::Array(named.collect()), &rooms, false).unwrap();
        let texts = all.iter().flat_map(|(field, value)| [field, value]);
        let all = Value::Array(texts.map(|text| bulk(text)).collect());
        let two = read_prefs(&all, &rooms, true).unwrap();
        assert_eq!(one, two);
        let [Some(a), None, Some(c)] = two.as_slice() else {
            panic!("{two:?}");
        };
        assert_eq!((a.folder.as_str(), a.hidden), ("x|y", true));
        assert_eq!(*c, Pref::default());
        let folders = all_prefs(&all, &["folder"]).unwrap();
        assert_eq!(folders.len(), 1);
        assert!(!folders["a%7C"].hidden);
        assert!(read_prefs(&Value::Nil, &rooms, false).is_err());
        assert!(read_prefs(&Value::Nil, &rooms, true).is_err());
    }
}
