//! What becomes of identities is on record before anything is given.

use dayfly_agent::identity::NewKey;
use dayfly_agent::join::JoinString;
use dayfly_agent::svid::Side;
use dayfly_proto::v1::identity_service_server::IdentityService as _;
use dayfly_proto::v1::operator_service_server::OperatorService as _;
use futures_util::FutureExt as _;
use rustls_pki_types::CertificateDer;

use super::*;
use crate::api::identity::Identity;
use crate::core::event::{Actor, Event, Head, IdentityChange};
use crate::journal::decode;

const AGENT: &str = "spiffe://shop.test/agent/a";

impl World {
    fn identity(&self) -> Identity {
        Identity(self.broker.clone())
    }

    /// The one who was invited as [`AGENT`], half of their certificate's life later.
    async fn joined(&self) -> v1::Svid {
        let invite = v1::CreateJoinRequest { spiffe_id: AGENT.into() };
        let invited = self.operator().create_join(self.by("olga", invite)).await.unwrap();
        let svid = self.join(&invited.into_inner().join_string.parse().unwrap()).await.unwrap();
        self.forward(30 * 60 * 1_000);
        svid
    }

    async fn join(&self, string: &JoinString) -> Result<v1::Svid, Status> {
        let message = v1::JoinRequest {
            join_id: hex::encode(string.id),
            secret: string.secret.to_vec().into(),
            csr_der: NewKey::generate().unwrap().csr().to_vec().into(),
        };
        let joined = self.identity().join(Request::new(message)).await?;
        Ok(joined.into_inner().svid.unwrap())
    }

    /// Renews, with a new key, as the one who comes with `svid`.
    async fn renew(&self, svid: &v1::Svid) -> Result<v1::Svid, Status> {
        let chain = svid.chain_der.iter().map(|der| CertificateDer::from(der.to_vec()));
        let chain: Vec<_> = chain.collect();
        let bundle = self.broker.authority.bundle();
        let peer = bundle.check(&chain, Side::Client, self.clock.now()).unwrap();
        let csr_der = NewKey::generate().unwrap().csr().to_vec().into();
        let mut request = Request::new(v1::RenewRequest { csr_der, generation: svid.generation });
        request.extensions_mut().insert(peer);
        Ok(self.identity().renew(request).await?.into_inner().svid.unwrap())
    }

    /// What the record has of identities, and by whom.
    async fn identities(&self) -> Vec<(Actor, IdentityChange)> {
        let log = self.broker.store.read(&Head::ORIGIN, 99).await.unwrap();
        let entries = log.iter().map(|entry| decode(entry.head().seq, entry.bytes()).unwrap());
        let changes = entries.filter_map(|entry| {
            let Event::IdentityChanged { id, change } = entry.event else { return None };
            (id.as_str() == AGENT).then_some((entry.by, change))
        });
        changes.collect()
    }
}

#[tokio::test]
async fn a17_an_invitation_a_join_and_a_fork_are_on_record_and_a_renewal_is_not() {
    let world = World::new().await;
    let invite = v1::CreateJoinRequest { spiffe_id: AGENT.into() };
    let invited = world.operator().create_join(world.by("olga", invite)).await.unwrap();
    let text = invited.into_inner().join_string;
    let string: JoinString = text.parse().unwrap();
    let wrong = JoinString { secret: [7; 32].into(), ..text.parse().unwrap() };
    assert!(world.join(&wrong).await.is_err());
    let svid = world.join(&string).await.unwrap();
    assert!(world.join(&string).await.is_err(), "it was used");
    let (olga, id) = ("olga".parse().unwrap(), "spiffe://shop.test/person/olga".parse().unwrap());
    let olga = Actor::Person(olga, id);
    let broker = Actor::Broker(world.broker.id.clone());
    let joined = IdentityChange::Joined { generation: 1 };
    let mut told = vec![(olga, IdentityChange::Invited), (broker.clone(), joined)];
    assert_eq!(world.identities().await, told);
    world.forward(30 * 60 * 1_000);
    let renewed = world.renew(&svid).await.unwrap();
    assert_eq!(renewed.generation, 2);
    assert_eq!(world.identities().await, told);
    // The one who stole it renews too: from now on neither of them is served.
    assert!(world.renew(&svid).await.is_err());
    told.push((broker, IdentityChange::Locked));
    assert_eq!(world.identities().await, told);
    assert!(world.renew(&renewed).await.is_err());
    assert_eq!(world.identities().await, told, "once");
}

/// Set ahead for a moment, a clock must not have the authority forget what it needs to know.
#[tokio::test]
async fn with_the_clock_off_nobody_joins_or_renews_and_nothing_is_forgotten() {
    let world = World::new().await;
    let invite = v1::CreateJoinRequest { spiffe_id: AGENT.into() };
    let invited = world.operator().create_join(world.by("olga", invite)).await.unwrap();
    let string: JoinString = invited.into_inner().join_string.parse().unwrap();
    let svid = world.join(&string).await.unwrap();
    world.forward(30 * 60 * 1_000);
    let ahead = |ms: u64| world.clock.1.store(ms, Ordering::SeqCst);
    let is_off = async |off: bool| {
        while world.broker.sequencer.clock_is_off() != off {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    ahead(3 * 60 * 60 * 1_000);
    is_off(true).await;
    let refused = world.join(&string).await.unwrap_err();
    assert_eq!(reason(&refused), "CLOCK_OFF");
    let csr_der = NewKey::generate().unwrap().csr().to_vec().into();
    let message = v1::RenewRequest { csr_der, generation: svid.generation };
    let refused = world.identity().renew(world.from(&AGENT.parse().unwrap(), message)).await;
    assert_eq!(reason(&refused.unwrap_err()), "CLOCK_OFF");
    ahead(0);
    is_off(false).await;
    assert_eq!(world.renew(&svid).await.unwrap().generation, 2);
}

/// Whoever holds the stolen copy may hang up as soon as the fork is made.
#[tokio::test]
async fn a17_a_fork_is_on_record_however_early_its_call_is_cut() {
    let world = World::new().await;
    let svid = world.joined().await;
    world.renew(&svid).await.unwrap();
    let mut call = Box::pin(world.renew(&svid));
    assert!((&mut call).now_or_never().is_none());
    drop(call);
    for _ in 0..500 {
        if world.identities().await.iter().any(|(_, change)| *change == IdentityChange::Locked) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the lock is not on record");
}
