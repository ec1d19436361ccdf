//! What Tencent's endpoint answers.

use super::{Kind, Model};

/// What Tencent says of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Count(u64),
    Unknown,
}

impl Model {
    /// Tencent `AllC2CUnreadMsgNum`; none: 90003.
    pub fn tencent_total(&self, user: &str) -> Option<u64> {
        self.users.get(user)?;
        Some(
            self.rooms
                .values()
                .filter(|room| room.kind == Kind::Direct)
                .map(|room| room.messages_in_sums(user))
                .sum(),
        )
    }

    /// Tencent per peer, distinct and in the order asked; none: 90003.
    pub fn tencent_peers(&self, user: &str, peers: &[String]) -> Option<Vec<(String, Peer)>> {
        self.users.get(user)?;
        let mut answer: Vec<(String, Peer)> = Vec::new();
        for peer in peers {
            if answer.iter().any(|(known, _)| known == peer) {
                continue;
            }
            let theirs = || self.rooms_with(user, peer);
            let count = theirs().map(|(_, room)| room.messages_in_sums(user)).sum();
            let known = peer == user || self.users.contains_key(peer) || theirs().next().is_some();
            answer.push((
                peer.clone(),
                if known {
                    Peer::Count(count)
                } else {
                    Peer::Unknown
                },
            ));
        }
        Some(answer)
    }
}
