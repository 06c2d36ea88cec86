//! The authority block: one fixed template, with values as terms and never as text of a program.
//!
//! Reading takes the values out and writes the template anew: what is not byte for byte the same
//! is refused. So the two directions cannot part.

use prost::Message as _;

use super::caveats::{self, below};
use super::schema::{Block, Check, Fact, Term, op, read as read_message};
use super::terms::{Atom, Part, Symbols, check};
use crate::caveat::Caveat;
use crate::claims::{Claims, FORMAT_VERSION, Record};
use crate::holder::{Confirmation, HolderKey};
use crate::id::{Epoch, GrantId, KeyId, RequestDigest, Seq, TokenId};
use crate::invalid::Invalid;
use crate::resource::ResourcePattern;
use crate::scope::{Right, Scope};
use crate::time::Timestamp;

/// The version of Datalog that the template speaks.
const DATALOG: u32 = 3;

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
    let mut symbols = Symbols::default();
    let facts = facts(claims, &record.epoch, seq, &mut symbols);
    let checks = checks(claims, &mut symbols);
    let block = Block { symbols: symbols.since(0), version: Some(DATALOG), facts, checks };
    Ok(block.encode_to_vec())
}

fn facts(claims: &Claims, epoch: &Epoch, seq: i64, symbols: &mut Symbols) -> Vec<Fact> {
    use Atom::{Bool, Bytes, Int, Text};
    let mut facts = Vec::new();
    let mut fact = |name: &str, atoms: &[Atom<'_>]| {
        let parts: Vec<Part<'_>> = atoms.iter().copied().map(Part::Is).collect();
        facts.push(Fact { predicate: symbols.predicate(name, &parts) });
    };
    fact("format", &[Int(FORMAT_VERSION)]);
    fact("record", &[Bytes(epoch.as_bytes()), Int(seq)]);
    fact("key", &[Int(claims.key.0.into())]);
    fact("token", &[Bytes(claims.token.as_bytes())]);
    fact("grant", &[Bytes(claims.grant.as_bytes())]);
    fact("request", &[Bytes(claims.request.as_bytes())]);
    fact("for_task", &[Text(claims.task.as_str())]);
    fact("subject", &[Text(claims.subject.as_str())]);
    if let Some(principal) = &claims.principal {
        fact("principal", &[Text(principal.as_str())]);
    }
    fact("audience", &[Text(claims.audience.as_str())]);
    fact("holder", &[holder(claims)]);
    fact("issued", &[Atom::date(claims.issued_at)]);
    fact("expires", &[Atom::date(claims.expires_at)]);
    fact("online", &[Bool(claims.online)]);
    fact("counted", &[Bool(claims.counted)]);
    for Right { operation, resource } in claims.scope.rights() {
        match resource {
            ResourcePattern::Exact(exact) => {
                fact("right", &[Text(operation.as_str()), Text(exact.as_str())]);
            }
            ResourcePattern::Below(base) => {
                fact("right_below", &[Text(operation.as_str()), Text(&below(base))]);
            }
        }
    }
    facts
}

/// What a use must prove, as the literal that `proven` is compared with.
fn holder(claims: &Claims) -> Atom<'_> {
    match &claims.holder {
        Confirmation::Key(key) => Atom::Bytes(key.as_bytes()),
        Confirmation::Identity => Atom::Text(claims.subject.as_str()),
    }
}

fn checks(claims: &Claims, symbols: &mut Symbols) -> Vec<Check> {
    let audience = claims.audience.as_str();
    let mut checks = vec![caveats::write(&Caveat::Before(claims.expires_at), symbols)];
    let gateway = symbols.predicate("gateway", &[Part::Is(Atom::Text(audience))]);
    checks.push(check(vec![(vec![gateway], vec![])]));
    let proven = symbols.predicate("proven", &[Part::Is(holder(claims))]);
    checks.push(check(vec![(vec![proven], vec![])]));
    checks.push(rights(symbols));
    for constraint in claims.scope.constraints() {
        checks.push(caveats::write(&Caveat::Argument(constraint.clone()), symbols));
    }
    checks
}

/// `check if operation($o), resource($r), right($o, $r)
/// or operation($o), resource($r), right_below($o, $p), $r.starts_with($p)`
fn rights(symbols: &mut Symbols) -> Check {
    let (o, r, p) = (Part::Var("o"), Part::Var("r"), Part::Var("p"));
    let call = |symbols: &mut Symbols| {
        vec![symbols.predicate("operation", &[o]), symbols.predicate("resource", &[r])]
    };
    let mut exact = call(symbols);
    exact.push(symbols.predicate("right", &[o, r]));
    let mut below = call(symbols);
    below.push(symbols.predicate("right_below", &[o, p]));
    let under = symbols.compare("r", op::STARTS_WITH, p);
    check(vec![(exact, vec![]), (below, vec![under])])
}

/// The claims of an authority block, and the symbols that later blocks may use; `None` if it is not
/// byte for byte the template.
pub(super) fn read(bytes: &[u8]) -> Option<(Claims, Record, Symbols)> {
    let block: Block = read_message(bytes)?;
    let mut symbols = Symbols::default();
    symbols.extend(&block.symbols)?;
    let facts = Facts { facts: &block.facts, symbols: &symbols };
    let &[Atom::Bytes(epoch), Atom::Int(seq)] = facts.one("record")?.as_slice() else {
        return None;
    };
    let record =
        Record { epoch: Epoch::from_slice(epoch).ok()?, seq: Seq(u64::try_from(seq).ok()?) };
    let subject: crate::spiffe::SpiffeId = facts.text("subject")?.parse().ok()?;
    let holder = match facts.atom("holder")? {
        Atom::Bytes(key) => Confirmation::Key(HolderKey::from_slice(key).ok()?),
        Atom::Text(_) => Confirmation::Identity,
        Atom::Int(_) | Atom::Date(_) | Atom::Bool(_) => return None,
    };
    let principal = match facts.all("principal").next() {
        Some(_) => Some(facts.text("principal")?.parse().ok()?),
        None => None,
    };
    let claims = Claims {
        token: TokenId::from_slice(facts.bytes("token")?).ok()?,
        grant: GrantId::from_slice(facts.bytes("grant")?).ok()?,
        request: RequestDigest::from_slice(facts.bytes("request")?).ok()?,
        task: facts.text("for_task")?.parse().ok()?,
        subject,
        principal,
        audience: facts.text("audience")?.parse().ok()?,
        scope: scope(&facts, &block.checks)?,
        holder,
        issued_at: facts.date("issued")?,
        expires_at: facts.date("expires")?,
        online: facts.bool("online")?,
        counted: facts.bool("counted")?,
        key: KeyId(facts.int("key")?.try_into().ok()?),
    };
    let same = write(&claims, &record).is_ok_and(|again| again == bytes);
    same.then_some((claims, record, symbols))
}

fn scope(facts: &Facts<'_>, checks: &[Check]) -> Option<Scope> {
    let right = |terms: Vec<Atom<'_>>, below: bool| {
        let &[Atom::Text(operation), Atom::Text(resource)] = terms.as_slice() else {
            return None;
        };
        let resource = match below {
            true => ResourcePattern::Below(resource.strip_suffix('/')?.parse().ok()?),
            false => ResourcePattern::Exact(resource.parse().ok()?),
        };
        Some(Right { operation: operation.parse().ok()?, resource })
    };
    let exact = facts.all("right").map(|terms| right(terms?, false));
    let below = facts.all("right_below").map(|terms| right(terms?, true));
    let rights: Option<Vec<Right>> = exact.chain(below).collect();
    let constraints =
        checks.iter().filter_map(|check| match caveats::read(check, facts.symbols)? {
            Caveat::Argument(constraint) => Some(constraint),
            Caveat::Before(_) | Caveat::Operation(_) | Caveat::Resource(_) => None,
            Caveat::Below(_) | Caveat::Gateway(_) | Caveat::Task(_) => None,
        });
    Scope::new(rights?, constraints).ok()
}

/// Takes values out of facts. Nothing is demanded of what it does not look at: the block as a whole
/// is compared afterwards.
struct Facts<'a> {
    facts: &'a [Fact],
    symbols: &'a Symbols,
}

impl<'a> Facts<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = Option<Vec<Atom<'a>>>> {
        let symbols = self.symbols;
        let named = move |fact: &&Fact| symbols.get(fact.predicate.name) == Some(name);
        let atom = move |term: &'a Term| symbols.atom(term);
        let terms = move |fact: &'a Fact| fact.predicate.terms.iter().map(atom).collect();
        self.facts.iter().filter(named).map(terms)
    }

    fn one(&self, name: &'static str) -> Option<Vec<Atom<'a>>> {
        self.all(name).next()?
    }

    fn atom(&self, name: &'static str) -> Option<Atom<'a>> {
        self.one(name)?.first().copied()
    }

    fn text(&self, name: &'static str) -> Option<&'a str> {
        if let Atom::Text(text) = self.atom(name)? { Some(text) } else { None }
    }

    fn bytes(&self, name: &'static str) -> Option<&'a [u8]> {
        if let Atom::Bytes(bytes) = self.atom(name)? { Some(bytes) } else { None }
    }

    fn int(&self, name: &'static str) -> Option<i64> {
        if let Atom::Int(int) = self.atom(name)? { Some(int) } else { None }
    }

    fn bool(&self, name: &'static str) -> Option<bool> {
        if let Atom::Bool(bool) = self.atom(name)? { Some(bool) } else { None }
    }

    fn date(&self, name: &'static str) -> Option<Timestamp> {
        let Atom::Date(secs) = self.atom(name)? else { return None };
        Timestamp::from_secs(secs).ok()
    }
}
