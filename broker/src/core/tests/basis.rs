//! Verdicts are about one state and about one thing: what is filed, or what is given.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use dayfly_verifier::id::BundleDigest;
use dayfly_verifier::request::Narrowing;

use super::world::*;
use crate::core::case::Standing;
use crate::core::command::{Application, Command, Filing, Foreseen};
use crate::core::denial::Denial;
use crate::core::event::Answer;
use crate::core::verdict::{Outcome, Verdict};

fn permitted(required: &dayfly_verifier::request::Requirement) -> Outcome {
    Outcome::Permitted(required.clone())
}

/// What is held has changed since policy was asked, or policy was asked about something else.
#[test]
fn a_bundle_is_not_applied_on_verdicts_about_another_state() {
    let mut world = World::new();
    let filing = world.filing();
    let live = world.granted(&filing);
    let (_, pending) = world.pending(&[("dba", 1)]);
    let application = Application {
        bundle: BundleDigest::new([2; 32]),
        directory: directory(),
        signers: BTreeSet::new(),
        replaces: world.state.bundle,
        verdicts: world.verdicts(2, permitted),
    };
    let with = |change: &dyn Fn(&mut Application)| {
        let mut application = application.clone();
        change(&mut application);
        Command::Apply(application)
    };
    let stale = Err(Denial::Reevaluate);
    for grant in [live, pending] {
        let changes: [&dyn Fn(&mut Verdict); 5] = [
            &|verdict| verdict.basis.holdings.workload += 1,
            &|verdict| verdict.basis.holdings.owner += 1,
            &|verdict| verdict.basis.environment += 1,
            &|verdict| verdict.basis.bundle = BundleDigest::new([1; 32]),
            &|verdict| verdict.basis.granted = !verdict.basis.granted,
        ];
        for (n, change) in changes.iter().enumerate() {
            let changed = with(&|all| change(all.verdicts.get_mut(&grant).unwrap()));
            assert_eq!(world.clone().run("person/ops", changed), stale, "{n}");
        }
        let silent = with(&|all| drop(all.verdicts.remove(&grant)));
        assert_eq!(world.clone().run("person/ops", silent), stale);
    }
    // One more is granted in between: what was said of the others is about another state.
    let mut later = world.clone();
    let more = later.filing();
    later.granted(&more);
    assert_eq!(later.run("person/ops", Command::Apply(application.clone())), stale);
    // What was pending was asked about as it was filed, and is granted by now.
    let mut later = world.clone();
    later.approve("ann", &pending).unwrap();
    assert_eq!(later.run("person/ops", Command::Apply(application.clone())), stale);
    world.run("person/ops", Command::Apply(application)).unwrap();
}

/// The default of a new bundle is none of what the caller said.
#[test]
fn a_repeat_is_compared_with_what_was_sent_and_not_with_the_default() {
    let one = Some(NonZeroU32::MIN);
    for (before, after) in [(None, one), (one, None)] {
        let mut world = World::new();
        let filing = Filing { default_uses: before, ..world.filing() };
        let grant = world.granted(&filing);
        assert_eq!(world.state.case(&grant).unwrap().request.uses, before);
        let head = world.state.head;
        let again = Filing { default_uses: after, ..filing.clone() };
        assert_eq!(world.file("agent/a", &again, &requirement(&[])), Ok(grant));
        assert_eq!(world.state.head, head);
        for uses in [NonZeroU32::new(2), NonZeroU32::new(7)] {
            let other = Filing { uses, ..again.clone() };
            let refused = world.file("agent/a", &other, &requirement(&[]));
            assert_eq!(refused, Err(Denial::IdReused));
        }
    }
    // Nor is a number that was asked for a default.
    let mut world = World::new();
    let filing = Filing { uses: NonZeroU32::new(2), ..world.filing() };
    world.granted(&filing);
    let open = Filing { uses: None, ..filing };
    assert_eq!(world.file("agent/a", &open, &requirement(&[])), Err(Denial::IdReused));
}

/// What was narrowed meets a policy that demands somebody else: no grant comes of it that no
/// exchange would be allowed on.
#[test]
fn what_an_approval_narrows_is_granted_only_as_policy_allows_it() {
    let mut world = World::new();
    let (filing, grant) = world.pending(&[("dba", 1)]);
    let narrowing = Narrowing { constraints: [at_most("amount", 50)].into(), ..Default::default() };
    let decision = world.decision("ann", &grant, Answer::Approve(narrowing));
    let foreseen = world.foreseen(&grant, &decision);
    let approve = |foreseen| {
        let verdict = world.same(&grant);
        Command::Approve(grant, decision.clone(), verdict, foreseen)
    };
    let said = |outcome| foreseen.clone().map(|foreseen| Foreseen { outcome, ..foreseen });
    let mut elsewhere = foreseen.clone().unwrap();
    elsewhere.terms.scope = filing.scope.clone();
    let mut longer = foreseen.clone().unwrap();
    longer.terms.until = longer.terms.until.plus(secs(1));
    for (about, command) in [
        ("nothing", approve(None)),
        ("what was asked for", approve(Some(elsewhere))),
        ("another lease", approve(Some(longer))),
    ] {
        let refused = world.clone().run("person/ann", command);
        assert_eq!(refused, Err(Denial::Reevaluate), "{about}");
    }
    let more = Outcome::Permitted(requirement(&[("dba", 1), ("security", 1)]));
    for outcome in [Outcome::Refused(refusal()), more] {
        let refused = world.clone().run("person/ann", approve(said(outcome)));
        assert!(matches!(refused, Err(Denial::PolicyRefused(_))), "{refused:?}");
    }
    // Less than the request needed is no reason against it.
    let command = approve(said(Outcome::Permitted(requirement(&[]))));
    world.run("person/ann", command).unwrap();
    let standing = world.state.case(&grant).unwrap().standing(world.now);
    assert!(matches!(standing, Standing::Granted(_)));
}
