//! A broker in memory, for the tests of those who write agents: people who answer by a script, a
//! clock that is moved by hand, gateways that refuse from the moment of a revocation.
//!
//! It speaks the same protocol over an in-process connection, issues real tokens, and feeds real
//! verifiers; a test of Dayfly runs one story against it and against the real broker and holds
//! their answers side by side. What it leaves out is what the test writes: policy, people and their
//! signatures, limits. It keeps nothing, and its keys are no secret: for tests only.
//!
//! Time stands still, but for two moves. [`Kit::forward`] moves it. And where somebody waits for a
//! decision, it leaps to what the script has in store, so that nothing is waited for in a test;
//! [`Kit::stand_still`] keeps it from that.
//!
//! ```
//! use std::time::Duration;
//! use dayfly_agent::errors::{Error, Reason};
//! use dayfly_agent::testkit::{Kit, ask};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kit = Kit::new();
//! let agent = kit.client();
//!
//! kit.approve_after(Duration::from_secs(120));
//! let grant = agent.acquire(ask("refund orders/prod/o-17")).await?;
//! assert!(grant.token().await.is_ok());
//!
//! kit.revoke_all();
//! kit.forward(Duration::from_secs(90)); // the token runs low, and another one is asked for
//! let over = grant.token().await.err().and_then(|error| error.reason());
//! assert_eq!(over, Some(Reason::Revoked));
//!
//! kit.never();
//! let unanswered = agent.acquire(ask("refund orders/prod/o-18")).await;
//! assert!(matches!(unanswered, Err(Error::Ended(_))));
//! # Ok(())
//! # }
//! ```

mod answer;
mod book;
mod clock;
mod desk;
mod feed;
mod filed;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use dayfly_verifier::id::{Epoch, GrantId, KeyId, TokenId, UseId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::proof::BaseUrl;
use dayfly_verifier::request::Narrowing;
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, Timestamp};
use dayfly_verifier::verify::{self, NotRedeemed, Redeem, Redemption, Verifier};
use tonic::transport::Endpoint;

pub use self::answer::APPROVER;
use self::answer::Answer;
use self::book::Book;
pub use self::clock::ByHand;
use self::filed::Because;
use self::shared::Shared;
use crate::case::Standing;
use crate::client::{Client, Outcome};
use crate::ticket::Ask;

/// Who the client of [`Kit::client`] is.
pub const AGENT: &str = "spiffe://kit.test/agent";
/// For which gateway [`ask`] asks.
pub const GATEWAY: &str = "spiffe://kit.test/gateway";

const EPOCH: Epoch = Epoch::new([1; 16]);
const TOKEN_KEY: KeyId = KeyId(1);
const TOKEN_SECRET: [u8; 32] = [2; 32];
/// The time at which every kit begins: 2027-01-15T08:00:00Z.
const BEGAN_MS: u64 = 1_800_000_000_000;

/// A broker in memory. Clones are the same one.
#[derive(Clone)]
pub struct Kit(Arc<Shared>);

impl Default for Kit {
    fn default() -> Self {
        Self::new()
    }
}

impl Kit {
    /// A broker that grants every request as it is filed.
    #[must_use]
    pub fn new() -> Self {
        let began = Timestamp::from_ms(BEGAN_MS).unwrap_or_default();
        let book = Book::new(EPOCH, TOKEN_KEY, &TOKEN_SECRET);
        Self(Arc::new(Shared::new(ByHand::at(began), book)))
    }

    /// A client of this broker, who is [`AGENT`]. Its patience is half a second, by the clock on
    /// the wall: a test that takes the broker away shall not wait for it.
    #[must_use]
    pub fn client(&self) -> Client {
        match AGENT.parse() {
            Ok(agent) => self.client_as(&agent),
            Err(_) => unreachable!("the constant is an ID"),
        }
    }

    /// A client of this broker, under this ID.
    #[must_use]
    pub fn client_as(&self, id: &SpiffeId) -> Client {
        let (kit, caller) = (Arc::clone(&self.0), id.clone());
        let connector = tower::service_fn(move |_: http::Uri| {
            let connected = kit.connect(&caller);
            async move { connected }
        });
        let channel = Endpoint::from_static("http://kit").connect_with_connector_lazy(connector);
        Client::over(channel, id.clone(), self.0.clock.clone())
            .patient_for(Duration::from_millis(500))
    }

    /// Requests that are filed from now on are granted at once: policy asks for nobody.
    pub fn grant(&self) {
        self.answer(Answer::Grant);
    }

    /// Requests that are filed from now on are approved after this time.
    pub fn approve_after(&self, after: Duration) {
        self.answer(Answer::Approve { after, narrowing: Narrowing::default() });
    }

    /// Requests that are filed from now on are approved after this time, to no more than this.
    pub fn approve_narrowed(&self, after: Duration, narrowing: Narrowing) {
        self.answer(Answer::Approve { after, narrowing });
    }

    /// Requests that are filed from now on are denied, by this person.
    pub fn deny(&self, person: &str) {
        self.answer(Answer::Deny { after: Duration::ZERO, person: person.to_owned() });
    }

    /// Requests that are filed from now on are denied after this time, by this person.
    pub fn deny_after(&self, after: Duration, person: &str) {
        self.answer(Answer::Deny { after, person: person.to_owned() });
    }

    /// Requests that are filed from now on are never answered: they expire after five minutes.
    pub fn never(&self) {
        self.answer(Answer::Never);
    }

    /// Requests that are filed from now on are refused by this policy, for this reason.
    pub fn refuse(&self, policy: &str, reason: &str) {
        let (policy, reason) = (policy.to_owned(), reason.to_owned());
        self.answer(Answer::Refuse { policy, reason });
    }

    fn answer(&self, answer: Answer) {
        self.0.with(|book, _| book.answer = answer);
    }

    /// The clock of this broker, its clients and its gateways. Move it with [`Kit::forward`]:
    /// whoever moves it alone leaves the gateways without news.
    #[must_use]
    pub fn clock(&self) -> Arc<ByHand> {
        Arc::clone(&self.0.clock)
    }

    /// Lets time pass.
    pub fn forward(&self, by: Duration) {
        self.0.forward_to(self.0.clock.now().plus(by));
    }

    /// Keeps time from leaping where somebody waits: only [`Kit::forward`] moves it.
    pub fn stand_still(&self) {
        self.0.line().still = true;
    }

    /// Revokes a grant, or a request that waits.
    pub fn revoke(&self, grant: &GrantId) {
        self.0.with(|book, now| book.end(grant, Standing::Revoked, Because::Of, now));
    }

    /// Revokes all that is open.
    pub fn revoke_all(&self) {
        self.end_all(Standing::Revoked, &Because::Of);
    }

    /// A new policy refuses all that is open, for this reason.
    pub fn drift_all(&self, policy: &str, reason: &str) {
        let (policy, reason) = (policy.to_owned(), reason.to_owned());
        self.end_all(Standing::Drifted, &Because::Policy { policy, reason });
    }

    fn end_all(&self, end: Standing, because: &Because) {
        self.0.with(|book, now| {
            let all: Vec<GrantId> = book.cases().map(|case| case.request.grant_id()).collect();
            all.iter().for_each(|grant| book.end(grant, end, because.clone(), now));
        });
    }

    /// Lets time pass until every lease is over.
    pub fn lapse_all(&self) {
        let ends = |book: &mut Book, _| {
            let terms = book.cases().filter_map(|case| case.terms.as_ref());
            terms.map(|terms| terms.until).max()
        };
        if let Some(end) = self.0.with(ends) {
            self.0.forward_to(end);
        }
    }

    /// The broker is gone: connections are cut, and there are no new ones. It forgets nothing.
    pub fn stop(&self) {
        let mut line = self.0.line();
        line.stopped = true;
        line.connections.drain(..).for_each(|connection| connection.abort());
    }

    /// It is back.
    pub fn start(&self) {
        self.0.line().stopped = false;
        self.0.with(|_, _| ());
    }

    /// The next answers are lost on the way, so many of them: what was asked is done.
    pub fn lose_answers(&self, count: usize) {
        self.0.line().losses = count;
    }

    /// How many requests were filed.
    #[must_use]
    pub fn filed(&self) -> usize {
        self.0.with(|book, _| book.cases().count())
    }

    /// How many exchanges were answered.
    #[must_use]
    pub fn exchanged(&self) -> usize {
        self.0.with(|book, _| book.exchanged)
    }

    /// How many tokens were made. Answers with the bytes of an earlier one do not count.
    #[must_use]
    pub fn minted(&self) -> usize {
        self.0.with(|book, _| book.minted)
    }

    /// Where each request stands, with the outcome that its holder told, in no particular order.
    #[must_use]
    pub fn standings(&self) -> Vec<(Standing, Option<Outcome>)> {
        self.0
            .with(|book, now| book.cases().map(|case| (case.standing(now), case.outcome)).collect())
    }

    /// A gateway that listens to this broker, to be put behind the layer of `dayfly-verifier`. It
    /// answers under `base_url`.
    ///
    /// # Errors
    /// A name that is no SPIFFE ID, or a URL that no gateway has.
    pub fn gateway(&self, audience: &str, base_url: &str) -> Result<Arc<Verifier>, Invalid> {
        let enforcer = self.0.listeners.join(EPOCH, &TOKEN_SECRET)?;
        let mut config = verify::Config::new(audience.parse()?);
        config.base_url = Some(base_url.parse::<BaseUrl>()?);
        self.0.with(|_, _| ());
        Ok(Arc::new(Verifier::new(config, enforcer, self.0.clock.clone(), [4; 32])))
    }

    /// Where gateways spend the uses of counted rights.
    #[must_use]
    pub fn uses(&self) -> Arc<dyn Redeem> {
        Arc::new(self.clone())
    }
}

impl Redeem for Kit {
    fn redeem(&self, token: TokenId, use_id: UseId) -> Redemption<'_> {
        let answer = if self.0.line().stopped {
            Err(NotRedeemed::Unanswered)
        } else {
            self.0.with(|book, now| book.redeem(token, use_id, now))
        };
        Box::pin(async move { answer })
    }

    fn reevaluate(&self, token: TokenId) -> Redemption<'_> {
        let answer = if self.0.line().stopped {
            Err(NotRedeemed::Unanswered)
        } else {
            self.0.with(|book, now| book.reevaluate(token, now))
        };
        Box::pin(async move { answer })
    }
}

/// Asks for this right, for some task and purpose, at [`GATEWAY`].
///
/// # Panics
/// If it is no right.
#[must_use]
#[expect(clippy::panic, reason = "it is for tests")]
pub fn ask(right: &str) -> Ask {
    let read = || {
        let scope = Scope::new([right.parse()?], [])?;
        Ok(Ask::new(GATEWAY.parse()?, scope, "task-1".parse()?, "test".parse()?))
    };
    read().unwrap_or_else(|error: Invalid| panic!("`{right}`: {error}"))
}
