//! Attacks at the edges: connections, methods, sizes, ids, log lines.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use dayfly_agent::session::Session;
use dayfly_proto::v1;
use dayfly_proto::v1::approval_service_client::ApprovalServiceClient;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;

use crate::parties::{Agent, Gateway, Use, http, scope};
use crate::world::{SHOP, World};

/// How `session` would connect to the brokers of the shop.
fn tls(session: &Session) -> ClientConfig {
    let broker = format!("{SHOP}/dayfly/broker").parse().unwrap();
    let mut config = session.live().connect_to(vec![broker]).unwrap();
    config.resumption = Resumption::in_memory_sessions(8);
    config
}

/// No client certificate.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

async fn connect(
    config: &Arc<ClientConfig>,
    address: std::net::SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// The status of an empty call of `method`; `None` where there is no connection to call over.
async fn call(
    config: &Arc<ClientConfig>,
    address: std::net::SocketAddr,
    method: &str,
) -> Option<String> {
    let stream = connect(config, address).await.ok()?;
    let shake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = shake.await.ok()?;
    tokio::spawn(connection);
    let request = Request::post(format!("http://broker{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .unwrap();
    let (head, body) = sender.send_request(request).await.ok()?.into_parts();
    let trailers = body.collect().await.ok()?.trailers().cloned().unwrap_or_default();
    let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status"))?;
    Some(status.to_str().unwrap().to_owned())
}

/// Every method that there is, health and reflection among them.
fn methods() -> Vec<String> {
    let sets = [v1::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let mut methods = vec![
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned(),
        "/dayfly.v1.AccessService/NoSuchMethod".to_owned(),
    ];
    for set in sets {
        let set = prost_types::FileDescriptorSet::decode(set).unwrap();
        for file in set.file {
            for service in &file.service {
                let path = |method: &prost_types::MethodDescriptorProto| {
                    format!("/{}.{}/{}", file.package(), service.name(), method.name())
                };
                methods.extend(service.method.iter().map(path));
            }
        }
    }
    assert!(methods.len() > 20, "{methods:?}");
    methods
}

/// Resumption would skip the present trust bundle, and the end of the certificate.
#[tokio::test]
async fn a35_no_session_is_resumed() {
    let world = World::start("");
    let session = world.session("agent/refunds").await;
    let config = Arc::new(tls(&session));
    for _ in 0..3 {
        let mut stream = connect(&config, world.address()).await.unwrap();
        // The broker's first bytes: tickets would have come before them.
        assert!(stream.read_u8().await.is_ok());
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a39_nothing_but_join_is_open_without_a_certificate() {
    let world = World::start("");
    let session = world.session("agent/refunds").await;
    let mut config = tls(&session);
    config.client_auth_cert_resolver = Arc::new(Nobody);
    let config = Arc::new(config);
    for method in methods() {
        let at_broker = call(&config, world.address(), &method).await;
        assert_eq!(at_broker, None, "{method}");
        let joins = method == "/dayfly.v1.IdentityService/Join";
        let at_join = call(&config, world.join_address(), &method).await;
        assert!(at_join.is_some() || !joins, "the door of joining is shut");
        let Some(at_join) = at_join else { continue };
        // 5, 7, 12, 16: refused, or not there at all, which must not be told apart.
        let refused = ["5", "7", "12", "16"].contains(&at_join.as_str());
        assert!(refused || joins, "{method}: {at_join}");
    }
    for page in ["/healthz", "/readyz", "/metrics"] {
        let answer = world.get(page).unwrap();
        assert!(answer.contains(" 200 ") && !answer.contains("agent/refunds"), "{answer}");
    }
}

/// A stranger with a good certificate, and a workload at the methods of others: refused before a
/// message is even read.
#[tokio::test]
async fn a40_every_method_has_a_rule() {
    let world = World::start("");
    let stranger = Arc::new(tls(&*world.session("stranger/x").await));
    let workload = Arc::new(tls(&*world.session("agent/refunds").await));
    for method in methods() {
        let open = method.starts_with("/grpc.") || method.contains("IdentityService");
        if open {
            continue;
        }
        let own = method.contains("AccessService") && !method.contains("NoSuch");
        for (who, config, may) in [("stranger", &stranger, false), ("workload", &workload, own)] {
            let status = call(config, world.address(), &method).await;
            let refused = matches!(status.as_deref(), Some("5" | "7" | "12" | "16"));
            assert!(refused || may, "{who} at {method}: {status:?}");
        }
    }
}

/// Whatever callers write, a log line is one line of JSON, and free text is not in it.
#[tokio::test]
async fn a43_log_lines_cannot_be_forged() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", std::time::Duration::from_secs(5)).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let evil = "canary-7f3a\n{\"level\":\"ERROR\"}\r\x1b[31mred\u{202e}\u{2028}\0\"}";
    let mut filing = agent.filing(scope("read orders/prod/o-17", None));
    filing.justification = evil.into();
    agent.file(filing).await.unwrap();
    let changes: [fn(&mut v1::RequestAccessRequest, &str); 4] = [
        |f, evil| f.task = evil.into(),
        |f, evil| f.purpose = evil.into(),
        |f, evil| f.audience = evil.into(),
        |f, evil| f.principal = evil.into(),
    ];
    for change in changes {
        let mut filing = agent.filing(scope("read orders/prod/o-17", None));
        change(&mut filing, evil);
        let refused = agent.file(filing).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(!refused.message().contains('\n') && !refused.message().contains('\x1b'));
    }
    let path = "/orders/%0a%1b[31m";
    let _ = http(gateway.address, "GET", path, &[("authorization", "DPoP x".into())], "").await;
    let log = world.log();
    assert!(!log.contains("canary-7f3a") && !log.contains('\x1b') && !log.contains('\u{202e}'));
    for line in log.lines() {
        let read: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(read.is_ok_and(|value| value.is_object()), "{line}");
    }
}

#[tokio::test]
async fn a50_a_workload_cannot_flood_the_queue() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let mut filing = agent.filing(scope("read orders/prod/o-17", None));
    filing.justification = "x".repeat(2049);
    assert_eq!(agent.file(filing).await.unwrap_err().code(), Code::InvalidArgument);
    let mut filing = agent.filing(scope("read orders/prod/o-17", None));
    let rights = (0..17).flat_map(|n| scope(&format!("read orders/prod/o-{n}"), None).rights);
    filing.scope.as_mut().unwrap().rights = rights.collect();
    assert_eq!(agent.file(filing).await.unwrap_err().code(), Code::InvalidArgument);

    let mut filed = 0;
    for n in 0..50 {
        let right = format!("read orders/prod/o-{n}");
        match agent.file(agent.filing(scope(&right, None))).await {
            Ok(_) => filed += 1,
            Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}"),
        }
    }
    assert_eq!(filed, 8);
    let session = world.session("person/ana").await;
    let mut client = ApprovalServiceClient::new(session.channel());
    let asked = v1::WatchPendingRequest { once: true };
    let mut pending = client.watch_pending(asked).await.unwrap().into_inner();
    assert_eq!(pending.message().await.unwrap().unwrap().requests.len(), 8);
    // Nobody else waits for it.
    let other = Agent::new(&world, "agent/other").await;
    assert!(other.file(other.filing(scope("read orders/prod/o-17", None))).await.is_ok());
}

/// An id names something only to the one who drew it, and one thing only.
#[tokio::test]
async fn a55_an_id_of_another_or_with_another_body() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let mut other = Agent::new(&world, "agent/other").await;
    let filing = agent.filing(scope("refund orders/prod/o-17", Some(500)));
    let mine = agent.file(filing.clone()).await.unwrap();
    let repeated = agent.file(filing.clone()).await.unwrap();
    assert_eq!(mine.grant_id, repeated.grant_id);

    let mut changed = filing.clone();
    changed.lifetime_seconds += 1;
    let reused = agent.file(changed).await.unwrap_err();
    assert_eq!(reused.code(), Code::AlreadyExists, "{reused:?}");

    let theirs = v1::RequestAccessRequest {
        holder_key: other.key.verifying_key().to_bytes().to_vec().into(),
        ..filing.clone()
    };
    let theirs = other.file(theirs).await.unwrap();
    assert_ne!(theirs.grant_id, mine.grant_id);
    let exchange =
        dayfly_verifier::id::ExchangeId::draw(crate::parties::now(), [3; 10]).to_string();
    let one = agent.exchange_as(&mine.request_id, &exchange).await.unwrap();
    let two = other.exchange_as(&theirs.request_id, &exchange).await.unwrap();
    assert_ne!(one.token_id, two.token_id);

    // The same identity without the holder key, and the holder key under another identity.
    let sibling = Agent { session: agent.session.clone(), key: other.key.clone() };
    let refused = sibling.exchange(&mine.request_id).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    other.key = agent.key.clone();
    let only = agent.ask("refund orders/prod/o-18", Some(500)).await;
    let refused = other.exchange(&only.request_id).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
}

/// A counted right is spent once, however often and wherever it is shown.
#[tokio::test]
async fn a_counted_right_is_spent_once() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", std::time::Duration::from_secs(5)).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (_, held) = agent.small_refund().await;
    let shown = Use { key: &agent.key, token: &held.token, order: "o-17", refund: Some(400) };
    shown.until(&gateway, 200).await;
    let mut seen = BTreeSet::new();
    for _ in 0..10 {
        seen.insert(shown.at(&gateway).await.status);
    }
    assert!(!seen.contains(&200), "{seen:?}");
}
