//! Every method has a rule, and every rule keeps out whom it does not mean.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dayfly_verifier::time::{SystemClock, Timestamp};
use prost::Message as _;
use tonic::Code;

use super::*;
use crate::core::directory::{Person, WorkloadRule};
use crate::journal::Memory;
use crate::random::SystemRandom;

/// By a directory alone, under no lock.
impl<F: Fn() -> Arc<Directory> + Send + Sync> Judge for F {
    fn directory(&self) -> Arc<Directory> {
        self()
    }

    fn lock_on(&self, _: &SpiffeId, _: Timestamp) -> Option<Denial> {
        None
    }
}

/// The methods of the interface, from its descriptors, and whether each is a stream.
fn methods() -> BTreeMap<String, bool> {
    let decode = |bytes| prost_types::FileDescriptorSet::decode(bytes).unwrap().file;
    let ours = decode(dayfly_proto::v1::DESCRIPTORS);
    let health = decode(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let reflection = decode(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET);
    let files = ours.iter().chain(&health).chain(&reflection);
    let mut paths = BTreeMap::new();
    for file in files {
        for service in &file.service {
            for method in &service.method {
                let (package, service) = (file.package(), service.name());
                let streams = method.client_streaming() || method.server_streaming();
                paths.insert(format!("/{package}.{service}/{}", method.name()), streams);
            }
        }
    }
    paths
}

#[test]
fn a40_every_method_has_exactly_one_rule_and_every_rule_a_method() {
    let ruled: Vec<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
    let distinct: BTreeSet<String> = ruled.iter().cloned().collect();
    assert_eq!(ruled.len(), distinct.len(), "a method has two rules");
    assert_eq!(distinct, methods().into_keys().collect());
}

#[test]
fn what_has_no_deadline_is_a_stream_and_every_stream_has_none() {
    let streams: BTreeSet<String> = STREAMS.iter().map(|path| (*path).to_owned()).collect();
    let said = methods().into_iter().filter(|(_, streams)| *streams).map(|(path, _)| path);
    assert_eq!(streams, said.collect());
}

/// A handler that answers whenever it likes.
#[derive(Clone)]
struct Slow(Duration);

impl Service<Request<Body>> for Slow {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let Self(takes) = *self;
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            Ok(Response::new(Body::empty()))
        })
    }
}

#[tokio::test]
async fn a_call_that_is_no_stream_is_answered_in_time_whatever_its_handler_does() {
    let (_dir, door) = door().await;
    let later = SystemClock.now().plus(Duration::from_secs(60));
    let call = async |path: &str, takes: u64, deadline: u64| {
        let service = Slow(Duration::from_millis(takes));
        let mut guard = Guard::new(door.clone(), service);
        assert_eq!(guard.deadline, DEADLINE);
        guard.deadline = Duration::from_millis(deadline);
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(peer("agent/a", later));
        let answer = guard.call(request).await.unwrap();
        answer.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
    };
    let late = Some(Code::DeadlineExceeded);
    assert_eq!(call("/dayfly.v1.AccessService/Exchange", 60_000, 20).await, late);
    assert_eq!(call("/dayfly.v1.AccessService/Exchange", 0, 20_000).await, None);
    assert_eq!(call("/dayfly.v1.AccessService/WatchRequest", 100, 20).await, None);
    let refused = call("/dayfly.v1.OperatorService/Revoke", 60_000, 20).await;
    assert_eq!(refused, Some(Code::NotFound));
}

#[test]
fn what_is_logged_of_a_path_is_a_name_from_the_table() {
    assert_eq!(listed(RULES[3].0), RULES[3].0);
    for path in ["", "/", "/dayfly.v1.AccessService/exchange", "/secret\n2026 forged"] {
        assert_eq!(listed(path), "other");
    }
}

#[test]
fn a40_what_has_no_rule_is_refused_in_any_spelling() {
    for path in [
        "",
        "/",
        "/dayfly.v1.OperatorService/",
        "/dayfly.v1.OperatorService/revoke",
        "//dayfly.v1.OperatorService/Revoke",
        "/dayfly.v1.OperatorService/Revoke/",
        "/dayfly.v1.OperatorService/Revoke?x",
        "/dayfly.v2.OperatorService/Revoke",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        assert_eq!(rule(path), None, "{path}");
    }
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://shop.test/{name}").parse().unwrap()
}

fn directory() -> Directory {
    let person = |name: &str, roles: &[Role]| {
        let roles = roles.iter().copied().collect();
        let ids = BTreeSet::from([id(&format!("person/{name}"))]);
        (name.parse().unwrap(), Person { ids, roles, ..Person::default() })
    };
    let workloads = |ids: &str| WorkloadRule {
        ids: ids.parse().unwrap(),
        groups: BTreeSet::new(),
        owners: BTreeSet::new(),
        operators: BTreeSet::new(),
        exclusive: false,
    };
    Directory {
        people: BTreeMap::from([
            person("plain", &[]),
            person("operator", &[Role::Operator]),
            person("auditor", &[Role::Auditor]),
            person("admin", &[Role::PolicyAdmin]),
        ]),
        workloads: vec![
            workloads("spiffe://shop.test/agent/**"),
            workloads("spiffe://shop.test/gateway/both"),
        ],
        gateways: BTreeSet::from([id("gateway/orders"), id("gateway/both")]),
        bundle_signatures: 0,
    }
}

#[test]
fn each_rule_admits_those_whom_it_means_and_nobody_else() {
    const ALL: [&str; 9] = [
        "agent/a",
        "agent",
        "gateway/orders",
        "gateway/both",
        "person/plain",
        "person/operator",
        "person/auditor",
        "person/admin",
        "stranger",
    ];
    let people = &ALL[4..8];
    let cases: [(Rule, &[&str]); 8] = [
        (Rule::Joiner, &[]),
        (Rule::Anyone, &ALL),
        (
            Rule::Listed,
            &[
                "agent/a",
                "gateway/orders",
                "gateway/both",
                people[0],
                people[1],
                people[2],
                people[3],
            ],
        ),
        (Rule::Workload, &["agent/a", "gateway/both"]),
        (Rule::Person, people),
        (Rule::Operator, &["person/operator"]),
        (Rule::Overseer, &["person/operator", "person/auditor"]),
        (Rule::Gateway, &["gateway/orders", "gateway/both"]),
    ];
    let directory = directory();
    for (rule, meant) in cases {
        let admitted: Vec<_> =
            ALL.into_iter().filter(|name| rule.admits(&id(name), &directory)).collect();
        assert_eq!(admitted, meant, "{rule:?}");
    }
}

async fn door() -> (tempfile::TempDir, Door) {
    let dir = tempfile::tempdir().unwrap();
    Authority::found("shop.test", dir.path(), SystemClock.now()).unwrap();
    let (joins, random) = (Arc::new(Memory::default()), Arc::new(SystemRandom));
    let authority = Authority::open("shop.test", dir.path(), joins, random).await.unwrap();
    let directory = Arc::new(directory());
    let known = Known {
        judge: Box::new(move || directory.clone()),
        authority: Arc::new(authority),
        clock: Arc::new(SystemClock),
    };
    (dir, Door::Mutual(Arc::new(known)))
}

fn peer(name: &str, until: Timestamp) -> Peer {
    let (key_digest, from) = ([0; 32], Timestamp::default());
    Peer { id: id(name), key: None, key_digest, generation: 1, from, until }
}

#[tokio::test]
async fn a39_without_a_certificate_in_force_no_method_is_reached() {
    let (_dir, door) = door().await;
    let now = SystemClock.now();
    for (path, rule) in RULES {
        let refused = door.admit(path, None).unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{path}");
        let ended = peer("person/operator", now);
        assert_eq!(door.admit(path, Some(&ended)).unwrap_err().code(), Code::Unauthenticated);
        let joining = Door::Join.admit(path, None).is_ok();
        assert_eq!(joining, *rule == Rule::Joiner, "{path}: joining is all that needs none");
    }
}

#[tokio::test]
async fn a40_a_stranger_reaches_nothing_but_health() {
    let (_dir, door) = door().await;
    let later = SystemClock.now().plus(Duration::from_secs(60));
    let open: Vec<_> = RULES
        .iter()
        .filter(|(path, _)| door.admit(path, Some(&peer("stranger", later))).is_ok())
        .map(|(path, _)| *path)
        .collect();
    assert_eq!(
        open,
        [
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ]
    );
    let unlisted = door.admit("/dayfly.v1.OperatorService/Nothing", Some(&peer("stranger", later)));
    assert!(unlisted.is_err());
}

#[tokio::test]
async fn a_role_counts_only_as_long_as_the_newest_state_has_it() {
    let dir = tempfile::tempdir().unwrap();
    Authority::found("shop.test", dir.path(), SystemClock.now()).unwrap();
    let (joins, random) = (Arc::new(Memory::default()), Arc::new(SystemRandom));
    let authority = Authority::open("shop.test", dir.path(), joins, random).await.unwrap();
    let published = Arc::new(arc_swap::ArcSwap::from_pointee(directory()));
    let newest = published.clone();
    let door = Door::Mutual(Arc::new(Known {
        judge: Box::new(move || newest.load_full()),
        authority: Arc::new(authority),
        clock: Arc::new(SystemClock),
    }));
    let operator = peer("person/operator", SystemClock.now().plus(Duration::from_secs(60)));
    let revoke = || door.admit("/dayfly.v1.OperatorService/Revoke", Some(&operator));
    assert!(revoke().is_ok());
    published.store(Arc::default());
    assert!(revoke().is_err());
}

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

/// A stream without a word ends within a look, and one that has something to say does not get to
/// say it.
#[tokio::test]
async fn a14_a_stream_ends_with_the_role_that_allowed_it() {
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;

    let dir = tempfile::tempdir().unwrap();
    Authority::found("shop.test", dir.path(), SystemClock.now()).unwrap();
    let (joins, random) = (Arc::new(Memory::default()), Arc::new(SystemRandom));
    let authority = Authority::open("shop.test", dir.path(), joins, random).await.unwrap();
    let published = Arc::new(arc_swap::ArcSwap::from_pointee(directory()));
    let newest = published.clone();
    let door = Door::Mutual(Arc::new(Known {
        judge: Box::new(move || newest.load_full()),
        authority: Arc::new(authority),
        clock: Arc::new(SystemClock),
    }));
    let (say, said) = tokio::sync::mpsc::channel::<Result<Frame<bytes::Bytes>, Status>>(4);
    let told = Body::new(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(said)));
    let silent = StreamBody::new(futures_util::stream::pending::<Result<Frame<_>, Status>>());
    let bodies = Says(Arc::new(vec![Body::new(silent.boxed_unsync()), told].into()));
    let mut guard = Guard::new(door, bodies);
    let mut open = async |path: &str| {
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let later = SystemClock.now().plus(Duration::from_secs(600));
        request.extensions_mut().insert(peer("person/auditor", later));
        guard.call(request).await.unwrap().into_body()
    };
    let mut telling = open("/dayfly.v1.AuditService/Tail").await;
    let mut silent = open("/dayfly.v1.OperatorService/WatchEnforcement").await;
    say.send(Ok(Frame::data("one".into()))).await.unwrap();
    assert!(telling.frame().await.unwrap().unwrap().is_data());
    // Another bundle that leaves the role where it was ends nothing.
    published.store(Arc::new(directory()));
    say.send(Ok(Frame::data("two".into()))).await.unwrap();
    assert!(telling.frame().await.unwrap().unwrap().is_data());
    published.store(Arc::default());
    say.send(Ok(Frame::data("three".into()))).await.unwrap();
    for body in [&mut telling, &mut silent] {
        let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        let code = end.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
        assert_eq!(code, Some(Code::NotFound));
        assert!(body.frame().await.is_none());
    }
    assert!(say.is_closed(), "whoever tells is not told that nobody listens");
}

/// Whether a lock is on everybody.
struct Locked(std::sync::atomic::AtomicBool);

impl Judge for Arc<Locked> {
    fn directory(&self) -> Arc<Directory> {
        Arc::new(directory())
    }

    fn lock_on(&self, _: &SpiffeId, now: Timestamp) -> Option<Denial> {
        let locked = self.0.load(std::sync::atomic::Ordering::SeqCst);
        locked.then(|| Denial::Locked(dayfly_verifier::id::LockId::new([1; 16]), now))
    }
}

/// A workload's streams end under a lock, and none begins; those of others go on. Single calls
/// are decided by the core.
#[tokio::test]
async fn a_lock_cuts_the_streams_of_a_workload() {
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;

    let dir = tempfile::tempdir().unwrap();
    Authority::found("shop.test", dir.path(), SystemClock.now()).unwrap();
    let (joins, random) = (Arc::new(Memory::default()), Arc::new(SystemRandom));
    let authority = Authority::open("shop.test", dir.path(), joins, random).await.unwrap();
    let lock = Arc::new(Locked(false.into()));
    let door = Door::Mutual(Arc::new(Known {
        judge: Box::new(lock.clone()),
        authority: Arc::new(authority),
        clock: Arc::new(SystemClock),
    }));
    let later = SystemClock.now().plus(Duration::from_secs(600));
    let open = async |path: &str, who: &str, body: Body| {
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(peer(who, later));
        let says = Says(Arc::new(vec![body].into()));
        Guard::new(door.clone(), says).call(request).await.unwrap().into_body()
    };
    let silent = || {
        let silent = futures_util::stream::pending::<Result<Frame<bytes::Bytes>, Status>>();
        Body::new(StreamBody::new(silent).boxed_unsync())
    };
    const WATCH: &str = "/dayfly.v1.AccessService/WatchRequest";
    let mut watching = open(WATCH, "agent/a", silent()).await;
    let (say, said) = tokio::sync::mpsc::channel::<Result<Frame<bytes::Bytes>, Status>>(4);
    let told = Body::new(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(said)));
    let mut following = open("/dayfly.v1.GatewayService/Follow", "gateway/both", told).await;
    lock.0.store(true, std::sync::atomic::Ordering::SeqCst);
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
