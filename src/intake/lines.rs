//! Reads the lines of a file ahead, in chunks. Each line is one event.

use std::io::BufRead;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::event::{Event, Notes, read_line};
use crate::names::EventKey;

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
    /// The longest line, in bytes.
    pub max_line: usize,
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

/// A line that is to be applied.
pub(super) struct Line {
    pub(super) number: u64,
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
            match line(&mut lines, &mut text, options.max_line) {
                Ok(0) => end = true,
                Ok(length) => {
                    chunk.last += 1;
                    chunk.bytes += length;
                    if chunk.last >= options.from_line {
                        match event(&text, length, options.max_line) {
                            Ok(None) => {}
                            Ok(Some(mut event)) => {
                                let notes = std::mem::take(&mut event.notes);
                                if !notes.is_empty() {
                                    let line = chunk.last;
                                    chunk.remarks.noted.push(NotedLine { line, notes });
                                }
                                if !event.change.has_id() {
                                    event.key.get_or_insert_with(|| {
                                        key(&options.name, chunk.last, &text)
                                    });
                                }
                                chunk.lines.push(Line {
                                    number: chunk.last,
                                    weight: weight(text.len()),
                                    event,
                                });
                            }
                            Err(message) => chunk.remarks.refused.push(RefusedLine {
                                line: chunk.last,
                                code: "invalid",
                                message,
                            }),
                        }
                    }
                    continue;
                }
                Err(error) => {
                    chunk.failed = Some(format!("line {} can't be read: {error}", chunk.last + 1));
                    end = true;
                }
            }
            break;
        }
        (number, bytes) = (chunk.last, chunk.bytes);
        if to.blocking_send(chunk).is_err() || end {
            return;
        }
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
fn event(text: &[u8], length: u64, most: usize) -> Result<Option<Event>, String> {
    if length > most as u64 {
        return Err(format!("the line is longer than {most} bytes"));
    }
    let event = read_line(text.trim_ascii_end()).transpose();
    event.map_err(|invalid| invalid.to_string())
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
        assert!(event(b"abcde", 9, 5).unwrap_err().contains("longer than 5"));
        assert!(event(b" \r\n", 3, 5).unwrap().is_none());
        assert_eq!(event(b"{\"a\"", 4, 50).unwrap_err(), "not JSON: column 4");
    }

    #[test]
    fn a_message_without_an_id_is_refused() {
        let text = br#"{"type": "message.sent", "room": "r"}"#;
        assert_eq!(event(text, 40, 100).unwrap_err(), "id: is missing");
    }

    #[test]
    fn what_is_under_way_is_bounded_by_its_size() {
        assert_eq!(weight(10), 1);
        assert_eq!(weight(10 * WEIGHT), 11);
        assert_eq!(weight(usize::MAX), UNDER_WAY);
    }
}
