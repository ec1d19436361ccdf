//! Changes that mend a slot, all of which one script makes, or none.

use crate::audit::form::Type;
use crate::scripts;

/// A change of a key.
pub(crate) enum Change {
    /// The key is not of this type (of none: whatever it is), and goes.
    Drop(&'static str),
    /// A field of a hash.
    Set(Vec<u8>, Vec<u8>, String),
    Del(Vec<u8>, Vec<u8>),
    New(String, String),
    /// A member of a sorted set, and its own score.
    Rem(Vec<u8>),
    Add(String),
    /// An element of a list.
    ListSet(Vec<u8>, String),
    ListDel(Vec<u8>),
    Push(String),
    /// Milliseconds.
    Ttl(u64),
}

/// The changes of one slot.
#[derive(Default)]
pub(crate) struct Plan {
    keys: Vec<Vec<u8>>,
    pub(crate) changes: Vec<(usize, Change)>,
    /// For each of what could not be read, what will be there.
    pub(crate) now: Vec<Option<String>>,
}

impl Plan {
    pub(crate) fn add(&mut self, key: impl AsRef<[u8]>, change: Change) {
        let key = key.as_ref();
        let at = self.keys.iter().position(|known| known == key);
        let at = at.unwrap_or_else(|| {
            self.keys.push(key.to_vec());
            self.keys.len() - 1
        });
        self.changes.push((at, change));
    }

    pub(crate) fn call(&self, changes: &[(usize, Change)]) -> scripts::Call {
        let mut call = scripts::SLOT_MEND.call(&self.keys);
        for (key, change) in changes {
            call.push(key + 1);
            let (what, field, seen, put): (&str, &[u8], &[u8], String) = match change {
                Change::Drop(kind) => ("drop", kind.as_bytes(), b"", String::new()),
                Change::Set(field, seen, put) => ("set", field, seen, put.clone()),
                Change::Del(field, seen) => ("del", field, seen, String::new()),
                Change::New(field, put) => ("new", field.as_bytes(), b"", put.clone()),
                Change::Rem(member) => ("rem", member, b"", String::new()),
                Change::Add(member) => ("add", member.as_bytes(), b"", member.clone()),
                Change::ListSet(seen, put) => ("lset", b"", seen, put.clone()),
                Change::ListDel(seen) => ("ldel", b"", seen, String::new()),
                Change::Push(put) => ("push", b"", b"", put.clone()),
                Change::Ttl(millis) => ("ttl", b"", b"", millis.to_string()),
            };
            call.push(what);
            call.push(field);
            call.push(seen);
            call.push(put);
        }
        call
    }
}

/// The word of the script for a type.
pub(crate) fn word(kind: Type) -> &'static str {
    match kind {
        Type::Hash => "hash",
        Type::List => "list",
        Type::SortedSet => "zset",
    }
}
