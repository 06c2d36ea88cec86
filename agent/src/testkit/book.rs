//! What the in-memory broker has on record, and the rules by which it answers: those of the real
//! one, but for policy and people, whose part the test writes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_verifier::claims::{Claims, Record};
use dayfly_verifier::feed::{feed_start, fold_hash};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{
    Epoch, ExchangeId, FeedHash, GrantId, KeyId, RequestId, Seq, TokenId, UseId,
};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::{ConfirmBy, Request, Requirement};
use dayfly_verifier::revocations::{FeedEntry, Kind, Target};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::verify::NotRedeemed;
use dayfly_verifier::wire::{IssueError, LocalSigner, Token, mint};
use zeroize::Zeroizing;

use super::answer::Answer;
use super::filed::{Because, Filed, No, fresh, no, not_found};
use crate::case::Standing;
use crate::client::Outcome;
use crate::convert::scope_from_wire;
use crate::errors::Reason;

/// The lease of a request that asks for none, as the real broker has it.
const LEASE: Duration = Duration::from_secs(300);
/// The longest lease.
const MAX_LEASE: Duration = Duration::from_secs(12 * 60 * 60);

/// The record.
pub(super) struct Book {
    pub(super) epoch: Epoch,
    pub(super) seq: u64,
    /// What is said to requests that are filed from now on.
    pub(super) answer: Answer,
    cases: BTreeMap<GrantId, Filed>,
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) feed_hash: FeedHash,
    signer: LocalSigner,
    pub(super) minted: usize,
    pub(super) exchanged: usize,
}

impl Book {
    pub(super) fn new(epoch: Epoch, key: KeyId, private: &[u8; 32]) -> Self {
        Self {
            epoch,
            seq: 1,
            answer: Answer::Grant,
            cases: BTreeMap::new(),
            entries: Vec::new(),
            feed_hash: feed_start(&epoch),
            signer: LocalSigner::new(key, private, Zeroizing::new([3; 32])),
            minted: 0,
            exchanged: 0,
        }
    }

    pub(super) fn cases(&self) -> impl Iterator<Item = &Filed> {
        self.cases.values()
    }

    pub(super) fn case(&self, grant: &GrantId) -> Option<&Filed> {
        self.cases.get(grant)
    }

    /// The grant id of the caller's request, if the record has it.
    pub(super) fn own(&self, caller: &SpiffeId, request: &RequestId) -> Option<GrantId> {
        let grant = GrantId::derive(&self.epoch, caller, request);
        self.cases.contains_key(&grant).then_some(grant)
    }

    /// Says to each pending request what is due by `now`.
    pub(super) fn settle(&mut self, now: Timestamp) {
        for case in self.cases.values_mut() {
            if case.settle(now) {
                self.seq = self.seq.saturating_add(1);
            }
        }
    }

    /// Files a request, or finds it filed.
    pub(super) fn file(
        &mut self,
        caller: &SpiffeId,
        filing: &v1::RequestAccessRequest,
        now: Timestamp,
    ) -> Result<GrantId, No> {
        let requirement = self.answer.requirement();
        let request = read(filing, caller, self.epoch, now, requirement);
        let request = request.map_err(|invalid| no(Reason::Invalid, invalid.to_string()))?;
        let grant = request.grant_id();
        if let Some(before) = self.cases.get(&grant) {
            let Request { filed_at, requirement, .. } = before.request.clone();
            let same = Request { filed_at, requirement, ..request } == before.request;
            let reused = || no(Reason::IdReused, "the id was used before with other content");
            return same.then_some(grant).ok_or_else(reused);
        }
        fresh(request.id.drawn_at(), now)?;
        self.seq = self.seq.saturating_add(1);
        self.cases.insert(grant, Filed::new(request, self.answer.clone(), now));
        Ok(grant)
    }

    /// A token for the grant.
    pub(super) fn exchange(
        &mut self,
        grant: &GrantId,
        id: ExchangeId,
        now: Timestamp,
    ) -> Result<(Token, Claims), No> {
        let elsewhere = |(other, case): (&GrantId, &Filed)| {
            let same = self.cases.get(grant).map(|case| &case.request.workload);
            other != grant && same == Some(&case.request.workload) && case.answered(&id)
        };
        if self.cases.iter().any(elsewhere) {
            return Err(no(Reason::IdReused, "the id was used before with other content"));
        }
        let (epoch, seq) = (self.epoch, self.seq.saturating_add(1));
        let case = self.cases.get_mut(grant).ok_or_else(not_found)?;
        let (claims, record) = case.token(id, Record { epoch, seq: Seq(seq) }, now)?;
        if record.seq.0 == seq {
            self.minted = self.minted.saturating_add(1);
        }
        self.seq = seq;
        self.exchanged = self.exchanged.saturating_add(1);
        let broken = |error: IssueError| no(Reason::Invalid, error.to_string());
        Ok((mint(&claims, &record, &self.signer).map_err(broken)?, claims))
    }

    /// The holder's end of it: repeats are answered as before, other ends refused.
    pub(super) fn end_by_holder(
        &mut self,
        grant: &GrantId,
        end: Standing,
        outcome: Option<Outcome>,
        now: Timestamp,
    ) -> Result<(), No> {
        let case = self.cases.get(grant).ok_or_else(not_found)?;
        let standing = case.standing(now);
        if standing == end && case.outcome == outcome {
            return Ok(());
        }
        let gives_up = standing == Standing::Pending && end == Standing::Cancelled;
        if standing != Standing::Granted && !gives_up {
            return Err(case.refusal(now));
        }
        self.end(grant, end, Because::Of, now);
        if let Some(case) = self.cases.get_mut(grant) {
            case.outcome = outcome;
        }
        Ok(())
    }

    /// Ends a request or grant that is open, and tells the gateways.
    pub(super) fn end(&mut self, grant: &GrantId, end: Standing, because: Because, now: Timestamp) {
        let Some(case) = self.cases.get_mut(grant) else { return };
        if !matches!(case.standing(now), Standing::Pending | Standing::Granted) {
            return;
        }
        case.close(end, because);
        self.seq = self.seq.saturating_add(1);
        let lapses_at = now.plus(MAX_LEASE);
        let kind = Kind::Revoked(Target::Grant(*grant));
        let entry = FeedEntry { seq: Seq(self.seq), lapses_at, kind }.to_bytes();
        self.feed_hash = fold_hash(&self.feed_hash, &entry);
        self.entries.push(entry);
    }

    /// Spends a use of the grant that the token is of.
    pub(super) fn redeem(
        &mut self,
        token: TokenId,
        id: UseId,
        now: Timestamp,
    ) -> Result<(), NotRedeemed> {
        let mut cases = self.cases.values_mut();
        let case = cases.find(|case| case.has(&token)).ok_or(NotRedeemed::Spent)?;
        case.redeem(id, now)?;
        self.seq = self.seq.saturating_add(1);
        Ok(())
    }

    /// Whether the grant that the token is of stands: there is no policy here that could change.
    pub(super) fn reevaluate(&self, token: TokenId, now: Timestamp) -> Result<(), NotRedeemed> {
        let case = self.cases.values().find(|case| case.has(&token));
        let stands = case.is_some_and(|case| case.standing(now) == Standing::Granted);
        if stands { Ok(()) } else { Err(NotRedeemed::Drifted) }
    }
}

fn read(
    filing: &v1::RequestAccessRequest,
    caller: &SpiffeId,
    epoch: Epoch,
    now: Timestamp,
    requirement: Requirement,
) -> Result<Request, Invalid> {
    let scope = filing.scope.as_ref().ok_or_else(|| Invalid::new("scope", "must be there"))?;
    let principal = Some(filing.principal.as_str()).filter(|name| !name.is_empty());
    let lifetime = Some(Duration::from_secs(filing.lifetime_seconds));
    let lifetime = lifetime.filter(|lifetime| !lifetime.is_zero()).unwrap_or(LEASE);
    if lifetime > MAX_LEASE {
        return Err(Invalid::new("lifetime_seconds", "must be at most 43200 (12 hours)"));
    }
    Ok(Request {
        epoch,
        id: filing.request_id.parse()?,
        filed_at: now,
        workload: caller.clone(),
        principal: principal.map(str::parse).transpose()?,
        holder_key: HolderKey::from_slice(&filing.holder_key)?,
        confirmation: match filing.confirm_by_identity {
            true => ConfirmBy::Identity,
            false => ConfirmBy::Key,
        },
        audience: filing.audience.parse()?,
        scope: scope_from_wire(scope)?,
        task: filing.task.parse()?,
        purpose: filing.purpose.parse()?,
        lifetime,
        uses: NonZeroU32::new(filing.uses),
        requirement,
    })
}
