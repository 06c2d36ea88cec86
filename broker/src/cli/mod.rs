//! The command line: one verb, one thing done. One file a verb family.
//!
//! A verb parses its arguments into domain values, does its work through the agent library or
//! over gRPC, and says what came of it. It decides nothing that the broker decides.

pub mod approve;
pub mod audit;
mod audit_line;
mod case;
pub mod completion;
pub mod console;
pub mod demo;
pub mod dev;
mod erase;
pub mod exit;
pub mod history;
pub mod host;
pub mod keys;
pub mod lock;
pub mod manual;
mod number;
pub mod operate;
pub mod pending;
pub mod policy;
pub mod probe;
mod query;
pub mod request;
pub mod revoke;
mod shop;
pub mod status;
pub mod token;
mod watch;
mod when;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use dayfly_agent::identity::IdentityError;
use dayfly_agent::session::{OpenError, Session};
use dayfly_verifier::time::SystemClock;
use tonic::Code;

use console::{Console, Format};
use exit::{Exit, Refused};

/// Short-lived, narrow, revocable credentials for agents.
///
/// A workload asks for one right for one task; policy, and people where policy says so, approve
/// it with signatures of their own; the workload exchanges the approval for a token that is bound
/// to its key and to one gateway; and the moment the task ends, every gateway refuses it.
#[derive(Debug, Parser)]
#[command(name = "dayfly", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = format!("Exit codes: {}.\nTry `dayfly demo` first.", exit::CODES))]
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
enum Verb {
    Demo(demo::Demo),
    Dev(dev::Dev),
    Init(host::Init),
    Serve(host::Serve),
    Probe(probe::Probe),
    Invite(host::Invite),
    Join(host::Join),
    Request(Box<request::Request>),
    Wait(request::Wait),
    Exchange(request::Exchange),
    Complete(request::Complete),
    Cancel(request::Cancel),
    Pending(pending::Pending),
    Show(pending::Show),
    Approve(Box<approve::Approve>),
    Deny(approve::Deny),
    Withdraw(approve::Withdraw),
    Token(token::Token),
    Policy(policy::Policy),
    Grants(operate::Grants),
    Revoke(revoke::Revoke),
    Lock(lock::Lock),
    Unlock(lock::Unlock),
    Locks(lock::Locks),
    Keys(keys::Keys),
    Status(status::ShowStatus),
    Audit(audit::Audit),
    History(history::History),
    Completion(completion::Completion),
    Man(manual::Man),
}

/// What is not there and what is not for the caller are one answer.
const NOT_FOR_YOU: &str = "look at the id, and at who you are: what is not for your role is not \
                           shown to be there (--identity DIR acts as somebody else)";

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
    match run(cli.verb, &context).and_then(|()| context.console.complete()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => {
            context.console.refused(&refused);
            refused.exit.into()
        }
    }
}

fn run(verb: Verb, context: &Context) -> Result<(), Refused> {
    match verb {
        Verb::Demo(verb) => verb.run(context),
        Verb::Dev(verb) => verb.run(context),
        Verb::Init(verb) => verb.run(context),
        Verb::Serve(verb) => verb.run(context),
        Verb::Probe(verb) => verb.run(context),
        Verb::Invite(verb) => verb.run(context),
        Verb::Join(verb) => verb.run(context),
        Verb::Pending(verb) => verb.run(context),
        Verb::Show(verb) => verb.run(context),
        Verb::Approve(verb) => verb.run(context),
        Verb::Deny(verb) => verb.run(context),
        Verb::Withdraw(verb) => verb.run(context),
        Verb::Request(verb) => verb.run(context),
        Verb::Wait(verb) => verb.run(context),
        Verb::Exchange(verb) => verb.run(context),
        Verb::Complete(verb) => verb.run(context),
        Verb::Cancel(verb) => verb.run(context),
        Verb::Token(verb) => verb.run(context),
        Verb::Policy(verb) => verb.run(context),
        Verb::Grants(verb) => verb.run(context),
        Verb::Revoke(verb) => verb.run(context),
        Verb::Lock(verb) => verb.run(context),
        Verb::Unlock(verb) => verb.run(context),
        Verb::Locks(verb) => verb.run(context),
        Verb::Keys(verb) => verb.run(context),
        Verb::Status(verb) => verb.run(context),
        Verb::Audit(verb) => verb.run(context),
        Verb::History(verb) => verb.run(context),
        Verb::Completion(verb) => verb.run(context),
        Verb::Man(verb) => verb.run(context),
    }
}

impl Context {
    /// The identity directory: the one that was named, or the one of this user.
    pub fn identity_dir(&self) -> Result<PathBuf, Refused> {
        if let Some(dir) = &self.identity {
            return Ok(dir.clone());
        }
        let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
        let base = base.or_else(home).filter(|base| base.is_absolute()).ok_or_else(|| {
            let error = anyhow::anyhow!("there is no home directory to keep an identity in");
            Refused::new(Exit::Usage, error).next("name a directory with --identity")
        })?;
        Ok(base.join("dayfly").join("identity"))
    }

    /// Connects to the broker as the identity of this command.
    pub async fn session(&self) -> Result<Arc<Session>, Refused> {
        let dir = self.identity_dir()?;
        let opened = Session::open(&dir, Arc::new(SystemClock)).await;
        opened.map_err(|error| self.refused(error))
    }

    /// How a command ends whose connection or call failed. A call that the broker refused ends as
    /// [`OpenError::from_status`] has it.
    #[must_use]
    pub fn refused(&self, error: OpenError) -> Refused {
        let join = "ask an operator for `dayfly invite`, then `dayfly join STRING --broker ADDR`";
        match &error {
            OpenError::Identity(identity) => {
                let next = match &**identity {
                    IdentityError::Missing(_) => Some(join.to_owned()),
                    IdentityError::Taken(dir) => {
                        let svid = dir.join("svid.pem");
                        let remove = format!("to join anew, remove `{}`", svid.display());
                        Some(format!("name another one with --identity; {remove}"))
                    }
                    IdentityError::File(_)
                    | IdentityError::Invalid { .. }
                    | IdentityError::Key(_) => None,
                };
                let refused = Refused::new(Exit::Config, error);
                match next {
                    Some(next) => refused.next(next),
                    None => refused,
                }
            }
            OpenError::Ended(..) | OpenError::Refused(..) => {
                Refused::new(Exit::Config, error).next(join)
            }
            OpenError::Unreachable(..)
            | OpenError::NotOurBroker(..)
            | OpenError::Tls(..)
            | OpenError::Answer(_) => Refused::new(Exit::Unavailable, error),
            OpenError::Status(status) => {
                let exit = match status.code() {
                    Code::InvalidArgument => Exit::Usage,
                    Code::NotFound | Code::PermissionDenied | Code::Unauthenticated => {
                        return Refused::new(Exit::Denied, error).next(NOT_FOR_YOU);
                    }
                    Code::Ok
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::AlreadyExists
                    | Code::ResourceExhausted
                    | Code::FailedPrecondition
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss => Exit::Unavailable,
                };
                Refused::new(exit, error)
            }
        }
    }
}

/// Runs a verb that waits for the network on a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Refused::new(Exit::Failed, error))?.block_on(work)
}
