//! The rule book: what each caller gets from each command at each stage, on one page.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use dayfly_verifier::id::{GrantId, TokenId, UseId};
use dayfly_verifier::request::Narrowing;

use super::world::*;
use crate::core::command::{Command, Exchange, Filing};
use crate::core::event::{Answer, Decision, Target, TaskOutcome};
use crate::core::verdict::{Outcome, Verdict};

/// A request of `agent/a` that needs two of `dba`, brought to one stage.
#[derive(Clone)]
struct Scene {
    world: World,
    filing: Filing,
    grant: GrantId,
    token: TokenId,
    use_id: UseId,
    exchange: Exchange,
    approval: Decision,
}

const STAGES: [&str; 14] = [
    "pending",
    "half",
    "granted",
    "used",
    "spent",
    "refused",
    "denied",
    "expired",
    "cancelled",
    "completed",
    "revoked",
    "drifted",
    "lapsed",
    "absent",
];
const CALLERS: [(&str, &str); 10] = [
    ("holder", "agent/a"),
    ("sibling", "agent/b"),
    ("approver", "person/ann"),
    ("approved", "person/abe"),
    ("owner", "person/own"),
    ("other", "person/sue"),
    ("operator", "person/ops"),
    ("gateway", "gateway/orders"),
    ("elsewhere", "gateway/mail"),
    ("stranger", "nobody/x"),
];
const COMMANDS: [&str; 11] = [
    "file", "approve", "deny", "withdraw", "exchange", "again", "redeem", "evaluate", "complete",
    "cancel", "revoke",
];

fn scene(stage: &str) -> Scene {
    let mut world = World::new();
    let mut filing = world.filing();
    filing.uses = NonZeroU32::new(1);
    let required = requirement(&[("dba", 2)]);
    let basis = world.basis("agent/a", &filing.task, None);
    let outcome =
        if stage == "refused" { Outcome::Refused(refusal()) } else { Outcome::Permitted(required) };
    let command = Command::File(filing.clone(), Verdict { basis, outcome });
    world.run("agent/a", command).unwrap();
    let case = world.state.own(&id("agent/a"), &filing.id).unwrap();
    let grant = case.grant_id();
    let approval = world.decision("ann", &grant, Answer::Approve(Narrowing::default()));
    let exchange = world.exchanging(&filing);
    let (token, use_id) = (world.state.token_id(&id("agent/a"), &exchange.id), world.use_id());
    if !["pending", "refused"].contains(&stage) {
        world.approve("abe", &grant).unwrap();
    }
    let mut scene = Scene { world, filing, grant, token, use_id, exchange, approval };
    scene.go_on(stage);
    scene
}

impl Scene {
    fn go_on(&mut self, stage: &str) {
        let world = &mut self.world;
        if ["granted", "used", "spent", "completed", "revoked", "drifted", "lapsed"]
            .contains(&stage)
        {
            world.approve("max", &self.grant).unwrap();
        }
        if ["used", "spent", "completed", "revoked", "drifted", "lapsed"].contains(&stage) {
            world.exchange(&self.exchange).unwrap();
        }
        let done = match stage {
            "spent" => world.run("gateway/orders", Command::Redeem(self.token, self.use_id)),
            "denied" => world.deny("max", &self.grant),
            "cancelled" => world.run("agent/a", Command::Cancel(self.filing.id, holder(1))),
            "completed" => {
                let outcome = TaskOutcome::Succeeded;
                world.run("agent/a", Command::Complete(self.filing.id, holder(1), outcome))
            }
            "revoked" => world.revoke(Target::Grant(self.grant)),
            "drifted" => world.apply(2, &directory(), |_| Outcome::Refused(refusal())),
            _ => Ok(Vec::new()),
        };
        done.unwrap();
        match stage {
            "expired" | "lapsed" => world.pass(secs(300)),
            "absent" => {
                self.filing.id = world.request_id();
                self.exchange.request = self.filing.id;
                self.grant = GrantId::new([9; 16]);
                self.token = TokenId::new([9; 16]);
            }
            _ => {}
        }
        // Decisions are of now, by whoever they are sent by.
        self.approval.at = world.now;
    }

    fn command(&mut self, command: &str, who: &str) -> Command {
        let name = who.strip_prefix("person/").unwrap_or("ann");
        let task = &self.filing.task;
        let held = self.world.state.case(&self.grant);
        let outcome = Outcome::Permitted(requirement(&[("dba", 2)]));
        let (filed, same) = (
            Verdict { basis: self.world.basis(who, task, None), outcome: outcome.clone() },
            Verdict {
                basis: self.world.basis("agent/a", task, held.map(|_| &self.grant)),
                outcome,
            },
        );
        let signed = |answer| match held {
            Some(_) => self.world.decision(name, &self.grant, answer),
            None => Decision { answer, ..self.approval.clone() },
        };
        let mut decision = signed(Answer::Approve(Narrowing::default()));
        // The one who approved sends the very same again.
        if let Some(sent) = held.and_then(|case| case.approvals.get(&person(name))) {
            decision = sent.clone();
        }
        let denial = signed(Answer::Deny);
        let (request, key) = (self.filing.id, holder(1));
        match command {
            "file" => Command::File(self.filing.clone(), filed),
            "approve" => Command::Approve(self.grant, decision, same, None),
            "deny" => Command::Deny(self.grant, denial),
            "withdraw" => Command::Withdraw(self.grant),
            "exchange" => {
                let id = self.world.exchange_id();
                Command::Exchange(Exchange { id, ..self.exchange.clone() }, same)
            }
            "again" => Command::Exchange(self.exchange.clone(), same),
            "redeem" => Command::Redeem(self.token, self.use_id),
            "evaluate" => Command::Reevaluate(self.token, same),
            "complete" => Command::Complete(request, key, TaskOutcome::Succeeded),
            "cancel" => Command::Cancel(request, key),
            "revoke" => Command::Revoke(Target::Grant(self.grant), None),
            _ => unreachable!(),
        }
    }
}

#[test]
fn the_rule_book() {
    let mut page = format!("{:<10} {:<10}|", "stage", "by");
    COMMANDS.iter().for_each(|command| write!(page, " {command:<15}").unwrap());
    for stage in STAGES {
        let scene = scene(stage);
        for (role, who) in CALLERS {
            write!(page, "\n{stage:<10} {role:<10}|").unwrap();
            for command in COMMANDS {
                let mut scene = scene.clone();
                let command = scene.command(command, who);
                let answer = match scene.world.run(who, command) {
                    Ok(events) if events.is_empty() => "same".to_owned(),
                    Ok(_) => "YES".to_owned(),
                    Err(denial) => format!("{denial:?}"),
                };
                let answer = answer.split(['(', ' ']).next().unwrap();
                write!(page, " {answer:<15}").unwrap();
            }
        }
        page.push('\n');
    }
    let page: Vec<&str> = page.lines().map(str::trim_end).collect();
    insta::assert_snapshot!("rule_book", page.join("\n"));
}
