//! What runs is cut in a way that nobody takes for a whole answer, or drains for as long as it may.

use http::Version;
use http_body::{Body as _, Frame};

use super::super::Cut;
use super::*;
use crate::time::Clock as _;

fn revoked() -> Kind {
    Kind::Revoked(Target::Token(claims().token))
}

/// What a service answers behind the layer.
async fn answer<B>(
    guard: &Guard,
    request: Request<Body>,
    body: impl Fn() -> Response<B> + Clone + Send + 'static,
) -> Response<Cut<B>>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let service = tower::service_fn(move |_: Request<Body>| {
        let answer = body();
        async { Ok::<_, Infallible>(answer) }
    });
    tower_layer::Layer::layer(guard, service).oneshot(request).await.unwrap()
}

/// The next frame: data, trailers, how the body breaks off, or that it waits.
fn next<B>(body: &mut Cut<B>) -> String
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Unpin,
{
    let mut context = Context::from_waker(Waker::noop());
    match Pin::new(body).poll_frame(&mut context).map(|frame| frame.transpose()) {
        Poll::Pending => "waits".into(),
        Poll::Ready(Ok(None)) => "the end".into(),
        Poll::Ready(Ok(Some(frame))) => said(frame),
        Poll::Ready(Err(error)) => format!("broken: {error}"),
    }
}

fn said(frame: Frame<Bytes>) -> String {
    match frame.into_data() {
        Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
        Err(frame) => {
            let trailers = frame.into_trailers().unwrap();
            let of = |name: &str| trailers[name].to_str().unwrap().to_owned();
            format!("status {} for {}", of("grpc-status"), of("dayfly-reason"))
        }
    }
}

#[tokio::test]
async fn a_call_of_grpc_that_is_cut_is_told_why() {
    let broken = "broken: the token was taken back";
    for (version, kind, end) in [
        (Version::HTTP_2, "application/grpc", "status 16 for revoked"),
        (Version::HTTP_2, "application/grpc+proto", "status 16 for revoked"),
        (Version::HTTP_2, "application/grpc;x=y", "status 16 for revoked"),
        // Where trailers are lost, or are the end of any whole body.
        (Version::HTTP_2, "application/grpc-web", broken),
        (Version::HTTP_2, "application/json", broken),
        (Version::HTTP_11, "application/grpc", broken),
        (Version::HTTP_11, "application/json", broken),
    ] {
        let mut world = World::new();
        let mut request = good(&mut world);
        *request.version_mut() = version;
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        let body = || Response::new(Endless(false));
        let mut body = answer(&guard(&world), request, body).await.into_body();
        assert_eq!([next(&mut body), next(&mut body)], ["row", "waits"]);
        world.tell(revoked());
        assert_eq!([next(&mut body), next(&mut body)], [end, "the end"], "{version:?} {kind}");
        assert!(body.is_end_stream());
    }
}

/// Most answers are one frame, and whoever reads it slowly may still be at it much later.
#[tokio::test]
async fn an_answer_in_one_long_frame_is_cut_between_its_pieces() {
    let mut world = World::new();
    let long = || Response::new(http_body_util::Full::new(Bytes::from(vec![b'x'; 200_000])));
    let request = good(&mut world);
    let mut whole = answer(&guard(&world), request, long).await.into_body();
    assert_eq!(whole.size_hint().exact(), Some(200_000));
    for length in [65_536, 65_536, 65_536, 3_392] {
        assert!(!whole.is_end_stream());
        assert_eq!(next(&mut whole).len(), length);
    }
    assert!(whole.is_end_stream());
    assert_eq!(next(&mut whole), "the end");

    let request = good(&mut world);
    let mut cut = answer(&guard(&world), request, long).await.into_body();
    assert_eq!(next(&mut cut).len(), 65_536);
    assert_eq!(cut.size_hint().exact(), Some(134_464));
    world.tell(revoked());
    assert_eq!([next(&mut cut), next(&mut cut)], ["broken: the token was taken back", "the end"]);
}

#[tokio::test]
async fn what_drains_goes_on_for_its_bound_while_new_calls_are_refused() {
    let mut world = World::new();
    let secs = Duration::from_secs;
    let shortest = guard(&world)
        .draining("orders/prod/**".parse().unwrap(), secs(600))
        .draining("orders/prod/o-17".parse().unwrap(), secs(30))
        .draining("orders/staging/**".parse().unwrap(), secs(1));
    let request = good(&mut world);
    let mut quiet = answer(&shortest, request, || Response::new(Endless(false))).await.into_body();
    let request = good(&mut world);
    let mut flood = answer(&shortest, request, || Response::new(Flood)).await.into_body();
    assert_eq!([next(&mut quiet), next(&mut quiet), next(&mut flood)], ["row", "waits", "row"]);

    world.tell(revoked());
    let request = good(&mut world);
    let refused = answer(&shortest, request, || Response::new(Flood)).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!([next(&mut quiet), next(&mut flood)], ["waits", "row"]);
    world.advance(secs(30) - Duration::from_millis(1));
    world.enforcer.tick(world.clock.now(), world.clock.uptime());
    assert_eq!([next(&mut quiet), next(&mut flood)], ["waits", "row"], "stale by now, too");
    world.advance(Duration::from_millis(1));
    world.enforcer.tick(world.clock.now(), world.clock.uptime());
    let broken = "broken: the token was taken back";
    assert_eq!([next(&mut quiet), next(&mut flood)], [broken, broken]);
    assert_eq!([next(&mut quiet), next(&mut flood)], ["the end", "the end"]);
}

#[tokio::test]
async fn an_answer_that_would_hand_the_connection_over_is_refused() {
    let mut world = World::new();
    let switching = || {
        let mut answer = Response::new(Flood);
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer
    };
    let request = good(&mut world);
    let refused = answer(&guard(&world), request, switching).await;
    assert_eq!(refused.status(), StatusCode::NOT_IMPLEMENTED);
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(text.starts_with(br#"{"error":"hands_over""#), "{text:?}");

    let mut tunnel = good(&mut world);
    *tunnel.method_mut() = http::Method::CONNECT;
    let token = minted(&claims());
    let act = act(GATEWAY, &refund(5));
    let call = DpopCall { method: "CONNECT", act: Some(&act), ..usual_http() };
    let proof = make_dpop(&holder(0), token.expose(), &call, at(NOW), world.jti());
    tunnel.headers_mut().insert("dpop", proof.parse().unwrap());
    let refused = answer(&guard(&world), tunnel, || Response::new(Flood)).await;
    assert_eq!(refused.status(), StatusCode::NOT_IMPLEMENTED);
}

/// Notes that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whoever waits is woken by the revocation itself: nobody else may ever come to ask.
#[tokio::test]
async fn what_waits_is_woken_to_be_cut() {
    let mut world = World::new();
    let wakers = [Arc::new(Woken::default()), Arc::new(Woken::default())];
    let [handler, body] = wakers.clone().map(Waker::from);
    let never = |_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>();
    let service = tower_layer::Layer::layer(&guard(&world), tower::service_fn(never));
    let mut running = Box::pin(service.oneshot(good(&mut world)));
    assert!(running.as_mut().poll(&mut Context::from_waker(&handler)).is_pending());
    let sent = good(&mut world);
    let mut sending =
        answer(&guard(&world), sent, || Response::new(Endless(false))).await.into_body();
    assert_eq!(next(&mut sending), "row");
    let mut context = Context::from_waker(&body);
    assert!(Pin::new(&mut sending).poll_frame(&mut context).is_pending());
    assert!(wakers.iter().all(|woken| !woken.0.load(Ordering::SeqCst)));
    world.tell(revoked());
    assert!(wakers.iter().all(|woken| woken.0.load(Ordering::SeqCst)));
}

/// A handler that has paused does nothing more once its token is taken back.
#[tokio::test]
async fn a_handler_does_not_go_on_after_the_end_of_its_token() {
    let mut world = World::new();
    let acted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&acted);
    let acts = move |_: Request<Body>| {
        let (flag, mut paused) = (Arc::clone(&flag), false);
        std::future::poll_fn(move |context| {
            if !std::mem::replace(&mut paused, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            flag.store(true, Ordering::SeqCst);
            Poll::Ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        })
    };
    let service = tower_layer::Layer::layer(&guard(&world), tower::service_fn(acts));
    let mut running = Box::pin(service.oneshot(good(&mut world)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(running.as_mut().poll(&mut context).is_pending());
    world.tell(revoked());
    let Poll::Ready(answer) = running.as_mut().poll(&mut context) else { panic!("it runs on") };
    assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(!acted.load(Ordering::SeqCst));
}
