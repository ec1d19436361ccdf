//! What Sendbird's endpoint answers.

use std::collections::BTreeMap;

use super::{Kind, Model, Room};

/// The nine keys of Sendbird.
pub const ITEM_KEYS: [&str; 9] = [
    "non_super_group_channel_unread_message_count",
    "super_group_channel_unread_message_count",
    "group_channel_unread_message_count",
    "non_super_group_channel_invitation_count",
    "super_group_channel_invitation_count",
    "group_channel_invitation_count",
    "non_super_group_channel_unread_mention_count",
    "super_group_channel_unread_mention_count",
    "group_channel_unread_mention_count",
];

impl Model {
    /// Sendbird's nine; none: 400201.
    pub fn sendbird(
        &self,
        user: &str,
        types: Option<&[String]>,
    ) -> Option<BTreeMap<&'static str, u64>> {
        self.users.get(user)?;
        let asked = |room: &&Room| {
            types.is_none_or(|types| room.custom_type.as_ref().is_some_and(|t| types.contains(t)))
        };
        let sum = |count: &dyn Fn(&Room) -> u64, supergroup: bool| -> u64 {
            self.rooms
                .values()
                .filter(asked)
                .filter(|room| (room.kind == Kind::Supergroup) == supergroup)
                .map(count)
                .sum()
        };
        let three = |count: &dyn Fn(&Room) -> u64| {
            let (non_super, superg) = (sum(count, false), sum(count, true));
            [non_super, superg, non_super + superg]
        };
        let all = [
            three(&|room| room.messages_in_sums(user)),
            three(&|room| room.invited(user)),
            three(&|room| room.mentions_in_sums(user)),
        ];
        Some(
            ITEM_KEYS
                .into_iter()
                .zip(all.into_iter().flatten())
                .collect(),
        )
    }
}
