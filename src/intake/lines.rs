//! Reads the lines of a file ahead, in chunks. Each line is one event, or one row of a counts file.

use std::collections::{BTreeMap, HashSet};
use std::io::BufRead;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::rows::{LONGEST_ROW, Row, Rows, names_columns};
use crate::event::{Event, Notes, Order, read_line};
use crate::names::{EventKey, RoomId, UserId};

/// The most lines in one chunk.
const CHUNK: usize = 1_000;
/// A chunk of this many bytes gets no further line.
const CHUNK_BYTES: usize = 1 << 20;
/// The most weight that all lanes hold together. An event weighs one, and one more for each [`WEIGHT`] bytes of its line.
pub(super) const UNDER_WAY: u32 = 16_384;
const WEIGHT: usize = 1_024;

/// How to read the lines.
#[derive(Debug, Clone)]
pub(crate) struct LineOptions {
    /// The name of this import. An event without an id gets a key from this name, the number of its line and the line itself, so
    /// the same lines imported again under the same name change nothing.
    pub name: String,
    /// The first line to import; earlier lines are only counted.
    pub from_line: u64,
    /// What stands in the lines.
    pub form: LineForm,
}

/// What stands in the lines of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LineForm {
    /// An event in JSON in each of them.
    Events {
        /// The longest line, in bytes.
        max_line: usize,
        /// Whether the events are placed by their own times.
        by_time: bool,
    },
    /// The rows of a counts file, behind a line that names the columns. They are placed by their own times.
    Counts {
        /// When it was so, for rows that don't say it: milliseconds since the epoch.
        as_of: Option<i64>,
        /// Whether to let users into the rooms of their rows, and to make rooms that are not there.
        join: bool,
    },
}

/// A line that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedLine {
    /// Its number, from 1.
    pub line: u64,
    /// The code of the native API.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
}

/// A line that was imported without some of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotedLine {
    /// Its number, from 1.
    pub line: u64,
    /// What was left out, in words.
    pub notes: Notes,
}

/// Reports about single lines.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    /// Lines that were refused.
    pub refused: Vec<RefusedLine>,
    /// Lines that were imported without some of their parts.
    pub noted: Vec<NotedLine>,
}

/// An event that is to be applied.
pub(super) struct Line {
    /// The number of its line.
    pub(super) number: u64,
    /// Whether it only prepares what stands in that line and in others. Then it counts for nothing itself.
    pub(super) prepares: bool,
    pub(super) weight: u32,
    pub(super) event: Event,
}

/// Lines from the reading thread.
pub(super) struct Chunk {
    pub(super) lines: Vec<Line>,
    pub(super) remarks: Remarks,
    /// The number of the last line that was read, and how many bytes end with it.
    pub(super) last: u64,
    pub(super) bytes: u64,
    pub(super) failed: Option<String>,
}

/// Reads all lines into chunks. It waits while enough chunks are read ahead.
pub(super) fn read(mut lines: impl BufRead, options: &LineOptions, to: &mpsc::Sender<Chunk>) {
    let (mut number, mut bytes) = (0, 0);
    let mut text = Vec::new();
    let mut parser = Parser::new(options);
    loop {
        let mut chunk = Chunk {
            lines: Vec::new(),
            remarks: Remarks::default(),
            last: number,
            bytes,
            failed: None,
        };
        let mut end = false;
        while chunk.last < number + CHUNK as u64 && chunk.bytes < bytes + CHUNK_BYTES as u64 {
            match line(&mut lines, &mut text, parser.longest()) {
                Ok(0) => end = true,
                Ok(length) => {
                    chunk.last += 1;
                    chunk.bytes += length;
                    match parser.event(chunk.last, &text, length) {
                        Ok(event) => {
                            event
                                .into_iter()
                                .for_each(|event| chunk.add(event, &text, options));
                            continue;
                        }
                        Err(Fault::Line(message)) => {
                            chunk.remarks.refused.push(RefusedLine {
                                line: chunk.last,
                                code: "invalid",
                                message,
                            });
                            continue;
                        }
                        Err(Fault::File(why)) => {
                            chunk.failed = Some(why);
                            end = true;
                        }
                    }
                }
                Err(error) => {
                    chunk.failed = Some(format!("line {} can't be read: {error}", chunk.last + 1));
                    end = true;
                }
            }
            break;
        }
        (number, bytes) = (chunk.last, chunk.bytes);
        chunk.lines.splice(0..0, parser.preparations());
        if to.blocking_send(chunk).is_err() || end {
            return;
        }
    }
}

impl Chunk {
    /// Adds the event of the last line.
    fn add(&mut self, mut event: Event, text: &[u8], options: &LineOptions) {
        let notes = std::mem::take(&mut event.notes);
        if !notes.is_empty() {
            let line = self.last;
            self.remarks.noted.push(NotedLine { line, notes });
        }
        if !event.change.has_id() {
            event
                .key
                .get_or_insert_with(|| key(&options.name, self.last, text));
        }
        self.lines.push(Line {
            number: self.last,
            prepares: false,
            weight: weight(text.len()),
            event,
        });
    }
}

/// What is wrong.
enum Fault {
    /// The line holds no event.
    Line(String),
    /// No line of the file holds any.
    File(String),
}

/// Makes events of lines.
struct Parser<'a> {
    options: &'a LineOptions,
    /// Of a counts file whose first line has been read.
    rows: Option<Rows>,
    rooms: Rooms,
}

impl<'a> Parser<'a> {
    fn new(options: &'a LineOptions) -> Self {
        Self {
            options,
            rows: None,
            rooms: Rooms::default(),
        }
    }

    /// How many bytes of a line are kept.
    fn longest(&self) -> usize {
        match self.options.form {
            LineForm::Events { max_line, .. } => max_line,
            LineForm::Counts { .. } => LONGEST_ROW + 1,
        }
    }

    /// The event of a line; `None`: there is none in it, or it is not wanted.
    fn event(&mut self, number: u64, text: &[u8], length: u64) -> Result<Option<Event>, Fault> {
        let (as_of, join) = match self.options.form {
            LineForm::Events { .. } if number < self.options.from_line => return Ok(None),
            LineForm::Events { max_line, by_time } => {
                let event = event(text, length, max_line, by_time);
                return event.map_err(|why| match number == 1 && names_columns(text) {
                    true => Fault::Line(format!("{why}; a counts file needs --counts")),
                    false => Fault::Line(why),
                });
            }
            LineForm::Counts { as_of, join } => (as_of, join),
        };
        let Some(rows) = &mut self.rows else {
            let rows = Rows::with_header(text).map_err(|fault| {
                let why = format!("line {number}: {fault}");
                Fault::File(why)
            });
            self.rows = Some(rows?);
            return Ok(None);
        };
        if number < self.options.from_line {
            return Ok(None);
        }
        let row = rows.row(text).map_err(|fault| fault.to_string());
        let Some(row) = row.map_err(Fault::Line)? else {
            return Ok(None);
        };
        let time = row.time.or(as_of);
        let time = time.ok_or_else(|| Fault::Line(NO_TIME.to_owned()))?;
        if join {
            self.rooms.add(number, &row);
        }
        let notes = row.mentions_beyond.map(|mentions| {
            let unread = row.unread;
            Notes::one(format_args!(
                "mentions: {mentions} are more than the unread messages: taken as {unread}"
            ))
        });
        let event = Event::counts_set(row.room, row.user, row.unread, row.mentions, time);
        let event = event.and_then(|event| event.placed(Order::Import));
        let event = event.map_err(|invalid| Fault::Line(invalid.to_string()))?;
        // The same row as of another time says something else.
        Ok(Some(Event {
            key: Some(key(
                &self.options.name,
                number,
                &[text.trim_ascii(), &time.to_be_bytes()].concat(),
            )),
            notes: notes.unwrap_or_default(),
            ..event
        }))
    }

    /// The events that let users into the rooms of the rows since the last call.
    fn preparations(&mut self) -> Vec<Line> {
        let rooms = std::mem::take(&mut self.rooms.present);
        let mut lines = Vec::new();
        for (
            room,
            RowsOfRoom {
                number,
                kind,
                users,
            },
        ) in rooms
        {
            let mut prepare = |number: u64, event: Event, about: &[&str]| {
                let about = about.concat();
                lines.push(Line {
                    number,
                    prepares: true,
                    weight: weight(about.len()),
                    event: Event {
                        key: Some(key(&self.options.name, number, about.as_bytes())),
                        ..event
                    },
                });
            };
            if self.rooms.made.len() >= ROOMS_MADE {
                self.rooms.made.clear();
            }
            if self.rooms.made.insert(room.clone()) {
                let about = ["room.updated ", room.as_str()];
                prepare(number, Event::room_made(room.clone(), kind), &about);
            }
            // In a direct room a user too many keeps nobody else out: the one whose row comes last.
            let at_once = if kind == Some("direct") { 1 } else { CHUNK };
            let mut users = Vec::from_iter(users);
            if at_once == 1 {
                users.sort_by_key(|(_, number)| *number);
            }
            for users in users.chunks(at_once) {
                let number = match users {
                    [(_, own)] if at_once == 1 => *own,
                    _ => number,
                };
                let mut about = vec!["member.joined ", room.as_str()];
                about.extend(users.iter().flat_map(|(user, _)| [" ", user.as_str()]));
                let users = users.iter().map(|(user, _)| user.clone()).collect();
                prepare(number, Event::joined(room.clone(), users), &about);
            }
        }
        lines
    }
}

/// What is said of a row without a time, if there is none for all rows.
pub(crate) const NO_TIME: &str =
    "time: is missing: neither the row nor --as-of says when it was so";
/// How many rooms are remembered that have been made.
const ROOMS_MADE: usize = 100_000;

/// The rooms of rows.
#[derive(Default)]
struct Rooms {
    /// Those of the present chunk.
    present: BTreeMap<RoomId, RowsOfRoom>,
    /// Those that have been made.
    made: HashSet<RoomId>,
}

/// The rows of one room in one chunk.
struct RowsOfRoom {
    /// The line of the first one.
    number: u64,
    /// The kind that the first one says.
    kind: Option<&'static str>,
    /// Their users, and the line of each one's first row.
    users: BTreeMap<UserId, u64>,
}

impl Rooms {
    fn add(&mut self, number: u64, row: &Row) {
        let rows = self.present.entry(row.room.clone());
        let rows = rows.or_insert_with(|| RowsOfRoom {
            number,
            kind: row.kind,
            users: BTreeMap::new(),
        });
        rows.users.entry(row.user.clone()).or_insert(number);
    }
}

/// The event key of a line. It is short, because Redis keeps it for a day.
fn key(name: &str, number: u64, text: &[u8]) -> EventKey {
    let mut hash = Sha256::new();
    hash.update((name.len() as u64).to_be_bytes());
    hash.update(name);
    hash.update(number.to_be_bytes());
    hash.update(text.trim_ascii());
    let digest = hash.finalize();
    let short = digest.first_chunk::<12>().copied().unwrap_or_default();
    EventKey::of_digest(short)
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(1 + bytes / WEIGHT).map_or(UNDER_WAY, |weight| weight.min(UNDER_WAY))
}

/// Reads a line; of a line that is too long it keeps the beginning. Returns the length of the whole line with its line feed.
pub(super) fn line(
    from: &mut impl BufRead,
    text: &mut Vec<u8>,
    most: usize,
) -> std::io::Result<u64> {
    text.clear();
    let mut length = 0;
    loop {
        let part = match from.fill_buf() {
            Ok(part) => part,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = part.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(part.len(), |at| at + 1);
        let kept = taken.min(most.saturating_sub(text.len()));
        text.extend_from_slice(part.get(..kept).unwrap_or_default());
        from.consume(taken);
        length += taken as u64;
        if end.is_some() || taken == 0 {
            return Ok(length);
        }
    }
}

/// The event of a line; `None` if the line is blank.
fn event(text: &[u8], length: u64, most: usize, by_time: bool) -> Result<Option<Event>, String> {
    if length > most as u64 {
        return Err(format!("the line is longer than {most} bytes"));
    }
    let order = match by_time {
        true => Order::Import,
        false => Order::Arrival,
    };
    let event = read_line(text.trim_ascii_end());
    let event = event.map(|event| event.and_then(|event| event.placed(order)));
    event.transpose().map_err(|invalid| invalid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_long_ones_passed_over() {
        let mut from = std::io::BufReader::with_capacity(3, &b"ab\n\nabcdefgh\nlast"[..]);
        let mut text = Vec::new();
        let mut next = || {
            let length = line(&mut from, &mut text, 5).unwrap();
            (length, String::from_utf8(text.clone()).unwrap())
        };
        assert_eq!(next(), (3, "ab\n".into()));
        assert_eq!(next(), (1, "\n".into()));
        assert_eq!(next(), (9, "abcde".into()));
        assert_eq!(next(), (4, "last".into()));
        assert_eq!(next(), (0, String::new()));
        let read = |text: &[u8], length, most| event(text, length, most, false);
        assert!(read(b"abcde", 9, 5).unwrap_err().contains("longer than 5"));
        assert!(read(b" \r\n", 3, 5).unwrap().is_none());
        assert_eq!(read(b"{\"a\"", 4, 50).unwrap_err(), "not JSON: column 4");
    }

    #[test]
    fn a_message_without_an_id_is_refused() {
        let text = br#"{"type": "message.sent", "room": "r"}"#;
        assert_eq!(event(text, 40, 100, false).unwrap_err(), "id: is missing");
    }

    #[test]
    fn by_time_a_line_without_a_time_is_refused() {
        let text = br#"{"type": "message.sent", "room": "r", "id": "1"}"#;
        assert!(event(text, 50, 100, false).is_ok());
        let refused = event(text, 50, 100, true).unwrap_err();
        assert!(refused.starts_with("time: is missing"), "{refused}");
    }

    #[test]
    fn what_is_under_way_is_bounded_by_its_size() {
        assert_eq!(weight(10), 1);
        assert_eq!(weight(10 * WEIGHT), 11);
        assert_eq!(weight(usize::MAX), UNDER_WAY);
    }
}
