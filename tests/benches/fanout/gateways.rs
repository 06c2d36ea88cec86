//! Gateways that follow the real feed.

use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::session::Session;
use dayfly_tests::running::Running;
use dayfly_verifier::feed::client::{self, Config};
use dayfly_verifier::feed::{Enforcer, Profile, Source};
use dayfly_verifier::time::{Clock as _, SystemClock};
use tokio::time::{Instant, sleep};

/// How long the followers may take to hear from the broker.
const PATIENCE: Duration = Duration::from_secs(60);

/// Instances of one gateway, each on a connection of its own, all of them fresh.
pub(crate) async fn follow(
    world: &Running,
    followers: usize,
) -> anyhow::Result<Vec<Arc<Enforcer>>> {
    let mut gateways = Vec::new();
    let dir = world.identity("gateway/orders").await;
    for n in 0..followers {
        let session = Session::open(&dir, Arc::new(SystemClock)).await?;
        let bound = Duration::from_secs(60);
        let config = Config {
            profile: Profile::new(world.trust_root, bound, Source::Direct)?,
            instance: format!("i{n}").parse()?,
            dir: None,
            brokers: vec![session.channel()],
        };
        let (enforcer, client) = client::follow(config, Arc::new(SystemClock))?;
        tokio::spawn(async move {
            client.run().await;
            drop(session);
        });
        gateways.push(enforcer);
    }
    let fresh = |gateway: &Arc<Enforcer>| {
        gateway.view().is_some_and(|view| view.is_fresh(SystemClock.uptime()))
    };
    let patience = Instant::now() + PATIENCE;
    while !gateways.iter().all(fresh) {
        anyhow::ensure!(Instant::now() < patience, "the broker keeps not all of them fresh");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(gateways)
}
