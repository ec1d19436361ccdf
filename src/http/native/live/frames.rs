//! The messages of a stream, in the form of either protocol.

use std::sync::Arc;

use actix_http::ws::{CloseCode, CloseReason, Codec, Message};
use bytes::BytesMut;
use serde::Serialize;
use tokio_util::codec::Encoder as _;

use super::super::problem::Problem;
use super::super::reads::{Families, RoomAnswer, stamp};
use crate::counts::RoomUnread;
use crate::engine::Shown;

/// The most bytes that the rows of one message may have. With all else a message stays below 32 KiB, beyond which some clients
/// don't read on.
const MAX_ROWS: usize = 28 << 10;

/// How a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Server-Sent Events.
    Events,
    /// WebSocket.
    Socket,
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The pod is about to stop.
    Draining,
    /// The token is good no more, or soon.
    Expired,
    /// There are as many streams as may be, or users on this one.
    Full,
    /// It has lasted as long as a stream may.
    Lifetime,
}

impl Reason {
    pub(super) fn word(self) -> &'static str {
        match self {
            Reason::Draining => "draining",
            Reason::Expired => "expired",
            Reason::Full => "full",
            Reason::Lifetime => "lifetime",
        }
    }

    /// What a WebSocket is refused with that would end for this reason as it begins; none: it is opened all the same.
    pub(super) fn refuses_sockets(self) -> Option<&'static str> {
        match self {
            Reason::Draining => Some("this pod is about to stop and takes no further stream"),
            Reason::Full => Some(
                "the pod, the app or the user's own devices have as many streams as they may have, or a stream may not watch \
                 so many users",
            ),
            Reason::Expired | Reason::Lifetime => None,
        }
    }

    pub(super) fn code(self) -> CloseCode {
        match self {
            Reason::Draining => CloseCode::Restart,
            Reason::Expired => CloseCode::from(4401),
            Reason::Full => CloseCode::from(4429),
            Reason::Lifetime => CloseCode::from(4410),
        }
    }

    /// After how many milliseconds to come again: at random, so that not all come at once. `on_arrival`: the stream was
    /// never open.
    pub(super) fn retry(self, on_arrival: bool) -> u64 {
        rand::random_range(match self {
            // An `EventSource` comes with the same token again, for ever.
            Reason::Expired if on_arrival => 5_000..=15_000,
            // With a new token, or for a new stream: there is no hurry, and no reason to wait.
            Reason::Expired | Reason::Lifetime => 100..=1_000,
            Reason::Draining => 200..=3_000,
            Reason::Full => 5_000..=30_000,
        })
    }
}

/// Writes messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    pub(super) protocol: Protocol,
}

impl Writer {
    fn text(self, event: &str, id: Option<&str>, data: &str, into: &mut BytesMut) {
        match self.protocol {
            Protocol::Events => {
                let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
                let text = format!("event: {event}\n{id}data: {data}\n\n");
                into.extend_from_slice(text.as_bytes());
            }
            Protocol::Socket => {
                let rest = data.strip_prefix('{').unwrap_or_default();
                let comma = if rest == "}" { "" } else { "," };
                let text = format!("{{\"event\":\"{event}\"{comma}{rest}");
                self.message(Message::Text(text.into()), into);
            }
        }
    }

    pub(super) fn message(self, message: Message, into: &mut BytesMut) {
        // Only a continuation can be refused.
        let _ = Codec::new().encode(message, into);
    }

    /// What comes first: something at once, for proxies that wait for it. It is the first line of the first event: some clients
    /// make a message of each block that ends, whether an event stands in it or not.
    pub(super) fn begin(self, into: &mut BytesMut) {
        if self.protocol == Protocol::Events {
            into.extend_from_slice(b": unread\n");
        }
    }

    /// Of the first event: when to come again if the connection breaks.
    pub(super) fn retry(self, into: &mut BytesMut) {
        if self.protocol == Protocol::Events {
            let retry = rand::random_range(1_000..=3_000);
            into.extend_from_slice(format!("retry: {retry}\n").as_bytes());
        }
    }

    pub(super) fn beat(self, into: &mut BytesMut) {
        self.text("beat", None, "{}", into);
    }

    pub(super) fn bye(self, reason: Reason, on_arrival: bool, into: &mut BytesMut) {
        let (word, retry) = (reason.word(), reason.retry(on_arrival));
        let data = format!("{{\"reason\":\"{word}\",\"retry_ms\":{retry}}}");
        if self.protocol == Protocol::Events {
            into.extend_from_slice(format!("retry: {retry}\n").as_bytes());
        }
        self.text("bye", None, &data, into);
    }

    pub(super) fn close(self, code: CloseCode, why: &str, into: &mut BytesMut) {
        if self.protocol == Protocol::Socket {
            let why: String = why.chars().take(100).collect();
            self.message(Message::Close(Some(CloseReason::from((code, why)))), into);
        }
    }
}

/// What a stream is still to be told of one user.
pub(super) struct Update {
    user: String,
    pub(super) shown: Arc<Shown>,
    pub(super) stamp: String,
    has_id: bool,
    rooms: Option<Rows>,
}

/// The rows that have changed, by their places, and those that are gone.
struct Rows {
    before: Option<Arc<Shown>>,
    changed: Vec<usize>,
    gone: Vec<usize>,
    told: usize,
    told_gone: usize,
}

#[derive(Serialize)]
struct Counts<'a> {
    user: &'a str,
    stamp: &'a str,
    #[serde(flatten)]
    families: Families,
    /// Whether the rows, of this message and of those that belong to it, are all that there are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<Vec<RoomAnswer<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

impl Update {
    /// From what the stream was sent last to what there is now. None: it has been sent all of it.
    pub(super) fn new(
        user: &str,
        shown: Arc<Shown>,
        before: Option<Arc<Shown>>,
        rooms: bool,
        has_id: bool,
    ) -> Result<Option<Self>, Problem> {
        let now = shown.rooms.as_deref().filter(|_| rooms);
        let old = before.as_ref().and_then(|before| before.rooms.as_deref());
        if let Some(before) = &before
            && before.totals == shown.totals
            && (now.is_none() || now == old)
        {
            return Ok(None);
        }
        let rows = now.map(|now| {
            let (changed, gone) = difference(old.unwrap_or_default(), now);
            Rows {
                changed,
                gone,
                told: 0,
                told_gone: 0,
                before: before.clone(),
            }
        });
        Ok(Some(Self {
            user: user.to_owned(),
            stamp: stamp(&shown.totals, now)?,
            has_id,
            rooms: rows,
            shown,
        }))
    }

    /// Writes the next message; whether it was the last one.
    pub(super) fn write(&mut self, writer: Writer, into: &mut BytesMut) -> bool {
        let mut bytes = 0;
        let mut counts = Counts {
            user: &self.user,
            stamp: &self.stamp,
            families: Families::from(&self.shown.totals),
            all: false,
            rooms: None,
            gone: None,
            more: false,
        };
        if let Some(rows) = &mut self.rooms {
            counts.all = rows.before.is_none() && rows.told == 0;
            let now = self.shown.rooms.as_deref().unwrap_or_default();
            let before = rows.before.as_ref().and_then(|old| old.rooms.as_deref());
            let before = before.unwrap_or_default();
            let (mut told, mut gone) = (Vec::new(), Vec::new());
            while let Some(row) = rows.changed.get(rows.told).and_then(|at| now.get(*at)) {
                let more = bytes + weight(row);
                if more > MAX_ROWS && !told.is_empty() {
                    break;
                }
                bytes = more;
                told.push(RoomAnswer::new(row));
                rows.told += 1;
            }
            while rows.told == rows.changed.len()
                && let Some(row) = rows.gone.get(rows.told_gone).and_then(|at| before.get(*at))
            {
                let more = bytes + 2 * row.room.len() + 4;
                if more > MAX_ROWS && bytes > 0 {
                    break;
                }
                bytes = more;
                gone.push(row.room.as_str());
                rows.told_gone += 1;
            }
            counts.more = rows.told < rows.changed.len() || rows.told_gone < rows.gone.len();
            counts.rooms = Some(told);
            counts.gone = (!gone.is_empty()).then_some(gone);
        }
        let is_last = !counts.more;
        let id = (self.has_id && is_last).then_some(self.stamp.as_str());
        // Numbers and texts can always be written.
        let data = serde_json::to_string(&counts).unwrap_or_default();
        writer.text("counts", id, &data, into);
        is_last
    }
}

/// Which rows of `now` are not in `before`, and which of `before` are in `now` no more. Both are sorted.
fn difference(before: &[RoomUnread], now: &[RoomUnread]) -> (Vec<usize>, Vec<usize>) {
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    let mut old = before.iter().enumerate().peekable();
    for (at, row) in now.iter().enumerate() {
        while let Some((place, _)) = old.next_if(|(_, one)| one.room < row.room) {
            gone.push(place);
        }
        match old.next_if(|(_, one)| one.room == row.room) {
            Some((_, one)) if one == row => {}
            _ => changed.push(at),
        }
    }
    gone.extend(old.map(|(place, _)| place));
    (changed, gone)
}

/// At most so many bytes a row has as JSON.
fn weight(row: &RoomUnread) -> usize {
    let kind = row.custom_type.as_ref().map_or(0, String::len);
    let tags: usize = row.tags.iter().map(|tag| 2 * tag.len() + 3).sum();
    // Names hold no control characters, so each byte is two at most.
    280 + 2 * row.room.len() + 2 * kind + tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::{CountPref, Kind};

    fn row(room: &str, messages: u64) -> RoomUnread {
        RoomUnread {
            room: room.to_owned(),
            kind: Kind::Group,
            peer: None,
            custom_type: None,
            tags: Vec::new(),
            messages,
            mentions: 0,
            muted: false,
            hidden: false,
            count: CountPref::All,
            read_position: 0,
            head: messages,
        }
    }

    #[test]
    fn rows_that_differ_are_found_and_those_that_are_gone() {
        let rows = |rows: &[(&str, u64)]| -> Vec<RoomUnread> {
            rows.iter().map(|(room, n)| row(room, *n)).collect()
        };
        let before = rows(&[("a", 1), ("b", 1), ("d", 1), ("e", 1)]);
        for (now, changed, gone) in [
            (
                rows(&[("a", 1), ("b", 1), ("d", 1), ("e", 1)]),
                vec![],
                vec![],
            ),
            (
                rows(&[("a", 2), ("b", 1), ("c", 0), ("d", 1)]),
                vec![0, 2],
                vec![3],
            ),
            (rows(&[]), vec![], vec![0, 1, 2, 3]),
            (rows(&[("0", 0), ("f", 0)]), vec![0, 1], vec![0, 1, 2, 3]),
        ] {
            assert_eq!(difference(&before, &now), (changed, gone));
        }
    }

    #[test]
    fn many_rows_come_in_parts_and_nothing_comes_twice() {
        let long = |n: usize| format!("{n:04}{}", "\"\\".repeat(120));
        let before: Vec<RoomUnread> = (0..500).map(|n| row(&long(n), 0)).collect();
        let now: Vec<RoomUnread> = (250..700).map(|n| row(&long(n), 1)).collect();
        let shown = |rooms| {
            let rooms = Some(rooms);
            Arc::new(Shown {
                rooms,
                ..Shown::default()
            })
        };
        let (before, now) = (shown(before), shown(now));
        let writer = Writer {
            protocol: Protocol::Events,
        };
        let update = |before: Option<Arc<Shown>>| {
            Update::new("alice", Arc::clone(&now), before, true, true)
                .ok()
                .flatten()
        };
        let mut whole = update(Some(before)).unwrap();
        let (mut rooms, mut gone, mut parts) = (0, 0, 0);
        loop {
            let mut text = BytesMut::new();
            let is_last = whole.write(writer, &mut text);
            assert!(text.len() < 32 << 10, "{}", text.len());
            let text = std::str::from_utf8(&text).unwrap();
            let data = text.split_once("data: ").unwrap().1;
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            rooms += data["rooms"].as_array().unwrap().len();
            gone += data["gone"].as_array().map_or(0, Vec::len);
            parts += 1;
            assert_eq!(text.contains("\nid: "), is_last);
            assert_eq!(data.get("more").is_none(), is_last);
            assert!(data.get("all").is_none());
            if is_last {
                break;
            }
        }
        assert_eq!((rooms, gone), (450, 250));
        assert!(parts > 5);
        // The same again is nothing; the first is all.
        assert!(update(Some(Arc::clone(&now))).is_none());
        let mut text = BytesMut::new();
        assert!(!update(None).unwrap().write(writer, &mut text));
        assert!(std::str::from_utf8(&text).unwrap().contains("\"all\":true"));
    }
}
