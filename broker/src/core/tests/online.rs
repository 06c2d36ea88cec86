//! Rights of which each use is evaluated: policy decides anew, about the state as it is.

use dayfly_verifier::id::TokenId;
use dayfly_verifier::request::Requirement;

use super::world::*;
use crate::core::command::{Command, Filing};
use crate::core::denial::Denial;
use crate::core::event::{Target, TaskOutcome};
use crate::core::verdict::{Outcome, Verdict};

/// An online grant with its token.
fn online() -> (World, Filing, dayfly_verifier::id::GrantId, TokenId) {
    let mut world = World::new();
    let filing = world.filing();
    let required = Requirement { online: true, ..requirement(&[]) };
    let grant = world.file("agent/a", &filing, &required).unwrap();
    let token = world.token(&filing);
    (world, filing, grant, token)
}

#[test]
fn a_use_is_allowed_by_policy_as_it_is_now_and_is_no_entry() {
    let (mut world, _, grant, token) = online();
    let same = world.same(&grant);
    let case = world.state.case(&grant).unwrap();
    assert!(case.grant().unwrap().token(&token).unwrap().minted.claims.online);
    let ask = |verdict: &Verdict| Command::Reevaluate(token, verdict.clone());
    assert_eq!(world.run("gateway/orders", ask(&same)), Ok(Vec::new()));
    let refused = Verdict { outcome: Outcome::Refused(refusal()), ..same.clone() };
    let drifted = Err(Denial::PolicyRefused(refusal()));
    assert_eq!(world.run("gateway/orders", ask(&refused)), drifted);
    // What it was granted on is less than policy demands now.
    let more = requirement(&[("dba", 1)]);
    let more = Verdict { outcome: Outcome::Permitted(more), ..same.clone() };
    assert!(matches!(world.run("gateway/orders", ask(&more)), Err(Denial::PolicyRefused(_))));
    // Something else is held since policy was asked.
    let other = world.filing();
    world.granted(&other);
    assert_eq!(world.run("gateway/orders", ask(&same)), Err(Denial::Reevaluate));
    assert_eq!(world.run("gateway/orders", ask(&world.same(&grant))), Ok(Vec::new()));
}

#[test]
fn a_use_is_evaluated_for_its_gateway_alone_and_while_token_and_grant_stand() {
    let (mut world, filing, grant, token) = online();
    let ask = |world: &World| Command::Reevaluate(token, world.same(&grant));
    let asked = |world: &mut World, who: &str| {
        let command = ask(world);
        world.run(who, command)
    };
    assert_eq!(asked(&mut world, "gateway/mail"), Err(Denial::NotFound));
    assert_eq!(asked(&mut world, "agent/a"), Err(Denial::NotAllowed));
    let mut revoked = world.clone();
    revoked.revoke(Target::Token(token)).unwrap();
    assert_eq!(asked(&mut revoked, "gateway/orders"), Err(Denial::Revoked));
    let mut completed = world.clone();
    let complete = Command::Complete(filing.id, holder(1), TaskOutcome::Succeeded);
    completed.run("agent/a", complete).unwrap();
    assert_eq!(asked(&mut completed, "gateway/orders"), Err(Denial::Completed));
    world.pass(secs(120));
    assert_eq!(asked(&mut world, "gateway/orders"), Err(Denial::Lapsed));
}

#[test]
fn a_token_that_is_not_online_is_not_evaluated() {
    let mut world = World::new();
    let filing = world.filing();
    let grant = world.granted(&filing);
    let token = world.token(&filing);
    let asked = Command::Reevaluate(token, world.same(&grant));
    let refused = world.run("gateway/orders", asked);
    assert!(matches!(refused, Err(Denial::Invalid(_))), "{refused:?}");
}
