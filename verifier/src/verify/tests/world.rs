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

pub(crate) const GATEWAY: &str = "spiffe://shop.test/gateway/orders";
pub(crate) const AGENT: &str = "spiffe://shop.test/agent/refunds";
pub(crate) const BASE: &str = "https://orders.shop.test";
pub(crate) const PATH: &str = "/orders/o-17/refund";
/// The time of day at which every test begins.
pub(crate) const NOW: u64 = 1_800_000_000;
/// The uptime at which every test begins: the minute after the gateway's start is over.
const UPTIME: Duration = Duration::from_secs(5000);

pub(crate) struct TestClock {
    reads: Mutex<(Timestamp, Duration)>,
    /// What happens when the time of day is asked for next.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        meanwhile.into_iter().for_each(|happens| happens());
        self.reads.lock().unwrap().0
    }

    fn uptime(&self) -> Duration {
        self.reads.lock().unwrap().1
    }
}

pub(crate) struct World {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) enforcer: Arc<Enforcer>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) statement: Statement,
    pub(crate) revocations: Revocations,
    generation: u64,
    drawn: u8,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(config(GATEWAY))
    }

    /// A gateway that started a minute and two seconds ago, and has just heard from its feed.
    pub(crate) fn with(config: Config) -> Self {
        let before = Duration::from_secs(62);
        let mut world = Self::just_started(config, at(NOW).minus(before), UPTIME - before);
        world.advance(before);
        world.publish();
        world
    }

    pub(crate) fn just_started(config: Config, now: Timestamp, uptime: Duration) -> Self {
        let reads = Mutex::new((now, uptime));
        let clock = Arc::new(TestClock { reads, meanwhile: Mutex::default() });
        let enforcer = Arc::new(Enforcer::default());
        let secret = [u8::try_from(uptime.as_millis() % 251).unwrap(); 32];
        let shared = (Arc::clone(&enforcer), Arc::clone(&clock));
        let verifier = Arc::new(Verifier::new(config, shared.0, shared.1, secret));
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

    pub(crate) fn advance(&self, span: Duration) {
        let mut clock = self.clock.reads.lock().unwrap();
        *clock = (clock.0.plus(span), clock.1 + span);
    }

    /// Sets the time of day, without uptime going on.
    pub(crate) fn set_time(&self, now: Timestamp) {
        self.clock.reads.lock().unwrap().0 = now;
    }

    /// Publishes what is known, heard at this moment, good for 5 s.
    pub(crate) fn publish(&mut self) {
        self.publish_until(self.clock.uptime() + Duration::from_secs(5));
    }

    pub(crate) fn publish_until(&mut self, fresh_until: Duration) {
        let view = self.view(fresh_until);
        self.enforcer.publish(view, self.clock.now(), self.clock.uptime());
    }

    fn view(&mut self, fresh_until: Duration) -> GatewayView {
        self.generation += 1;
        let known = (self.statement.clone(), self.revocations.clone());
        GatewayView::for_test(known.0, known.1, self.generation, fresh_until)
    }

    pub(crate) fn tell(&mut self, kind: Kind) {
        self.fold(kind);
        self.publish();
    }

    fn fold(&mut self, kind: Kind) {
        let lapses_at = at(NOW + 3600);
        self.revocations.fold(&FeedEntry { seq: Seq(43), lapses_at, kind });
    }

    /// Tells it while the time of day is asked for next, which is the last that is looked at.
    pub(crate) fn tell_meanwhile(&mut self, kind: Kind) {
        self.fold(kind);
        let (now, uptime) = (self.clock.now(), self.clock.uptime());
        let (enforcer, view) = (self.enforcer.clone(), self.view(uptime + Duration::from_secs(5)));
        let happens = move || enforcer.publish(view, now, uptime);
        *self.clock.meanwhile.lock().unwrap() = Some(Box::new(happens));
    }

    /// A `jti` that was not drawn before.
    pub(crate) fn jti(&mut self) -> [u8; 16] {
        self.drawn += 1;
        [self.drawn; 16]
    }

    /// A proof by `key` for `token` and the usual call over HTTP, made now.
    pub(crate) fn proof(&mut self, key: &SigningKey, token: &str, call: &Call) -> String {
        let act = act(GATEWAY, call);
        let usual = DpopCall { act: Some(&act), ..usual_http() };
        make_dpop(key, token, &usual, self.clock.now(), self.jti())
    }

    /// Presents `token` with a proof by DPoP.
    pub(crate) fn present(&self, token: &str, proof: &str, call: &Call) -> Result<Outcome, Reject> {
        self.show(token, Shown::Dpop { proof, method: "POST", path: PATH }, call)
    }

    pub(crate) fn show(
        &self,
        token: &str,
        shown: Shown<'_>,
        call: &Call,
    ) -> Result<Outcome, Reject> {
        let call = Arc::new(call.clone());
        self.verifier.verify(&Attempt { token, shown, call: &call })
    }

    /// Presents `token` with a fresh proof by `key`.
    pub(crate) fn use_by(
        &mut self,
        key: &SigningKey,
        token: &str,
        call: &Call,
    ) -> Result<Outcome, Reject> {
        let proof = self.proof(key, token, call);
        self.present(token, &proof, call)
    }
}

pub(crate) fn config(audience: &str) -> Config {
    let base_url = Some(BASE.parse().unwrap());
    Config { base_url, ..Config::new(audience.parse().unwrap()) }
}

pub(crate) fn usual_http() -> DpopCall<'static> {
    let url = "https://orders.shop.test/orders/o-17/refund";
    DpopCall { method: "POST", url, act: None, nonce: None }
}

pub(crate) fn act(audience: &str, call: &Call) -> ActDigest {
    let Call { operation, resource, arguments } = call;
    ActDigest::of(&audience.parse().unwrap(), operation, resource, arguments)
}

pub(crate) fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs).unwrap()
}

fn root_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The signer of tokens; `forged` has another key under the same number.
pub(crate) fn signer(forged: bool) -> LocalSigner {
    let signer =
        LocalSigner::new(KeyId(3), &[if forged { 9 } else { 7 }; 32], Zeroizing::new([8; 32]));
    assert_eq!(signer.key_id(), KeyId(3));
    signer
}

pub(crate) fn holder(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[100 + n; 32])
}

pub(crate) fn public(key: &SigningKey) -> HolderKey {
    HolderKey::from_slice(key.verifying_key().as_bytes()).unwrap()
}

/// A token for refunds of at most 500 on production orders, bound to holder 0.
pub(crate) fn claims() -> Claims {
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

pub(crate) fn record() -> Record {
    Record { epoch: Epoch::new([1; 16]), seq: Seq(42) }
}

pub(crate) fn minted(claims: &Claims) -> Token {
    mint(claims, &record(), &signer(false)).unwrap()
}

/// A refund of `amount` on order o-17.
pub(crate) fn refund(amount: i64) -> Call {
    call("refund", "orders/prod/o-17", &[("amount", Value::Int(amount))])
}

pub(crate) fn call(operation: &str, resource: &str, arguments: &[(&str, Value)]) -> Call {
    let argument = |(name, value): &(&str, Value)| (name.parse().unwrap(), value.clone());
    Call {
        operation: operation.parse().unwrap(),
        resource: resource.parse().unwrap(),
        arguments: arguments.iter().map(argument).collect::<Arguments>(),
    }
}

/// The reason of a refusal; `ok` and `ask` where there is none.
pub(crate) fn code(outcome: &Result<Outcome, Reject>) -> &'static str {
    match outcome {
        Ok(Outcome::Verified(_)) => "ok",
        Ok(Outcome::MustAsk(_)) => "ask",
        Err(reject) => reject.code(),
    }
}

pub(crate) fn verified(outcome: Result<Outcome, Reject>) -> Verified {
    match outcome {
        Ok(Outcome::Verified(verified)) => verified,
        other => panic!("{}", code(&other)),
    }
}
