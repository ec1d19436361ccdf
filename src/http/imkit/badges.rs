//! `POST /badges/byRoomTags`: unread messages by room tag.

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

/// Tags in one call.
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
    let (tags, _room) = bodies.work(body, tags).await;
    let AskedTags { tags, never } = tags?;
    let asked = (!tags.is_empty() || !never.is_empty()).then_some(tags);
    let counted = reader.tags(&tenant.id, user, asked, entry).await?;
    success(&Badges { counted, never })
}

/// The tags that a body asks for, each once; none: all.
#[derive(Debug, Default, PartialEq)]
pub(super) struct AskedTags {
    /// In the order asked.
    pub tags: Vec<Tag>,
    /// What no tag can be, and how many of `tags` come before it.
    pub never: Vec<(usize, String)>,
}

/// The `result` of an answer, in the order asked for.
struct Badges {
    counted: Vec<(Tag, u64)>,
    never: Vec<(usize, String)>,
}

impl Serialize for Badges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Data<'a>(&'a Badges);
        impl Serialize for Data<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let Badges { counted, never } = self.0;
                // A map of the standard library would lose the order.
                let mut map = serializer.serialize_map(Some(counted.len() + never.len()))?;
                let mut never = never.iter().peekable();
                for (at, (tag, unread)) in counted.iter().enumerate() {
                    while let Some((_, none)) = never.next_if(|(before, _)| *before <= at) {
                        map.serialize_entry(none, &0)?;
                    }
                    map.serialize_entry(tag.as_str(), unread)?;
                }
                for (_, none) in never {
                    map.serialize_entry(none, &0)?;
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
pub(super) fn tags(body: &[u8]) -> Result<AskedTags, Fault> {
    if body.trim_ascii().is_empty() {
        return Ok(AskedTags::default());
    }
    let body = json::parse(body).map_err(|_| BODY)?;
    let [tags] = body.pick(["tags"]).ok_or(BODY)?;
    let Some(tags) = tags else {
        return Ok(AskedTags::default());
    };
    let asked = tags.items().ok_or(TAGS)?;
    // Not looked at any further than it takes to know that they are too many.
    if asked.clone().take(MAX_TAGS + 1).count() > MAX_TAGS {
        return Err(MANY_TAGS);
    }
    let (mut seen, mut found) = (HashSet::new(), AskedTags::default());
    for tag in asked {
        let tag = tag.text(Surrogates::Refuse).ok_or(TAGS)?;
        let tag = tag.map_err(|_| BODY)?;
        if !seen.insert(tag.clone()) {
            continue;
        }
        match Tag::parse(&*tag) {
            Ok(tag) => found.tags.push(tag),
            // No room has it, so nobody has anything unread there.
            Err(_) => found.never.push((found.tags.len(), tag.into_owned())),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(body: &str) -> Result<Vec<String>, Fault> {
        let asked = tags(body.as_bytes())?;
        assert!(asked.never.is_empty());
        Ok(asked.tags.iter().map(|tag| tag.to_string()).collect())
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
            never: Vec::new(),
        };
        assert_eq!(
            serde_json::to_string(&badges).unwrap(),
            r#"{"totalBadge":10,"data":{"z":2,"a\"":0,"m":8}}"#
        );
        let long = "x".repeat(256);
        let body = json!({"tags": ["", "z", "\n", &long, "a\"", "", "m", "\t"]}).to_string();
        let asked = tags(body.as_bytes()).unwrap();
        assert!(
            asked
                .tags
                .iter()
                .eq(badges.counted.iter().map(|(tag, _)| tag))
        );
        badges.never = asked.never;
        let shown = format!(
            r#"{{"totalBadge":10,"data":{{"":0,"z":2,"\n":0,"{long}":0,"a\"":0,"m":8,"\t":0}}}}"#
        );
        assert_eq!(serde_json::to_string(&badges).unwrap(), shown);
        let none = tags(br#"{"tags":[""]}"#).unwrap();
        assert_eq!((none.tags.len(), none.never.len()), (0, 1));
    }
}
