//! What many cases have alike, held once: a snapshot has it with each of them.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use dayfly_verifier::id::Purpose;
use dayfly_verifier::request::Request;
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;

use crate::core::case::Kin;

/// What the cases so far had. Made anew for every few hundred of them, so that it stays small.
#[derive(Default)]
pub(in crate::journal) struct Alike {
    audiences: HashSet<SpiffeId>,
    purposes: HashSet<Purpose>,
    scopes: HashSet<Scope>,
    kin: HashSet<Arc<Kin>>,
}

impl Alike {
    /// An equal request, which holds what an earlier one holds.
    pub(super) fn request(&mut self, request: Request) -> Request {
        Request {
            audience: one(&mut self.audiences, request.audience),
            purpose: one(&mut self.purposes, request.purpose),
            scope: self.scope(request.scope),
            ..request
        }
    }

    /// The same of a scope.
    pub(super) fn scope(&mut self, scope: Scope) -> Scope {
        one(&mut self.scopes, scope)
    }

    /// The same of people.
    pub(super) fn kin(&mut self, kin: Kin) -> Arc<Kin> {
        one(&mut self.kin, Arc::new(kin))
    }
}

/// What was there before and is equal to `this`, or this, which is there from now on.
fn one<T: Clone + Eq + Hash>(before: &mut HashSet<T>, this: T) -> T {
    if let Some(same) = before.get(&this) {
        return same.clone();
    }
    before.insert(this.clone());
    this
}
