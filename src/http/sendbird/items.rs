//! What a call asks for (the counts in `item_keys`, over the rooms of `custom_types`), and the body of its answer.

use super::fault::{Fault, KEY, TYPES};
use crate::counts::{ByKind, Totals};
use crate::http::request::Query;
use crate::names::CustomType;

/// The most custom types in one call.
pub(super) const MAX_TYPES: usize = 1_000;

/// A count that `item_keys` can name.
#[derive(Clone, Copy)]
pub(super) struct ItemKey {
    /// Its name.
    pub name: &'static str,
    value: fn(&Totals) -> u64,
}

const fn key(name: &'static str, value: fn(&Totals) -> u64) -> ItemKey {
    ItemKey { name, value }
}

/// All counts, in the order of the answer to a call that names none.
pub(super) static KEYS: [ItemKey; 9] = [
    key("non_super_group_channel_unread_message_count", |t| {
        ordinary(t.messages)
    }),
    key("super_group_channel_unread_message_count", |t| {
        t.messages.supergroup
    }),
    key("group_channel_unread_message_count", |t| every(t.messages)),
    key("non_super_group_channel_invitation_count", |t| {
        ordinary(t.invitations)
    }),
    key("super_group_channel_invitation_count", |t| {
        t.invitations.supergroup
    }),
    key("group_channel_invitation_count", |t| every(t.invitations)),
    key("non_super_group_channel_unread_mention_count", |t| {
        ordinary(t.mentions)
    }),
    key("super_group_channel_unread_mention_count", |t| {
        t.mentions.supergroup
    }),
    key("group_channel_unread_mention_count", |t| every(t.mentions)),
];

/// Direct rooms are group channels, as in every SDK of the vendor (S4).
fn ordinary(count: ByKind) -> u64 {
    count.direct.saturating_add(count.group)
}

/// Non-super plus super. The documented sample does not add up.
fn every(count: ByKind) -> u64 {
    ordinary(count).saturating_add(count.supergroup)
}

/// What a query asks for.
pub(super) struct ItemQuery {
    /// The counts, each once, in the order in which the query names them.
    pub keys: Vec<ItemKey>,
    /// The custom types of the rooms to count, but for those that no room can have. None: all rooms.
    pub types: Option<Vec<CustomType>>,
}

impl ItemQuery {
    /// Reads a query. The SDKs write a list with commas (encoded or not), by repeating the parameter, or both (S4). To decode
    /// first and to split then is the only rule that serves all of them.
    pub(super) fn parse(query: Query<'_>) -> Result<Self, Fault> {
        let mut keys: Vec<ItemKey> = Vec::new();
        let mut types: Option<Vec<CustomType>> = None;
        let mut seen = std::collections::HashSet::new();
        for (name, value) in query {
            match &*name {
                "item_keys" | "item_keys[]" => {
                    for item in value.split(',').map(str::trim).filter(|s| !s.is_empty()) {
                        let key = KEYS.iter().find(|key| key.name == item).ok_or(KEY)?;
                        if !keys.iter().any(|known| known.name == key.name) {
                            keys.push(*key);
                        }
                    }
                }
                "custom_types" | "custom_types[]" | "custom_type" => {
                    // A custom type is not trimmed: blanks may be part of it.
                    for item in value.split(',').filter(|s| !s.is_empty()) {
                        if !seen.insert(item.to_owned()) {
                            continue;
                        }
                        if seen.len() > MAX_TYPES {
                            return Err(TYPES);
                        }
                        // A type that no room can have is left out, but asked for all the same.
                        let types = types.get_or_insert_default();
                        types.extend(CustomType::parse(item));
                    }
                }
                _ => {}
            }
        }
        if keys.is_empty() {
            keys.extend(KEYS);
        }
        Ok(Self { keys, types })
    }
}

/// The body of an answer.
pub(super) fn render(keys: &[ItemKey], totals: &Totals) -> Vec<u8> {
    let mut body = Vec::with_capacity(keys.len() * 56 + 2);
    let mut digits = itoa::Buffer::new();
    let mut before = "{\"";
    for key in keys {
        let number = digits.format((key.value)(totals));
        for part in [before, key.name, "\":", number] {
            body.extend_from_slice(part.as_bytes());
        }
        before = ",\"";
    }
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<ItemQuery, Fault> {
        ItemQuery::parse(Query::new(query))
    }

    fn names(query: &str) -> Vec<&'static str> {
        asked(query).unwrap().keys.iter().map(|k| k.name).collect()
    }

    fn types(query: &str) -> Vec<String> {
        let types = asked(query).unwrap().types.unwrap_or_default();
        types.iter().map(|t| t.as_str().to_owned()).collect()
    }

    const A: &str = "group_channel_unread_message_count";
    const B: &str = "super_group_channel_invitation_count";

    #[test]
    fn lists_come_in_every_form_that_an_sdk_sends() {
        for query in [
            format!("item_keys={A}%2C{B}"),
            format!("item_keys={A},{B}"),
            format!("item_keys={A}&item_keys={B}"),
            format!("item_keys={A},,%20{B}+,{A}"),
        ] {
            assert_eq!(names(&query), [A, B], "{query}");
        }
        assert_eq!(names("").len(), 9);
        assert_eq!(names("item_keys=&item_keys=,").len(), 9);
        assert_eq!(asked("item_keys=nope").err(), Some(KEY));
        assert_eq!(
            asked(&format!("item_keys={}", A.to_uppercase())).err(),
            Some(KEY)
        );
    }

    #[test]
    fn custom_types_go_by_three_names() {
        assert_eq!(
            types("custom_types=a%2Cb&custom_type=c,a&custom_types[]=d+e&custom_types%5B%5D=f"),
            ["a", "b", "c", "d e", "f"]
        );
        assert!(types("custom_types=").is_empty());
        assert_eq!(asked("custom_types=").unwrap().types, None);
        // Types that no room can have: some are asked for, and none is left.
        let long = format!("custom_type={}", "x".repeat(256));
        for none in [&long, "custom_type=a%0A"] {
            assert_eq!(asked(none).unwrap().types, Some(Vec::new()), "{none}");
        }
        assert_eq!(types(&format!("{long},a")), ["a"]);
        let most: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let most = format!("custom_types={}", most.join(","));
        assert_eq!(types(&format!("{most},7")).len(), 1_000);
        assert_eq!(asked(&format!("{most},x")).err(), Some(TYPES));
    }

    #[test]
    fn answers_hold_the_asked_keys_in_order_and_add_up() {
        let count = |n| ByKind {
            direct: n,
            group: n + 1,
            supergroup: n + 2,
        };
        let totals = Totals {
            messages: count(10),
            mentions: count(20),
            invitations: count(30),
            ..Totals::default()
        };
        let asked = asked(&format!("item_keys={B},{A}")).unwrap();
        assert_eq!(
            String::from_utf8(render(&asked.keys, &totals)).unwrap(),
            format!("{{\"{B}\":32,\"{A}\":33}}")
        );
        let all: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&render(&KEYS, &totals)).unwrap();
        assert_eq!(all["non_super_group_channel_unread_mention_count"], 41);
        assert_eq!(all["group_channel_unread_mention_count"], 63);
        assert_eq!(all.len(), 9);
    }
}
