//! Calls the orders service as an agent does: over HTTP, with a token and a proof for each call.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::UseId;
use dayfly_verifier::proof::{ActDigest, DpopCall, make_dpop};
use dayfly_verifier::scope::{Arguments, Value};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, SystemClock};
use ed25519_dalek::SigningKey;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value as Json;

use crate::cli::shop::draw;

/// A client of the orders service that holds a key.
#[derive(Clone)]
pub(super) struct Shopper {
    http: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    audience: SpiffeId,
    key: Arc<SigningKey>,
    /// Under which id it uses counted rights; a new one for each call if `None`.
    use_id: Option<UseId>,
}

/// A call as it is to be made, and as the proof says that it is made.
#[derive(Clone, Copy)]
pub(super) enum Errand<'a> {
    /// Reads an order.
    Read(&'a str),
    /// Pays back on an order; the proof speaks of the second amount.
    Refund(&'a str, i64, i64),
}

/// What the service answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Json,
}

impl Reply {
    /// The reason of a refusal, as the layer names it.
    pub(super) fn error(&self) -> &str {
        self.body.get("error").and_then(Json::as_str).unwrap_or_default()
    }
}

impl Shopper {
    pub(super) fn new(address: SocketAddr, audience: SpiffeId, key: Arc<SigningKey>) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { http, address, audience, key, use_id: None }
    }

    /// The same client with another key.
    pub(super) fn with_key(&self, key: SigningKey) -> Self {
        Self { key: Arc::new(key), ..self.clone() }
    }

    /// The public half of its key.
    pub(super) fn key(&self) -> anyhow::Result<HolderKey> {
        Ok(HolderKey::from_slice(self.key.verifying_key().as_bytes())?)
    }

    /// The same client, at another instance of the service.
    pub(super) fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The same client, all of whose calls are one use of a counted right.
    pub(super) fn of_one_use(&self) -> anyhow::Result<Self> {
        let use_id = Some(UseId::draw(SystemClock.now(), draw()?));
        Ok(Self { use_id, ..self.clone() })
    }

    /// Makes the call with `token`; twice, if the service wants a nonce in the proof.
    pub(super) async fn call(&self, token: &str, errand: Errand<'_>) -> anyhow::Result<Reply> {
        let use_id = match self.use_id {
            Some(use_id) => use_id,
            None => UseId::draw(SystemClock.now(), draw()?),
        };
        let (reply, nonce) = self.send(token, errand, use_id, None).await?;
        if reply.error() == "nonce" {
            return Ok(self.send(token, errand, use_id, nonce.as_deref()).await?.0);
        }
        Ok(reply)
    }

    async fn send(
        &self,
        token: &str,
        errand: Errand<'_>,
        use_id: UseId,
        nonce: Option<&str>,
    ) -> anyhow::Result<(Reply, Option<String>)> {
        let (method, path, body) = errand.request();
        let url = format!("http://{}{path}", self.address);
        let act = errand.act(&self.audience)?;
        let call = DpopCall { method: method.as_str(), url: &url, act: Some(&act), nonce };
        let proof = make_dpop(&self.key, token, &call, SystemClock.now(), draw()?);
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header("authorization", format!("DPoP {token}"))
            .header("dpop", proof)
            .header("dayfly-use", use_id.to_string())
            .body(Full::from(body))?;
        let response = self.http.request(request).await.context("the orders service is gone")?;
        let (head, body) = response.into_parts();
        let nonce = head.headers.get("dpop-nonce").and_then(|nonce| nonce.to_str().ok());
        let nonce = nonce.map(str::to_owned);
        let body = body.collect().await?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Ok((Reply { status: head.status, body }, nonce))
    }
}

impl Errand<'_> {
    fn request(self) -> (Method, String, Bytes) {
        match self {
            Self::Read(order) => (Method::GET, format!("/orders/{order}"), Bytes::new()),
            Self::Refund(order, amount, _) => {
                let body = serde_json::json!({ "amount": amount }).to_string();
                (Method::POST, format!("/orders/{order}/refund"), body.into())
            }
        }
    }

    fn act(self, audience: &SpiffeId) -> anyhow::Result<ActDigest> {
        let (operation, order, amount) = match self {
            Self::Read(order) => ("read", order, None),
            Self::Refund(order, _, proven) => ("refund", order, Some(proven)),
        };
        let amount = amount.map(|amount| Ok(("amount".parse()?, Value::Int(amount))));
        let arguments: anyhow::Result<Arguments> = amount.into_iter().collect();
        let resource = format!("orders/prod/{order}").parse()?;
        Ok(ActDigest::of(audience, &operation.parse()?, &resource, &arguments?))
    }
}
