//! Imports events from lines, by the million. A thread reads ahead, and several *lanes* apply batches at the same time. All
//! events of a room go to the same lane, so they stay in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::BufRead;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

use crate::engine::{Engine, Writer};
use crate::error::{Error, Result};
use crate::event::{Event, EventOutcome, Notes, Rejection, Wait};
use crate::intake::lines::{
    Chunk, Line, LineForm, LineOptions, NotedLine, RefusedLine, Remarks, UNDER_WAY, read,
};
use crate::intake::order::{Order, Turn};
use crate::names::AppId;

/// How many batches are applied at the same time. All events of a room go to the same lane.
const LANES: usize = 8;
/// The most events in one batch.
const BATCH: usize = 1_000;
/// The most rows of a counts file in one batch. For each of them its room looks through the jobs of all the others that it has
/// accepted and that are not delivered yet.
const ROWS: usize = 250;
/// How many chunks are read ahead.
const CHUNKS: usize = 4;
/// For how many events at once Redis is asked what their order depends on.
const WINDOW: usize = 250;
/// The pause before the second attempt at a batch. It doubles with each further attempt.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How to import.
#[derive(Debug, Clone)]
pub(crate) struct ImportOptions {
    /// How to read the lines.
    pub lines: LineOptions,
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

    /// The lines that an event has prepared say by themselves whether they were applied. Why they were not, only the event says.
    fn note_preparation(&mut self, line: u64, outcome: EventOutcome) {
        if let EventOutcome::Rejected(why) = outcome {
            let (code, message) = why.code_and_message();
            let what = match why {
                // Each user of a direct room is let in alone, by the first row of that user.
                Rejection::DirectRoomFull => "this user was not let into the room",
                _ => "from this row on",
            };
            let notes = Notes::one(format_args!("{what}: {code}: {message}"));
            self.noted.push(NotedLine { line, notes });
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
    /// The most events in one batch.
    batch: usize,
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
        let own = chunk.lines.iter().filter(|line| !line.prepares);
        results.open.extend(own.map(|line| line.number));
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
        let mut lines = Vec::with_capacity(self.batch);
        while given.recv_many(&mut lines, self.batch).await > 0 {
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
            numbers.push((line.number, line.prepares));
        }
        if self.has_failed() {
            return;
        }
        match self.apply(&events).await {
            Ok(outcomes) => {
                let mut results = self.results();
                for ((number, prepares), outcome) in numbers.into_iter().zip(outcomes) {
                    if prepares {
                        results.note_preparation(number, outcome);
                        continue;
                    }
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
            batch: match options.lines.form {
                LineForm::Events { .. } => BATCH,
                LineForm::Counts { .. } => ROWS,
            },
            results: Mutex::new(LaneResults {
                may_report: options.max_reported,
                ..LaneResults::default()
            }),
            places: Semaphore::new(UNDER_WAY as usize),
        });
        let (to_chunks, mut chunks) = mpsc::channel(CHUNKS);
        // A thread of its own. Nothing waits for its end, because standard input may never end.
        std::thread::spawn(move || read(lines, &options.lines, &to_chunks));
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
