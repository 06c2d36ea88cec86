//! What the authority must not do, over both stores.

use std::sync::atomic::{AtomicBool, Ordering};

use dayfly_agent::svid::{Side, SvidError};
use dayfly_verifier::time::{Clock as _, SystemClock};
use tokio::sync::Notify;

use super::*;
use crate::journal::{Memory, Sqlite};
use crate::random::SystemRandom;

const AGENT: &str = "spiffe://shop.test/agent";

struct Founded {
    dir: tempfile::TempDir,
    authority: Arc<Authority>,
    now: Timestamp,
}

async fn founded(joins: impl FnOnce(&Path) -> Arc<dyn Joins>) -> Founded {
    let (dir, now) = (tempfile::tempdir().unwrap(), SystemClock.now());
    Authority::found("shop.test", dir.path(), now).unwrap();
    let (joins, random) = (joins(dir.path()), Arc::new(SystemRandom));
    let authority = Authority::open("shop.test", dir.path(), joins, random).await.unwrap();
    Founded { dir, authority: Arc::new(authority), now }
}

/// One of each store that an authority can remember in.
async fn both() -> [Founded; 2] {
    [
        founded(|_| Arc::new(Memory::default())).await,
        founded(|dir| Arc::new(Sqlite::create(&dir.join("journal.db")).unwrap())).await,
    ]
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

impl Founded {
    async fn joined(&self, as_id: &str) -> Peer {
        let (string, _) = self.authority.invite(&id(as_id), self.now).await.unwrap();
        let key = NewKey::generate().unwrap();
        let svid = self.authority.join(&string.id, &string.secret[..], key.csr(), self.now).await;
        self.peer(&svid.unwrap())
    }

    /// The one who comes with this SVID, as the other end of a connection sees them.
    fn peer(&self, svid: &Svid) -> Peer {
        let chain = [svid.certificate.clone()];
        let soon = self.now.plus(Duration::from_secs(1800));
        self.authority.bundle().check(&chain, Side::Client, soon).unwrap()
    }

    /// Renews when it is due.
    async fn renew(&self, peer: &Peer, generation: u64, key: &NewKey) -> Result<Svid, String> {
        let due = self.now.plus(Duration::from_secs(1800));
        let renewed = self.authority.renew(peer, generation, key.csr(), due).await;
        renewed.map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn a15_of_32_parallel_joins_with_one_string_one_wins() {
    for founded in both().await {
        let (string, _) = founded.authority.invite(&id(AGENT), founded.now).await.unwrap();
        let tries = (0..32).map(|_| {
            let (authority, now) = (founded.authority.clone(), founded.now);
            let (join_id, secret) = (string.id, string.secret.clone());
            tokio::spawn(async move {
                let key = NewKey::generate().unwrap();
                authority.join(&join_id, &secret[..], key.csr(), now).await
            })
        });
        let mut won = 0;
        for tried in tries.collect::<Vec<_>>() {
            match tried.await.unwrap() {
                Ok(svid) => won += usize::from(svid.id == id(AGENT)),
                Err(error) => assert!(matches!(error, AuthorityError::NotInvited), "{error}"),
            }
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn a_join_string_is_good_with_its_own_secret_in_its_own_time_only() {
    for founded in both().await {
        let Founded { authority, now, .. } = &founded;
        let (string, until) = authority.invite(&id(AGENT), *now).await.unwrap();
        let key = NewKey::generate().unwrap();
        let mut wrong = string.secret.clone();
        wrong[31] ^= 1;
        let join = async |secret: &[u8], at| {
            authority.join(&string.id, secret, key.csr(), at).await.map(drop)
        };
        let refused = |joined| matches!(joined, Err(AuthorityError::NotInvited));
        assert!(refused(join(&wrong[..], *now).await));
        assert!(refused(join(&string.secret[..31], *now).await));
        assert!(refused(join(&[], *now).await));
        assert!(refused(join(&string.secret[..], until).await), "it has expired");
        assert!(join(&string.secret[..], *now).await.is_ok(), "a wrong try does not spend it");
        assert!(refused(join(&string.secret[..], *now).await), "it was used");
        let ten_minutes = now.plus(Duration::from_secs(600));
        assert_eq!(until, ten_minutes);
    }
}

#[tokio::test]
async fn nobody_is_invited_as_a_broker_or_into_another_trust_domain() {
    let founded = founded(|_| Arc::new(Memory::default())).await;
    for bad in [
        "spiffe://shop.test/dayfly/broker",
        "spiffe://shop.test/dayfly/broker/2",
        "spiffe://other.test/agent",
        "spiffe://shop.test.evil/agent",
    ] {
        let invited = founded.authority.invite(&id(bad), founded.now).await;
        assert!(matches!(invited, Err(AuthorityError::Invalid(_))), "{bad}");
    }
}

#[tokio::test]
async fn names_and_extensions_of_a_request_are_ignored() {
    let founded = founded(|_| Arc::new(Memory::default())).await;
    let (string, _) = founded.authority.invite(&id(AGENT), founded.now).await.unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(vec!["broker.shop.test".to_owned()]).unwrap();
    let admin = SanType::URI("spiffe://shop.test/dayfly/broker".try_into().unwrap());
    params.subject_alt_names.push(admin);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let csr = params.serialize_request(&key).unwrap();
    let joined =
        founded.authority.join(&string.id, &string.secret[..], csr.der(), founded.now).await;
    let svid = joined.unwrap();
    let peer = founded.peer(&svid);
    assert_eq!(peer.id, id(AGENT));
    assert_eq!(peer.until, founded.now.plus(SVID_LIFE).floor_to_second());
    let text = String::from_utf8_lossy(&svid.certificate).into_owned();
    assert!(!text.contains("broker"), "a name of the request is in the certificate");
}

#[tokio::test]
async fn requests_without_possession_of_a_good_key_are_refused() {
    let founded = founded(|_| Arc::new(Memory::default())).await;
    let (string, _) = founded.authority.invite(&id(AGENT), founded.now).await.unwrap();
    let join = async |csr: &[u8]| {
        let joined = founded.authority.join(&string.id, &string.secret[..], csr, founded.now);
        joined.await.map(drop).map_err(|error| error.to_string())
    };
    let good = NewKey::generate().unwrap();
    for at in [good.csr().len() / 3, good.csr().len() - 1] {
        let mut changed = good.csr().to_vec();
        changed[at] ^= 1;
        assert!(join(&changed).await.unwrap_err().contains("csr_der"), "byte {at}");
    }
    assert!(join(&[]).await.unwrap_err().contains("csr_der"));
    assert!(join(&vec![0x30; 5000]).await.unwrap_err().contains("4096"));
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let csr = CertificateParams::default().serialize_request(&p384).unwrap();
    assert!(join(csr.der()).await.unwrap_err().contains("Ed25519 or a P-256"));
    let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = CertificateParams::default().serialize_request(&p256).unwrap();
    assert_eq!(join(csr.der()).await, Ok(()));
}

#[tokio::test]
async fn a17_two_renewals_of_one_certificate_lock_the_id() {
    for founded in both().await {
        let (owner, thief) = (NewKey::generate().unwrap(), NewKey::generate().unwrap());
        let first = founded.joined(AGENT).await;
        let second = founded.renew(&first, 1, &owner).await.unwrap();
        assert_eq!(second.generation, 2);
        assert_eq!(founded.authority.admits(&first), Ok(()));
        let forked = founded.renew(&first, 1, &thief).await.unwrap_err();
        assert!(forked.contains("locked"), "{forked}");
        let second = founded.peer(&second);
        for peer in [&first, &second] {
            assert_eq!(founded.authority.admits(peer), Err(Barred::Locked));
        }
        // Now neither of the two goes on.
        let next = NewKey::generate().unwrap();
        assert!(founded.renew(&second, 2, &next).await.unwrap_err().contains("locked"));
        assert!(founded.renew(&first, 1, &owner).await.unwrap_err().contains("locked"));
        // Whoever is invited anew starts afresh; what was before stays useless.
        let anew = founded.joined(AGENT).await;
        assert_eq!(founded.authority.admits(&anew), Ok(()));
        for peer in [&first, &second] {
            assert_eq!(founded.authority.admits(peer), Err(Barred::Outdated));
        }
        assert!(founded.renew(&second, 2, &next).await.is_err());
        assert!(founded.renew(&first, 1, &owner).await.is_err());
        let renewed = founded.renew(&anew, 3, &next).await.unwrap();
        assert_eq!(founded.authority.admits(&founded.peer(&renewed)), Ok(()));
    }
}

/// A store whose next answer about locks, once it is armed, is on its way until it is let go.
#[derive(Default)]
struct Late {
    memory: Memory,
    armed: AtomicBool,
    read: Notify,
    let_go: Notify,
}

#[async_trait::async_trait]
impl Joins for Late {
    async fn invite(&self, invitation: &Invitation, now: Timestamp) -> Result<(), JournalError> {
        self.memory.invite(invitation, now).await
    }

    async fn join(
        &self,
        id: &[u8; 16],
        secret_hash: &[u8; 32],
        key_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<(SpiffeId, u64)>, JournalError> {
        self.memory.join(id, secret_hash, key_hash, now).await
    }

    async fn renew(&self, renew: &Renew, now: Timestamp) -> Result<Renewal, JournalError> {
        self.memory.renew(renew, now).await
    }

    async fn floors(&self) -> Result<BTreeMap<SpiffeId, Floor>, JournalError> {
        let floors = self.memory.floors().await;
        if self.armed.swap(false, Ordering::SeqCst) {
            self.read.notify_one();
            self.let_go.notified().await;
        }
        floors
    }
}

#[tokio::test]
async fn a17_what_was_read_of_locks_earlier_takes_no_lock_back() {
    let late = Arc::<Late>::default();
    let founded = Arc::new(founded(|_| late.clone()).await);
    let first = founded.joined(AGENT).await;
    founded.renew(&first, 1, &NewKey::generate().unwrap()).await.unwrap();
    late.armed.store(true, Ordering::SeqCst);
    let authority = founded.authority.clone();
    let early = tokio::spawn(async move { authority.refresh().await });
    late.read.notified().await;
    // Meanwhile a lock shows.
    let (seen, peer) = (founded.clone(), first.clone());
    let forked =
        tokio::spawn(async move { seen.renew(&peer, 1, &NewKey::generate().unwrap()).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    late.let_go.notify_one();
    assert!(forked.await.unwrap().unwrap_err().contains("locked"));
    early.await.unwrap().unwrap();
    assert_eq!(founded.authority.admits(&first), Err(Barred::Locked));
}

#[tokio::test]
async fn a17_what_is_said_of_locks_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    drop(Sqlite::create(&path).unwrap());
    let founded = founded(|_| Arc::new(Sqlite::open(&path).unwrap())).await;
    let first = founded.joined(AGENT).await;
    let keys = [0, 1].map(|_| NewKey::generate().unwrap());
    founded.renew(&first, 1, &keys[0]).await.unwrap();
    founded.renew(&first, 1, &keys[1]).await.unwrap_err();
    let again = async || {
        let (store, random) = (Arc::new(Sqlite::open(&path).unwrap()), Arc::new(SystemRandom));
        Authority::open("shop.test", founded.dir.path(), store, random).await.unwrap()
    };
    assert_eq!(again().await.admits(&first), Err(Barred::Locked));
    let anew = founded.joined(AGENT).await;
    assert_eq!(again().await.admits(&first), Err(Barred::Outdated));
    assert_eq!(again().await.admits(&anew), Ok(()));
}

#[tokio::test]
async fn a17_a_renewal_is_asked_for_in_time_and_answered_once() {
    for founded in both().await {
        let first = founded.joined(AGENT).await;
        let (key, at) =
            (NewKey::generate().unwrap(), |secs| founded.now.plus(Duration::from_secs(secs)));
        let renew =
            async |key: &NewKey, now| founded.authority.renew(&first, 1, key.csr(), now).await;
        // A certificate begins a minute before its issue and lives 61 minutes.
        let from = first.from.plus(Duration::from_secs(61 * 60 / 4));
        let early = renew(&key, from.minus(Duration::from_millis(1))).await.unwrap_err();
        assert!(matches!(early, AuthorityError::TooEarly(due) if due == from), "{early}");
        let second = renew(&key, from).await.unwrap();
        // Whenever it is asked for again, even by a clock that was set back, it is the same one:
        // nobody gets more time by asking often.
        for now in [at(0), at(1800), at(3599)] {
            let again = renew(&key, now).await.unwrap();
            assert_eq!(again.certificate, second.certificate);
            assert_eq!((again.generation, again.until), (2, second.until));
        }
        let early = founded.authority.renew(&founded.peer(&second), 2, key.csr(), at(1800)).await;
        assert!(early.is_err(), "the next one is not due either");
    }
}

#[tokio::test]
async fn a17_a_renewal_with_another_certificate_or_generation_is_refused() {
    for founded in both().await {
        let (first, other) = (founded.joined(AGENT).await, founded.joined(AGENT).await);
        let next = NewKey::generate().unwrap();
        assert!(founded.renew(&first, 2, &next).await.is_err(), "another one's generation");
        assert!(founded.renew(&first, 3, &next).await.is_err(), "one that is to come");
        assert!(founded.renew(&first, 0, &next).await.is_err());
        assert!(founded.renew(&first, u64::MAX, &next).await.is_err());
        assert_eq!(founded.authority.admits(&first), Ok(()), "a mistake locks nobody");
        // Two processes that joined as one ID both go on.
        assert!(founded.renew(&first, 1, &next).await.is_ok());
        assert!(founded.renew(&other, 2, &NewKey::generate().unwrap()).await.is_ok());
        // The key of a certificate is not good for the next.
        let stranger = Peer { id: id("spiffe://shop.test/stranger"), ..first.clone() };
        assert!(founded.renew(&stranger, 1, &next).await.is_err());
    }
}

#[tokio::test]
async fn a_renewal_needs_a_new_key() {
    let founded = founded(|_| Arc::new(Memory::default())).await;
    let (string, _) = founded.authority.invite(&id(AGENT), founded.now).await.unwrap();
    let key = NewKey::generate().unwrap();
    let svid = founded.authority.join(&string.id, &string.secret[..], key.csr(), founded.now);
    let peer = founded.peer(&svid.await.unwrap());
    assert!(founded.renew(&peer, 1, &key).await.unwrap_err().contains("a new key"));
}

#[tokio::test]
async fn an_svid_lives_an_hour_and_says_its_generation() {
    let founded = founded(|_| Arc::new(Memory::default())).await;
    let (string, _) = founded.authority.invite(&id(AGENT), founded.now).await.unwrap();
    let key = NewKey::generate().unwrap();
    let svid = founded.authority.join(&string.id, &string.secret[..], key.csr(), founded.now);
    let svid = svid.await.unwrap();
    let at = |secs| {
        let at = founded.now.plus(Duration::from_secs(secs));
        founded.authority.bundle().check(std::slice::from_ref(&svid.certificate), Side::Client, at)
    };
    assert!(at(3598).is_ok());
    assert_eq!(at(3601), Err(SvidError::Expired));
    let private = PrivateKeyDer::from_pem_slice(key.pem().as_bytes()).unwrap();
    let bundle = founded.authority.bundle().clone();
    let identity = Identity::new(vec![svid.certificate.clone()], &private, bundle).unwrap();
    assert_eq!(identity.as_peer().generation, 1);
}

#[tokio::test]
async fn a41_the_key_of_the_authority_must_be_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    Authority::found("shop.test", dir.path(), SystemClock.now()).unwrap();
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(dir.path().join(KEY_FILE), mode).unwrap();
    let (joins, random) = (Arc::new(Memory::default()), Arc::new(SystemRandom));
    let opened = Authority::open("shop.test", dir.path(), joins, random).await;
    assert!(matches!(opened, Err(AuthorityError::File(_))));
}
