//! Erasing a free text, on the broker's host.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use dayfly_verifier::id::TextDigest;
use serde_json::json;

use super::Context;
use super::exit::{Exit, Refused};
use crate::journal::{JournalError, Sqlite, Texts as _};

/// Erase a free text for good, on the broker's host: a justification, a reason.
///
/// The record stays whole: it has the digest alone, from which without the salt, which goes with
/// the text, nothing can be guessed. Copies of the journal keep theirs. The broker may be running.
#[derive(Debug, Args)]
pub(super) struct Erase {
    /// The digest of the text, as `dayfly audit query --output json` shows it.
    #[arg(value_name = "DIGEST")]
    digest: TextDigest,
    /// The journal file of the broker on this host.
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
}

impl Erase {
    /// Runs the verb.
    pub(super) async fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { digest, journal } = self;
        if !journal.exists() {
            let error = anyhow!("there is no journal `{}`", journal.display());
            let next = "name the file journal.db in the directory of a broker";
            return Err(Refused::new(Exit::Config, error).next(next));
        }
        let store = Sqlite::open(&journal).map_err(refused)?;
        let erased = store.erase_text(&digest).await.map_err(refused)?;
        context.console.result(
            || match erased {
                true => format!("erased {digest}"),
                false => format!("no text {digest} is kept: it was erased before, or never was"),
            },
            || json!({ "digest": digest.to_string(), "erased": erased }),
        );
        Ok(())
    }
}

fn refused(error: JournalError) -> Refused {
    let next = "run it again: what is left of the text goes then";
    let exit = if error.is_fatal() { Exit::Failed } else { Exit::Unavailable };
    Refused::new(exit, error).next(next)
}
