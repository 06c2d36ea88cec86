//! Signs decisions with a person's own key: one in a running ssh-agent, or one in a file.
//!
//! Only Ed25519 keys sign, in software or on a FIDO token. A key file must be closed to everybody
//! else; one behind a passphrase, or on a FIDO token, is used through the agent that holds it. The
//! key never leaves its place, and every signature is verified before it is handed on.

use std::path::{Path, PathBuf};

use dayfly_verifier::dossier::{BadSignature, verify_sshsig};
use dayfly_verifier::request::SignerKey;
use ssh_agent_client_rs::{Client, Identity};
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::files::{FileError, read_secret, read_text};

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum CannotSign {
    /// The key file is not used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("`{}` is not an OpenSSH key", .0.display())]
    NotAKey(PathBuf),
    /// Keys of this kind do not sign.
    #[error(
        "a key of the kind {0} does not sign decisions: it must be ssh-ed25519 or sk-ssh-ed25519"
    )]
    Kind(String),
    /// No key was named, or one of an ssh-agent, and none runs.
    #[error("no ssh-agent to ask (SSH_AUTH_SOCK is not set)")]
    NoAgent,
    /// The key in this file does not sign without an ssh-agent: it has a passphrase, or is a
    /// security key; and none runs.
    #[error("`{}` signs by an ssh-agent alone, and none runs (SSH_AUTH_SOCK is not set)", .0.display())]
    Protected(PathBuf),
    /// The agent cannot be asked.
    #[error("the ssh-agent does not answer")]
    Agent(#[source] ssh_agent_client_rs::Error),
    /// The agent does not have the key, or its owner did not let it sign.
    #[error("the ssh-agent does not sign with `{0}`")]
    Refused(SignerKey),
    /// The agent has no key that could sign.
    #[error("the ssh-agent holds no key of the kind ssh-ed25519 or sk-ssh-ed25519")]
    NoKey,
    /// The agent has several, and none was named.
    #[error("the ssh-agent holds several keys that could sign: {}", list(.0))]
    Several(Vec<SignerKey>),
    /// What came back is not a signature by the key over what was to be signed.
    #[error("the signature that was made does not hold: {0}")]
    Bad(BadSignature),
    /// The key could not be used.
    #[error("the key could not be used")]
    Key(#[source] ssh_key::Error),
}

fn list(keys: &[SignerKey]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// A key that signs for its person.
pub struct Signer {
    key: SignerKey,
    place: Place,
}

enum Place {
    File(Box<PrivateKey>),
    Agent(Client, PublicKey),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.key)
    }
}

impl Signer {
    /// The key in the file at `path`, mode 0600: without a passphrase, or else the agent at the
    /// socket `agent` must hold it too. A file that ends in `.pub` names a key of the agent.
    pub fn from_file(path: &Path, agent: Option<&Path>) -> Result<Self, CannotSign> {
        let not_a_key = || CannotSign::NotAKey(path.to_owned());
        if path.extension().is_some_and(|extension| extension == "pub") {
            let public = read_text(path)?;
            let public = PublicKey::from_openssh(&public).map_err(|_| not_a_key())?;
            return Self::held_by(agent, public);
        }
        let secret = PrivateKey::from_openssh(&*read_secret(path)?).map_err(|_| not_a_key())?;
        let key = signer_key(secret.public_key())?;
        if secret.algorithm() == Algorithm::Ed25519 && !secret.is_encrypted() {
            return Ok(Self { key, place: Place::File(Box::new(secret)) });
        }
        if agent.is_none() {
            return Err(CannotSign::Protected(path.to_owned()));
        }
        Self::held_by(agent, secret.public_key().clone())
    }

    /// The only key that could sign of the agent at the socket `agent`.
    pub fn from_agent(agent: Option<&Path>) -> Result<Self, CannotSign> {
        let mut client = connect(agent)?;
        let held = client.list_all_identities().map_err(CannotSign::Agent)?;
        let mut able: Vec<(SignerKey, PublicKey)> = held
            .into_iter()
            .filter_map(|identity| match identity {
                Identity::PublicKey(public) => Some(public.into_owned()),
                Identity::Certificate(_) => None,
            })
            .filter_map(|public| Some((signer_key(&public).ok()?, public)))
            .collect();
        match able.pop() {
            None => Err(CannotSign::NoKey),
            Some((key, public)) if able.is_empty() => {
                Ok(Self { key, place: Place::Agent(client, public) })
            }
            Some(last) => Err(CannotSign::Several(
                able.into_iter().chain([last]).map(|(key, _)| key).collect(),
            )),
        }
    }

    fn held_by(agent: Option<&Path>, public: PublicKey) -> Result<Self, CannotSign> {
        let key = signer_key(&public)?;
        Ok(Self { key, place: Place::Agent(connect(agent)?, public) })
    }

    /// The key, as `people.toml` lists it.
    #[must_use]
    pub const fn key(&self) -> &SignerKey {
        &self.key
    }

    /// Signs `message` in `namespace`: an armoured SSHSIG, as of `ssh-keygen -Y sign`. Waits where
    /// the agent asks its owner, or for the touch of a FIDO token.
    pub fn sign(&mut self, namespace: &str, message: &[u8]) -> Result<String, CannotSign> {
        let hash = HashAlg::Sha512;
        let made = match &mut self.place {
            Place::File(secret) => secret.sign(namespace, hash, message),
            Place::Agent(client, public) => {
                let data =
                    SshSig::signed_data(namespace, hash, message).map_err(CannotSign::Key)?;
                let signature = client.sign(&*public, &data).map_err(|error| {
                    if matches!(error, ssh_agent_client_rs::Error::RemoteFailure) {
                        CannotSign::Refused(self.key.clone())
                    } else {
                        CannotSign::Agent(error)
                    }
                })?;
                SshSig::new(public.key_data().clone(), namespace, hash, signature)
            }
        };
        let armoured =
            made.and_then(|made| made.to_pem(LineEnding::LF)).map_err(CannotSign::Key)?;
        let signed = verify_sshsig(namespace, message, &armoured).map_err(CannotSign::Bad)?;
        if signed.key == self.key {
            Ok(armoured)
        } else {
            Err(CannotSign::Bad(BadSignature::Mismatch))
        }
    }
}

fn connect(agent: Option<&Path>) -> Result<Client, CannotSign> {
    Client::connect(agent.ok_or(CannotSign::NoAgent)?).map_err(CannotSign::Agent)
}

fn signer_key(public: &PublicKey) -> Result<SignerKey, CannotSign> {
    let line = public.to_openssh().map_err(CannotSign::Key)?;
    line.parse().map_err(|_| CannotSign::Kind(public.algorithm().to_string()))
}

#[cfg(test)]
mod tests;
