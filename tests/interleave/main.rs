//! Every pair of operations of two pods on one room and one user: the first is held before each of its commands in turn while
//! the second runs whole, and then goes on, or its pod dies there. What was answered, what is read meanwhile and what is read in
//! the end has to be what some serial order of the events gives.
//!
//! Minutes, not seconds, so `make test-interleave` runs this and `make test` does not. As a rule it runs every pair of the most
//! important operations and a part of the others. `INTERLEAVE=all` runs all of it, for hours, goes on where it was interrupted,
//! and can be shared out by `INTERLEAVE_PART=1/5`; `INTERLEAVE=triples` meets the first operation with two others, `TEST_STEPS`
//! of them by chance from `TEST_SEED`. `INTERLEAVE=NAME` runs one case, or all whose names begin like that, and shows the
//! commands; `NAME,NAME` runs several.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

/// Processes, a client, the model, and what else all test binaries share.
#[path = "../support/mod.rs"]
mod support;

/// Scenes and operations.
mod operations;

/// What meets what, and which of it is run.
mod plan;

/// A proxy between a pod and Redis that holds back one case's commands.
mod proxy;

/// Which states the answers allow.
mod serial;

/// What the endpoints say, asked once.
mod answers;

/// One case.
mod case;

/// Redis, the two pods, and all cases in front of them.
mod world;

/// What went wrong, so that it can be read.
mod report;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Instant, UNIX_EPOCH};

use plan::{Meeting, Plan, plan};
use report::{Failure, report};
use world::{LANES, World};

/// Cases in front of one Redis.
const CASES: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_interleaving_is_a_serial_order() {
    let start = Instant::now();
    let Plan {
        meetings,
        verbose,
        only,
        long,
    } = plan();
    let mut kept = Kept::open(long);
    let mut failures = std::mem::take(&mut kept.failures);
    let todo = |meeting: &Meeting| !kept.done.contains(&meeting.to_string());
    // Taken from the end.
    let mut rest: Vec<Meeting> = meetings.into_iter().filter(todo).rev().collect();
    println!("{} meetings", rest.len());
    let mut cases = 0;
    while !rest.is_empty() {
        let world = Arc::new(World::start(if verbose { 1_500 } else { CASES }, verbose).await);
        let queue = Arc::new(Mutex::new(std::mem::take(&mut rest)));
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut lanes = tokio::task::JoinSet::new();
        for _ in 0..if verbose { 1 } else { LANES } {
            let (world, queue, done) = (Arc::clone(&world), Arc::clone(&queue), Arc::clone(&done));
            lanes.spawn(async move {
                let lane = world.lane();
                while world.has_place() {
                    let Some(meeting) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    world.meet(&lane, &meeting, only).await;
                    done.lock().unwrap().push(meeting.to_string());
                }
            });
        }
        lanes.join_all().await;
        world.settle().await;
        rest = std::mem::take(&mut *queue.lock().unwrap());
        cases += world.cases();
        let found = std::mem::take(&mut *world.failures.lock().unwrap());
        kept.add(&done.lock().unwrap(), &found);
        failures.extend(found);
        println!(
            "{cases} cases in {:?}, {} failures, {} meetings left",
            start.elapsed(),
            failures.len(),
            rest.len()
        );
    }
    kept.close();
    assert!(failures.is_empty(), "{}", report(&failures));
}

/// What a long run has done so far, in a file, as long as the program is the same.
struct Kept {
    file: Option<PathBuf>,
    done: BTreeSet<String>,
    failures: Vec<Failure>,
}

impl Kept {
    fn open(long: bool) -> Self {
        let binary = std::fs::metadata(env!("CARGO_BIN_EXE_unread")).unwrap();
        let changed = binary
            .modified()
            .unwrap()
            .duration_since(UNIX_EPOCH)
            .unwrap();
        let program = format!(
            "program of {} bytes, made at {}",
            binary.len(),
            changed.as_millis()
        );
        let part = std::env::var("INTERLEAVE_PART")
            .unwrap_or_default()
            .replace('/', "-");
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("interleave{part}.txt"));
        let mut kept = Self {
            file: long.then(|| file.clone()),
            done: BTreeSet::new(),
            failures: Vec::new(),
        };
        if !long {
            return kept;
        }
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut lines = text.lines();
        if lines.next() == Some(program.as_str()) {
            for line in lines {
                match Failure::parse(line) {
                    Some(failure) => kept.failures.push(failure),
                    None => drop(kept.done.insert(line.to_owned())),
                }
            }
            println!("{} meetings are done already", kept.done.len());
        } else {
            std::fs::write(&file, format!("{program}\n")).unwrap();
        }
        kept
    }

    fn add(&self, done: &[String], failures: &[Failure]) {
        let Some(file) = &self.file else { return };
        let mut text = std::fs::read_to_string(file).unwrap();
        for meeting in done {
            writeln!(text, "{meeting}").unwrap();
        }
        for failure in failures {
            writeln!(text, "{}", failure.line()).unwrap();
        }
        std::fs::write(file, text).unwrap();
    }

    fn close(&self) {
        if let Some(file) = &self.file {
            std::fs::remove_file(file).unwrap();
        }
    }
}
