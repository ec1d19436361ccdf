//! The admin address: health, metrics, the description of the API, and the console.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use actix_web::dev::Server;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use arc_swap::ArcSwapOption;

use super::bounds;
use crate::config::Config;
use crate::engine::{self, Probe, RedisState, SchemaState};
use crate::http::edge::{self, Answers, Edge};
use crate::http::{self, Unserved};
use crate::pages::console::{self, Console, PodState};
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};

/// How many connections the admin address takes. They do not depend on those of the public address.
pub(super) const ADMIN_CONNECTIONS: usize = 256;
/// The paths of the admin address, beside those of the console.
const PATHS: [&str; 5] = [
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.yaml",
    "/openapi.json",
];

/// What `/readyz` answers from.
#[derive(Default)]
pub(super) struct Readiness {
    pub(super) server: AtomicU8,
    /// Whether Redis has ever answered. A later outage does not make a pod unready. If it did, all pods would be unready at once,
    /// and callers would get an answer of the balancer instead of one in their own dialect.
    pub(super) redis_answered: AtomicBool,
    /// Whether Redis serves at least reads, by the last probe.
    pub(super) redis_serves: AtomicBool,
    /// The last probe of Redis; absent: there was none yet.
    pub(super) redis: ArcSwapOption<Probe>,
    /// Knows what has happened to Redis since that probe.
    pub(super) engine: OnceLock<engine::Health>,
    /// The version of the data, as the log has it.
    pub(super) schema: ArcSwapOption<&'static str>,
}

impl Readiness {
    /// The state of Redis.
    pub(super) fn redis_state(&self) -> Option<RedisState> {
        let last = self.redis.load_full()?;
        Some(self.engine.get()?.redis_state(&last))
    }

    /// Which version the data have.
    fn schema_state(&self) -> Option<SchemaState> {
        Some(self.engine.get()?.schema_state())
    }

    /// How the pod is.
    pub(super) fn pod_state(&self) -> PodState {
        let server = match self.server.load(Ordering::Acquire) {
            STARTING => "starting",
            SERVING => "serving",
            _ => "stopping",
        };
        let seen = self.redis_state();
        let (redis, why) = match &seen {
            Some(redis_state) => (redis_state.state, redis_state.why.as_str()),
            None => ("down", "nobody has asked it yet"),
        };
        let schema = self.schema_state();
        let refused = schema.as_ref().is_some_and(|schema| schema.refused);
        let of_schema = schema.as_ref().map_or("", |schema| schema.why.as_str());
        let reasons = [why, of_schema].into_iter().filter(|why| !why.is_empty());
        PodState {
            ready: server == "serving" && self.redis_answered.load(Ordering::Relaxed) && !refused,
            server,
            redis,
            schema: schema.as_ref().map_or("unknown", |schema| schema.state),
            reason: reasons.collect::<Vec<_>>().join("; "),
        }
    }
}

/// The pod does not listen yet.
const STARTING: u8 = 0;
/// It answers.
pub(super) const SERVING: u8 = 1;
/// The pod is stopping.
pub(super) const STOPPING: u8 = 2;

/// The server of the admin address.
pub(super) fn admin_server(
    listener: TcpListener,
    config: &Config,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    console: Arc<Console>,
) -> io::Result<Server> {
    let edge = Edge {
        name: "admin",
        bounds: bounds(config),
        trusted_proxies: Vec::new(),
        refuse: |_, why| http::unserved(why),
        metrics: None,
        answers: Arc::new(Answers::new(config.server.max_answers_bytes)),
        workers: 1,
        grace_seconds: 1,
        leaving: Arc::default(),
    };
    let readiness = web::Data::from(readiness);
    let metrics = web::Data::from(metrics);
    edge::server(listener, &edge, move || {
        actix_web::App::new()
            .app_data(readiness.clone())
            .app_data(metrics.clone())
            .configure(|service| console::add_to(Arc::clone(&console), service))
            .route("/livez", http::get_or_head().to(livez))
            .route("/readyz", http::get_or_head().to(readyz))
            .route("/metrics", http::get_or_head().to(show_metrics))
            .route("/openapi.yaml", http::get_or_head().to(openapi_yaml))
            .route("/openapi.json", http::get_or_head().to(openapi_json))
            .default_service(web::to(unknown_path))
    })
}

/// The answer to a wrong path or method.
async fn unknown_path(request: HttpRequest) -> HttpResponse {
    let path = request.path();
    let own = PATHS.contains(&path).then_some("GET, HEAD");
    http::unserved(match own.or_else(|| console::methods(path)) {
        Some(methods) => Unserved::WrongMethod(methods),
        None => Unserved::NoPath,
    })
}

/// Never asks Redis: an outage there must not restart every pod.
async fn livez() -> HttpResponse {
    page(HttpResponse::Ok(), &serde_json::json!({ "alive": true }))
}

async fn readyz(readiness: web::Data<Readiness>) -> HttpResponse {
    let state = readiness.pod_state();
    let answer = match state.ready {
        true => HttpResponse::Ok(),
        false => HttpResponse::ServiceUnavailable(),
    };
    let mut body = serde_json::json!({
        "ready": state.ready,
        "components": {"server": state.server, "redis": state.redis, "schema": state.schema},
    });
    if let (false, Some(body)) = (state.reason.is_empty(), body.as_object_mut()) {
        body.insert("reason".to_owned(), state.reason.into());
    }
    page(answer, &body)
}

/// A page of the admin address: JSON and a line feed, which ends every answer of this program.
fn page(mut answer: HttpResponseBuilder, body: &serde_json::Value) -> HttpResponse {
    answer
        .content_type("application/json")
        .body(format!("{body}\n"))
}

/// The metrics name the apps and say how much each calls: where there is a token, they want it too.
async fn show_metrics(
    request: HttpRequest,
    console: web::Data<Console>,
    metrics: web::Data<Metrics>,
) -> HttpResponse {
    if let Err(closed) = console.admits(&request) {
        return closed.answer();
    }
    HttpResponse::Ok()
        .content_type(CONTENT_TYPE)
        .body(metrics.encode())
}

/// The description of the API, for people and for generators of clients. The repository has it as YAML and as JSON, and a test
/// keeps both the same, so the program needs no parser of YAML.
async fn openapi_yaml() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/yaml")
        .body(include_str!("../../docs/openapi.yaml"))
}

async fn openapi_json() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(include_str!("../../docs/openapi.json"))
}
