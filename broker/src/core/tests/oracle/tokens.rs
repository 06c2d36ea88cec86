//! What comes of grants: tokens, uses, revocations, and what callers were told of them.

use super::*;
use crate::core::verdict::Outcome;

impl Told {
    pub(super) fn good(&self, token: &TokenId, at: Timestamp) -> bool {
        at < self.tokens[token].expires_at && !self.dead.contains(token)
    }

    pub(super) fn minted(&self, claims: &Claims, at: Timestamp, step: Option<&Step>) -> Verdict {
        let case = self.cases.get(&claims.grant).ok_or("I1: of nothing")?;
        law!(case.live(at), "I1, I10: minted from what is not live");
        let (terms, request) = (case.terms.as_ref().unwrap(), &case.request);
        law!(inside(&claims.scope, &terms.scope), "I4: wider than the grant");
        law!(!locked(&self.locks, request, &terms.scope, at), "minted under a lock");
        law!(claims.request == request.digest(), "I1: another request");
        law!(claims.subject == request.workload && claims.audience == request.audience, "I7");
        law!(claims.holder == request.holder() && claims.task == request.task, "I6");
        law!(claims.counted == terms.uses.is_some(), "I2: not counted");
        let step = step.ok_or("I14: minted by nobody")?;
        let end = claims.issued_at.plus(secs(120)).min(terms.until).min(step.caller.until);
        law!(claims.issued_at <= at && claims.expires_at <= end, "I5: lives too long");
        let others = self.tokens.values().filter(|other| other.grant == claims.grant);
        let fresh = |other: &Claims| {
            let life = other.expires_at.since(other.issued_at);
            self.good(&other.token, at) && other.expires_at.since(at) * 3 > life
        };
        law!(!others.into_iter().any(fresh), "I2: there is a token that is fresh");
        let Command::Exchange(exchange, verdict) = &step.command else {
            return Err("minted by no exchange".into());
        };
        law!(exchange.holder_key == request.holder_key, "I6: another key");
        let Outcome::Permitted(required) = &verdict.outcome else {
            return Err("I1: policy refused".into());
        };
        law!(self.enough(required, &self.standing(case)), "I1: policy demands more by now");
        Ok(())
    }

    pub(super) fn answered_with(
        &mut self,
        grant: &GrantId,
        exchange: &ExchangeId,
        token: &TokenId,
        at: Timestamp,
    ) -> Verdict {
        let case = &self.cases[grant];
        law!(case.live(at) && self.good(token, at), "I10: answered with what is dead");
        law!(self.tokens[token].grant == *grant, "answered with another's token");
        let key = (case.request.workload.clone(), *exchange);
        law!(self.exchanges.insert(key, *token).is_none(), "I2: two for one exchange");
        Ok(())
    }

    pub(super) fn redeemed(
        &mut self,
        grant: &GrantId,
        token: &TokenId,
        use_id: &UseId,
        by: &Actor,
        at: Timestamp,
    ) -> Verdict {
        let case = &self.cases[grant];
        law!(case.live(at) && self.good(token, at), "I8: a use of what is dead");
        let scope = &case.terms.as_ref().unwrap().scope;
        law!(!locked(&self.locks, &case.request, scope, at), "used under a lock");
        law!(*by == Actor::Gateway(self.tokens[token].audience.clone()), "I7: elsewhere");
        let uses = self.uses.entry(*grant).or_default();
        law!(uses.insert(*use_id), "I2: one use twice");
        let most = case.terms.as_ref().unwrap().uses.ok_or("not counted")?;
        law!(uses.len() <= most.get() as usize, "I2: more uses than granted");
        Ok(())
    }

    pub(super) fn revoked(&mut self, target: &Target) {
        match target {
            Target::Token(token) => drop(self.dead.insert(*token)),
            Target::Key(key) => {
                let by_key = self.tokens.values().filter(|claims| claims.key == *key);
                self.dead.extend(by_key.map(|claims| claims.token).collect::<Vec<_>>());
            }
            Target::Grant(_) | Target::Workload(_) | Target::Task(_) | Target::Prefix(_) => {}
            Target::Block(_) | Target::Delegate(..) => {}
        }
        for (id, case) in &mut self.cases {
            let request = &case.request;
            case.over |= match target {
                Target::Grant(grant) => grant == id,
                Target::Workload(workload) => *workload == request.workload,
                Target::Task(task) => *task == request.task,
                // The prefixes that the model draws reach every request that it draws.
                Target::Prefix(_) => true,
                Target::Token(_) | Target::Key(_) | Target::Block(_) | Target::Delegate(..) => {
                    false
                }
            };
        }
    }

    /// What the caller was told.
    pub(super) fn answered(&self, step: &Step) -> Verdict {
        match &step.command {
            Command::Exchange(exchange, _) => {
                let key = (step.caller.id.clone(), exchange.id);
                let known = self.exchanges.get(&key).copied();
                law!(step.answer.is_none() || step.answer == known, "I2: another answer");
                law!(step.result.is_ok() == step.answer.is_some(), "I8: an answer without a token");
                let Some(token) = step.answer else { return Ok(()) };
                law!(!self.dead.contains(&token), "I8: a dead token is handed out");
                let case = &self.cases[&self.tokens[&token].grant];
                law!(!case.over, "I8: of an ended grant");
                let scope = &case.terms.as_ref().unwrap().scope;
                law!(!locked(&self.locks, &case.request, scope, step.now), "given under a lock");
                law!(
                    self.tokens[&token].expires_at > step.now,
                    "I5: an expired token is handed out"
                );
            }
            Command::File(filing, _) if step.result.is_ok() => {
                let requests = self.cases.values().map(|case| &case.request);
                let mut same =
                    requests.filter(|r| r.id == filing.id && r.workload == step.caller.id);
                let request = same.next().ok_or("a filing that nobody finds")?;
                let as_filed = request.scope == filing.scope
                    && request.audience == filing.audience
                    && request.holder_key == filing.holder_key
                    && request.task == filing.task
                    && request.principal == filing.principal
                    && request.uses == filing.uses;
                law!(as_filed, "I2: one id, two contents");
            }
            Command::File(..)
            | Command::Approve(..)
            | Command::Deny(..)
            | Command::Withdraw(_)
            | Command::Redeem(..)
            | Command::Reevaluate(..)
            | Command::Report(_)
            | Command::Complete(..)
            | Command::Cancel(..)
            | Command::Revoke(..)
            | Command::Identity(..)
            | Command::Lock(..)
            | Command::Unlock(_)
            | Command::OptOut(_)
            | Command::Apply(_)
            | Command::AddKey { .. }
            | Command::RetireKey(_)
            | Command::Snapshot(_) => {}
        }
        Ok(())
    }
}
