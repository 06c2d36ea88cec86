//! A broker that starts from its snapshot, and one whose snapshot was changed.

use std::path::PathBuf;
use std::time::Duration;

use dayfly_proto::v1;

use crate::parties::Agent;
use crate::world::World;

/// The one snapshot that is kept, once the running broker has said so.
async fn kept(world: &World) -> PathBuf {
    let said = async {
        while !world.log().contains("kept a snapshot") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), said).await.unwrap();
    let files = std::fs::read_dir(world.path("broker")).unwrap().map(|file| file.unwrap().path());
    let mut snapshots = files.filter(|path| path.to_string_lossy().contains("-snapshot-"));
    let snapshot = snapshots.next().unwrap();
    assert_eq!(snapshots.next(), None);
    snapshot
}

/// What was granted before the broker started is there, and has the token that it had.
async fn goes_on(
    world: &World,
    agent: &Agent,
    request: &v1::AccessRequest,
    held: &v1::ExchangeResponse,
) {
    let agent = Agent { session: world.session("agent/refunds").await, ..agent.clone() };
    let again = agent.exchange(&request.request_id).await.unwrap();
    assert!(again.token == held.token, "another token");
}

#[tokio::test]
async fn a_broker_starts_from_its_snapshot_or_else_from_all_entries() {
    let mut world = World::start("\n[journal]\nsnapshot_every = 100");
    assert!(world.log().contains("started from all entries"), "{}", world.log());
    let agent = Agent::new(&world, "agent/refunds").await;
    let (request, held) = agent.reading(&world).await;
    for _ in 0..25 {
        let (done, _) = agent.small_refund().await;
        agent.complete(&done.request_id).await.unwrap();
    }
    let snapshot = kept(&world).await;

    world.kill();
    world.serve();
    assert!(world.log().contains("started from a snapshot"), "{}", world.log());
    goes_on(&world, &agent, &request, &held).await;

    world.kill();
    let mut content = std::fs::read(&snapshot).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&snapshot, content).unwrap();
    world.serve();
    let said = world.log();
    assert!(said.contains("a snapshot is not used"), "{said}");
    assert!(said.contains("started from all entries"), "{said}");
    goes_on(&world, &agent, &request, &held).await;
    // The changed one is replaced.
    assert_ne!(kept(&world).await, snapshot);
    world.kill();
    world.serve();
    assert!(world.log().contains("started from a snapshot"), "{}", world.log());
}
