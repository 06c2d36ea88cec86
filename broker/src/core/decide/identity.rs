//! What becomes of the identities that the embedded authority gives.

use dayfly_verifier::spiffe::SpiffeId;

use super::{Asked, Decided, invalid};
use crate::core::denial::Denial;
use crate::core::directory::Party;
use crate::core::event::{Actor, Event, IdentityChange};

/// Invitations are made by operators, and by whoever is on the broker's host and so acts as the
/// broker; everything else is seen by the broker alone.
///
/// An operator invites what the bundle lists as a workload or a gateway. Whoever could invite as a
/// person could be that person; and what is not listed yet could be listed as one tomorrow.
pub(super) fn change(asked: &Asked<'_>, id: &SpiffeId, change: IdentityChange) -> Decided {
    let refused = |rule| Err(invalid("spiffe_id", rule));
    let itself = asked.caller.is_broker();
    let actor = match change {
        IdentityChange::Invited if itself => Actor::Host,
        IdentityChange::Invited => {
            let actor = asked.operator()?;
            match asked.state.directory.party(id) {
                Party::Workload | Party::Gateway => {}
                Party::Person(_) => {
                    return refused("must not be a person's: invite people on the broker's host");
                }
                Party::Stranger => {
                    return refused("must be a workload or a gateway that the bundle lists");
                }
            }
            asked.unlocked_person()?;
            actor
        }
        IdentityChange::Joined { .. } | IdentityChange::Locked if itself => {
            Actor::Broker(asked.caller.clone())
        }
        IdentityChange::Joined { .. } | IdentityChange::Locked => return Err(Denial::NotAllowed),
    };
    Ok((actor, vec![Event::IdentityChanged { id: id.clone(), change }]))
}
