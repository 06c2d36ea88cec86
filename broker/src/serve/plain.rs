//! The listener for health and metrics, in the clear: open to whoever reaches it, so that all that
//! they can take of the broker is bounded.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How many connections there are at once: a probe and a scraper need one each.
pub(super) const ROOM: usize = 256;
/// How long a caller may take for the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection lasts, whatever comes by it.
const LIFE: Duration = Duration::from_secs(20);
/// How long what runs may take to finish at the end: all that is asked here is answered at once.
const LAST: Duration = Duration::from_secs(1);
/// The pause after a failure to accept, so that a lack of file descriptors is not a busy loop.
const BREATH: Duration = Duration::from_millis(20);

/// Serves `pages`, one a connection, on at most `room` connections at once, until `stop` is done;
/// then lets what runs finish. Who does not fit in is cut off at once.
pub(super) async fn serve(
    listener: TcpListener,
    pages: Router,
    room: usize,
    stop: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(room));
    let mut open = JoinSet::new();
    tokio::pin!(stop);
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(BREATH).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let service = TowerToHyperService::new(pages.clone());
        open.spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
            // Who breaks off, or takes too long, is told no more.
            let _ended = timeout(LIFE, http.serve_connection(TokioIo::new(stream), service)).await;
            drop(place);
        });
    }
    drop(listener);
    let drained = async { while open.join_next().await.is_some() {} };
    // Who has not asked by then is cut.
    let _late = timeout(LAST, drained).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn who_takes_all_the_room_gets_no_more_and_others_get_in_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Router::new().route("/healthz", get(|| async { "ok\n" }));
        let serving = tokio::spawn(serve(listener, pages, 4, std::future::pending()));
        let mut idle = Vec::new();
        for _ in 0..4 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        assert_eq!(late.read(&mut [0]).await.unwrap(), 0, "it was let in");
        drop(idle);
        let ask = async || {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: broker\r\n\r\n").await?;
            let mut said = String::new();
            stream.read_to_string(&mut said).await.map(|_| said)
        };
        for _ in 0..500 {
            if ask().await.is_ok_and(|said| said.starts_with("HTTP/1.1 200")) {
                serving.abort();
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody gets in any more");
    }
}
