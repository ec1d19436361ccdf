//! How the answer shows a room, with the names that the vendor has for its fields (I2).

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{iso, room_type};
use crate::counts::{CountPref, LastMessage, Profile, RoomEntry, RoomPage};
use crate::names::{Tag, UserId};

/// A user as a member or sender.
#[derive(Serialize)]
struct Client<'a> {
    #[serde(rename = "_id")]
    key: &'a str,
    nickname: &'a str,
    #[serde(rename = "avatarUrl")]
    avatar_url: &'a str,
    #[serde(rename = "isRobot")]
    is_robot: bool,
    id: &'a str,
    #[serde(rename = "lastLoginTimeMS")]
    last_login: i64,
    /// Always `user`: the vendor also has groups of users as members, which this program does not know.
    #[serde(rename = "clientType")]
    client_type: &'a str,
}

fn client<'a>(user: &'a UserId, profiles: &'a HashMap<UserId, Profile>) -> Client<'a> {
    let profile = profiles.get(user);
    let text = |value: Option<&'a String>| value.map_or("", String::as_str);
    Client {
        key: user.as_str(),
        id: user.as_str(),
        nickname: text(profile.and_then(|p| p.nickname.as_ref())),
        avatar_url: text(profile.and_then(|p| p.avatar_url.as_ref())),
        is_robot: profile.is_some_and(|p| p.is_robot),
        last_login: profile.map_or(0, |p| p.last_login_time),
        client_type: "user",
    }
}

#[derive(Serialize)]
struct VendorMessage<'a> {
    #[serde(rename = "_id")]
    key: &'a str,
    message: &'a str,
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<Client<'a>>,
    #[serde(rename = "messageType")]
    message_type: &'a str,
    #[serde(rename = "appID")]
    app: &'a str,
    #[serde(rename = "messageTime")]
    time: String,
    id: &'a str,
    #[serde(rename = "messageTimeMS")]
    time_ms: i64,
    #[serde(rename = "updatedAtMS")]
    updated_ms: i64,
    #[serde(rename = "createdAtMS")]
    created_ms: i64,
    #[serde(rename = "reactionCount")]
    reactions: u32,
    /// The fields that the message's payload adds.
    #[serde(flatten)]
    more: BTreeMap<&'a str, &'a Value>,
}

/// The fields that a message has whatever its payload is: all fields of [`VendorMessage`] but `sender`.
pub(super) const OWN: [&str; 11] = [
    "_id",
    "message",
    "room",
    "messageType",
    "appID",
    "messageTime",
    "id",
    "messageTimeMS",
    "updatedAtMS",
    "createdAtMS",
    "reactionCount",
];

/// Whether the vendor's clients look for more than a text in a message of that type (I4, I5). Where they don't find it, they show
/// no list of rooms at all.
fn is_taken_apart(message_type: &str) -> bool {
    const TYPES: [&str; 14] = [
        "assignAdmin",
        "audio",
        "cancelInvitations",
        "encrypted",
        "file",
        "flex",
        "image",
        "images",
        "location",
        "payment",
        "sticker",
        "template",
        "url",
        "video",
    ];
    TYPES.contains(&message_type)
        || message_type.starts_with("addMember")
        || message_type.starts_with("deleteMember")
}

fn message<'a>(
    app: &'a str,
    room: &'a RoomEntry,
    last: &'a LastMessage,
    profiles: &'a HashMap<UserId, Profile>,
) -> VendorMessage<'a> {
    let sender = last.sender.as_ref().map(|user| client(user, profiles));
    let is_own = |name: &str| OWN.contains(&name) || (name == "sender" && sender.is_some());
    let payload = last.payload.iter().filter(|(name, _)| !is_own(name));
    let show_as_text = last.payload.is_empty() && is_taken_apart(&last.message_type);
    VendorMessage {
        more: payload
            .map(|(name, value)| (name.as_str(), value))
            .collect(),
        key: &last.id,
        id: &last.id,
        message: &last.text,
        room: room.room.as_str(),
        sender,
        message_type: if show_as_text {
            "text"
        } else {
            &last.message_type
        },
        app,
        time: iso(last.time),
        time_ms: last.time,
        updated_ms: last.updated,
        // Clients sort by this field.
        created_ms: last.time,
        reactions: 0,
    }
}

#[derive(Serialize)]
struct VendorRoom<'a> {
    #[serde(rename = "_id")]
    key: &'a str,
    name: &'a str,
    cover: &'a str,
    description: &'a str,
    #[serde(rename = "roomType")]
    room_type: &'a str,
    webhook: &'a str,
    #[serde(rename = "botState")]
    bot_state: &'a str,
    #[serde(rename = "botMode")]
    bot_mode: bool,
    encrypted: bool,
    #[serde(rename = "serviceStatus")]
    service_status: i64,
    #[serde(rename = "roomTags")]
    tags: Vec<&'a str>,
    status: u32,
    unread: u64,
    muted: bool,
    #[serde(rename = "lastMessage", skip_serializing_if = "Option::is_none")]
    last_message: Option<VendorMessage<'a>>,
    members: Vec<Client<'a>>,
    pref: VendorPref<'a>,
    id: &'a str,
    #[serde(rename = "createdTimeMS")]
    created_ms: i64,
}

#[derive(Serialize)]
struct VendorPref<'a> {
    tags: &'a [String],
    #[serde(rename = "tagColors")]
    tag_colors: &'a Map<String, Value>,
    hidden: bool,
    sticky: bool,
    muted: bool,
    folder: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<&'a Map<String, Value>>,
}

/// The `result` of an answer.
#[derive(Serialize)]
pub(super) struct RoomList<'a> {
    #[serde(rename = "totalCount")]
    total: u64,
    inspect: VendorInspect,
    data: Vec<VendorRoom<'a>>,
}

#[derive(Serialize)]
struct VendorInspect {
    query: Value,
    #[serde(rename = "tookMS")]
    took_ms: u64,
}

/// Shows a page of rooms as the vendor does.
pub(super) fn show<'a>(
    app: &'a str,
    page: &'a RoomPage,
    query: Value,
    took_ms: u64,
) -> RoomList<'a> {
    let room = |room: &'a RoomEntry| VendorRoom {
        key: room.room.as_str(),
        id: room.room.as_str(),
        name: &room.shown.name,
        cover: &room.shown.cover,
        description: &room.shown.description,
        room_type: room_type(room.kind),
        webhook: &room.shown.webhook,
        bot_state: &room.shown.bot_state,
        bot_mode: room.shown.bot_mode,
        encrypted: room.shown.encrypted,
        service_status: room.shown.service_status,
        tags: room.tags.iter().map(Tag::as_str).collect(),
        // Rooms with another status are not listed.
        status: 1,
        unread: room.unread,
        muted: room.pref.muted,
        last_message: room
            .last_message
            .as_ref()
            .map(|last| message(app, room, last, &page.profiles)),
        members: room
            .members
            .iter()
            .map(|user| client(user, &page.profiles))
            .collect(),
        pref: VendorPref {
            tags: &room.pref.tags,
            tag_colors: &room.pref.tag_colors,
            hidden: room.pref.hidden,
            sticky: room.pref.sticky,
            muted: room.pref.muted,
            folder: &room.pref.folder,
            count: room.pref.count.map(CountPref::as_str),
            extra: room.pref.extra.as_ref(),
        },
        created_ms: room.created,
    };
    RoomList {
        total: page.total,
        inspect: VendorInspect { query, took_ms },
        data: page.rooms.iter().map(room).collect(),
    }
}
