//! What became of one request, told from its entries alone: who asked, who approved and by which
//! signature, what was made of it, what was done with that, and how it ended. Signatures are
//! verified again: nothing that the broker once found good is believed for that.

use std::collections::BTreeMap;

use dayfly_verifier::claims::Claims;
use dayfly_verifier::dossier::verify_decision;
use dayfly_verifier::id::{
    BundleDigest, GrantId, LockId, PersonId, RequestDigest, Seq, TextDigest, TokenId, UseId,
};
use dayfly_verifier::request::{Answer, Request, Requirement, SignerKey};
use dayfly_verifier::resource::Operation;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::uses::Seen;

use super::about::{Subject, subject};
use super::trail::{Trail, Wanted};
use crate::core::directory::Directory;
use crate::core::event::{
    Actor, Decision, End, Entry, Event, Evidence, Head, Lock, Report, Target, Terms,
};
use crate::core::verdict::Refusal;

/// Who was who under each bundle that was ever in force.
pub type Directories = BTreeMap<BundleDigest, Directory>;

/// What became of one request.
#[derive(Debug, Clone)]
pub struct Story {
    /// The request, as it was filed.
    pub request: Request,
    /// The place of its entry.
    pub seq: Seq,
    /// When it was filed.
    pub at: Timestamp,
    /// The justification, kept aside.
    pub justification: Option<TextDigest>,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// What gateways counted, by operation and outcome.
    pub uses: BTreeMap<(Option<Operation>, Seen), u64>,
    /// How it stands by what is written; expiry is not.
    pub last: Last,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its place.
    pub seq: Seq,
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub by: Actor,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// Policy permits it if these approve.
    Demanded(Requirement),
    /// Policy refused it.
    Refused(Refusal),
    /// A person decided.
    Decided(Box<Decision>, Signature),
    /// A person took an approval back.
    Withdrawn(PersonId),
    /// The lease started.
    Granted(Terms),
    /// A token was recorded.
    Token(Box<Claims>),
    /// Another exchange was answered with a token that was there.
    Answered(TokenId),
    /// A use was spent.
    Redeemed(TokenId, UseId),
    /// It ended.
    Ended(End),
    /// It, or a part of it, was taken back.
    Revoked(Target, Option<TextDigest>),
    /// A lock was set that refuses it until then, or its end was put off.
    Locked(Box<Lock>, Timestamp, Option<TextDigest>),
    /// That lock was lifted.
    Unlocked(LockId),
}

/// How far the entries tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It waits until then.
    Pending(Timestamp),
    /// It is live until then.
    Granted(Timestamp),
    /// It ended then.
    Over(Timestamp),
}

/// What a decision rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// A signature that holds, by a key that the bundle of then lists for the person.
    Good {
        /// The fingerprint of the key, as `ssh-keygen -l` prints it.
        fingerprint: String,
        /// Whether a FIDO token was touched for it.
        presence: bool,
    },
    /// A signature that does not show what the entry says, and why.
    Bad(String),
    /// None: a denial takes only away, and mutual TLS carried it.
    None,
}

impl Story {
    /// The latest `most` stories in `entries`, which are in order and hold all that is about each
    /// request; and how many earlier ones are left out.
    #[must_use]
    pub fn latest(
        entries: &[(Head, Entry)],
        directories: &Directories,
        most: usize,
    ) -> (Vec<Self>, usize) {
        let mut begun: Vec<Self> = entries.iter().filter_map(Self::begin).collect();
        let earlier = begun.len().saturating_sub(most);
        begun.drain(..earlier);
        begun.iter_mut().for_each(|story| story.tell(entries, directories));
        (begun, earlier)
    }

    /// The story that begins with an entry, if one does.
    fn begin((head, entry): &(Head, Entry)) -> Option<Self> {
        let Subject::Request(request) = subject(&entry.event) else { return None };
        let (justification, last) = match (&entry.event, entry.at) {
            (Event::RequestFiled { justification, until, .. }, _) => {
                (*justification, Last::Pending(*until))
            }
            (Event::RequestRefused { justification, .. }, at) => (*justification, Last::Over(at)),
            (_, at) => (None, Last::Over(at)),
        };
        let (steps, uses) = Default::default();
        let (request, seq, at) = (request.clone(), head.seq, entry.at);
        Some(Self { request, seq, at, justification, steps, uses, last })
    }

    /// The id of the grant that it became, or would have.
    #[must_use]
    pub fn grant(&self) -> GrantId {
        self.request.grant_id()
    }

    /// Whether every signature in it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.steps.iter().any(|step| matches!(&step.what, What::Decided(_, Signature::Bad(_))))
    }

    fn tell(&mut self, entries: &[(Head, Entry)], directories: &Directories) {
        let wanted = Wanted { grant: Some(self.grant()), ..Wanted::default() };
        let mut trail = Trail::new(wanted);
        // The form that decisions are about: a new bundle may demand something else.
        let mut request = self.request.clone();
        for (head, entry) in entries {
            if trail.takes(entry) {
                let what = self.step(entry, &mut request, directories);
                let (seq, at, by) = (head.seq, entry.at, entry.by.clone());
                self.steps.extend(what.map(|what| Step { seq, at, by, what }));
            }
        }
    }

    fn step(
        &mut self,
        entry: &Entry,
        request: &mut Request,
        directories: &Directories,
    ) -> Option<What> {
        Some(match &entry.event {
            Event::RequestFiled { request, .. } => What::Demanded(request.requirement.clone()),
            Event::RequestRefused { refusal, .. } => What::Refused(refusal.clone()),
            Event::RequirementChanged { requirement, .. } => {
                request.requirement = requirement.clone();
                What::Demanded(requirement.clone())
            }
            Event::DecisionRecorded { decision, .. } => {
                if decision.answer == Answer::Deny {
                    self.last = Last::Over(entry.at);
                }
                let directory = entry.policy.and_then(|policy| directories.get(&policy));
                let signature = signature(&self.grant(), &request.digest(), decision, directory);
                What::Decided(Box::new(decision.clone()), signature)
            }
            Event::DecisionWithdrawn { person, .. } => What::Withdrawn(person.clone()),
            Event::Granted { terms, .. } => {
                self.last = Last::Granted(terms.until);
                What::Granted(terms.clone())
            }
            Event::TokenRecorded { claims, .. } => What::Token(Box::new(claims.clone())),
            Event::ExchangeAnswered { token, .. } => What::Answered(*token),
            Event::UseRedeemed { token, use_id, .. } => What::Redeemed(*token, *use_id),
            Event::Ended { end, .. } => {
                self.last = Last::Over(entry.at);
                What::Ended(end.clone())
            }
            Event::Revoked { target, reason } => {
                let part = matches!(target, Target::Token(_) | Target::Delegate(..));
                if !part && !matches!(target, Target::Key(_)) {
                    self.last = Last::Over(entry.at);
                }
                What::Revoked(target.clone(), *reason)
            }
            Event::Locked { lock, until, reason } => {
                What::Locked(Box::new(lock.clone()), *until, *reason)
            }
            Event::Unlocked { lock } => What::Unlocked(*lock),
            Event::UsesReported(report) => {
                self.count(report);
                return None;
            }
            Event::EpochOpened { .. }
            | Event::BundleApplied { .. }
            | Event::KeyAdded { .. }
            | Event::KeyRetired { .. }
            | Event::SnapshotTaken(_)
            | Event::IdentityChanged { .. }
            | Event::OptedOut { .. } => return None,
        })
    }

    /// Until when a lock refuses it, if one does at `now`.
    #[must_use]
    pub fn locked_until(&self, now: Timestamp) -> Option<Timestamp> {
        let mut ends = BTreeMap::new();
        for step in &self.steps {
            if let What::Locked(lock, until, _) = &step.what {
                ends.insert(lock.id, *until);
            } else if let What::Unlocked(lock) = &step.what {
                ends.remove(lock);
            }
        }
        ends.into_values().max().filter(|end| now < *end)
    }

    fn count(&mut self, report: &Report) {
        for (line, count) in &report.batch.counts {
            if line.about.is_some_and(|about| about.grant == self.grant()) {
                let sum = self.uses.entry((line.operation.clone(), line.seen.clone())).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }
}

/// Who an actor is, in one word or ID.
#[must_use]
pub fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Workload(id) | Actor::Gateway(id) | Actor::Broker(id) => SpiffeId::to_string(id),
        Actor::Person(name, _) => name.to_string(),
        Actor::Host => "host".into(),
    }
}

/// Verifies again what a decision rests on.
fn signature(
    grant: &GrantId,
    digest: &RequestDigest,
    decision: &Decision,
    directory: Option<&Directory>,
) -> Signature {
    let Some(Evidence { key, statement, signature }) = &decision.evidence else {
        let denied = decision.answer == Answer::Deny;
        return if denied { Signature::None } else { Signature::Bad("there is none".into()) };
    };
    let verified = match verify_decision(statement, signature, grant, digest) {
        Ok(verified) => verified,
        Err(error) => return Signature::Bad(error.to_string()),
    };
    let said = verified.statement();
    let listed = directory.and_then(|directory| directory.people.get(&decision.person));
    let problem = if said.person != decision.person || said.answer != decision.answer {
        "it signs another decision"
    } else if verified.key() != key {
        "it is by another key"
    } else if listed.is_none_or(|person| !person.keys.contains(key)) {
        "the bundle of then does not list the key for this person"
    } else {
        let presence = verified.shows_presence();
        return Signature::Good { fingerprint: fingerprint(key), presence };
    };
    Signature::Bad(problem.into())
}

/// The fingerprint of a key, as `ssh-keygen -l` prints it.
#[must_use]
pub fn fingerprint(key: &SignerKey) -> String {
    let parsed = ssh_key::PublicKey::from_openssh(key.as_str());
    let of = |key: ssh_key::PublicKey| key.fingerprint(ssh_key::HashAlg::Sha256).to_string();
    parsed.map_or_else(|_| key.to_string(), of)
}
