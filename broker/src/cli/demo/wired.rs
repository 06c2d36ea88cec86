//! Where the demo plays: a shop in a directory that is gone at the end, whose orders service
//! reaches the broker through a wire that can fall silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use dayfly_agent::files;
use dayfly_agent::session::Session;
use dayfly_verifier::time::SystemClock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::relay;
use crate::cli::shop::draw;
use crate::cli::shop::gateway::{Gateway, Plan};
use crate::cli::shop::stage::{Place, Stage};
use crate::config::Listen;

/// After that much silence of its feed the service refuses everything.
pub(super) const MAX_STALENESS: Duration = Duration::from_secs(1);

/// A directory that is gone when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> anyhow::Result<Self> {
        let name = format!("dayfly-demo-{}", hex::encode(draw::<8>()?));
        let path = std::env::temp_dir().join(name);
        files::private_dir(&path)?;
        Ok(Self(path))
    }

    /// A new shop in it, at ports that nobody else has.
    pub(super) async fn stage(&self) -> anyhow::Result<Stage> {
        let place = Place(self.0.clone());
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        place.found(&Listen { broker: any, join: any, http: any }).await?;
        Stage::open(place).await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind holds keys of a broker that is gone.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// An instance of the orders service, running, with a wire of its own to the broker.
pub(super) async fn gateway(
    stage: &Stage,
    instance: &str,
    wire: CancellationToken,
    through: impl FnOnce(Router) -> Router,
) -> anyhow::Result<Gateway> {
    const PATH: &str = "gateway/orders";
    let relayed = relay::start(stage.address, wire).await?;
    let joined = stage.place.identity(PATH);
    if !joined.exists() {
        stage.join(PATH).await?;
    }
    let dir = stage.place.identity(instance);
    files::private_dir(&dir)?;
    for file in joined.read_dir()? {
        let file = file?;
        std::fs::copy(file.path(), dir.join(file.file_name()))?;
    }
    let names = dir.join("identity.toml");
    let text = files::read_text(&names)?;
    let text = text.replace(&stage.address.to_string(), &relayed.to_string());
    files::write_public(&names, text.as_bytes())?;
    let plan = Plan {
        session: Session::open(&dir, Arc::new(SystemClock)).await?,
        trust_root: stage.trust_root,
        max_staleness: MAX_STALENESS,
        instance: instance.parse()?,
        dir: None,
        listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    };
    Gateway::open(plan, through).await
}
