//! What a start costs from a snapshot and the entries since, and what memory a live grant takes:
//! seen in a process of its own.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dayfly_broker::config::Config;
use dayfly_broker::core::event::{Actor, Entry, Event, Snapshot};
use dayfly_broker::core::state::{FOLD, State};
use dayfly_broker::found;
use dayfly_broker::journal::{JournalError, Snapshots as _, Sqlite, StoredEntry, snapshot};
use dayfly_broker::random::SystemRandom;
use dayfly_broker::serve::{Host, Opened};
use dayfly_broker::shutdown::Shutdown;
use dayfly_verifier::time::SystemClock;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;
use tokio::time::Instant;

use super::world::{Outcome, figure};

/// What the process below is started with, before the directory of the broker.
const RESTART: &str = "--restart";
/// How long the disk may take to fold back what was appended.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How much is read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Keeps a snapshot of `state`. Returns the entry that says so.
pub(crate) fn keep(store: &Sqlite, state: &mut State) -> Outcome<StoredEntry> {
    let (of, digest) = (state.head, snapshot::keep(store, state, &|| false)?);
    let event = Event::SnapshotTaken(Snapshot { of, fold: FOLD, digest });
    let entry = Entry { by: Actor::Host, at: state.time, policy: state.bundle, event };
    let stored = StoredEntry::after(&state.head, &entry)?;
    state.apply(*stored.head(), &entry)?;
    Ok(stored)
}

/// Starts a broker on what `config` names, with `live` grants, and prints the figures. The ratios
/// are to reading and hashing the snapshot, and to its size.
pub(crate) async fn measure(config: &Config, live: u32, name: &str) -> Outcome<()> {
    drop(opened(config)?);
    settled(config)?;
    let (bytes, bare) = bare(opened(config)?)?;
    let started = Command::new(std::env::current_exe()?).arg(RESTART).arg(&config.dir).output();
    let started = started.await?;
    let said = String::from_utf8_lossy(&started.stdout).into_owned();
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [seconds, memory, entries] = numbers[..] else {
        return Err(format!("no start: {started:?}").into());
    };
    println!("# started from {bytes} bytes and {entries} entries");
    figure(&format!("restart_at_{name}"), seconds * 1e3, "ms", seconds / bare.as_secs_f64());
    let (each, kept) = (memory / f64::from(live), bytes as f64 / f64::from(live));
    figure(&format!("live_grant_at_{name}"), each, "bytes", each / kept);
    Ok(())
}

/// Opens the journal, once whoever filled it has folded all of it back.
fn opened(config: &Config) -> Outcome<Sqlite> {
    let began = Instant::now();
    loop {
        match Sqlite::open(&config.journal()) {
            Err(JournalError::Unavailable(_)) if began.elapsed() < PATIENCE => {}
            opened => return Ok(opened?),
        }
    }
}

/// Puts all of the journal on the disk: what a start takes is not to be told together with what the
/// disk still does.
fn settled(config: &Config) -> Outcome<()> {
    for file in std::fs::read_dir(&config.dir)? {
        // What goes with the last connection may have gone.
        if let Ok(file) = std::fs::File::open(file?.path()) {
            file.sync_all()?;
        }
    }
    Ok(())
}

/// How long the snapshot is, and how long it takes to read and to hash it.
fn bare(store: Sqlite) -> Outcome<(u64, Duration)> {
    let last = store.snapshots()?.first().copied().ok_or("there is no snapshot")?;
    let began = Instant::now();
    let (mut content, mut hash) = (store.snapshot(last)?, Sha256::new());
    let (mut chunk, mut bytes) = (vec![0; CHUNK_BYTES], 0_u64);
    loop {
        let read = content.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hash.update(chunk.get(..read).unwrap_or_default());
        bytes = bytes.saturating_add(u64::try_from(read)?);
    }
    std::hint::black_box(hash.finalize());
    Ok((bytes, began.elapsed()))
}

/// Where this process is the one to be measured: starts the broker, and says how long it took, how
/// much memory it took, and how many entries were folded after the snapshot.
pub(crate) async fn child() -> Option<Outcome<()>> {
    let mut args = std::env::args().skip_while(|arg| arg != RESTART);
    let (_, dir) = (args.next()?, args.next()?);
    Some(start(Path::new(&dir)).await)
}

async fn start(dir: &Path) -> Outcome<()> {
    let config = Config::load(&dir.join(found::CONFIG), |_| None)?;
    let host = Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
    let (before, began) = (resident()?, Instant::now());
    let opened = Opened::open(&config, &host, Shutdown::new()).await?;
    let took = began.elapsed().as_secs_f64();
    let (memory, last) = (resident()?.saturating_sub(before), opened.head().seq.0);
    let store = Sqlite::open(&config.journal())?;
    let from = store.snapshots()?.first().map_or(0, |seq| seq.0);
    println!("{took} {memory} {}", last.saturating_sub(from));
    Ok(())
}

/// The memory that this process holds, in bytes.
fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()?.saturating_mul(1024))
}
