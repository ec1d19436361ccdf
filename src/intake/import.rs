//! Imports events from lines, by the million. A thread reads ahead, and several *lanes* apply batches at the same time. All
//! events of a room go to the same lane, so they stay in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::BufRead;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};

use crate::engine::{Engine, Writer};
use crate::error::{Error, Result};
use crate::event::{self, Event, EventOutcome, Notes, Wait, read_line};
use crate::intake::order::{Order, Turn};
use crate::names::{AppId, EventKey};

/// How many batches are applied at the same time. All events of a room go to the same lane.
const LANES: usize = 8;
/// The most events in one batch.
const BATCH: usize = 1_000;
/// The most lines in one chunk.
const CHUNK: usize = 1_000;
/// A chunk of this many bytes gets no further line.
const CHUNK_BYTES: usize = 1 << 20;
/// How many chunks are read ahead.
const CHUNKS: usize = 4;
/// For how many events at once Redis is asked what their order depends on.
const WINDOW: usize = 250;
/// The most weight that all lanes hold together. An event weighs one, and one more for each [`WEIGHT`] bytes of its line.
const UNDER_WAY: u32 = 16_384;
const WEIGHT: usize = 1_024;
/// The pause before the second attempt at a batch. It doubles with each further attempt.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How to import.
#[derive(Debug, Clone)]
pub(crate) struct ImportOptions {
    /// The name of this import. An event without an id gets a key from this name, the number of its line and the line itself, so
    /// the same lines imported again under the same name change nothing.
    pub name: String,
    /// The first line to import; earlier lines are only counted.
    pub from_line: u64,
    /// Whether the events are placed by their own times.
    pub by_time: bool,
    /// The longest line, in bytes.
    pub max_line: usize,
    /// How long to keep trying while Redis is away.
    pub patience: Duration,
    /// How many refused lines are reported. Further ones are only counted.
    pub max_reported: usize,
}

/// Why an import ended before its last line.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum EarlyEnd {
    /// The caller has stopped it.
    #[error("interrupted")]
    Stopped,
    /// A line can't be read.
    #[error("{0}")]
    Lines(String),
    /// The events can't be applied.
    #[error("{0}")]
    Engine(#[from] Error),
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

/// How far an import has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Imported {
    /// Bytes read.
    pub bytes: u64,
    /// Every line up to this one is done.
    pub done_to: u64,
    /// Events done.
    pub events: u64,
    /// Of these: applied.
    pub applied: u64,
    /// Of these: known before.
    pub duplicates: u64,
    /// Of these: refused, or no valid event.
    pub rejected: u64,
}

/// A line that is to be applied.
struct Line {
    number: u64,
    weight: u32,
    event: Event,
}

/// Lines from the reading thread.
struct Chunk {
    lines: Vec<Line>,
    remarks: Remarks,
    /// The number of the last line that was read, and how many bytes end with it.
    last: u64,
    bytes: u64,
    failed: Option<String>,
}

/// The results of all lanes.
#[derive(Default)]
struct LaneResults {
    sums: Imported,
    /// Lines that are not done yet.
    open: BTreeSet<u64>,
    /// The last line that the reading thread has sent.
    read: u64,
    /// Refused lines that are still to be reported. A line is reported when all earlier lines are done, so that reports come in
    /// order.
    refused: BTreeMap<u64, RefusedLine>,
    /// How many more refused lines may be reported.
    may_report: usize,
    noted: Vec<NotedLine>,
    failed: Option<EarlyEnd>,
}

impl LaneResults {
    fn refuse(&mut self, line: RefusedLine) {
        self.sums.rejected += 1;
        self.refused.insert(line.line, line);
        if self.refused.len() > self.may_report {
            self.refused.pop_last();
        }
    }

    /// Takes out the refused lines up to this one, to report them.
    fn take_refused(&mut self, up_to: u64) -> Vec<RefusedLine> {
        let later = self.refused.split_off(&up_to.saturating_add(1));
        let now = std::mem::replace(&mut self.refused, later);
        self.may_report -= now.len();
        now.into_values().collect()
    }

    fn sums(&self) -> Imported {
        let done_to = self.open.first().map_or(self.read, |first| first - 1);
        Imported {
            done_to,
            ..self.sums
        }
    }
}

/// What all lanes of one import share.
struct Run {
    writer: Writer,
    app: AppId,
    patience: Duration,
    results: Mutex<LaneResults>,
    places: Semaphore,
}

impl Run {
    fn results(&self) -> std::sync::MutexGuard<'_, LaneResults> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        self.results().failed.is_some()
    }

    /// Notes what was read, and answers the lines that are to be applied.
    fn note_read(&self, chunk: Chunk) -> Vec<Line> {
        let mut results = self.results();
        results.sums.bytes = chunk.bytes;
        let Remarks { refused, noted } = chunk.remarks;
        results.sums.events += refused.len() as u64;
        refused.into_iter().for_each(|line| results.refuse(line));
        results.noted.extend(noted);
        let numbers = chunk.lines.iter().map(|line| line.number);
        results.open.extend(numbers);
        results.read = chunk.last;
        if let Some(why) = chunk.failed {
            results.failed.get_or_insert(EarlyEnd::Lines(why));
        }
        chunk.lines
    }

    /// Waits until all lanes are idle.
    async fn settle(&self) {
        if let Ok(all) = self.places.acquire_many(UNDER_WAY).await {
            drop(all);
        }
    }

    /// Applies the lines of one lane in their order.
    async fn lane(&self, mut given: mpsc::UnboundedReceiver<Line>) {
        let mut lines = Vec::with_capacity(BATCH);
        while given.recv_many(&mut lines, BATCH).await > 0 {
            let weight: u32 = lines.iter().map(|line| line.weight).sum();
            self.batch(&mut lines).await;
            self.places.add_permits(weight as usize);
        }
    }

    async fn batch(&self, lines: &mut Vec<Line>) {
        let mut events = Vec::with_capacity(lines.len());
        let mut numbers = Vec::with_capacity(lines.len());
        for line in lines.drain(..) {
            events.push(line.event);
            numbers.push(line.number);
        }
        if self.has_failed() {
            return;
        }
        match self.apply(&events).await {
            Ok(outcomes) => {
                let mut results = self.results();
                for (number, outcome) in numbers.into_iter().zip(outcomes) {
                    results.open.remove(&number);
                    results.sums.events += 1;
                    match outcome {
                        EventOutcome::Applied { .. } | EventOutcome::Accepted { .. } => {
                            results.sums.applied += 1;
                        }
                        EventOutcome::Duplicate { .. } => results.sums.duplicates += 1,
                        EventOutcome::Rejected(why) => {
                            let (code, message) = why.code_and_message();
                            results.refuse(RefusedLine {
                                line: number,
                                code,
                                message,
                            });
                        }
                    }
                }
            }
            Err(error) => {
                self.results().failed.get_or_insert(error.into());
            }
        }
    }

    /// Tries until a batch is applied, the patience ends, or another lane has failed.
    async fn apply(&self, events: &[Event]) -> Result<Vec<EventOutcome>> {
        let mut attempts = Attempts::new(self.patience);
        loop {
            let events = events.to_vec();
            match self.writer.apply(&self.app, events, Wait::Applied).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(error) => self.wait_for_retry(&mut attempts, error).await?,
            }
        }
    }

    /// After a failure: waits before the next attempt, or returns the error if there is to be none.
    async fn wait_for_retry(&self, attempts: &mut Attempts, error: Error) -> Result<()> {
        let given_up = Instant::now() + attempts.pause >= attempts.until;
        if !error.is_transient() || given_up || self.has_failed() {
            return Err(error);
        }
        tokio::time::sleep(attempts.pause).await;
        attempts.pause = (attempts.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// How long to try, and the pause before the next attempt.
struct Attempts {
    until: Instant,
    pause: Duration,
}

impl Attempts {
    fn new(patience: Duration) -> Self {
        Self {
            until: Instant::now() + patience,
            pause: PAUSE,
        }
    }
}

/// Applies the events of files.
pub(crate) struct Importer {
    writer: Writer,
}

impl Importer {
    /// Imports into the data of this engine.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            writer: engine.writer.clone(),
        }
    }

    /// Applies the events of all lines until `stop` is ready; each line is one event in JSON. From time to time it calls `on`
    /// with the progress, with refused lines, in their order, and with noted lines. Returns how far it came, and why it ended
    /// early, if it did.
    pub(crate) async fn import(
        &self,
        app: &AppId,
        lines: impl BufRead + Send + 'static,
        options: ImportOptions,
        stop: impl Future<Output = ()>,
        mut on: impl FnMut(&Imported, Remarks),
    ) -> (Imported, Option<EarlyEnd>) {
        let run = Arc::new(Run {
            writer: self.writer.clone(),
            app: app.clone(),
            patience: options.patience,
            results: Mutex::new(LaneResults {
                may_report: options.max_reported,
                ..LaneResults::default()
            }),
            places: Semaphore::new(UNDER_WAY as usize),
        });
        let (to_chunks, mut chunks) = mpsc::channel(CHUNKS);
        // A thread of its own. Nothing waits for its end, because standard input may never end.
        std::thread::spawn(move || read(lines, &options, &to_chunks));
        let (mut lanes, mut workers) = (Vec::new(), Vec::new());
        for _ in 0..LANES {
            let (to, given) = mpsc::unbounded_channel();
            let run = Arc::clone(&run);
            workers.push(tokio::spawn(async move { run.lane(given).await }));
            lanes.push(to);
        }
        let mut order = Order::new(self.writer.direct_room_ids(app));
        let mut report = |run: &Run, at_the_end: bool| {
            let mut results = run.results();
            let sums = results.sums();
            let up_to = if at_the_end { u64::MAX } else { sums.done_to };
            let remarks = Remarks {
                refused: results.take_refused(up_to),
                noted: std::mem::take(&mut results.noted),
            };
            drop(results);
            on(&sums, remarks);
        };
        let mut stop = std::pin::pin!(stop);
        loop {
            let chunk = tokio::select! {
                chunk = chunks.recv() => chunk,
                () = &mut stop => {
                    run.results().failed.get_or_insert(EarlyEnd::Stopped);
                    break;
                }
            };
            let Some(chunk) = chunk else { break };
            let lines = run.note_read(chunk);
            if let Err(error) = self.distribute(&run, lines, &mut order, &lanes).await {
                run.results().failed.get_or_insert(error.into());
            }
            report(&run, false);
            if run.has_failed() {
                break;
            }
        }
        drop(lanes);
        futures_util::future::join_all(workers).await;
        report(&run, true);
        let mut results = run.results();
        let failed = results.failed.take();
        (results.sums(), failed)
    }

    /// Gives lines to the lanes. The result is the same as if the lines were applied one after the other.
    async fn distribute(
        &self,
        run: &Run,
        lines: Vec<Line>,
        order: &mut Order,
        lanes: &[mpsc::UnboundedSender<Line>],
    ) -> Result<()> {
        let mut rest = VecDeque::from(lines);
        while !rest.is_empty() && !run.has_failed() {
            let events: Vec<&Event> = rest.iter().take(WINDOW).map(|line| &line.event).collect();
            let mut attempts = Attempts::new(run.patience);
            while let Err(error) = order.look_up(&run.writer, &run.app, &events).await {
                run.wait_for_retry(&mut attempts, error).await?;
            }
            for _ in 0..events.len() {
                let Some(line) = rest.pop_front() else { break };
                if !order.may_go(&line.event) {
                    rest.push_front(line);
                    run.settle().await;
                    order.settled();
                    break;
                }
                match order.turn(&line.event)? {
                    Turn::Lane(number) => {
                        let places = run.places.acquire_many(line.weight).await;
                        if let Ok(places) = places {
                            places.forget();
                        }
                        let lane = lanes.get(number as usize % lanes.len().max(1));
                        if lane.is_none_or(|lane| lane.send(line).is_err()) {
                            return Err(Error::Internal("a lane has ended early".into()));
                        }
                    }
                    Turn::Alone => {
                        run.settle().await;
                        run.batch(&mut vec![line]).await;
                        order.settled();
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads all lines into chunks. It waits while enough chunks are read ahead.
fn read(mut lines: impl BufRead, options: &ImportOptions, to: &mpsc::Sender<Chunk>) {
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
                        match event(&text, length, options) {
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
fn line(from: &mut impl BufRead, text: &mut Vec<u8>, most: usize) -> std::io::Result<u64> {
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
fn event(text: &[u8], length: u64, options: &ImportOptions) -> Result<Option<Event>, String> {
    let most = options.max_line;
    if length > most as u64 {
        return Err(format!("the line is longer than {most} bytes"));
    }
    let event = read_line(text.trim_ascii_end());
    let order = match options.by_time {
        true => event::Order::Import,
        false => event::Order::Arrival,
    };
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
        let read = |text: &[u8], length, most| event(text, length, &options(most, false));
        assert!(read(b"abcde", 9, 5).unwrap_err().contains("longer than 5"));
        assert!(read(b" \r\n", 3, 5).unwrap().is_none());
        assert_eq!(read(b"{\"a\"", 4, 50).unwrap_err(), "not JSON: column 4");
    }

    fn options(max_line: usize, by_time: bool) -> ImportOptions {
        ImportOptions {
            name: String::new(),
            from_line: 1,
            by_time,
            max_line,
            patience: Duration::ZERO,
            max_reported: 0,
        }
    }

    #[test]
    fn a_message_without_an_id_is_refused() {
        let text = br#"{"type": "message.sent", "room": "r"}"#;
        let refused = event(text, 40, &options(100, false)).unwrap_err();
        assert_eq!(refused, "id: is missing");
    }

    #[test]
    fn by_time_a_line_without_a_time_is_refused() {
        let text = br#"{"type": "message.sent", "room": "r", "id": "1"}"#;
        assert!(event(text, 50, &options(100, false)).is_ok());
        let refused = event(text, 50, &options(100, true)).unwrap_err();
        assert!(refused.starts_with("time: is missing"), "{refused}");
    }

    #[test]
    fn what_is_under_way_is_bounded_by_its_size() {
        assert_eq!(weight(10), 1);
        assert_eq!(weight(10 * WEIGHT), 11);
        assert_eq!(weight(usize::MAX), UNDER_WAY);
    }
}
