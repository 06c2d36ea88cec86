//! The service of the in-memory broker, as one caller reaches it.

use std::pin::Pin;
use std::sync::Arc;

use dayfly_proto::v1;
use dayfly_proto::v1::access_service_server::AccessService;
use dayfly_verifier::id::{ExchangeId, GrantId, RequestId};
use dayfly_verifier::proof::{HolderCall, HolderProof, ProofFault};
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, Timestamp};
use futures_util::stream::{Stream, unfold};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::Shared;
use super::book::Book;
use super::filed::{Filed, No, no, not_found};
use crate::case::{Standing, Terms};
use crate::client::Outcome;
use crate::convert::{scope_to_wire, time};
use crate::errors::Reason;

/// The service, for one caller.
pub(super) struct Desk {
    pub(super) kit: Arc<Shared>,
    pub(super) caller: SpiffeId,
}

type Changes = Pin<Box<dyn Stream<Item = Result<v1::WatchRequestResponse, Status>> + Send>>;

impl Desk {
    /// Answers from the record, and tells everybody who waits; or loses the answer.
    fn answer<T>(
        &self,
        decide: impl FnOnce(&mut Book, Timestamp) -> Result<T, No>,
    ) -> Result<Response<T>, Status> {
        let answer = self.kit.with(decide);
        if self.kit.loses_answer() {
            return Err(Status::unavailable("the answer was lost"));
        }
        answer.map(Response::new).map_err(|refusal| refusal.to_status(None))
    }

    /// The caller's request, if the proof is by its holder key and for this call.
    fn prove(
        &self,
        book: &Book,
        request: &str,
        proof: Option<v1::HolderProof>,
        method: &str,
    ) -> Result<GrantId, No> {
        let id: RequestId = read("request_id", request)?;
        let grant = book.own(&self.caller, &id).ok_or_else(not_found)?;
        let case = book.case(&grant).ok_or_else(not_found)?;
        self.check(proof, &case.request.holder_key, &id, method, None)?;
        Ok(grant)
    }

    fn check(
        &self,
        proof: Option<v1::HolderProof>,
        key: &dayfly_verifier::holder::HolderKey,
        request: &RequestId,
        method: &str,
        filing: Option<&[u8; 32]>,
    ) -> Result<(), No> {
        let invalid = || no(Reason::Invalid, "proof: must be a time and a signature");
        let v1::HolderProof { at_ms, signature } = proof.ok_or_else(invalid)?;
        let signature = signature.as_ref().try_into().map_err(|_| invalid())?;
        let proof = HolderProof { at: time(at_ms).map_err(|_| invalid())?, signature };
        let method = format!("dayfly.v1.AccessService/{method}");
        let call = HolderCall { method: &method, request, caller: &self.caller, filing };
        proof.check(key, &call, self.kit.clock.now()).map_err(|fault| {
            if fault == ProofFault::Time {
                return no(Reason::ProofTime, fault.to_string());
            }
            no(
                Reason::HolderMismatch,
                "the proof is by another key than the holder key of the request",
            )
        })
    }
}

fn read<T: std::str::FromStr<Err = dayfly_verifier::invalid::Invalid>>(
    field: &'static str,
    text: &str,
) -> Result<T, No> {
    text.parse().map_err(|invalid: T::Err| no(Reason::Invalid, invalid.of(field).to_string()))
}

#[tonic::async_trait]
impl AccessService for Desk {
    type WatchRequestStream = Changes;

    async fn request_access(
        &self,
        request: Request<v1::RequestAccessRequest>,
    ) -> Result<Response<v1::RequestAccessResponse>, Status> {
        let mut filing = request.into_inner();
        let proof = filing.proof.take();
        let digest: [u8; 32] = Sha256::digest(filing.encode_to_vec()).into();
        self.answer(|book, now| {
            let id = read("request_id", &filing.request_id)?;
            let key = dayfly_verifier::holder::HolderKey::from_slice(&filing.holder_key);
            let key = key.map_err(|invalid| no(Reason::Invalid, invalid.to_string()))?;
            self.check(proof, &key, &id, "RequestAccess", Some(&digest))?;
            let grant = book.file(&self.caller, &filing, now)?;
            Ok(v1::RequestAccessResponse { request: book.case(&grant).map(|c| render(c, now)) })
        })
    }

    async fn watch_request(
        &self,
        request: Request<v1::WatchRequestRequest>,
    ) -> Result<Response<Changes>, Status> {
        let v1::WatchRequestRequest { request_id, proof } = request.into_inner();
        let moved = self.kit.moved.subscribe();
        let watched = self
            .kit
            .with(|book, _| self.prove(book, &request_id, proof, "WatchRequest"))
            .map_err(|refusal| refusal.to_status(None))?;
        Ok(Response::new(changes(Arc::clone(&self.kit), watched, moved)))
    }

    async fn exchange(
        &self,
        request: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeResponse>, Status> {
        let v1::ExchangeRequest { request_id, exchange_id, proof } = request.into_inner();
        self.answer(|book, now| {
            let id: ExchangeId = read("exchange_id", &exchange_id)?;
            let grant = self.prove(book, &request_id, proof, "Exchange")?;
            let (token, claims) = book.exchange(&grant, id, now)?;
            Ok(v1::ExchangeResponse {
                token: token.expose().to_owned(),
                token_id: claims.token.to_string(),
                expires_at_ms: ms(claims.expires_at),
                grant_id: grant.to_string(),
            })
        })
    }

    async fn complete(
        &self,
        request: Request<v1::CompleteRequest>,
    ) -> Result<Response<v1::CompleteResponse>, Status> {
        use v1::complete_request::Outcome as Wire;
        let message = request.into_inner();
        let outcome = match message.outcome() {
            Wire::Succeeded => Outcome::Succeeded,
            Wire::Failed => Outcome::Failed,
            Wire::Unspecified => {
                let refusal = no(Reason::Invalid, "outcome: must be an outcome");
                return Err(refusal.to_status(None));
            }
        };
        self.answer(|book, now| {
            let grant = self.prove(book, &message.request_id, message.proof, "Complete")?;
            book.end_by_holder(&grant, Standing::Completed, Some(outcome), now)?;
            let request = book.case(&grant).map(|case| render(case, now));
            Ok(v1::CompleteResponse { request, head: None })
        })
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        let v1::CancelRequest { request_id, proof } = request.into_inner();
        self.answer(|book, now| {
            let grant = self.prove(book, &request_id, proof, "Cancel")?;
            book.end_by_holder(&grant, Standing::Cancelled, None, now)?;
            let request = book.case(&grant).map(|case| render(case, now));
            Ok(v1::CancelResponse { request, head: None })
        })
    }

    async fn list_my_grants(
        &self,
        _: Request<v1::ListMyGrantsRequest>,
    ) -> Result<Response<v1::ListMyGrantsResponse>, Status> {
        self.answer(|book, now| {
            let own = book.cases().filter(|case| case.request.workload == self.caller);
            let requests = own.map(|case| render(case, now)).collect();
            Ok(v1::ListMyGrantsResponse { requests })
        })
    }

    /// Nobody signs here, so there are no decisions in it.
    async fn get_dossier(
        &self,
        request: Request<v1::GetDossierRequest>,
    ) -> Result<Response<v1::GetDossierResponse>, Status> {
        let v1::GetDossierRequest { request_id, proof } = request.into_inner();
        self.answer(|book, _| {
            let grant = self.prove(book, &request_id, proof, "GetDossier")?;
            let dossier = book.case(&grant).map(|case| v1::Dossier {
                canonical_request: case.request.canonical().into(),
                decisions: Vec::new(),
            });
            Ok(v1::GetDossierResponse { dossier })
        })
    }
}

/// The request as it stands, then every change, until it is decided. Where nothing changes by
/// itself any more, time goes on to when it does, unless it stands still.
fn changes(kit: Arc<Shared>, grant: GrantId, moved: watch::Receiver<u64>) -> Changes {
    let start = (kit, moved, None::<v1::AccessRequest>, false);
    Box::pin(unfold(start, move |(kit, mut moved, mut last, mut over)| async move {
        loop {
            if over {
                return None;
            }
            moved.mark_unchanged();
            let (request, next) = kit.with(|book, now| {
                let case = book.case(&grant);
                (case.map(|case| render(case, now)), case.and_then(Filed::next))
            });
            let request = request?;
            if last.as_ref() != Some(&request) {
                over = request.standing() != v1::Standing::Pending;
                last = Some(request.clone());
                let change = v1::WatchRequestResponse { request: Some(request) };
                return Some((Ok(change), (kit, moved, last, over)));
            }
            match next.filter(|_| kit.leaps()) {
                Some(next) => kit.forward_to(next),
                None => moved.changed().await.ok()?,
            }
        }
    }))
}

fn render(case: &Filed, now: Timestamp) -> v1::AccessRequest {
    let request = &case.request;
    let requirement = &request.requirement;
    let approvals = requirement.approvals.iter();
    v1::AccessRequest {
        request_id: request.id.to_string(),
        grant_id: request.grant_id().to_string(),
        workload: request.workload.to_string(),
        principal: request.principal.as_ref().map(ToString::to_string).unwrap_or_default(),
        holder_key: request.holder_key.to_string(),
        audience: request.audience.to_string(),
        scope: Some(scope_to_wire(&request.scope)),
        task: request.task.to_string(),
        purpose: request.purpose.to_string(),
        lifetime_seconds: request.lifetime.as_secs(),
        uses: request.uses.map_or(0, Into::into),
        requirement: Some(v1::Requirement {
            approvals: approvals.map(|(group, n)| (group.to_string(), n.get())).collect(),
            max_lifetime_seconds: requirement.max_lifetime.as_secs(),
            max_uses: requirement.max_uses.map_or(0, Into::into),
            online: requirement.online,
            evidence: requirement.evidence,
            presence: requirement.presence,
        }),
        filed_at_ms: ms(request.filed_at),
        pending_until_ms: case.pending_until().map_or(0, ms),
        standing: wire(case.standing(now)).into(),
        because: case.because(),
        approved_by: case.approved_by().to_vec(),
        terms: case.terms.as_ref().map(|terms| {
            let Terms { from, until, scope, uses } = terms;
            v1::Terms {
                from_ms: ms(*from),
                until_ms: ms(*until),
                scope: Some(scope_to_wire(scope)),
                uses: uses.map_or(0, Into::into),
                uses_spent: case.uses_spent(),
                online: false,
            }
        }),
        digest: request.digest().to_string(),
        confirm_by_identity: request.confirmation == ConfirmBy::Identity,
    }
}

const fn wire(standing: Standing) -> v1::Standing {
    match standing {
        Standing::Pending => v1::Standing::Pending,
        Standing::Granted => v1::Standing::Granted,
        Standing::RefusedByPolicy => v1::Standing::RefusedByPolicy,
        Standing::Denied => v1::Standing::Denied,
        Standing::Expired => v1::Standing::Expired,
        Standing::Cancelled => v1::Standing::Cancelled,
        Standing::Completed => v1::Standing::Completed,
        Standing::Revoked => v1::Standing::Revoked,
        Standing::Drifted => v1::Standing::Drifted,
        Standing::Lapsed => v1::Standing::Lapsed,
    }
}

fn ms(at: Timestamp) -> i64 {
    i64::try_from(at.as_ms()).unwrap_or(i64::MAX)
}
