//! Signatures of ours against stock OpenSSH, and its against ours.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use dayfly_verifier::dossier::DECISION_NAMESPACE;
use tempfile::TempDir;

use super::*;

const STATEMENT: &[u8] = b"{\"decision\":\"approve\"}";

fn keygen(dir: &TempDir, name: &str, kind: &str, passphrase: &str) -> PathBuf {
    let path = dir.path().join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-C", "somebody", "-N", passphrase, "-f"])
        .arg(&path)
        .status();
    assert!(made.unwrap().success());
    path
}

fn public(path: &Path) -> String {
    std::fs::read_to_string(path.with_extension("pub")).unwrap()
}

/// Whether stock `ssh-keygen -Y verify` accepts `signature` over `message` by the key of `signer`.
fn stock_verifies(dir: &TempDir, signer: &Path, message: &[u8], signature: &str) -> bool {
    let allowed = dir.path().join("allowed");
    std::fs::write(&allowed, format!("alice {}", public(signer))).unwrap();
    let file = dir.path().join("statement.sig");
    std::fs::write(&file, signature).unwrap();
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-I", "alice", "-n", DECISION_NAMESPACE, "-f"])
        .arg(&allowed)
        .arg("-s")
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(message).unwrap();
    child.wait().unwrap().success()
}

/// A real ssh-agent on a socket of its own, ended with the test.
struct Agent {
    process: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(dir: &TempDir) -> Self {
        let socket = dir.path().join("agent");
        let mut process = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says where it listens once it does.
        let mut said = std::io::BufReader::new(process.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
        Self { process, socket }
    }

    fn add(&self, key: &Path) {
        let mut add = Command::new("ssh-add");
        let added = add.env("SSH_AUTH_SOCK", &self.socket).arg("-q").arg(key).status();
        assert!(added.unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a41_a_key_file_that_others_could_read_or_that_is_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let key = keygen(&dir, "key", "ed25519", "");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&key, &link).unwrap();
    assert!(matches!(Signer::from_file(&link, None), Err(CannotSign::File(_))));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Signer::from_file(&key, None), Err(CannotSign::File(_))));
    assert!(Signer::from_file(&dir.path().join("absent"), None).is_err());
}

#[test]
fn other_kinds_of_keys_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, name) in [("rsa", "ssh-rsa"), ("ecdsa", "ecdsa-sha2-nistp256")] {
        let key = keygen(&dir, kind, kind, "");
        for path in [key.clone(), key.with_extension("pub")] {
            let refused = Signer::from_file(&path, None).unwrap_err();
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }
    let text = dir.path().join("text");
    std::fs::write(&text, "not a key").unwrap();
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(Signer::from_file(&text, None), Err(CannotSign::NotAKey(_))));
}

#[test]
fn a_key_behind_a_passphrase_needs_an_agent_that_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = keygen(&dir, "key", "ed25519", "secret");
    assert!(matches!(Signer::from_file(&key, None), Err(CannotSign::Protected(_))));
    let nobody = dir.path().join("nobody");
    assert!(matches!(Signer::from_file(&key, Some(&nobody)), Err(CannotSign::Agent(_))));
    let agent = Agent::start(&dir);
    let mut signer = Signer::from_file(&key, Some(&agent.socket)).unwrap();
    let refused = signer.sign(DECISION_NAMESPACE, STATEMENT);
    assert!(matches!(refused, Err(CannotSign::Refused(_))));
}

#[test]
fn an_agent_with_no_key_or_with_several_is_not_guessed_at() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Signer::from_agent(None), Err(CannotSign::NoAgent)));
    let agent = Agent::start(&dir);
    agent.add(&keygen(&dir, "rsa", "rsa", ""));
    assert!(matches!(Signer::from_agent(Some(&agent.socket)), Err(CannotSign::NoKey)));
    let (one, two) = (keygen(&dir, "one", "ed25519", ""), keygen(&dir, "two", "ed25519", ""));
    agent.add(&one);
    assert!(Signer::from_agent(Some(&agent.socket)).is_ok());
    agent.add(&two);
    let several = Signer::from_agent(Some(&agent.socket));
    assert!(matches!(several, Err(CannotSign::Several(keys)) if keys.len() == 2));
    let named = Signer::from_file(&two.with_extension("pub"), Some(&agent.socket)).unwrap();
    assert!(public(&two).starts_with(named.key().as_str()));
}

#[test]
fn stock_openssh_accepts_what_a_key_file_signs() {
    let dir = tempfile::tempdir().unwrap();
    let key = keygen(&dir, "key", "ed25519", "");
    let mut signer = Signer::from_file(&key, None).unwrap();
    let signature = signer.sign(DECISION_NAMESPACE, STATEMENT).unwrap();
    assert!(!stock_verifies(&dir, &key, b"another statement", &signature));
    let elsewhere = signer.sign("file", STATEMENT).unwrap();
    assert!(!stock_verifies(&dir, &key, STATEMENT, &elsewhere));
    assert!(stock_verifies(&dir, &key, STATEMENT, &signature));
}

#[test]
fn stock_openssh_accepts_what_a_real_agent_signs_for_us() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(&dir);
    let key = keygen(&dir, "key", "ed25519", "");
    agent.add(&key);
    let mut signer = Signer::from_agent(Some(&agent.socket)).unwrap();
    assert!(public(&key).starts_with(signer.key().as_str()));
    let signature = signer.sign(DECISION_NAMESPACE, STATEMENT).unwrap();
    assert!(!stock_verifies(&dir, &key, b"another statement", &signature));
    assert!(stock_verifies(&dir, &key, STATEMENT, &signature));
}

#[test]
fn we_accept_what_stock_openssh_signs() {
    let dir = tempfile::tempdir().unwrap();
    let key = keygen(&dir, "key", "ed25519", "");
    for hash in ["sha256", "sha512"] {
        let mut child = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", DECISION_NAMESPACE, "-O"])
            .arg(format!("hashalg={hash}"))
            .arg("-f")
            .arg(&key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(STATEMENT).unwrap();
        let signature = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(verify_sshsig("file", STATEMENT, &signature).is_err());
        assert!(verify_sshsig(DECISION_NAMESPACE, b"another", &signature).is_err());
        let signed = verify_sshsig(DECISION_NAMESPACE, STATEMENT, &signature).unwrap();
        assert!(public(&key).starts_with(signed.key.as_str()));
        assert!(!signed.presence);
    }
}
