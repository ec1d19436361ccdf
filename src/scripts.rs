//! The Lua scripts of `lua/`, each built once, and calls of them. The header of a script tells what it does, takes and answers.
//! Code that several scripts need is in `lua/lib/`. A line `-- Lib:` names the files of `lua/lib/` that are put in its place: at the
//! end of the header what each call needs, and in a branch what only this branch needs. Redis runs the whole text for each call,
//! and each function in it is made anew as soon as the call comes to it; a branch that is not taken costs nothing.

use std::sync::LazyLock;

use crate::keys;
use redis::{Arg, Cmd};
use sha1::{Digest, Sha1};

/// One script: its text and the digest by which Redis knows it.
#[derive(Debug)]
pub(crate) struct Script {
    /// File name without `.lua`.
    pub name: &'static str,
    /// The text of the file, with the library files that it names.
    pub text: String,
    /// SHA-1 of the text, in hex.
    pub sha: String,
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $id:ident = $name:literal;)*) => {
        $(
            $(#[$doc])*
            pub(crate) static $id: LazyLock<Script> = LazyLock::new(|| {
                Script::new($name, include_str!(concat!("../lua/", $name, ".lua")))
            });
        )*

        /// Every script.
        pub(crate) fn all() -> Vec<&'static Script> {
            vec![$(&*$id),*]
        }
    };
}

scripts! {
    /// Charge calls to a limit.
    GCRA = "gcra";
    /// Announce rooms or users before they accept an event.
    PENDING_TOUCH = "pending_touch";
    /// Record that the sweep has looked at announcements.
    PENDING_LOOKED = "pending_looked";
    /// Create or change a room.
    ROOM_UPDATE = "room_update";
    /// Delete a room.
    ROOM_DELETE = "room_delete";
    /// Read a room's snapshot.
    ROOM_SNAPSHOT = "room_snapshot";
    /// Forget positions that no count needs any more.
    ROOM_TRIM = "room_trim";
    /// Make users join a room, invite them or take them out.
    MEMBER_CHANGE = "member_change";
    /// Decide what becomes of memberships that users' slots refused in a delivery.
    MEMBER_SETTLE = "member_settle";
    /// Accept messages.
    MESSAGE_SEND = "message_send";
    /// Change a message.
    MESSAGE_UPDATE = "message_update";
    /// Recall a message.
    MESSAGE_RECALL = "message_recall";
    /// Find the position up to which a member has read.
    ROOM_READ = "room_read";
    /// Set a member's read position back, or by what is unread.
    READ_RESET = "read_reset";
    /// Read a room for everybody.
    ROOM_CLEAR = "room_clear";
    /// Accept a change of a member's preferences.
    PREF_UPDATE = "pref_update";
    /// Take over jobs whose lease has ended.
    JOBS_CLAIM = "jobs_claim";
    /// Extend the leases of jobs.
    JOBS_RENEW = "jobs_renew";
    /// Clear finished jobs of a room, unless it has lost data.
    JOBS_CLEAR = "jobs_clear";
    /// Remove the entries of users who left.
    MEMBERS_SWEEP = "members_sweep";
    /// Read the members of a room.
    ROOM_MEMBERS = "room_members";
    /// Work out what one user has unread in a supergroup.
    ROOM_UNREAD = "room_unread";
    /// Set the mark of a room that watched users are in.
    ROOM_WATCH = "room_watch";
    /// Bring a room's snapshot and marks to users' slots.
    DELIVER = "deliver";
    /// Create a user or change the profile.
    USER_UPDATE = "user_update";
    /// Check whether a user's slot has taken an event's key, or take it there.
    USER_KEY = "user_key";
    /// Delete a user's data.
    USER_DELETE = "user_delete";
    /// Clear finished jobs of a user.
    USER_DONE = "user_done";
    /// Read all that a user's slot holds about unread counts.
    USER_OVERVIEW = "user_overview";
    /// Set the mark of a watched user, and read what the pods that watch show.
    USER_WATCH = "user_watch";
    /// Take away the mark of an unknown user whom a pod watches no more.
    USER_UNWATCH = "user_unwatch";
    /// Read a user's plain count of every tag.
    USER_TAGS = "user_tags";
    /// Read what one user has unread in one room.
    USER_ROOM = "user_room";
    /// Read a whole user's slot, for the self-check.
    USER_DUMP = "user_dump";
    /// Bring a user's slot up to the schema of this version.
    USER_MIGRATE = "user_migrate";
    /// Write the version of the schema.
    SCHEMA_RAISE = "schema_raise";
    /// Repair a user's slot.
    USER_REBUILD = "user_rebuild";
    /// Read the beginning of a key's unreadable value.
    KEY_PEEK = "key_peek";
    /// Mend or remove unreadable data.
    SLOT_MEND = "slot_mend";
    /// Read what the self-check compares a user's record of a room with.
    ROOM_VIEW = "room_view";
    /// Find the commands that this connection's user may not run.
    ACL_REFUSED = "acl_refused";
}

/// The files of `lua/lib/`: name and text.
const LIB: [(&str, &str); 13] = [
    ("arrived", include_str!("../lua/lib/arrived.lua")),
    ("bound", include_str!("../lua/lib/bound.lua")),
    ("cleared", include_str!("../lua/lib/cleared.lua")),
    ("entry", include_str!("../lua/lib/entry.lua")),
    ("fanout", include_str!("../lua/lib/fanout.lua")),
    ("join", include_str!("../lua/lib/join.lua")),
    ("keys", include_str!("../lua/lib/keys.lua")),
    ("live", include_str!("../lua/lib/live.lua")),
    ("members", include_str!("../lua/lib/members.lua")),
    ("resets", include_str!("../lua/lib/resets.lua")),
    ("supers", include_str!("../lua/lib/supers.lua")),
    ("time", include_str!("../lua/lib/time.lua")),
    ("version", include_str!("../lua/lib/version.lua")),
];

/// The text of a script, with the library files put where it names them.
fn composed(file: &str) -> String {
    let mut text = String::with_capacity(file.len());
    for line in file.split_inclusive('\n') {
        text.push_str(line);
        for name in lib_names(line) {
            let part = LIB.iter().find(|(known, _)| *known == name);
            text.push_str(part.map_or("", |(_, part)| part));
        }
    }
    text
}

/// The library files that this line of a script names.
fn lib_names(line: &str) -> impl Iterator<Item = &str> {
    let names = line.trim().strip_prefix("-- Lib: ");
    names.into_iter().flat_map(|names| names.split(", "))
}

impl Script {
    fn new(name: &'static str, file: &str) -> Self {
        let text = composed(file);
        let sha = Sha1::digest(text.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self { name, text, sha }
    }

    /// Whether Redis refuses this script whenever it takes no writes: the script has no flag that would let it run then.
    pub(crate) fn writes_freely(&self) -> bool {
        self.text.starts_with("#!lua\n")
    }

    /// Begins a call with these keys; arguments follow by [`ScriptCall::arg`].
    pub(crate) fn call<K: AsRef<[u8]>>(&'static self, keys: &[K]) -> ScriptCall {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.sha).arg(keys.len());
        for key in keys {
            cmd.arg(key.as_ref());
        }
        ScriptCall { script: self, cmd }
    }
}

/// A call of a script, ready to be sent.
#[derive(Clone)]
pub(crate) struct ScriptCall {
    /// The script.
    pub script: &'static Script,
    /// `EVALSHA …`.
    pub cmd: Cmd,
}

impl ScriptCall {
    /// Adds an argument.
    pub(crate) fn arg(mut self, value: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(value);
        self
    }

    /// Adds an argument in place.
    pub(crate) fn push(&mut self, value: impl redis::ToRedisArgs) {
        self.cmd.arg(value);
    }

    /// Its keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let mut words = self.cmd.args_iter().skip(2).map(|arg| match arg {
            Arg::Simple(bytes) => bytes,
            _ => &[][..],
        });
        let count = words.next().and_then(|n| std::str::from_utf8(n).ok());
        let count = count.and_then(|n| n.parse().ok()).unwrap_or(0);
        words.take(count)
    }

    /// The same call with one more key after its own, [`keys::guard`], which no script looks at.
    pub(crate) fn guarded(&self) -> ScriptCall {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.script.sha);
        let args = self.cmd.args_iter().skip(2).filter_map(|arg| match arg {
            Arg::Simple(bytes) => Some(bytes),
            _ => None,
        });
        let mut count = 0;
        let mut guard = None;
        for (index, arg) in args.enumerate() {
            if index == 0 {
                count = std::str::from_utf8(arg)
                    .ok()
                    .and_then(|n| n.parse::<usize>().ok())
                    .unwrap_or_default();
                cmd.arg(count + 1);
                continue;
            }
            if index == 1 {
                guard = keys::guard(arg).or_else(|| Some(arg.to_vec()));
            }
            cmd.arg(arg);
            if index == count {
                cmd.arg(guard.take());
            }
        }
        ScriptCall {
            script: self.script,
            cmd,
        }
    }

    /// The same call with the text in place of the digest, for a server that does not know the script.
    pub(crate) fn with_text(&self) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(&self.script.text);
        for arg in self.cmd.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                cmd.arg(bytes);
            }
        }
        cmd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_in_lua_is_embedded_and_has_a_header() {
        let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/lua"))
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".lua"))
            .collect();
        files.sort();
        let mut embedded: Vec<String> = all().iter().map(|s| format!("{}.lua", s.name)).collect();
        embedded.sort();
        assert_eq!(files, embedded);
        for script in all() {
            let head: Vec<&str> = script
                .text
                .lines()
                .take_while(|line| line.starts_with('#') || line.starts_with("--"))
                .collect();
            assert!(head[0].starts_with("#!lua"), "{}", script.name);
            let text = head[1..].join("\n");
            let at: Vec<usize> = ["-- Purpose: ", "\n-- KEYS: ", "\n-- ARGV: ", "\n-- Reply: "]
                .iter()
                .map(|part| {
                    text.find(part)
                        .unwrap_or_else(|| panic!("{}: no {part}", script.name))
                })
                .collect();
            assert!(
                at.windows(2).all(|w| w[0] < w[1]),
                "{}: order of the header",
                script.name
            );
            for name in script.text.lines().flat_map(lib_names) {
                assert!(LIB.iter().any(|(known, _)| *known == name), "{name}");
            }
            // The keys named in the header are those that the first line of the body takes, in number.
            let keys = &text[at[1]..at[2]];
            if !keys.contains("per user") {
                let named = (1..20)
                    .take_while(|n| {
                        keys.contains(&format!("{n} ")) || keys.contains(&format!("{n},"))
                    })
                    .count();
                let used = (1..20)
                    .filter(|n| script.text.contains(&format!("KEYS[{n}]")))
                    .count();
                assert_eq!(
                    named, used,
                    "{}: KEYS in the header and in the body",
                    script.name
                );
            }
        }
    }

    #[test]
    fn a_guarded_call_has_one_key_more() {
        let words = |call: &ScriptCall| -> Vec<String> {
            call.cmd
                .args_iter()
                .skip(2)
                .map(|a| match a {
                    Arg::Simple(b) => String::from_utf8(b.to_vec()).unwrap(),
                    _ => String::new(),
                })
                .collect()
        };
        let one = GCRA.call(&["x{a}b"]).arg(5).arg("y");
        assert_eq!(words(&one.guarded()), ["2", "x{a}b", "x{a}:-", "5", "y"]);
        assert_eq!(one.keys().collect::<Vec<_>>(), [b"x{a}b"]);
        let two = GCRA.call(&["{a}1", "{a}2"]);
        assert_eq!(two.keys().count(), 2);
        assert_eq!(words(&two.guarded()), ["3", "{a}1", "{a}2", "{a}:-"]);
    }

    #[test]
    fn a_call_with_text_carries_the_same_keys_and_arguments() {
        let call = GCRA.call(&["k"]).arg(5).arg("x y");
        let text = call.with_text();
        let args: Vec<Vec<u8>> = text
            .args_iter()
            .map(|a| match a {
                Arg::Simple(b) => b.to_vec(),
                _ => vec![],
            })
            .collect();
        assert_eq!(args[0], b"EVAL");
        assert_eq!(args[1], GCRA.text.as_bytes());
        assert_eq!(
            &args[2..],
            [b"1".to_vec(), b"k".to_vec(), b"5".to_vec(), b"x y".to_vec()]
        );
    }
}
