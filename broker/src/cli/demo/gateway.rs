//! The orders service as a process of its own would run it: an identity, the feed, the verifier.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dayfly_agent::files;
use dayfly_agent::session::Session;
use dayfly_verifier::feed::client::{self, follow};
use dayfly_verifier::feed::{Enforcer, Profile, Redeemer, Reporter, Source};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, SystemClock};
use dayfly_verifier::uses::Uses;
use dayfly_verifier::verify::{Config, Verifier};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::orders::{self, Orders};
use super::stage::Stage;
use super::{draw, eventually, relay};

/// After that much silence of its feed the service refuses everything.
pub(super) const MAX_STALENESS: Duration = Duration::from_secs(1);

/// How often the service tells what was done with tokens.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The orders service, running.
pub(super) struct Gateway {
    pub(super) id: SpiffeId,
    pub(super) address: SocketAddr,
    pub(super) orders: Arc<Orders>,
    wire: CancellationToken,
    _running: JoinSet<()>,
}

impl Gateway {
    /// Starts the service, and waits until it knows what is revoked.
    pub(super) async fn open(stage: &Stage) -> anyhow::Result<Self> {
        let wire = CancellationToken::new();
        let relayed = relay::start(stage.address, wire.clone()).await?;
        let (id, dir) = stage.join("gateway/orders").await?;
        // The service reaches the broker through the wire that will be cut.
        let names = dir.join("identity.toml");
        let text = files::read_text(&names)?;
        let text = text.replace(&stage.address.to_string(), &relayed.to_string());
        files::write_public(&names, text.as_bytes())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let session = Session::open(&dir, Arc::clone(&clock)).await?;

        let config = client::Config {
            profile: Profile::new(stage.trust_root, MAX_STALENESS, Source::Direct)?,
            instance: "orders-1".parse()?,
            dir: None,
            brokers: vec![session.channel()],
        };
        let (enforcer, following) = follow(config, Arc::clone(&clock))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let base_url = Some(format!("http://{address}").parse()?);
        let config = Config { base_url, ..Config::new(id.clone()) };
        let verifier = Verifier::new(config, Arc::clone(&enforcer), clock, draw()?);
        let redeemer = Arc::new(Redeemer::new(vec![session.channel()]));
        let orders = Orders::open()?;
        let uses = Arc::new(Uses::new(Arc::new(SystemClock)));
        let told = (Arc::clone(&uses), id.clone(), "orders-1".parse()?, vec![session.channel()]);
        let reporter = Reporter::new(told.0, told.1, told.2, told.3).every(REPORT_EVERY);
        let service = orders::service(Arc::clone(&orders), Arc::new(verifier), redeemer, uses);
        let mut running = JoinSet::new();
        running.spawn(reporter.run(std::future::pending()));
        running.spawn(following.run());
        running.spawn(async move {
            let _ended = axum::serve(listener, service).await;
        });
        eventually("the feed to reach the orders service", async || Ok(fresh(&enforcer))).await?;
        Ok(Self { id, address, orders, wire, _running: running })
    }

    /// Cuts the wire to the broker.
    pub(super) fn cut(&self) {
        self.wire.cancel();
    }

    /// How much was paid back on an order.
    pub(super) fn refunded(&self, order: &str) -> anyhow::Result<i64> {
        Ok(self.orders.read(order).context("the orders are gone")?.1)
    }
}

fn fresh(enforcer: &Enforcer) -> bool {
    enforcer.view().is_some_and(|view| view.is_fresh(SystemClock.uptime()))
}
