//! Messages that come late, twice, in any order, or from long ago: what a follower claims to
//! enforce it knows, whatever it heard and whatever it was spared.

use dayfly_verifier::feed::{Follower, Message};
use dayfly_verifier::id::Seq;
use proptest::prelude::*;

use super::{Log, at, trusting, up};

/// One message of a log, or a new stream.
#[derive(Debug, Clone, Copy)]
enum Step {
    Subscribe,
    Snapshot(usize),
    /// What came after the first, up to the second.
    Delta(usize, usize),
    Beat(usize),
    /// All that was heard so far once more, from the end.
    Replay,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stage = || 0usize..16;
    let one = prop_oneof![
        1 => Just(Step::Subscribe),
        3 => stage().prop_map(Step::Snapshot),
        6 => (stage(), 0usize..4).prop_map(|(from, by)| Step::Delta(from, from + by)),
        3 => stage().prop_map(Step::Beat),
        1 => Just(Step::Replay),
    ];
    proptest::collection::vec(one, 1..60)
}

/// A log as it grows: at each stage, how many entries the feed has.
fn stages(revokes: &[bool]) -> Vec<Log> {
    let mut log = Log::new(1);
    log.pass();
    let mut stages = vec![log.clone()];
    for revokes in revokes {
        if *revokes {
            log.revoke(log.seq + 1, 60_000);
        } else {
            log.pass();
        }
        stages.push(log.clone());
    }
    stages
}

fn message(stages: &[Log], step: Step) -> Option<Message<Vec<u8>>> {
    let stage = |n: usize| stages.get(n.min(stages.len() - 1)).unwrap();
    Some(match step {
        Step::Subscribe | Step::Replay => return None,
        Step::Snapshot(n) => stage(n).snapshot(),
        Step::Delta(from, to) => {
            let entries = stage(to).entries.get(stage(from).entries.len()..);
            stage(to).delta(entries.unwrap_or_default().to_vec())
        }
        Step::Beat(n) => stage(n).beat([0; 16]),
    })
}

/// The grants that it knows to be revoked, as it would print them, and how far it claims to know.
fn claims(follower: &Follower) -> (Seq, usize, String) {
    let view = follower.view().unwrap();
    (view.seq(), view.revocations().len(), format!("{:?}", view.revocations()))
}

/// Plays the steps, and holds what is claimed after each against the log.
fn play(stages: &[Log], steps: &[Step]) -> Result<Vec<(Seq, String)>, TestCaseError> {
    let (mut follower, mut heard, mut seen) = (trusting(), Vec::new(), Vec::new());
    let mut highest = Seq(0);
    for step in steps {
        let messages: Vec<Message<Vec<u8>>> = match step {
            Step::Subscribe => {
                follower.subscribe();
                Vec::new()
            }
            Step::Replay => heard.iter().rev().cloned().collect(),
            Step::Snapshot(_) | Step::Delta(..) | Step::Beat(_) => {
                message(stages, *step).into_iter().collect()
            }
        };
        for message in messages {
            let adopted = follower.receive(&message, at(0), up(0));
            heard.push(message);
            let (seq, known, printed) = claims(&follower);
            if adopted == Ok(true) {
                prop_assert!(seq >= highest, "it went back from {highest} to {seq}");
            }
            if seq == Seq(0) {
                prop_assert!(!follower.holds(), "it enforces nothing");
                continue;
            }
            highest = seq;
            let stage = stages.iter().find(|log| Seq(log.seq) == seq).unwrap();
            prop_assert_eq!(known, stage.entries.len(), "at {}: {}", seq, printed);
            seen.push((seq, printed));
        }
    }
    Ok(seen)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn who_claims_the_same_place_knows_the_same(
        revokes in proptest::collection::vec(any::<bool>(), 0..15),
        one in steps(),
        other in steps(),
    ) {
        let stages = stages(&revokes);
        let (one, other) = (play(&stages, &one)?, play(&stages, &other)?);
        for (seq, known) in &one {
            for (of, others) in other.iter().filter(|(of, _)| of == seq) {
                prop_assert_eq!(known, others, "at {}", of);
            }
        }
    }
}
