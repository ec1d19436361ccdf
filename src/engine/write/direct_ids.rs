//! The id of the direct room that the first message between two users makes.

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::names::{DirectRoomIds, RoomId, UserId};

/// How many further ids the direct room of two users may have.
const FURTHER: u8 = 16;

impl DirectRoomIds {
    /// The number of the last id that the room may have; the first id has number 0.
    pub(super) fn last(self) -> u8 {
        match self {
            Self::Own => FURTHER,
            Self::LoweredMd5 => 0,
        }
    }

    /// The id with this number. It is the same for both users.
    pub(crate) fn of(self, one: &UserId, two: &UserId, number: u8) -> Result<RoomId> {
        let hex = match self {
            Self::Own => own(one, two, number),
            Self::LoweredMd5 => lowered_md5(one, two),
        };
        RoomId::parse(hex).map_err(|_| Error::Internal("a direct room without a name".into()))
    }
}

/// An id that no other two users get. If other users have taken the room (one of the two left it and a third joined), the next
/// number is tried.
fn own(one: &UserId, two: &UserId, number: u8) -> String {
    let (first, second) = if one <= two { (one, two) } else { (two, one) };
    let mut hash = Sha256::new();
    hash.update((first.as_str().len() as u64).to_be_bytes());
    hash.update(first.as_str());
    hash.update(second.as_str());
    if number > 0 {
        hash.update([0, number]);
    }
    let all = hash.finalize();
    all.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// Sorts the names by UTF-16 code units, as JavaScript and Dart do with strings.
fn lowered_md5(one: &UserId, two: &UserId) -> String {
    let mut names = [one, two].map(|user| user.as_str().to_lowercase());
    names.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
    let all = Md5::digest(names.join("_"));
    all.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(rule: DirectRoomIds, one: &str, two: &str, number: u8) -> String {
        let [one, two] = [one, two].map(|user| UserId::parse(user).unwrap());
        let id = rule.of(&one, &two, number).unwrap();
        assert_eq!(id, rule.of(&two, &one, number).unwrap());
        id.as_str().to_owned()
    }

    #[test]
    fn own_ids_are_of_two_users_and_no_others() {
        let own = |one, two, number| id(DirectRoomIds::Own, one, two, number);
        assert_eq!(own("alice", "bob", 0), "9335e9a184a30b90567296de41cfc83c");
        let all = [
            own("alice", "bob", 0),
            own("alice", "bob", 1),
            own("Alice", "bob", 0),
            own("aliceb", "ob", 0),
        ];
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn lowered_ids_are_those_of_the_clients() {
        let md5 = |one, two| id(DirectRoomIds::LoweredMd5, one, two, 0);
        // The direct room of the documented answer.
        assert_eq!(md5("aaa", "ccc"), "2bec603e94a210092439e83ff2d79ac1");
        assert_eq!(md5("CCC", "Aaa"), md5("aaa", "ccc"));
        assert_eq!(md5("a_b", "c"), md5("a", "b_c"));
        // U+FF5E comes before U+1F600 in UTF-8, after it in UTF-16.
        let expected = Md5::digest("\u{1F600}_\u{FF5E}");
        let expected: String = expected.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(md5("\u{FF5E}", "\u{1F600}"), expected);
    }
}
