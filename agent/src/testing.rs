//! What the tests of this crate need: an authority that makes any certificate, and a clock that is
//! moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dayfly_verifier::time::{Clock, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::svid::TrustBundle;
use crate::tls::{Identity, Live};

/// Now, in these tests.
pub(crate) const NOW: u64 = 1_800_000_000;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(crate) struct ByHand(AtomicU64);

impl ByHand {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(NOW)))
    }

    pub(crate) fn forward(&self, secs: u64) {
        self.0.fetch_add(secs, Ordering::SeqCst);
    }
}

impl Clock for ByHand {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.0.load(Ordering::SeqCst)).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct Ca {
    pub(crate) root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) type Leaf = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().into();
        let issuer = Issuer::from_ca_cert_der(&root, key).unwrap();
        Self { root, issuer }
    }

    /// A leaf that is in order, but for what `change` does to it.
    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        (self.sign(&key, change), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    pub(crate) fn sign(
        &self,
        key: &impl PublicKeyData,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri("spiffe://a.test/agent")];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        set_life(&mut params);
        change(&mut params);
        params.signed_by(key, &self.issuer).unwrap().into()
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new("a.test", vec![self.root.clone()]).unwrap()
    }

    pub(crate) fn identity(&self, id: &str) -> Identity {
        let (leaf, key) = self.leaf(|params| params.subject_alt_names = vec![uri(id)]);
        Identity::new(vec![leaf], &key, self.bundle()).unwrap()
    }

    pub(crate) fn live(&self, id: &str, clock: &Arc<ByHand>) -> Live {
        Live::new(self.identity(id), clock.clone())
    }
}

#[expect(clippy::arithmetic_side_effects, reason = "the time is known")]
fn set_life(params: &mut CertificateParams) {
    let first_day = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = first_day + Duration::from_secs(NOW - 60);
    params.not_after = first_day + Duration::from_secs(NOW + 3600);
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}
