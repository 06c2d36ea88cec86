//! The first SVID: a join string, handed over by an operator, is traded for it once.
//!
//! The secret in it goes to nobody but a broker whose trust bundle has the digest that the string
//! names: before that is checked, nothing is sent.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_proto::v1::identity_service_client::IdentityServiceClient;
use dayfly_proto::v1::{JoinRequest, JoinResponse};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Clock;
use tonic::Status;
use zeroize::Zeroizing;

use crate::identity::{IdentityDir, Keep, NewKey};
use crate::session::{OpenError, dial};
use crate::tls::{Identity, connect_pinned};

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is known when it does not.
const SILENT: &str = "the broker did not answer in time, and the join string may be used up; \
                      ask for another one";
/// What begins a join string.
const PREFIX: &str = "dayfly-join";

/// `dayfly-join.ID.SECRET.HASH`: good for one join within ten minutes.
pub struct JoinString {
    /// Names it; no secret.
    pub id: [u8; 16],
    /// Who knows it may join.
    pub secret: Zeroizing<[u8; 32]>,
    /// The digest of the trust bundle ([`crate::svid::TrustBundle::digest`]).
    pub bundle: [u8; 32],
}

impl JoinString {
    /// The text to hand over. It holds the secret.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let Self { id, secret, bundle } = self;
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(&secret[..]));
        let bundle = URL_SAFE_NO_PAD.encode(bundle);
        Zeroizing::new(format!("{PREFIX}.{}.{}.{bundle}", hex::encode(id), *secret))
    }
}

impl FromStr for JoinString {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("join_string", "must be `dayfly-join.ID.SECRET.HASH`");
        let mut parts = text.trim().split('.');
        let mut next = || parts.next().ok_or_else(refused);
        let (prefix, id, secret, bundle) = (next()?, next()?, next()?, next()?);
        if prefix != PREFIX || parts.next().is_some() {
            return Err(refused());
        }
        let mut read = Self { id: [0; 16], secret: Zeroizing::default(), bundle: [0; 32] };
        hex::decode_to_slice(id, &mut read.id).map_err(|_| refused())?;
        for (text, bytes) in [(secret, &mut *read.secret), (bundle, &mut read.bundle)] {
            let written = URL_SAFE_NO_PAD.decode_slice(text, bytes).map_err(|_| refused())?;
            if written != bytes.len() {
                return Err(refused());
            }
        }
        Ok(read)
    }
}

impl fmt::Debug for JoinString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinString({})", hex::encode(self.id))
    }
}

/// Trades `string` for an identity at the join address of a broker (`host:port`), and keeps it in
/// the directory `dir`, which must hold none, or one that has ended. Gives up after 10 s without an
/// answer; the string may be used up then.
pub async fn join(
    string: &JoinString,
    address: &str,
    dir: &Path,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Identity>, OpenError> {
    within(PATIENCE, string, address, dir, clock).await
}

async fn within(
    patience: Duration,
    string: &JoinString,
    address: &str,
    dir: &Path,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Identity>, OpenError> {
    let there = IdentityDir::open(dir).and_then(|dir| Ok((dir.load()?, dir)));
    let dir = match there {
        // What was asked for under it stays where it is.
        Ok((identity, dir)) if identity.until() <= clock.now() => dir,
        Ok(_) | Err(_) => IdentityDir::create(dir)?,
    };
    let key = NewKey::generate()?;
    let tls = connect_pinned(string.bundle, &clock)
        .map_err(|error| OpenError::Tls(address.to_owned(), error))?;
    let channel = dial(address, tls).await?;
    let request = JoinRequest {
        join_id: hex::encode(string.id),
        secret: string.secret.to_vec().into(),
        csr_der: key.csr().to_vec().into(),
    };
    let mut broker = IdentityServiceClient::new(channel);
    let answer = tokio::time::timeout(patience, broker.join(request)).await;
    let JoinResponse { svid, broker_address, peer_addresses } = answer
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(SILENT)))
        .map_err(OpenError::from_status)?
        .into_inner();
    let svid = svid.ok_or(OpenError::Answer("it holds no SVID"))?;
    if crate::identity::bundle_digest(&svid) != string.bundle {
        return Err(OpenError::Answer("its trust bundle is not the one that the string names"));
    }
    let addresses = std::iter::once(reachable(&broker_address, address)).chain(peer_addresses);
    let identity = dir.keep(&svid, &key, Keep::First { addresses: addresses.collect() })?;
    Ok(Arc::new(identity))
}

/// Where the broker is reached from here: a broker that listens on every address of its host
/// cannot know by which one; it is the one that was dialled.
fn reachable(told: &str, dialled: &str) -> String {
    let host = dialled.rsplit_once(':').map_or(dialled, |(host, _)| host);
    match told.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => format!("{host}:{}", address.port()),
        Ok(_) | Err(_) => told.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::body::Incoming;
    use tokio::net::TcpListener;
    use tonic::Code;

    use super::*;
    use crate::listen::{Terms, serve};
    use crate::svid::TrustBundle;
    use crate::testing::{ByHand, Ca};

    #[tokio::test]
    async fn a_broker_that_never_answers_is_not_waited_for_without_end() {
        let (ca, clock, home) = (Ca::new(), ByHand::new(), tempfile::tempdir().unwrap());
        let terms = Terms::anyone(&ca.live("spiffe://a.test/dayfly/broker", &clock), &["h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let silent = tower::service_fn(|_: http::Request<Incoming>| {
            std::future::pending::<Result<http::Response<Full<Bytes>>, Infallible>>()
        });
        tokio::spawn(serve(listener, terms.unwrap(), silent, std::future::pending()));
        let bundle = TrustBundle::digest(ca.bundle().roots());
        let string = JoinString { id: [1; 16], secret: [2; 32].into(), bundle };
        let dir = home.path().join("id");
        let joining = within(Duration::from_millis(200), &string, &address, &dir, clock);
        let joined = tokio::time::timeout(Duration::from_secs(20), joining).await.unwrap();
        let Err(OpenError::Status(status)) = joined else { panic!("{joined:?}") };
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("may be used up"), "{status}");
    }

    #[test]
    fn join_strings_are_read_as_they_are_written_and_in_no_other_form() {
        let string = JoinString { id: [1; 16], secret: [2; 32].into(), bundle: [3; 32] };
        let text = string.to_text();
        let read: JoinString = text.parse().unwrap();
        assert_eq!((read.id, *read.secret, read.bundle), ([1; 16], [2; 32], [3; 32]));
        let short = text.replacen("AgIC", "", 1);
        for bad in
            ["", "dayfly-join", &text[1..], &text[..text.len() - 1], &short, &format!("{}.", *text)]
        {
            assert!(bad.parse::<JoinString>().is_err(), "{bad}");
        }
        assert!(!format!("{string:?}").contains("AgIC"), "the secret is printed");
    }

    #[test]
    fn the_address_is_the_one_that_was_dialled_where_the_broker_cannot_know_it() {
        assert_eq!(reachable("0.0.0.0:7443", "broker.test:7444"), "broker.test:7443");
        assert_eq!(reachable("[::]:7443", "[::1]:7444"), "[::1]:7443");
        assert_eq!(reachable("broker.test:7443", "127.0.0.1:7444"), "broker.test:7443");
    }
}
