//! A gateway with a clock that is moved by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::claims::{Claims, Record};
use crate::feed::{Enforcer, GatewayView};
use crate::holder::{Confirmation, HolderKey};
use crate::id::{Epoch, FeedId, GrantId, KeyId, RequestDigest, Seq, TokenId};
use crate::proof::{ActDigest, DpopCall, make_dpop};
use crate::reject::Reject;
use crate::revocations::{FeedEntry, Kind, Revocations};
use crate::scope::{Arguments, Constraint, Limit, Right, Scope, Value};
use crate::time::{Clock, Timestamp};
use crate::trust::{ListedKey, Statement};
use crate::verify::{Attempt, Call, Config, Outcome, Shown, Verified, Verifier};
use crate::wire::{LocalSigner, Token, TokenSigner as _, mint};

pub(super) const GATEWAY: &str = "spiffe://shop.test/gateway/orders";
pub(super) const AGENT: &str = "spiffe://shop.test/agent/refunds";
pub(super) const BASE: &str = "https://orders.shop.test";
pub(super) const PATH: &str = "/orders/o-17/refund";
/// The time of day at which every test begins.
pub(super) const NOW: u64 = 1_800_000_000;
/// The uptime at which every test begins: the minute after the gateway's start is over.
const UPTIME: Duration = Duration::from_secs(5000);

pub(super) struct TestClock(Mutex<(Timestamp, Duration)>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().0
    }

    fn uptime(&self) -> Duration {
        self.0.lock().unwrap().1
    }
}

pub(super) struct World {
    pub(super) clock: Arc<TestClock>,
    pub(super) enforcer: Arc<Enforcer>,
    pub(super) verifier: Verifier,
    pub(super) statement: Statement,
    pub(super) revocations: Revocations,
    generation: u64,
    drawn: u8,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(config(GATEWAY))
    }

    /// A gateway that started a minute and two seconds ago, and has just heard from its feed.
    pub(super) fn with(config: Config) -> Self {
        let before = Duration::from_secs(62);
        let mut world = Self::just_started(config, at(NOW).minus(before), UPTIME - before);
        world.advance(before);
        world.publish();
        world
    }

    pub(super) fn just_started(config: Config, now: Timestamp, uptime: Duration) -> Self {
        let clock = Arc::new(TestClock(Mutex::new((now, uptime))));
        let enforcer = Arc::new(Enforcer::default());
        let secret = [u8::try_from(uptime.as_millis() % 251).unwrap(); 32];
        let shared = (Arc::clone(&enforcer), Arc::clone(&clock));
        let verifier = Verifier::new(config, shared.0, shared.1, secret);
        let listed = ListedKey { public: public(&root_key()), not_after: at(NOW + 86_400) };
        let statement = Statement {
            version: 1,
            feed: FeedId::new([1; 16]),
            epoch: Epoch::new([1; 16]),
            token_keys: BTreeMap::from([(KeyId(3), listed)]),
            feed_keys: BTreeMap::new(),
        };
        let revocations = Revocations::default();
        Self { clock, enforcer, verifier, statement, revocations, generation: 0, drawn: 0 }
    }

    pub(super) fn advance(&self, span: Duration) {
        let mut clock = self.clock.0.lock().unwrap();
        *clock = (clock.0.plus(span), clock.1 + span);
    }

    /// Sets the time of day, without uptime going on.
    pub(super) fn set_time(&self, now: Timestamp) {
        self.clock.0.lock().unwrap().0 = now;
    }

    /// Publishes what is known, heard at this moment, good for 5 s.
    pub(super) fn publish(&mut self) {
        self.publish_until(self.clock.uptime() + Duration::from_secs(5));
    }

    pub(super) fn publish_until(&mut self, fresh_until: Duration) {
        self.generation += 1;
        let known = (self.statement.clone(), self.revocations.clone());
        let view = GatewayView::for_test(known.0, known.1, self.generation, fresh_until);
        self.enforcer.publish(view, self.clock.now(), self.clock.uptime());
    }

    pub(super) fn tell(&mut self, kind: Kind) {
        let lapses_at = at(NOW + 3600);
        self.revocations.fold(&FeedEntry { seq: Seq(43), lapses_at, kind });
        self.publish();
    }

    /// A `jti` that was not drawn before.
    pub(super) fn jti(&mut self) -> [u8; 16] {
        self.drawn += 1;
        [self.drawn; 16]
    }

    /// A proof by `key` for `token` and the usual call over HTTP, made now.
    pub(super) fn proof(&mut self, key: &SigningKey, token: &str, call: &Call) -> String {
        let act = act(GATEWAY, call);
        let usual = DpopCall { act: Some(&act), ..usual_http() };
        make_dpop(key, token, &usual, self.clock.now(), self.jti())
    }

    /// Presents `token` with a proof by DPoP.
    pub(super) fn present(&self, token: &str, proof: &str, call: &Call) -> Result<Outcome, Reject> {
        self.show(token, Shown::Dpop { proof, method: "POST", path: PATH }, call)
    }

    pub(super) fn show(
        &self,
        token: &str,
        shown: Shown<'_>,
        call: &Call,
    ) -> Result<Outcome, Reject> {
        let call = Arc::new(call.clone());
        self.verifier.verify(&Attempt { token, shown, call: &call })
    }

    /// Presents `token` with a fresh proof by `key`.
    pub(super) fn use_by(
        &mut self,
        key: &SigningKey,
        token: &str,
        call: &Call,
    ) -> Result<Outcome, Reject> {
        let proof = self.proof(key, token, call);
        self.present(token, &proof, call)
    }
}

pub(super) fn config(audience: &str) -> Config {
    let base_url = Some(BASE.parse().unwrap());
    Config { base_url, ..Config::new(audience.parse().unwrap()) }
}

pub(super) fn usual_http() -> DpopCall<'static> {
    let url = "https://orders.shop.test/orders/o-17/refund";
    DpopCall { method: "POST", url, act: None, nonce: None }
}

pub(super) fn act(audience: &str, call: &Call) -> ActDigest {
    let Call { operation, resource, arguments } = call;
    ActDigest::of(&audience.parse().unwrap(), operation, resource, arguments)
}

pub(super) fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs).unwrap()
}

fn root_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The signer of tokens; `forged` has another key under the same number.
pub(super) fn signer(forged: bool) -> LocalSigner {
    let signer =
        LocalSigner::new(KeyId(3), &[if forged { 9 } else { 7 }; 32], Zeroizing::new([8; 32]));
    assert_eq!(signer.key_id(), KeyId(3));
    signer
}

pub(super) fn holder(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[100 + n; 32])
}

pub(super) fn public(key: &SigningKey) -> HolderKey {
    HolderKey::from_slice(key.verifying_key().as_bytes()).unwrap()
}

/// A token for refunds of at most 500 on production orders, bound to holder 0.
pub(super) fn claims() -> Claims {
    let right =
        Right { operation: "refund".parse().unwrap(), resource: "orders/prod/**".parse().unwrap() };
    let limit = Constraint { argument: "amount".parse().unwrap(), limit: Limit::AtMost(500) };
    Claims {
        token: TokenId::new([2; 16]),
        grant: GrantId::new([3; 16]),
        request: RequestDigest::new([4; 32]),
        task: "ticket-17".parse().unwrap(),
        subject: AGENT.parse().unwrap(),
        principal: None,
        audience: GATEWAY.parse().unwrap(),
        scope: Scope::new([right], [limit]).unwrap(),
        holder: Confirmation::Key(public(&holder(0))),
        issued_at: at(NOW - 1),
        expires_at: at(NOW + 120),
        online: false,
        counted: false,
        key: KeyId(3),
    }
}

pub(super) fn record() -> Record {
    Record { epoch: Epoch::new([1; 16]), seq: Seq(42) }
}

pub(super) fn minted(claims: &Claims) -> Token {
    mint(claims, &record(), &signer(false)).unwrap()
}

/// A refund of `amount` on order o-17.
pub(super) fn refund(amount: i64) -> Call {
    call("refund", "orders/prod/o-17", &[("amount", Value::Int(amount))])
}

pub(super) fn call(operation: &str, resource: &str, arguments: &[(&str, Value)]) -> Call {
    let argument = |(name, value): &(&str, Value)| (name.parse().unwrap(), value.clone());
    Call {
        operation: operation.parse().unwrap(),
        resource: resource.parse().unwrap(),
        arguments: arguments.iter().map(argument).collect::<Arguments>(),
    }
}

/// The reason of a refusal; `ok` and `ask` where there is none.
pub(super) fn code(outcome: &Result<Outcome, Reject>) -> &'static str {
    match outcome {
        Ok(Outcome::Verified(_)) => "ok",
        Ok(Outcome::MustAsk(_)) => "ask",
        Err(reject) => reject.code(),
    }
}

pub(super) fn verified(outcome: Result<Outcome, Reject>) -> Verified {
    match outcome {
        Ok(Outcome::Verified(verified)) => verified,
        other => panic!("{}", code(&other)),
    }
}
