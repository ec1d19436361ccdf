//! A pod that stops at a chosen script: between it and Redis stands a proxy that lets the call through and keeps back the
//! answer, and every other answer from then on. So Redis has taken the event and the pod has told nobody. A [`Wire`] alone does
//! the same to a command.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::task::JoinHandle;

use super::{App, Config, PATIENCE, Pod, RedisServer, Reply, Wait, scripts, until};

/// A pod in the middle of its work.
pub struct Stopped {
    wire: Wire,
    pod: Pod,
    caller: JoinHandle<Result<Reply, reqwest::Error>>,
}

impl Stopped {
    /// Starts a pod, sends it `events`, and stops it at the call of `script`: Redis has run the script, the pod has no answer,
    /// and `pending` holds one job more than before. `config` says how long the pod then waits for Redis.
    pub async fn at(
        config: &Config,
        redis: &RedisServer,
        app: &App,
        script: &str,
        pending: &str,
        events: Value,
    ) -> Self {
        let (wire, pod) = behind_a_wire(config, redis);
        let jobs = || redis.cli(&["HLEN", pending]).parse::<u64>().unwrap();
        let before = jobs();
        wire.hold_at(script);
        let app = app.on(&pod.base);
        let caller = tokio::spawn(async move { app.try_events(&events, Wait::Applied).await });
        until(&format!("the event is taken, and {script} is held"), || {
            (jobs() > before && wire.is_holding()).then_some(())
        });
        Self { wire, pod, caller }
    }

    /// The same, but the call of `script` does not reach Redis. What `events` do before that call is done.
    pub fn before(
        config: &Config,
        redis: &RedisServer,
        app: &App,
        script: &str,
        events: Value,
    ) -> Self {
        let (wire, pod) = behind_a_wire(config, redis);
        wire.shared.change(|state| state.before = true);
        wire.hold_at(script);
        let app = app.on(&pod.base);
        let caller = tokio::spawn(async move { app.try_events(&events, Wait::Applied).await });
        until("the call comes", || wire.is_holding().then_some(()));
        Self { wire, pod, caller }
    }

    /// The pod dies here.
    pub async fn dies(mut self) {
        self.pod.kill9();
        self.caller.await.unwrap().unwrap_err();
    }

    /// The pod goes on as if nothing had happened; answers what its caller is told.
    pub async fn goes_on(self) -> Reply {
        self.wire.let_go();
        self.caller.await.unwrap().unwrap()
    }
}

/// A pod that is ready, and the wire between it and Redis.
fn behind_a_wire(config: &Config, redis: &RedisServer) -> (Wire, Pod) {
    let wire = Wire::to(redis);
    let pod = Pod::start_at(config, &wire.url());
    (wire, pod)
}

#[derive(Default)]
struct State {
    /// What to stop at: the digest of a script, or more of a call.
    at: Option<String>,
    /// Whether the call is kept back, instead of its answer.
    before: bool,
    holding: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for as long as this direction is held. Answers false when the wire was closed meanwhile.
    fn passes(&self, held: impl Fn(&State) -> bool) -> bool {
        let held = |state: &mut State| state.holding && held(state) && !state.closed;
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), PATIENCE * 2, held)
            .unwrap_or_else(PoisonError::into_inner);
        !state.closed
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.state());
        self.changed.notify_all();
    }
}

/// A proxy in front of Redis.
pub struct Wire {
    port: u16,
    shared: Arc<Shared>,
}

impl Wire {
    pub fn to(redis: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let address = redis.url().replace("redis://", "");
        let state = Arc::clone(&shared);
        // The threads end with the connections they carry; this one when the wire is dropped.
        std::thread::spawn(move || {
            for pod in listener.incoming().map_while(Result::ok) {
                if state.state().closed {
                    return;
                }
                let Ok(redis) = TcpStream::connect(&address) else {
                    continue;
                };
                let (calls, answers) = (Arc::clone(&state), Arc::clone(&state));
                let (from, to) = (pod.try_clone().unwrap(), redis.try_clone().unwrap());
                std::thread::spawn(move || carry_calls(from, to, &calls));
                std::thread::spawn(move || carry_answers(redis, pod, &answers));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn hold_at(&self, script: &str) {
        self.hold_at_text(&scripts::digest(&scripts::text(script)));
    }

    /// From the next call on that has this in it, as it goes over the wire, no answer comes back.
    pub fn hold_at_text(&self, text: &str) {
        self.shared.change(|state| state.at = Some(text.to_owned()));
    }

    /// Whether that call has come.
    pub fn is_holding(&self) -> bool {
        self.shared.state().holding
    }

    fn let_go(&self) {
        self.shared.change(|state| {
            state.at = None;
            state.holding = false;
        });
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.change(|state| state.closed = true);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn carry_calls(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut bytes = vec![0; 1 << 16];
    // A digest may come in two pieces.
    let mut seen = Vec::new();
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        seen.extend_from_slice(&bytes[..n]);
        shared.change(|state| {
            if let Some(what) = &state.at
                && seen.windows(what.len()).any(|at| at == what.as_bytes())
            {
                state.holding = true;
            }
        });
        seen.drain(..seen.len().saturating_sub(64));
        if !shared.passes(|state| state.before) {
            break;
        }
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn carry_answers(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if !shared.passes(|state| !state.before) {
            break;
        }
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
