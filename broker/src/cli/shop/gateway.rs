//! The orders service as a process of its own would run it: an identity, the feed, the verifier.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use dayfly_agent::session::Session;
use dayfly_verifier::feed::client::{self, follow};
use dayfly_verifier::feed::{Enforcer, Profile, Redeemer, Reporter, Source};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::InstanceId;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, SystemClock};
use dayfly_verifier::uses::Uses;
use dayfly_verifier::verify::{Config, Verifier};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::orders::{self, Orders};
use super::{draw, eventually};

/// How often the service tells what was done with tokens.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What the service is to be.
pub(in crate::cli) struct Plan {
    /// Under which identity, over which channel to the broker.
    pub(in crate::cli) session: Arc<Session>,
    /// What it pins.
    pub(in crate::cli) trust_root: HolderKey,
    /// After that much silence of its feed it refuses everything.
    pub(in crate::cli) max_staleness: Duration,
    /// The name of this process among those of the gateway.
    pub(in crate::cli) instance: InstanceId,
    /// Where it keeps its orders, and how far it believed the feed; nowhere if `None`.
    pub(in crate::cli) dir: Option<PathBuf>,
    /// Where it listens.
    pub(in crate::cli) listener: TcpListener,
}

/// The orders service, running.
pub(in crate::cli) struct Gateway {
    pub(in crate::cli) id: SpiffeId,
    pub(in crate::cli) address: SocketAddr,
    orders: Arc<Orders>,
    _running: JoinSet<()>,
}

impl Gateway {
    /// Starts the service, seen `through` what stands in front of it, and waits until it knows what
    /// is revoked.
    pub(in crate::cli) async fn open(
        plan: Plan,
        through: impl FnOnce(Router) -> Router,
    ) -> anyhow::Result<Self> {
        let Plan { session, trust_root, max_staleness, instance, dir, listener } = plan;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let id = session.identity().id().clone();
        let orders = Orders::open(dir.as_ref().map(|dir| dir.join("orders.db")))?;
        let uses = Arc::new(Uses::new(Arc::clone(&clock)));
        let brokers = vec![session.channel()];
        let reporter =
            Reporter::new(Arc::clone(&uses), id.clone(), instance.clone(), brokers.clone());
        let config = client::Config {
            profile: Profile::new(trust_root, max_staleness, Source::Direct)?,
            instance,
            dir,
            brokers: brokers.clone(),
        };
        let (enforcer, following) = follow(config, Arc::clone(&clock))?;
        let address = listener.local_addr()?;
        let base_url = Some(format!("http://{address}").parse()?);
        let config = Config { base_url, ..Config::new(id.clone()) };
        let verifier = Verifier::new(config, Arc::clone(&enforcer), clock, draw()?);
        let redeemer = Arc::new(Redeemer::new(brokers));
        let service = orders::service(Arc::clone(&orders), Arc::new(verifier), redeemer, uses);
        let service = through(service);
        let mut running = JoinSet::new();
        running.spawn(reporter.every(REPORT_EVERY).run(std::future::pending()));
        running.spawn(following.run());
        running.spawn(async move {
            let _ended = axum::serve(listener, service).await;
        });
        eventually("the feed to reach the orders service", async || Ok(fresh(&enforcer))).await?;
        Ok(Self { id, address, orders, _running: running })
    }

    /// How much was paid back on an order.
    pub(in crate::cli) fn refunded(&self, order: &str) -> anyhow::Result<i64> {
        Ok(self.orders.read(order).context("the orders are gone")?.1)
    }
}

fn fresh(enforcer: &Enforcer) -> bool {
    enforcer.view().is_some_and(|view| view.is_fresh(SystemClock.uptime()))
}
