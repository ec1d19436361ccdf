//! A walk through the members of a room, however many there are.

use std::ops::ControlFlow;

use redis::Value;

use super::Reader;
use crate::connection::Item;
use crate::counts::room::Membership;
use crate::engine::members::{LONGEST, parse_members};
use crate::engine::reply::Reply;
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys};
use crate::scripts;

/// The call with whose answer a walk begins.
pub(super) fn first_step(keys: &RoomKeys) -> Item {
    let call = scripts::ROOM_MEMBERS.call(&[keys.meta(), keys.members()]);
    Item::Script(call.arg(LONGEST))
}

impl Reader {
    /// Hands the members of a room to `take`, invited ones included, until it has enough. A list that is too long for the answer
    /// to [`first_step`] is read in pages, which may hold a member twice. False: there is no such room.
    pub(super) async fn walk(
        &self,
        keys: &RoomKeys,
        first: Value,
        mut take: impl FnMut(Enc, Membership) -> ControlFlow<()>,
    ) -> Result<bool> {
        let mut reply = Reply::new(first)?;
        let born = self.faults.at_key(reply.number(), || keys.meta())?;
        let (_mrev, _parted) = (reply.text()?, reply.text()?);
        let is_long = reply.number()? > LONGEST as u64;
        if born == 0 {
            return Ok(false);
        }
        let mut take_all = |page: Reply| -> Result<ControlFlow<()>> {
            let page = self.faults.at_key(parse_members(page), || keys.members())?;
            let page = page.into_iter();
            let mut members = page.filter(|(_, membership)| membership.is_member(born));
            Ok(members.try_for_each(|(user, membership)| take(user, membership)))
        };
        if !is_long {
            // How the walk ends makes no difference where it has one step.
            let _ = take_all(reply)?;
            return Ok(true);
        }
        let members = keys.members();
        let serving = self.redis.serving(&members).await?;
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&members).arg(&cursor).arg("COUNT").arg(1_000);
            let mut page = Reply::new(self.redis.query(&scan).await?)?;
            cursor = page.text()?;
            if take_all(page.list()?)?.is_break() {
                return Ok(true);
            }
            if cursor == "0" {
                break;
            }
        }
        // A cursor means nothing to another server, such as a replica that took over. Members may have been left out then.
        match self.redis.serving(&members).await? == serving {
            true => Ok(true),
            false => Err(Error::Unavailable(
                "the room moved to another server".into(),
            )),
        }
    }
}
