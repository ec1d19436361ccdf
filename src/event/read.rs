//! Reads the events of a body, one after the other. Each event is read by itself: one that can't be read is refused with the
//! position of the fault, and the next one is read. The error repeats nothing of the event's values. Nothing is kept of a body
//! but its events, and nothing of an event but the fields that its type has.

use std::borrow::Cow;
use std::fmt;

use super::change;
use super::fields::{EventFields, Wrong, wrong};
use super::{Event, Order};
use crate::json::{LineIndex, NotJson, Scanner, byte_order_mark};
use crate::names::EventKey;

/// How a body holds events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyForm {
    /// One event, or a list of them.
    Json,
    /// One event a line (NDJSON). Blank lines are skipped.
    Lines,
}

/// A position in a body, or in one line. Lines and columns count from 1, columns in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineColumn {
    /// The line; `None` if a single line was read by itself.
    pub line: Option<usize>,
    /// The column.
    pub column: usize,
}

impl fmt::Display for LineColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}, ")?;
        }
        write!(f, "column {}", self.column)
    }
}

/// Why a value is not a valid event: a field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// The field; `None`: the line is not JSON.
    pub field: Option<Cow<'static, str>>,
    /// What is wrong with it.
    pub problem: Cow<'static, str>,
    /// The position, if the field can't be read at all.
    pub position: Option<LineColumn>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.problem)?;
        match self.position {
            Some(position) => write!(f, ": {position}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Invalid {}

/// Why a whole body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    /// It is not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(LineColumn),
    /// A second event follows the one that it is.
    #[error(
        "the body is not JSON: {0}: for one event a line send Content-Type: application/x-ndjson"
    )]
    AnotherEvent(LineColumn),
    /// Its lists or objects are nested too deeply.
    #[error("the body is nested too deeply: {0}")]
    Nested(LineColumn),
    /// It is JSON, but neither an object nor a list.
    #[error("the body must be an event or a list of events")]
    NoEvents,
    /// It holds more events than it may.
    #[error("at most {0} events can be sent at once")]
    TooMany(usize),
}

/// All events of a body, readable or not.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The events that can be read, in order.
    pub events: Vec<Event>,
    /// Why each other event is refused, with its place among all events, from 0.
    pub refused: Vec<(usize, Invalid)>,
}

impl Batch {
    /// How many events the body holds, readable or not.
    pub(crate) fn len(&self) -> usize {
        self.events.len() + self.refused.len()
    }

    /// How many bytes the notes of all events have together.
    pub(crate) fn note_bytes(&self) -> usize {
        self.events.iter().map(|event| event.notes.bytes()).sum()
    }

    /// Places all events by their times. Those without a time are refused.
    pub(crate) fn place_by_time(&mut self) {
        let mut refused = std::mem::take(&mut self.refused).into_iter().peekable();
        let (mut place, mut events) = (0, Vec::with_capacity(self.events.len()));
        let mut pass = |place: &mut usize, all: &mut Vec<_>| {
            while let Some(one) = refused.next_if(|(at, _)| at == place) {
                all.push(one);
                *place += 1;
            }
        };
        for event in std::mem::take(&mut self.events) {
            pass(&mut place, &mut self.refused);
            match event.placed(Order::Time) {
                Ok(event) => events.push(event),
                Err(invalid) => self.refused.push((place, invalid)),
            }
            place += 1;
        }
        pass(&mut place, &mut self.refused);
        self.events = events;
    }

    /// Gives a key to every event that has neither a key nor an id: the request's key with the event's place in the request.
    pub(crate) fn give_keys(&mut self, request: &EventKey) {
        let mut refused = self.refused.iter().map(|(place, _)| *place).peekable();
        let mut place = 0;
        for event in &mut self.events {
            while refused.next_if_eq(&place).is_some() {
                place += 1;
            }
            if event.key.is_none() && !event.change.has_id() {
                event.key = Some(EventKey::nth_of(request, place));
            }
            place += 1;
        }
    }
}

impl Event {
    /// The same event, placed in this way. By time it must have a time.
    pub(crate) fn placed(mut self, order: Order) -> Result<Self, Invalid> {
        if order != Order::Arrival && self.time.is_none() {
            return Err(Invalid {
                field: Some("time".into()),
                problem: "is missing: in the order of time every event has one".into(),
                position: None,
            });
        }
        self.order = order;
        Ok(self)
    }
}

/// Reads all events of a body. A body of more than `most` events is refused, and its rest is not read.
pub(crate) fn read_all(body: &[u8], form: BodyForm, most: usize) -> Result<Batch, BodyFault> {
    let mut batch = Batch::default();
    let mut events = Events::new(body, form);
    for event in &mut events {
        let place = batch.len();
        if place == most {
            return Err(BodyFault::TooMany(most));
        }
        match event {
            Ok(event) => batch.events.push(event),
            Err(invalid) => batch.refused.push((place, invalid)),
        }
    }
    match events.fault() {
        None => Ok(batch),
        Some(fault) => Err(fault),
    }
}

/// Reads the event of one line, if it is not blank.
pub(crate) fn read_line(line: &[u8]) -> Option<Result<Event, Invalid>> {
    let event = in_line(&mut EventFields::default(), line)?;
    Some(event.map_err(|wrong| wrong.in_line(None)))
}

/// The events of a body, one after the other. It ends at the end of the body, or where the body is not JSON. In that case
/// [`Events::fault`] tells the fault, and the caller must not use the events before it.
pub(super) struct Events<'a> {
    body: &'a [u8],
    scanner: Scanner<'a>,
    at: ReadState,
    positions: LineIndex<'a>,
    fields: EventFields<'a>,
    fault: Option<BodyFault>,
}

/// How far [`Events`] has read.
enum ReadState {
    Start,
    /// In a list, before its first item or after another one.
    List {
        first: bool,
    },
    /// Before the line that begins at the byte `start`.
    Line {
        number: usize,
        start: usize,
    },
    End,
}

impl<'a> Events<'a> {
    /// Begins to read a body.
    pub(super) fn new(body: &'a [u8], form: BodyForm) -> Self {
        Self {
            body,
            scanner: Scanner::new(body, byte_order_mark(body)),
            at: match form {
                BodyForm::Json => ReadState::Start,
                BodyForm::Lines => ReadState::Line {
                    number: 1,
                    start: 0,
                },
            },
            positions: LineIndex::new(body),
            fields: EventFields::default(),
            fault: None,
        }
    }

    /// The fault at which the reading ended before the end of the body, if there is one.
    pub(super) fn fault(&self) -> Option<BodyFault> {
        self.fault
    }

    fn position(&mut self, at: usize) -> LineColumn {
        let (line, column) = self.positions.of(at);
        LineColumn {
            line: Some(line),
            column,
        }
    }

    /// The next event of a body of JSON, if there is one.
    fn next_in_json(&mut self) -> Result<Option<Result<Event, Wrong>>, BodyFault> {
        // Whether a whole event was read, and nothing but blanks may follow.
        let mut is_whole = false;
        let found = match self.at {
            ReadState::Start => match self.scanner.peek() {
                Some(b'[') => {
                    self.scanner.pass(b'[');
                    self.at = ReadState::List { first: true };
                    self.item()
                }
                Some(b'{') => {
                    self.at = ReadState::End;
                    let event = event(&mut self.fields, &mut self.scanner);
                    is_whole = event.is_ok();
                    event.and_then(|event| self.scanner.end().map(|()| Some(event)))
                }
                _ => {
                    self.at = ReadState::End;
                    let value = self.scanner.value();
                    match value.and_then(|_| self.scanner.end()) {
                        Ok(()) => return Err(BodyFault::NoEvents),
                        Err(fault) => Err(fault),
                    }
                }
            },
            _ => self.item(),
        };
        found.map_err(|fault| {
            let at = fault.read.saturating_sub(1);
            let position = self.position(at);
            match fault.deep {
                true => BodyFault::Nested(position),
                false if is_whole && self.begins_a_line(at) => BodyFault::AnotherEvent(position),
                false => BodyFault::NotJson(position),
            }
        })
    }

    /// Whether an object begins at this byte, as the first thing in its line.
    fn begins_a_line(&self, at: usize) -> bool {
        let before = self.body.get(..at).unwrap_or_default();
        let indent = before
            .iter()
            .rev()
            .take_while(|b| matches!(b, b' ' | b'\t'));
        let line_feed = before.len().checked_sub(indent.count() + 1);
        let line_feed = line_feed.and_then(|at| before.get(at));
        self.body.get(at) == Some(&b'{') && line_feed == Some(&b'\n')
    }

    fn item(&mut self) -> Result<Option<Result<Event, Wrong>>, NotJson> {
        let ReadState::List { first } = &mut self.at else {
            return Ok(None);
        };
        if self.scanner.has_another(first, b']')? {
            event(&mut self.fields, &mut self.scanner).map(Some)
        } else {
            self.at = ReadState::End;
            self.scanner.end().map(|()| None)
        }
    }

    /// The event of the next line that is not blank.
    fn next_line(&mut self) -> Option<Result<Event, Invalid>> {
        while let ReadState::Line { number, start } = self.at {
            let rest = self.body.get(start..).unwrap_or_default();
            let length = memchr::memchr(b'\n', rest);
            self.at = match length {
                Some(length) => ReadState::Line {
                    number: number + 1,
                    start: start + length + 1,
                },
                None => ReadState::End,
            };
            let line = rest.get(..length.unwrap_or(rest.len())).unwrap_or_default();
            if let Some(event) = in_line(&mut self.fields, line) {
                return Some(event.map_err(|wrong| wrong.in_line(Some(number))));
            }
        }
        None
    }
}

impl Iterator for Events<'_> {
    type Item = Result<Event, Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        if let ReadState::Line { .. } = self.at {
            return self.next_line();
        }
        match self.next_in_json() {
            Ok(event) => Some(event?.map_err(|wrong| {
                let position = wrong.at.map(|at| self.position(at));
                wrong.at_position(position)
            })),
            Err(fault) => {
                self.at = ReadState::End;
                self.fault = Some(fault);
                None
            }
        }
    }
}

/// The event of a line, if the line is not blank. Any line may begin with a byte order mark, because a body can be several files
/// joined together.
fn in_line<'a>(fields: &mut EventFields<'a>, line: &'a [u8]) -> Option<Result<Event, Wrong>> {
    let mut scanner = Scanner::new(line, byte_order_mark(line));
    scanner.peek()?;
    let event = event(fields, &mut scanner);
    Some(
        match event.and_then(|event| scanner.end().map(|()| event)) {
            Ok(event) => event,
            Err(NotJson { read, deep }) => Err(Wrong {
                field: None,
                problem: match deep {
                    true => "nested too deeply".into(),
                    false => "not JSON".into(),
                },
                at: Some(read.saturating_sub(1)),
            }),
        },
    )
}

/// Reads the next value as an event.
fn event<'a>(
    fields: &mut EventFields<'a>,
    scanner: &mut Scanner<'a>,
) -> Result<Result<Event, Wrong>, NotJson> {
    fields.clear();
    if !scanner.pass(b'{') {
        scanner.value()?;
        return Ok(Err(wrong("event", "must be an object")));
    }
    let mut first = true;
    while scanner.has_another(&mut first, b'}')? {
        let key = scanner.key()?;
        let value = scanner.value()?;
        fields.put(key, value);
    }
    Ok(change::event(fields))
}

impl Wrong {
    fn at_position(self, position: Option<LineColumn>) -> Invalid {
        Invalid {
            field: self.field,
            problem: self.problem,
            position,
        }
    }

    pub(super) fn in_line(self, line: Option<usize>) -> Invalid {
        let position = self.at.map(|at| LineColumn {
            line,
            column: at + 1,
        });
        self.at_position(position)
    }
}

#[cfg(test)]
mod tests;
