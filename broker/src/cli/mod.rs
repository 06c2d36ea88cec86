//! The command line: one verb, one thing done. One file a verb family.
//!
//! A verb parses its arguments into domain values, does its work through the agent library or
//! over gRPC, and says what came of it. It decides nothing that the broker decides.

pub mod console;
pub mod exit;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use console::{Console, Format};
use exit::{Exit, Refused};

/// Short-lived, narrow, revocable credentials for agents.
///
/// A workload asks for one right for one task; policy, and people where policy says so, approve
/// it with signatures of their own; the workload exchanges the approval for a token that is bound
/// to its key and to one gateway; and the moment the task ends, every gateway refuses it.
#[derive(Debug, Parser)]
#[command(name = "dayfly", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 2 usage, 10 pending, 11 denied, 12 expired, \
    13 revoked, 20 unavailable, 64 bad configuration.\nTry `dayfly demo` first.")]
struct Cli {
    /// The form of results: tables for people, or JSON for programs.
    #[arg(long, global = true, value_enum, default_value_t, env = "DAYFLY_OUTPUT")]
    output: Format,

    /// The directory with the identity to act as, as `dayfly join` wrote it.
    #[arg(long, global = true, value_name = "DIR", env = "DAYFLY_IDENTITY")]
    identity: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {}

/// What every verb is given.
#[derive(Debug)]
pub struct Context {
    /// Where to write.
    pub console: Console,
    /// The identity directory named on the command line or in the environment, if any.
    pub identity: Option<PathBuf>,
}

/// Runs the command that this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context { console: Console { format: cli.output }, identity: cli.identity };
    match run(cli.verb, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => {
            context.console.refused(&refused);
            refused.exit.into()
        }
    }
}

fn run(verb: Verb, _context: &Context) -> Result<(), Refused> {
    match verb {}
}

/// Runs a verb that waits for the network on a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Refused::new(Exit::Failed, error))?.block_on(work)
}
