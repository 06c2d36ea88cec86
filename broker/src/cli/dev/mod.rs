//! `dayfly dev`: the shop of the demo, kept alive, for whoever wants to be its people.

mod guide;
mod home;

use std::convert::identity;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use tokio::net::TcpListener;

use super::exit::{Exit, Refused};
use super::shop::draw;
use super::shop::gateway::{Gateway, Plan};
use super::shop::stage::Stage;
use super::{Context, block_on};
use crate::config::{Log, LogFormat};
use crate::serve::ServeError;
use crate::telemetry::start_logging;
use guide::{AGENT, APPROVER, GATEWAY, Guide, OPERATOR};
use home::Home;

/// After that much silence of its feed the orders service refuses everything.
const MAX_STALENESS: Duration = Duration::from_secs(5);

/// Keep a small shop running, to try everything by hand in other terminals.
///
/// A broker with the example policy, an orders service behind the verifier, and identities for an
/// agent, an approver and an operator; prints what to paste to be each of them. It is kept in the
/// directory: Ctrl-C stops it, and the next `dayfly dev` goes on with the same keys, identities,
/// addresses and record. Identities that ran out meanwhile join anew. For trying things alone:
/// all the keys lie side by side, unencrypted.
#[derive(Debug, Args)]
pub struct Dev {
    /// Where the shop is kept: made at the first start, for this user alone.
    #[arg(long, value_name = "DIR", default_value = ".dayfly")]
    dir: PathBuf,
}

impl Dev {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let home = Home::open(&self.dir)?;
        start_logging(&Log { filter: "warn".into(), format: LogFormat::Text });
        block_on(serve(&home, context))
    }
}

async fn serve(home: &Home, context: &Context) -> Result<(), Refused> {
    let orders = home.settle().await?;
    let listener = TcpListener::bind(orders).await;
    let listener = listener.map_err(|error| taken(anyhow::anyhow!("{orders}: {error}")))?;
    let stage = Stage::open(home.place.clone()).await.map_err(|error| {
        match error.downcast_ref::<ServeError>() {
            Some(ServeError::Listen(_)) => taken(error),
            Some(_) | None => Refused::new(Exit::Config, error),
        }
    })?;
    tokio::spawn(stage.shutdown.clone().follow_signals());
    let lived = tokio::select! {
        () = stage.shutdown.begins() => Ok(()),
        lived = live(home, &stage, listener, context) => lived,
    };
    context.console.progress("stopping");
    stage.end().await?;
    lived?;
    context.console.progress("stopped; `dayfly dev` goes on from here");
    Ok(())
}

/// Lets everybody in, tells how to be them, and keeps their identities good.
async fn live(
    home: &Home,
    stage: &Stage,
    listener: TcpListener,
    context: &Context,
) -> Result<(), Refused> {
    let mut sessions = Vec::new();
    for path in [AGENT, APPROVER, OPERATOR] {
        sessions.push((path, stage.enter(path).await?));
    }
    let session = stage.enter(GATEWAY).await?;
    sessions.push((GATEWAY, session.clone()));
    let plan = Plan {
        session,
        trust_root: stage.trust_root,
        max_staleness: MAX_STALENESS,
        instance: format!("orders-{}", hex::encode(draw::<4>()?))
            .parse()
            .map_err(anyhow::Error::from)?,
        dir: Some(home.orders()),
        listener,
    };
    let gateway = Gateway::open(plan, identity).await?;
    let guide = Guide::new(home, stage, &gateway)?;
    context.console.result(|| guide.text(), || guide.to_json());
    join_all(sessions.iter().map(|(path, session)| stage.keep(path, session))).await;
    Ok(())
}

fn taken(error: anyhow::Error) -> Refused {
    let next = "stop what listens there, or name another directory with --dir: it gets other ports";
    Refused::new(Exit::Failed, error).next(next)
}
