//! The operations on counts. Redis types stay behind this module.

mod admit;
mod announce;
mod charge;
mod compare;
mod deliver;
mod derive;
mod durable;
mod doctor;
mod form;
mod import;
mod inspect;
mod memory;
mod mend;
mod order;
mod pair;
mod position;
mod probe;
mod read;
mod rebuild;
mod recover;
mod reply;
mod room;
mod rooms;
mod slot;
mod trim;
mod unreadable;
mod verify;
mod walk;
mod write;
#[cfg(fuzzing)]
#[path = "../fuzz/doors/records.rs"]
#[doc(hidden)]
pub mod fuzzing;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

pub use crate::connection::this_is_a_worker;
pub use doctor::{Check, KnownServers, Level};
pub use import::{Cut, ImportOptions, Imported, NotedLine, RefusedLine, Remarks};
pub use inspect::{Listed, MemberShown, RoomShown, Shown, UserShown};
pub use memory::{MemoryUse, Part};
pub use mend::Mended;
pub use probe::{Probe, Standing};
pub use rebuild::Repair;
pub use rooms::{PrefQuery, RoomBrief, RoomQuery, SortBy};
pub use unreadable::Unreadable;
pub use verify::{Drift, Finding, Progress, Scope, UserDrift};
pub use write::{Outcome, Rejection, Wait};

use crate::config::{Config, Durability};
use crate::connection::Redis;
use crate::error::{Error, Result};
use crate::keys::Enc;
use crate::metrics::Metrics;
use crate::names::{AppId, CustomType, DirectRoomIds, RoomId, Tag, UserId};

/// A cheap handle; clones share connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    redis: Redis,
    admission: admit::Admission,
    charges: charge::Charges,
    history: History,
    direct_rooms: HashMap<AppId, DirectRoomIds>,
    announcer: announce::Announcer,
    members: Cache<(AppId, Enc), Arc<deliver::MemberList>, Length>,
    /// Deliveries that nobody waits for.
    background: Arc<Semaphore>,
    /// With durability `wait`: what makes sure of it.
    durable: Option<durable::Durable>,
    /// Whether the server was found new enough and given the scripts.
    prepared: AtomicBool,
    /// What could not be read, and when that was logged.
    complaints: recover::Complaints,
    metrics: Arc<Metrics>,
}

struct History {
    max_messages: u32,
    max_age_days: u32,
    /// How much of a message's text is kept.
    text_characters: usize,
    /// How long keys of events are remembered.
    keep_keys_micros: u64,
}

impl History {
    fn max_age_micros(&self) -> u64 {
        u64::from(self.max_age_days) * 86_400_000_000
    }
}

/// Member lists are weighed by their members.
#[derive(Clone)]
struct Length;

impl Weighter<(AppId, Enc), Arc<deliver::MemberList>> for Length {
    fn weight(&self, _: &(AppId, Enc), list: &Arc<deliver::MemberList>) -> u64 {
        list.weight()
    }
}

/// Members kept over all lists.
const CACHED_MEMBERS: u64 = 500_000;
/// Lists that are expected to be kept.
const CACHED_LISTS: usize = 10_000;
/// Deliveries under way that nobody waits for.
const BACKGROUND: usize = 256;

impl Store {
    /// Prepares the connections (made when first used) and starts the sweep for unfinished fan-outs. Wants a tokio runtime.
    pub async fn connect(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        let store = Self::observe(config, metrics)?;
        tokio::spawn(recover::run(Arc::downgrade(&store.inner)));
        Ok(store)
    }

    /// Prepares the connections and nothing else: for commands that look at the data from beside the pods.
    pub fn observe(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        let url = config.redis.url.as_ref().map(|url| url.0.as_str());
        let url = url.ok_or_else(|| Error::Internal("no address of redis is set".into()))?;
        let redis = Redis::new(&config.redis, url, Arc::clone(&metrics))?;
        let durable = (config.redis.durability == Durability::Wait).then(|| {
            let timeout = Duration::from_millis(config.redis.durability_timeout_ms);
            durable::Durable::start(redis.clone(), config.redis.durability_replicas, timeout)
        });
        let inner = Arc::new(Inner {
            redis,
            admission: admit::Admission::new(&config.server, &config.apps, Arc::clone(&metrics)),
            charges: charge::Charges::default(),
            history: History {
                max_messages: config.history.max_messages,
                max_age_days: config.history.max_age_days,
                text_characters: config.history.text_characters as usize,
                keep_keys_micros: u64::from(config.history.key_hours) * 3_600_000_000,
            },
            direct_rooms: config
                .apps
                .iter()
                .map(|app| (app.id.clone(), app.direct_room_ids()))
                .collect(),
            announcer: announce::Announcer::new(),
            members: Cache::with_weighter(CACHED_LISTS, CACHED_MEMBERS, Length),
            background: Arc::new(Semaphore::new(BACKGROUND)),
            durable,
            prepared: AtomicBool::new(false),
            complaints: recover::Complaints::default(),
            metrics,
        });
        Ok(Self { inner })
    }

    /// How the direct rooms of an app are called that messages make.
    fn direct_room_ids(&self, app: &AppId) -> DirectRoomIds {
        self.inner
            .direct_rooms
            .get(app)
            .copied()
            .unwrap_or_default()
    }
}

/// What the native API shows of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserUnread {
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
pub struct RoomUnread {
    /// The room.
    pub room: String,
    /// Its kind.
    pub kind: Kind,
    /// Its custom type.
    pub custom_type: Option<String>,
    /// Its tags, in the order given.
    pub tags: Vec<String>,
    /// Unread messages.
    pub messages: u64,
    /// Those that mention the user.
    pub mentions: u64,
}

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

/// The last message of a room: the one accepted last, unless it was given a time before that of the last message so far.
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
    /// What else its sender's system gave to be shown with it; nothing when recalled.
    pub payload: serde_json::Map<String, serde_json::Value>,
    /// Its time, milliseconds since the epoch.
    pub time: i64,
    /// When it was accepted (or recalled), milliseconds since the epoch.
    pub updated: i64,
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
    /// The last message.
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
    pub profiles: HashMap<UserId, Profile>,
}

/// What one room has unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomCounts {
    /// User and count, by user.
    Counts(Vec<(String, u64)>),
    /// There is no such room.
    NoRoom,
    /// Over 5,000 members: they have to be named.
    TooLarge,
}

/// What one asked peer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerCount {
    /// Unread messages in direct rooms with that peer.
    Known(u64),
    /// Nobody has mentioned that user yet.
    Unknown,
}
