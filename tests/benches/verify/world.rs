//! A gateway that has just heard from its feed, and the holders of tokens for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dayfly_verifier::claims::{Claims, Record};
use dayfly_verifier::feed::{
    Enforcer, Follower, Head, Message, Profile, Source, feed_start, snapshot_digest,
};
use dayfly_verifier::holder::{Confirmation, HolderKey};
use dayfly_verifier::id::{ChainHash, Epoch, FeedId, GrantId, KeyId, RequestDigest, Seq, TokenId};
use dayfly_verifier::proof::{DpopCall, make_dpop};
use dayfly_verifier::scope::{Constraint, Limit, Right, Scope, Value};
use dayfly_verifier::time::{Clock, Timestamp};
use dayfly_verifier::trust::{ListedKey, Statement};
use dayfly_verifier::verify::{Call, Config, Peer, Verifier};
use dayfly_verifier::wire::{LocalSigner, Token, mint};
use ed25519_dalek::SigningKey;

pub(crate) const METHOD: &str = "POST";
pub(crate) const PATH: &str = "/orders/o-17/refund";
const BASE: &str = "https://orders.shop.test";
const GATEWAY: &str = "spiffe://shop.test/gateway/orders";
const EPOCH: Epoch = Epoch::new([1; 16]);
const FEED: FeedId = FeedId::new([2; 16]);
const START_SECS: u64 = 1_800_000_000;
/// A gateway asks for nonces in its first minute.
const SINCE_START: Duration = Duration::from_secs(62);

/// A clock that is moved by hand.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(START_SECS) + self.uptime())
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// The gateway.
pub(crate) struct World {
    pub(crate) verifier: Verifier,
    pub(crate) call: Arc<Call>,
    clock: Arc<Hand>,
    signer: LocalSigner,
}

/// A token and what its holder can show.
pub(crate) struct Held {
    pub(crate) token: Token,
    pub(crate) peer: Peer,
    pub(crate) seed: [u8; 32],
}

impl World {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let clock = Arc::new(Hand(AtomicU64::new(1000)));
        let enforcer = Arc::new(Enforcer::default());
        let mut config = Config::new(GATEWAY.parse()?);
        config.base_url = Some(BASE.parse()?);
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let verifier = Verifier::new(config, Arc::clone(&enforcer), shared, [7; 32]);
        clock.0.fetch_add(SINCE_START.as_secs(), Ordering::Relaxed);
        hear(&enforcer, &*clock)?;
        let call = Call {
            operation: "refund".parse()?,
            resource: "orders/prod/o-17".parse()?,
            arguments: BTreeMap::from([("amount".parse()?, Value::Int(500))]),
        };
        let signer = LocalSigner::new(KeyId(1), &[9; 32], [8; 32].into());
        Ok(Self { verifier, call: Arc::new(call), clock, signer })
    }

    /// The token of holder `n`.
    pub(crate) fn token(&self, n: usize) -> anyhow::Result<Held> {
        let n = u64::try_from(n)?;
        let mut seed = [4; 32];
        let mut id = [0; 16];
        for (to, byte) in n.to_be_bytes().into_iter().enumerate() {
            seed.iter_mut().skip(to).take(1).for_each(|at| *at = byte);
            id.iter_mut().skip(to).take(1).for_each(|at| *at = byte);
        }
        let key = public(&SigningKey::from_bytes(&seed))?;
        let now = self.clock.now().floor_to_second();
        let right = Right { operation: "refund".parse()?, resource: "orders/prod/**".parse()? };
        let limit = Constraint { argument: "amount".parse()?, limit: Limit::AtMost(500) };
        let claims = Claims {
            token: TokenId::new(id),
            grant: GrantId::new(id),
            request: RequestDigest::new([5; 32]),
            task: "ticket-17".parse()?,
            subject: "spiffe://shop.test/agent/refunds".parse()?,
            principal: None,
            audience: GATEWAY.parse()?,
            scope: Scope::new([right], [limit])?,
            holder: Confirmation::Key(key),
            issued_at: now,
            expires_at: now.plus(Duration::from_secs(120)),
            online: false,
            counted: false,
            key: KeyId(1),
        };
        let token = mint(&claims, &Record { epoch: EPOCH, seq: Seq(n + 1) }, &self.signer)?;
        Ok(Held { token, peer: Peer { id: claims.subject, key: Some(key) }, seed })
    }

    /// The `nth` proof by DPoP of `held` for the call.
    pub(crate) fn proof(&self, held: &Held, nth: u8) -> String {
        let url = format!("{BASE}{PATH}");
        let call = DpopCall { method: METHOD, url: &url, act: None, nonce: None };
        let key = SigningKey::from_bytes(&held.seed);
        make_dpop(&key, held.token.expose(), &call, self.clock.now(), [nth; 16])
    }
}

/// Lets the gateway hear a trust statement, an empty snapshot and a heartbeat, each as signed.
fn hear(enforcer: &Arc<Enforcer>, clock: &dyn Clock) -> anyhow::Result<()> {
    let (root, feed) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let not_after = clock.now().plus(Duration::from_secs(3600));
    let listed = |key: &SigningKey| -> anyhow::Result<ListedKey> {
        Ok(ListedKey { public: public(key)?, not_after })
    };
    let statement = Statement {
        version: 1,
        feed: FEED,
        epoch: EPOCH,
        token_keys: [(KeyId(1), listed(&SigningKey::from_bytes(&[9; 32]))?)].into(),
        feed_keys: [(KeyId(1), listed(&feed)?)].into(),
    };
    let profile = Profile::new(public(&root)?, Duration::from_secs(60), Source::Direct)?;
    let mut follower = Follower::new(profile, None);
    follower.trust(&statement.sign(&root)?)?;
    follower.subscribe();
    let (now, uptime) = (clock.now(), clock.uptime());
    follower.challenge([1; 16], uptime);
    let head = Head {
        feed: FEED,
        epoch: EPOCH,
        seq: Seq(0),
        journal: ChainHash::new([0; 32]),
        hash: feed_start(&EPOCH),
        time: now,
        key: KeyId(1),
        snapshot: None,
    };
    let snapshot = Head { snapshot: Some(snapshot_digest([])), ..head };
    let entries: Vec<Vec<u8>> = Vec::new();
    follower.receive(&Message::Snapshot(entries, Some(snapshot.sign(&feed))), now, uptime)?;
    let beat: Message<Vec<u8>> = Message::Heartbeat(head.sign(&feed), vec![1; 16]);
    follower.receive(&beat, now, uptime)?;
    let view = follower.view().ok_or_else(|| anyhow::anyhow!("nothing to believe"))?;
    enforcer.publish(view, now, uptime);
    Ok(())
}

fn public(key: &SigningKey) -> anyhow::Result<HolderKey> {
    Ok(HolderKey::from_slice(key.verifying_key().as_bytes())?)
}
