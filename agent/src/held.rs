//! A token in the hands of its holder, who may take rights away from it and hand it on, without
//! asking anybody.

use dayfly_verifier::caveat::Caveat;
use dayfly_verifier::claims::Claims;
use dayfly_verifier::holder::{Confirmation, HolderKey};
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::wire::{self, Decoded, Token};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::errors::Error;
use crate::ticket::fill;

/// A token as it was given out, or handed on. Never printed.
#[derive(Clone)]
pub struct Held {
    /// The token.
    pub token: Token,
    /// What the broker wrote into it. Caveats, which are added later, take away from that.
    pub claims: Claims,
}

impl Held {
    /// Takes a token that somebody handed on, in its text form. Nobody has checked it: the gateway
    /// will.
    ///
    /// # Errors
    /// [`Error::CouldNotAsk`]: it is no token of this format.
    pub fn read(text: &str) -> Result<Self, Error> {
        let token = Token::read(text)?;
        let claims = Decoded::read(text)?.unverified().claims.clone();
        Ok(Self { token, claims })
    }

    /// From when on it is refused: what the broker wrote, or an earlier caveat.
    pub fn expires_at(&self) -> Result<Timestamp, Error> {
        Ok(self.decoded()?.unverified().ends_at())
    }

    /// What its use must prove: the key of whom it was handed to last, or what the broker wrote.
    pub fn holder(&self) -> Result<Confirmation, Error> {
        Ok(self.decoded()?.unverified().holder())
    }

    /// Whether more than a third of its life is left.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        let life = self.claims.expires_at.since(self.claims.issued_at);
        self.claims.expires_at.since(now).saturating_mul(3) > life
    }

    /// The same token, allowing no more than `caveats` let through. The holder stays the same.
    ///
    /// # Errors
    /// [`Error::Invalid`]: no caveat, one that has no place in a token, or a token that would be
    /// longer than 4 KiB or have more than 8 blocks.
    pub fn attenuate(&self, caveats: &[Caveat]) -> Result<Self, Error> {
        let token = wire::attenuate(&self.decoded()?, caveats, &fresh_secret()?)?;
        Ok(Self { token, claims: self.claims.clone() })
    }

    /// The token handed on to the key `to`, allowing no more than `caveats` let through. `from` is
    /// the key of the present holder. An operator can revoke the delegate by its key.
    ///
    /// # Errors
    /// [`Error::Invalid`]: `from` is not the holder's key, or the token was handed on three times
    /// before, or what [`Held::attenuate`] refuses, but for a lack of caveats.
    pub fn delegate(
        &self,
        from: &SigningKey,
        to: &HolderKey,
        caveats: &[Caveat],
    ) -> Result<Self, Error> {
        let token = wire::delegate(&self.decoded()?, from, to, caveats, &fresh_secret()?)?;
        Ok(Self { token, claims: self.claims.clone() })
    }

    fn decoded(&self) -> Result<Decoded, Error> {
        Ok(Decoded::read(self.token.expose())?)
    }
}

/// Who gets hold of it can take the block off again.
fn fresh_secret() -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut secret = Zeroizing::new([0; 32]);
    fill(secret.as_mut_slice())?;
    Ok(secret)
}
