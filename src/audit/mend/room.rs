//! Mends a room's slot.

use std::collections::BTreeSet;

use redis::Value;

use super::plan::{KeyChange, MendPlan, word};
use super::{LOST, Mended, Mending, ROUNDS};
use crate::audit::Repairer;
use crate::audit::derive::{LogLine, Sources};
use crate::audit::form::{self, ALWAYS, KnownId, SlotKind, Type, WITH_MESSAGES};
use crate::audit::record::AuditRecord;
use crate::audit::slot::{Bad, text_or_escaped};
use crate::connection::Item;
use crate::counts::number::short;
use crate::counts::room::Membership;
use crate::engine::reply::{Reply, readable};
use crate::error::Result;
use crate::keys::{self, Enc, RoomKeys, UserKeys, short_hash};
use crate::names::AppId;
use crate::scripts;

/// How many elements of a history are read at most.
const HISTORY: usize = 200_000;

impl Repairer {
    pub(super) async fn mend_room<F, P>(
        &self,
        app: &AppId,
        room: &Enc,
        run: &mut Mending<'_, F, P>,
    ) -> Result<()>
    where
        F: AsyncFnMut(Mended) -> Result<()>,
    {
        let keys = RoomKeys::new(app, room);
        let (mut lost, mut before) = (0, Vec::new());
        for _ in 0..ROUNDS {
            let bad = self.audit.check_room(app, room).await?.bad;
            // If the same data can't be read again after they were mended, another round will not help.
            if bad.is_empty() || bad == before {
                return Ok(());
            }
            let plan = self.plan_room(app, room, &bad).await?;
            let key_of = |bad: &Bad| keys.key(bad.what).into_bytes();
            let done = self.carry_out(key_of, &bad, &plan, run).await?;
            let members = |bad: &Bad| bad.what == "members" && bad.field.is_none();
            if done && bad.iter().any(members) {
                run.lost_lists.insert((app.clone(), room.clone()));
            }
            lost = if done { 0 } else { lost + 1 };
            before = if done { bad } else { Vec::new() };
            if run.dry || lost >= LOST {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The plan to mend what can't be read of a room.
    async fn plan_room(&self, app: &AppId, room: &Enc, bad: &[Bad]) -> Result<MendPlan> {
        let keys = RoomKeys::new(app, room);
        let sources = self.sources(app, room, bad).await?;
        let ttl = self.writer.history().max_age_micros() / 1_000 + 1_200_000;
        let mut plan = MendPlan::default();
        for one in bad {
            let replacement = match &one.field {
                None => plan_key(&mut plan, &keys, one.what, &sources, ttl),
                Some(field) => {
                    let name = text_or_escaped(field);
                    let replacement = match one.what {
                        "members" if keys::is_encoded(&name) => {
                            let user = Enc::stored(name.as_str());
                            let record = self.record_of(app, room, &user).await?;
                            record.map(|record| entry_of(&record))
                        }
                        _ => replacement(one, &name, &sources),
                    };
                    plan_field(&mut plan, &keys, one, field, replacement.as_deref());
                    replacement
                }
            };
            plan.replacements.push(replacement);
        }
        // The script writes a changed list anew, so it needs a new time to live.
        if bad
            .iter()
            .any(|bad| bad.what == "log" && bad.field.is_some())
        {
            plan.add(keys.log(), KeyChange::Ttl(ttl));
        }
        plan_last_message(&mut plan, &keys, bad, &sources);
        if bad.iter().any(|bad| bad.what == "members")
            && let (Some(rev), Some(mrev)) = (sources.meta.get("rev"), sources.meta.get("mrev"))
        {
            plan_version(&mut plan, &keys, rev, mrev, sources.next_rev());
        }
        Ok(plan)
    }

    /// Reads the data from which a room's slot can be worked out.
    async fn sources(&self, app: &AppId, room: &Enc, bad: &[Bad]) -> Result<Sources> {
        let keys = RoomKeys::new(app, room);
        let mut sources = Sources {
            now: self.redis_time(&keys.meta()).await?,
            ..Sources::default()
        };
        self.audit
            .pages(SlotKind::Room, "meta", &keys.meta(), |field, value| {
                if SlotKind::Room.check("meta", &field, &value).is_ok() {
                    sources
                        .meta
                        .insert(text_or_escaped(&field), text_or_escaped(&value));
                }
                true
            })
            .await?;
        let needs_history = |bad: &Bad| matches!(bad.what, "meta" | "ids" | "log" | "recalled");
        if bad.iter().any(needs_history) {
            self.read_history(&keys, &mut sources).await?;
        }
        if bad.iter().any(|bad| matches!(bad.what, "meta" | "members")) {
            let sample = self.read_members(app, room, &mut sources).await?;
            sources.records = self.records_of(app, room, &sample).await?;
        }
        Ok(sources)
    }

    /// Reads the history, the known ids and the recalled positions.
    async fn read_history(&self, keys: &RoomKeys, sources: &mut Sources) -> Result<()> {
        self.audit
            .pages(SlotKind::Room, "log", &keys.log(), |_, value| {
                let text = text_or_escaped(&value);
                let line = form::logged(&text).map(|(rev, position, time, id)| LogLine {
                    rev,
                    position,
                    time,
                    id: id.to_owned(),
                });
                if line.is_none() {
                    sources.malformed.push((sources.log.len(), value));
                }
                sources.log.push(line);
                sources.log.len() < HISTORY
            })
            .await?;
        self.audit
            .pages(SlotKind::Room, "ids", &keys.ids(), |id, value| {
                if let (true, Some(known)) = (
                    SlotKind::Room.check("ids", &id, &value).is_ok(),
                    KnownId::parse(&text_or_escaped(&value)),
                ) {
                    sources.ids.insert(text_or_escaped(&id), known);
                }
                sources.ids.len() < HISTORY
            })
            .await?;
        self.audit
            .pages(SlotKind::Room, "recalled", &keys.recalled(), |at, score| {
                if SlotKind::Room.check("recalled", &at, &score).is_ok() {
                    sources.recalled.extend(text_or_escaped(&at).parse::<u64>());
                }
                sources.recalled.len() < HISTORY
            })
            .await?;
        Ok(())
    }

    /// Takes all members into account. Returns the members of the first page that has any: their records are a sample.
    async fn read_members(
        &self,
        app: &AppId,
        room: &Enc,
        sources: &mut Sources,
    ) -> Result<Vec<(Enc, Membership)>> {
        let mut sample = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let members;
            (cursor, members) = self.audit.members_page(app, room, &cursor).await?;
            for (_, entry) in &members {
                sources.add_member(entry);
            }
            if sample.is_empty() {
                sample = members;
            }
            if cursor == "0" {
                return Ok(sample);
            }
        }
    }

    /// The records that these members have of a room.
    async fn records_of(
        &self,
        app: &AppId,
        room: &Enc,
        members: &[(Enc, Membership)],
    ) -> Result<Vec<AuditRecord>> {
        let items: Vec<Item> = members
            .iter()
            .flat_map(|(user, _)| {
                let keys = UserKeys::new(app, user);
                [keys.rooms(), keys.supers()].map(|key| {
                    let mut get = redis::cmd("HGET");
                    get.arg(key).arg(room.as_str());
                    Item::Plain(get)
                })
            })
            .collect();
        let mut records = Vec::new();
        let answers = self.audit.redis.send_each(&items).await?;
        for (at, answer) in answers.into_iter().enumerate() {
            let Some(Value::BulkString(text)) = readable(answer)? else {
                continue;
            };
            let text = text_or_escaped(&text);
            let record = match at % 2 {
                0 => AuditRecord::of_room(&text),
                _ => AuditRecord::of_supergroup(&text),
            };
            records.extend(record.ok());
        }
        Ok(records)
    }

    async fn record_of(&self, app: &AppId, room: &Enc, user: &Enc) -> Result<Option<AuditRecord>> {
        let slot = self.audit.slot(app, user).await?;
        let record = slot.record_of(room.as_str());
        Ok(record.filter(|record| slot.left_since(room.as_str()) < record.epoch))
    }

    /// The time of the server that has `key`, in microseconds. The script that announces answers it, even with nothing to
    /// announce.
    async fn redis_time(&self, key: &str) -> Result<u64> {
        let call = scripts::PENDING_TOUCH.call(&[key, key]);
        Reply::new(self.audit.redis.call(&call).await?)?.number()
    }
}

/// Plans to drop a key of a room and to write anew what the sources show of it. Returns a description of what is written anew.
fn plan_key(
    plan: &mut MendPlan,
    keys: &RoomKeys,
    what: &str,
    sources: &Sources,
    ttl: u64,
) -> Option<String> {
    let key = keys.key(what);
    plan.add(&key, KeyChange::Drop(word(SlotKind::Room.type_of(what))));
    match what {
        "meta" if sources.is_room() => {
            let all = all_fields(sources);
            let described = all.iter().map(|(field, text)| format!("{field} {text}"));
            let described = described.collect::<Vec<_>>().join(", ");
            for (field, text) in all {
                plan.add(&key, KeyChange::New(field.to_owned(), text));
            }
            Some(described)
        }
        "ids" => {
            let all = sources.all_ids();
            for (id, known) in &all {
                plan.add(&key, KeyChange::New(id.clone(), known.text()));
            }
            plan.add(&key, KeyChange::Ttl(ttl));
            (!all.is_empty()).then(|| format!("{} ids by the history", all.len()))
        }
        "log" => {
            let all = sources.all_lines();
            for line in &all {
                plan.add(&key, KeyChange::Push(line.text()));
            }
            plan.add(&key, KeyChange::Ttl(ttl));
            match all.len() {
                0 => None,
                1 => Some("1 message by its id".to_owned()),
                many => Some(format!("{many} messages by their ids")),
            }
        }
        "recalled" if !sources.is_direct() => {
            let all = sources.ids.values();
            let all = all.filter(|id| id.recall > 0 && !id.silent);
            let all: BTreeSet<u64> = all.map(|id| id.position).collect();
            for at in &all {
                plan.add(&key, KeyChange::Add(at.to_string()));
            }
            (!all.is_empty()).then(|| format!("{} positions by their ids", all.len()))
        }
        "members" => Some("whom users' records tell".to_owned()),
        _ => None,
    }
}

/// All fields of a meta that the sources show.
fn all_fields(sources: &Sources) -> Vec<(&'static str, String)> {
    let mut fields = ALWAYS.to_vec();
    if sources.field("head").is_some_and(|head| head != "0") {
        fields.extend(WITH_MESSAGES);
    }
    fields.extend([
        "parted",
        "last_id",
        "last_position",
        "last_time",
        "last_at",
        "last_updated",
    ]);
    let fields = fields.into_iter();
    fields
        .filter_map(|field| Some((field, sources.field(field)?)))
        .collect()
}

/// What the sources show in place of something within a key. `None`: nothing, so it is removed.
fn replacement(bad: &Bad, name: &str, sources: &Sources) -> Option<String> {
    match bad.what {
        "meta" => sources.field(name),
        "ids" => sources.id(name).as_ref().map(KnownId::text),
        "log" => sources.malformed_line(&bad.value).map(|line| line.text()),
        "recalled" | "allmentions" => form::is_position(name).then(|| name.to_owned()),
        _ => None,
    }
}

/// Plans to replace or to remove something within a key.
fn plan_field(
    plan: &mut MendPlan,
    keys: &RoomKeys,
    bad: &Bad,
    field: &[u8],
    replacement: Option<&str>,
) {
    let (field, seen) = (field.to_vec(), bad.value.clone());
    let is_missing = bad.why == form::MISSING;
    let change = match (
        SlotKind::Room.type_of(bad.what),
        replacement.map(str::to_owned),
    ) {
        (Type::Hash, Some(now)) if is_missing => KeyChange::New(text_or_escaped(&field), now),
        // There is nothing to remove.
        (Type::Hash, None) if is_missing => return,
        (Type::Hash, Some(now)) => KeyChange::Set(field, seen, now),
        (Type::Hash, None) => KeyChange::Del(field, seen),
        (Type::List, Some(now)) => KeyChange::ListSet(seen, now),
        (Type::List, None) => KeyChange::ListDel(seen),
        (Type::SortedSet, Some(now)) => KeyChange::Add(now),
        (Type::SortedSet, None) => KeyChange::Rem(field),
    };
    plan.add(keys.key(bad.what), change);
}

/// A room has all fields of its last message or none. So if one of them can't be read, and the history does not show the
/// message, all others are removed too.
fn plan_last_message(plan: &mut MendPlan, keys: &RoomKeys, bad: &[Bad], sources: &Sources) {
    let of_last_message = |bad: &Bad| {
        let fields = ["last_id", "last_position", "last_time", "last_at"];
        let field = bad.field.as_deref();
        bad.what == "meta" && fields.iter().any(|name| field == Some(name.as_bytes()))
    };
    if !bad.iter().any(of_last_message) || sources.field("last_id").is_some() {
        return;
    }
    for (field, value) in &sources.meta {
        if field.starts_with("last_") {
            let change = KeyChange::Del(field.clone().into(), value.clone().into());
            plan.add(keys.meta(), change);
        }
    }
}

/// Plans a new version of a mended list of members, so that pods which keep the list by the old version read it again. `rev` and
/// `mrev` are as the room has them, `next` is the new revision.
pub(super) fn plan_version(plan: &mut MendPlan, keys: &RoomKeys, rev: &str, mrev: &str, next: u64) {
    let next = next.to_string();
    // In the form of the scripts (lib/fanout).
    let version = format!("{next}.{}", short_hash(&format!("{mrev}\nmended")));
    for (field, seen, now) in [("rev", rev, next), ("mrev", mrev, version)] {
        plan.add(keys.meta(), KeyChange::Set(field.into(), seen.into(), now));
    }
}

/// A member's entry by the user's record. The base is not known; the read position stands in for it, and is not below it, unless
/// there was a reset: then the base has no meaning any more.
pub(super) fn entry_of(record: &AuditRecord) -> String {
    let (state, epoch) = (record.state, short(record.epoch));
    let base = u64::try_from(record.read).unwrap_or(0);
    match record.reset {
        None => format!("{state}|{epoch}|{base}"),
        Some(reset) => format!("{state}|{epoch}|{base}|||{}", reset.rev),
    }
}
