//! What can be told of a token without a gateway: every check of the fixed order, with what came of
//! it. For people who look into a refusal, and for tests; a gateway decides by
//! [`super::Verifier::verify`], which runs the same checks, and asks its feed and its memory too.

use std::sync::Arc;

use super::holder::{check_audience, check_caveats, check_holder, check_scope, check_times};
use super::{Attempt, Call, Config, Shown};
use crate::claims::Claims;
use crate::holder::{Confirmation, HolderKey};
use crate::proof::BaseUrl;
use crate::reject::Reject;
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;
use crate::trust::Statement;
use crate::wire::{Content, Decoded};

/// A check, in the order in which a gateway makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Size, shape and profile.
    Shape,
    /// That the gateway has heard from its feed of late.
    Feed,
    /// That a trusted key has the token's number, and that every signature is good.
    Signatures,
    /// That nothing it rests on was taken back.
    Revocation,
    /// That it is of the epoch in force.
    Epoch,
    /// That it was issued, and is not over.
    Times,
    /// That it is for this gateway.
    Audience,
    /// That its present holder shows it.
    Holder,
    /// That the proof is new.
    Replay,
    /// That nothing is locked.
    Locks,
    /// That its rights and constraints allow the call.
    Scope,
    /// That what its holders added allows the call.
    Caveats,
    /// What the broker says to this use.
    Broker,
}

impl Check {
    /// All of them, in their order.
    pub const ALL: [Self; 13] = [
        Self::Shape,
        Self::Feed,
        Self::Signatures,
        Self::Revocation,
        Self::Epoch,
        Self::Times,
        Self::Audience,
        Self::Holder,
        Self::Replay,
        Self::Locks,
        Self::Scope,
        Self::Caveats,
        Self::Broker,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Feed => "feed",
            Self::Signatures => "signatures",
            Self::Revocation => "revocation",
            Self::Epoch => "epoch",
            Self::Times => "times",
            Self::Audience => "audience",
            Self::Holder => "holder",
            Self::Replay => "replay",
            Self::Locks => "locks",
            Self::Scope => "scope",
            Self::Caveats => "caveats",
            Self::Broker => "broker",
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It holds.
    Holds,
    /// It does not, and a gateway that came so far would refuse with this.
    Fails(Reject),
    /// It cannot be told, or was not asked: why.
    Open(&'static str),
    /// An earlier check failed.
    NotReached,
}

/// A check, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub check: Check,
    /// What.
    pub finding: Finding,
}

/// Whose signatures are believed.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// The keys of a statement, whose signature was checked.
    Statement(&'a Statement),
    /// This key, whatever number the token gives it.
    Key(&'a HolderKey),
}

/// The use for which a token is looked at.
#[derive(Clone, Copy)]
pub struct Use<'a> {
    /// What is to be done.
    pub call: &'a Arc<Call>,
    /// The proof by DPoP, and the URL under which it reaches the gateway.
    pub proof: Option<(Shown<'a>, &'a BaseUrl)>,
}

/// What is asked of a token.
pub struct Offline<'a> {
    /// The token, in its text form.
    pub token: &'a str,
    /// Whose signatures are believed.
    pub trust: Trust<'a>,
    /// The gateway.
    pub audience: Option<&'a SpiffeId>,
    /// The use.
    pub used: Option<Use<'a>>,
    /// When.
    pub now: Timestamp,
}

/// Every check in its order; those behind the first that fails are not reached.
#[must_use]
pub fn offline(asked: &Offline<'_>) -> Vec<Step> {
    let mut steps = Walk(Vec::with_capacity(Check::ALL.len()));
    let _ended = steps.walk(asked);
    let Walk(mut steps) = steps;
    let rest = Check::ALL.iter().skip(steps.len());
    steps.extend(rest.map(|check| Step { check: *check, finding: Finding::NotReached }));
    steps
}

const NO_GATEWAY: &str = "only a gateway that follows the feed can tell";
const NO_AUDIENCE: &str = "no audience was named";
const NO_CALL: &str = "no call was named";
const NO_PROOF: &str = "no proof was given";

/// The steps that were taken.
struct Walk(Vec<Step>);

impl Walk {
    /// Notes what came of a check; nothing where the walk ends with it.
    fn check<T>(&mut self, check: Check, result: Result<T, Reject>) -> Option<T> {
        let (finding, value) = match result {
            Ok(value) => (Finding::Holds, Some(value)),
            Err(reject) => (Finding::Fails(reject), None),
        };
        self.0.push(Step { check, finding });
        value
    }

    fn open(&mut self, check: Check, why: &'static str) {
        self.0.push(Step { check, finding: Finding::Open(why) });
    }

    fn walk(&mut self, asked: &Offline<'_>) -> Option<()> {
        let now = asked.now;
        let decoded = Decoded::read(asked.token).map_err(Reject::Malformed);
        let decoded = self.check(Check::Shape, decoded)?;
        self.open(Check::Feed, NO_GATEWAY);
        let number = decoded.key_id();
        let key = match asked.trust {
            Trust::Key(key) => Ok(key),
            Trust::Statement(trust) => {
                let listed = trust.token_keys.get(&number).filter(|listed| now < listed.not_after);
                listed.map(|listed| &listed.public).ok_or(Reject::UnknownKey(number))
            }
        };
        let key = key.and_then(|key| key.verifying_key().ok_or(Reject::UnknownKey(number)));
        let checked = key.and_then(|key| decoded.check(&key).map_err(Reject::BadSignature));
        let checked = self.check(Check::Signatures, checked)?;
        let content = checked.content();
        self.open(Check::Revocation, NO_GATEWAY);
        match asked.trust {
            Trust::Key(_) => self.open(Check::Epoch, "no trust statement was given"),
            Trust::Statement(trust) => {
                let same = content.record.epoch == trust.epoch;
                self.check(Check::Epoch, same.then_some(()).ok_or(Reject::OtherEpoch))?;
            }
        }
        self.check(Check::Times, check_times(&content.claims, now))?;
        match asked.audience {
            None => self.open(Check::Audience, NO_AUDIENCE),
            Some(gateway) => {
                self.check(Check::Audience, check_audience(&content.claims, gateway))?;
            }
        }
        self.holder(asked, content)?;
        self.open(Check::Replay, NO_GATEWAY);
        self.open(Check::Locks, NO_GATEWAY);
        match asked.used {
            None => {
                self.open(Check::Scope, NO_CALL);
                self.open(Check::Caveats, NO_CALL);
            }
            Some(Use { call, .. }) => {
                self.check(Check::Scope, check_scope(&content.claims, call))?;
                let gateway = asked.audience.unwrap_or(&content.claims.audience);
                self.check(Check::Caveats, check_caveats(content, gateway, call, now))?;
            }
        }
        let Claims { online, counted, .. } = content.claims;
        match (online, counted) {
            (true, _) => self.open(Check::Broker, "each use is evaluated by the broker"),
            (false, true) => self.open(Check::Broker, "each use is spent at the broker"),
            (false, false) => {
                self.check(Check::Broker, Ok(()))?;
            }
        }
        Some(())
    }

    fn holder(&mut self, asked: &Offline<'_>, content: &Content) -> Option<()> {
        let Some(Use { call, proof: Some((shown, base)) }) = asked.used else {
            self.open(Check::Holder, NO_PROOF);
            return Some(());
        };
        let audience = asked.audience.unwrap_or(&content.claims.audience).clone();
        let config = Config { base_url: Some(base.clone()), ..Config::new(audience) };
        let attempt = Attempt { token: asked.token, shown, call };
        let ready = || match content.holder() {
            Confirmation::Key(key) => key.verifying_key(),
            Confirmation::Identity => None,
        };
        let holder = check_holder(&config, content, ready, &attempt, asked.now);
        self.check(Check::Holder, holder.map(drop))
    }
}
