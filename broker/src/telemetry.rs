//! What a broker says of itself: log lines, metrics, health.
//!
//! Never a token, a key, a proof or free text; and no label that a caller can choose.

use std::convert::Infallible;
use std::future::Future;
use std::io::IsTerminal as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use dayfly_verifier::time::Clock;
use http::{Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tonic::body::Body;
use tower_service::Service;
use tracing_subscriber::EnvFilter;

use crate::caller::listed;
use crate::config::{Log, LogFormat};

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Starts logging to standard error. Does nothing where somebody else has.
pub fn start_logging(log: &Log) {
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_default();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// Whether the broker takes calls. Clones say the same.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    ready: Arc<AtomicBool>,
    never: Arc<OnceLock<&'static str>>,
}

impl Readiness {
    /// Says so, or that it does not.
    pub fn set(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Says that it never will again, and why: to whoever reaches the port, so in general words.
    pub fn never(&self, why: &'static str) {
        // The first reason stays.
        let _ = self.never.set(why);
    }

    /// Whether it does; if not and for good, why.
    pub fn get(&self) -> Result<(), Option<&'static str>> {
        match self.never.get() {
            None if self.ready.load(Ordering::Acquire) => Ok(()),
            why => Err(why.copied()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    listener: &'static str,
}

/// The numbers of this process. Clones are the same numbers.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    calls: Family<Answer, Counter>,
    seconds: Family<Method, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("dayfly");
        let calls = Family::default();
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let seconds = Family::new_with_constructor(histogram);
        registry.register("calls", "calls answered, by method and gRPC code", calls.clone());
        registry.register_with_unit(
            "call",
            "time to the head of the answer, by method",
            Unit::Seconds,
            seconds.clone(),
        );
        Self { registry: Arc::new(registry), calls, seconds }
    }
}

/// What is counted when somebody asks, rather than as it happens.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// The place of the last entry of the journal.
    pub head_seq: u64,
    /// Grants that are live now.
    pub live_grants: u64,
    /// Requests that wait now.
    pub pending_requests: u64,
    /// How long ago the journal last confirmed its head: gateways are no fresher than that.
    pub heartbeat_age: Duration,
    /// When the key ends that signs tokens, in Unix seconds; zero if no key signs.
    pub token_key_ends: u64,
    /// When the key ends that signs heads of the feed, in Unix seconds.
    pub feed_key_ends: u64,
    /// Instances of gateways that follow the feed.
    pub instances: u64,
    /// Those of them that hear nothing fresh, and refuse by themselves.
    pub stale_instances: u64,
    /// Instances that opted out of refusing by themselves.
    pub unbounded_instances: u64,
    /// IDs of which one certificate was renewed twice.
    pub locked_ids: u64,
    /// By listener: its connections now, and how many it cut off for lack of room.
    pub connections: Vec<(&'static str, u64, u64)>,
}

impl Gauges {
    fn register(self, ready: bool, now: &mut Registry) {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        now.register("build", "which version runs", Info::new(version));
        let counts = [
            ("ready", "whether calls are taken", ready.into()),
            ("journal_head", "place of the last entry", self.head_seq),
            ("live_grants", "grants that are live", self.live_grants),
            ("pending_requests", "requests that wait", self.pending_requests),
            ("gateway_instances", "gateway instances that follow the feed", self.instances),
            (
                "gateway_instances_stale",
                "those that hear nothing fresh and refuse by themselves",
                self.stale_instances,
            ),
            (
                "gateway_instances_unbounded",
                "instances that opted out of refusing by themselves",
                self.unbounded_instances,
            ),
            ("locked_ids", "IDs of which one certificate was renewed twice", self.locked_ids),
        ];
        for (name, help, count) in counts {
            now.register(name, help, ConstGauge::new(count));
        }
        let ends = [
            ("token_key_ends_timestamp", "end of the key that signs tokens", self.token_key_ends),
            ("feed_key_ends_timestamp", "end of the key that signs the feed", self.feed_key_ends),
        ];
        for (name, help, at) in ends {
            now.register_with_unit(name, help, Unit::Seconds, ConstGauge::new(at));
        }
        let age = ConstGauge::new(self.heartbeat_age.as_secs_f64());
        let help = "time since the journal last confirmed its head";
        now.register_with_unit("heartbeat_age", help, Unit::Seconds, age);
        register_connections(self.connections, now);
    }
}

/// By listener: its connections now, and how many it cut off for lack of room.
fn register_connections(connections: Vec<(&'static str, u64, u64)>, now: &mut Registry) {
    let (open, refused) = (Family::<Listener, Gauge>::default(), Family::default());
    for (listener, count, cut_off) in connections {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        open.get_or_create(&Listener { listener }).set(count);
        let refused: &Family<Listener, Counter> = &refused;
        refused.get_or_create(&Listener { listener }).inc_by(cut_off);
    }
    now.register("connections", "connections that are open, by listener", open);
    now.register("connections_refused", "connections cut off for lack of room", refused);
}

impl Metrics {
    fn text(&self, ready: bool, gauges: Gauges) -> String {
        let mut text = String::new();
        let mut now = Registry::with_prefix("dayfly");
        gauges.register(ready, &mut now);
        // Writing to a string does not fail.
        let _written = prometheus_client::encoding::text::encode_registry(&mut text, &now);
        let _written = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    fn count(&self, method: &'static str, code: &'static str, took: Duration) {
        self.calls.get_or_create(&Answer { method, code }).inc();
        self.seconds.get_or_create(&Method { method }).observe(took.as_secs_f64());
    }
}

/// Counts the calls of a service.
#[derive(Clone)]
pub struct Measured<S> {
    service: S,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
}

impl<S> Measured<S> {
    /// Counts the calls of `service`.
    pub fn new(service: S, metrics: Metrics, clock: Arc<dyn Clock>) -> Self {
        Self { service, metrics, clock }
    }
}

impl<S, B> Service<Request<B>> for Measured<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Only names from our own table become labels: a caller cannot make up series.
        let method = listed(request.uri().path());
        let (metrics, clock) = (self.metrics.clone(), self.clock.clone());
        let began = clock.uptime();
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let code =
                answer.headers().get("grpc-status").map_or("ok", |code| name(code.as_bytes()));
            metrics.count(method, code, clock.uptime().saturating_sub(began));
            Ok(answer)
        })
    }
}

/// The name of a gRPC code as the metrics have it. A stream that fails later began well.
fn name(code: &[u8]) -> &'static str {
    match tonic::Code::from_bytes(code) {
        tonic::Code::Ok => "ok",
        tonic::Code::Cancelled => "cancelled",
        tonic::Code::Unknown => "unknown",
        tonic::Code::InvalidArgument => "invalid_argument",
        tonic::Code::DeadlineExceeded => "deadline_exceeded",
        tonic::Code::NotFound => "not_found",
        tonic::Code::AlreadyExists => "already_exists",
        tonic::Code::PermissionDenied => "permission_denied",
        tonic::Code::ResourceExhausted => "resource_exhausted",
        tonic::Code::FailedPrecondition => "failed_precondition",
        tonic::Code::Aborted => "aborted",
        tonic::Code::OutOfRange => "out_of_range",
        tonic::Code::Unimplemented => "unimplemented",
        tonic::Code::Internal => "internal",
        tonic::Code::Unavailable => "unavailable",
        tonic::Code::DataLoss => "data_loss",
        tonic::Code::Unauthenticated => "unauthenticated",
    }
}

/// What the plain HTTP listener shows.
#[derive(Clone)]
pub struct Page {
    /// Whether the broker takes calls.
    pub readiness: Readiness,
    /// The numbers of the process.
    pub metrics: Metrics,
    /// Counts what is counted on request.
    pub gauges: Arc<dyn Fn() -> Gauges + Send + Sync>,
}

/// `/healthz`: the process runs. `/readyz`: it takes calls. `/metrics`: its numbers.
pub fn pages(page: Page) -> axum::Router {
    let ready = |Shared(page): Shared<Page>| async move {
        match page.readiness.get() {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(None) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
            Err(Some(why)) => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}; the log says more\n"))
            }
        }
    };
    let metrics = |Shared(page): Shared<Page>| async move {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([("content-type", kind)], page.metrics.text(page.readiness.get().is_ok(), (page.gauges)()))
    };
    axum::Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(page)
}
