//! One case: an operation of one pod that is held before one of its commands, others of another pod meanwhile, and what was
//! answered and is read.

use std::fmt;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::answers::{Seen, explain_all, explain_each};
use crate::operations::{Family, Operation, Scene, Stage};
use crate::plan::{End, Meeting};
use crate::proxy::Stop;
use crate::report::{Fault, Site};
use crate::serial::{Call, States};
use crate::support::check;
use crate::support::model::{Model, Order};
use crate::support::{App, Reply, Wait};
use crate::world::{Lane, World};

type Answer = Result<Reply, reqwest::Error>;

/// A history that is looked at when the work of the dead has been finished.
pub(crate) struct Pending {
    app: App,
    /// What can have come of it.
    states: Vec<Model>,
    room: String,
    /// What was wrong at first; none: it has not been looked at.
    before: Option<String>,
    pub site: Site,
}

/// One case under way.
pub(crate) struct Case<'a> {
    world: &'a World,
    meeting: &'a Meeting,
    pub number: usize,
    held: App,
    free: App,
    room: String,
    /// The state to begin with.
    start: Model,
    calls: Vec<Call>,
    clock: u32,
    site: Site,
}

impl<'a> Case<'a> {
    pub(crate) fn new(world: &'a World, lane: &Lane, meeting: &'a Meeting, at: usize) -> Self {
        let site = Site {
            operations: format!("{} x {}", meeting.first.name, meeting.others()),
            meeting: meeting.to_string(),
            at,
            before: String::new(),
        };
        let (number, held, free) = world.begin(lane, Some(site.clone()));
        Self {
            world,
            meeting,
            number,
            held,
            free,
            room: meeting.scene.room(&world.pair).to_owned(),
            start: Model::default(),
            calls: Vec::new(),
            clock: 1,
            site,
        }
    }

    fn failed(&self, fault: Fault, why: impl Into<String>) {
        self.world.failed(fault, &self.site, why.into());
    }

    fn tick(&mut self) -> u32 {
        self.clock += 1;
        self.clock
    }

    fn told(&self, what: &str, text: impl fmt::Display) {
        if self.world.verbose {
            println!("{what}: {text}");
        }
    }

    /// Whether the first operation went through without being held.
    pub(crate) async fn run(&mut self) -> bool {
        if let Err(reason) = self.begin().await {
            self.failed(Fault::Scene, reason);
            return true;
        }
        let (first, others) = (self.meeting.first, &self.meeting.others);
        let mut letters = ["x", "y", "z", "w"].into_iter();
        let mut events_of = |operation: &Operation, n: i64| {
            let letter = letters.next().unwrap();
            let other = if letter == "x" { "y" } else { "x" };
            operation.events(&self.room, letter, other, n * 100_000)
        };
        let events = events_of(first, 1);
        let others: Vec<(Order, Vec<Value>)> = others
            .iter()
            .zip(2..)
            .map(|(operation, n)| (operation.order, events_of(operation, n)))
            .collect();

        self.world.wire.arm(self.number, Stop::Before(self.site.at));
        let invoked = self.tick();
        let (app, sent) = (by(first.order, &self.held), json!(events));
        let mut caller = tokio::spawn(async move { app.try_events(&sent, Wait::Applied).await });
        let early = tokio::select! {
            biased;
            () = self.world.wire.held(self.number) => None,
            reply = &mut caller => Some(reply.unwrap()),
        };
        let (log, passed) = self.world.wire.log(self.number);
        if let Some(name) = log.get(passed).and_then(|line| line.split(' ').next()) {
            self.site.before = name.to_owned();
        }
        self.told("first", json!(events));
        for (n, line) in log.iter().enumerate() {
            let mark = if n == passed { "held before" } else { "" };
            self.told(&format!("{mark:>12} {n}"), line);
        }
        let went_through = early.is_some();
        let x = self.called(first.order, events, invoked);
        if let Some(reply) = early {
            self.answered(x, reply);
        }
        for (order, events) in others {
            self.other(order, events).await;
        }
        if !went_through {
            self.go_on(x, passed, caller).await;
        }
        self.finally().await;
        went_through
    }

    /// Takes down a request; answers its number.
    fn called(&mut self, order: Order, events: Vec<Value>, invoked: u32) -> usize {
        self.calls.push(Call {
            order,
            events,
            results: None,
            invoked,
            answered: None,
        });
        self.calls.len() - 1
    }

    /// Runs another operation whole, by the other pod.
    async fn other(&mut self, order: Order, events: Vec<Value>) {
        let invoked = self.tick();
        self.told("other", json!(events));
        if let Some(wire) = &self.world.free_wire {
            wire.arm(self.number, Stop::Before(usize::MAX));
        }
        let app = by(order, &self.free);
        let reply = app.try_events(&json!(events), Wait::Applied).await;
        if let Some(wire) = &self.world.free_wire {
            for (n, line) in wire.log(self.number).0.iter().enumerate() {
                self.told(&format!("{n:>14}"), line);
            }
            wire.forget(self.number);
        }
        let call = self.called(order, events, invoked);
        self.answered(call, reply);
    }

    /// The first operation, held after so many commands, goes on, or its pod is dead.
    async fn go_on(&mut self, call: usize, passed: usize, caller: JoinHandle<Answer>) {
        let held = self.meeting.end == End::Held;
        if held {
            self.meanwhile().await;
            self.world.wire.release(self.number);
        } else {
            self.world.wire.kill(self.number);
        }
        let reply = caller.await.unwrap();
        let (log, _) = self.world.wire.log(self.number);
        for (n, line) in log.iter().enumerate().skip(passed) {
            let then = if held { "then" } else { "lost" };
            self.told(&format!("{then:>12} {n}"), line);
        }
        match reply {
            Ok(reply) if !held && reply.status >= 500 => self.told("no answer", reply.text),
            reply => self.answered(call, reply),
        }
    }

    /// Brings the scene about.
    async fn begin(&mut self) -> Result<(), String> {
        for stage in self.meeting.scene.stages(&self.world.pair) {
            match stage {
                Stage::Sent(events) => {
                    let app = if self.meeting.scene.warm {
                        &self.held
                    } else {
                        &self.free
                    };
                    let reply = app.events(&json!(events), Wait::Applied).await;
                    let (scene, pair) = (self.meeting.scene, &self.world.pair);
                    let named = |before: &Model, model: &mut Model| {
                        name_the_pair(before, model, scene, pair)
                    };
                    let start = &mut self.start;
                    let outcomes: Vec<_> = events
                        .iter()
                        .map(|event| {
                            let before = start.clone();
                            let outcome = start.apply(event);
                            named(&before, start);
                            outcome
                        })
                        .collect();
                    self.told("scene", json!(events));
                    check::results(&events, &reply, &outcomes, false)?;
                }
                Stage::Cut(events, script) => {
                    self.world.wire.arm(self.number, Stop::Script(script));
                    let (app, sent) = (self.held.clone(), json!(events));
                    let caller =
                        tokio::spawn(async move { app.try_events(&sent, Wait::Applied).await });
                    self.world.wire.held(self.number).await;
                    self.world.wire.kill(self.number);
                    let reply = caller.await.unwrap().map_err(|error| error.to_string())?;
                    self.told("scene, cut", json!(events));
                    if reply.status < 500 {
                        return Err(format!("cut, and answered: {}", reply.text));
                    }
                    self.world.wire.forget(self.number);
                    let invoked = self.tick();
                    self.called(Order::Arrival, events, invoked);
                }
            }
        }
        Ok(())
    }

    /// Takes down what a request was answered.
    fn answered(&mut self, call: usize, reply: Answer) {
        let now = self.tick();
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return self.failed(Fault::Refused, error.to_string()),
        };
        self.told("answer", &reply.text);
        let call = &mut self.calls[call];
        match reply.body["results"].as_array() {
            Some(results) if reply.status == 200 && results.len() == call.events.len() => {
                call.results = Some(results.clone());
                call.answered = Some(now);
            }
            _ => {
                let why = format!("{} {} to {:?}", reply.status, reply.text, call.events);
                self.failed(Fault::Refused, why);
            }
        }
    }

    fn states(&self) -> States {
        let (scene, pair) = (self.meeting.scene, &self.world.pair);
        let named = |before: &Model, model: &mut Model| name_the_pair(before, model, scene, pair);
        let mut states = States::default();
        states.add(&self.start, &self.calls, &named);
        states
    }

    /// What is read while the first operation is held: the others were answered, it may or may not have happened.
    async fn meanwhile(&mut self) {
        let states = self.states();
        if states.complete.is_empty() {
            return self.failed(Fault::Outcome, self.outcomes());
        }
        let (mut events, mut results) = (Vec::new(), Vec::new());
        for call in &self.calls {
            if let Some(answers) = &call.results {
                events.extend(call.events.iter().cloned());
                results.extend(
                    answers
                        .iter()
                        .map(|result| result["status"].as_str().unwrap_or_default()),
                );
            }
        }
        // Only what was applied is promised to show at once.
        if !results
            .iter()
            .all(|status| matches!(*status, "applied" | "duplicate"))
        {
            return;
        }
        let seen = Seen::of(&self.free);
        if let Err(reason) = explain_each(&seen, states, &events).await {
            self.failed(Fault::Meanwhile, reason);
        }
    }

    async fn finally(&mut self) {
        let mut one = Pending {
            app: self.free.clone(),
            states: self.states().complete,
            room: self.room.clone(),
            before: None,
            site: self.site.clone(),
        };
        if one.states.is_empty() {
            return self.failed(Fault::Outcome, self.outcomes());
        }
        // What a dead pod has left is finished by another one when its lease has run out.
        if self.calls.iter().all(|call| call.results.is_some()) {
            match one.looked_at().await {
                None => return,
                Some((_, why)) => one.before = Some(why),
            }
        }
        self.world.pending.lock().unwrap().push(one);
    }

    fn outcomes(&self) -> String {
        outcomes(&self.calls)
    }
}

/// The app, to which events are sent in that order.
fn by(order: Order, app: &App) -> App {
    let mut app = app.clone();
    app.by_time = order != Order::Arrival;
    app
}

/// What was asked and answered.
fn outcomes(calls: &[Call]) -> String {
    let mut text = "no order gives these answers:".to_owned();
    for call in calls {
        let answers = call
            .results
            .as_ref()
            .map_or("no answer".to_owned(), |results| json!(results).to_string());
        text.push_str(&format!("\n    {}\n      {answers}", json!(call.events)));
    }
    text
}

/// The room that a message between `a` and `b` has just made gets the id that it has, if no other room has it. Where they have
/// had another one by hand, theirs may come to have that one's name again: nobody says which it has to be.
fn name_the_pair(before: &Model, model: &mut Model, scene: &Scene, pair: &str) {
    let made = Model::unlearned("a", "b");
    let new = model.rooms.contains_key(&made) && !before.rooms.contains_key(&made);
    if new && scene.family == Family::Pair && !model.rooms.contains_key(pair) {
        model.learn("a", "b", pair);
    }
}

impl Pending {
    /// What is wrong with what is read now.
    pub(crate) async fn looked_at(&self) -> Option<(Fault, String)> {
        let seen = Seen::of(&self.app);
        let outcome = explain_all(&seen, self.states.clone(), &self.room).await;
        match (outcome, &self.before) {
            (Ok(()), None) => None,
            (Ok(()), Some(before)) => Some((Fault::Late, before.clone())),
            (Err(why), _) => Some((Fault::Wrong, why)),
        }
    }
}
