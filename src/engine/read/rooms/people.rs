//! The members of the rooms of a page, and their profiles.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use redis::Value;

use super::entry::PageRoom;
use crate::connection::Item;
use crate::counts::number::unreadable;
use crate::counts::room::{Membership, names};
use crate::counts::{Profile, RoomEntry};
use crate::engine::members::MemberList;
use crate::engine::read::Reader;
use crate::engine::reply::{Reply, maybe_text, readable, text};
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, UserKeys, decode, encode, is_encoded};
use crate::names::{AppId, UserId};
use crate::scripts;

/// The longest list of members that is shown whole.
const SHOWN_MEMBERS: usize = 1_000;

/// Lists of members, by room, and profiles, as far as they have been read.
#[derive(Default)]
pub(super) struct People {
    pub(super) lists: HashMap<Enc, Members>,
    pub(super) profiles: HashMap<UserId, Profile>,
}

/// The members of a room.
pub(super) enum Members {
    /// Too many to be shown.
    TooMany,
    /// A list that this pod keeps. It is used only if the room names the same version.
    Kept(Arc<MemberList>),
    /// A list that the room has answered to this call.
    Read(Arc<MemberList>),
}

impl People {
    /// Whether the members are known in the version of `room` or a later one.
    fn knows(&self, room: &PageRoom) -> bool {
        match self.lists.get(&room.name) {
            None => false,
            Some(Members::Kept(list)) => list.mrev == room.mrev && list.born == room.born,
            Some(Members::Read(_) | Members::TooMany) => true,
        }
    }
}

impl Reader {
    /// A user's profile. A user whose profile can't be read is shown by the id alone, so that the rooms of that user stay visible
    /// to their other members.
    pub(super) fn profile(
        &self,
        app: &AppId,
        user: &Enc,
        answer: Result<Value>,
    ) -> Result<Option<(UserId, Profile)>> {
        let profile = answer.and_then(|answer| read_profile(user, answer));
        let profile = self
            .faults
            .at_key(profile, || UserKeys::new(app, user).profile());
        match readable(profile)? {
            Some(profile) => Ok(profile),
            None => Ok(user_id(user).map(|user| {
                let profile = Profile {
                    user: user.clone(),
                    nickname: None,
                    avatar_url: None,
                    is_robot: false,
                    last_login_time: 0,
                };
                (user, profile)
            })),
        }
    }

    /// Reads a room's list of members, and keeps it. A member whose membership can't be read is left out, so that the room stays
    /// visible; such a list is not kept.
    pub(super) fn read_members(&self, app: &AppId, room: &Enc, answer: Value) -> Result<Members> {
        let mut reply = Reply::new(answer)?;
        let (born, mrev) = (reply.number()?, reply.text()?);
        let (parted, length) = (names(&reply.text()?), reply.number()?);
        if length > SHOWN_MEMBERS as u64 {
            return Ok(Members::TooMany);
        }
        let mut members = Vec::new();
        let mut is_whole = true;
        while !reply.is_empty() {
            let (user, membership) = (reply.value()?, reply.value()?);
            let member = read_member(user, membership);
            match readable(
                self.faults
                    .at_key(member, || RoomKeys::new(app, room).members()),
            )? {
                Some(member) => members.push(member),
                None => is_whole = false,
            }
        }
        let list = Arc::new(MemberList {
            born,
            mrev,
            parted,
            members,
        });
        if born != 0 && is_whole {
            self.lists.remember(app, room, &list);
        }
        Ok(Members::Read(list))
    }

    /// Adds the members to the entries, in the order in which they joined, and reads the profiles that are missing.
    pub(super) async fn with_members(
        &self,
        app: &AppId,
        caller: &UserId,
        page: Vec<PageRoom>,
        people: &mut People,
    ) -> Result<Vec<RoomEntry>> {
        for room in &page {
            let name = (app.clone(), room.name.clone());
            if !people.lists.contains_key(&room.name)
                && let Some(list) = self.lists.get(&name)
            {
                people.lists.insert(name.1, Members::Kept(list));
            }
        }
        let missing: Vec<&Enc> = page
            .iter()
            .filter(|room| !people.knows(room))
            .map(|room| &room.name)
            .collect();
        let items: Vec<Item> = missing.iter().map(|room| members_item(app, room)).collect();
        let answers = self.redis.send_all(&items).await?;
        for (room, answer) in missing.into_iter().zip(answers) {
            let members = self.read_members(app, room, answer)?;
            people.lists.insert(room.clone(), members);
        }
        let mut entries = Vec::with_capacity(page.len());
        let mut missing: BTreeMap<UserId, Enc> = BTreeMap::new();
        for PageRoom {
            name, mut entry, ..
        } in page
        {
            entry.members = match people.lists.get(&name) {
                Some(Members::Kept(list) | Members::Read(list)) if is_shown(list) => {
                    let mut members: Vec<(u64, UserId)> = joined_members(list)
                        .filter_map(|(user, epoch)| Some((epoch, user_id(user)?)))
                        .collect();
                    members.sort();
                    members.into_iter().map(|(_, user)| user).collect()
                }
                _ => vec![caller.clone()],
            };
            let sender = entry.last_message.as_ref().and_then(|m| m.sender.as_ref());
            for user in entry.members.iter().chain(sender) {
                if !people.profiles.contains_key(user) && !missing.contains_key(user) {
                    missing.insert(user.clone(), encode(user.as_str()));
                }
            }
            entries.push(entry);
        }
        let items: Vec<Item> = missing
            .values()
            .map(|user| profile_item(app, user))
            .collect();
        let answers = self.redis.send_each(&items).await?;
        for (user, answer) in missing.values().zip(answers) {
            people.profiles.extend(self.profile(app, user, answer)?);
        }
        Ok(entries)
    }
}

fn is_shown(list: &MemberList) -> bool {
    list.members.len() <= SHOWN_MEMBERS
}

/// The users who have joined, with the epoch; nobody if the list is too long to be shown.
pub(super) fn joined_members(list: &MemberList) -> impl Iterator<Item = (&Enc, u64)> {
    let members = list.members.iter().filter(|_| is_shown(list));
    let joined = members.filter(|(_, membership)| membership.is_joined(list.born));
    joined.map(|(user, membership)| (user, membership.epoch))
}

/// Reads a user and the membership, as the room stores them.
fn read_member(user: Value, membership: Value) -> Result<(Enc, Membership)> {
    let user = text(user)?;
    if !is_encoded(&user) {
        return Err(unreadable());
    }
    let membership = Membership::parse(&text(membership)?)?;
    Ok((Enc::stored(user), membership))
}

fn user_id(user: &Enc) -> Option<UserId> {
    UserId::parse(decode(user.as_str())).ok()
}

pub(super) fn members_item(app: &AppId, room: &Enc) -> Item {
    let keys = RoomKeys::new(app, room);
    let call = scripts::ROOM_MEMBERS.call(&[keys.meta(), keys.members()]);
    Item::Script(call.arg(SHOWN_MEMBERS))
}

pub(super) fn profile_item(app: &AppId, user: &Enc) -> Item {
    let mut get = redis::cmd("HMGET");
    get.arg(UserKeys::new(app, user).profile())
        .arg("nickname")
        .arg("avatar_url")
        .arg("is_robot")
        .arg("last_login_time");
    Item::Plain(get)
}

fn read_profile(user: &Enc, answer: Value) -> Result<Option<(UserId, Profile)>> {
    let mut reply = Reply::new(answer)?;
    let Some(user) = user_id(user) else {
        return Ok(None);
    };
    let profile = Profile {
        user: user.clone(),
        nickname: maybe_text(reply.value()?)?,
        avatar_url: maybe_text(reply.value()?)?,
        is_robot: reply.number()? == 1,
        last_login_time: i64::try_from(reply.number()?).unwrap_or(0),
    };
    Ok(Some((user, profile)))
}
