//! What an event of each type is made of, and what its fields may hold.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::fields::{EventFields, FieldSet, Name, Wrong, text, wrong};
use super::{
    Change, Edit, Event, MemberState, Mentions, Message, Order, RoomOrPeer, UnreadFrom, UpTo, time,
};
use crate::json::{Raw, Surrogates};
use crate::names::{CustomType, EventKey, MAX_NAME_BYTES, MessageId, RoomId, Tag, UserId};

/// The most tags of a room, and the most personal tags of a user for one room.
const MAX_TAGS: usize = 100;
/// The most users that one message can mention by name.
const MAX_MENTIONS: usize = 10_000;
/// The most users for whom one message does not count.
const MAX_EXCEPT: usize = 1_000;
/// The kinds of rooms.
const KINDS: [&str; 3] = ["direct", "group", "supergroup"];
/// The most bytes of a text that is only shown, such as a name.
const MAX_SHORT_BYTES: usize = 1 << 10;
/// The most bytes of a description or an address.
const MAX_LONG_BYTES: usize = 4 << 10;
/// The most bytes of a payload of a message in the form in which it is kept.
const MAX_PAYLOAD_BYTES: usize = 4 << 10;
const MAX_EXTRA_BYTES: usize = 1 << 10;
/// The most unread messages that an event, or a row of a counts file, can tell.
pub(crate) const MAX_UNREAD: u64 = 1_000_000_000;
/// The most unread mentions that an event can make: each of them is kept.
const MAX_SET_MENTIONS: u64 = 10_000;
/// What a room may add to a user's sums.
const COUNT_PREFS: [&str; 4] = ["all", "messages", "mentions", "none"];

/// Each event type: its name, its fields, and the function that reads them.
#[rustfmt::skip]
static TYPES: [(&str, FieldSet, Reading); 16] = {
    use Name::*;
    const MEMBERS: FieldSet = FieldSet::of(&[Room, User, Users]);
    [
        ("user.updated", FieldSet::of(&[User, Nickname, AvatarUrl, IsRobot, LastLoginTime]), user_updated),
        ("user.deleted", FieldSet::of(&[User]), user_deleted),
        ("room.updated", FieldSet::of(&[
            Room, Kind, CustomType, Tags, Status, Shown, Cover, Description, Webhook, BotState, BotMode, Encrypted, ServiceStatus,
        ]), room_updated),
        ("room.deleted", FieldSet::of(&[Room]), room_deleted),
        ("member.joined", MEMBERS, |fields| member(fields, MemberState::Joined)),
        ("member.invited", MEMBERS, |fields| member(fields, MemberState::Invited)),
        ("member.left", MEMBERS, |fields| member(fields, MemberState::Left)),
        ("message.sent", FieldSet::of(&[
            Room, To, Sender, Id, Text, MessageType, Payload, Mentions, Except, Silent, MarkRead,
        ]), message),
        ("message.updated", FieldSet::of(&[Room, To, Sender, Id, Text, MessageType, Payload, Mentions]), edited),
        ("message.recalled", FieldSet::of(&[Room, To, Sender, Id]), recalled),
        ("room.read", FieldSet::of(&[Room, Peer, User, UpToId, UpToTime, UpToPosition]), read),
        ("room.unread", FieldSet::of(&[Room, Peer, User, FromId, FromTime, FromPosition]), unread),
        ("room.cleared", FieldSet::of(&[Room, UpToId, UpToTime, UpToPosition]), cleared),
        ("counts.set", FieldSet::of(&[Room, Peer, User, Unread, Mentions]), counts_set),
        ("user.read_all", FieldSet::of(&[User, UpToTime, Kinds]), read_all),
        ("pref.updated", FieldSet::of(&[Room, User, Tags, TagColors, Hidden, Sticky, Muted, Folder, Count, Extra]), pref),
    ]
};

type Reading = for<'a> fn(&mut EventFields<'a>) -> Result<Change, Wrong>;

/// The event that the fields make.
pub(super) fn event(fields: &mut EventFields<'_>) -> Result<Event, Wrong> {
    let Some(name) = fields.text(Name::Type)? else {
        fields.reject_others(FieldSet::ALL)?;
        return Err(wrong("type", "is missing"));
    };
    let &(type_name, its_fields, reading) = TYPES
        .iter()
        .find(|(known, ..)| *known == name)
        .ok_or_else(|| unknown_type(&name))?;
    // This check comes first, so that the caller reads of a misspelled field before the one that is missing for it.
    fields.reject_others(its_fields)?;
    let time = fields.time(Name::Time, time::TimeUse::Event)?;
    let key = fields.name(Name::Key, EventKey::parse)?;
    let change = reading(fields)?;
    fields.reject_others(FieldSet::NONE)?;
    Ok(Event {
        type_name,
        time,
        order: Order::Arrival,
        key,
        notes: fields.take_notes(),
        change,
    })
}

/// What is said of a type that there is not. It names those that begin like it, and repeats nothing of it.
fn unknown_type(name: &str) -> Wrong {
    /// Fewer equal characters than these say nothing.
    const ALIKE: usize = 3;
    let alike = |known: &str| {
        let pairs = known.bytes().zip(name.bytes());
        let equal = pairs.take_while(|(a, b)| a.eq_ignore_ascii_case(b));
        equal.count()
    };
    let most = TYPES.iter().map(|(known, ..)| alike(known)).max();
    let most = most.filter(|most| *most >= ALIKE);
    let near = TYPES.iter().map(|(known, ..)| *known);
    let near: Vec<&str> = near.filter(|known| Some(alike(known)) == most).collect();
    let problem = match near.is_empty() {
        true => "is not a known event type; docs/events.md lists them".into(),
        false => format!("is not a known event type; near it: {}", near.join(", ")).into(),
    };
    Wrong {
        problem,
        ..wrong("type", "")
    }
}

/// A text that is kept and shown whole. A longer one is refused, because a list of many such texts would become too long.
fn bounded(field: Name, text: Cow<'_, str>) -> Result<String, Wrong> {
    let (most, problem) = match field {
        Name::Cover | Name::Description | Name::Webhook | Name::AvatarUrl => {
            (MAX_LONG_BYTES, "must be at most 4,096 bytes of UTF-8")
        }
        _ => (MAX_SHORT_BYTES, "must be at most 1,024 bytes of UTF-8"),
    };
    match text.len() > most {
        true => Err(wrong(field.as_str(), problem)),
        false => Ok(text.into_owned()),
    }
}

fn user_updated(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let user = fields.required(Name::User, UserId::parse)?;
    let mut shown = Vec::new();
    if let Some(nickname) = fields.prose(Name::Nickname)? {
        shown.push(("nickname", bounded(Name::Nickname, nickname)?));
    }
    if let Some(url) = fields.text(Name::AvatarUrl)? {
        shown.push(("avatar_url", bounded(Name::AvatarUrl, url)?));
    }
    if let Some(flag) = fields.flag(Name::IsRobot)? {
        shown.push(("is_robot", u8::from(flag).to_string()));
    }
    if let Some(time) = fields.time(Name::LastLoginTime, time::TimeUse::Bound)? {
        shown.push(("last_login_time", time.to_string()));
    }
    Ok(Change::UserUpdated { user, shown })
}

fn user_deleted(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let user = fields.required(Name::User, UserId::parse)?;
    Ok(Change::UserDeleted { user })
}

fn kind(text: &str) -> Option<&'static str> {
    KINDS.into_iter().find(|kind| *kind == text)
}

fn room_updated(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let room = fields.required(Name::Room, RoomId::parse)?;
    let known = |text: Cow<'_, str>| {
        kind(&text).ok_or_else(|| wrong("kind", "must be direct, group or supergroup"))
    };
    let kind = fields.text(Name::Kind)?.map(known).transpose()?;
    let custom_type = fields.name(Name::CustomType, CustomType::parse)?;
    let tags = fields.list(Name::Tags, Tag::parse, MAX_TAGS, "must be at most 100")?;
    let active = match fields.take(Name::Status).map(Raw::integer) {
        None => None,
        Some(Some(1)) => Some(true),
        Some(Some(0)) => Some(false),
        Some(_) => return Err(wrong("status", "must be 1 or 0")),
    };
    let mut shown = Vec::new();
    for field in [
        Name::Shown,
        Name::Cover,
        Name::Description,
        Name::Webhook,
        Name::BotState,
    ] {
        let text = match field {
            Name::Shown | Name::Description => fields.prose(field)?,
            _ => fields.text(field)?,
        };
        if let Some(text) = text {
            shown.push((field.as_str(), bounded(field, text)?));
        }
    }
    for field in [Name::BotMode, Name::Encrypted] {
        if let Some(flag) = fields.flag(field)? {
            shown.push((field.as_str(), u8::from(flag).to_string()));
        }
    }
    match fields.take(Name::ServiceStatus).map(Raw::integer) {
        None => {}
        Some(Some(status)) => shown.push(("service_status", status.to_string())),
        Some(None) => return Err(wrong("service_status", "must be an integer")),
    }
    Ok(Change::RoomUpdated {
        room,
        kind,
        makes: false,
        custom_type,
        tags,
        active,
        shown,
    })
}

fn room_deleted(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let room = fields.required(Name::Room, RoomId::parse)?;
    Ok(Change::RoomDeleted { room })
}

fn member(fields: &mut EventFields<'_>, state: MemberState) -> Result<Change, Wrong> {
    let room = fields.required(Name::Room, RoomId::parse)?;
    let one = fields.name(Name::User, UserId::parse)?;
    let many = fields.list(Name::Users, UserId::parse, usize::MAX, "")?;
    let users = match (one, many) {
        (Some(_), Some(_)) => return Err(wrong("user", "can't be given beside users")),
        (Some(user), None) => vec![user],
        (None, Some(users)) if !users.is_empty() => users,
        (None, Some(_)) => return Err(wrong("users", "must name at least one user")),
        (None, None) => {
            return Err(wrong("users", "is missing; user can stand in its place"));
        }
    };
    Ok(Change::Member { room, state, users })
}

/// Where a message is, and its sender: in a room, or in the direct room of `sender` and `to`.
fn place_of_message(fields: &mut EventFields<'_>) -> Result<(RoomOrPeer, Option<UserId>), Wrong> {
    let sender = fields.name(Name::Sender, UserId::parse)?;
    let place = match (
        fields.name(Name::Room, RoomId::parse)?,
        fields.name(Name::To, UserId::parse)?,
    ) {
        (Some(_), Some(_)) => return Err(wrong("to", "can't be given beside room")),
        (Some(room), None) => RoomOrPeer::Room(room),
        (None, Some(_)) if sender.is_none() => {
            return Err(wrong("sender", "is missing: a message with to needs one"));
        }
        (None, Some(to)) => RoomOrPeer::With(to),
        (None, None) => {
            let problem = "is missing; sender and to can stand in its place";
            return Err(wrong("room", problem));
        }
    };
    Ok((place, sender))
}

fn message(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let (place, sender) = place_of_message(fields)?;
    let mentions = mentions(fields)?.unwrap_or(Mentions::Users(Vec::new()));
    let except = match fields.take(Name::Except) {
        None => Vec::new(),
        Some(raw) => fields.users_that_can_be(
            Name::Except,
            raw,
            MAX_EXCEPT,
            "must name at most 1,000 users",
        )?,
    };
    let message_type = match fields.name(Name::MessageType, MessageId::parse)? {
        Some(name) => name.as_str().to_owned(),
        None => "text".to_owned(),
    };
    Ok(Change::Message(Message {
        place,
        id: fields.required(Name::Id, MessageId::parse)?,
        sender,
        text: fields.prose(Name::Text)?.unwrap_or_default().into_owned(),
        message_type,
        payload: object(fields, Name::Payload, MAX_PAYLOAD_BYTES)?,
        mentions,
        except,
        silent: fields.flag(Name::Silent)?.unwrap_or(false),
        mark_read: fields.flag(Name::MarkRead)?.unwrap_or(true),
    }))
}

/// Whom a message mentions: a list of users, or `"all"`.
fn mentions(fields: &mut EventFields<'_>) -> Result<Option<Mentions>, Wrong> {
    const BAD_MENTIONS: &str = "must be a list of users or \"all\"";
    const TOO_MANY: &str = "must name at most 10,000 users; \"all\" names everybody";
    let Some(raw) = fields.take(Name::Mentions) else {
        return Ok(None);
    };
    if raw.items().is_some() {
        let users = fields.users_that_can_be(Name::Mentions, raw, MAX_MENTIONS, TOO_MANY)?;
        return Ok(Some(Mentions::Users(users)));
    }
    match &*text(Name::Mentions, raw, Surrogates::Refuse, BAD_MENTIONS)? {
        "all" => Ok(Some(Mentions::All)),
        _ => Err(wrong("mentions", BAD_MENTIONS)),
    }
}

fn edited(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let (place, sender) = place_of_message(fields)?;
    let message_type = fields.name(Name::MessageType, MessageId::parse)?;
    Ok(Change::Edited(Edit {
        place,
        sender,
        id: fields.required(Name::Id, MessageId::parse)?,
        text: fields.prose(Name::Text)?.map(Cow::into_owned),
        message_type: message_type.map(|name| name.as_str().to_owned()),
        payload: object(fields, Name::Payload, MAX_PAYLOAD_BYTES)?,
        mentions: mentions(fields)?,
    }))
}

/// A JSON object as it is kept: without blanks. If a key comes twice, its last value holds.
fn object(fields: &mut EventFields<'_>, field: Name, most: usize) -> Result<Option<String>, Wrong> {
    let Some(raw) = fields.take(field) else {
        return Ok(None);
    };
    let too_long = match most {
        MAX_EXTRA_BYTES => "must be a JSON object of at most 1,024 bytes",
        _ => "must be a JSON object of at most 4,096 bytes",
    };
    // Escapes and blanks can make an object longer as it is sent than as it is kept. One that is far too long is not even parsed.
    if raw.bytes() > 8 * most {
        return Err(wrong(field.as_str(), too_long));
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(raw.as_bytes())
        .map_err(|_| {
            wrong(
                field.as_str(),
                "must be a JSON object, of whole characters and of numbers that a double can hold",
            )
        })?;
    let text = serde_json::Value::from(object).to_string();
    match text.len() > most {
        true => Err(wrong(field.as_str(), too_long)),
        false => Ok(Some(text)),
    }
}

fn recalled(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let (place, sender) = place_of_message(fields)?;
    let id = fields.required(Name::Id, MessageId::parse)?;
    Ok(Change::Recalled { place, sender, id })
}

/// The user of an event, and the room: the one named, or the direct room with `peer`.
fn user_in_place(fields: &mut EventFields<'_>) -> Result<(RoomOrPeer, UserId), Wrong> {
    let user = fields.required(Name::User, UserId::parse)?;
    let place = match (
        fields.name(Name::Room, RoomId::parse)?,
        fields.name(Name::Peer, UserId::parse)?,
    ) {
        (Some(_), Some(_)) => return Err(wrong("peer", "can't be given beside room")),
        (Some(room), None) => RoomOrPeer::Room(room),
        (None, Some(peer)) => RoomOrPeer::With(peer),
        (None, None) => {
            return Err(wrong("room", "is missing; peer can stand in its place"));
        }
    };
    Ok((place, user))
}

fn read(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let (place, user) = user_in_place(fields)?;
    let up_to = up_to(fields)?;
    Ok(Change::Read { place, user, up_to })
}

/// How far a read goes: at most one of three fields says so.
fn up_to(fields: &mut EventFields<'_>) -> Result<UpTo, Wrong> {
    let id = fields.name(Name::UpToId, MessageId::parse)?;
    let time = fields.time(Name::UpToTime, time::TimeUse::Bound)?;
    let position = fields.position(Name::UpToPosition)?;
    match (id, time, position) {
        (Some(_), Some(_), _) => Err(wrong("up_to_time", "can't be given beside up_to_id")),
        (Some(_), _, Some(_)) => Err(wrong("up_to_position", "can't be given beside up_to_id")),
        (_, Some(_), Some(_)) => Err(wrong("up_to_position", "can't be given beside up_to_time")),
        (Some(id), None, None) => Ok(UpTo::Id(id)),
        (None, Some(time), None) => Ok(UpTo::Time(time)),
        (None, None, Some(position)) => Ok(UpTo::Position(position)),
        (None, None, None) => Ok(UpTo::Head),
    }
}

fn unread(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let (place, user) = user_in_place(fields)?;
    let id = fields.name(Name::FromId, MessageId::parse)?;
    let time = fields.time(Name::FromTime, time::TimeUse::Bound)?;
    let position = fields.position(Name::FromPosition)?;
    let from = match (id, time, position) {
        (Some(id), None, None) => UnreadFrom::Id(id),
        (None, Some(time), None) => UnreadFrom::Time(time),
        (None, None, Some(position)) => UnreadFrom::Position(position),
        (None, None, None) => {
            return Err(wrong(
                "from_id",
                "is missing, and so are from_time and from_position",
            ));
        }
        (Some(_), Some(_), _) => return Err(wrong("from_time", "can't be given beside from_id")),
        (Some(_), _, Some(_)) => {
            return Err(wrong("from_position", "can't be given beside from_id"));
        }
        (_, Some(_), Some(_)) => {
            return Err(wrong("from_position", "can't be given beside from_time"));
        }
    };
    Ok(Change::Unread { place, user, from })
}

fn counts_set(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let (place, user) = user_in_place(fields)?;
    let unread = fields.number(Name::Unread, MAX_UNREAD)?;
    let unread = unread.ok_or_else(|| wrong("unread", "is missing"))?;
    let mentions = fields.number(Name::Mentions, MAX_UNREAD)?;
    set_counts(place, user, unread, mentions)
}

/// The change that sets these counts, if they are within bounds.
pub(super) fn set_counts(
    place: RoomOrPeer,
    user: UserId,
    unread: u64,
    mentions: Option<u64>,
) -> Result<Change, Wrong> {
    for (field, number) in [("unread", Some(unread)), ("mentions", mentions)] {
        if number.is_some_and(|number| number > MAX_UNREAD) {
            return Err(wrong(field, "can't be more than 1,000,000,000"));
        }
    }
    if mentions.is_some_and(|mentions| mentions.min(unread) > MAX_SET_MENTIONS) {
        return Err(wrong(
            "mentions",
            "can't be more than 10,000 of the unread messages",
        ));
    }
    Ok(Change::CountsSet {
        place,
        user,
        unread,
        mentions,
    })
}

fn cleared(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let room = fields.required(Name::Room, RoomId::parse)?;
    let up_to = up_to(fields)?;
    Ok(Change::Cleared { room, up_to })
}

fn read_all(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    const BAD_KINDS: &str = "must be a list of one or more of direct, group and supergroup";
    let user = fields.required(Name::User, UserId::parse)?;
    let up_to = match fields.time(Name::UpToTime, time::TimeUse::Bound)? {
        Some(time) => UpTo::Time(time),
        None => UpTo::Head,
    };
    let kinds = match fields.take(Name::Kinds) {
        None => KINDS.to_vec(),
        Some(raw) => {
            let bad_kinds = || wrong("kinds", BAD_KINDS);
            let mut kinds = Vec::new();
            for item in raw.items().ok_or_else(bad_kinds)? {
                let text = text(Name::Kinds, item, Surrogates::Refuse, BAD_KINDS)?;
                let kind = kind(&text).ok_or_else(bad_kinds)?;
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            if kinds.is_empty() {
                return Err(bad_kinds());
            }
            kinds
        }
    };
    Ok(Change::ReadAll { user, up_to, kinds })
}

fn pref(fields: &mut EventFields<'_>) -> Result<Change, Wrong> {
    let room = fields.required(Name::Room, RoomId::parse)?;
    let user = fields.required(Name::User, UserId::parse)?;
    let mut prefs = Vec::new();
    if let Some(tags) = fields.list(Name::Tags, Tag::parse, MAX_TAGS, "must be at most 100")? {
        let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        prefs.push(("tags", serde_json::Value::from(tags).to_string()));
    }
    if let Some(raw) = fields.take(Name::TagColors) {
        prefs.push(("tag_colors", tag_colors(raw)?));
    }
    for field in [Name::Hidden, Name::Sticky, Name::Muted] {
        if let Some(flag) = fields.flag(field)? {
            prefs.push((field.as_str(), flag.to_string()));
        }
    }
    if let Some(folder) = fields.text(Name::Folder)? {
        let folder = bounded(Name::Folder, folder)?;
        prefs.push(("folder", serde_json::Value::from(folder).to_string()));
    }
    if let Some(count) = fields.text(Name::Count)? {
        if !COUNT_PREFS.contains(&&*count) {
            return Err(wrong("count", "must be all, messages, mentions or none"));
        }
        prefs.push(("count", serde_json::Value::from(count).to_string()));
    }
    if let Some(extra) = object(fields, Name::Extra, MAX_EXTRA_BYTES)? {
        prefs.push(("extra", extra));
    }
    Ok(Change::Pref { room, user, prefs })
}

/// The colour of each tag, as JSON. If a tag comes twice, its last colour holds.
fn tag_colors(raw: Raw<'_>) -> Result<String, Wrong> {
    const BAD_COLORS: &str = "must be an object of at most 100 strings of up to 255 bytes";
    let bad_colors = || wrong("tag_colors", BAD_COLORS);
    let mut colors = BTreeMap::new();
    for (tag, color) in raw.fields().ok_or_else(bad_colors)? {
        let [tag, color] =
            [tag, color].map(|raw| text(Name::TagColors, raw, Surrogates::Refuse, BAD_COLORS));
        let (tag, color) = (tag?, color?);
        let is_long = tag.len().max(color.len()) > MAX_NAME_BYTES;
        colors.insert(tag, color);
        if is_long || colors.len() > MAX_TAGS {
            return Err(bad_colors());
        }
    }
    serde_json::to_string(&colors).map_err(|_| bad_colors())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fields::NAMES;
    use super::super::read_line;
    use super::TYPES;

    /// What each type needs. A field that is null counts as left out, but only if it is one of the event's.
    #[test]
    fn each_type_takes_the_fields_that_it_is_listed_with_and_no_others() {
        for (name, listed, _) in &TYPES {
            let mut event = json!({"type": name});
            let needed: &[&str] = match *name {
                "user.updated" | "user.deleted" | "user.read_all" => &["user"],
                "room.updated" | "room.deleted" | "room.cleared" => &["room"],
                "message.sent" | "message.updated" | "message.recalled" => &["room", "id"],
                "room.unread" => &["room", "user", "from_id"],
                "counts.set" => &["room", "user", "unread"],
                _ => &["room", "user"],
            };
            for field in needed {
                event[*field] = if *field == "unread" {
                    json!(1)
                } else {
                    json!("x")
                };
            }
            for field in NAMES
                .iter()
                .filter(|field| !needed.contains(&field.as_str()))
            {
                if matches!(field.as_str(), "type") {
                    continue;
                }
                let mut event = event.clone();
                event[field.as_str()] = json!(null);
                let read = read_line(event.to_string().as_bytes()).unwrap();
                assert_eq!(
                    read.is_ok(),
                    listed.has(*field),
                    "{name} {}",
                    field.as_str()
                );
            }
        }
    }

    #[test]
    fn every_type_of_event_is_in_both_documents() {
        let page = include_str!("../../docs/events.md");
        let openapi = include_str!("../../docs/openapi.yaml");
        let rows: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        for (name, ..) in &TYPES {
            let in_first_cell = |row: &&str| {
                let first = row.split(" | ").next();
                first.is_some_and(|cell| cell.contains(&format!("`{name}`")))
            };
            assert!(
                rows.iter().any(in_first_cell),
                "docs/events.md: no row for {name}"
            );
            let mapping = format!("\n          {name}: '#/components/schemas/");
            assert!(
                openapi.contains(&mapping),
                "docs/openapi.yaml: no schema for {name}"
            );
        }
    }
}
