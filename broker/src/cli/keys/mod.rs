//! The keys that sign tokens and the feed: what there is, one more, one less, one taken back.

mod end;
mod list;
mod rotate;
mod sign;

use clap::{Args, Subcommand};
use dayfly_verifier::invalid::Invalid;

pub(super) use self::rotate::rotate;
use super::Context;
use super::exit::{Exit, Refused};
use crate::found::FoundError;
use crate::signer::SignerError;

/// See, rotate, retire and kill the keys that sign tokens, and rotate the one that signs the feed.
///
/// A key is made on the broker's host and listed by the trust root. The broker reads both without a
/// restart, and signs with the new key once every gateway has acknowledged the statement.
#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(list::List),
    Rotate(rotate::Rotate),
    Sign(sign::Sign),
    Retire(end::Retire),
    Kill(end::Kill),
}

impl Keys {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        match self.verb {
            Verb::List(verb) => verb.run(context),
            Verb::Rotate(verb) => verb.run(context),
            Verb::Sign(verb) => verb.run(context),
            Verb::Retire(verb) => verb.run(context),
            Verb::Kill(verb) => verb.run(context),
        }
    }
}

/// Key files and statements that are refused are bad configuration.
fn refused(error: impl Into<KeysError>) -> Refused {
    Refused::new(Exit::Config, error.into())
}

/// What is wrong with a key, a statement, or where they lie.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error(transparent)]
    Found(#[from] FoundError),
    #[error(transparent)]
    Key(#[from] crate::keys::KeyError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    File(#[from] dayfly_agent::files::FileError),
}
