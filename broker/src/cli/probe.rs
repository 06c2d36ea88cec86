//! Asks the broker on this host how it is, for supervisors that have no client of their own: over
//! its plain HTTP listener, without an identity.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use dayfly_verifier::time::{Clock as _, SystemClock};
use serde_json::json;

use super::Context;
use super::exit::{Exit, Refused};
use super::host::load;
use super::request::span;
use crate::config::DEFAULT_PATH;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to rest between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 4096;

/// Ask the broker on this host whether it takes calls, for health checks and supervisors.
///
/// Exits 0 if it does, and 20 if it does not, or does not answer within 2 s.
#[derive(Debug, Args)]
pub struct Probe {
    /// The configuration of the broker, which says where it answers.
    #[arg(long, value_name = "FILE", env = "DAYFLY_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Ask again and again, for this long at most, until it does.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    wait: Option<Duration>,
    /// Ask no more than whether the process runs.
    #[arg(long)]
    alive: bool,
}

impl Probe {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { config, wait, alive } = self;
        let address = load(&config)?.listen.http;
        let path = if alive { "/healthz" } else { "/readyz" };
        let until = SystemClock.uptime().saturating_add(wait.unwrap_or_default());
        let said = loop {
            match ask(address, path) {
                Ok(said) => break said,
                Err(_) if SystemClock.uptime() < until => std::thread::sleep(PAUSE),
                Err(error) => {
                    let error = error.context(format!("the broker at `{address}` is not well"));
                    return Err(Refused::new(Exit::Unavailable, error));
                }
            }
        };
        context.console.result(|| said.clone(), || json!({ "says": said }));
        Ok(())
    }
}

/// What the broker says at `path`, if it is well.
fn ask(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let host = "host: localhost\r\nconnection: close";
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{host}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).context("its answer is cut off")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("its answer is not HTTP")?;
    let said = body.trim().escape_debug().to_string();
    match head.split(' ').nth(1) {
        Some("200") => Ok(said),
        Some(_) | None => Err(anyhow!("it says `{said}`")),
    }
}
