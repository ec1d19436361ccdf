//! What a body asks for, and the lists of the answer.

use super::answer::{AnswerBody, Count, Failed};
use super::fault::{Fault, JSON, PEERS, TO_ACCOUNT, TYPE};
use crate::counts::PeerCount;
use crate::json::{self, Raw, Surrogates};
use crate::names::UserId;

/// The most peers in one call (T1).
pub(super) const MAX_PEERS: usize = 10;
/// The code of a peer that does not exist (T1).
const NO_ACCOUNT: u32 = 70107;

/// What a body asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The user whose counts are asked for.
    pub user: UserId,
    /// The peers, each once, in the order of the body. None at all: the total is asked for.
    pub peers: Vec<Peer>,
}

/// A peer that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// The user itself, with whom it has no conversation.
    Oneself,
    Other(UserId),
    /// A text that can't be an id: there is no such user.
    Nobody(String),
}

impl Question {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Fault> {
        let body = json::parse(body).map_err(|_| JSON)?;
        let [user, peers] = body.pick(["To_Account", "Peer_Account"]).ok_or(JSON)?;
        let text = |raw: Raw<'_>| match raw.text(Surrogates::Refuse) {
            Some(Ok(text)) => Ok(text.into_owned()),
            Some(Err(_)) => Err(JSON),
            None => Err(TYPE),
        };
        let user = text(user.ok_or(TO_ACCOUNT)?)?;
        let user = UserId::parse(user).map_err(|_| TO_ACCOUNT)?;
        let mut items = match peers {
            None => None,
            Some(peers) => Some(peers.items().ok_or(TYPE)?),
        };
        // The reading of a list that is too long ends as soon as that is known.
        if let Some(items) = &items
            && items.clone().take(MAX_PEERS + 1).count() > MAX_PEERS
        {
            return Err(PEERS);
        }
        let mut peers = Vec::new();
        for peer in items.iter_mut().flatten() {
            let peer = text(peer)?;
            let peer = match UserId::parse(peer.as_str()) {
                Ok(id) if id == user => Peer::Oneself,
                Ok(id) => Peer::Other(id),
                Err(_) => Peer::Nobody(peer),
            };
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        Ok(Self { user, peers })
    }

    /// The peers whose counts the reader has to read.
    pub(super) fn others(&self) -> Vec<&UserId> {
        fn other(peer: &Peer) -> Option<&UserId> {
            match peer {
                Peer::Other(id) => Some(id),
                _ => None,
            }
        }
        self.peers.iter().filter_map(other).collect()
    }

    /// Puts every peer into a list of the answer. `counts` are those of [`Question::others`], in the same order.
    pub(super) fn fill<'a>(&'a self, answer: &mut AnswerBody<'a>, counts: &[PeerCount]) {
        let mut counts = counts.iter();
        let mut counted = Vec::with_capacity(self.peers.len());
        for peer in &self.peers {
            let (peer, count) = match peer {
                Peer::Oneself => (self.user.as_str(), Some(0)),
                Peer::Nobody(text) => (text.as_str(), None),
                Peer::Other(id) => match counts.next() {
                    Some(PeerCount::Known(unread)) => (id.as_str(), Some(*unread)),
                    _ => (id.as_str(), None),
                },
            };
            match count {
                Some(unread) => counted.push(Count { peer, unread }),
                None => answer.failed.push(Failed {
                    peer,
                    code: NO_ACCOUNT,
                }),
            }
        }
        answer.counts = Some(counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parse(body: &str) -> Result<Question, Fault> {
        Question::parse(body.as_bytes())
    }

    fn show(answer: &AnswerBody<'_>) -> Value {
        serde_json::to_value(answer).unwrap()
    }

    #[test]
    fn bodies_are_told_apart_by_code() {
        for (body, fault) in [
            ("", JSON),
            ("  ", JSON),
            ("nope", JSON),
            ("[]", JSON),
            (r#"["dramon1"]"#, JSON),
            (r#"{"To_Account":"a""#, JSON),
            ("{}", TO_ACCOUNT),
            (r#"{"To_Account":null}"#, TO_ACCOUNT),
            (r#"{"To_Account":""}"#, TO_ACCOUNT),
            (r#"{"to_account":"a"}"#, TO_ACCOUNT),
            (r#"{"To_Account":7}"#, TYPE),
            (r#"{"To_Account":"a","Peer_Account":"b"}"#, TYPE),
            (r#"{"To_Account":"a","Peer_Account":["b",1]}"#, TYPE),
            (
                r#"{"To_Account":"a","Peer_Account":["1","2","3","4","5","6","7","8","9","10","11"]}"#,
                PEERS,
            ),
        ] {
            assert_eq!(parse(body), Err(fault), "{body}");
        }
        for body in [
            r#"{"To_Account":"a"}"#,
            r#"{"To_Account":"a","Peer_Account":null}"#,
            r#" {"To_Account":"a","Peer_Account":[],"more":[1]}"#,
        ] {
            assert!(parse(body).unwrap().peers.is_empty(), "{body}");
        }
    }

    #[test]
    fn peers_are_answered_once_in_order() {
        let question =
            parse(r#"{"To_Account":"a","Peer_Account":["b","","b","a","ghost","c"]}"#).unwrap();
        let others: Vec<_> = question
            .others()
            .iter()
            .map(|u| u.as_str().to_owned())
            .collect();
        assert_eq!(others, ["b", "ghost", "c"]);
        let mut answer = AnswerBody::OK;
        let counts = [PeerCount::Known(3), PeerCount::Unknown, PeerCount::Known(0)];
        question.fill(&mut answer, &counts);
        assert_eq!(
            show(&answer),
            serde_json::json!({
                "ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0,
                "C2CUnreadMsgNumList": [
                    {"Peer_Account": "b", "C2CUnreadMsgNum": 3},
                    {"Peer_Account": "a", "C2CUnreadMsgNum": 0},
                    {"Peer_Account": "c", "C2CUnreadMsgNum": 0}],
                "ErrorList": [
                    {"Peer_Account": "", "ErrorCode": 70107},
                    {"Peer_Account": "ghost", "ErrorCode": 70107}]
            })
        );
    }
}
