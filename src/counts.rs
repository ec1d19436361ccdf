//! What is counted, as types, and the arithmetic of it. No I/O.

#[cfg(test)]
pub(crate) mod golden;
pub(crate) mod number;
pub(crate) mod record;
pub(crate) mod room;

use std::collections::{BTreeMap, HashMap};

use self::number::unreadable;
use crate::error::{Error, Result};
use crate::names::{RoomId, Tag, UserId};

/// What the native API answers for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserUnread {
    /// All totals.
    pub totals: Totals,
    /// Unread messages by tag, zeros included.
    pub tags: BTreeMap<String, u64>,
    /// Unread messages by custom type, zeros included.
    pub types: BTreeMap<String, u64>,
    /// The joined active rooms by id, if asked for.
    pub rooms: Option<Vec<RoomUnread>>,
}

/// One room of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomUnread {
    /// The room.
    pub room: String,
    /// Its kind.
    pub kind: Kind,
    /// The other user of a direct room.
    pub peer: Option<String>,
    /// Its custom type.
    pub custom_type: Option<String>,
    /// Its tags, in the order given.
    pub tags: Vec<String>,
    /// Unread messages.
    pub messages: u64,
    /// The unread messages that mention the user.
    pub mentions: u64,
    /// Whether the user has muted the room.
    pub muted: bool,
    /// Whether the user has hidden the room.
    pub hidden: bool,
    /// What the room adds to the user's sums.
    pub count: CountPref,
    /// The user's read position.
    pub read_position: i64,
    /// The position of the last message.
    pub head: u64,
}

/// The counts of a room that a user has joined and that is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedRoom {
    /// The room.
    pub room: String,
    /// Its kind.
    pub kind: Kind,
    /// Unread messages.
    pub messages: u64,
    /// The unread messages that mention the user.
    pub mentions: u64,
}

/// A kind of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// At most two members.
    Direct,
    /// Counts are kept for each member.
    Group,
    /// Counts are worked out from the room's head when somebody asks.
    Supergroup,
}

/// One number per kind of room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ByKind {
    /// Over direct rooms.
    pub direct: u64,
    /// Over groups.
    pub group: u64,
    /// Over supergroups.
    pub supergroup: u64,
}

/// All totals of one user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Unread messages.
    pub messages: ByKind,
    /// Unread messages that mention the user.
    pub mentions: ByKind,
    /// Open invitations.
    pub invitations: ByKind,
    /// Rooms with unread messages, where the user's preference counts these.
    pub unread_rooms: ByKind,
}

/// What a room adds to its user's sums: the user's count preference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CountPref {
    /// Messages and mentions.
    #[default]
    All,
    /// Messages only.
    Messages,
    /// Mentions only.
    Mentions,
    /// Nothing.
    Nothing,
}

/// A user's profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    /// The id.
    pub user: UserId,
    /// The name that others see.
    pub nickname: Option<String>,
    /// Address of a picture.
    pub avatar_url: Option<String>,
    /// Whether the user is a program.
    pub is_robot: bool,
    /// Milliseconds since the Unix epoch, 0 if never.
    pub last_login_time: i64,
}

/// The last message of a room: the one accepted last, except that a message whose given time is before that of the last
/// message so far does not become the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastMessage {
    /// Its id.
    pub id: String,
    /// Its sender; `None`: a system message.
    pub sender: Option<UserId>,
    /// Its text, empty when recalled.
    pub text: String,
    /// Its type, `recall` when recalled.
    pub message_type: String,
    /// Further fields from the sender's system, shown with the message; none when recalled.
    pub payload: serde_json::Map<String, serde_json::Value>,
    /// Its time, milliseconds since the Unix epoch.
    pub time: i64,
    /// When it was accepted (or recalled), milliseconds since the Unix epoch.
    pub updated: i64,
    /// Sorting by this number puts the messages of all rooms into the order in which they were accepted.
    pub order: u64,
}

/// A user's preferences of a room, with the defaults filled in.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pref {
    /// Personal tags.
    pub tags: Vec<String>,
    /// Colour for each personal tag.
    pub tag_colors: serde_json::Map<String, serde_json::Value>,
    /// Whether the room is hidden.
    pub hidden: bool,
    /// Whether the room is pinned.
    pub sticky: bool,
    /// Whether notifications are muted.
    pub muted: bool,
    /// Folder of the room, empty if none.
    pub folder: String,
    /// What the room adds to sums, if the user has ever said so.
    pub count: Option<CountPref>,
    /// Further fields from the app, if there are any.
    pub extra: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The details of a room on which no count and no order of events depends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShownDetails {
    /// The name that users see, empty if none.
    pub name: String,
    /// Address of a picture, empty if none.
    pub cover: String,
    /// Description, empty if none.
    pub description: String,
    /// Webhook key or address, empty if none.
    pub webhook: String,
    /// Bot state, empty if none.
    pub bot_state: String,
    /// Whether bot mode is on.
    pub bot_mode: bool,
    /// Whether messages are encrypted.
    pub encrypted: bool,
    /// Service status.
    pub service_status: i64,
}

/// One joined, active room of a user.
#[derive(Debug, Clone)]
pub(crate) struct RoomEntry {
    /// The room.
    pub room: RoomId,
    /// Its kind.
    pub kind: Kind,
    /// The details that are only shown.
    pub shown: ShownDetails,
    /// Tags of the room, in the order given.
    pub tags: Vec<Tag>,
    /// Creation, milliseconds since the Unix epoch (the event's `time`).
    pub created: i64,
    /// The last message.
    pub last_message: Option<LastMessage>,
    /// This user's unread messages in the room.
    pub unread: u64,
    /// This user's preferences of the room.
    pub pref: Pref,
    /// The joined members, in the order of joining; filled in only for the rooms of a page.
    pub members: Vec<UserId>,
}

/// A page of a user's rooms.
#[derive(Debug)]
pub(crate) struct RoomPage {
    /// How many rooms match, on all pages.
    pub total: u64,
    /// The rooms of this page, members filled in.
    pub rooms: Vec<RoomEntry>,
    /// Profiles of all members and last senders named in `rooms`.
    pub profiles: HashMap<UserId, Profile>,
}

/// What one room has unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoomCounts {
    /// By user.
    Counts(Vec<MemberCount>),
    /// There is no such room.
    NoRoom,
    /// The room has over 5,000 members, so the caller has to name the users.
    TooLarge,
}

/// What one member of a room has unread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberCount {
    /// The user.
    pub user: String,
    /// Unread messages.
    pub unread: u64,
    /// The read position; 0 if nobody asked for it.
    pub read: i64,
}

/// What a room is, apart from its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomDetails {
    /// Its kind.
    pub kind: Kind,
    /// Its custom type.
    pub custom_type: Option<String>,
    /// Its tags, in the order given.
    pub tags: Vec<String>,
    /// Whether it is active.
    pub active: bool,
    /// The details that are only shown.
    pub shown: ShownDetails,
    /// Creation, milliseconds since the Unix epoch (the event's `time`).
    pub created: i64,
    /// The position of the last message.
    pub head: u64,
    /// How many users have joined or are invited. Those who have just left are among them until everybody knows.
    pub members: u64,
}

/// A member of a room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoomMember {
    /// The user.
    pub user: String,
    /// Whether the user has joined; if not, the user is invited.
    pub has_joined: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: i64,
}

/// The count of one peer that the caller asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerCount {
    /// Unread messages in direct rooms with that peer.
    Known(u64),
    /// No event has named that user yet.
    Unknown,
}

impl Kind {
    /// As it stands in Redis and in the native API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Group => "group",
            Kind::Supergroup => "supergroup",
        }
    }

    /// By the letter in a user's record.
    pub(crate) fn recorded(text: &str) -> Result<Self> {
        match text {
            "d" => Ok(Kind::Direct),
            "g" => Ok(Kind::Group),
            _ => Err(unreadable()),
        }
    }

    /// By the word in a room's slot.
    pub(crate) fn stored(text: &str) -> Result<Self> {
        match text {
            "direct" => Ok(Kind::Direct),
            "group" => Ok(Kind::Group),
            "supergroup" => Ok(Kind::Supergroup),
            _ => Err(Error::unreadable("no kind of a room")),
        }
    }
}

impl CountPref {
    const EACH: [Self; 4] = [Self::All, Self::Messages, Self::Mentions, Self::Nothing];

    /// As events have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Messages => "messages",
            Self::Mentions => "mentions",
            Self::Nothing => "none",
        }
    }

    /// By the word in an event.
    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::EACH.into_iter().find(|pref| pref.as_str() == word)
    }

    /// As it stands at the end of a record: a digit, or nothing for the default.
    pub(crate) fn recorded(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Messages => "1",
            Self::Mentions => "2",
            Self::Nothing => "3",
        }
    }

    /// What stands at the end of a record, behind the letters of preferences; and these letters.
    pub(crate) fn at_end(flags: &str) -> (&str, Self) {
        let found = Self::EACH.into_iter().skip(1).find_map(|pref| {
            let letters = flags.strip_suffix(pref.recorded())?;
            Some((letters, pref))
        });
        found.unwrap_or((flags, Self::All))
    }

    /// Whether the room's messages are in the sums.
    pub(crate) fn counts_messages(self) -> bool {
        matches!(self, Self::All | Self::Messages)
    }

    /// Whether the room's mentions are.
    pub(crate) fn counts_mentions(self) -> bool {
        matches!(self, Self::All | Self::Mentions)
    }
}

impl ByKind {
    /// The sum over all kinds.
    pub(crate) fn total(&self) -> u64 {
        self.direct + self.group + self.supergroup
    }

    pub(crate) fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Direct => &mut self.direct,
            Kind::Group => &mut self.group,
            Kind::Supergroup => &mut self.supergroup,
        }
    }
}

impl Totals {
    pub(crate) fn family(&mut self, family: &str) -> &mut ByKind {
        match family {
            "messages" => &mut self.messages,
            "mentions" => &mut self.mentions,
            "unread_rooms" => &mut self.unread_rooms,
            _ => &mut self.invitations,
        }
    }
}
