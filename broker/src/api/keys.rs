//! The signing keys: which one signs, how each stands, and taking new ones up.
//!
//! A token key is used first when no gateway can refuse it for not knowing it. It gets there in
//! steps that each show: its file lies on the broker's host, the trust root lists it, the log has
//! it, and every gateway has acknowledged the statement. A feed key has no place in the log: it
//! has to be known to those alone who follow this broker, and who does not know it fetches the
//! statement.

use std::sync::Arc;
use std::time::Duration;

use dayfly_proto::v1::{self, KeyStanding};
use dayfly_verifier::id::KeyId;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::trust::ListedKey;
use tonic::Status;

use super::{Broker, render, status};
use crate::core::command::{Caller, Command};
use crate::core::state::{SigningKey, State};
use crate::found::{feed_keys, read_statement, token_keys};
use crate::sequencer::Failure;
use crate::signer::TokenKey;

/// How long after a statement was taken here nobody who follows a peer allows anything without it:
/// the peer finds it within seconds, and cuts an instance that does not take it up within its
/// bound; within that bound again the instance refuses by itself.
const AT_PEERS: Duration = Duration::from_secs(125);

impl Broker {
    /// The key to sign with now, and its end: the highest number that the log lets sign, and that
    /// was used before or that every gateway knows.
    #[must_use]
    pub fn signing_key(&self, state: &State) -> Option<(KeyId, Timestamp)> {
        let now = self.now(state);
        self.signer.present(|key| {
            let listed = state.keys.get(&key.id()).filter(|listed| is(listed, key));
            listed.is_some_and(|listed| listed.signs(now) && self.may_use(state, key.id(), listed))
        })
    }

    fn may_use(&self, state: &State, key: KeyId, listed: &SigningKey) -> bool {
        // The first key of all stands in the first statement: there is none older to believe.
        let at_peers = self.peers.is_empty()
            || !state.keys.values().any(|key| key.used)
            || self.hub.trust().age(self.hub.uptime()) >= AT_PEERS;
        listed.used || (at_peers && self.hub.is_known_everywhere(key))
    }

    /// Takes up what has come to the broker's directory: keys, and a newer statement of the trust
    /// root. What cannot be read, or does not follow, changes nothing and is tried again later: why
    /// is what is given back.
    pub async fn take_up_keys(&self) -> Vec<String> {
        let (dir, keys, held) = (self.dir.clone(), self.keys.clone(), self.signer.keys());
        let feed_held = self.hub.keys.held();
        let found = tokio::task::spawn_blocking(move || {
            let new = token_keys(&keys, |id| held.contains_key(id));
            let new_feed = feed_keys(&keys, |id| feed_held.contains_key(id));
            (read_statement(&dir), new, new_feed)
        });
        let Ok((statement, new, new_feed)) = found.await else { return Vec::new() };
        let mut left = Vec::new();
        match new {
            Ok(keys) => keys.into_iter().for_each(|key| self.signer.add(key)),
            Err(error) => left.push(error.to_string()),
        }
        match new_feed {
            Ok(keys) => keys.into_iter().for_each(|key| self.hub.keys.add(key)),
            Err(error) => left.push(error.to_string()),
        }
        let taken = statement.map_err(|error| error.to_string()).and_then(|(signed, statement)| {
            let version = statement.version;
            let taken = self.hub.take_trust(signed, statement);
            taken.map(|new| new.then_some(version)).map_err(|error| error.to_string())
        });
        match taken {
            Ok(Some(version)) => tracing::info!(version, "a statement of the trust root was taken"),
            Ok(None) => {}
            Err(error) => left.push(format!("the trust statement: {error}")),
        }
        match self.hub.take_feed_key() {
            Ok(Some(key)) => tracing::info!(%key, "another key signs the feed"),
            Ok(None) => {}
            Err(error) => left.push(error.to_string()),
        }
        for key in self.signer.keys().values() {
            left.extend(self.list(key).await);
        }
        left
    }

    /// Has the log list a key that the trust root lists; says why it does not.
    async fn list(&self, key: &TokenKey) -> Option<String> {
        let (id, state) = (key.id(), self.sequencer.state());
        let trust = self.hub.trust();
        let listed = trust.statement().token_keys.get(&id);
        let same = |listed: &&ListedKey| {
            listed.public == key.public() && listed.not_after == key.not_after()
        };
        if listed.filter(same).is_none() || state.keys.contains_key(&id) {
            return None;
        }
        let (public, not_after) = (key.public(), key.not_after());
        let caller = Caller { id: self.id.clone(), until: not_after };
        let added = self.sequencer.submit(Command::AddKey { key: id, public, not_after }, caller);
        match added.await {
            Ok(_) => {
                tracing::info!(key = %id, "a token-signing key was added");
                None
            }
            Err(Failure::Denied(error)) => Some(format!("key {id}: {error}")),
            Err(Failure::Fault(error)) => Some(format!("key {id}: {error}")),
        }
    }
}

/// Whether the log lists this very key.
fn is(listed: &SigningKey, key: &TokenKey) -> bool {
    listed.public == key.public() && listed.not_after == key.not_after()
}

/// Every key that the log or the trust root lists.
pub(super) fn list(broker: &Broker) -> v1::ListKeysResponse {
    let state = broker.sequencer.state();
    let (now, trust) = (broker.now(&state), broker.hub.trust());
    let signing = broker.signing_key(&state).map(|(key, _)| key);
    let ahead = trust.statement().token_keys.iter();
    let ahead = ahead.map(|(id, key)| (*id, SigningKey::new(key.public, key.not_after)));
    let mut all: std::collections::BTreeMap<KeyId, SigningKey> = ahead.collect();
    all.extend(state.keys.iter().map(|(id, key)| (*id, key.clone())));
    let keys = all.iter().map(|(id, key)| {
        let held = broker.signer.keys().get(id).is_some_and(|held| is(key, held));
        let ready = held && state.keys.contains_key(id) && broker.may_use(&state, *id, key);
        let standing = match () {
            () if key.revoked => KeyStanding::Killed,
            () if key.retired => KeyStanding::Retired,
            () if now >= key.not_after => KeyStanding::Ended,
            () if signing == Some(*id) => KeyStanding::Signing,
            () if ready => KeyStanding::Ready,
            () => KeyStanding::Waiting,
        };
        let listed = ListedKey { public: key.public, not_after: key.not_after };
        shown(*id, &listed, standing, held, broker.hub.known_by(*id))
    });
    let present = broker.hub.feed_key().map(|(key, _)| key);
    let feed_keys = trust.statement().feed_keys.iter().map(|(id, key)| {
        let held = broker.hub.has_feed_key(*id, key);
        let (known_by, instances) = broker.hub.feed_key_known_by(*id);
        let standing = match () {
            () if now >= key.not_after => KeyStanding::Ended,
            () if present == Some(*id) => KeyStanding::Signing,
            () if held && known_by == instances => KeyStanding::Ready,
            () => KeyStanding::Waiting,
        };
        shown(*id, key, standing, held, (known_by, instances))
    });
    v1::ListKeysResponse {
        keys: keys.collect(),
        trust_version: trust.statement().version,
        feed_keys: feed_keys.collect(),
    }
}

fn shown(
    id: KeyId,
    listed: &ListedKey,
    standing: KeyStanding,
    held: bool,
    (known_by, instances): (usize, usize),
) -> v1::SigningKey {
    v1::SigningKey {
        key: id.0,
        public_key: listed.public.to_string(),
        not_after_ms: render::ms(listed.not_after),
        standing: standing.into(),
        held,
        known_by: u32::try_from(known_by).unwrap_or(u32::MAX),
        instances: u32::try_from(instances).unwrap_or(u32::MAX),
    }
}

/// Lets a key sign nothing more.
pub(super) async fn retire(
    broker: &Arc<Broker>,
    caller: Caller,
    message: v1::RetireKeyRequest,
) -> Result<v1::RetireKeyResponse, Status> {
    let v1::RetireKeyRequest { key } = message;
    let retired = broker.sequencer.submit(Command::RetireKey(KeyId(key)), caller).await;
    let state = retired.map_err(|failure| status::failure(&failure))?;
    tracing::info!(key, "a token-signing key was retired");
    Ok(v1::RetireKeyResponse { head: Some(render::head(&state.head)) })
}
