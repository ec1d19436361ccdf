//! For the fuzz target `records`: all that is stored in Redis, and the keys that it is stored under.
#![allow(missing_docs)]

use redis::Value;

use crate::audit::form::{self, KnownId, SlotKind, logged};
use crate::audit::record::AuditRecord;
use crate::counts::Kind;
use crate::counts::Pref;
use crate::counts::number::{count, short, stamp};
use crate::counts::record::{RoomRecord, SupergroupRecord};
use crate::counts::room::{Act, Audience, Job, Last, Membership, Named};
use crate::engine::reply::{Reply, stored};
use crate::engine::set_pref;
use crate::engine::snapshot::Snapshot;
use crate::keys::{self, ROOM_KEYS, USER_KEYS};
use crate::names::is_name;

/// The first byte says which key it is. The bytes before the first zero byte are the field, those after it the value.
pub fn check(data: &[u8]) {
    let Some((&select, rest)) = data.split_first() else {
        return;
    };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let field = parts.next().unwrap_or_default();
    let value = parts.next().unwrap_or_default();
    let of = if select & 1 == 0 {
        SlotKind::User
    } else {
        SlotKind::Room
    };
    let names: &[&'static str] = if of == SlotKind::User {
        &USER_KEYS
    } else {
        &ROOM_KEYS
    };
    let what = names[usize::from(select >> 1) % names.len()];
    let form = of.check(what, field, value);
    assert_eq!(of.check(what, field, value), form);
    key(field);
    key(value);
    for shard in [0, keys::pending_shard(&String::from_utf8_lossy(field))] {
        if form::announced(shard, field, value).is_ok() {
            let entry = keys::parse_entry(std::str::from_utf8(field).unwrap()).unwrap();
            assert_eq!(spelled(&entry).as_bytes(), field);
        }
    }
    let (Ok(field), Ok(value)) = (std::str::from_utf8(field), std::str::from_utf8(value)) else {
        assert!(form.is_err());
        return;
    };
    numbers(value);
    let record = user_record(value);
    let brief = brief(value, record.as_ref());
    let entry = entry(value);
    let job = Job::parse(field, value).ok();
    let known = KnownId::parse(value);
    if let Some(known) = &known {
        assert_eq!(KnownId::parse(&known.text()).as_ref(), Some(known));
    }
    if let Some((rev, at, time, id)) = logged(value) {
        let text = format!("{rev}|{at}|{time}|{id}");
        assert_eq!(logged(&text), Some((rev, at, time, id)));
    }
    snapshot(value);
    let setting = field.rsplit_once('|').map(|(_, setting)| setting);
    let mut pref = Pref::default();
    let set = setting.map(|setting| set_pref(&mut pref, setting, value));
    if form.is_err() {
        return;
    }
    // What the self-check finds right, every reader of it can read.
    match (of, what) {
        (SlotKind::User, "rooms") => assert!(record.is_some() && brief),
        (SlotKind::User, "prefs") => assert!(set.unwrap().is_ok(), "{field:?} {value:?}"),
        (SlotKind::Room, "members") => assert!(entry.is_some()),
        (SlotKind::Room, "ids") => assert!(known.is_some()),
        (_, "pending") => {
            let job = job.unwrap();
            let again = Job::parse(&job.stamp.to_string(), &job_record(&job)).unwrap();
            assert_eq!(again, job);
        }
        (SlotKind::User, "counts") => assert!(count(value).is_ok()),
        _ => {}
    }
}

fn spelled(entry: &keys::Owner) -> String {
    match entry {
        keys::Owner::Room(app, name) => keys::room_entry(app, name),
        keys::Owner::User(app, name) => keys::user_entry(app, name),
    }
}

fn key(bytes: &[u8]) {
    let purpose = keys::purpose(bytes);
    for whole in [false, true] {
        let place = keys::label(bytes, whole);
        assert_eq!(place.kind == "other" && purpose.is_some(), {
            let durable = matches!(purpose, Some(keys::Purpose::Durable));
            let hidden = matches!(purpose, Some(keys::Purpose::Slot(..))) && place.kind == "other";
            durable || hidden
        });
    }
    let _ = keys::label_of_several([bytes, b"unread:v1:{demo:u:a}:counts"].into_iter());
    if let Some(guard) = keys::guard(bytes) {
        assert!(guard.ends_with(b"}:-") && bytes.starts_with(&guard[..guard.len() - 2]));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert_eq!(purpose, None);
        return;
    };
    if let Some((entry, what)) = keys::parse_key(text) {
        assert_eq!(format!("unread:v1:{{{}}}:{what}", spelled(&entry)), text);
        assert_eq!(keys::parse_entry(&spelled(&entry)), Some(entry));
    }
    if let Some(keys::Purpose::Slot(entry, what)) = purpose {
        let spelled = match &entry {
            keys::Owner::Room(app, name) => keys::RoomKeys::new(app, name).key(what),
            keys::Owner::User(app, name) => keys::UserKeys::new(app, name).key(what),
        };
        assert_eq!(spelled, text);
    }
    let encoded = keys::encode(text);
    assert_eq!(keys::decode(encoded.as_str()), text);
    assert!(
        !encoded
            .as_str()
            .contains(['{', '}', ':', '|', ',', '*', '?', '[', ' ', '\n'])
    );
    assert_eq!(keys::is_encoded(encoded.as_str()), is_name(text));
    if keys::is_encoded(text) {
        assert_eq!(keys::encode(&keys::decode(text)).as_str(), text);
    }
}

fn numbers(value: &str) {
    if let Ok(read) = stamp(Some(value)) {
        let plain = value.trim_start_matches('0');
        let plain = if plain.is_empty() { "0" } else { plain };
        assert_eq!(short(read), plain);
        assert_eq!(stamp(Some(&short(read))).unwrap(), read);
    }
    let bytes = value.as_bytes().first_chunk().copied().unwrap_or_default();
    let number = u64::from_le_bytes(bytes);
    match stamp(Some(&short(number))) {
        Ok(read) => assert_eq!(read, number),
        Err(_) => assert!(number >= 36_u64.pow(12)),
    }
    let plain = stored(&Value::BulkString(value.into()));
    if let Ok(read) = count(value) {
        assert_eq!(plain.unwrap(), read);
        assert_eq!(count(&read.to_string()).unwrap(), read);
    }
    for rev in [0, 5, number] {
        if let Ok(Some(last)) = Last::recorded(value, rev) {
            let again = Last::recorded(&last.record(rev), rev).unwrap();
            assert_eq!(again, Some(last));
        }
    }
}

fn user_record(value: &str) -> Option<AuditRecord> {
    if let Ok(record) = AuditRecord::of_supergroup(value) {
        let again = AuditRecord::of_supergroup(&record.record()).unwrap();
        assert_eq!(again, record);
        let read = SupergroupRecord::read(value).unwrap();
        assert_eq!(
            (read.state, read.epoch, read.read),
            (record.state, record.epoch, record.read)
        );
    }
    let _ = SupergroupRecord::read(value).is_ok();
    let record = AuditRecord::of_room(value).ok()?;
    assert_eq!(AuditRecord::of_room(&record.record()).unwrap(), record);
    let _ = (record.created(), record.tags().count());
    if is_sound(value) {
        let head = record.head.and_then(|head| i64::try_from(head).ok());
        let above = head.unwrap_or(record.read) - record.read;
        assert!(i64::try_from(record.unread()).unwrap() <= above);
    }
    Some(record)
}

/// Whether the numbers of a record can be those of one membership.
fn is_sound(value: &str) -> bool {
    RoomRecord::read(value).and_then(RoomRecord::sound).is_ok()
}

/// Checks that the reader of lists sees what the record says. Answers whether it sees what it must.
fn brief(value: &str, record: Option<&AuditRecord>) -> bool {
    let read = RoomRecord::read_listed(value);
    let Some(record) = record.filter(|_| is_sound(value)) else {
        return true;
    };
    match read.unwrap() {
        Some(brief) => {
            let kind = match record.kind.as_str() {
                "direct" => Kind::Direct,
                _ => Kind::Group,
            };
            assert_eq!(brief.kind, kind);
            assert_eq!(brief.created(), record.created());
            assert_eq!(brief.last, record.last);
            assert_eq!(brief.tags, record.tags);
            record.state == 'j' && record.status == "1"
        }
        None => record.state != 'j' || record.status != "1",
    }
}

fn entry(value: &str) -> Option<Membership> {
    let entry = Membership::parse(value).ok()?;
    let more = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
    let base = match entry.state {
        'l' => short(entry.base),
        _ => entry.base.to_string(),
    };
    let text = format!(
        "{}|{}|{base}|{}|{}|{}",
        entry.state,
        short(entry.epoch),
        more(entry.vouched),
        more(entry.since),
        more(entry.reset)
    );
    assert_eq!(Membership::parse(&text).unwrap(), entry);
    Some(entry)
}

fn names(list: &[keys::Enc]) -> String {
    let names: Vec<&str> = list.iter().map(keys::Enc::as_str).collect();
    names.join(",")
}

/// A job as the scripts write it.
fn job_record(job: &Job) -> String {
    let (audience, listed) = match &job.audience {
        Audience::All => ("all", String::new()),
        Audience::Gone => ("gone", String::new()),
        Audience::Some(list) => ("some", names(list)),
        Audience::Leave(rooms) => {
            let rooms: Vec<String> = rooms
                .iter()
                .map(|(room, epoch)| match epoch {
                    Some(epoch) => format!("{}:{}", room.as_str(), short(*epoch)),
                    None => room.as_str().to_owned(),
                })
                .collect();
            ("leave", rooms.join(","))
        }
    };
    let act = match &job.act {
        Act::Nothing => String::new(),
        Act::Recall(at) => format!("c|{at}"),
        Act::Read(at, but) => {
            let but = but.iter().map(|(user, to)| {
                let to = to.map(|to| to.to_string()).unwrap_or_default();
                format!("{}:{to}", user.as_str())
            });
            format!("r|{at}|{}", but.collect::<Vec<_>>().join(","))
        }
        Act::Placed(placed) => {
            let list = |positions: &[u64]| {
                let positions: Vec<String> = positions.iter().map(u64::to_string).collect();
                positions.join(",")
            };
            let placed = placed.iter().map(|(user, holes, mentions)| {
                format!("{}:{}:{}", user.as_str(), list(holes), list(mentions))
            });
            format!("j|{}", placed.collect::<Vec<_>>().join("|"))
        }
        Act::AsOf(time) => format!("t|{time}"),
        Act::Prefs(lines) => format!("p|{lines}"),
        Act::Reset(text) => format!("b|{text}"),
        Act::Edit { at, on, off } => {
            let named = |named: &Named| match named {
                Named::Everybody => "*".to_owned(),
                Named::Users(users) => names(users),
            };
            format!("e|{at}|{}|{}", named(on), named(off))
        }
        Act::Message {
            at,
            own,
            sender,
            everybody,
            mentions,
            brings,
            except,
        } => {
            let sender = sender.as_ref().map_or("", keys::Enc::as_str);
            let mentions = match everybody {
                true => "*".to_owned(),
                false => names(mentions),
            };
            let brings = match brings {
                Some((two, base)) => format!("|{}|{base}", names(two)),
                None => "||".to_owned(),
            };
            format!("m|{at}|{own}|{sender}|{mentions}{brings}|{}", names(except))
        }
    };
    format!("1\n{audience}\n{listed}\n{act}")
}

/// Reads a snapshot from the answer of a script. Each line stands for a value; an empty line for nil.
fn snapshot(text: &str) {
    let value = |line: &str| match line.strip_prefix(':').and_then(|n| n.parse().ok()) {
        Some(number) => Value::Int(number),
        None if line.is_empty() => Value::Nil,
        None => Value::BulkString(line.into()),
    };
    let lines = Value::Array(text.split('\n').map(value).collect());
    let _ = Snapshot::read(&mut Reply::new(lines).unwrap());
}
