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
        let is_bad = |what: &str, field: Option<&str>| {
            bad.iter()
                .any(|bad| bad.what == what && bad.field.as_deref() == field.map(str::as_bytes))
        };
        let mut plan = MendPlan::default();
        let ttl = self.writer.history().max_age_micros() / 1_000 + 1_200_000;
        let (meta, ids, log) = (keys.meta(), keys.ids(), keys.log());
        let last_is_bad = ["last_id", "last_position", "last_time", "last_at"]
            .iter()
            .any(|field| is_bad("meta", Some(field)));
        for one in bad {
            let key = keys.key(one.what);
            let Some(field) = &one.field else {
                plan.replacements.push(None);
                plan.add(
                    &key,
                    KeyChange::Drop(word(SlotKind::Room.type_of(one.what))),
                );
                let now = plan.replacements.last_mut();
                match one.what {
                    "meta" if sources.is_room() => {
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
                        let all: Vec<(&str, String)> = fields
                            .filter_map(|field| Some((field, sources.field(field)?)))
                            .collect();
                        let described = all.iter().map(|(field, text)| format!("{field} {text}"));
                        if let Some(now) = now {
                            *now = Some(described.collect::<Vec<_>>().join(", "));
                        }
                        for (field, text) in all {
                            plan.add(&meta, KeyChange::New(field.to_owned(), text));
                        }
                    }
                    "ids" => {
                        let all = sources.all_ids();
                        if let Some(now) = now.filter(|_| !all.is_empty()) {
                            *now = Some(format!("{} ids by the history", all.len()));
                        }
                        for (id, known) in &all {
                            plan.add(&ids, KeyChange::New(id.clone(), known.text()));
                        }
                        plan.add(&ids, KeyChange::Ttl(ttl));
                    }
                    "log" => {
                        let all = sources.all_lines();
                        if let Some(now) = now.filter(|_| !all.is_empty()) {
                            *now = Some(match all.len() {
                                1 => "1 message by its id".to_owned(),
                                many => format!("{many} messages by their ids"),
                            });
                        }
                        for line in &all {
                            plan.add(&log, KeyChange::Push(line.text()));
                        }
                        plan.add(&log, KeyChange::Ttl(ttl));
                    }
                    "recalled" if !sources.is_direct() => {
                        let all = sources.ids.values();
                        let all = all.filter(|id| id.recall > 0 && !id.silent);
                        let all: BTreeSet<u64> = all.map(|id| id.position).collect();
                        if let Some(now) = now.filter(|_| !all.is_empty()) {
                            *now = Some(format!("{} positions by their ids", all.len()));
                        }
                        for at in all {
                            plan.add(&key, KeyChange::Add(at.to_string()));
                        }
                    }
                    "members" => {
                        if let Some(now) = now {
                            *now = Some("whom users' records tell".to_owned());
                        }
                    }
                    _ => {}
                }
                continue;
            };
            let name = text_or_escaped(field);
            let replacement = match one.what {
                "meta" => sources.field(&name),
                "members" if keys::is_encoded(&name) => {
                    let user = Enc::stored(name.as_str());
                    let record = self.record_of(app, room, &user).await?;
                    record.map(|record| entry_of(&record))
                }
                "ids" => sources.id(&name).as_ref().map(KnownId::text),
                "log" => sources.malformed_line(&one.value).map(|line| line.text()),
                "recalled" | "allmentions" => form::is_position(&name).then(|| name.clone()),
                _ => None,
            };
            let change = match (SlotKind::Room.type_of(one.what), &replacement) {
                (Type::Hash, Some(replacement)) if one.why == form::MISSING => {
                    KeyChange::New(name, replacement.clone())
                }
                (Type::Hash, Some(replacement)) => {
                    KeyChange::Set(field.clone(), one.value.clone(), replacement.clone())
                }
                (Type::Hash, None) => KeyChange::Del(field.clone(), one.value.clone()),
                (Type::List, Some(replacement)) => {
                    KeyChange::ListSet(one.value.clone(), replacement.clone())
                }
                (Type::List, None) => KeyChange::ListDel(one.value.clone()),
                (Type::SortedSet, Some(replacement)) => KeyChange::Add(replacement.clone()),
                (Type::SortedSet, None) => KeyChange::Rem(field.clone()),
            };
            plan.replacements.push(replacement);
            if one.why != form::MISSING || !matches!(change, KeyChange::Del(..)) {
                plan.add(&key, change);
            }
        }
        // The script writes a changed list anew, so it needs a new time to live.
        if bad
            .iter()
            .any(|bad| bad.what == "log" && bad.field.is_some())
        {
            plan.add(&log, KeyChange::Ttl(ttl));
        }
        // A room has all fields of its last message or none.
        if last_is_bad && sources.field("last_id").is_none() {
            for (field, value) in &sources.meta {
                if field.starts_with("last_") {
                    let change = KeyChange::Del(field.clone().into(), value.clone().into());
                    plan.add(&meta, change);
                }
            }
        }
        let members = bad.iter().any(|bad| bad.what == "members");
        let stamped =
            ["rev", "mrev"].map(|field| sources.meta.get(field).map(|seen| (field, seen)));
        if let (true, [Some(rev), Some(mrev)]) = (members, stamped) {
            // With a new version, pods that have cached the list of members read it again.
            let next = sources.next_rev().to_string();
            let version = next_version(&next, mrev.1);
            for ((field, seen), next) in [(rev, next), (mrev, version)] {
                let change = KeyChange::Set(field.into(), seen.clone().into(), next);
                plan.add(&meta, change);
            }
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
        let history = |bad: &Bad| matches!(bad.what, "meta" | "ids" | "log" | "recalled");
        if bad.iter().any(history) {
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
        }
        let mut sample = Vec::new();
        let mut cursor = "0".to_owned();
        if bad.iter().any(|bad| matches!(bad.what, "meta" | "members")) {
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
                    break;
                }
            }
        }
        sources.records = self.records_of(app, room, &sample).await?;
        Ok(sources)
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

    /// The time of the server that has `key`, in microseconds. The script that announces answers it, even with nothing to announce.
    async fn redis_time(&self, key: &str) -> Result<u64> {
        let call = scripts::PENDING_TOUCH.call(&[key, key]);
        Reply::new(self.audit.redis.call(&call).await?)?.number()
    }
}

/// A member's entry by the user's record. The base is not known; the read position stands in for it, and is not below it.
pub(super) fn entry_of(record: &AuditRecord) -> String {
    format!("{}|{}|{}", record.state, short(record.epoch), record.read)
}

/// A new version of a mended list of members, in the form of the scripts (lib/fanout).
pub(super) fn next_version(rev: &str, before: &str) -> String {
    format!("{rev}.{}", short_hash(&format!("{before}\nmended")))
}
