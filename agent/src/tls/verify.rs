//! Whose certificate is accepted in a handshake, as the TLS library asks for it.

use std::sync::Arc;
use std::time::Duration;

use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Admission, Live};
use crate::svid::{Peer, Side, SvidError, TrustBundle, read_leaf};

/// Checks the other end of a connection.
#[derive(Debug)]
pub(super) struct Verify(pub(super) Trust);

/// Who is accepted.
#[derive(Debug)]
pub(super) enum Trust {
    /// Everybody whom the present trust bundle vouches for and who is admitted: what they may do
    /// is decided for each call.
    Domain(Live, Admission),
    /// These IDs, byte for byte, if the present trust bundle vouches for them.
    Exactly(Live, Vec<SpiffeId>),
    /// A broker, by roots that are sent along and have this digest.
    Pinned([u8; 32]),
}

impl Verify {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<(), Error> {
        let now = Timestamp::default().plus(Duration::from_secs(now.as_secs()));
        let checked = |live: &Live| -> Result<Peer, Error> {
            let chain: Vec<_> = std::iter::once(leaf).chain(others).cloned().collect();
            live.get().bundle().check(&chain, side, now).map_err(refusal)
        };
        let accepted = match &self.0 {
            Trust::Domain(live, admission) => {
                if !admission.admits(&checked(live)?) {
                    return Err(CertificateError::Revoked.into());
                }
                true
            }
            Trust::Exactly(live, ids) => ids.contains(&checked(live)?.id),
            Trust::Pinned(digest) => {
                if TrustBundle::digest(others) != *digest {
                    return Err(CertificateError::UnknownIssuer.into());
                }
                let id = read_leaf(leaf).map_err(refusal)?.id;
                let roots = others.iter().map(|root| root.clone().into_owned()).collect();
                let bundle = TrustBundle::new(id.trust_domain(), roots)
                    .map_err(|_| Error::from(CertificateError::UnknownIssuer))?;
                let checked = bundle.check(std::slice::from_ref(leaf), side, now);
                checked.map_err(refusal)?.id.is_broker()
            }
        };
        if accepted { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
    }
}

/// The alert tells the other end what kind of refusal it is; the log learns the reason.
fn refusal(error: SvidError) -> Error {
    match error {
        SvidError::Malformed | SvidError::ChainTooLong => CertificateError::BadEncoding.into(),
        SvidError::Expired => CertificateError::Expired.into(),
        SvidError::TrustDomain
        | SvidError::Path(
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey,
        ) => CertificateError::UnknownIssuer.into(),
        SvidError::UriNames(_)
        | SvidError::Id(_)
        | SvidError::Authority
        | SvidError::KeyUsage
        | SvidError::Path(_) => CertificateError::Other(OtherError(Arc::new(error))).into(),
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

/// How signatures of a handshake are checked, the same way from both sides.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(message, leaf, signature, &algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}

impl ClientCertVerifier for Verify {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, others, Side::Client, now).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for Verify {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, others, Side::Server, now).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}
