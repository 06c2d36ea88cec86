//! Those who decide and those who operate: over mutual TLS, and with signatures of their own.

use std::sync::Arc;

use anyhow::Context as _;
use dayfly_agent::render;
use dayfly_agent::session::Session;
use dayfly_agent::sign::Signer;
use dayfly_proto::v1::approval_service_client::ApprovalServiceClient;
use dayfly_proto::v1::audit_service_client::AuditServiceClient;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_proto::v1::{
    ApplyBundleRequest, ApplyBundleResponse, ApproveRequest, BundleFile, GetRequestRequest,
    ListKeysRequest, RetireKeyRequest, RevocationTarget, RevokeRequest, SignedDecision, SigningKey,
    TailRequest, TailResponse, WatchEnforcementRequest, WatchEnforcementResponse,
};
use dayfly_verifier::dossier::{DECISION_NAMESPACE, Salt};
use dayfly_verifier::id::{GrantId, KeyId, PersonId};
use dayfly_verifier::request::{Answer, Narrowing};
use dayfly_verifier::time::{Clock as _, SystemClock};
use tonic::Streaming;

use crate::cli::shop::draw;

/// A person who approves.
pub(super) struct Approver {
    person: PersonId,
    session: Arc<Session>,
    signer: Signer,
}

impl Approver {
    pub(super) fn new(person: &str, session: Arc<Session>, signer: Signer) -> anyhow::Result<Self> {
        Ok(Self { person: person.parse()?, session, signer })
    }

    /// Looks at the request, from the bytes that the digest is taken over, and approves it with
    /// what `narrowing` takes away. Tells how many lines there were to read.
    pub(super) async fn approve(
        &mut self,
        grant: GrantId,
        narrowing: Narrowing,
        reason: &str,
    ) -> anyhow::Result<usize> {
        let mut broker = ApprovalServiceClient::new(self.session.channel());
        let request = GetRequestRequest { grant_id: grant.to_string() };
        let seen = broker.get_request(request).await?.into_inner();
        let shown = render::request(&seen.canonical_request)?;
        let salt = Salt::from_slice(&draw::<16>()?)?;
        let answer = Answer::Approve(narrowing);
        let reason_and_salt = Some((reason, &salt));
        let now = SystemClock.now();
        let decision = shown.decide(self.person.clone(), answer, reason_and_salt, now)?;
        let signature = self.signer.sign(DECISION_NAMESPACE, decision.bytes())?;
        let statement = decision.bytes().to_vec().into();
        let request = ApproveRequest {
            grant_id: grant.to_string(),
            decision: Some(SignedDecision { statement, signature }),
            reason: reason.to_owned(),
            reason_salt: salt.as_bytes().to_vec().into(),
        };
        broker.approve(request).await?;
        Ok(shown.text().lines().count())
    }
}

/// A person who operates, and may read the record.
pub(super) struct Operator(pub(super) Arc<Session>);

impl Operator {
    /// Takes something back, and tells at which place of the record that stands.
    pub(super) async fn revoke(&self, target: Target) -> anyhow::Result<u64> {
        let target = Some(RevocationTarget { target: Some(target) });
        let reason = "the ticket was closed by the customer".to_owned();
        let request = RevokeRequest { target, reason };
        let mut broker = OperatorServiceClient::new(self.0.channel());
        let revoked = broker.revoke(request).await?.into_inner();
        Ok(revoked.head.context("the revocation has no place")?.seq)
    }

    /// How far the service enforces what stands at `seq`, told until it holds everywhere.
    pub(super) async fn enforcement(
        &self,
        seq: u64,
    ) -> anyhow::Result<Streaming<WatchEnforcementResponse>> {
        let mut broker = OperatorServiceClient::new(self.0.channel());
        Ok(broker.watch_enforcement(WatchEnforcementRequest { seq }).await?.into_inner())
    }

    /// Puts a bundle into force.
    pub(super) async fn apply(
        &self,
        bundle: &[(String, String)],
    ) -> anyhow::Result<ApplyBundleResponse> {
        let file = |(name, text): &(String, String)| BundleFile {
            name: name.clone(),
            content: text.clone().into_bytes().into(),
        };
        let files = bundle.iter().map(file).collect();
        let request = ApplyBundleRequest { files, signatures: Vec::new(), dry_run: false };
        let mut broker = OperatorServiceClient::new(self.0.channel());
        Ok(broker.apply_bundle(request).await?.into_inner())
    }

    /// How the token keys stand.
    pub(super) async fn keys(&self) -> anyhow::Result<Vec<SigningKey>> {
        let mut broker = OperatorServiceClient::new(self.0.channel());
        Ok(broker.list_keys(ListKeysRequest {}).await?.into_inner().keys)
    }

    /// Lets a token key sign nothing more.
    pub(super) async fn retire(&self, key: KeyId) -> anyhow::Result<()> {
        let mut broker = OperatorServiceClient::new(self.0.channel());
        broker.retire_key(RetireKeyRequest { key: key.0 }).await?;
        Ok(())
    }

    /// The whole record, with the head behind each entry.
    pub(super) async fn record(&self) -> anyhow::Result<Vec<TailResponse>> {
        let mut broker = AuditServiceClient::new(self.0.channel());
        let request = TailRequest { after_seq: 0, once: true };
        let mut stream = broker.tail(request).await?.into_inner();
        let mut record = Vec::new();
        while let Some(entry) = stream.message().await.context("the record broke off")? {
            record.push(entry);
        }
        Ok(record)
    }
}
