//! The changes that mend a slot. `slot_mend.lua` makes all of them, or none.

use crate::audit::form::Type;
use crate::scripts;

/// A change of a key.
pub(super) enum KeyChange {
    /// Deletes the key, if it is not of this type; with an empty text, in any case.
    Drop(&'static str),
    /// Sets a field of a hash: field, value seen, new value.
    Set(Vec<u8>, Vec<u8>, String),
    /// Deletes a field of a hash: field, value seen.
    Del(Vec<u8>, Vec<u8>),
    /// Adds a field to a hash, if it is not there: field, value.
    New(String, String),
    /// Removes a member of a sorted set.
    Rem(Vec<u8>),
    /// Adds a number to a sorted set, with itself as the score.
    Add(String),
    /// Replaces an element of a list: element seen, new element.
    ListSet(Vec<u8>, String),
    /// Removes an element of a list.
    ListDel(Vec<u8>),
    /// Adds an element to the end of a list.
    Push(String),
    /// Lets the key expire after this many milliseconds.
    Ttl(u64),
}

/// The changes of one slot.
#[derive(Default)]
pub(super) struct MendPlan {
    keys: Vec<Vec<u8>>,
    pub(super) changes: Vec<(usize, KeyChange)>,
    /// The new value for each finding, in the order of the findings; `None`: it is removed.
    pub(super) replacements: Vec<Option<String>>,
}

impl MendPlan {
    pub(super) fn add(&mut self, key: impl AsRef<[u8]>, change: KeyChange) {
        let key = key.as_ref();
        let at = self.keys.iter().position(|known| known == key);
        let at = at.unwrap_or_else(|| {
            self.keys.push(key.to_vec());
            self.keys.len() - 1
        });
        self.changes.push((at, change));
    }

    pub(super) fn call(&self, changes: &[(usize, KeyChange)]) -> scripts::ScriptCall {
        let mut call = scripts::SLOT_MEND.call(&self.keys);
        for (key, change) in changes {
            call.push(key + 1);
            let (what, field, seen, put): (&str, &[u8], &[u8], String) = match change {
                KeyChange::Drop(kind) => ("drop", kind.as_bytes(), b"", String::new()),
                KeyChange::Set(field, seen, put) => ("set", field, seen, put.clone()),
                KeyChange::Del(field, seen) => ("del", field, seen, String::new()),
                KeyChange::New(field, put) => ("new", field.as_bytes(), b"", put.clone()),
                KeyChange::Rem(member) => ("rem", member, b"", String::new()),
                KeyChange::Add(member) => ("add", member.as_bytes(), b"", member.clone()),
                KeyChange::ListSet(seen, put) => ("lset", b"", seen, put.clone()),
                KeyChange::ListDel(seen) => ("ldel", b"", seen, String::new()),
                KeyChange::Push(put) => ("push", b"", b"", put.clone()),
                KeyChange::Ttl(millis) => ("ttl", b"", b"", millis.to_string()),
            };
            call.push(what);
            call.push(field);
            call.push(seen);
            call.push(put);
        }
        call
    }
}

/// The script's word for a type.
pub(super) fn word(kind: Type) -> &'static str {
    match kind {
        Type::Hash => "hash",
        Type::List => "list",
        Type::SortedSet => "zset",
    }
}
