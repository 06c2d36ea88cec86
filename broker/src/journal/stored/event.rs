//! What happened, and who did it.

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{
    BundleDigest, Epoch, ExchangeId, GrantId, InstanceId, KeyId, LockId, PersonId, TextDigest,
    TokenId, UseId,
};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::SignerKey;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::directory::DirectoryV1;
use super::parts::{
    DecisionV1, EndV1, HeadV1, IdentityChangeV1, LockV1, RefusalV1, SnapshotV1, TargetV1, TermsV1,
};
use super::report::ReportV1;
use super::request::{ClaimsV1, RequestV1, RequirementV1};
use super::{Text, texts, untexts};
use crate::core::event::{Actor, Event};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ActorV1 {
    Workload(Text<SpiffeId>),
    Person { name: Text<PersonId>, id: Text<SpiffeId> },
    Gateway(Text<SpiffeId>),
    Broker(Text<SpiffeId>),
    Host,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum EventV1 {
    EpochOpened {
        epoch: Text<Epoch>,
        parent: Option<HeadV1>,
        founders: Vec<Text<SignerKey>>,
        format: u32,
    },
    BundleApplied {
        bundle: Text<BundleDigest>,
        directory: DirectoryV1,
        signers: Vec<Text<SignerKey>>,
    },
    KeyAdded {
        key: u32,
        public: Text<HolderKey>,
        not_after_ms: u64,
    },
    KeyRetired {
        key: u32,
    },
    RequestFiled {
        request: RequestV1,
        justification: Option<Text<TextDigest>>,
        until_ms: u64,
    },
    RequestRefused {
        request: RequestV1,
        justification: Option<Text<TextDigest>>,
        refusal: RefusalV1,
    },
    RequirementChanged {
        grant: Text<GrantId>,
        requirement: RequirementV1,
    },
    DecisionRecorded {
        grant: Text<GrantId>,
        decision: DecisionV1,
    },
    DecisionWithdrawn {
        grant: Text<GrantId>,
        person: Text<PersonId>,
    },
    Granted {
        grant: Text<GrantId>,
        terms: TermsV1,
    },
    TokenRecorded {
        exchange: Text<ExchangeId>,
        claims: ClaimsV1,
    },
    ExchangeAnswered {
        grant: Text<GrantId>,
        exchange: Text<ExchangeId>,
        token: Text<TokenId>,
    },
    UseRedeemed {
        grant: Text<GrantId>,
        token: Text<TokenId>,
        use_id: Text<UseId>,
    },
    Ended {
        grant: Text<GrantId>,
        end: EndV1,
    },
    IdentityChanged {
        id: Text<SpiffeId>,
        change: IdentityChangeV1,
    },
    Revoked {
        target: TargetV1,
        reason: Option<Text<TextDigest>>,
    },
    UsesReported(ReportV1),
    Locked {
        lock: LockV1,
        until_ms: u64,
        reason: Option<Text<TextDigest>>,
    },
    Unlocked {
        lock: Text<LockId>,
    },
    OptedOut {
        instance: Text<InstanceId>,
    },
    SnapshotTaken(SnapshotV1),
}

impl From<&Actor> for ActorV1 {
    fn from(actor: &Actor) -> Self {
        match actor {
            Actor::Workload(id) => Self::Workload(id.into()),
            Actor::Person(name, id) => Self::Person { name: name.into(), id: id.into() },
            Actor::Gateway(id) => Self::Gateway(id.into()),
            Actor::Broker(id) => Self::Broker(id.into()),
            Actor::Host => Self::Host,
        }
    }
}

impl From<ActorV1> for Actor {
    fn from(stored: ActorV1) -> Self {
        match stored {
            ActorV1::Workload(id) => Self::Workload(id.0),
            ActorV1::Person { name, id } => Self::Person(name.0, id.0),
            ActorV1::Gateway(id) => Self::Gateway(id.0),
            ActorV1::Broker(id) => Self::Broker(id.0),
            ActorV1::Host => Self::Host,
        }
    }
}

impl From<&Event> for EventV1 {
    fn from(event: &Event) -> Self {
        match event {
            Event::EpochOpened { epoch, parent, founders, format } => Self::EpochOpened {
                epoch: epoch.into(),
                parent: parent.as_ref().map(Into::into),
                founders: texts(founders),
                format: *format,
            },
            Event::BundleApplied { bundle, directory, signers } => Self::BundleApplied {
                bundle: bundle.into(),
                directory: directory.into(),
                signers: texts(signers),
            },
            Event::KeyAdded { key, public, not_after } => {
                let (public, not_after_ms) = (public.into(), not_after.as_ms());
                Self::KeyAdded { key: key.0, public, not_after_ms }
            }
            Event::KeyRetired { key } => Self::KeyRetired { key: key.0 },
            Event::RequestFiled { request, justification, until } => Self::RequestFiled {
                request: request.into(),
                justification: justification.map(Text),
                until_ms: until.as_ms(),
            },
            Event::RequestRefused { request, justification, refusal } => Self::RequestRefused {
                request: request.into(),
                justification: justification.map(Text),
                refusal: refusal.into(),
            },
            Event::RequirementChanged { grant, requirement } => {
                Self::RequirementChanged { grant: grant.into(), requirement: requirement.into() }
            }
            Event::DecisionRecorded { grant, decision } => {
                Self::DecisionRecorded { grant: grant.into(), decision: decision.into() }
            }
            Event::DecisionWithdrawn { grant, person } => {
                Self::DecisionWithdrawn { grant: grant.into(), person: person.into() }
            }
            Event::Granted { grant, terms } => {
                Self::Granted { grant: grant.into(), terms: terms.into() }
            }
            Event::TokenRecorded { exchange, claims } => {
                Self::TokenRecorded { exchange: exchange.into(), claims: claims.into() }
            }
            Event::ExchangeAnswered { grant, exchange, token } => Self::ExchangeAnswered {
                grant: grant.into(),
                exchange: exchange.into(),
                token: token.into(),
            },
            Event::UseRedeemed { grant, token, use_id } => {
                let (grant, token, use_id) = (grant.into(), token.into(), use_id.into());
                Self::UseRedeemed { grant, token, use_id }
            }
            Event::Ended { grant, end } => Self::Ended { grant: grant.into(), end: end.into() },
            Event::IdentityChanged { id, change } => {
                Self::IdentityChanged { id: id.into(), change: (*change).into() }
            }
            Event::Revoked { target, reason } => {
                Self::Revoked { target: target.into(), reason: reason.map(Text) }
            }
            Event::UsesReported(report) => Self::UsesReported(report.into()),
            Event::Locked { lock, until, reason } => {
                let (until_ms, reason) = (until.as_ms(), reason.map(Text));
                Self::Locked { lock: lock.into(), until_ms, reason }
            }
            Event::Unlocked { lock } => Self::Unlocked { lock: lock.into() },
            Event::OptedOut { instance } => Self::OptedOut { instance: instance.into() },
            Event::SnapshotTaken(taken) => Self::SnapshotTaken(taken.into()),
        }
    }
}

impl TryFrom<EventV1> for Event {
    type Error = Invalid;

    fn try_from(stored: EventV1) -> Result<Self, Invalid> {
        Ok(match stored {
            EventV1::EpochOpened { epoch, parent, founders, format } => Self::EpochOpened {
                epoch: epoch.0,
                parent: parent.map(Into::into),
                founders: untexts(founders),
                format,
            },
            EventV1::BundleApplied { bundle, directory, signers } => Self::BundleApplied {
                bundle: bundle.0,
                directory: directory.into(),
                signers: untexts(signers),
            },
            EventV1::KeyAdded { key, public, not_after_ms } => Self::KeyAdded {
                key: KeyId(key),
                public: public.0,
                not_after: Timestamp::from_ms(not_after_ms)?,
            },
            EventV1::KeyRetired { key } => Self::KeyRetired { key: KeyId(key) },
            EventV1::RequestFiled { request, justification, until_ms } => Self::RequestFiled {
                request: request.try_into()?,
                justification: justification.map(|text| text.0),
                until: Timestamp::from_ms(until_ms)?,
            },
            EventV1::RequestRefused { request, justification, refusal } => Self::RequestRefused {
                request: request.try_into()?,
                justification: justification.map(|text| text.0),
                refusal: refusal.into(),
            },
            EventV1::RequirementChanged { grant, requirement } => {
                Self::RequirementChanged { grant: grant.0, requirement: requirement.try_into()? }
            }
            EventV1::DecisionRecorded { grant, decision } => {
                Self::DecisionRecorded { grant: grant.0, decision: decision.try_into()? }
            }
            EventV1::DecisionWithdrawn { grant, person } => {
                Self::DecisionWithdrawn { grant: grant.0, person: person.0 }
            }
            EventV1::Granted { grant, terms } => {
                Self::Granted { grant: grant.0, terms: terms.try_into()? }
            }
            EventV1::TokenRecorded { exchange, claims } => {
                Self::TokenRecorded { exchange: exchange.0, claims: claims.try_into()? }
            }
            EventV1::ExchangeAnswered { grant, exchange, token } => {
                Self::ExchangeAnswered { grant: grant.0, exchange: exchange.0, token: token.0 }
            }
            EventV1::UseRedeemed { grant, token, use_id } => {
                Self::UseRedeemed { grant: grant.0, token: token.0, use_id: use_id.0 }
            }
            EventV1::Ended { grant, end } => Self::Ended { grant: grant.0, end: end.into() },
            EventV1::IdentityChanged { id, change } => {
                Self::IdentityChanged { id: id.0, change: change.into() }
            }
            EventV1::Revoked { target, reason } => {
                Self::Revoked { target: target.into(), reason: reason.map(|text| text.0) }
            }
            EventV1::UsesReported(report) => Self::UsesReported(report.try_into()?),
            EventV1::Locked { lock, until_ms, reason } => Self::Locked {
                lock: lock.into(),
                until: Timestamp::from_ms(until_ms)?,
                reason: reason.map(|text| text.0),
            },
            EventV1::Unlocked { lock } => Self::Unlocked { lock: lock.0 },
            EventV1::OptedOut { instance } => Self::OptedOut { instance: instance.0 },
            EventV1::SnapshotTaken(taken) => Self::SnapshotTaken(taken.into()),
        })
    }
}
