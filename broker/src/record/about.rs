//! What one entry is about.

use dayfly_verifier::id::{GrantId, LockId, PersonId};
use dayfly_verifier::request::Request;
use dayfly_verifier::spiffe::SpiffeId;

use crate::core::event::{Actor, Entry, Event, Lock, Report, Target};

/// The subject of an entry.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A request, as it came in.
    Request(&'a Request),
    /// A request or grant that came in before.
    Case(&'a GrantId),
    /// What was taken back.
    Taken(&'a Target),
    /// What is refused until further notice.
    Lock(&'a Lock),
    /// A lock that was set before.
    Lifted(&'a LockId),
    /// Uses of several grants.
    Uses(&'a Report),
    /// An identity of the embedded authority.
    Identity(&'a SpiffeId),
    /// The broker, its keys or its policy, or how a gateway follows.
    Broker,
}

/// What `event` is about.
#[must_use]
pub const fn subject(event: &Event) -> Subject<'_> {
    match event {
        Event::RequestFiled { request, .. } | Event::RequestRefused { request, .. } => {
            Subject::Request(request)
        }
        Event::RequirementChanged { grant, .. }
        | Event::DecisionRecorded { grant, .. }
        | Event::DecisionWithdrawn { grant, .. }
        | Event::Granted { grant, .. }
        | Event::ExchangeAnswered { grant, .. }
        | Event::UseRedeemed { grant, .. }
        | Event::Ended { grant, .. } => Subject::Case(grant),
        Event::TokenRecorded { claims, .. } => Subject::Case(&claims.grant),
        Event::Revoked { target, .. } => Subject::Taken(target),
        Event::Locked { lock, .. } => Subject::Lock(lock),
        Event::Unlocked { lock } => Subject::Lifted(lock),
        Event::UsesReported(report) => Subject::Uses(report),
        Event::IdentityChanged { id, .. } => Subject::Identity(id),
        Event::EpochOpened { .. }
        | Event::BundleApplied { .. }
        | Event::KeyAdded { .. }
        | Event::KeyRetired { .. }
        | Event::OptedOut { .. }
        | Event::SnapshotTaken(_) => Subject::Broker,
    }
}

/// The name of the kind of `event`, as it stands in the stored form.
#[must_use]
pub const fn kind(event: &Event) -> &'static str {
    match event {
        Event::EpochOpened { .. } => "epoch_opened",
        Event::BundleApplied { .. } => "bundle_applied",
        Event::KeyAdded { .. } => "key_added",
        Event::KeyRetired { .. } => "key_retired",
        Event::RequestFiled { .. } => "request_filed",
        Event::RequestRefused { .. } => "request_refused",
        Event::RequirementChanged { .. } => "requirement_changed",
        Event::DecisionRecorded { .. } => "decision_recorded",
        Event::DecisionWithdrawn { .. } => "decision_withdrawn",
        Event::Granted { .. } => "granted",
        Event::TokenRecorded { .. } => "token_recorded",
        Event::ExchangeAnswered { .. } => "exchange_answered",
        Event::UseRedeemed { .. } => "use_redeemed",
        Event::Ended { .. } => "ended",
        Event::Revoked { .. } => "revoked",
        Event::UsesReported(_) => "uses_reported",
        Event::SnapshotTaken(_) => "snapshot_taken",
        Event::IdentityChanged { .. } => "identity_changed",
        Event::Locked { .. } => "locked",
        Event::Unlocked { .. } => "unlocked",
        Event::OptedOut { .. } => "opted_out",
    }
}

/// Whether `entry` is by `person`, or names them in itself.
#[must_use]
pub fn names(entry: &Entry, person: &PersonId) -> bool {
    let by = matches!(&entry.by, Actor::Person(name, _) if name == person);
    by || match &entry.event {
        Event::DecisionRecorded { decision, .. } => decision.person == *person,
        Event::DecisionWithdrawn { person: who, .. } => who == person,
        Event::RequestFiled { request, .. } | Event::RequestRefused { request, .. } => {
            request.principal.as_ref() == Some(person)
        }
        Event::Locked { lock, .. } => lock.person.as_ref() == Some(person),
        Event::EpochOpened { .. }
        | Event::BundleApplied { .. }
        | Event::KeyAdded { .. }
        | Event::KeyRetired { .. }
        | Event::RequirementChanged { .. }
        | Event::Granted { .. }
        | Event::TokenRecorded { .. }
        | Event::ExchangeAnswered { .. }
        | Event::UseRedeemed { .. }
        | Event::Ended { .. }
        | Event::Revoked { .. }
        | Event::Unlocked { .. }
        | Event::OptedOut { .. }
        | Event::UsesReported(_)
        | Event::SnapshotTaken(_)
        | Event::IdentityChanged { .. } => false,
    }
}
