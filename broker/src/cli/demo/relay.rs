//! A wire between two ends that can be cut.

use std::io;
use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Passes bytes on to `to`, until the token is cancelled; then every connection is dropped and no
/// new one is accepted. Returns where it listens.
pub(super) async fn start(to: SocketAddr, cut: CancellationToken) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((to.ip(), 0)).await?;
    let address = listener.local_addr()?;
    let until = cut.clone();
    let accepting = async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let passing = async move {
                if let Ok(mut far) = TcpStream::connect(to).await {
                    let _nodelay = (near.set_nodelay(true), far.set_nodelay(true));
                    let _ended = copy_bidirectional(&mut near, &mut far).await;
                }
            };
            tokio::spawn(cut.clone().run_until_cancelled_owned(passing));
        }
    };
    tokio::spawn(until.run_until_cancelled_owned(accepting));
    Ok(address)
}
