//! The fields of one event: which there are, what each may hold, and what the event is that they make.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::hash::Hash;

use super::{Change, Event, MemberState, Mentions, Message, Notes, Place, UpTo, time};
use crate::json::{BadText, Raw, Surrogates};
use crate::names::{
    CustomType, EventKey, MAX_NAME_BYTES, MessageId, NameError, RoomId, Tag, UserId,
};

/// The most tags in a room, and of a user's own for one.
const MAX_TAGS: usize = 100;
/// The most users that one message names.
const MAX_MENTIONS: usize = 10_000;
/// The kinds of rooms.
const KINDS: [&str; 3] = ["direct", "group", "supergroup"];
/// The longest of the texts that are only shown, in bytes: what is short everywhere, and descriptions and addresses.
const MAX_SHORT_BYTES: usize = 1 << 10;
const MAX_LONG_BYTES: usize = 4 << 10;
/// The longest payload of a message, in bytes as it is kept.
const MAX_PAYLOAD_BYTES: usize = 4 << 10;
/// Lists from this many bytes on are counted before they are kept, so that no room is made for more items than there are.
const COUNTED_BYTES: usize = 64 << 10;
/// What is said of a list that is none.
const LIST: &str = "must be a list of strings";
/// Names that are left out of a list and noted one by one; more are counted.
const NOTED: usize = 10;
/// Characters of such a name that its note repeats.
const NOTED_CHARACTERS: usize = 32;

/// What is wrong with an event, before it is known where in the body.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) field: Option<Cow<'static, str>>,
    pub(super) problem: Cow<'static, str>,
    /// How many bytes of the body, or of the line, stand before it.
    pub(super) at: Option<usize>,
}

pub(super) fn wrong(field: &'static str, problem: &'static str) -> Wrong {
    Wrong {
        field: Some(field.into()),
        problem: problem.into(),
        at: None,
    }
}

fn unnamable(field: Name, error: NameError) -> Wrong {
    Wrong {
        problem: error.to_string().into(),
        ..wrong(field.as_str(), "")
    }
}

/// A field name as an error may repeat it.
fn shown(field: &str) -> String {
    let clean: String = field.chars().filter(|c| !c.is_control()).take(64).collect();
    if clean.is_empty() {
        "(empty)".into()
    } else {
        clean
    }
}

macro_rules! fields {
    ($($name:ident = $text:literal,)*) => {
        /// The fields that events have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Name {
            $($name,)*
        }

        const NAMES: &[Name] = &[$(Name::$name,)*];

        impl Name {
            fn as_str(self) -> &'static str {
                match self {
                    $(Name::$name => $text,)*
                }
            }

            fn of(text: &[u8]) -> Option<Self> {
                match std::str::from_utf8(text).ok()? {
                    $($text => Some(Name::$name),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    Type = "type",
    Time = "time",
    Key = "key",
    Room = "room",
    User = "user",
    Users = "users",
    Sender = "sender",
    To = "to",
    Peer = "peer",
    Id = "id",
    Text = "text",
    MessageType = "message_type",
    Payload = "payload",
    Mentions = "mentions",
    Silent = "silent",
    MarkRead = "mark_read",
    UpToId = "up_to_id",
    UpToTime = "up_to_time",
    Nickname = "nickname",
    AvatarUrl = "avatar_url",
    IsRobot = "is_robot",
    LastLoginTime = "last_login_time",
    Kind = "kind",
    Kinds = "kinds",
    CustomType = "custom_type",
    Tags = "tags",
    Status = "status",
    Shown = "name",
    Cover = "cover",
    Description = "description",
    Webhook = "webhook",
    BotState = "bot_state",
    BotMode = "bot_mode",
    Encrypted = "encrypted",
    ServiceStatus = "service_status",
    TagColors = "tag_colors",
    Hidden = "hidden",
    Sticky = "sticky",
    Muted = "muted",
    Folder = "folder",
}

/// The fields of one event: of each the last value given, not looked into yet.
pub(super) struct Fields<'a> {
    values: [Raw<'a>; NAMES.len()],
    /// A bit for each that is given and not taken yet.
    present: u64,
    /// The key of the first that no event has.
    unknown: Option<Raw<'a>>,
    notes: Notes,
}

// A bit for each.
const _: () = assert!(NAMES.len() <= 64);

impl Default for Fields<'_> {
    fn default() -> Self {
        Self {
            values: [Raw::default(); NAMES.len()],
            present: 0,
            unknown: None,
            notes: Notes::default(),
        }
    }
}

impl<'a> Fields<'a> {
    /// Begins another event.
    pub(super) fn clear(&mut self) {
        self.present = 0;
        self.unknown = None;
        self.notes = Notes::default();
    }

    pub(super) fn put(&mut self, key: Raw<'a>, value: Raw<'a>) {
        let name = match key.plain() {
            Some(plain) => Name::of(plain),
            None => key
                .text(Surrogates::Refuse)
                .and_then(|text| Name::of(text.ok()?.as_bytes())),
        };
        match name {
            Some(name) => {
                if let Some(place) = self.values.get_mut(name as usize) {
                    *place = value;
                }
                self.present |= 1 << name as u64;
            }
            None => {
                self.unknown.get_or_insert(key);
            }
        }
    }

    /// What was given; `null` is nothing.
    fn take(&mut self, field: Name) -> Option<Raw<'a>> {
        let bit = 1 << field as u64;
        let is_present = self.present & bit != 0;
        self.present &= !bit;
        let value = self.values.get(field as usize).copied();
        value.filter(|value| is_present && !value.is_null())
    }

    fn text(&mut self, field: Name) -> Result<Option<Cow<'a, str>>, Wrong> {
        self.take(field)
            .map(|raw| text(field, raw, Surrogates::Refuse, "must be a string"))
            .transpose()
    }

    /// A text that only people read: half an emoji does not spoil it.
    fn prose(&mut self, field: Name) -> Result<Option<Cow<'a, str>>, Wrong> {
        self.take(field)
            .map(|raw| text(field, raw, Surrogates::Replace, "must be a string"))
            .transpose()
    }

    fn flag(&mut self, field: Name) -> Result<Option<bool>, Wrong> {
        let flag = |raw: Raw<'_>| {
            raw.flag()
                .ok_or_else(|| wrong(field.as_str(), "must be true or false"))
        };
        self.take(field).map(flag).transpose()
    }

    fn name<T>(
        &mut self,
        field: Name,
        parse: impl Fn(Cow<'a, str>) -> Result<T, NameError>,
    ) -> Result<Option<T>, Wrong> {
        let name = |text| parse(text).map_err(|error| unnamable(field, error));
        self.text(field)?.map(name).transpose()
    }

    fn required<T>(
        &mut self,
        field: Name,
        parse: impl Fn(Cow<'a, str>) -> Result<T, NameError>,
    ) -> Result<T, Wrong> {
        self.name(field, parse)?
            .ok_or_else(|| wrong(field.as_str(), "is missing"))
    }

    /// A list of names, each once, in the order given.
    fn list<T: Hash + Eq>(
        &mut self,
        field: Name,
        parse: impl Fn(Cow<'a, str>) -> Result<T, NameError>,
        most: usize,
        too_many: &'static str,
    ) -> Result<Option<Vec<T>>, Wrong> {
        match self.take(field) {
            None => Ok(None),
            Some(raw) => {
                let unusable = |_, why| Err(unlisted(field, why));
                names(field, raw, parse, most, too_many, unusable).map(Some)
            }
        }
    }

    /// The users that a list names, if the field holds one. What can't be a user's id costs nobody else their mention: it is left
    /// out and noted.
    fn users_that_can_be(
        &mut self,
        field: Name,
        raw: Raw<'a>,
        most: usize,
        too_many: &'static str,
    ) -> Result<Vec<UserId>, Wrong> {
        let mut left_out = LeftOut {
            field,
            notes: &mut self.notes,
            number: 0,
        };
        let unusable = |item: Raw<'a>, why| {
            left_out.note(item, &why);
            Ok(())
        };
        let users = names(field, raw, UserId::parse, most, too_many, unusable)?;
        left_out.note_the_rest();
        Ok(users)
    }

    fn time(&mut self, field: Name, what_for: time::Use) -> Result<Option<i64>, Wrong> {
        let read = |raw: Raw<'_>| {
            let time = if raw.is_text() {
                let text = text(field, raw, Surrogates::Refuse, time::FORM)?;
                time::of_text(&text, what_for)
            } else {
                let number = raw.integer().ok_or(time::FORM);
                number.and_then(|number| time::of_number(number, what_for))
            };
            time.map_err(|problem| wrong(field.as_str(), problem))
        };
        self.take(field).map(read).transpose()
    }

    /// Nothing may be left.
    fn done(&self) -> Result<(), Wrong> {
        let known = NAMES.get(self.present.trailing_zeros() as usize);
        let field = match (self.unknown, known) {
            (None, None) => return Ok(()),
            (Some(key), _) => match key.text(Surrogates::Replace) {
                Some(Ok(key)) => shown(&key).into(),
                _ => "(unreadable)".into(),
            },
            (None, Some(name)) => name.as_str().into(),
        };
        Err(Wrong {
            field: Some(field),
            ..wrong("", "is not a field of this event")
        })
    }

    /// The event that the fields make.
    pub(super) fn event(&mut self) -> Result<Event, Wrong> {
        let kind = self
            .text(Name::Type)?
            .ok_or_else(|| wrong("type", "is missing"))?;
        let time = self.time(Name::Time, time::Use::Event)?;
        let key = self.name(Name::Key, EventKey::parse)?;
        let change = match &*kind {
            "user.updated" => user_updated(self)?,
            "user.deleted" => Change::UserDeleted {
                user: self.required(Name::User, UserId::parse)?,
            },
            "room.updated" => room_updated(self)?,
            "room.deleted" => Change::RoomDeleted {
                room: self.required(Name::Room, RoomId::parse)?,
            },
            "member.joined" => member(self, MemberState::Joined)?,
            "member.invited" => member(self, MemberState::Invited)?,
            "member.left" => member(self, MemberState::Left)?,
            "message.sent" => message(self)?,
            "message.recalled" => Change::Recalled {
                room: self.required(Name::Room, RoomId::parse)?,
                id: self.required(Name::Id, MessageId::parse)?,
            },
            "room.read" => read(self)?,
            "user.read_all" => read_all(self)?,
            "pref.updated" => pref(self)?,
            _ => return Err(wrong("type", "is not a known event type")),
        };
        self.done()?;
        Ok(Event {
            time,
            key,
            notes: std::mem::take(&mut self.notes),
            change,
        })
    }
}

fn text<'a>(
    field: Name,
    raw: Raw<'a>,
    surrogates: Surrogates,
    no_text: &'static str,
) -> Result<Cow<'a, str>, Wrong> {
    match raw.text(surrogates) {
        None => Err(wrong(field.as_str(), no_text)),
        Some(text) => text.map_err(|bad| unreadable(field, bad)),
    }
}

fn unreadable(field: Name, BadText { fault, at }: BadText) -> Wrong {
    Wrong {
        problem: fault.to_string().into(),
        at: Some(at),
        ..wrong(field.as_str(), "")
    }
}

/// The name that an item of a list is.
fn name<'a, T>(
    raw: Raw<'a>,
    parse: impl Fn(Cow<'a, str>) -> Result<T, NameError>,
) -> Result<T, Unnamed> {
    match raw.text(Surrogates::Refuse) {
        None => Err(Unnamed::NoText),
        Some(text) => parse(text.map_err(Unnamed::BadText)?).map_err(Unnamed::BadName),
    }
}

/// Why an item of a list is no name.
enum Unnamed {
    NoText,
    BadText(BadText),
    BadName(NameError),
}

/// A list of names, each once. `unusable` says what becomes of an item that is none.
fn names<'a, T: Hash + Eq>(
    field: Name,
    raw: Raw<'a>,
    parse: impl Fn(Cow<'a, str>) -> Result<T, NameError>,
    most: usize,
    too_many: &'static str,
    mut unusable: impl FnMut(Raw<'a>, Unnamed) -> Result<(), Wrong>,
) -> Result<Vec<T>, Wrong> {
    let items = raw.items().ok_or_else(|| wrong(field.as_str(), LIST))?;
    // Twice as many as may be are kept before those that come again are struck out.
    let struck_out_at = most.saturating_mul(2);
    let mut names = if raw.bytes() < COUNTED_BYTES {
        Vec::new()
    } else {
        Vec::with_capacity(items.clone().take(struck_out_at).count())
    };
    for item in items {
        match name(item, &parse) {
            Ok(name) => names.push(name),
            Err(why) => unusable(item, why)?,
        }
        if names.len() == struck_out_at {
            once(&mut names);
            if names.len() > most {
                break;
            }
        }
    }
    once(&mut names);
    match names.len() > most {
        true => Err(wrong(field.as_str(), too_many)),
        false => Ok(names),
    }
}

/// What is said of a list of which an item is no name.
fn unlisted(field: Name, why: Unnamed) -> Wrong {
    match why {
        Unnamed::NoText => wrong(field.as_str(), LIST),
        Unnamed::BadText(bad) => unreadable(field, bad),
        Unnamed::BadName(error) => unnamable(field, error),
    }
}

/// What is left out of a list, for its sender: the first few by name.
struct LeftOut<'n> {
    field: Name,
    notes: &'n mut Notes,
    number: usize,
}

impl LeftOut<'_> {
    fn note(&mut self, item: Raw<'_>, why: &Unnamed) {
        self.number += 1;
        if self.number > NOTED {
            return;
        }
        let (field, item) = (self.field.as_str(), item.excerpt(NOTED_CHARACTERS));
        let why: &dyn Display = match why {
            Unnamed::NoText => &"must be a string",
            Unnamed::BadText(bad) => &bad.fault,
            Unnamed::BadName(error) => error,
        };
        let note = format_args!("{field}: {item} is left out: {why}");
        self.notes.add(note);
    }

    fn note_the_rest(self) {
        let (field, more) = (self.field.as_str(), self.number.saturating_sub(NOTED));
        match more {
            0 => {}
            1 => self
                .notes
                .add(format_args!("{field}: 1 more name is left out")),
            _ => self
                .notes
                .add(format_args!("{field}: {more} more names are left out")),
        }
    }
}

/// Strikes out what is there a second time.
fn once<T: Hash + Eq>(items: &mut Vec<T>) {
    // So few are quickly compared with each other.
    const FEW: usize = 16;
    let is_first: Vec<bool> = if items.len() <= FEW {
        let before = |at: usize| items.get(..at).unwrap_or_default();
        let items = items.iter().enumerate();
        items.map(|(at, item)| !before(at).contains(item)).collect()
    } else {
        let mut seen = HashSet::with_capacity(items.len());
        items.iter().map(|item| seen.insert(item)).collect()
    };
    if is_first.contains(&false) {
        let mut is_first = is_first.into_iter();
        items.retain(|_| is_first.next().unwrap_or(true));
    }
}

/// A text that is kept and shown whole: it is refused where a list of many would become too long by it.
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

fn user_updated(fields: &mut Fields<'_>) -> Result<Change, Wrong> {
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
    if let Some(time) = fields.time(Name::LastLoginTime, time::Use::Bound)? {
        shown.push(("last_login_time", time.to_string()));
    }
    Ok(Change::UserUpdated { user, shown })
}

fn kind(text: &str) -> Option<&'static str> {
    KINDS.into_iter().find(|kind| *kind == text)
}

fn room_updated(fields: &mut Fields<'_>) -> Result<Change, Wrong> {
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
        custom_type,
        tags,
        active,
        shown,
    })
}

fn member(fields: &mut Fields<'_>, state: MemberState) -> Result<Change, Wrong> {
    let room = fields.required(Name::Room, RoomId::parse)?;
    let one = fields.name(Name::User, UserId::parse)?;
    let many = fields.list(Name::Users, UserId::parse, usize::MAX, "")?;
    let users = match (one, many) {
        (Some(_), Some(_)) => return Err(wrong("user", "can't be given beside users")),
        (Some(user), None) => vec![user],
        (None, Some(users)) if !users.is_empty() => users,
        (None, Some(_)) => return Err(wrong("users", "must name at least one user")),
        (None, None) => return Err(wrong("users", "is missing")),
    };
    Ok(Change::Member { room, state, users })
}

fn message(fields: &mut Fields<'_>) -> Result<Change, Wrong> {
    let sender = fields.name(Name::Sender, UserId::parse)?;
    let place = match (
        fields.name(Name::Room, RoomId::parse)?,
        fields.name(Name::To, UserId::parse)?,
    ) {
        (Some(_), Some(_)) => return Err(wrong("to", "can't be given beside room")),
        (Some(room), None) => Place::Room(room),
        (None, Some(_)) if sender.is_none() => {
            return Err(wrong("sender", "is missing: a message with to needs one"));
        }
        (None, Some(to)) => Place::With(to),
        (None, None) => return Err(wrong("room", "is missing")),
    };
    let mentions = match fields.take(Name::Mentions) {
        None => Mentions::Users(Vec::new()),
        Some(raw) if raw.items().is_some() => Mentions::Users(fields.users_that_can_be(
            Name::Mentions,
            raw,
            MAX_MENTIONS,
            "must name at most 10,000 users; \"all\" names everybody",
        )?),
        Some(raw) => {
            const WHOM: &str = "must be a list of users or \"all\"";
            match &*text(Name::Mentions, raw, Surrogates::Refuse, WHOM)? {
                "all" => Mentions::All,
                _ => return Err(wrong("mentions", WHOM)),
            }
        }
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
        payload: fields.take(Name::Payload).map(payload).transpose()?,
        mentions,
        silent: fields.flag(Name::Silent)?.unwrap_or(false),
        mark_read: fields.flag(Name::MarkRead)?.unwrap_or(true),
    }))
}

/// A JSON object, written out without blanks; of a key given twice the last value holds.
fn payload(raw: Raw<'_>) -> Result<String, Wrong> {
    const LONG: &str = "must be a JSON object of at most 4,096 bytes";
    // Escapes and blanks make it longer than it is kept; beyond this it is not even taken apart.
    if raw.bytes() > 8 * MAX_PAYLOAD_BYTES {
        return Err(wrong("payload", LONG));
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(raw.as_bytes())
        .map_err(|_| {
            wrong(
                "payload",
                "must be a JSON object, of whole characters and of numbers that a double can hold",
            )
        })?;
    let text = serde_json::Value::from(object).to_string();
    match text.len() > MAX_PAYLOAD_BYTES {
        true => Err(wrong("payload", LONG)),
        false => Ok(text),
    }
}

fn read(fields: &mut Fields<'_>) -> Result<Change, Wrong> {
    let user = fields.required(Name::User, UserId::parse)?;
    let place = match (
        fields.name(Name::Room, RoomId::parse)?,
        fields.name(Name::Peer, UserId::parse)?,
    ) {
        (Some(_), Some(_)) => return Err(wrong("peer", "can't be given beside room")),
        (Some(room), None) => Place::Room(room),
        (None, Some(peer)) => Place::With(peer),
        (None, None) => return Err(wrong("room", "is missing")),
    };
    let up_to = match (
        fields.name(Name::UpToId, MessageId::parse)?,
        fields.time(Name::UpToTime, time::Use::Bound)?,
    ) {
        (Some(_), Some(_)) => return Err(wrong("up_to_time", "can't be given beside up_to_id")),
        (Some(id), None) => UpTo::Id(id),
        (None, Some(time)) => UpTo::Time(time),
        (None, None) => UpTo::Head,
    };
    Ok(Change::Read { place, user, up_to })
}

fn read_all(fields: &mut Fields<'_>) -> Result<Change, Wrong> {
    const LIST: &str = "must be a list of one or more of direct, group and supergroup";
    let user = fields.required(Name::User, UserId::parse)?;
    let up_to = match fields.time(Name::UpToTime, time::Use::Bound)? {
        Some(time) => UpTo::Time(time),
        None => UpTo::Head,
    };
    let kinds = match fields.take(Name::Kinds) {
        None => KINDS.to_vec(),
        Some(raw) => {
            let none = || wrong("kinds", LIST);
            let mut kinds = Vec::new();
            for item in raw.items().ok_or_else(none)? {
                let text = text(Name::Kinds, item, Surrogates::Refuse, LIST)?;
                let kind = kind(&text).ok_or_else(none)?;
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            if kinds.is_empty() {
                return Err(none());
            }
            kinds
        }
    };
    Ok(Change::ReadAll { user, up_to, kinds })
}

fn pref(fields: &mut Fields<'_>) -> Result<Change, Wrong> {
    let room = fields.required(Name::Room, RoomId::parse)?;
    let user = fields.required(Name::User, UserId::parse)?;
    let mut settings = Vec::new();
    if let Some(tags) = fields.list(Name::Tags, Tag::parse, MAX_TAGS, "must be at most 100")? {
        let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        settings.push(("tags", serde_json::Value::from(tags).to_string()));
    }
    if let Some(raw) = fields.take(Name::TagColors) {
        settings.push(("tag_colors", tag_colors(raw)?));
    }
    for field in [Name::Hidden, Name::Sticky, Name::Muted] {
        if let Some(flag) = fields.flag(field)? {
            settings.push((field.as_str(), flag.to_string()));
        }
    }
    if let Some(folder) = fields.text(Name::Folder)? {
        let folder = bounded(Name::Folder, folder)?;
        settings.push(("folder", serde_json::Value::from(folder).to_string()));
    }
    Ok(Change::Pref {
        room,
        user,
        settings,
    })
}

/// A colour for each tag, as JSON; of a tag given twice the last one holds.
fn tag_colors(raw: Raw<'_>) -> Result<String, Wrong> {
    const COLORS: &str = "must be an object of at most 100 strings of up to 255 bytes";
    let none = || wrong("tag_colors", COLORS);
    let mut colors = BTreeMap::new();
    for (tag, color) in raw.fields().ok_or_else(none)? {
        let [tag, color] =
            [tag, color].map(|raw| text(Name::TagColors, raw, Surrogates::Refuse, COLORS));
        let (tag, color) = (tag?, color?);
        let is_long = tag.len().max(color.len()) > MAX_NAME_BYTES;
        colors.insert(tag, color);
        if is_long || colors.len() > MAX_TAGS {
            return Err(none());
        }
    }
    serde_json::to_string(&colors).map_err(|_| none())
}
