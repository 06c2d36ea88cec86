//! Rights of which each use is asked about at the broker: counted ones are spent once, online ones
//! are judged by policy as it is at that moment.

use std::collections::BTreeMap;
use std::time::Duration;

use dayfly_verifier::id::UseId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use crate::parties::{Agent, Gateway, Use, approve, now, random, scope};
use crate::world::World;

const STALE: Duration = Duration::from_secs(20);

/// The shop, where each read of production is evaluated, and refused while the task holds more.
fn evaluated(name: &str, text: String) -> String {
    if name != "policy.cedar" {
        return text;
    }
    let text = text.replace("@id(\"read-orders\")", "@id(\"read-orders\")\n@online");
    let held = "@id(\"one-thing\")\n@reason(\"one thing at a time\")\nforbid (principal, action, \
                resource in Resource::\"orders/prod\")\nwhen { context.held.task >= 1 };\n";
    text + held
}

#[tokio::test]
async fn an_online_right_is_refused_as_soon_as_policy_would_not_grant_it() {
    let mut world = World::start_with("", evaluated);
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (_, held) = agent.reading(&world).await;
    let shown = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    shown.until(&gateway, 200).await;

    // Nothing is revoked, and the token is as good as it was: something else is held.
    let mut filing = agent.filing(scope("read orders/staging/o-1", None));
    filing.audience = format!("{}/gateway/orders-staging", crate::world::SHOP);
    let other = agent.file(filing).await.unwrap();
    let refused = shown.at(&gateway).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.body.contains("\"drifted\""), "{refused:?}");
    agent.complete(&other.request_id).await.unwrap();
    assert_eq!(shown.at(&gateway).await.status, 200);

    // A broker that stands still is not waited for without end, and its silence is no yes.
    let broker = Pid::from_child(world.process());
    kill_process(broker, Signal::STOP).unwrap();
    let refused = timeout(STALE / 2, shown.at(&gateway)).await.unwrap();
    kill_process(broker, Signal::CONT).unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("\"unanswered\""), "{refused:?}");
    shown.until(&gateway, 200).await;

    // The gateway is told to believe the feed for long; the broker must be asked all the same.
    world.kill();
    let refused = shown.at(&gateway).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("\"unanswered\""), "{refused:?}");
    world.serve();
    shown.until(&gateway, 200).await;
}

/// Each attempt is sent again under its use id, as clients do that heard nothing; broker and
/// gateway crash in between. However it goes, no use id passes twice and no more pass than there
/// are uses.
#[tokio::test]
async fn a_counted_right_is_spent_at_most_once_over_retries_and_crashes() {
    let mut world = World::start("");
    let mut gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let mut filing = agent.filing(scope("refund orders/prod/o-17", Some(20_000)));
    filing.uses = 3;
    let request = agent.file(filing).await.unwrap();
    for person in ["ana", "caro"] {
        approve(&world, person, &request.grant_id).await.unwrap();
    }
    let token = agent.exchange(&request.request_id).await.unwrap().token;
    let refund = Use { key: &agent.key, token: &token, order: "o-17", refund: Some(1) };
    // Out of scope, which a gateway only says once it follows the feed.
    let beyond = Use { order: "o-18", ..refund };
    beyond.until(&gateway, 403).await;
    let ids: Vec<UseId> = (0..4).map(|_| UseId::draw(now(), random())).collect();
    let mut passed = BTreeMap::new();
    for round in 0..4 {
        for id in &ids[..1 + round] {
            // Two at the same time, and one more after them.
            let (one, other) =
                tokio::join!(refund.under(&gateway, *id), refund.under(&gateway, *id));
            let later = refund.under(&gateway, *id).await;
            for got in [one, other, later] {
                assert!([200, 401, 403, 503].contains(&got.status), "{got:?}");
                let times: &mut u32 = passed.entry(*id).or_default();
                *times = times.saturating_add(u32::from(got.status == 200));
            }
        }
        match round {
            0 => world.kill(),
            1 => {
                world.serve();
                gateway = Gateway::start(&world, "gateway/orders", STALE).await;
                beyond.until(&gateway, 403).await;
            }
            _ => {}
        }
    }
    assert!(passed.values().all(|times| *times <= 1), "{passed:?}");
    assert_eq!(passed.values().sum::<u32>(), 3, "{passed:?}");
}
