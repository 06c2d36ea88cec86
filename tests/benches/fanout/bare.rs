//! The bare fan-out: one message to every follower, who verifies its signature and acknowledges.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dayfly_agent::listen::{self, Terms};
use dayfly_agent::session::Session;
use dayfly_agent::tls::Admission;
use dayfly_proto::v1::follow_request::Message as Up;
use dayfly_proto::v1::follow_response::Message as Down;
use dayfly_proto::v1::gateway_service_client::GatewayServiceClient;
use dayfly_proto::v1::gateway_service_server::{GatewayService, GatewayServiceServer};
use dayfly_proto::v1::{self, Ack, Delta, FollowRequest, FollowResponse};
use dayfly_tests::running::Running;
use dayfly_verifier::feed::{Head, SignedHead};
use dayfly_verifier::id::{ChainHash, Epoch, FeedHash, FeedId, KeyId, Seq};
use dayfly_verifier::time::{Clock as _, SystemClock};
use ed25519_dalek::SigningKey;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// The followers, and the way to tell all of them something.
pub(crate) struct Fanout {
    followers: usize,
    casts: broadcast::Sender<FollowResponse>,
    acks: Arc<Acks>,
    verified: tokio::sync::Mutex<mpsc::Receiver<Instant>>,
}

#[derive(Default)]
struct Acks {
    count: AtomicUsize,
    came: Notify,
}

fn signing() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

impl Fanout {
    /// Serves on the same kind of listener, and connects the followers.
    pub(crate) async fn start(world: &Running, followers: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (casts, acks) = (broadcast::Sender::new(16), Arc::<Acks>::default());
        let service = Service { casts: casts.clone(), acks: acks.clone() };
        let routes = Routes::new(GatewayServiceServer::new(service)).prepare();
        let terms = Terms::mutual(&world.live(), &["h2"], Admission::everybody())?;
        let serving = listen::serve(listener, terms, routes, std::future::pending());
        tokio::spawn(serving);

        let dir = world.identity_at("gateway/orders-staging", address).await;
        let (verify, verified) = mpsc::channel(followers.max(1));
        for _ in 0..followers {
            let session = Session::open(&dir, Arc::new(SystemClock)).await?;
            tokio::spawn(follow(session, verify.clone()));
        }
        while casts.receiver_count() < followers {
            sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { followers, casts, acks, verified: verified.into() })
    }

    /// Tells everybody once: how long after that each had verified it, and all had acknowledged it.
    pub(crate) async fn round(&self) -> anyhow::Result<(Vec<Duration>, Duration)> {
        self.acks.count.store(0, Ordering::SeqCst);
        let mut verified = self.verified.lock().await;
        let started = Instant::now();
        let head = Head {
            feed: FeedId::new([1; 16]),
            epoch: Epoch::new([2; 16]),
            seq: Seq(1),
            journal: ChainHash::new([3; 32]),
            hash: FeedHash::new([4; 32]),
            time: SystemClock.now(),
            key: KeyId(1),
            snapshot: None,
        };
        let SignedHead { head, signature } = head.sign(&signing());
        let signature = Bytes::copy_from_slice(&signature);
        let head = Some(v1::SignedHead { head: head.into(), signature });
        let entries = vec![Bytes::from_static(&[7; 30])];
        let message = Some(Down::Delta(Delta { entries, head }));
        self.casts.send(FollowResponse { message })?;
        let mut spans = Vec::with_capacity(self.followers);
        while spans.len() < self.followers {
            let at = verified.recv().await.ok_or_else(|| anyhow::anyhow!("followers ended"))?;
            spans.push(at.saturating_duration_since(started));
        }
        loop {
            let came = self.acks.came.notified();
            if self.acks.count.load(Ordering::SeqCst) >= self.followers {
                return Ok((spans, started.elapsed()));
            }
            came.await;
        }
    }
}

async fn follow(session: Arc<Session>, verified: mpsc::Sender<Instant>) -> anyhow::Result<()> {
    let key = signing().verifying_key();
    let (acks, queued) = mpsc::channel(4);
    let mut client = GatewayServiceClient::new(session.channel());
    let mut stream = client.follow(ReceiverStream::new(queued)).await?.into_inner();
    while let Some(FollowResponse { message: Some(Down::Delta(delta)) }) = stream.message().await? {
        let head = delta.head.unwrap_or_default();
        let signature = head.signature.as_ref().try_into()?;
        let signed = SignedHead { head: head.head.to_vec(), signature };
        let head = signed.verify(|_| Some(key)).ok_or_else(|| anyhow::anyhow!("unsigned"))?;
        verified.send(Instant::now()).await?;
        let ack = Up::Ack(Ack { seq: head.seq.0, challenge: Bytes::new(), trust_version: 0 });
        acks.send(FollowRequest { message: Some(ack) }).await?;
    }
    Ok(())
}

struct Service {
    casts: broadcast::Sender<FollowResponse>,
    acks: Arc<Acks>,
}

#[tonic::async_trait]
impl GatewayService for Service {
    type FollowStream = BoxStream<'static, Result<FollowResponse, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut requests = request.into_inner();
        let acks = self.acks.clone();
        tokio::spawn(async move {
            while let Ok(Some(_ack)) = requests.message().await {
                acks.count.fetch_add(1, Ordering::SeqCst);
                acks.came.notify_one();
            }
        });
        let casts = BroadcastStream::new(self.casts.subscribe());
        let casts = casts.map(|cast| cast.map_err(|_| Status::aborted("too slow")));
        Ok(Response::new(casts.boxed()))
    }

    async fn get_trust(
        &self,
        _: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::GetTrustResponse>, Status> {
        Err(Status::unimplemented("no part of the fan-out"))
    }

    async fn redeem(
        &self,
        _: Request<v1::RedeemRequest>,
    ) -> Result<Response<v1::RedeemResponse>, Status> {
        Err(Status::unimplemented("no part of the fan-out"))
    }
    async fn reevaluate(
        &self,
        _: Request<v1::ReevaluateRequest>,
    ) -> Result<Response<v1::ReevaluateResponse>, Status> {
        Err(Status::unimplemented("no part of the fan-out"))
    }
    async fn report_use(
        &self,
        _: Request<v1::ReportUseRequest>,
    ) -> Result<Response<v1::ReportUseResponse>, Status> {
        Err(Status::unimplemented("no part of the fan-out"))
    }
}
