//! Reads a token by the closed profile. Nothing is believed: signatures are checked afterwards.

use super::caveats::{self, version};
use super::schema::{self, Biscuit, Block, ED25519, Fact, PublicKey, SignedBlock};
use super::terms::{Atom, Symbols};
use super::{
    BlockId, Content, Link, MAX_BLOCKS, MAX_BYTES, MAX_DELEGATIONS, Malformed, chain, template,
};
use crate::holder::{Confirmation, HolderKey};

/// The content of a token, and its container as signed.
pub(super) fn token(bytes: &[u8]) -> Result<(Content, Biscuit), Malformed> {
    if bytes.len() > MAX_BYTES {
        return Err(Malformed::TooLong);
    }
    let container: Biscuit = schema::read(bytes).ok_or(Malformed::Container)?;
    if container.proof.final_signature.is_some() {
        return Err(Malformed::Sealed);
    }
    let delegations = container.blocks.iter().filter(|block| block.external.is_some()).count();
    if container.blocks.len() > MAX_BLOCKS || delegations > MAX_DELEGATIONS {
        return Err(Malformed::TooManyBlocks);
    }
    let blocks = || std::iter::once(&container.authority).chain(&container.blocks);
    let secret = container.proof.next_secret.as_ref();
    if !blocks().all(well_formed) || secret.is_none_or(|secret| secret.len() != 32) {
        return Err(Malformed::Container);
    }
    let content = content(&container)?;
    Ok((content, container))
}

/// Whether keys and signatures have their lengths, so that every one of them can be checked.
fn well_formed(block: &SignedBlock) -> bool {
    let key = |key: &PublicKey| key.algorithm == ED25519 && key.key.len() == 32;
    let external = block.external.as_ref();
    block.signature.len() == 64
        && key(&block.next_key)
        && external.is_none_or(|external| external.signature.len() == 64 && key(&external.key))
}

fn content(container: &Biscuit) -> Result<Content, Malformed> {
    let authority = &container.authority;
    if authority.external.is_some() || authority.version.is_some() {
        return Err(Malformed::Authority);
    }
    let (claims, record, mut symbols) =
        template::read(&authority.block).ok_or(Malformed::Authority)?;
    if container.root_key_id != Some(claims.key.0) {
        return Err(Malformed::KeyHint);
    }
    let mut holder = claims.holder;
    let mut signed = 0;
    let mut links = Vec::with_capacity(container.blocks.len());
    for (block, index) in container.blocks.iter().zip(1u8..) {
        let (link, datalog) = link(block, &mut symbols).ok_or(Malformed::Profile(index))?;
        if let Some(external) = &block.external {
            let by_holder =
                matches!(holder, Confirmation::Key(k) if k.as_bytes()[..] == external.key.key);
            if !by_holder {
                return Err(Malformed::Delegation(index));
            }
        }
        signed = chain::version(signed, datalog, link.delegate.is_some());
        if block.version.unwrap_or(0) != signed || block.version == Some(0) {
            return Err(Malformed::Profile(index));
        }
        holder = link.delegate.map_or(holder, Confirmation::Key);
        links.push(link);
    }
    Ok(Content { claims, record, authority: id(authority), links })
}

/// A holder block and the version of Datalog that it speaks.
fn link(signed: &SignedBlock, symbols: &mut Symbols) -> Option<(Link, u32)> {
    let mut block: Block = schema::read(&signed.block)?;
    let delegates = signed.external.is_some();
    let datalog = version(&block, delegates);
    if block.version != Some(datalog) {
        return None;
    }
    // A block that somebody else signed has symbols of its own, and lends them to nobody.
    let mut own = Symbols::default();
    let symbols = if delegates { &mut own } else { symbols };
    symbols.extend(std::mem::take(&mut block.symbols))?;
    let delegate = match (delegates, block.facts.as_slice()) {
        (false, []) => None,
        (true, [fact]) => Some(delegate(fact, symbols)?),
        (_, _) => return None,
    };
    if delegate.is_none() && block.checks.is_empty() {
        return None;
    }
    let caveats = block.checks.iter().map(|check| caveats::read(check, symbols));
    let caveats: Option<Vec<_>> = caveats.collect();
    Some((Link { id: id(signed), delegate, caveats: caveats? }, datalog))
}

fn delegate(fact: &Fact, symbols: &Symbols) -> Option<HolderKey> {
    let [term] = fact.predicate.terms.as_slice() else { return None };
    match (symbols.get(fact.predicate.name)?, symbols.atom(term)?) {
        (super::DELEGATE, Atom::Bytes(key)) => HolderKey::from_slice(key).ok(),
        _ => None,
    }
}

fn id(block: &SignedBlock) -> BlockId {
    let mut id = [0; 64];
    id.iter_mut().zip(&block.signature).for_each(|(to, from)| *to = *from);
    BlockId(id)
}
