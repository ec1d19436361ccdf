//! What is unread: "Counts" of the definition, word for word.

use super::{Member, Membership, Message, Room};

impl Membership {
    /// Whether a message counts for that member while the read position is before it.
    fn counts(&self, user: &str, message: &Message) -> bool {
        message.sender.as_deref() != Some(user)
            && !message.recalled
            && !message.except.contains(user)
            && !self.read_on_arrival.contains(&message.id)
    }

    /// Positions at or below 0 stand for messages from before the room was known here, by somebody else each; so do those that
    /// were older than the history when the last `counts.set` was told.
    fn is_unknown(&self, position: i64) -> bool {
        position <= self.unknown.max(0)
    }

    /// Whether this position counts for that member while the read position is before it.
    pub(super) fn counts_at(&self, user: &str, position: i64, counted: &[&Message]) -> bool {
        self.is_unknown(position) || at(counted, position).is_some_and(|m| self.counts(user, m))
    }

    /// Whether what is at this position mentions the member: as a `counts.set` said, else as the message says.
    pub(super) fn mentions_at(&self, user: &str, position: i64, counted: &[&Message]) -> bool {
        let set = self.set_mentions.get(&position).copied();
        let says = || at(counted, position).is_some_and(|m| m.mentions.name(user));
        set.unwrap_or_else(|| !self.is_unknown(position) && says())
    }

    /// The positions that are unread, in order.
    pub(super) fn unread_positions(&self, user: &str, counted: &[&Message]) -> Vec<i64> {
        (self.read + 1..=head_of(counted))
            .filter(|position| self.counts_at(user, *position, counted))
            .collect()
    }

    /// Moves the read position. What a `counts.set` said of the positions that are passed is forgotten.
    pub(super) fn move_to(&mut self, position: i64) {
        self.read = position;
        self.set_mentions.retain(|at, _| *at > position);
    }

    /// What the room adds to sums.
    fn count_preference(&self) -> &str {
        let count = self.pref.get("count").and_then(|count| count.as_str());
        count.unwrap_or("all")
    }
}

/// The message with that position, if the room has it.
pub(super) fn at<'a>(counted: &[&'a Message], position: i64) -> Option<&'a Message> {
    let index = usize::try_from(position - 1).ok()?;
    counted.get(index).copied()
}

pub(super) fn head_of(counted: &[&Message]) -> i64 {
    counted.len() as i64
}

impl Room {
    /// The messages that have positions: 1, 2, 3, ….
    pub(super) fn counted(&self) -> Vec<&Message> {
        let counted = self.messages.iter().filter(|m| m.position.is_some());
        counted.collect()
    }

    /// The last number given.
    pub fn head(&self) -> i64 {
        head_of(&self.counted())
    }

    fn unread_positions(&self, user: &str) -> Vec<i64> {
        match self.membership(user) {
            Some(membership) if self.active => membership.unread_positions(user, &self.counted()),
            _ => Vec::new(),
        }
    }

    /// unread(u, r)
    pub fn unread(&self, user: &str) -> u64 {
        self.unread_positions(user).len() as u64
    }

    /// mentions(u, r)
    pub fn mentions(&self, user: &str) -> u64 {
        let Some(membership) = self.membership(user) else {
            return 0;
        };
        let counted = self.counted();
        let mut unread = self.unread_positions(user);
        unread.retain(|position| membership.mentions_at(user, *position, &counted));
        unread.len() as u64
    }

    /// invited(u, r)
    pub fn invited(&self, user: &str) -> u64 {
        u64::from(self.active && matches!(self.members.get(user), Some(Member::Invited)))
    }

    /// How far the user has read; none: the user has not joined.
    pub fn read_position(&self, user: &str) -> Option<i64> {
        self.membership(user).map(|membership| membership.read)
    }

    /// What the room adds to the user's sums of messages: only where the preference counts them.
    pub fn messages_in_sums(&self, user: &str) -> u64 {
        match self
            .membership(user)
            .map_or("none", Membership::count_preference)
        {
            "all" | "messages" => self.unread(user),
            _ => 0,
        }
    }

    /// The same for mentions.
    pub fn mentions_in_sums(&self, user: &str) -> u64 {
        match self
            .membership(user)
            .map_or("none", Membership::count_preference)
        {
            "all" | "mentions" => self.mentions(user),
            _ => 0,
        }
    }

    /// Where among all messages the history begins.
    pub(super) fn known(&self, history: Option<usize>) -> usize {
        history.map_or(0, |most| self.messages.len().saturating_sub(most))
    }

    /// The lowest position that the history has; none of them: the next to be given.
    pub(super) fn first_known(&self, history: Option<usize>) -> i64 {
        let before = self.messages[..self.known(history)].iter();
        before.filter(|m| m.position.is_some()).count() as i64 + 1
    }
}
