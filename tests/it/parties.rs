//! Those who take part, in the test's own process: a workload, an approver, an operator, and those
//! who call a gateway.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::render;
use dayfly_agent::session::Session;
use dayfly_proto::v1::access_service_client::AccessServiceClient;
use dayfly_proto::v1::approval_service_client::ApprovalServiceClient;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::{self, revocation_target};
use dayfly_verifier::dossier::DECISION_NAMESPACE;
use dayfly_verifier::id::{ExchangeId, RequestId, UseId};
use dayfly_verifier::proof::{ActDigest, DpopCall, HolderCall, HolderProof, make_dpop};
use dayfly_verifier::request::{Answer, Narrowing};
use dayfly_verifier::scope::Value;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};
use ed25519_dalek::SigningKey;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;

pub(crate) use crate::guarded::Gateway;
use crate::world::{SHOP, World, ssh};

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// The time of day.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// A workload with a holder key.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) session: Arc<Session>,
    pub(crate) key: SigningKey,
}

/// A right as text, `read orders/prod/o-17`, and the most that `amount` may be.
pub(crate) fn scope(right: &str, amount: Option<i64>) -> v1::Scope {
    let (operation, resource) = right.split_once(' ').unwrap();
    let right = v1::Right { operation: operation.into(), resource: resource.into() };
    let constraint = |most| v1::Constraint {
        argument: "amount".into(),
        limit: Some(v1::constraint::Limit::AtMost(most)),
    };
    v1::Scope { rights: vec![right], constraints: amount.map(constraint).into_iter().collect() }
}

impl Agent {
    /// The workload `path`, with a key of its own.
    pub(crate) async fn new(world: &World, path: &str) -> Self {
        Self { session: world.session(path).await, key: SigningKey::from_bytes(&random()) }
    }

    fn client(&self) -> AccessServiceClient<tonic::transport::Channel> {
        AccessServiceClient::new(self.session.channel())
    }

    fn prove(&self, method: &str, id: &str, filing: Option<&[u8; 32]>) -> Option<v1::HolderProof> {
        let method = format!("dayfly.v1.AccessService/{method}");
        let request: RequestId = id.parse().unwrap();
        let identity = self.session.identity();
        let (method, request) = (method.as_str(), &request);
        let call = HolderCall { method, request, caller: identity.id(), filing };
        let HolderProof { at, signature } = HolderProof::make(&self.key, &call, now());
        let at_ms = i64::try_from(at.as_ms()).unwrap();
        Some(v1::HolderProof { at_ms, signature: signature.to_vec().into() })
    }

    /// What asks for `scope`, without its proof.
    pub(crate) fn filing(&self, scope: v1::Scope) -> v1::RequestAccessRequest {
        v1::RequestAccessRequest {
            request_id: RequestId::draw(now(), random()).to_string(),
            principal: String::new(),
            holder_key: self.key.verifying_key().to_bytes().to_vec().into(),
            confirm_by_identity: false,
            audience: format!("{SHOP}/gateway/orders"),
            scope: Some(scope),
            task: "case-7".into(),
            purpose: "customer-support".into(),
            justification: "the customer asked".into(),
            lifetime_seconds: 300,
            uses: 0,
            proof: None,
        }
    }

    /// Files `filing`, proven.
    pub(crate) async fn file(
        &self,
        mut filing: v1::RequestAccessRequest,
    ) -> Result<v1::AccessRequest, Status> {
        filing.proof = None;
        let digest = Sha256::digest(filing.encode_to_vec()).into();
        filing.proof = self.prove("RequestAccess", &filing.request_id, Some(&digest));
        let answer = self.client().request_access(filing).await?;
        Ok(answer.into_inner().request.unwrap())
    }

    /// Asks for `right`.
    pub(crate) async fn ask(&self, right: &str, amount: Option<i64>) -> v1::AccessRequest {
        self.file(self.filing(scope(right, amount))).await.unwrap()
    }

    /// Exchanges under a new id.
    pub(crate) async fn exchange(&self, request: &str) -> Result<v1::ExchangeResponse, Status> {
        self.exchange_as(request, &ExchangeId::draw(now(), random()).to_string()).await
    }

    /// Exchanges under this id.
    pub(crate) async fn exchange_as(
        &self,
        request_id: &str,
        exchange_id: &str,
    ) -> Result<v1::ExchangeResponse, Status> {
        let proof = self.prove("Exchange", request_id, None);
        let (request_id, exchange_id) = (request_id.to_owned(), exchange_id.to_owned());
        let message = v1::ExchangeRequest { request_id, exchange_id, proof };
        Ok(self.client().exchange(message).await?.into_inner())
    }

    /// Says that the task is done.
    pub(crate) async fn complete(&self, request: &str) -> Result<v1::CompleteResponse, Status> {
        let message = v1::CompleteRequest {
            request_id: request.to_owned(),
            outcome: v1::complete_request::Outcome::Succeeded.into(),
            proof: self.prove("Complete", request, None),
        };
        Ok(self.client().complete(message).await?.into_inner())
    }

    /// A small refund in production: granted at once, one use.
    pub(crate) async fn small_refund(&self) -> (v1::AccessRequest, v1::ExchangeResponse) {
        let request = self.ask("refund orders/prod/o-17", Some(500)).await;
        let token = self.exchange(&request.request_id).await.unwrap();
        (request, token)
    }

    /// A right to read in production, approved by `ana`.
    pub(crate) async fn reading(&self, world: &World) -> (v1::AccessRequest, v1::ExchangeResponse) {
        let request = self.ask("read orders/prod/o-17", None).await;
        approve(world, "ana", &request.grant_id).await.unwrap();
        let token = self.exchange(&request.request_id).await.unwrap();
        (request, token)
    }
}

/// The approval of `name`, signed by their key over what their client was shown.
pub(crate) async fn approve(
    world: &World,
    name: &str,
    grant: &str,
) -> Result<v1::AccessRequest, Status> {
    approve_over(&*world.session(&format!("person/{name}")).await, name, grant).await
}

/// The same, over a connection of theirs.
pub(crate) async fn approve_over(
    session: &Session,
    name: &str,
    grant: &str,
) -> Result<v1::AccessRequest, Status> {
    let mut client = ApprovalServiceClient::new(session.channel());
    let asked = v1::GetRequestRequest { grant_id: grant.to_owned() };
    let shown = client.get_request(asked).await?.into_inner();
    let decision = sign(name, &shown.canonical_request);
    let grant_id = grant.to_owned();
    let message =
        v1::ApproveRequest { grant_id, decision: Some(decision), ..v1::ApproveRequest::default() };
    Ok(client.approve(message).await?.into_inner().request.unwrap())
}

/// An approval of the canonical request, by the key of `name`.
pub(crate) fn sign(name: &str, canonical: &[u8]) -> v1::SignedDecision {
    let shown = render::request(canonical).unwrap();
    let answer = Answer::Approve(Narrowing::default());
    let prepared = shown.decide(name.parse().unwrap(), answer, None, now()).unwrap();
    let hash = ssh_key::HashAlg::Sha512;
    let signature = ssh(name).sign(DECISION_NAMESPACE, hash, prepared.bytes()).unwrap();
    v1::SignedDecision {
        statement: prepared.bytes().to_vec().into(),
        signature: signature.to_pem(ssh_key::LineEnding::LF).unwrap(),
    }
}

/// Revokes as the shop's operator.
pub(crate) async fn revoke(world: &World, target: revocation_target::Target) -> v1::RevokeResponse {
    revoke_over(&*world.session("person/olga").await, target).await.unwrap()
}

/// The same, over a connection of theirs.
pub(crate) async fn revoke_over(
    session: &Session,
    target: revocation_target::Target,
) -> Result<v1::RevokeResponse, Status> {
    let target = Some(v1::RevocationTarget { target: Some(target) });
    let message = v1::RevokeRequest { target, reason: "over".into() };
    Ok(OperatorServiceClient::new(session.channel()).revoke(message).await?.into_inner())
}

/// What came back over plain HTTP.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Got {
    /// The nonce that the next proof must carry, if one is given.
    pub(crate) fn nonce(&self) -> Option<String> {
        let named = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("dpop-nonce").then(|| value.to_owned())
        };
        self.head.lines().find_map(named)
    }
}

/// A call as it goes over the wire.
#[derive(Clone)]
pub(crate) struct Shot {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Shot {
    pub(crate) async fn sent(&self, to: SocketAddr) -> Got {
        http(to, self.method, &self.path, &self.headers, &self.body).await.unwrap()
    }
}

/// One HTTP call, headers as given.
pub(crate) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &str,
) -> io::Result<Got> {
    let mut stream = TcpStream::connect(address).await?;
    let mut sent = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    headers.iter().for_each(|(name, value)| sent.push_str(&format!("{name}: {value}\r\n")));
    if !body.is_empty() {
        sent.push_str("content-type: application/json\r\n");
    }
    sent.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(sent.as_bytes()).await?;
    let mut came = Vec::new();
    stream.read_to_end(&mut came).await?;
    let came = String::from_utf8_lossy(&came).into_owned();
    let (head, body) = came.split_once("\r\n\r\n").unwrap_or((&came, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok(Got { status, head: head.to_owned(), body: body.to_owned() })
}

/// A call that shows `token` with a proof by `key`, as an honest client makes it.
pub(crate) struct Use<'a> {
    pub(crate) key: &'a SigningKey,
    pub(crate) token: &'a str,
    pub(crate) order: &'a str,
    /// `None` reads, `Some` refunds that much.
    pub(crate) refund: Option<i64>,
}

impl Use<'_> {
    /// Makes the call; once more with the nonce, where the gateway wants one.
    pub(crate) async fn at(&self, gateway: &Gateway) -> Got {
        self.under(gateway, UseId::draw(now(), random())).await
    }

    /// The same, as the use `id`.
    pub(crate) async fn under(&self, gateway: &Gateway, id: UseId) -> Got {
        let first = self.once(gateway, id, None).await;
        match first.nonce() {
            Some(nonce) if first.status == 401 => self.once(gateway, id, Some(&nonce)).await,
            _ => first,
        }
    }

    async fn once(&self, gateway: &Gateway, id: UseId, nonce: Option<&str>) -> Got {
        self.shot(gateway, id, nonce, true).sent(gateway.address).await
    }

    /// What goes over the wire; where it can be without, the proof does not say what is done.
    pub(crate) fn shot(
        &self,
        gateway: &Gateway,
        id: UseId,
        nonce: Option<&str>,
        act: bool,
    ) -> Shot {
        let (method, path, body, operation) = match self.refund {
            None => ("GET", format!("/orders/{}", self.order), String::new(), "read"),
            Some(amount) => {
                let path = format!("/orders/{}/refund", self.order);
                ("POST", path, format!("{{\"amount\":{amount}}}"), "refund")
            }
        };
        let arguments = self.refund.map(|amount| ("amount".parse().unwrap(), Value::Int(amount)));
        let audience: SpiffeId = gateway.audience.parse().unwrap();
        let digest = ActDigest::of(
            &audience,
            &operation.parse().unwrap(),
            &format!("orders/prod/{}", self.order).parse().unwrap(),
            &arguments.into_iter().collect(),
        );
        let url = gateway.url(&path);
        let call = DpopCall { method, url: &url, act: act.then_some(&digest), nonce };
        let proof = make_dpop(self.key, self.token, &call, now(), random());
        let headers = vec![
            ("authorization", format!("DPoP {}", self.token)),
            ("dpop", proof),
            ("dayfly-use", id.to_string()),
        ];
        Shot { method, path, headers, body }
    }

    /// Calls until the answer has this status: what is to come true does, within the deadline.
    pub(crate) async fn until(&self, gateway: &Gateway, status: u16) -> Got {
        let deadline = SystemClock.uptime().saturating_add(Duration::from_secs(20));
        loop {
            match self.at(gateway).await {
                answer if answer.status == status => return answer,
                answer => assert!(SystemClock.uptime() < deadline, "never {status}: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
