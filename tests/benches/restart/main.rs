//! To start with up to a million live grants; and to decide, and to exchange, beside them.
//!
//! `cargo bench -p dayfly-tests --bench restart`, with the most live grants behind `--` if not a
//! million, and how often to decide and to exchange if not a thousand times.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod crowd;
mod start;
#[path = "../exchange/world.rs"]
mod world;

use dayfly_broker::journal::Sqlite;
use dayfly_tests::sizes::sizes;

use world::Outcome;

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match start::child().await {
            Some(measured) => measured,
            None => measure().await,
        }
    })
}

async fn measure() -> Outcome<()> {
    let [live, rounds] = sizes([1_000_000, 1_000], [1_000, 8]);
    println!("# sqlite {}", Sqlite::SETTINGS);
    println!("# tls 1.3, {rounds} calls, one at a time");
    let dir = std::env::temp_dir().join(format!("dayfly-bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let measured = crowd::measure(&dir, u32::try_from(live)?, u32::try_from(rounds)?).await;
    std::fs::remove_dir_all(&dir)?;
    measured
}
