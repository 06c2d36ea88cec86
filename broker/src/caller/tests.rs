//! Every method has a rule, and every rule keeps out whom it does not mean.

mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use dayfly_tests::clock::ByHand;
use dayfly_verifier::time::Timestamp;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::core::directory::{Person, WorkloadRule};
use crate::journal::{Invitation, Joins as _, Memory, Renew};
use crate::random::SystemRandom;

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
    let (behind, door) = door().await;
    let later = behind.clock.now().plus(Duration::from_secs(60));
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

/// Who gets past the door with which method, on one page: for many of them nothing else asks.
#[test]
fn a40_the_rules_are_one_page() {
    const CALLERS: [(&str, &str); 7] = [
        ("workload", "agent/a"),
        ("gateway", "gateway/orders"),
        ("person", "person/plain"),
        ("operator", "person/operator"),
        ("auditor", "person/auditor"),
        ("admin", "person/admin"),
        ("stranger", "stranger"),
    ];
    let directory = directory();
    let page = RULES.iter().map(|(path, rule)| {
        let admitted = CALLERS.iter().filter(|(_, of)| rule.admits(&id(of), &directory));
        let admitted: Vec<_> = admitted.map(|(name, _)| *name).collect();
        format!("{path:<66}{}", admitted.join(" ")).trim_end().to_owned()
    });
    insta::assert_snapshot!(page.collect::<Vec<_>>().join("\n"));
}

/// What stands behind a door, to be changed by a test.
struct Behind {
    directory: Arc<ArcSwap<Directory>>,
    /// Whether a lock is on everybody.
    locked: Arc<AtomicBool>,
    joins: Memory,
    authority: Arc<Authority>,
    clock: Arc<ByHand>,
    /// Cancelled when nothing is served any more.
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Judge for (Arc<ArcSwap<Directory>>, Arc<AtomicBool>) {
    fn directory(&self) -> Arc<Directory> {
        self.0.load_full()
    }

    fn lock_on(&self, _: &SpiffeId, now: Timestamp) -> Option<Denial> {
        let locked = self.1.load(Ordering::SeqCst);
        locked.then(|| Denial::Locked(dayfly_verifier::id::LockId::new([1; 16]), now))
    }
}

async fn door() -> (Behind, Door) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ByHand::default()));
    Authority::found("shop.test", dir.path(), clock.now()).unwrap();
    let (joins, random) = (Memory::default(), Arc::new(SystemRandom));
    let authority = Authority::open("shop.test", dir.path(), Arc::new(joins.clone()), random);
    let authority = Arc::new(authority.await.unwrap());
    let directory = Arc::new(ArcSwap::from_pointee(directory()));
    let (locked, stop) = (Arc::<AtomicBool>::default(), CancellationToken::new());
    let known = Known {
        judge: Box::new((directory.clone(), locked.clone())),
        authority: authority.clone(),
        clock: clock.clone(),
        streams: Room::streams(),
        lists: Room::lists(),
        stop: stop.clone(),
    };
    let behind = Behind { directory, locked, joins, authority, clock, stop, _dir: dir };
    (behind, Door::Mutual(Arc::new(known)))
}

impl Behind {
    /// Has the authority see one certificate of `name` renewed for two keys.
    async fn fork(&self, name: &str) {
        let (now, hash) = (self.clock.now(), [1; 32]);
        let expires_at = now.plus(Duration::from_secs(60));
        let invitation =
            Invitation { id: [1; 16], secret_hash: hash, spiffe_id: id(name), expires_at };
        self.joins.invite(&invitation, now).await.unwrap();
        let (spiffe_id, generation) =
            self.joins.join(&[1; 16], &hash, &hash, now).await.unwrap().unwrap();
        for next in [2, 3] {
            let (spiffe_id, next_key_hash) = (spiffe_id.clone(), [next; 32]);
            let renew = Renew { spiffe_id, generation, key_hash: hash, next_key_hash, due: true };
            self.joins.renew(&renew, now).await.unwrap();
        }
        self.authority.refresh().await.unwrap();
    }
}

fn peer(name: &str, until: Timestamp) -> Peer {
    let (key_digest, from) = ([0; 32], Timestamp::default());
    Peer { id: id(name), key: None, key_digest, generation: 1, from, until }
}

#[tokio::test]
async fn a39_without_a_certificate_in_force_no_method_is_reached() {
    let (behind, door) = door().await;
    let now = behind.clock.now();
    for (path, rule) in RULES {
        let ended = peer("person/operator", now);
        for peer in [None, Some(&ended)] {
            let refused = door.admit(path, peer).unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{path}");
            let info = refused.get_error_details().error_info().cloned();
            assert_eq!(info.unwrap().reason, "NO_CERTIFICATE");
        }
        let joining = Door::Join.admit(path, None).is_ok();
        assert_eq!(joining, *rule == Rule::Joiner, "{path}: joining is all that needs none");
    }
}

#[tokio::test]
async fn a40_a_stranger_reaches_nothing_but_health() {
    let (behind, door) = door().await;
    let later = behind.clock.now().plus(Duration::from_secs(60));
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
    let (behind, door) = door().await;
    let operator = peer("person/operator", behind.clock.now().plus(Duration::from_secs(60)));
    let revoke = || door.admit("/dayfly.v1.OperatorService/Revoke", Some(&operator));
    assert!(revoke().is_ok());
    behind.directory.store(Arc::default());
    assert!(revoke().is_err());
}

#[tokio::test]
async fn a17_under_a_lock_no_call_is_let_in() {
    let (behind, door) = door().await;
    let later = behind.clock.now().plus(Duration::from_secs(60));
    let admit = |name: &str| {
        let admitted = door.admit("/dayfly.v1.AccessService/Exchange", Some(&peer(name, later)));
        admitted.map_err(|status| status.code())
    };
    assert_eq!(admit("agent/a"), Ok(()));
    behind.fork("agent/a").await;
    assert_eq!(admit("agent/a"), Err(Code::PermissionDenied));
    assert_eq!(admit("agent/b"), Ok(()));
}
