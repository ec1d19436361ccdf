//! `POST /badges/byRoomTags`: the unread messages of the caller by room tag.

use std::collections::HashSet;

use actix_web::HttpResponse;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::fault::{BODY, Fault, MANY_TAGS, TAGS};
use super::success;
use super::tenants::Tenant;
use crate::http::request::Call;
use crate::http::state::State;
use crate::json::{self, Surrogates};
use crate::limiter::Entry;
use crate::names::{Tag, UserId};

/// The most tags in one call.
pub(super) const MAX_TAGS: usize = 1_000;

/// Answers a call that is let in.
pub(super) async fn badges(
    call: &mut Call<'_>,
    tenant: &Tenant,
    user: &UserId,
    entry: &mut Entry<'_>,
) -> Result<HttpResponse, Fault> {
    let State {
        config,
        bodies,
        reader,
        ..
    } = call.state;
    let body = call
        .body(tenant.index, config.server.max_body_bytes)
        .await?;
    let (wanted, _memory) = bodies.work(body, parse).await;
    let Wanted { tags, impossible } = wanted?;
    let asks_for_all = tags.is_empty() && impossible.is_empty();
    let tags = (!asks_for_all).then_some(tags);
    let counted = reader.tags(&tenant.id, user, tags, entry).await?;
    success(&Badges {
        counted,
        impossible,
    })
}

/// The tags that a body asks for, each once, in its order. None at all: all tags.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// Those that a room can have.
    pub tags: Vec<Tag>,
    /// Those that no room can have, each with the number of `tags` before it. Their counts are 0.
    pub impossible: Vec<(usize, String)>,
}

/// The `result` of an answer, in the order of the body.
struct Badges {
    counted: Vec<(Tag, u64)>,
    /// As in [`Wanted`].
    impossible: Vec<(usize, String)>,
}

impl Serialize for Badges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Data<'a>(&'a Badges);
        impl Serialize for Data<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let Badges {
                    counted,
                    impossible,
                } = self.0;
                // A map of the standard library would lose the order.
                let mut map = serializer.serialize_map(Some(counted.len() + impossible.len()))?;
                let mut impossible = impossible.iter().peekable();
                for (at, (tag, unread)) in counted.iter().enumerate() {
                    while let Some((_, tag)) = impossible.next_if(|(before, _)| *before <= at) {
                        map.serialize_entry(tag, &0)?;
                    }
                    map.serialize_entry(tag.as_str(), unread)?;
                }
                for (_, tag) in impossible {
                    map.serialize_entry(tag, &0)?;
                }
                map.end()
            }
        }
        let total = self.counted.iter().map(|(_, unread)| unread);
        let total = total.fold(0u64, |sum, unread| sum.saturating_add(*unread));
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("totalBadge", &total)?;
        map.serialize_entry("data", &Data(self))?;
        map.end()
    }
}

/// Reads a body.
pub(super) fn parse(body: &[u8]) -> Result<Wanted, Fault> {
    if body.trim_ascii().is_empty() {
        return Ok(Wanted::default());
    }
    let body = json::parse(body).map_err(|_| BODY)?;
    let [tags] = body.pick(["tags"]).ok_or(BODY)?;
    let Some(tags) = tags else {
        return Ok(Wanted::default());
    };
    let tags = tags.items().ok_or(TAGS)?;
    // The reading of a list that is too long ends as soon as that is known.
    if tags.clone().take(MAX_TAGS + 1).count() > MAX_TAGS {
        return Err(MANY_TAGS);
    }
    let (mut seen, mut wanted) = (HashSet::new(), Wanted::default());
    for tag in tags {
        let tag = tag.text(Surrogates::Refuse).ok_or(TAGS)?;
        let tag = tag.map_err(|_| BODY)?;
        if !seen.insert(tag.clone()) {
            continue;
        }
        match Tag::parse(&*tag) {
            Ok(tag) => wanted.tags.push(tag),
            Err(_) => {
                let before = wanted.tags.len();
                wanted.impossible.push((before, tag.into_owned()));
            }
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(body: &str) -> Result<Vec<String>, Fault> {
        let wanted = parse(body.as_bytes())?;
        assert!(wanted.impossible.is_empty());
        Ok(wanted.tags.iter().map(|tag| tag.to_string()).collect())
    }

    #[test]
    fn tags_absent_null_or_empty_are_all() {
        for body in [
            "",
            "  \n",
            "{}",
            r#"{"tags":null}"#,
            r#"{"tags":[]}"#,
            r#"{"more":{}}"#,
        ] {
            assert_eq!(parsed(body), Ok(Vec::new()), "{body}");
        }
        assert_eq!(
            parsed(r#"{"tags":["b","a","b"],"x":1}"#),
            Ok(vec!["b".into(), "a".into()])
        );
    }

    #[test]
    fn bad_bodies_and_bad_tags_are_told_apart() {
        for body in [
            "nope",
            "[]",
            r#"[["a"]]"#,
            "null",
            r#"{"tags":["a"]"#,
            "{} {}",
        ] {
            assert_eq!(parsed(body), Err(BODY), "{body}");
        }
        for tags in [
            "\"a\"",
            "{}",
            "1",
            "true",
            "[1]",
            "[null]",
            "[[\"a\"]]",
            "[\"a\",{}]",
        ] {
            assert_eq!(parsed(&format!("{{\"tags\":{tags}}}")), Err(TAGS), "{tags}");
        }
        let many: Vec<_> = (0..=MAX_TAGS).map(|n| n.to_string()).collect();
        let body = json!({"tags": many}).to_string();
        assert_eq!(parsed(&body), Err(MANY_TAGS));
    }

    #[test]
    fn data_keeps_its_order_and_adds_up() {
        let tag = |name| Tag::parse(name).unwrap();
        let counted = vec![(tag("z"), 2), (tag("a\""), 0), (tag("m"), 8)];
        let mut badges = Badges {
            counted,
            impossible: Vec::new(),
        };
        assert_eq!(
            serde_json::to_string(&badges).unwrap(),
            r#"{"totalBadge":10,"data":{"z":2,"a\"":0,"m":8}}"#
        );
        let long = "x".repeat(256);
        let body = json!({"tags": ["", "z", "\n", &long, "a\"", "", "m", "\t"]}).to_string();
        let wanted = parse(body.as_bytes()).unwrap();
        assert!(
            wanted
                .tags
                .iter()
                .eq(badges.counted.iter().map(|(tag, _)| tag))
        );
        badges.impossible = wanted.impossible;
        let shown = format!(
            r#"{{"totalBadge":10,"data":{{"":0,"z":2,"\n":0,"{long}":0,"a\"":0,"m":8,"\t":0}}}}"#
        );
        assert_eq!(serde_json::to_string(&badges).unwrap(), shown);
        let none = parse(br#"{"tags":[""]}"#).unwrap();
        assert_eq!((none.tags.len(), none.impossible.len()), (0, 1));
    }
}
