//! The authority block: one fixed template, with values as terms and never as text of a program.
//!
//! Reading takes the values out and writes the template anew: what is not byte for byte the same
//! is refused. So the two directions cannot part.

use prost::Message as _;

use super::caveats::{self, below};
use super::schema::{AuthorityBlock, Check, Fact, Term, op};
use super::terms::{Atom, Symbols};
use super::write::{Expression, Part, Writer};
use crate::caveat::Caveat;
use crate::claims::{Claims, FORMAT_VERSION, Record};
use crate::holder::{Confirmation, HolderKey};
use crate::id::{Epoch, GrantId, KeyId, RequestDigest, Seq, TokenId};
use crate::invalid::Invalid;
use crate::resource::ResourcePattern;
use crate::scope::{Right, Scope};

/// The version of Datalog that the template speaks.
const DATALOG: u32 = 3;
/// End, audience, holder, rights: the checks of every token, before those of its constraints.
const CHECKS_BEFORE_CONSTRAINTS: usize = 4;

/// The authority block of `claims`. Refuses times that are not whole seconds or not in order, and a
/// place in the log that no integer of Datalog can hold.
pub(super) fn write(claims: &Claims, record: &Record) -> Result<Vec<u8>, Invalid> {
    for (field, time) in [("issued_at", claims.issued_at), ("expires_at", claims.expires_at)] {
        if time != time.floor_to_second() {
            return Err(Invalid::new(field, "must be a whole second"));
        }
    }
    if claims.expires_at <= claims.issued_at {
        return Err(Invalid::new("expires_at", "must be later than issued_at"));
    }
    let seq =
        i64::try_from(record.seq.0).map_err(|_| Invalid::new("seq", "must be at most 2^63 - 1"))?;
    let mut block = Writer::after(Symbols::default());
    facts(claims, &record.epoch, seq, &mut block);
    checks(claims, &mut block);
    Ok(block.finish(DATALOG))
}

fn facts(claims: &Claims, epoch: &Epoch, seq: i64, block: &mut Writer) {
    use Atom::{Bool, Bytes, Int, Text};
    block.fact("format", &[Int(FORMAT_VERSION)]);
    block.fact("record", &[Bytes(epoch.as_bytes()), Int(seq)]);
    block.fact("key", &[Int(claims.key.0.into())]);
    block.fact("token", &[Bytes(claims.token.as_bytes())]);
    block.fact("grant", &[Bytes(claims.grant.as_bytes())]);
    block.fact("request", &[Bytes(claims.request.as_bytes())]);
    block.fact("for_task", &[Text(claims.task.as_str())]);
    block.fact("subject", &[Text(claims.subject.as_str())]);
    if let Some(principal) = &claims.principal {
        block.fact("principal", &[Text(principal.as_str())]);
    }
    block.fact("audience", &[Text(claims.audience.as_str())]);
    block.fact("holder", &[holder(claims)]);
    block.fact("issued", &[Atom::date(claims.issued_at)]);
    block.fact("expires", &[Atom::date(claims.expires_at)]);
    block.fact("online", &[Bool(claims.online)]);
    block.fact("counted", &[Bool(claims.counted)]);
    for Right { operation, resource } in claims.scope.rights() {
        match resource {
            ResourcePattern::Exact(exact) => {
                block.fact("right", &[Text(operation.as_str()), Text(exact.as_str())]);
            }
            ResourcePattern::Below(base) => {
                block.fact("right_below", &[Text(operation.as_str()), Text(&below(base))]);
            }
        }
    }
}

/// What a use must prove, as the literal that `proven` is compared with.
fn holder(claims: &Claims) -> Atom<'_> {
    match &claims.holder {
        Confirmation::Key(key) => Atom::Bytes(key.as_bytes()),
        Confirmation::Identity => Atom::Text(claims.subject.as_str()),
    }
}

fn checks(claims: &Claims, block: &mut Writer) {
    caveats::write(&Caveat::Before(claims.expires_at), block);
    let audience = Part::Is(Atom::Text(claims.audience.as_str()));
    block.check(&[(&[("gateway", &[audience])], None)]);
    block.check(&[(&[("proven", &[Part::Is(holder(claims))])], None)]);
    rights(block);
    for constraint in claims.scope.constraints() {
        caveats::write(&Caveat::Argument(constraint.clone()), block);
    }
}

/// `check if operation($o), resource($r), right($o, $r)
/// or operation($o), resource($r), right_below($o, $p), $r.starts_with($p)`
fn rights(block: &mut Writer) {
    let (o, r, p) = (Part::Var("o"), Part::Var("r"), Part::Var("p"));
    let (operation, resource) = (("operation", &[o][..]), ("resource", &[r][..]));
    let under = Expression::Compare("r", op::STARTS_WITH, p);
    block.check(&[
        (&[operation, resource, ("right", &[o, r])], None),
        (&[operation, resource, ("right_below", &[o, p])], Some(under)),
    ]);
}

/// The claims of an authority block, and the symbols that later blocks may use; `None` if it is not
/// byte for byte the template.
pub(super) fn read(bytes: &[u8]) -> Option<(Claims, Record, Symbols)> {
    let block = AuthorityBlock::decode(bytes).ok()?;
    // What is written anew gives every text one number.
    let symbols = Symbols::unchecked(block.symbols);
    let mut facts = Facts { rest: &block.facts, symbols: &symbols };
    let (claims, record) = claims(&mut facts, &block.checks)?;
    let same = write(&claims, &record).is_ok_and(|again| again == bytes);
    same.then_some((claims, record, symbols))
}

fn claims(facts: &mut Facts<'_>, checks: &[Vec<u8>]) -> Option<(Claims, Record)> {
    facts.terms("format")?;
    let [epoch, seq] = facts.terms("record")? else { return None };
    let epoch = Epoch::from_slice(facts.symbols.atom(epoch)?.bytes()?).ok()?;
    let seq = Seq(u64::try_from(facts.symbols.atom(seq)?.int()?).ok()?);
    let claims = Claims {
        key: KeyId(facts.one("key")?.int()?.try_into().ok()?),
        token: TokenId::from_slice(facts.one("token")?.bytes()?).ok()?,
        grant: GrantId::from_slice(facts.one("grant")?.bytes()?).ok()?,
        request: RequestDigest::from_slice(facts.one("request")?.bytes()?).ok()?,
        task: facts.one("for_task")?.text()?.parse().ok()?,
        subject: facts.one("subject")?.text()?.parse().ok()?,
        principal: match facts.one("principal") {
            Some(principal) => Some(principal.text()?.parse().ok()?),
            None => None,
        },
        audience: facts.one("audience")?.text()?.parse().ok()?,
        holder: match facts.one("holder")? {
            Atom::Bytes(key) => Confirmation::Key(HolderKey::unchecked(key.try_into().ok()?)),
            Atom::Text(_) => Confirmation::Identity,
            Atom::Int(_) | Atom::Date(_) | Atom::Bool(_) => return None,
        },
        issued_at: facts.one("issued")?.as_date()?,
        expires_at: facts.one("expires")?.as_date()?,
        online: facts.one("online")?.bool()?,
        counted: facts.one("counted")?.bool()?,
        scope: scope(facts, checks)?,
    };
    Some((claims, Record { epoch, seq }))
}

fn scope(facts: &mut Facts<'_>, checks: &[Vec<u8>]) -> Option<Scope> {
    let mut rights = Vec::with_capacity(facts.rest.len());
    while let Some(right) = right(facts) {
        rights.push(right);
    }
    let mut constraints = Vec::new();
    for check in checks.iter().skip(CHECKS_BEFORE_CONSTRAINTS) {
        match caveats::read(&Check::decode(check.as_slice()).ok()?, facts.symbols)? {
            Caveat::Argument(constraint) => constraints.push(constraint),
            Caveat::Before(_) | Caveat::Operation(_) | Caveat::Resource(_) => return None,
            Caveat::Below(_) | Caveat::Gateway(_) | Caveat::Task(_) => return None,
        }
    }
    Scope::new(rights, constraints).ok()
}

fn right(facts: &mut Facts<'_>) -> Option<Right> {
    let (terms, exact) = match facts.terms("right") {
        Some(terms) => (terms, true),
        None => (facts.terms("right_below")?, false),
    };
    let [operation, resource] = terms else { return None };
    let operation = facts.symbols.atom(operation)?.text()?.parse().ok()?;
    let resource = facts.symbols.atom(resource)?.text()?;
    let resource = match exact {
        true => ResourcePattern::Exact(resource.parse().ok()?),
        false => ResourcePattern::Below(resource.strip_suffix('/')?.parse().ok()?),
    };
    Some(Right { operation, resource })
}

/// Takes values out of facts, in the template's order. Nothing is demanded of what it does not look
/// at: the block as a whole is compared afterwards.
struct Facts<'a> {
    rest: &'a [Fact],
    symbols: &'a Symbols,
}

impl<'a> Facts<'a> {
    /// The terms of the next fact, if that is its name.
    fn terms(&mut self, name: &str) -> Option<&'a [Term]> {
        let (next, rest) = self.rest.split_first()?;
        if self.symbols.get(next.predicate.name) != Some(name) {
            return None;
        }
        self.rest = rest;
        Some(&next.predicate.terms)
    }

    /// The one term of the next fact, if that is its name.
    fn one(&mut self, name: &str) -> Option<Atom<'a>> {
        let [term] = self.terms(name)? else { return None };
        self.symbols.atom(term)
    }
}
