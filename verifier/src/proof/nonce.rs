//! Nonces of this process: a proof that carries one cannot have been seen by another process, nor
//! by this one before it started (RFC 9449, section 9).

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// How long a nonce is accepted after it was given out.
const LIFE: Duration = Duration::from_secs(60);

/// A nonce as it stands in the header `DPoP-Nonce`. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Gives out nonces and knows its own again, without keeping any: a nonce is the time at which it
/// was given out (milliseconds of uptime, eight big-endian bytes), and the first 16 bytes of
/// SHA-256 over a secret of 32 bytes and that time.
pub struct Nonces {
    secret: Zeroizing<[u8; 32]>,
}

impl Nonces {
    /// With `secret` from the operating system, drawn anew at every start.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret: Zeroizing::new(secret) }
    }

    /// A nonce given out at `uptime`.
    #[must_use]
    pub fn give(&self, uptime: Duration) -> Nonce {
        let at = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
        let mut bytes = [0; 24];
        let parts = at.into_iter().chain(self.tag(at));
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Nonce(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Whether `text` is a nonce that this process gave out, not before `since` and not more than
    /// a minute ago.
    #[must_use]
    pub fn accepts(&self, text: &str, since: Duration, uptime: Duration) -> bool {
        let mut bytes = [0; 24];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(bytes.len()) {
            return false;
        }
        let Some((at, tag)) = bytes.split_first_chunk::<8>() else { return false };
        let given = Duration::from_millis(u64::from_be_bytes(*at));
        let known: bool = self.tag(*at).ct_eq(tag).into();
        known && given >= since && given <= uptime && uptime.saturating_sub(given) <= LIFE
    }

    fn tag(&self, at: [u8; 8]) -> [u8; 16] {
        let digest = Sha256::new().chain_update(self.secret.as_slice()).chain_update(at).finalize();
        let mut tag = [0; 16];
        tag.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn another_process_an_old_one_and_a_forged_one_are_refused() {
        let nonces = Nonces::new([1; 32]);
        let nonce = nonces.give(START).to_string();
        assert!(nonces.accepts(&nonce, START, START + secs(60)));
        assert!(!nonces.accepts(&nonce, START, START + secs(61)), "too old");
        assert!(!nonces.accepts(&nonce, START + secs(1), START + secs(1)), "given out before");
        assert!(!nonces.accepts(&nonce, secs(0), START - secs(1)), "of the future");
        assert!(!Nonces::new([2; 32]).accepts(&nonce, START, START), "of another process");
        for at in 0..nonce.len() {
            let mut forged = nonce.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert!(!nonces.accepts(&forged, secs(0), START), "{at}");
        }
        for bad in ["", "A", &nonce[1..], &format!("{nonce}A"), &format!("{nonce}=")] {
            assert!(!nonces.accepts(bad, secs(0), START), "{bad}");
        }
    }
}
