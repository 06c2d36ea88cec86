//! Writes the Datalog of a block straight as protobuf, in the fields of [`super::schema`]. Every
//! token that is read is written anew, so no tree is built that would be walked but once.

use std::collections::BTreeSet;

use prost::Message as _;

use super::schema::{Content, Literal, Member, Members, Term, op};
use super::terms::{Atom, QUERY, Symbols};

/// The wire types of protobuf (its "Encoding" guide, "Message Structure").
const VARINT: u8 = 0;
const LENGTH: u8 = 2;
/// What a symbol takes beside its text.
const SYMBOL_BYTES: usize = 4;

/// A block in the making: its facts come before its checks.
pub(super) struct Writer {
    symbols: Symbols,
    /// How many of them blocks before this one brought.
    known: usize,
    body: Vec<u8>,
}

/// A term of a predicate: a literal, or a variable.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    Is(Atom<'a>),
    Var(&'a str),
}

/// The predicate `name(parts..)`.
pub(super) type Predicate<'a> = (&'a str, &'a [Part<'a>]);

/// An expression over one variable.
pub(super) enum Expression<'a> {
    /// `$var <operator> right`, with the number of a binary operator.
    Compare(&'a str, i32, Part<'a>),
    /// `{members}.contains($var)`, its members in the order of their numbers.
    Contains(Vec<Atom<'a>>, &'a str),
}

/// The query `body.., expression`.
pub(super) type Query<'a> = (&'a [Predicate<'a>], Option<Expression<'a>>);

impl Writer {
    /// A block that may use `symbols`, which blocks before it brought.
    pub(super) fn after(symbols: Symbols) -> Self {
        Self { known: symbols.len(), symbols, body: Vec::with_capacity(super::MAX_BYTES / 4) }
    }

    /// The fact `name(atoms..)`.
    pub(super) fn fact(&mut self, name: &str, atoms: &[Atom<'_>]) {
        let parts = atoms.iter().map(|atom| Part::Is(*atom));
        message(&mut self.body, 4, |out| {
            message(out, 1, |out| predicate(out, name, parts, &mut self.symbols));
        });
    }

    /// The check `check if body.., expression`, or several such queries joined by `or`.
    pub(super) fn check(&mut self, queries: &[Query<'_>]) {
        message(&mut self.body, 6, |out| {
            for each in queries {
                message(out, 1, |out| query(out, each, &mut self.symbols));
            }
        });
    }

    /// The block, in that version of Datalog.
    pub(super) fn finish(self, datalog: u32) -> Vec<u8> {
        let symbols = self.symbols.since(self.known);
        let texts: usize = symbols.iter().map(String::len).sum();
        let others = symbols.len().saturating_mul(SYMBOL_BYTES).saturating_add(self.body.len());
        let mut block = Vec::with_capacity(texts.saturating_add(others));
        symbols.iter().for_each(|text| bytes(&mut block, 1, text.as_bytes()));
        number(&mut block, 3, datalog.into());
        block.extend_from_slice(&self.body);
        block
    }
}

fn query(out: &mut Vec<u8>, (body, with): &Query<'_>, symbols: &mut Symbols) {
    message(out, 1, |out| number(out, 1, QUERY));
    for (name, parts) in *body {
        message(out, 2, |out| predicate(out, name, parts.iter().copied(), symbols));
    }
    if let Some(with) = with {
        message(out, 3, |out| expression(out, with, symbols));
    }
}

fn predicate<'a>(
    out: &mut Vec<u8>,
    name: &str,
    parts: impl Iterator<Item = Part<'a>>,
    symbols: &mut Symbols,
) {
    number(out, 1, symbols.number(name));
    parts.for_each(|part| message(out, 2, |out| term(out, part, symbols)));
}

/// Its operands, and then its operator.
fn expression(out: &mut Vec<u8>, expression: &Expression<'_>, symbols: &mut Symbols) {
    let operand = |out: &mut Vec<u8>, part, symbols: &mut Symbols| {
        message(out, 1, |out| message(out, 1, |out| term(out, part, symbols)));
    };
    let kind = match expression {
        Expression::Compare(var, kind, right) => {
            operand(out, Part::Var(var), symbols);
            operand(out, *right, symbols);
            *kind
        }
        Expression::Contains(members, var) => {
            let set = set(members, symbols).encode_to_vec();
            message(out, 1, |out| bytes(out, 1, &set));
            operand(out, Part::Var(var), symbols);
            op::CONTAINS
        }
    };
    message(out, 1, |out| message(out, 3, |out| number(out, 1, kind.unsigned_abs().into())));
}

fn term(out: &mut Vec<u8>, part: Part<'_>, symbols: &mut Symbols) {
    match part {
        Part::Var(name) => number(out, 1, symbols.number(name)),
        Part::Is(Atom::Int(int)) => number(out, 2, int.cast_unsigned()),
        Part::Is(Atom::Text(text)) => number(out, 3, symbols.number(text)),
        Part::Is(Atom::Date(secs)) => number(out, 4, secs),
        Part::Is(Atom::Bytes(content)) => bytes(out, 5, content),
        Part::Is(Atom::Bool(bool)) => number(out, 6, bool.into()),
    }
}

/// The set of `members`. Dates are never one.
fn set(members: &[Atom<'_>], symbols: &mut Symbols) -> Term {
    let literal = |atom: &Atom<'_>| match *atom {
        Atom::Int(int) => Some(Literal::Integer(int)),
        Atom::Text(text) => Some(Literal::Text(symbols.number(text))),
        Atom::Bytes(bytes) => Some(Literal::Bytes(bytes.to_vec())),
        Atom::Bool(bool) => Some(Literal::Bool(bool)),
        Atom::Date(_) => None,
    };
    let literals: BTreeSet<Literal> = members.iter().filter_map(literal).collect();
    let members = literals.into_iter().map(|literal| Member { literal: Some(literal) }).collect();
    Term { content: Some(Content::Set(Members { members })) }
}

/// Field `field`, a message that `body` writes. Most take less than 128 bytes: room for a length of
/// one byte is left before them.
fn message(out: &mut Vec<u8>, field: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(field << 3 | LENGTH);
    let at = out.len();
    out.push(0);
    body(out);
    let length = out.len().saturating_sub(at).saturating_sub(1);
    match (u8::try_from(length), out.get_mut(at)) {
        (Ok(short @ 0..0x80), Some(room)) => *room = short,
        _ => {
            let mut long = Vec::new();
            varint(&mut long, length as u64);
            out.splice(at..=at, long);
        }
    }
}

fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | LENGTH);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3 | VARINT);
    varint(out, value);
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}
