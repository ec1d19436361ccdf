//! What a supergroup answers of what users have unread in it.

use redis::Value;

use crate::connection::Item;
use crate::counts::number::{add, unreadable};
use crate::counts::record::{Reset, SupergroupRecord};
use crate::counts::room::Last;
use crate::counts::{CountPref, Kind, Totals};
use crate::engine::reply::{Reply, number};
use crate::error::Result;
use crate::keys::{Enc, RoomKeys, decode};
use crate::names::AppId;
use crate::scripts;

/// A user's record of a supergroup, with the positions of the user's marks.
#[derive(Debug)]
pub(crate) struct Supergroup {
    pub(crate) room: Enc,
    pub(crate) state: char,
    pub(crate) epoch: u64,
    pub(crate) read: String,
    pub(crate) holes: String,
    pub(crate) mentions: String,
    /// Mentions of everybody that are none for the user.
    pub(crate) unset: String,
    /// Edits of messages that have been delivered to the user, each as `position:stamp`.
    pub(crate) edits: String,
    pub(crate) reset: Option<Reset>,
    pub(crate) count: CountPref,
}

impl Supergroup {
    /// The record of a user who has just joined, for tests.
    #[cfg(test)]
    pub(crate) fn just_joined(room: &str) -> Self {
        Self {
            room: crate::keys::encode(room),
            state: 'j',
            epoch: 1,
            read: "0".to_owned(),
            holes: String::new(),
            mentions: String::new(),
            unset: String::new(),
            edits: String::new(),
            reset: None,
            count: CountPref::default(),
        }
    }

    /// The record, `|positions of holes|positions of mentions|positions of unset mentions|edits`.
    pub(super) fn parse(room: String, text: &str) -> Result<Self> {
        let (rest, edits) = text.rsplit_once('|').ok_or_else(unreadable)?;
        let (rest, unset) = rest.rsplit_once('|').ok_or_else(unreadable)?;
        let (rest, mentions) = rest.rsplit_once('|').ok_or_else(unreadable)?;
        let (record, holes) = rest.rsplit_once('|').ok_or_else(unreadable)?;
        let record = SupergroupRecord::read(record)?;
        Ok(Self {
            room: Enc::stored(room),
            state: record.state,
            epoch: record.epoch,
            read: record.read.to_string(),
            holes: holes.to_owned(),
            mentions: mentions.to_owned(),
            unset: unset.to_owned(),
            edits: edits.to_owned(),
            reset: record.reset,
            count: record.count,
        })
    }

    /// How many positions of marks it holds.
    pub(crate) fn positions(&self) -> usize {
        let lists = [&self.holes, &self.mentions, &self.unset, &self.edits];
        let many = |list: &String| match list.is_empty() {
            true => 0,
            false => list.matches(',').count() + 1,
        };
        lists.into_iter().map(many).sum()
    }

    /// The call that works out what is unread in the room for `user`.
    pub(crate) fn unread_item(&self, app: &AppId, user: &Enc) -> Item {
        unread_item(app, &self.room, [(user, self)])
    }
}

/// The call that works out what is unread in a room for each of these users, by their records of it.
pub(super) fn unread_item<'a>(
    app: &AppId,
    room: &Enc,
    users: impl IntoIterator<Item = (&'a Enc, &'a Supergroup)>,
) -> Item {
    let keys = RoomKeys::new(app, room);
    let mut call = scripts::ROOM_UNREAD.call(&[
        keys.meta(),
        keys.recalled(),
        keys.allmentions(),
        keys.pending(),
        keys.arrived(),
    ]);
    for (user, record) in users {
        call = call
            .arg(record.state.to_string())
            .arg(record.epoch)
            .arg(&record.read)
            .arg(&record.holes)
            .arg(&record.mentions)
            .arg(user.as_str());
        call = match record.reset {
            Some(reset) => call.arg(reset.stamp).arg(reset.unknown).arg(&record.unset),
            None => call.arg("").arg("").arg(""),
        };
        call = call.arg(&record.edits);
    }
    Item::Script(call)
}

/// What a supergroup says when it is asked.
pub(crate) enum SupergroupReply {
    Counts(SupergroupAnswer),
    /// There is no such room.
    Gone,
    /// So many jobs are pending that it answers for one user at a time only.
    Busy,
}

impl SupergroupReply {
    pub(crate) fn parse(reply: Value) -> Result<Self> {
        let mut users = Reply::new(reply)?;
        match users.len() {
            0 => return Ok(Self::Gone),
            1 if users.text()? == "MANY" => return Ok(Self::Busy),
            _ => {}
        }
        Ok(Self::Counts(SupergroupAnswer {
            kind: Kind::stored(&users.text()?)?,
            active: users.text()? == "1",
            custom_type: users.text()?,
            tags: users.text()?,
            created: i64::try_from(users.number()?).unwrap_or(0),
            last: Last::read(&mut users)?,
            head: users.number()?,
            users,
        }))
    }

    /// What it says of one user, for whom it always answers. `None`: there is no such room.
    pub(crate) fn of_one(reply: Value) -> Result<Option<SupergroupAnswer>> {
        match Self::parse(reply)? {
            Self::Counts(answer) => Ok(Some(answer)),
            Self::Gone => Ok(None),
            Self::Busy => Err(unreadable()),
        }
    }
}

/// What a supergroup answers: of itself, then of each user.
pub(crate) struct SupergroupAnswer {
    pub(crate) kind: Kind,
    pub(crate) active: bool,
    /// As it is stored; '' if there is none.
    pub(crate) custom_type: String,
    pub(crate) tags: String,
    pub(crate) created: i64,
    pub(crate) last: Option<Last>,
    pub(crate) head: u64,
    users: Reply,
}

/// What one user has in a supergroup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SupergroupCount {
    pub(crate) unread: u64,
    pub(crate) mentions: u64,
    pub(crate) read: i64,
}

impl SupergroupAnswer {
    /// What the next user has. `None`: the room is gone for that user.
    pub(crate) fn user(&mut self) -> Result<Option<SupergroupCount>> {
        let (unread, mentions) = (self.users.value()?, self.users.value()?);
        if matches!(&unread, Value::BulkString(text) if text.is_empty()) {
            self.users.value()?;
            return Ok(None);
        }
        Ok(Some(SupergroupCount {
            unread: number(&unread)?,
            mentions: number(&mentions)?,
            read: self.users.position()?,
        }))
    }

    /// What the room adds to the totals of a user with this record.
    pub(super) fn contribution(
        &self,
        record: &Supergroup,
        counted: SupergroupCount,
    ) -> Contribution {
        let contribution = match self.active {
            true => Contribution::new(record.state, record.count, counted.unread, counted.mentions),
            false => Contribution::default(),
        };
        contribution.by(counted.read)
    }

    pub(super) fn custom_type(&self) -> Option<String> {
        Some(decode(&self.custom_type)).filter(|name| !name.is_empty())
    }
}

/// What a supergroup adds to its user's totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Contribution {
    messages: u64,
    mentions: u64,
    invitations: u64,
    /// The read position by which it was worked out, if there is one.
    read: Option<i64>,
}

impl Contribution {
    /// Of a room that is active.
    pub(crate) fn new(state: char, count: CountPref, unread: u64, mentions: u64) -> Self {
        let counted = |counts: bool, number: u64| if counts { number } else { 0 };
        Self {
            messages: counted(count.counts_messages(), unread),
            mentions: counted(count.counts_mentions(), mentions),
            invitations: u64::from(state == 'i'),
            read: None,
        }
    }

    /// Worked out by this read position.
    pub(crate) fn by(self, read: i64) -> Self {
        let read = Some(read);
        Self { read, ..self }
    }

    /// Whether it was worked out by a lower read position than the one before it, by the same record. The room knew then of a
    /// read that had not come to the user's slot yet, and now it has come there: the record is out of date.
    pub(crate) fn goes_back(self, before: Self) -> bool {
        self.read
            .zip(before.read)
            .is_some_and(|(read, before)| read < before)
    }

    pub(crate) fn add_to(self, totals: &mut Totals) -> Result<()> {
        add(&mut totals.messages.supergroup, self.messages)?;
        add(&mut totals.mentions.supergroup, self.mentions)?;
        totals.unread_rooms.supergroup += u64::from(self.messages > 0);
        totals.invitations.supergroup += self.invitations;
        Ok(())
    }
}
