//! A wire between two ends that can fall silent.

use std::io;
use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Passes bytes on to `to`, until the token is cancelled; then nothing passes any more, of which
/// neither end is told, and no new connection is accepted. Returns where it listens.
pub(super) async fn start(to: SocketAddr, silent: CancellationToken) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((to.ip(), 0)).await?;
    let address = listener.local_addr()?;
    let until = silent.clone();
    let accepting = async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let silent = silent.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(to).await else { return };
                let _nodelay = (near.set_nodelay(true), far.set_nodelay(true));
                let passing = copy_bidirectional(&mut near, &mut far);
                if silent.run_until_cancelled(passing).await.is_none() {
                    std::future::pending::<()>().await;
                }
            });
        }
    };
    tokio::spawn(until.run_until_cancelled_owned(accepting));
    Ok(address)
}
