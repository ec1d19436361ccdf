//! The operations on counts. Redis types stay behind this module.

use crate::error::Result;
use crate::names::{AppId, CustomType, RoomId, Tag, UserId};
use crate::quota::{Charge, Charged};

/// A cheap handle; clones share connections.
#[derive(Clone)]
pub struct Store {}

/// A kind of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// At most two members.
    Direct,
    /// Counts are delivered to each member.
    Group,
    /// Counts are worked out from the room's head at reading.
    Supergroup,
}

/// One number per kind of room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByKind {
    /// Over direct rooms.
    pub direct: u64,
    /// Over groups.
    pub group: u64,
    /// Over supergroups.
    pub supergroup: u64,
}

/// All totals of one user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Unread messages.
    pub messages: ByKind,
    /// Unread messages that mention the user.
    pub mentions: ByKind,
    /// Open invitations.
    pub invitations: ByKind,
}

/// A user as others see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The id.
    pub user: UserId,
    /// Shown name.
    pub nickname: Option<String>,
    /// Address of a picture.
    pub avatar_url: Option<String>,
    /// Whether it is a machine.
    pub is_robot: bool,
    /// Milliseconds since the epoch, 0 if never.
    pub last_login_time: i64,
}

/// The message accepted last in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastMessage {
    /// Its id.
    pub id: String,
    /// Its sender; none: a system message.
    pub sender: Option<UserId>,
    /// Its text, empty when recalled.
    pub text: String,
    /// Its type, `recall` when recalled.
    pub message_type: String,
    /// Its time, milliseconds since the epoch.
    pub time: i64,
    /// When it was accepted (or recalled), milliseconds since the epoch.
    pub updated: i64,
    /// When it was accepted, milliseconds since the epoch.
    pub created: i64,
    /// Order of acceptance among all rooms' messages.
    pub order: u64,
}

/// A user's own settings of a room, with the defaults filled in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pref {
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
}

/// One joined, active room of a user.
#[derive(Debug, Clone)]
pub struct RoomEntry {
    /// The room.
    pub room: RoomId,
    /// Its kind.
    pub kind: Kind,
    /// Shown name, empty if none.
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
    /// Tags of the room, in the order given.
    pub tags: Vec<Tag>,
    /// Custom type.
    pub custom_type: Option<CustomType>,
    /// Creation, milliseconds since the epoch (the event's `time`).
    pub created: i64,
    /// The message accepted last.
    pub last_message: Option<LastMessage>,
    /// This user's unread messages in the room.
    pub unread: u64,
    /// This user's own settings of the room.
    pub pref: Pref,
    /// The joined members, in the order of joining; filled for chosen rooms only.
    pub members: Vec<UserId>,
}

/// A page of a user's rooms.
#[derive(Debug)]
pub struct RoomPage {
    /// How many rooms matched, before paging.
    pub total: u64,
    /// The chosen rooms, members filled in.
    pub rooms: Vec<RoomEntry>,
    /// Profiles of all members and last senders named in `rooms`.
    pub profiles: std::collections::HashMap<UserId, Profile>,
}

/// What one asked peer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerCount {
    /// Unread messages in direct rooms with that peer.
    Known(u64),
    /// Nobody has mentioned that user yet.
    Unknown,
}

// The reads of the vendor endpoints. Each is atomic over the user's own counts and runs the charge in the same round trip.
#[allow(unused_variables, clippy::todo)]
impl Store {
    /// Unread messages over the direct rooms of `user`; `None`: an unknown user.
    pub async fn direct_total(
        &self,
        app: &AppId,
        user: &UserId,
        charge: Option<&Charge>,
    ) -> Result<Charged<Option<u64>>> {
        todo!()
    }
    /// The same for each of `peers`, in their order; `None`: `user` is unknown.
    pub async fn direct_by_peer(
        &self,
        app: &AppId,
        user: &UserId,
        peers: &[UserId],
        charge: Option<&Charge>,
    ) -> Result<Charged<Option<Vec<PeerCount>>>> {
        todo!()
    }
    /// All totals of `user`, over rooms of the given custom types if any are given; `None`: an unknown user.
    pub async fn totals(
        &self,
        app: &AppId,
        user: &UserId,
        types: Option<&[CustomType]>,
        charge: Option<&Charge>,
    ) -> Result<Charged<Option<Totals>>> {
        todo!()
    }
    /// Unread messages by room tag: the asked tags in the order given (absent ones 0), or every tag of the user's joined
    /// active rooms (sorted, zeros included) where none are given. An unknown user is a user without rooms.
    pub async fn tags(
        &self,
        app: &AppId,
        user: &UserId,
        tags: Option<&[Tag]>,
        charge: Option<&Charge>,
    ) -> Result<Charged<Vec<(Tag, u64)>>> {
        todo!()
    }
    /// The joined active rooms of `user`: all of them are handed to `choose`, which filters, sorts and pages them and says
    /// how many matched; members and profiles are then filled in for those it returns. An unknown user has no rooms.
    pub async fn rooms<F>(
        &self,
        app: &AppId,
        user: &UserId,
        choose: F,
        charge: Option<&Charge>,
    ) -> Result<Charged<RoomPage>>
    where
        F: FnOnce(Vec<RoomEntry>) -> (u64, Vec<RoomEntry>),
    {
        todo!()
    }
    /// Whether Redis answers, for readiness.
    pub async fn ping(&self) -> Result<()> {
        todo!()
    }
}
