//! The version of the schema that the data has: which forms keys and records have. Data carry it, in one key for all apps
//! ([`keys::SCHEMA`]), so a cluster has it on one of its nodes. Nothing is read or written before the version is known, nor while
//! it is one that this program can't read. A pod that starts while that node does not answer takes what a copy says.
//! `unread migrate` raises the copies before the version.
//!
//! The value is two numbers: the version that was written, and the oldest version that a program has to know to read it. A third
//! one, if data of an earlier version are among them, says when these were migrated, in seconds. Data
//! without the key are of version 1, if there is anything in them to migrate: those of 0.1.0. This program reads them as they
//! are (`docs/upgrade.md` says what it works out meanwhile), and `unread migrate` makes version 2 of them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::Value;

use super::{Item, Redis};
use crate::error::{Error, Result, Trouble};
use crate::keys::{Owner, Purpose, UserKeys};
use crate::scripts::ScriptCall;
use crate::{keys, scripts};

/// The version that this program writes.
pub(crate) const WRITTEN: u64 = 2;
/// The oldest version that a program has to know to read what this one writes.
const OLDEST_READER: u64 = 2;
/// Data without the key have this version.
const WITHOUT_KEY: u64 = 1;
/// Keys that a server looks through at once.
const PAGE: usize = 1_000;
/// For how long data without the key are looked through. Data that need a migration show it soon.
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// What became of a look at the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    /// Nobody has seen it yet.
    Unknown,
    /// That of this program, or a later one that it can read.
    Current,
    /// An earlier one: this program reads and writes such data, and `unread migrate` is due.
    Old,
    /// A later one that this program can't read.
    Newer,
    /// What stands in the key is no version.
    Unreadable,
}

impl Schema {
    const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Current,
        Self::Old,
        Self::Newer,
        Self::Unreadable,
    ];

    /// The word for it in `/readyz`, in the log and in what `doctor` prints.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Current => "current",
            Self::Old => "old",
            Self::Newer => "newer",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether this program may read and write data of that version.
    pub(crate) fn is_usable(self) -> bool {
        matches!(self, Self::Current | Self::Old)
    }

    /// Whether this program must not touch the data.
    pub(crate) fn is_refused(self) -> bool {
        matches!(self, Self::Newer | Self::Unreadable)
    }

    /// By the value of the key; beside it when data of an earlier version were migrated, in seconds, or 0.
    fn of(value: &str) -> Found {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        let parts: Vec<Option<u64>> = value.split(' ').map(number).collect();
        let (written, reader, migrated) = match parts.as_slice() {
            [Some(written), Some(reader)] => (*written, *reader, 0),
            [Some(written), Some(reader), Some(migrated)] => (*written, *reader, *migrated),
            _ => (0, 0, 0),
        };
        let (schema, words) = if reader > WRITTEN {
            let words = format!(
                "the data are of schema {written}, which takes a program that knows schema {reader}; this one knows {WRITTEN}"
            );
            (Self::Newer, words)
        } else if reader == 0 || written < reader {
            let words = format!("{} does not hold a version of the schema", keys::SCHEMA);
            (Self::Unreadable, words)
        } else if written < WRITTEN {
            (Self::Old, old(written))
        } else {
            (Self::Current, String::new())
        };
        Found {
            schema,
            words,
            migrated,
            numbers: (written, reader),
        }
    }
}

/// What a look at the version has found.
#[derive(Debug, Clone)]
struct Found {
    schema: Schema,
    /// The words for it, empty where all is well.
    words: String,
    /// When data of an earlier version were migrated, in seconds; 0: there were none.
    migrated: u64,
    /// The version that was written, and the oldest that a program has to know to read it; 0 and 0: there is no version.
    numbers: (u64, u64),
}

impl Found {
    /// Data without the key.
    fn without_key(schema: Schema) -> Self {
        let words = match schema {
            Schema::Old => old(WITHOUT_KEY),
            _ => String::new(),
        };
        Self {
            schema,
            words,
            migrated: 0,
            numbers: (0, 0),
        }
    }
}

/// The words for data of an earlier version.
fn old(written: u64) -> String {
    format!(
        "the data are of schema {written}, and this program's is {WRITTEN}: run `unread migrate` when no earlier pod runs any more"
    )
}

/// What is known of the version.
#[derive(Default)]
pub(super) struct Known {
    /// A place in [`Schema::ALL`].
    state: AtomicU8,
    /// The words for it, empty where all is well.
    words: Mutex<String>,
    /// When data of an earlier version were migrated, in seconds; 0: there were none.
    migrated: AtomicU64,
    /// Whether this process may begin data, by writing its version where there are none.
    begins: AtomicBool,
    /// Whether this process has seen to it that the copies are there.
    copied: AtomicBool,
}

impl Known {
    fn state(&self) -> Schema {
        let place = usize::from(self.state.load(Ordering::Acquire));
        Schema::ALL.get(place).copied().unwrap_or(Schema::Unknown)
    }

    fn set(&self, found: Found) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = found.words;
        self.migrated.store(found.migrated, Ordering::Relaxed);
        let place = Schema::ALL.iter().position(|one| *one == found.schema);
        let place = place.and_then(|place| u8::try_from(place).ok());
        self.state.store(place.unwrap_or(0), Ordering::Release);
    }
}

impl Redis {
    /// What the last look came to, and its words; empty where all is well.
    pub(crate) fn schema(&self) -> (Schema, String) {
        let known = &self.inner.schema;
        let words = known.words.lock().unwrap_or_else(PoisonError::into_inner);
        (known.state(), words.clone())
    }

    /// Whether the data may be of an earlier version than this program's.
    pub(crate) fn is_old(&self) -> bool {
        self.inner.schema.state() == Schema::Old
    }

    /// Up to which moment, in microseconds, a message may be one that an earlier version took. The clocks of a room's server and
    /// of the server that has the version may differ, by a day at most.
    pub(crate) fn earlier_versions_until(&self) -> u64 {
        const APART: u64 = 24 * 3600;
        /// The largest number that is exact in a script.
        const EVER: u64 = 9_007_199_254_740_991;
        match self.inner.schema.migrated.load(Ordering::Relaxed) {
            _ if self.is_old() => EVER,
            0 => 0,
            migrated => migrated
                .saturating_add(APART)
                .saturating_mul(1_000_000)
                .min(EVER),
        }
    }

    /// From now on data that are not there yet begin with this program's version.
    pub(crate) fn begins_data(&self) {
        self.inner.schema.begins.store(true, Ordering::Relaxed);
    }

    /// Whether requests may be sent, as far as that is known.
    pub(super) fn is_open(&self) -> bool {
        self.inner.schema.state().is_usable()
    }

    /// Fails if requests must not be sent. Looks at the version if nobody has yet.
    pub(super) async fn admit(&self) -> Result<()> {
        if self.schema().0 == Schema::Unknown {
            self.look_at_schema().await?;
        }
        match self.schema() {
            (state, words) if state.is_refused() => {
                Err(self.unavailable("schema", Trouble::Schema, words))
            }
            _ => Ok(()),
        }
    }

    /// Looks at the version of the data. Where it can't be seen, what was known of it stays; if nothing was, a copy tells it.
    pub(crate) async fn look_at_schema(&self) -> Result<()> {
        let found = match self.stored_schema().await {
            Ok(Some(value)) => Schema::of(&value),
            // Keys were found before, and a look for others would cost the same each time.
            Ok(None) if self.is_old() => return Ok(()),
            Ok(None) => self.without_key().await?,
            Err(Error::Unreadable(what)) => Found {
                schema: Schema::Unreadable,
                words: what.to_string(),
                migrated: 0,
                numbers: (0, 0),
            },
            Err(error) if self.schema().0 == Schema::Unknown => {
                self.copied_schema().await.ok_or(error)?
            }
            Err(error) => return Err(error),
        };
        self.copy_schema(&found).await;
        self.inner.schema.set(found);
        Ok(())
    }

    /// What a copy of the version says. None: no copy can be read, or none is there.
    async fn copied_schema(&self) -> Option<Found> {
        let copies = keys::SCHEMA_COPIES.map(|key| {
            let mut get = redis::cmd("GET");
            get.arg(key);
            Item::Plain(get)
        });
        let answers = self.sent_each(&copies).await.ok()?;
        answers.into_iter().find_map(|answer| match answer {
            Ok(Value::BulkString(text)) => Some(Schema::of(&String::from_utf8_lossy(&text))),
            _ => None,
        })
    }

    /// Once in the life of a pod: writes copies of the version where they are missing or of an earlier one. One that can't be
    /// written is tried again at the next look.
    async fn copy_schema(&self, found: &Found) {
        let known = &self.inner.schema;
        let is_written = found.schema == Schema::Current && found.numbers != (0, 0);
        let begins = known.begins.load(Ordering::Relaxed);
        if !is_written || !begins || known.copied.load(Ordering::Relaxed) {
            return;
        }
        let copied = self.raise_copies(found.numbers, found.migrated > 0).await;
        known.copied.store(copied.is_ok(), Ordering::Relaxed);
    }

    async fn raise_copies(&self, numbers: (u64, u64), migrated: bool) -> Result<()> {
        let copies = keys::SCHEMA_COPIES.map(|key| Item::Script(raise(key, numbers, migrated)));
        for answer in self.sent_each(&copies).await? {
            answer?;
        }
        Ok(())
    }

    async fn stored_schema(&self) -> Result<Option<String>> {
        let mut get = redis::cmd("GET");
        get.arg(keys::SCHEMA);
        match self.single((&get).into()).await? {
            Value::Nil => Ok(None),
            Value::BulkString(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            _ => Ok(Some(String::new())),
        }
    }

    /// The version of data without the key. If nothing of them needs a migration, it may be written: there are no data, or a
    /// server has lost them, and pods of this version have begun them anew.
    async fn without_key(&self) -> Result<Found> {
        let Some(is_empty) = self.needs_nothing().await? else {
            // Another pod may have begun the data since.
            let value = self.stored_schema().await?;
            return Ok(value.map_or_else(
                || Found::without_key(Schema::Old),
                |value| Schema::of(&value),
            ));
        };
        if !self.inner.schema.begins.load(Ordering::Relaxed) {
            return Ok(Found::without_key(Schema::Current));
        }
        match self.written_schema(!is_empty).await {
            // Nobody writes anything there, so there are no data.
            Err(Error::Unavailable(why)) if why.trouble.is_of_writes() => {
                Ok(Found::without_key(Schema::Current))
            }
            written => written,
        }
    }

    /// Says that the data are of this program's version from now on, unless they are of a later one.
    pub(crate) async fn raise_schema(&self) -> Result<()> {
        self.raise_copies((WRITTEN, OLDEST_READER), true).await?;
        let found = self.written_schema(true).await?;
        self.inner.schema.set(found);
        Ok(())
    }

    /// Writes this program's version, unless a later one is written. Answers what is then there. `migrated`: data of an earlier
    /// version may be among them.
    async fn written_schema(&self, migrated: bool) -> Result<Found> {
        let call = raise(keys::SCHEMA, (WRITTEN, OLDEST_READER), migrated);
        Ok(match self.single((&call).into()).await? {
            Value::BulkString(text) => Schema::of(&String::from_utf8_lossy(&text)),
            _ => Schema::of(""),
        })
    }

    /// Whether there are no data at all, if none need a migration. `None`: some do, or that can't be seen, or not soon.
    async fn needs_nothing(&self) -> Result<Option<bool>> {
        let (start, mut is_empty) = (Instant::now(), true);
        for server in self.masters().await? {
            let mut cursor = Vec::from(*b"0");
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(&cursor).arg("MATCH").arg(keys::ALL);
                scan.arg("COUNT").arg(PAGE);
                let page = match server.admin(&scan).await {
                    Ok(Value::Array(page)) => page,
                    Ok(_) => return Ok(None),
                    Err(Error::Unavailable(why)) if why.trouble == Trouble::Rights => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                let [Value::BulkString(next), Value::Array(found)] = page.as_slice() else {
                    return Ok(None);
                };
                is_empty &= found.is_empty();
                let looks: Vec<Item> = found.iter().filter_map(look_at).collect();
                for answer in self.sent_each(&looks).await? {
                    match answer {
                        Ok(Value::Int(0)) => {}
                        Ok(_) | Err(Error::Unreadable(_)) => return Ok(None),
                        Err(error) => return Err(error),
                    }
                }
                if next == b"0" {
                    break;
                }
                if start.elapsed() > LONGEST_LOOK {
                    return Ok(None);
                }
                cursor.clone_from(next);
            }
        }
        Ok(Some(is_empty))
    }
}

/// The call that raises the version in one key.
fn raise(key: &str, (written, reader): (u64, u64), migrated: bool) -> ScriptCall {
    let call = scripts::SCHEMA_RAISE.call(&[key]);
    call.arg(written).arg(reader).arg(u8::from(migrated))
}

/// The call that looks whether a user's slot needs a migration, if the key is that of the user's records.
fn look_at(key: &Value) -> Option<Item> {
    let Value::BulkString(key) = key else {
        return None;
    };
    match keys::purpose(key)? {
        Purpose::Slot(Owner::User(app, user), "rooms") => {
            let keys = UserKeys::new(&app, &user);
            let call = scripts::USER_MIGRATE.call(&[keys.counts(), keys.rooms()]);
            Some(Item::Script(call.arg(0)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_or_refused_never_guessed() {
        for (value, state) in [
            ("2 2", Schema::Current),
            ("7 2", Schema::Current),
            ("2 1", Schema::Current),
            ("1 1", Schema::Old),
            ("3 3", Schema::Newer),
            ("1 3", Schema::Newer),
            ("99999999999 99999999998", Schema::Newer),
            ("", Schema::Unreadable),
            ("2", Schema::Unreadable),
            ("2 ", Schema::Unreadable),
            ("2 0", Schema::Unreadable),
            ("1 2", Schema::Unreadable),
            ("+2 2", Schema::Unreadable),
            ("2 2 1795738475", Schema::Current),
            ("2 2 ", Schema::Unreadable),
            ("2 2 2 2", Schema::Unreadable),
            ("two two", Schema::Unreadable),
            ("99999999999999999999999 1", Schema::Unreadable),
        ] {
            let found = Schema::of(value);
            assert_eq!(found.schema, state, "{value:?}");
            assert_eq!(found.words.is_empty(), state == Schema::Current);
        }
        let written = format!("{WRITTEN} {OLDEST_READER}");
        assert_eq!(Schema::of(&written).schema, Schema::Current);
        assert_eq!(Schema::of("2 2 1795738475").migrated, 1_795_738_475);
    }
}
