//! The fields of one event: which fields there are, and how the texts, names, lists and times in them are read.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;

use super::{Notes, time};
use crate::json::{BadText, Raw, Surrogates};
use crate::names::{NameError, UserId};

/// A list of this many bytes or more is counted before its names are kept, so that the memory taken for them is just enough.
const COUNTED_BYTES: usize = 64 << 10;
/// The problem of a value that is not a list of strings.
const NOT_A_LIST: &str = "must be a list of strings";
/// The problem of a value that is no number of messages.
pub(crate) const NO_NUMBER: &str = "must be a whole number from 0 to 1,000,000,000";
/// How many names that are left out of a list are noted one by one. Further ones are only counted.
const NOTED: usize = 10;
/// How many characters of such a name its note repeats.
const NOTED_CHARACTERS: usize = 32;

/// What is wrong with an event. The reader of the body adds the line and column later.
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
        pub(super) enum Name {
            $($name,)*
        }

        pub(super) const NAMES: &[Name] = &[$(Name::$name,)*];

        impl Name {
            pub(super) fn as_str(self) -> &'static str {
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
    Except = "except",
    Silent = "silent",
    MarkRead = "mark_read",
    UpToId = "up_to_id",
    UpToTime = "up_to_time",
    UpToPosition = "up_to_position",
    FromId = "from_id",
    FromTime = "from_time",
    FromPosition = "from_position",
    Unread = "unread",
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
    Count = "count",
    Extra = "extra",
}

/// Some of the fields, one bit for each.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldSet(u64);

impl FieldSet {
    /// All of them.
    pub(super) const ALL: Self = Self(u64::MAX);
    /// None.
    pub(super) const NONE: Self = Self(0);

    /// These fields, and those that every event may have.
    pub(super) const fn of(mut names: &[Name]) -> Self {
        let mut set = 1 << Name::Type as u64 | 1 << Name::Time as u64 | 1 << Name::Key as u64;
        while let [first, rest @ ..] = names {
            set |= 1 << *first as u64;
            names = rest;
        }
        Self(set)
    }

    #[cfg(test)]
    pub(super) fn has(self, name: Name) -> bool {
        self.0 & 1 << name as u64 != 0
    }
}

/// The fields of one event, by name. Of a field that is given twice the last value is kept. No value has been read yet.
pub(super) struct EventFields<'a> {
    values: [Raw<'a>; NAMES.len()],
    /// One bit for each field that is given and not taken yet.
    present: u64,
    /// The key of the first field that no type of event has.
    unknown: Option<Raw<'a>>,
    notes: Notes,
}

// `present` has one bit for each field.
const _: () = assert!(NAMES.len() <= 64);

impl Default for EventFields<'_> {
    fn default() -> Self {
        Self {
            values: [Raw::default(); NAMES.len()],
            present: 0,
            unknown: None,
            notes: Notes::default(),
        }
    }
}

impl<'a> EventFields<'a> {
    /// Forgets the fields, for the next event.
    pub(super) fn clear(&mut self) {
        self.present = 0;
        self.unknown = None;
        self.notes = Notes::default();
    }

    /// Keeps a field of the event.
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

    /// Takes the value of a field. A field that holds `null` counts as not given.
    pub(super) fn take(&mut self, field: Name) -> Option<Raw<'a>> {
        let bit = 1 << field as u64;
        let is_present = self.present & bit != 0;
        self.present &= !bit;
        let value = self.values.get(field as usize).copied();
        value.filter(|value| is_present && !value.is_null())
    }

    pub(super) fn text(&mut self, field: Name) -> Result<Option<Cow<'a, str>>, Wrong> {
        self.take(field)
            .map(|raw| text(field, raw, Surrogates::Refuse, "must be a string"))
            .transpose()
    }

    /// A text that only people read. Half a surrogate pair in it is replaced instead of refused.
    pub(super) fn prose(&mut self, field: Name) -> Result<Option<Cow<'a, str>>, Wrong> {
        self.take(field)
            .map(|raw| text(field, raw, Surrogates::Replace, "must be a string"))
            .transpose()
    }

    pub(super) fn flag(&mut self, field: Name) -> Result<Option<bool>, Wrong> {
        let flag = |raw: Raw<'_>| {
            raw.flag()
                .ok_or_else(|| wrong(field.as_str(), "must be true or false"))
        };
        self.take(field).map(flag).transpose()
    }

    pub(super) fn name<T>(
        &mut self,
        field: Name,
        parse: impl Fn(Cow<'a, str>) -> Result<T, NameError>,
    ) -> Result<Option<T>, Wrong> {
        let name = |text| parse(text).map_err(|error| unnamable(field, error));
        self.text(field)?.map(name).transpose()
    }

    pub(super) fn required<T>(
        &mut self,
        field: Name,
        parse: impl Fn(Cow<'a, str>) -> Result<T, NameError>,
    ) -> Result<T, Wrong> {
        self.name(field, parse)?
            .ok_or_else(|| wrong(field.as_str(), "is missing"))
    }

    /// A list of names, each once, in the order given.
    pub(super) fn list<T: Hash + Eq>(
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

    /// The users that a list names. An item that can't be a user's id is left out and noted; the other users are still mentioned.
    pub(super) fn users_that_can_be(
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

    /// The number of a message in its room.
    pub(super) fn position(&mut self, field: Name) -> Result<Option<u64>, Wrong> {
        let read = |raw: Raw<'_>| {
            let number = raw.integer().and_then(|number| u64::try_from(number).ok());
            let position = number.filter(|position| *position >= 1);
            position.ok_or_else(|| wrong(field.as_str(), "must be a whole number from 1 on"))
        };
        self.take(field).map(read).transpose()
    }

    /// A number of messages.
    pub(super) fn number(&mut self, field: Name, most: u64) -> Result<Option<u64>, Wrong> {
        let read = |raw: Raw<'_>| {
            let number = raw.integer().and_then(|number| u64::try_from(number).ok());
            let number = number.filter(|number| *number <= most);
            number.ok_or_else(|| wrong(field.as_str(), NO_NUMBER))
        };
        self.take(field).map(read).transpose()
    }

    pub(super) fn time(
        &mut self,
        field: Name,
        what_for: time::TimeUse,
    ) -> Result<Option<i64>, Wrong> {
        let read = |raw: Raw<'_>| {
            let time = if raw.is_text() {
                let text = text(field, raw, Surrogates::Refuse, time::NOT_A_TIME)?;
                time::of_text(&text, what_for)
            } else {
                let number = raw.integer().ok_or(time::NOT_A_TIME);
                number.and_then(|number| time::of_number(number, what_for))
            };
            time.map_err(|problem| wrong(field.as_str(), problem))
        };
        self.take(field).map(read).transpose()
    }

    /// Takes the notes on what has been left out so far.
    pub(super) fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    /// Fails if a field is left that is none of these: nobody took it, and it is not to be taken either.
    pub(super) fn reject_others(&self, these: FieldSet) -> Result<(), Wrong> {
        let others = self.present & !these.0;
        let known = NAMES.get(others.trailing_zeros() as usize);
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
}

/// The text of a string. `not_text` is the problem of a value that is not a string.
pub(super) fn text<'a>(
    field: Name,
    raw: Raw<'a>,
    surrogates: Surrogates,
    not_text: &'static str,
) -> Result<Cow<'a, str>, Wrong> {
    match raw.text(surrogates) {
        None => Err(wrong(field.as_str(), not_text)),
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

/// The name that an item of a list holds.
fn name<'a, T>(
    raw: Raw<'a>,
    parse: impl Fn(Cow<'a, str>) -> Result<T, NameError>,
) -> Result<T, Unnamed> {
    match raw.text(Surrogates::Refuse) {
        None => Err(Unnamed::NotText),
        Some(text) => parse(text.map_err(Unnamed::BadText)?).map_err(Unnamed::BadName),
    }
}

/// Why an item of a list is not a name.
enum Unnamed {
    NotText,
    BadText(BadText),
    BadName(NameError),
}

/// A list of names, each once. `unusable` decides what happens with an item that is not a name: `Err` refuses the whole list.
fn names<'a, T: Hash + Eq>(
    field: Name,
    raw: Raw<'a>,
    parse: impl Fn(Cow<'a, str>) -> Result<T, NameError>,
    most: usize,
    too_many: &'static str,
    mut unusable: impl FnMut(Raw<'a>, Unnamed) -> Result<(), Wrong>,
) -> Result<Vec<T>, Wrong> {
    let items = raw
        .items()
        .ok_or_else(|| wrong(field.as_str(), NOT_A_LIST))?;
    // Repeated names do not count towards `most`. They are removed whenever twice as many names as allowed are kept, so that a
    // long list of repeats takes no more memory than that.
    let compact_at = most.saturating_mul(2);
    let mut names = if raw.bytes() < COUNTED_BYTES {
        Vec::new()
    } else {
        Vec::with_capacity(items.clone().take(compact_at).count())
    };
    for item in items {
        match name(item, &parse) {
            Ok(name) => names.push(name),
            Err(why) => unusable(item, why)?,
        }
        if names.len() == compact_at {
            remove_repeats(&mut names);
            if names.len() > most {
                break;
            }
        }
    }
    remove_repeats(&mut names);
    match names.len() > most {
        true => Err(wrong(field.as_str(), too_many)),
        false => Ok(names),
    }
}

/// The problem of a list that holds an item that is not a name.
fn unlisted(field: Name, why: Unnamed) -> Wrong {
    match why {
        Unnamed::NotText => wrong(field.as_str(), NOT_A_LIST),
        Unnamed::BadText(bad) => unreadable(field, bad),
        Unnamed::BadName(error) => unnamable(field, error),
    }
}

/// Writes notes on what is left out of a list: the first few items one by one, then the number of the others.
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
            Unnamed::NotText => &"must be a string",
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

/// Removes repeated items; the first of equal items stays.
fn remove_repeats<T: Hash + Eq>(items: &mut Vec<T>) {
    // For so few items, comparing each with the earlier ones is faster than building a set.
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
