//! A look at the supergroups that are due: each is asked what it now adds to the totals of many users at once.

use std::sync::Arc;

use tokio::time::Instant;

use super::by_time::ByTime;
use super::rooms::Due;
use super::watched::{Recount, Watched};
use super::{BATCH, Hub, RETRY, Watching};
use crate::engine::read::{Supergroup, SupergroupQuestion};
use crate::keys::{Enc, encode};

/// Of how many users a supergroup is asked at once: so many take its node a millisecond or two.
const USERS_AT_ONCE: usize = 250;
/// How many positions of marks may stand in their records. It looks most of them up: these, too, take a few milliseconds.
const POSITIONS_AT_ONCE: usize = 2_000;

/// Questions that are asked together.
#[derive(Default)]
struct Questions<'d> {
    asked: Vec<SupergroupQuestion>,
    /// Of each question: the users, and the number of each user's read.
    reads: Vec<Vec<(&'d Arc<Watched>, u64)>>,
    /// How many positions there are in the last question.
    positions: usize,
}

impl<'d> Questions<'d> {
    fn add(&mut self, room: &Enc, watched: &'d Arc<Watched>, number: u64, record: Arc<Supergroup>) {
        let positions = record.positions();
        let user = (encode(watched.user.as_str()), record);
        match (self.asked.last_mut(), self.reads.last_mut()) {
            (Some(last), Some(reads))
                if last.room == *room
                    && last.users.len() < USERS_AT_ONCE
                    && self.positions + positions <= POSITIONS_AT_ONCE =>
            {
                self.positions += positions;
                last.users.push(user);
                reads.push((watched, number));
            }
            _ => {
                self.positions = positions;
                self.asked.push(SupergroupQuestion {
                    room: room.clone(),
                    users: vec![user],
                });
                self.reads.push(vec![(watched, number)]);
            }
        }
    }

    fn are_enough(&self) -> bool {
        self.asked.len() >= BATCH
    }
}

impl Hub {
    /// Asks Redis to tell the next change of each supergroup that is due, and the supergroups for their contributions. `later`:
    /// who is shown these when a window is over.
    pub(super) async fn look_at_rooms(
        &self,
        watching: &Watching,
        later: &mut ByTime<Arc<Watched>>,
        now: Instant,
    ) {
        loop {
            // Each is taken once: its time comes again later than now.
            let due = watching.rooms.take_due(now, BATCH);
            if due.is_empty() {
                return;
            }
            let names: Vec<_> = due.iter().map(|due| due.room.clone()).collect();
            let is_told = self.reader.watch_rooms(&watching.app, &names).await;
            let (mut told, mut failed) = (Vec::new(), Vec::new());
            for (due, is_told) in due.into_iter().zip(is_told) {
                match is_told {
                    true => told.push(due),
                    false => failed.push(due),
                }
            }
            watching.rooms.again(&failed, Instant::now() + RETRY);
            if told.is_empty() {
                // Redis may be away. The look ends, so that other users are read.
                return;
            }
            self.recount(watching, &told, later).await;
        }
    }

    /// Has these supergroups asked. Users whom that does not serve become due, and are read as a whole.
    async fn recount(&self, watching: &Watching, due: &[Due], later: &mut ByTime<Arc<Watched>>) {
        let mut questions = Questions::default();
        for one in due {
            for watched in &one.users {
                // By the record as it is known now: the rooms before may have taken a while.
                match watched.begin_recount(&one.room) {
                    Recount::Asks(number, record) => {
                        questions.add(&one.room, watched, number, record);
                    }
                    Recount::Reads => watching.enqueue(watched),
                    Recount::Waits => {}
                }
                if questions.are_enough() {
                    let questions = std::mem::take(&mut questions);
                    self.ask(watching, questions, later).await;
                }
            }
        }
        self.ask(watching, questions, later).await;
    }

    async fn ask(
        &self,
        watching: &Watching,
        questions: Questions<'_>,
        later: &mut ByTime<Arc<Watched>>,
    ) {
        let Questions { asked, reads, .. } = questions;
        let answers = self.reader.contributions(&watching.app, &asked).await;
        for ((one, reads), contributions) in asked.iter().zip(&reads).zip(answers) {
            let mut contributions = contributions.into_iter().flatten();
            for (watched, _) in reads {
                let contribution = contributions.next();
                if !contribution
                    .is_some_and(|contribution| watched.recounted(&one.room, contribution))
                {
                    watching.enqueue(watched);
                }
            }
        }
        // Only now, so that what several rooms add is shown as one. The window begins when it is shown.
        let now = Instant::now();
        for (watched, number) in reads.into_iter().flatten() {
            match watched.show_recounted(number, self.window, now) {
                Ok(None) => {}
                Ok(Some(at)) => later.add(at, Arc::clone(watched)),
                // A sum that nobody can have: the read says what is wrong.
                Err(_) => watching.enqueue(watched),
            }
        }
    }

    /// Shows what supergroups have added within windows that are over now.
    pub(super) fn show_later(
        &self,
        watching: &Watching,
        later: &mut ByTime<Arc<Watched>>,
        now: Instant,
    ) {
        while let Some(watched) = later.take(now) {
            match watched.show_later(self.window, now) {
                Ok(None) => {}
                Ok(Some(at)) => later.add(at, watched),
                Err(_) => watching.enqueue(&watched),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rooms::tests::{followed, watched};
    use super::*;

    #[test]
    fn a_question_is_bounded_by_users_and_by_positions() {
        let user = watched("u");
        let record = |positions: usize| {
            let mut record = Arc::into_inner(followed("x").record).unwrap();
            let half: Vec<_> = (1..=positions / 2).map(|at| at.to_string()).collect();
            (record.holes, record.mentions) = (half.join(","), half.join(","));
            assert_eq!(record.positions(), positions / 2 * 2);
            Arc::new(record)
        };
        let sizes = |users: &[(&str, usize)]| -> Vec<usize> {
            let mut questions = Questions::default();
            for (room, positions) in users {
                questions.add(&encode(room), &user, 1, record(*positions));
            }
            let sizes: Vec<_> = questions.asked.iter().map(|one| one.users.len()).collect();
            let reads: Vec<_> = questions.reads.iter().map(Vec::len).collect();
            assert_eq!(sizes, reads);
            sizes
        };
        assert_eq!(sizes(&[("x", 0); 501]), [250, 250, 1]);
        assert_eq!(sizes(&[("x", 0), ("x", 2), ("y", 0), ("x", 0)]), [2, 1, 1]);
        assert_eq!(sizes(&[("x", 500); 9]), [4, 4, 1]);
        // Who has more is asked for alone.
        assert_eq!(
            sizes(&[("x", 2), ("x", 9_000), ("x", 2_000), ("x", 2)]),
            [1, 1, 1, 1]
        );
    }
}
