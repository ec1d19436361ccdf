//! The console: a page on the admin address that shows how the pod is, and what stands in Redis of one user or room. It reads and
//! writes nothing. What it shows has the names of users in it, so its calls pass a [`gate`].

mod calls;
mod gate;
mod samples;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::web::{self, ServiceConfig};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::File;
use crate::config::{AppConfig, ServerConfig};
use crate::engine::Reader;
use crate::http;
use crate::inspector::Inspector;
use crate::telemetry::metrics::Metrics;
use gate::Gate;
use samples::Samples;

pub(crate) use gate::Closed;

/// The pause between two samples.
const EVERY: Duration = Duration::from_secs(3);
/// How many looks into Redis run at once. A page makes one a second.
const LOOKS: usize = 8;

const FILES: [File; 4] = [
    File::page("/", include_str!("console/page.html")),
    File::script("/console.js", include_str!("console/console.js")),
    File::script("/console-dom.js", include_str!("console/dom.js")),
    File::style("/console.css", include_str!("console/console.css")),
];

/// How a pod is, as `/readyz` has it.
#[derive(Debug, Clone)]
pub(crate) struct PodState {
    /// Whether it is ready.
    pub ready: bool,
    /// `starting`, `serving` or `stopping`.
    pub server: &'static str,
    /// The state of Redis in a word.
    pub redis: &'static str,
    /// The version of the data in a word.
    pub schema: &'static str,
    /// What is wrong; empty if all is well.
    pub reason: String,
}

/// What looks into Redis.
struct Stored {
    inspector: Inspector,
    reader: Arc<Reader>,
}

/// The console of a pod.
pub(crate) struct Console {
    gate: Gate,
    apps: Vec<String>,
    metrics: Arc<Metrics>,
    samples: Mutex<Samples>,
    /// When it was made, in milliseconds since the epoch.
    started: u64,
    state: Box<dyn Fn() -> PodState + Send + Sync>,
    /// Absent until the pod has its connections to Redis.
    stored: OnceLock<Arc<Stored>>,
    /// Where looks into Redis run: its connections outlive the threads that serve the admin address.
    runtime: Handle,
    looks: Arc<Semaphore>,
    verifying: Arc<Semaphore>,
}

impl Console {
    /// The console of a pod with these settings and apps; `state` says how the pod is. Needs a tokio runtime.
    pub(crate) fn new(
        server: &ServerConfig,
        apps: &[AppConfig],
        metrics: Arc<Metrics>,
        state: impl Fn() -> PodState + Send + Sync + 'static,
    ) -> Self {
        Self {
            gate: Gate::new(server),
            apps: apps.iter().map(|app| app.id.as_str().to_owned()).collect(),
            metrics,
            samples: Mutex::default(),
            started: millis(),
            state: Box::new(state),
            stored: OnceLock::new(),
            runtime: Handle::current(),
            looks: Arc::new(Semaphore::new(LOOKS)),
            verifying: Arc::new(Semaphore::new(1)),
        }
    }

    /// Gives it what looks into Redis.
    pub(crate) fn connect(&self, inspector: Inspector, reader: Arc<Reader>) {
        // Only the first one counts.
        let _ = self.stored.set(Arc::new(Stored { inspector, reader }));
    }

    /// Takes samples, for as long as it is polled.
    pub(crate) async fn take_samples(&self) {
        loop {
            self.take_sample();
            tokio::time::sleep(EVERY).await;
        }
    }

    fn take_sample(&self) {
        let sample = self.metrics.sample();
        let samples = self.samples.lock();
        let mut samples = samples.unwrap_or_else(PoisonError::into_inner);
        samples.add(millis(), sample);
    }

    /// Whether a request to the admin address has the token, if one is set.
    pub(crate) fn admits(&self, request: &actix_web::HttpRequest) -> Result<(), Closed> {
        self.gate.has_token(request)
    }
}

/// Adds the console's files and calls.
pub(crate) fn add_to(console: Arc<Console>, service: &mut ServiceConfig) {
    for file in FILES {
        let answer = move || async move { file.answer() };
        service.route(file.path, http::get_or_head().to(answer));
    }
    service
        .app_data(web::Data::from(console))
        .route("/console/overview", http::get_or_head().to(calls::overview))
        .route("/console/user", http::get_or_head().to(calls::user))
        .route("/console/room", http::get_or_head().to(calls::room))
        .route("/console/verify", web::post().to(calls::verify));
}

/// The methods that a path of the console takes; none: it is no path of the console.
pub(crate) fn methods(path: &str) -> Option<&'static str> {
    match path {
        "/console/verify" => Some("POST"),
        "/console/overview" | "/console/user" | "/console/room" => Some("GET, HEAD"),
        path => FILES
            .iter()
            .any(|file| file.path == path)
            .then_some("GET, HEAD"),
    }
}

/// The clock, in milliseconds since the epoch.
fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
