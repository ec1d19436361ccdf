//! Lists of a room's members, and those that this pod keeps. A kept list speeds up and never decides: it is used only if the
//! room says that it is current.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::counts::room::Membership;
use crate::engine::reply::Reply;
use crate::error::Result;
use crate::keys::Enc;
use crate::names::AppId;

/// The longest list of members that is kept and read at once; longer ones are walked by HSCAN.
pub(crate) const LIST: usize = 5_000;

/// A list of members of one version.
pub(crate) struct MemberList {
    pub(crate) born: u64,
    pub(crate) mrev: String,
    /// Who has left a direct room last, the latest first.
    pub(crate) parted: Vec<Enc>,
    pub(crate) entries: Vec<(Enc, Membership)>,
}

impl MemberList {
    /// The other one of a direct room: who is in it beside `user`, else who was last.
    pub(crate) fn peer(&self, user: &Enc, born: u64) -> Option<&Enc> {
        let members = self.entries.iter().filter(|(_, e)| e.is_member(born));
        let mut all = members.map(|(user, _)| user).chain(&self.parted);
        all.find(|other| *other != user)
    }

    fn weight(&self) -> u64 {
        self.entries.len() as u64 + 1
    }
}

/// Member lists are weighed by their members.
#[derive(Clone)]
struct Length;

impl Weighter<(AppId, Enc), Arc<MemberList>> for Length {
    fn weight(&self, _: &(AppId, Enc), list: &Arc<MemberList>) -> u64 {
        list.weight()
    }
}

/// Members kept over all lists.
const CACHED_MEMBERS: u64 = 500_000;
/// Lists that are expected to be kept.
const CACHED_LISTS: usize = 10_000;

/// The lists that this pod keeps.
pub(crate) struct MemberLists(Cache<(AppId, Enc), Arc<MemberList>, Length>);

impl MemberLists {
    pub(crate) fn new() -> Self {
        Self(Cache::with_weighter(CACHED_LISTS, CACHED_MEMBERS, Length))
    }

    pub(crate) fn get(&self, room: &(AppId, Enc)) -> Option<Arc<MemberList>> {
        self.0.get(room)
    }

    /// Keeps a list of members, unless somebody in it is leaving. The fan-out of a leaving has to find that entry; and when
    /// the entry goes the list does not become another, so that a pod would tell of the leaving for as long as it keeps the list.
    pub(crate) fn remember(&self, app: &AppId, room: &Enc, list: &Arc<MemberList>) {
        if list.entries.iter().all(|(_, entry)| entry.state != 'l') {
            let name = (app.clone(), room.clone());
            self.0.insert(name, Arc::clone(list));
        }
    }
}

/// The members in a reply, each with its entry.
pub(crate) fn parse_members(reply: Reply) -> Result<Vec<(Enc, Membership)>> {
    reply
        .pairs()?
        .into_iter()
        .map(|(user, entry)| Ok((Enc::stored(user), Membership::parse(&entry)?)))
        .collect()
}
