//! The fields of plain counts, and calls that read them.

use std::io::Write as _;

use redis::{Cmd, RedisWrite as _};

use crate::counts::Kind;
use crate::keys::encode;
use crate::names::CustomType;

/// Kinds with plain counts. Those of supergroups are worked out when they are read.
pub(super) const PLAIN_KINDS: [Kind; 2] = [Kind::Direct, Kind::Group];

/// The counts that are kept by custom type, too.
pub(super) const FAMILIES: [&str; 3] = ["messages", "mentions", "invitations"];

/// All counts that are kept by kind.
pub(super) const ALL_FAMILIES: [&str; 4] = ["messages", "mentions", "invitations", "unread_rooms"];

/// The ends of field names: `''` for rooms of all types, or `:T` for each given type, once each.
pub(super) fn suffixes(types: Option<&[CustomType]>) -> Vec<String> {
    match types {
        None => vec![String::new()],
        Some(types) => {
            let mut types: Vec<String> = types
                .iter()
                .map(|t| format!(":{}", encode(t.as_str()).as_str()))
                .collect();
            types.sort();
            types.dedup();
            types
        }
    }
}

/// An HMGET with space for this number of fields, which have `length` bytes together.
pub(super) fn hmget(key: &str, fields: usize, length: usize) -> Cmd {
    let mut get = Cmd::with_capacity(fields + 2, key.len() + length + 8);
    get.arg("HMGET").arg(key);
    get
}

/// Appends one argument that consists of several parts.
pub(super) fn push_joined(cmd: &mut Cmd, parts: &[&str]) {
    let mut arg = cmd.writer_for_next_arg();
    for part in parts {
        // Writing to memory can't fail.
        let _ = arg.write_all(part.as_bytes());
    }
}

pub(super) fn field(family: &str, kind: Kind, suffix: &str) -> String {
    [family, ":", kind.as_str(), suffix].concat()
}
