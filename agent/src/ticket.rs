//! A ticket: the claim to what a request may become. Whoever has it, under the same SPIFFE ID, can
//! exchange, complete and cancel; so it is kept like a key, and never printed.

use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{PersonId, Purpose, RequestId, TaskId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize as _, Zeroizing};

use crate::convert::{scope_to_wire, whole_seconds};
use crate::errors::Error;
use crate::files;

/// What a workload asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct Ask {
    /// The gateway that guards the resource.
    pub audience: SpiffeId,
    /// What is to be allowed.
    pub scope: Scope,
    /// For which task.
    pub task: TaskId,
    /// Why, as a name of the policy bundle.
    pub purpose: Purpose,
    /// Why, in words for the approvers; at most 2 KiB, may be empty.
    pub justification: String,
    /// The lease, whole seconds; `None` for the broker's default.
    pub lifetime: Option<Duration>,
    /// How many uses; `None` for the default, 1 for destructive operations.
    pub uses: Option<NonZeroU32>,
    /// On whose behalf.
    pub principal: Option<PersonId>,
    /// How the token is to be confirmed.
    pub confirmation: ConfirmBy,
}

impl Ask {
    /// What must be said; the rest is as the broker has it by default, and may be set after. The
    /// token will be confirmed by a key that is drawn for it.
    #[must_use]
    pub const fn new(audience: SpiffeId, scope: Scope, task: TaskId, purpose: Purpose) -> Self {
        Self {
            audience,
            scope,
            task,
            purpose,
            justification: String::new(),
            lifetime: None,
            uses: None,
            principal: None,
            confirmation: ConfirmBy::Key,
        }
    }
}

impl fmt::Debug for Ask {
    /// Without the justification: free text has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { audience, scope, task, purpose, justification: _, lifetime, uses, .. } = self;
        let Self { principal, confirmation, .. } = self;
        f.debug_struct("Ask")
            .field("audience", audience)
            .field("scope", scope)
            .field("task", task)
            .field("purpose", purpose)
            .field("lifetime", lifetime)
            .field("uses", uses)
            .field("principal", principal)
            .field("confirmation", confirmation)
            .finish_non_exhaustive()
    }
}

/// The most text that goes with a request, in bytes.
const MAX_JUSTIFICATION_BYTES: usize = 2048;

/// The claim to what a request may become: its id, the holder key, and what was asked.
///
/// It can be stored (`serde`, or [`Ticket::save`]) and taken up again by another process.
pub struct Ticket {
    id: RequestId,
    key: SigningKey,
    ask: Ask,
}

impl Ticket {
    /// A new ticket with a key of its own. Nothing is asked yet.
    ///
    /// # Errors
    /// A lifetime that is not whole seconds, a justification of more than 2 KiB, or a machine that
    /// gives no random numbers.
    pub fn draw(ask: Ask, now: Timestamp) -> Result<Self, Error> {
        if ask.justification.len() > MAX_JUSTIFICATION_BYTES {
            return Err(Invalid::new("justification", "must not be longer than 2048 bytes").into());
        }
        ask.lifetime.map(whole_seconds).transpose()?;
        let mut secret = Zeroizing::new([0; 32]);
        let mut random = [0; 10];
        fill(secret.as_mut_slice())?;
        fill(&mut random)?;
        let id = RequestId::draw(now, random);
        Ok(Self { id, key: SigningKey::from_bytes(&secret), ask })
    }

    /// The request's id.
    #[must_use]
    pub const fn id(&self) -> &RequestId {
        &self.id
    }

    /// What is asked.
    #[must_use]
    pub const fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The public half of the key that tokens are bound to.
    pub fn holder_key(&self) -> Result<HolderKey, Invalid> {
        HolderKey::from_slice(self.key.verifying_key().as_bytes())
    }

    /// The key itself, to make proofs with.
    #[must_use]
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The request as it is filed, but for its proof.
    pub(crate) fn filing(&self) -> Result<v1::RequestAccessRequest, Error> {
        let Ask { audience, scope, task, purpose, justification, lifetime, uses, .. } = &self.ask;
        let Ask { principal, confirmation, .. } = &self.ask;
        let public = self.key.verifying_key().to_bytes().to_vec();
        Ok(v1::RequestAccessRequest {
            request_id: self.id.to_string(),
            principal: principal.as_ref().map(PersonId::to_string).unwrap_or_default(),
            holder_key: public.into(),
            confirm_by_identity: *confirmation == ConfirmBy::Identity,
            audience: audience.to_string(),
            scope: Some(scope_to_wire(scope)),
            task: task.to_string(),
            purpose: purpose.to_string(),
            justification: justification.clone(),
            lifetime_seconds: lifetime.map(whole_seconds).transpose()?.unwrap_or(0),
            uses: uses.map_or(0, NonZeroU32::get),
            proof: None,
        })
    }

    /// Writes the ticket to a file that only its owner may read.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).map(Zeroizing::new);
        let text = text.map_err(|_| Invalid::new("ticket", "cannot be written"))?;
        Ok(files::write_secret(path, &text)?)
    }

    /// Reads a ticket from a file that nobody else may read; follows no symbolic link.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = files::read_secret(path)?;
        let ticket = serde_json::from_slice(&text);
        ticket.map_err(|_| Invalid::new("ticket", "must be a file that a ticket wrote").into())
    }
}

/// Random bytes from the operating system.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Invalid> {
    getrandom::fill(bytes).map_err(|_| Invalid::new("random", "the system gives no random numbers"))
}

/// A ticket as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    request_id: String,
    holder_secret: String,
    audience: String,
    rights: Vec<String>,
    constraints: Vec<String>,
    task: String,
    purpose: String,
    justification: String,
    lifetime_seconds: Option<u64>,
    uses: Option<NonZeroU32>,
    principal: Option<String>,
    confirm_by_identity: bool,
}

/// The version of the stored form.
const VERSION: u32 = 1;

impl Drop for Stored {
    fn drop(&mut self) {
        self.holder_secret.zeroize();
    }
}

impl Serialize for Ticket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ask = &self.ask;
        let stored = Stored {
            version: VERSION,
            request_id: self.id.to_string(),
            holder_secret: hex::encode(Zeroizing::new(self.key.to_bytes())),
            audience: ask.audience.to_string(),
            rights: ask.scope.rights().map(ToString::to_string).collect(),
            constraints: ask.scope.constraints().map(ToString::to_string).collect(),
            task: ask.task.to_string(),
            purpose: ask.purpose.to_string(),
            justification: ask.justification.clone(),
            lifetime_seconds: ask.lifetime.map(|lifetime| lifetime.as_secs()),
            uses: ask.uses,
            principal: ask.principal.as_ref().map(ToString::to_string),
            confirm_by_identity: ask.confirmation == ConfirmBy::Identity,
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ticket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Stored::deserialize(deserializer)?.read().map_err(serde::de::Error::custom)
    }
}

impl Stored {
    fn read(&self) -> Result<Ticket, Invalid> {
        if self.version != VERSION {
            return Err(Invalid::new("version", "must be 1"));
        }
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&self.holder_secret, secret.as_mut_slice())
            .map_err(|_| Invalid::new("holder_secret", "must be 64 hexadecimal digits"))?;
        let rights = self.rights.iter().map(|r| r.parse()).collect::<Result<Vec<_>, _>>()?;
        let constraints = self.constraints.iter().map(|c| c.parse());
        let constraints = constraints.collect::<Result<Vec<_>, _>>()?;
        let ask = Ask {
            audience: self.audience.parse()?,
            scope: Scope::new(rights, constraints)?,
            task: self.task.parse()?,
            purpose: self.purpose.parse()?,
            justification: self.justification.clone(),
            lifetime: self.lifetime_seconds.map(Duration::from_secs),
            uses: self.uses,
            principal: self.principal.as_ref().map(|name| name.parse()).transpose()?,
            confirmation: match self.confirm_by_identity {
                true => ConfirmBy::Identity,
                false => ConfirmBy::Key,
            },
        };
        Ok(Ticket { id: self.request_id.parse()?, key: SigningKey::from_bytes(&secret), ask })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    pub(crate) const NOW: u64 = 1_800_000_000_000;

    pub(crate) fn ask() -> Ask {
        let constraint = "order_id = \"o-17 \\u{202e}\"".parse().unwrap();
        let scope = Scope::new(["refund orders/prod/**".parse().unwrap()], [constraint]);
        Ask {
            audience: "spiffe://shop.test/gateway/orders".parse().unwrap(),
            scope: scope.unwrap(),
            task: "ticket-17".parse().unwrap(),
            purpose: "refund".parse().unwrap(),
            justification: "the parcel was lost".into(),
            lifetime: Some(Duration::from_secs(120)),
            uses: NonZeroU32::new(2),
            principal: Some("alice".parse().unwrap()),
            confirmation: ConfirmBy::Key,
        }
    }

    pub(crate) fn ticket() -> Ticket {
        Ticket::draw(ask(), Timestamp::from_ms(NOW).unwrap()).unwrap()
    }

    #[test]
    fn a_ticket_survives_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ticket) = (dir.path().join("ticket.json"), ticket());
        ticket.save(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let again = Ticket::load(&path).unwrap();
        assert_eq!(again.id(), ticket.id());
        assert_eq!(again.holder_key(), ticket.holder_key());
        assert_eq!(again.ask(), ticket.ask());
        let shown = format!("{:?}", ticket.ask());
        assert!(shown.contains("ticket-17") && !shown.contains("parcel"), "{shown}");
        assert!(again.filing().unwrap() == ticket.filing().unwrap());
    }

    #[test]
    fn a41_a_ticket_that_others_may_read_or_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("ticket.json"), dir.path().join("link.json"));
        ticket().save(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Ticket::load(&link).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Ticket::load(&path).is_err());
    }

    #[test]
    fn refuses_what_is_not_a_ticket() {
        let good = serde_json::to_value(ticket()).unwrap();
        assert!(serde_json::from_value::<Ticket>(good.clone()).is_ok());
        for (field, bad) in [
            ("version", serde_json::json!(2)),
            ("request_id", serde_json::json!("1")),
            ("holder_secret", serde_json::json!("00")),
            ("rights", serde_json::json!([])),
            ("uses", serde_json::json!(0)),
            ("more", serde_json::json!(0)),
        ] {
            let mut stored = good.clone();
            stored[field] = bad;
            assert!(serde_json::from_value::<Ticket>(stored).is_err(), "{field}");
        }
        let draw = |ask| Ticket::draw(ask, Timestamp::from_ms(NOW).unwrap()).is_err();
        assert!(draw(Ask { lifetime: Some(Duration::ZERO), ..ask() }));
        assert!(draw(Ask { lifetime: Some(Duration::from_millis(1500)), ..ask() }));
        assert!(draw(Ask { justification: "x".repeat(2049), ..ask() }));
    }
}
