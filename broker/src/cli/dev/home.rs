//! The directory in which the shop is kept: nobody else's, and held by one process at a time.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use dayfly_agent::files;

use crate::cli::exit::{Exit, Refused};
use crate::cli::shop::stage::Place;
use crate::config::Listen;

/// Where broker, joining, pages and orders are looked for: far from where a broker of this host
/// would be, and below the ports that systems give to whoever asks for any.
const PORTS: [u16; 4] = [7643, 7644, 7680, 7690];
/// How many blocks of such ports are tried, each a hundred above the one before.
const BLOCKS: u16 = 200;

/// The directory, held for as long as this lives.
pub(super) struct Home {
    pub(super) place: Place,
    _held: File,
}

impl Home {
    /// Makes the directory, or goes on with the one that is there.
    pub(super) fn open(dir: &Path) -> Result<Self, Refused> {
        let another = "name another directory with --dir";
        files::own_dir(dir).map_err(|error| Refused::new(Exit::Config, error).next(another))?;
        let dir = dir.canonicalize()?;
        let shown = dir.to_str().ok_or_else(|| {
            let error = anyhow!("a path that is not UTF-8 cannot be pasted: `{}`", dir.display());
            Refused::new(Exit::Usage, error).next(another)
        })?;
        let lock = dir.join("lock");
        if !lock.exists() && dir.read_dir()?.next().is_some() {
            let error = anyhow!("`{shown}` holds something that `dayfly dev` did not make");
            return Err(Refused::new(Exit::Config, error).next(another));
        }
        let held = File::options().create(true).truncate(false).write(true).open(lock)?;
        match held.try_lock() {
            Ok(()) => Ok(Self { place: Place(dir), _held: held }),
            Err(TryLockError::Error(error)) => Err(error.into()),
            Err(TryLockError::WouldBlock) => {
                let error = anyhow!("another `dayfly dev` runs in `{shown}`");
                Err(Refused::new(Exit::Failed, error).next(format!("stop it, or {another}")))
            }
        }
    }

    /// A path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.place.0.join(name)
    }

    /// What the orders service keeps.
    pub(super) fn orders(&self) -> PathBuf {
        self.path("orders")
    }

    /// Founds the shop where there is none, at ports that it keeps: what was pasted yesterday is
    /// good today. Says where the orders service listens.
    pub(super) async fn settle(&self) -> anyhow::Result<SocketAddr> {
        let address = self.orders().join("address");
        if !self.place.config().exists() {
            let [broker, join, http, orders] = free_ports()?;
            // A gateway of an earlier founding would not believe the new feed.
            if self.orders().exists() {
                std::fs::remove_dir_all(self.orders())?;
            }
            files::private_dir(&self.orders())?;
            files::write_public(&address, orders.to_string().as_bytes())?;
            self.place.found(&Listen { broker, join, http }).await?;
        }
        files::read_text(&address)?.parse().context("the orders service has no address")
    }
}

fn free_ports() -> anyhow::Result<[SocketAddr; 4]> {
    let free = |ports: &[SocketAddr; 4]| {
        ports.iter().map(TcpListener::bind).collect::<Result<Vec<_>, _>>().is_ok()
    };
    let block = |n: u16| {
        PORTS.map(|port| {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port.saturating_add(n.saturating_mul(100))))
        })
    };
    (0..BLOCKS).map(block).find(free).context("no free ports on this host")
}
