//! A gateway that serves HTTP and gRPC behind the layer, in the test's own process: answers that
//! are whole at once, and answers that go on for as long as they may.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::{Extension, Router, routing::any, routing::get};
use dayfly_agent::session::Session;
use dayfly_verifier::feed::client::{self, follow};
use dayfly_verifier::feed::{Profile, Redeemer, Reporter, Source};
use dayfly_verifier::id::InstanceId;
use dayfly_verifier::scope::Arguments;
use dayfly_verifier::time::{Clock, SystemClock};
use dayfly_verifier::tower::{BadCall, Guard, Received};
use dayfly_verifier::uses::Uses;
use dayfly_verifier::verify::{Call, Config, Verified, Verifier};
use http::header::CONTENT_TYPE;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::parties::random;
use crate::world::World;

/// The call of gRPC that goes on. Which order it reads stands in the place of the service.
pub(crate) const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// The orders that can be read so.
const ORDERS: [&str; 3] = ["o-17", "o-18", "o-19"];

/// A service behind the layer.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) audience: String,
    base_url: String,
    here: Option<Here>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What there is of a gateway in this process.
struct Here {
    behind: Behind,
    /// What it counted and has not told, and where it tells it.
    uses: Arc<Uses>,
    session: Arc<Session>,
}

/// How a gateway is run.
#[derive(Clone)]
pub(crate) struct Opening {
    /// Which of its instances it is.
    pub(crate) instance: String,
    pub(crate) max_staleness: Duration,
    /// Whether it goes on when it hears nothing.
    pub(crate) best_effort: bool,
    /// Resources with a tighter bound.
    pub(crate) bounds: Vec<(&'static str, Duration)>,
    /// Resources on which what runs drains.
    pub(crate) drains: Vec<(&'static str, Duration)>,
    /// Where it listens; at any port, if nothing is said.
    pub(crate) listen: Option<SocketAddr>,
    /// The URL under which it is reached; where it listens, if nothing is said.
    pub(crate) base_url: Option<String>,
    /// Others answer for the same audience.
    pub(crate) shared_audience: bool,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where a process of its own writes all that it can say; nothing, if nothing is said.
    pub(crate) log: Option<PathBuf>,
}

impl Opening {
    /// As usual: one instance, on a port of its own.
    pub(crate) fn usual(max_staleness: Duration) -> Self {
        Self {
            instance: "one".into(),
            max_staleness,
            best_effort: false,
            bounds: Vec::new(),
            drains: Vec::new(),
            listen: None,
            base_url: None,
            shared_audience: false,
            clock: Arc::new(SystemClock),
            log: None,
        }
    }
}

impl Gateway {
    /// The gateway `path`, following the feed of the broker.
    pub(crate) async fn start(world: &World, path: &str, max_staleness: Duration) -> Self {
        Self::opened(world, path, Opening::usual(max_staleness)).await
    }

    /// The gateway `path`, run in this way.
    pub(crate) async fn opened(world: &World, path: &str, opening: Opening) -> Self {
        Self::run(world.session(path).await, &world.trust_root(), opening).await
    }

    /// An instance of the gateway whose session this is.
    pub(crate) async fn run(session: Arc<Session>, trust_root: &str, opening: Opening) -> Self {
        let Opening { instance, max_staleness, best_effort, bounds, drains, .. } = opening;
        let Opening { listen, base_url, shared_audience, clock, .. } = opening;
        let audience = session.identity().id().clone();
        let root = trust_root.parse().unwrap();
        let mut profile = Profile::new(root, max_staleness, Source::Direct).unwrap();
        if best_effort {
            profile = profile.best_effort();
        }
        for (pattern, bound) in bounds {
            profile = profile.bound(pattern.parse().unwrap(), bound).unwrap();
        }
        let (instance, brokers) =
            (instance.parse::<InstanceId>().unwrap(), vec![session.channel()]);
        let config = client::Config { profile, instance, dir: None, brokers };
        let (enforcer, client) = follow(config, clock.clone()).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(listen.unwrap_or(any)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let base_url = base_url.unwrap_or_else(|| format!("http://{address}"));
        let parsed = Some(base_url.parse().unwrap());
        let config = Config { base_url: parsed, shared_audience, ..Config::new(audience.clone()) };
        let verifier = Arc::new(Verifier::new(config, enforcer, clock, random()));
        let redeemer = Redeemer::new(vec![session.channel()]);
        let uses = Arc::new(Uses::new(Arc::new(SystemClock)));
        let mut guard = Guard::new(verifier, meaning)
            .asking(Arc::new(redeemer))
            .telling(Arc::clone(&uses) as _);
        for (pattern, bound) in drains {
            guard = guard.draining(pattern.parse().unwrap(), bound);
        }
        let (behind, app) = Behind::new().await;
        let serving = serve(listener, app.layer(guard));
        let tasks = vec![tokio::spawn(client.run()), tokio::spawn(serving)];
        let here = Some(Here { behind, uses, session });
        Self { address, audience: audience.to_string(), base_url, here, tasks }
    }

    /// One that another process runs.
    pub(crate) fn elsewhere(address: SocketAddr, audience: &str) -> Self {
        let base_url = format!("http://{address}");
        Self { address, audience: audience.to_owned(), base_url, here: None, tasks: Vec::new() }
    }

    /// Its connection to the broker.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.here.as_ref().unwrap().session
    }

    /// Tells the broker what it counted, when it is asked to.
    pub(crate) fn reporter(&self) -> Reporter {
        let (gateway, instance) = (self.audience.parse().unwrap(), "one".parse().unwrap());
        let Here { uses, session, .. } = self.here.as_ref().unwrap();
        Reporter::new(Arc::clone(uses), gateway, instance, vec![session.channel()])
    }

    /// Lets every answer that goes on say something.
    pub(crate) async fn tell(&self) {
        self.here.as_ref().unwrap().behind.tell().await;
    }

    /// Callers reach it under another URL than where it listens.
    pub(crate) fn reached_as(&mut self, base_url: &str) {
        base_url.clone_into(&mut self.base_url);
    }

    /// The URL of a path here.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// What a request means.
fn meaning(request: &Received<'_>) -> Result<Call, BadCall> {
    if request.path() == WATCH {
        let asked = HealthCheckRequest::decode(request.message()?);
        let asked = asked.map_err(|_| BadCall::Unknown)?;
        let resource = format!("orders/prod/{}", asked.service).parse()?;
        let arguments = Arguments::new();
        return Ok(Call { operation: "read".parse()?, resource, arguments });
    }
    let (operation, resource) = match request.segments()?[..] {
        ["orders", order] | ["orders", order, "rows"] => ("read", format!("orders/prod/{order}")),
        ["orders", order, "refund"] => ("refund", format!("orders/prod/{order}")),
        ["staging", order] => ("read", format!("orders/staging/{order}")),
        ["exports", "customers"] => ("export", "exports/customers".to_owned()),
        _ => return Err(BadCall::Unknown),
    };
    Ok(Call {
        operation: operation.parse()?,
        resource: resource.parse()?,
        arguments: request.arguments()?,
    })
}

/// What goes on behind a gateway.
struct Behind {
    rows: watch::Sender<u32>,
    health: HealthReporter,
}

impl Behind {
    /// The service, not yet guarded, and the way to make its answers go on.
    async fn new() -> (Self, Router) {
        let (health, server) = health_reporter();
        let behind = Self { rows: watch::Sender::new(0), health };
        behind.tell().await;
        let rows = behind.rows.clone();
        let rows = get(move || {
            let frames = WatchStream::new(rows.subscribe());
            let frames = frames.map(|n| Ok::<_, Infallible>(format!("data: {n}\n\n")));
            async move { ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(frames)) }
        });
        let whole = any(|Extension(verified): Extension<Verified>| async move {
            verified.call().resource.to_string()
        });
        let grpc = Routes::new(server).into_axum_router().reset_fallback();
        let app = Router::new().route("/orders/{order}/rows", rows).merge(grpc).fallback(whole);
        (behind, app)
    }

    async fn tell(&self) {
        self.rows.send_modify(|n| *n = n.wrapping_add(1));
        let even = self.rows.borrow().is_multiple_of(2);
        let status = if even { ServingStatus::Serving } else { ServingStatus::NotServing };
        for order in ORDERS {
            self.health.set_service_status(order, status).await;
        }
    }
}

/// Serves `app` over HTTP/1.1 and HTTP/2, as each connection begins.
async fn serve(listener: TcpListener, app: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let serving = Builder::new(TokioExecutor::new());
            // It ends as its client likes.
            let _over = serving.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
