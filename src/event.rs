//! Events as callers send them: parsed once into types that can't be wrong. No I/O.

use serde_json::{Map, Value};

use crate::names::{CustomType, EventKey, MessageId, NameError, RoomId, Tag, UserId};

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Milliseconds since the epoch; `None`: the time of arrival.
    pub time: Option<i64>,
    /// A key that its room, or its user, takes once; events with an id need none.
    pub key: Option<EventKey>,
    /// What happened.
    pub change: Change,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Change {
    /// `user.updated`
    UserUpdated {
        /// Who.
        user: UserId,
        /// Field and text of what others see.
        shown: Vec<(&'static str, String)>,
    },
    /// `user.deleted`
    UserDeleted {
        /// Who.
        user: UserId,
    },
    /// `room.updated`
    RoomUpdated {
        /// Which room.
        room: RoomId,
        /// `direct`, `group` or `supergroup`.
        kind: Option<&'static str>,
        /// `Some(None)` takes the type away.
        custom_type: Option<Option<CustomType>>,
        /// The whole new set, in the order given, each once.
        tags: Option<Vec<Tag>>,
        /// Whether the room is active.
        active: Option<bool>,
        /// Field and text of what is only shown.
        shown: Vec<(&'static str, String)>,
    },
    /// `room.deleted`
    RoomDeleted {
        /// Which room.
        room: RoomId,
    },
    /// `member.joined`, `member.invited`, `member.left`
    Member {
        /// Which room.
        room: RoomId,
        /// What becomes of them.
        state: MemberState,
        /// Who, at least one, each once.
        users: Vec<UserId>,
    },
    /// `message.sent`
    Message(Message),
    /// `message.recalled`
    Recalled {
        /// Which room.
        room: RoomId,
        /// Which message.
        id: MessageId,
    },
    /// `room.read`
    Read {
        /// Where.
        place: Place,
        /// Who.
        user: UserId,
        /// How far.
        up_to: UpTo,
    },
    /// `user.read_all`
    ReadAll {
        /// Who.
        user: UserId,
    },
    /// `pref.updated`
    Pref {
        /// Which room.
        room: RoomId,
        /// Whose settings.
        user: UserId,
        /// Field and JSON text.
        settings: Vec<(&'static str, String)>,
    },
}

/// What becomes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// In the room.
    Joined,
    /// Asked in.
    Invited,
    /// Out of the room.
    Left,
}

/// A room, or the direct room with somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A room by its id.
    Room(RoomId),
    /// The direct room with this user.
    With(UserId),
}

/// How far somebody has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpTo {
    /// Everything.
    Head,
    /// That message.
    Id(MessageId),
    /// All messages at or before that time (milliseconds).
    Time(i64),
}

/// Whom a message mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mentions {
    /// These, possibly nobody.
    Users(Vec<UserId>),
    /// Everybody in the room.
    All,
}

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where: `With` needs a sender.
    pub place: Place,
    /// Its id.
    pub id: MessageId,
    /// Its sender; none: a system message.
    pub sender: Option<UserId>,
    /// Its text.
    pub text: String,
    /// Its type.
    pub message_type: String,
    /// Whom it mentions.
    pub mentions: Mentions,
    /// Whether it never counts.
    pub silent: bool,
    /// Whether the sender has read up to here.
    pub mark_read: bool,
}

/// Why an event is not one: the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

fn invalid(field: &str, problem: impl Into<String>) -> Invalid {
    Invalid {
        field: shown(field),
        problem: problem.into(),
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

/// The latest time: the end of the year 9999.
const MAX_TIME: i64 = 253_402_300_799_999;
/// The most tags in a room, and of a user's own for one.
const MAX_TAGS: usize = 100;

/// The most users that one message names.
const MAX_MENTIONS: usize = 10_000;

struct Fields {
    map: Map<String, Value>,
}

impl Fields {
    fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field)
    }

    fn text(&mut self, field: &str) -> Result<Option<String>, Invalid> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(field, "must be a string")),
        }
    }

    /// A string, where `null` empties it.
    fn nullable(&mut self, field: &str) -> Result<Option<String>, Invalid> {
        match self.take(field) {
            Some(Value::Null) => Ok(Some(String::new())),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(field, "must be a string or null")),
            None => Ok(None),
        }
    }

    fn flag(&mut self, field: &str) -> Result<Option<bool>, Invalid> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(invalid(field, "must be true or false")),
        }
    }

    fn name<T>(
        &mut self,
        field: &str,
        parse: impl Fn(String) -> Result<T, NameError>,
    ) -> Result<Option<T>, Invalid> {
        match self.text(field)? {
            None => Ok(None),
            Some(text) => parse(text)
                .map(Some)
                .map_err(|e| invalid(field, e.to_string())),
        }
    }

    fn required<T>(
        &mut self,
        field: &str,
        parse: impl Fn(String) -> Result<T, NameError>,
    ) -> Result<T, Invalid> {
        self.name(field, parse)?
            .ok_or_else(|| invalid(field, "is missing"))
    }

    fn list<T: PartialEq>(
        &mut self,
        field: &str,
        parse: impl Fn(String) -> Result<T, NameError>,
    ) -> Result<Option<Vec<T>>, Invalid> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => parse(text).map_err(|e| invalid(field, e.to_string())),
                    _ => Err(invalid(field, "must be a list of strings")),
                })
                .collect::<Result<Vec<T>, Invalid>>()
                .map(Some),
            Some(_) => Err(invalid(field, "must be a list of strings")),
        }
    }

    fn time(&mut self, field: &str) -> Result<Option<i64>, Invalid> {
        let time = match self.take(field) {
            None => return Ok(None),
            Some(Value::Number(n)) => n.as_i64(),
            Some(Value::String(text)) => text
                .parse::<jiff::Timestamp>()
                .ok()
                .map(|t| t.as_millisecond()),
            Some(_) => None,
        };
        match time {
            Some(time) if (0..=MAX_TIME).contains(&time) => Ok(Some(time)),
            _ => Err(invalid(
                field,
                "must be milliseconds since the epoch or RFC 3339, between 1970 and 9999",
            )),
        }
    }

    fn done(self) -> Result<(), Invalid> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(field) => Err(invalid(field, "is not a field of this event")),
        }
    }
}

fn once<T: std::hash::Hash + Eq + Clone>(items: Vec<T>) -> Vec<T> {
    let mut seen = std::collections::HashSet::with_capacity(items.len());
    items
        .into_iter()
        .filter(|item| seen.insert(item.clone()))
        .collect()
}

impl Change {
    /// Whether its event has an id of its own, by which it is known when it is sent again.
    pub fn has_id(&self) -> bool {
        matches!(self, Change::Message(_) | Change::Recalled { .. })
    }

    /// The `type` of an event that says this.
    pub fn type_name(&self) -> &'static str {
        match self {
            Change::UserUpdated { .. } => "user.updated",
            Change::UserDeleted { .. } => "user.deleted",
            Change::RoomUpdated { .. } => "room.updated",
            Change::RoomDeleted { .. } => "room.deleted",
            Change::Member { state, .. } => match state {
                MemberState::Joined => "member.joined",
                MemberState::Invited => "member.invited",
                MemberState::Left => "member.left",
            },
            Change::Message(_) => "message.sent",
            Change::Recalled { .. } => "message.recalled",
            Change::Read { .. } => "room.read",
            Change::ReadAll { .. } => "user.read_all",
            Change::Pref { .. } => "pref.updated",
        }
    }
}

impl Event {
    /// Reads one event.
    pub fn parse(value: Value) -> Result<Self, Invalid> {
        let Value::Object(map) = value else {
            return Err(invalid("event", "must be an object"));
        };
        let mut fields = Fields { map };
        let kind = fields
            .text("type")?
            .ok_or_else(|| invalid("type", "is missing"))?;
        let time = fields.time("time")?;
        let change = match kind.as_str() {
            "user.updated" => user_updated(&mut fields)?,
            "user.deleted" => Change::UserDeleted {
                user: fields.required("user", UserId::parse)?,
            },
            "room.updated" => room_updated(&mut fields)?,
            "room.deleted" => Change::RoomDeleted {
                room: fields.required("room", RoomId::parse)?,
            },
            "member.joined" => member(&mut fields, MemberState::Joined)?,
            "member.invited" => member(&mut fields, MemberState::Invited)?,
            "member.left" => member(&mut fields, MemberState::Left)?,
            "message.sent" => message(&mut fields)?,
            "message.recalled" => Change::Recalled {
                room: fields.required("room", RoomId::parse)?,
                id: fields.required("id", MessageId::parse)?,
            },
            "room.read" => read(&mut fields)?,
            "user.read_all" => Change::ReadAll {
                user: fields.required("user", UserId::parse)?,
            },
            "pref.updated" => pref(&mut fields)?,
            _ => return Err(invalid("type", "is not a known event type")),
        };
        fields.done()?;
        Ok(Self {
            time,
            key: None,
            change,
        })
    }
}

fn user_updated(fields: &mut Fields) -> Result<Change, Invalid> {
    let user = fields.required("user", UserId::parse)?;
    let mut shown = Vec::new();
    for field in ["nickname", "avatar_url"] {
        if let Some(text) = fields.nullable(field)? {
            shown.push((field, text));
        }
    }
    if let Some(flag) = fields.flag("is_robot")? {
        shown.push(("is_robot", u8::from(flag).to_string()));
    }
    if let Some(time) = fields.time("last_login_time")? {
        shown.push(("last_login_time", time.to_string()));
    }
    Ok(Change::UserUpdated { user, shown })
}

fn room_updated(fields: &mut Fields) -> Result<Change, Invalid> {
    let room = fields.required("room", RoomId::parse)?;
    let kind = match fields.text("kind")?.as_deref() {
        None => None,
        Some("direct") => Some("direct"),
        Some("group") => Some("group"),
        Some("supergroup") => Some("supergroup"),
        Some(_) => return Err(invalid("kind", "must be direct, group or supergroup")),
    };
    let custom_type = match fields.take("custom_type") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(
            CustomType::parse(text).map_err(|e| invalid("custom_type", e.to_string()))?,
        )),
        Some(_) => return Err(invalid("custom_type", "must be a string or null")),
    };
    let tags = fields.list("tags", Tag::parse)?.map(once);
    if tags.as_ref().is_some_and(|tags| tags.len() > MAX_TAGS) {
        return Err(invalid("tags", "must be at most 100"));
    }
    let active = match fields.take("status") {
        None => None,
        Some(Value::Number(n)) if n.as_u64() == Some(1) => Some(true),
        Some(Value::Number(n)) if n.as_u64() == Some(0) => Some(false),
        Some(_) => return Err(invalid("status", "must be 1 or 0")),
    };
    let mut shown = Vec::new();
    for field in ["name", "cover", "description", "webhook", "bot_state"] {
        if let Some(text) = fields.nullable(field)? {
            shown.push((field, text));
        }
    }
    for field in ["bot_mode", "encrypted"] {
        if let Some(flag) = fields.flag(field)? {
            shown.push((field, u8::from(flag).to_string()));
        }
    }
    match fields.take("service_status") {
        None => {}
        Some(Value::Number(n)) if n.is_i64() => shown.push(("service_status", n.to_string())),
        Some(_) => return Err(invalid("service_status", "must be an integer")),
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

fn member(fields: &mut Fields, state: MemberState) -> Result<Change, Invalid> {
    let room = fields.required("room", RoomId::parse)?;
    let one = fields.name("user", UserId::parse)?;
    let many = fields.list("users", UserId::parse)?;
    let users = match (one, many) {
        (Some(_), Some(_)) => return Err(invalid("user", "can't be given beside users")),
        (Some(user), None) => vec![user],
        (None, Some(users)) if !users.is_empty() => once(users),
        (None, Some(_)) => return Err(invalid("users", "must name at least one user")),
        (None, None) => return Err(invalid("users", "is missing")),
    };
    Ok(Change::Member { room, state, users })
}

fn message(fields: &mut Fields) -> Result<Change, Invalid> {
    let sender = fields.name("sender", UserId::parse)?;
    let place = match (
        fields.name("room", RoomId::parse)?,
        fields.name("to", UserId::parse)?,
    ) {
        (Some(_), Some(_)) => return Err(invalid("to", "can't be given beside room")),
        (Some(room), None) => Place::Room(room),
        (None, Some(_)) if sender.is_none() => {
            return Err(invalid("sender", "is missing: a message with to needs one"));
        }
        (None, Some(to)) => Place::With(to),
        (None, None) => return Err(invalid("room", "is missing")),
    };
    let mentions = match fields.take("mentions") {
        None => Mentions::Users(Vec::new()),
        Some(Value::String(all)) if all == "all" => Mentions::All,
        Some(list @ Value::Array(_)) => {
            fields.map.insert("mentions".into(), list);
            let users = once(fields.list("mentions", UserId::parse)?.unwrap_or_default());
            if users.len() > MAX_MENTIONS {
                return Err(invalid(
                    "mentions",
                    "must name at most 10,000 users; \"all\" names everybody",
                ));
            }
            Mentions::Users(users)
        }
        Some(_) => return Err(invalid("mentions", "must be a list of users or \"all\"")),
    };
    let message_type = match fields.name("message_type", MessageId::parse)? {
        Some(name) => name.as_str().to_owned(),
        None => "text".to_owned(),
    };
    Ok(Change::Message(Message {
        place,
        id: fields.required("id", MessageId::parse)?,
        sender,
        text: fields.text("text")?.unwrap_or_default(),
        message_type,
        mentions,
        silent: fields.flag("silent")?.unwrap_or(false),
        mark_read: fields.flag("mark_read")?.unwrap_or(true),
    }))
}

fn read(fields: &mut Fields) -> Result<Change, Invalid> {
    let user = fields.required("user", UserId::parse)?;
    let place = match (
        fields.name("room", RoomId::parse)?,
        fields.name("peer", UserId::parse)?,
    ) {
        (Some(_), Some(_)) => return Err(invalid("peer", "can't be given beside room")),
        (Some(room), None) => Place::Room(room),
        (None, Some(peer)) => Place::With(peer),
        (None, None) => return Err(invalid("room", "is missing")),
    };
    let up_to = match (
        fields.name("up_to_id", MessageId::parse)?,
        fields.time("up_to_time")?,
    ) {
        (Some(_), Some(_)) => return Err(invalid("up_to_time", "can't be given beside up_to_id")),
        (Some(id), None) => UpTo::Id(id),
        (None, Some(time)) => UpTo::Time(time),
        (None, None) => UpTo::Head,
    };
    Ok(Change::Read { place, user, up_to })
}

fn pref(fields: &mut Fields) -> Result<Change, Invalid> {
    let room = fields.required("room", RoomId::parse)?;
    let user = fields.required("user", UserId::parse)?;
    let mut settings = Vec::new();
    if let Some(tags) = fields.list("tags", Tag::parse)? {
        let tags = once(tags);
        if tags.len() > MAX_TAGS {
            return Err(invalid("tags", "must be at most 100"));
        }
        let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        settings.push(("tags", Value::from(tags).to_string()));
    }
    match fields.take("tag_colors") {
        None => {}
        Some(Value::Object(colors))
            if colors.len() <= MAX_TAGS && colors.values().all(Value::is_string) =>
        {
            settings.push(("tag_colors", Value::Object(colors).to_string()));
        }
        Some(_) => {
            return Err(invalid(
                "tag_colors",
                "must be an object of at most 100 strings",
            ));
        }
    }
    for field in ["hidden", "sticky", "muted"] {
        if let Some(flag) = fields.flag(field)? {
            settings.push((field, flag.to_string()));
        }
    }
    if let Some(folder) = fields.nullable("folder")? {
        settings.push(("folder", Value::from(folder).to_string()));
    }
    Ok(Change::Pref {
        room,
        user,
        settings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field_of(value: Value) -> String {
        Event::parse(value).unwrap_err().field
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        assert_eq!(field_of(json!(5)), "event");
        assert_eq!(field_of(json!({})), "type");
        assert_eq!(field_of(json!({"type": "nope"})), "type");
        assert_eq!(field_of(json!({"type": "room.deleted"})), "room");
        assert_eq!(
            field_of(json!({"type": "room.deleted", "room": "r", "extra": 1})),
            "extra"
        );
        assert_eq!(
            field_of(json!({"type": "room.deleted", "room": "r", "time": "x"})),
            "time"
        );
        assert_eq!(
            field_of(json!({"type": "room.deleted", "room": "x".repeat(256)})),
            "room"
        );
        assert_eq!(
            field_of(json!({"type": "member.joined", "room": "r", "users": []})),
            "users"
        );
        assert_eq!(
            field_of(json!({"type": "message.sent", "to": "b", "id": "1"})),
            "sender"
        );
        assert_eq!(
            field_of(json!({"type": "message.sent", "room": "r", "id": "1", "mentions": "some"})),
            "mentions"
        );
        assert_eq!(
            field_of(json!({"type": "room.updated", "room": "r", "custom_type": "a,b"})),
            "custom_type"
        );
        assert_eq!(
            field_of(json!({"type": "room.updated", "room": "r", "status": 2})),
            "status"
        );
    }

    #[test]
    fn times_are_milliseconds_or_rfc_3339() {
        for time in [
            json!(1_700_000_000_000_i64),
            json!("2023-11-14T22:13:20Z"),
            json!("2023-11-14T23:13:20+01:00"),
        ] {
            let event =
                Event::parse(json!({"type": "room.deleted", "room": "r", "time": time})).unwrap();
            assert_eq!(event.time, Some(1_700_000_000_000));
        }
    }
}
