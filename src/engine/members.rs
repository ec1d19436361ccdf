//! Lists of rooms' members, and the lists that this pod keeps. A kept list only saves time: it is used if the room's own slot
//! names the same version, and read anew otherwise.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::counts::room::Membership;
use crate::engine::reply::Reply;
use crate::error::Result;
use crate::keys::Enc;
use crate::names::AppId;

/// The longest list of members that is kept, and that is read at once. Longer lists are read in pages, with HSCAN.
pub(super) const LONGEST: usize = 5_000;

/// One version of a room's list of members.
pub(super) struct MemberList {
    pub(super) born: u64,
    pub(super) mrev: String,
    /// The last users who left a direct room, the latest first.
    pub(super) parted: Vec<Enc>,
    pub(super) members: Vec<(Enc, Membership)>,
}

impl MemberList {
    /// The peer of `user` in a direct room: the other member, or else the last one who left.
    pub(super) fn peer(&self, user: &Enc, born: u64) -> Option<&Enc> {
        let members = self
            .members
            .iter()
            .filter(|(_, membership)| membership.is_member(born));
        let mut users = members.map(|(user, _)| user).chain(&self.parted);
        users.find(|other| *other != user)
    }

    fn weight(&self) -> u64 {
        self.members.len() as u64 + 1
    }
}

/// Weighs a list by the number of its members.
#[derive(Clone)]
struct ByLength;

impl Weighter<(AppId, Enc), Arc<MemberList>> for ByLength {
    fn weight(&self, _: &(AppId, Enc), list: &Arc<MemberList>) -> u64 {
        list.weight()
    }
}

/// The most members in all kept lists together.
const CACHED_MEMBERS: u64 = 500_000;
/// The expected number of kept lists.
const CACHED_LISTS: usize = 10_000;

/// The lists that this pod keeps.
pub(super) struct MemberLists(Cache<(AppId, Enc), Arc<MemberList>, ByLength>);

impl MemberLists {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(CACHED_LISTS, CACHED_MEMBERS, ByLength))
    }

    pub(super) fn get(&self, room: &(AppId, Enc)) -> Option<Arc<MemberList>> {
        self.0.get(room)
    }

    /// Keeps a list, unless it holds a membership that has ended. Such a membership stays in the room until its end has been
    /// delivered, and its removal does not change the version of the list: a pod that kept it would deliver the end again and
    /// again.
    pub(super) fn remember(&self, app: &AppId, room: &Enc, list: &Arc<MemberList>) {
        if list
            .members
            .iter()
            .all(|(_, membership)| membership.state != 'l')
        {
            let name = (app.clone(), room.clone());
            self.0.insert(name, Arc::clone(list));
        }
    }
}

/// Reads users and memberships, in turn.
pub(super) fn parse_members(reply: Reply) -> Result<Vec<(Enc, Membership)>> {
    reply
        .pairs()?
        .into_iter()
        .map(|(user, membership)| Ok((Enc::stored(user), Membership::parse(&membership)?)))
        .collect()
}
