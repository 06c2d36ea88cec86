//! What lasts, lasts no longer than what let it begin.

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use super::*;

/// Answers with the bodies that it is given, one a call.
#[derive(Clone)]
struct Says(Arc<std::sync::Mutex<Vec<Body>>>);

impl Service<Request<Body>> for Says {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.lock().unwrap().pop().unwrap())))
    }
}

type Say = tokio::sync::mpsc::Sender<Result<Frame<bytes::Bytes>, Status>>;

/// A stream without a word.
fn silent() -> Body {
    let silent = futures_util::stream::pending::<Result<Frame<bytes::Bytes>, Status>>();
    Body::new(StreamBody::new(silent).boxed_unsync())
}

/// A stream that tells what is said.
fn telling() -> (Say, Body) {
    let (say, said) = tokio::sync::mpsc::channel(4);
    (say, Body::new(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(said))))
}

/// Two streams that an auditor has: one that tells what is said, and one without a word.
async fn streams(behind: &Behind, door: Door) -> (Say, [Body; 2]) {
    let (say, told) = telling();
    let bodies = Says(Arc::new(vec![silent(), told].into()));
    let mut guard = Guard::new(door, bodies);
    let later = behind.clock.now().plus(Duration::from_secs(600));
    let mut open = async |path: &str| {
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(peer("person/auditor", later));
        guard.call(request).await.unwrap().into_body()
    };
    let telling = open("/dayfly.v1.AuditService/Tail").await;
    let silent = open("/dayfly.v1.OperatorService/WatchEnforcement").await;
    (say, [telling, silent])
}

/// That both streams end with `code`: the one without a word within a look, and the other instead
/// of saying what it has to say.
async fn end(say: Say, bodies: [Body; 2], code: Code) {
    say.send(Ok(Frame::data("too late".into()))).await.unwrap();
    for mut body in bodies {
        let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        let told = end.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
        assert_eq!(told, Some(code));
        assert!(body.frame().await.is_none());
    }
    assert!(say.is_closed(), "whoever tells is not told that nobody listens");
}

#[tokio::test]
async fn a14_a_stream_ends_with_the_role_that_allowed_it() {
    let (behind, door) = door().await;
    let (say, mut bodies) = streams(&behind, door).await;
    // Another bundle that leaves the role where it was ends nothing.
    for said in ["one", "two"] {
        say.send(Ok(Frame::data(said.into()))).await.unwrap();
        assert!(bodies[0].frame().await.unwrap().unwrap().is_data());
        behind.directory.store(Arc::new(directory()));
    }
    behind.directory.store(Arc::default());
    end(say, bodies, Code::NotFound).await;
}

#[tokio::test]
async fn a14_a_stream_ends_with_the_certificate_that_it_was_opened_with() {
    let (behind, door) = door().await;
    let (say, bodies) = streams(&behind, door).await;
    behind.clock.forward(Duration::from_secs(600));
    end(say, bodies, Code::Unauthenticated).await;
}

#[tokio::test]
async fn a17_a_stream_ends_with_a_lock_of_its_caller() {
    let (behind, door) = door().await;
    let (say, bodies) = streams(&behind, door).await;
    behind.fork("person/auditor").await;
    end(say, bodies, Code::PermissionDenied).await;
}

/// As that of the health service, which knows nothing of the end.
#[tokio::test]
async fn a_stream_without_a_word_does_not_hold_up_the_end() {
    let (behind, door) = door().await;
    let (say, [mut telling, mut silent]) = streams(&behind, door).await;
    say.send(Ok(Frame::data("not serving".into()))).await.unwrap();
    behind.stop.cancel();
    assert!(telling.frame().await.unwrap().unwrap().is_data(), "what is said by then is told");
    for body in [&mut telling, &mut silent] {
        let end = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
        let end = end.unwrap().unwrap().unwrap().into_trailers().unwrap();
        let told = end.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
        assert_eq!(told, Some(Code::Unavailable));
        assert!(body.frame().await.is_none());
    }
    assert!(say.is_closed());
}

/// A workload's streams end under a lock, and none begins; those of others go on. Single calls
/// are decided by the core.
#[tokio::test]
async fn a_lock_cuts_the_streams_of_a_workload() {
    let (behind, door) = door().await;
    let later = behind.clock.now().plus(Duration::from_secs(600));
    let open = async |path: &str, who: &str, body: Body| {
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(peer(who, later));
        let says = Says(Arc::new(vec![body].into()));
        Guard::new(door.clone(), says).call(request).await.unwrap().into_body()
    };
    const WATCH: &str = "/dayfly.v1.AccessService/WatchRequest";
    let mut watching = open(WATCH, "agent/a", silent()).await;
    let (say, told) = telling();
    let mut following = open("/dayfly.v1.GatewayService/Follow", "gateway/both", told).await;
    behind.locked.store(true, Ordering::SeqCst);
    let mut again = open(WATCH, "agent/a", silent()).await;
    for body in [&mut watching, &mut again] {
        let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        let code = end.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
        assert_eq!(code, Some(Code::PermissionDenied));
    }
    // A gateway must hear of the lock.
    say.send(Ok(Frame::data("locked".into()))).await.unwrap();
    assert!(following.frame().await.unwrap().unwrap().is_data());
}

#[tokio::test]
async fn for_a_stream_there_must_be_room() {
    let (behind, door) = door().await;
    let Door::Mutual(known) = &door else { panic!("not that door") };
    let auditor = id("person/auditor");
    let held: Vec<_> = std::iter::from_fn(|| known.streams.enter(&auditor)).collect();
    let mut guard = Guard::new(door.clone(), Says(Arc::new(vec![silent()].into())));
    let later = behind.clock.now().plus(Duration::from_secs(600));
    let mut open = async || {
        let request = Request::builder().uri("/dayfly.v1.AuditService/Tail");
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(peer("person/auditor", later));
        let answer = guard.call(request).await.unwrap();
        let code = answer.headers().get("grpc-status");
        (code.map(|code| Code::from_bytes(code.as_bytes())), answer)
    };
    assert_eq!(open().await.0, Some(Code::ResourceExhausted));
    drop(held);
    let (code, answer) = open().await;
    assert_eq!(code, None);
    let held: Vec<_> = std::iter::from_fn(|| known.streams.enter(&auditor)).collect();
    drop(answer);
    let last = known.streams.enter(&auditor);
    assert!(!held.is_empty() && last.is_some(), "the place of a stream that has ended");
}

#[tokio::test]
async fn a_list_is_handed_over_in_pieces_and_whole() {
    let (behind, door) = door().await;
    let (say, told) = telling();
    let request = Request::builder().uri("/dayfly.v1.AccessService/ListMyGrants");
    let mut request = request.body(Body::empty()).unwrap();
    let later = behind.clock.now().plus(Duration::from_secs(600));
    request.extensions_mut().insert(peer("agent/a", later));
    let says = Says(Arc::new(vec![told].into()));
    let mut body = Guard::new(door, says).call(request).await.unwrap().into_body();
    let long: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    say.send(Ok(Frame::data(long.clone().into()))).await.unwrap();
    drop(say);
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        assert!(piece.len() <= 64 * 1024);
        read.extend_from_slice(&piece);
    }
    assert_eq!(read, long);
}

/// However many a caller asks for, it has a few that it does not read.
#[tokio::test]
async fn a50_of_lists_that_nobody_reads_there_are_few() {
    let (behind, door) = door().await;
    let later = behind.clock.now().plus(Duration::from_secs(600));
    let ask = async |who: &str| {
        let request = Request::builder().uri("/dayfly.v1.AccessService/ListMyGrants");
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(peer(who, later));
        let says = Says(Arc::new(vec![silent()].into()));
        let answer = Guard::new(door.clone(), says).call(request).await.unwrap();
        let code = answer.headers().get("grpc-status");
        (code.map(|code| Code::from_bytes(code.as_bytes())), answer)
    };
    let mut unread = Vec::new();
    for _ in 0..4 {
        let (code, answer) = ask("agent/a").await;
        assert_eq!(code, None);
        unread.push(answer);
    }
    assert_eq!(ask("agent/a").await.0, Some(Code::ResourceExhausted));
    assert_eq!(ask("gateway/both").await.0, None, "others have room of their own");
    drop(unread.pop());
    assert_eq!(ask("agent/a").await.0, None, "the place of one that has ended");
}
