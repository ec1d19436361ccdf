//! The form of everything in the slots of users and rooms: the type of each key, and what each field may hold. The self-check
//! reads all data by these rules, so that it names what no version of this program writes instead of stopping there. A new
//! field of a script needs a rule here; the test that verifies random histories fails without it.

mod order;

use serde_json::Value;

use crate::audit::record::AuditRecord;
use crate::counts::number::{Stored as _, whole_number};
use crate::counts::room::{Act, Audience, Job, Membership};
use crate::keys::{self, is_encoded};

/// A type of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Hash,
    List,
    SortedSet,
}

/// What is wrong with something stored; `Ok`: nothing.
pub(super) type FormCheck = Result<(), &'static str>;

const NOT_UTF8: &str = "not UTF-8";
const NO_ID: &str = "no id is written like that";
const NO_FIELD: &str = "no such field is written";
const NO_NUMBER: &str = "not a number from 0 to 2^53";
const NO_RECORD: &str = "not in the form of a record";
pub(super) const MISSING: &str = "missing";
pub(super) const WRONG_TYPE: &str = "of another type";

/// Which kind of slot a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotKind {
    User,
    Room,
}

impl SlotKind {
    /// The type that a key of such a slot is of.
    pub(super) fn type_of(self, what: &str) -> Type {
        match (self, what) {
            (SlotKind::User, "marks") | (SlotKind::Room, "recalled" | "allmentions" | "bounds") => {
                Type::SortedSet
            }
            (SlotKind::Room, "log") => Type::List,
            _ => Type::Hash,
        }
    }

    /// Whether this program writes a field of a key, and its value, in this form. A list has no fields: only values are checked.
    /// In a sorted set, `field` is the member and `value` the score.
    pub(super) fn check(self, what: &str, field: &[u8], value: &[u8]) -> FormCheck {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| NOT_UTF8);
        let (field, value) = (text(field)?, text(value)?);
        match (self, what) {
            (SlotKind::User, "counts") => count_field(field).and_then(|()| number(value)),
            (SlotKind::User, "refs") => reference(field, value),
            (SlotKind::User, "rooms") => {
                id(field)?;
                AuditRecord::of_room(value)
                    .map_err(|_| NO_RECORD)
                    .and(Ok(()))
            }
            (SlotKind::User, "supers") => {
                id(field)?;
                let record = AuditRecord::of_supergroup(value);
                record.map_err(|_| NO_RECORD).and(Ok(()))
            }
            (SlotKind::User, "marks") => mark(field),
            (SlotKind::User, "left") => tombstone(field, value),
            (SlotKind::User, "prefs") => preference(field, value),
            (SlotKind::User, "profile") => profile(field, value),
            (_, "keys0" | "keys1") => event_key(field, value),
            (SlotKind::User, _) => job(field, value, true),
            (SlotKind::Room, "meta") => meta(field, value),
            (SlotKind::Room, "members") => {
                id(field)?;
                Membership::parse(value).map_err(|_| NO_RECORD).and(Ok(()))
            }
            (SlotKind::Room, "ids") => id(field).and_then(|()| known_id(value)),
            (SlotKind::Room, "log") => logged(value).map(|_| ()).ok_or(NO_RECORD),
            (SlotKind::Room, "recalled" | "allmentions") => position(field, value),
            (SlotKind::Room, "timed") => order::timed(field, value),
            (SlotKind::Room, "bounds") => order::bounds(field, value),
            (SlotKind::Room, "arrived") => order::arrived(field, value),
            (SlotKind::Room, _) => job(field, value, false),
        }
    }
}

fn number(text: &str) -> FormCheck {
    whole_number(text).map(|_| ()).ok_or(NO_NUMBER)
}

fn id(text: &str) -> FormCheck {
    is_encoded(text).then_some(()).ok_or(NO_ID)
}

fn ids(list: &str, split: char) -> FormCheck {
    list.split(split).try_for_each(id)
}

/// `known`, `supers`, `messages:group`, `messages:group:TYPE`, `unread_rooms:group`, `room:R`, `tag:T`, `peer:P`.
fn count_field(field: &str) -> FormCheck {
    let (family, rest) = field.split_once(':').unwrap_or((field, ""));
    match family {
        "known" | "supers" | "live" => field.eq(family).then_some(()).ok_or(NO_FIELD),
        "room" | "tag" | "peer" => id(rest),
        "unread_rooms" if matches!(rest, "direct" | "group") => Ok(()),
        "messages" | "mentions" | "invitations" => match rest.split_once(':') {
            Some(("direct" | "group", custom_type)) => id(custom_type),
            None if matches!(rest, "direct" | "group") => Ok(()),
            _ => Err(NO_FIELD),
        },
        _ => Err(NO_FIELD),
    }
}

/// `tag:T` and `type:T` count, `direct:P` lists rooms.
fn reference(field: &str, value: &str) -> FormCheck {
    match field.split_once(':') {
        Some(("tag" | "type", name)) => id(name).and_then(|()| number(value)),
        Some(("direct", peer)) => id(peer).and_then(|()| ids(value, ',')),
        _ => Err(NO_FIELD),
    }
}

/// The position of a mark: sixteen digits; below 0 `-` and the fifteen digits of 10^15 + position, so that marks are in order.
pub(super) fn marked_position(text: &str) -> Option<i64> {
    const BELOW: i64 = 1_000_000_000_000_000;
    match text.strip_prefix('-') {
        _ if text.len() != 16 => None,
        None => i64::try_from(whole_number(text)?).ok(),
        Some(digits) => Some(i64::try_from(whole_number(digits)?).ok()? - BELOW),
    }
}

/// `room|h|position`, `room|m|position` or `room|x|position`. Only mentions may be at or below 0.
fn mark(member: &str) -> FormCheck {
    let parts: Vec<&str> = member.split('|').collect();
    let (room, digits, least) = match parts.as_slice() {
        [room, "m", digits] => (room, digits, i64::MIN),
        [room, "h" | "x", digits] => (room, digits, 1),
        [room, "e", digits, stamp, "0" | "1"] => {
            number(stamp)?;
            (room, digits, 1)
        }
        _ => return Err(NO_RECORD),
    };
    id(room)?;
    let at = marked_position(digits).filter(|at| *at >= least);
    at.map(|_| ()).ok_or(NO_RECORD)
}

/// Room → `epoch|microseconds`. Four more fields, by names that no room can have: deletions of the user, when tombstones were
/// swept, and the token of a seal.
fn tombstone(field: &str, value: &str) -> FormCheck {
    if matches!(field, "*" | "#" | "!" | "~") {
        return number(value);
    }
    id(field)?;
    let (epoch, at) = value.split_once('|').ok_or(NO_RECORD)?;
    number(epoch).and_then(|()| number(at))
}

/// `room|preference` → `stamp|JSON`.
fn preference(field: &str, value: &str) -> FormCheck {
    let (room, preference) = field.rsplit_once('|').ok_or(NO_FIELD)?;
    id(room)?;
    let (stamp, text) = value.split_once('|').ok_or(NO_RECORD)?;
    number(stamp)?;
    let json: Value = serde_json::from_str(text).map_err(|_| "not JSON")?;
    let right = match preference {
        "tags" => json
            .as_array()
            .is_some_and(|tags| tags.iter().all(Value::is_string)),
        "tag_colors" => json.is_object(),
        // The readers compare these texts without a JSON parser, so no blank may stand around them.
        "hidden" | "sticky" | "muted" => matches!(text, "true" | "false"),
        "count" => matches!(
            text,
            r#""all""# | r#""messages""# | r#""mentions""# | r#""none""#
        ),
        "extra" => json.is_object(),
        "folder" => json.is_string(),
        _ => return Err(NO_FIELD),
    };
    right.then_some(()).ok_or("JSON of another type")
}

fn profile(field: &str, value: &str) -> FormCheck {
    match field {
        "nickname" | "avatar_url" => Ok(()),
        "is_robot" => flag(value),
        "last_login_time" => number(value),
        _ => Err(NO_FIELD),
    }
}

/// An event's key → `type of event|job`, the job may be empty; and under `#` since when keys are written into this hash.
fn event_key(field: &str, value: &str) -> FormCheck {
    if field == "#" {
        return number(value);
    }
    // One event of a caller may need several script calls, each with a part of the key after `#`. The key of an event of many
    // rooms also has the user, after `*`. What waited for its message has a key with both.
    let (key, part) = field.split_once('#').unwrap_or((field, "0"));
    let (key, user) = key.split_once('*').unwrap_or((key, "u"));
    // The key of an event in a request whose key covers all its events ends with the event's place. It may be longer than a name.
    let request = key
        .rsplit_once("%2F")
        .filter(|(_, place)| number(place).is_ok());
    id(key).or(id(request.map_or("", |(request, _)| request)))?;
    id(user).and(number(part))?;
    let (event, job) = value.split_once('|').ok_or(NO_RECORD)?;
    let is_type = event
        .bytes()
        .all(|b| matches!(b, b'a'..=b'z' | b'.' | b'_'));
    match job {
        _ if !is_type => Err(NO_RECORD),
        "" => Ok(()),
        job => number(job),
    }
}

fn flag(value: &str) -> FormCheck {
    let right = matches!(value, "0" | "1");
    right.then_some(()).ok_or("neither 0 nor 1")
}

/// The version of a list of members: a revision, and a digest after it.
fn version(text: &str) -> FormCheck {
    let (rev, digest) = text.split_once('.').unwrap_or((text, "0"));
    let is_digest = digest.bytes().all(|b| b.is_ascii_hexdigit()) && !digest.is_empty();
    number(rev).and(is_digest.then_some(()).ok_or(NO_RECORD))
}

/// What the fields of a room's meta may hold.
fn meta(field: &str, value: &str) -> FormCheck {
    match field {
        "mrev" => version(value),
        "rev" | "born" | "head" | "created" | "sealed" | "kept" | "trim" | "accepted" | "told"
        | "mintime" | "maxtime" | "last_time" | "last_updated" | "last_position" | "timed"
        | "late" | "all_read" | "all_set" => number(value),
        "last_at" => match value.split_once(',') {
            Some((at, newest)) => number(at).and(number(newest)),
            None => number(value),
        },
        "last_payload" => serde_json::from_str::<serde_json::Map<String, Value>>(value)
            .map(|_| ())
            .map_err(|_| "no JSON object"),
        "kind" => {
            let right = matches!(value, "direct" | "group" | "supergroup");
            right.then_some(()).ok_or("no kind of a room")
        }
        "status" | "bot_mode" | "encrypted" | "resets" | "live" => flag(value),
        "type" | "last_sender" => match value {
            "" => Ok(()),
            name => id(name),
        },
        "tags" => match value {
            "" => Ok(()),
            list => ids(list, ','),
        },
        "parted" => ids(value, ','),
        // `rev|position`; of a silent message `rev|-number:position`
        "cleared" => value.split(',').try_for_each(|cleared| {
            let (rev, positions) = cleared.split_once('|').ok_or(NO_RECORD)?;
            number(rev)?;
            positions.split(';').try_for_each(|one| {
                let (silent, at) = match one.strip_prefix('-') {
                    Some(named) => named.split_once(':').ok_or(NO_RECORD)?,
                    None => ("0", one),
                };
                number(silent).and_then(|()| number(at))
            })
        }),
        "last_id" => id(value),
        "last_text" | "last_type" | "name" | "cover" | "description" | "webhook" | "bot_state" => {
            Ok(())
        }
        "service_status" => {
            let number = value.parse::<i64>();
            number.map(|_| ()).map_err(|_| "not a number")
        }
        _ => Err(NO_FIELD),
    }
}

/// The fields that the meta of every room has, and below those that it has from the first message on.
pub(super) const ALWAYS: [&str; 9] = [
    "rev", "born", "mrev", "head", "kind", "status", "type", "tags", "created",
];
pub(super) const WITH_MESSAGES: [&str; 3] = ["accepted", "mintime", "maxtime"];

/// What a room remembers of a message by its id: `rev|position|time|recall|number`, and what may follow as `message_send.lua`
/// says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownId {
    pub(super) rev: u64,
    pub(super) position: u64,
    pub(super) time: i64,
    /// The revision of the recall; 0: none.
    pub(super) recall: u64,
    pub(super) number: u64,
    pub(super) silent: bool,
    /// Whom it mentions, and digests of what edits gave: `mentions` or `mentions|digests`.
    pub(super) more: String,
}

impl KnownId {
    pub(super) fn parse(value: &str) -> Option<Self> {
        let parts: Vec<&str> = value.split('|').collect();
        let [rev, position, time, recall, number, rest @ ..] = parts.as_slice() else {
            return None;
        };
        let (silent, more) = match rest {
            [] => (false, &[][..]),
            ["s", more @ ..] => (true, more),
            ["", more @ ..] if !more.is_empty() => (false, more),
            _ => return None,
        };
        let is_right = match more {
            [] => true,
            [_] => !silent,
            [_, digests] => !digests.is_empty() && digests.split('.').count() == 3,
            _ => false,
        };
        let mentions = more.first().filter(|list| !matches!(**list, "" | "*"));
        if !is_right || mentions.is_some_and(|list| ids(list, ',').is_err()) {
            return None;
        }
        Some(Self {
            rev: whole_number(rev)?,
            position: whole_number(position)?,
            time: i64::stored(time)?,
            recall: whole_number(recall)?,
            number: whole_number(number)?,
            silent,
            more: more.join("|"),
        })
    }

    pub(super) fn text(&self) -> String {
        let Self {
            rev,
            position,
            time,
            recall,
            number,
            silent,
            more,
        } = self;
        let end = match (silent, more.as_str()) {
            (false, "") => String::new(),
            (true, "") => "|s".to_owned(),
            (silent, more) => format!("|{}|{more}", if *silent { "s" } else { "" }),
        };
        format!("{rev}|{position}|{time}|{recall}|{number}{end}")
    }
}

fn known_id(value: &str) -> FormCheck {
    KnownId::parse(value).map(|_| ()).ok_or(NO_RECORD)
}

/// A message in a room's history: `rev|position|time|id`, and where needed `|sender` and `|except`; position 0: it was silent.
pub(super) fn logged(value: &str) -> Option<(u64, u64, i64, &str)> {
    let mut parts = value.split('|');
    let (rev, position) = (whole_number(parts.next()?)?, whole_number(parts.next()?)?);
    let time = i64::stored(parts.next()?)?;
    let id = parts.next().filter(|id| is_encoded(id))?;
    let more: Vec<&str> = parts.collect();
    let is_sender = |sender: &str| is_encoded(sender);
    let is_right = match more.as_slice() {
        [] => true,
        [sender] => is_sender(sender),
        [sender, except] => (sender.is_empty() || is_sender(sender)) && ids(except, ',').is_ok(),
        [sender, except, "-"] => {
            is_sender(sender) && (except.is_empty() || ids(except, ',').is_ok())
        }
        _ => false,
    };
    is_right.then_some((rev, position, time, id))
}

/// A position in a sorted set; its score has to be the same number.
fn position(member: &str, score: &str) -> FormCheck {
    number(member)?;
    (member == score)
        .then_some(())
        .ok_or("its score is another number")
}

/// Whether a text is a position.
pub(super) fn is_position(text: &str) -> bool {
    whole_number(text).is_some_and(|at| at > 0 && at.to_string() == text)
}

/// A job: the end of its lease, its audience, and its act. A user's job is to leave rooms.
fn job(stamp: &str, value: &str, of_user: bool) -> FormCheck {
    number(stamp)?;
    let mut lines = value.splitn(4, '\n');
    // Any number is valid as the end of a lease.
    let lease = lines.next().unwrap_or_default();
    if lease.is_empty() || !lease.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("no end of a lease");
    }
    let (audience, names) = (lines.next(), lines.next().unwrap_or_default());
    let job = Job::parse(stamp, value).map_err(|_| NO_RECORD)?;
    if (audience == Some("leave")) != of_user {
        return Err(NO_RECORD);
    }
    match &job.audience {
        Audience::Leave(rooms) => rooms.iter().try_for_each(|(room, _)| id(room.as_str()))?,
        _ if names.is_empty() => {}
        _ => ids(names, ',')?,
    }
    if let Act::Message {
        own,
        sender,
        mentions,
        brings,
        except,
        ..
    } = &job.act
    {
        if !matches!(own, 'r' | 'h' | 'q' | 'n') {
            return Err(NO_RECORD);
        }
        let pair = brings.iter().flat_map(|(pair, _)| pair);
        let mut named = sender.iter().chain(mentions).chain(pair).chain(except);
        named.try_for_each(|name| id(name.as_str()))?;
    }
    match &job.act {
        Act::Read(_, but) => but.iter().try_for_each(|(user, _)| id(user.as_str()))?,
        Act::Placed(placed) => placed.iter().try_for_each(|(user, ..)| id(user.as_str()))?,
        _ => {}
    }
    if let Act::Edit { on, off, .. } = &job.act {
        let mut named = on.users.iter().chain(&off.users);
        named.try_for_each(|named| id(named.user.as_str()))?;
    }
    Ok(())
}

/// An entry of an index of announcements, and its score.
pub(super) fn announced(shard: u32, entry: &[u8], score: &[u8]) -> FormCheck {
    let entry = std::str::from_utf8(entry).map_err(|_| NOT_UTF8)?;
    let (keys::Owner::Room(_, name) | keys::Owner::User(_, name)) =
        keys::parse_entry(entry).ok_or("no room and no user")?;
    id(name.as_str())?;
    if keys::pending_shard(entry) != shard {
        return Err("of another index");
    }
    number(std::str::from_utf8(score).map_err(|_| NOT_UTF8)?)
}

#[cfg(test)]
mod tests;
