//! Directories that must not be used, and crashes between any two files.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::testing::{Ca, uri};

/// An SVID for the key, as the authority answers.
fn svid(ca: &Ca, key: &NewKey, id: &str) -> Svid {
    let csr = rustls_pki_types::CertificateSigningRequestDer::from(key.csr());
    let request = rcgen::CertificateSigningRequestParams::from_der(&csr).unwrap();
    let chain = [ca.sign(&request.public_key, |p| p.subject_alt_names = vec![uri(id)])];
    Svid {
        spiffe_id: id.to_owned(),
        chain_der: chain.iter().map(|der| der.to_vec().into()).collect(),
        trust_bundle_der: vec![ca.root.to_vec().into()],
        not_after_ms: 0,
        generation: 1,
        brokers: vec!["spiffe://a.test/dayfly/broker".to_owned()],
    }
}

const ID: &str = "spiffe://a.test/agent";

fn kept() -> (tempfile::TempDir, IdentityDir, Ca) {
    let (temp, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let dir = IdentityDir::create(&temp.path().join("id")).unwrap();
    let key = NewKey::generate().unwrap();
    let addresses = vec!["127.0.0.1:7443".to_owned()];
    dir.keep(&svid(&ca, &key, ID), &key, Keep::First { addresses }).unwrap();
    (temp, dir, ca)
}

#[test]
fn what_was_kept_is_loaded() {
    let (_temp, dir, _) = kept();
    assert_eq!(dir.load().unwrap().id().as_str(), ID);
    let (brokers, addresses) = dir.brokers().unwrap();
    assert_eq!(brokers[0].as_str(), "spiffe://a.test/dayfly/broker");
    assert_eq!(addresses, ["127.0.0.1:7443"]);
    assert!(matches!(IdentityDir::create(dir.path()), Err(IdentityError::Taken(_))));
}

#[test]
fn a41_a_key_that_others_can_read_or_that_is_a_link_is_refused() {
    let (temp, dir, _) = kept();
    let key = dir.file("key.pem");
    for mode in [0o640, 0o604, 0o644] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(dir.load(), Err(IdentityError::File(_))), "{mode:o}");
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(dir.load().is_ok());
    let elsewhere = temp.path().join("elsewhere");
    std::fs::rename(&key, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &key).unwrap();
    assert!(matches!(dir.load(), Err(IdentityError::File(FileError::Refused { .. }))));
}

#[test]
fn a41_a_bundle_that_others_can_write_is_refused() {
    let (_temp, dir, _) = kept();
    for name in ["bundle.pem", "svid.pem"] {
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(dir.file(name), mode).unwrap();
        };
        mode(0o666);
        assert!(dir.load().is_err(), "{name}");
        mode(0o644);
    }
    std::fs::set_permissions(dir.file("identity.toml"), std::fs::Permissions::from_mode(0o622))
        .unwrap();
    assert!(dir.brokers().is_err());
}

#[test]
fn a_crash_in_a_renewal_leaves_the_old_identity_or_the_new_one() {
    let (_temp, dir, ca) = kept();
    let old = dir.load().unwrap();
    let next = dir.next_key(&old).unwrap();
    assert_eq!(dir.load().unwrap().as_peer(), old.as_peer(), "the next key is only waiting");
    let again = dir.next_key(&old).unwrap();
    assert_eq!(again.csr(), next.csr(), "asked again, it is the same renewal");
    // The certificate is in place, the key not yet.
    let new = svid(&ca, &next, ID);
    let chain: Vec<_> = new.chain_der.iter().map(der).collect();
    files::write_public(&dir.file("svid.pem"), pem(&chain).as_bytes()).unwrap();
    let between = dir.load().unwrap();
    assert_ne!(between.as_peer().key_digest, old.as_peer().key_digest);
    dir.keep(&new, &next, Keep::After(&old)).unwrap();
    assert_eq!(dir.load().unwrap().as_peer(), between.as_peer());
    assert!(!dir.file("next-key.pem").exists());
}

#[test]
fn a_crash_at_the_end_of_a_renewal_does_not_stand_in_the_way_of_the_next_one() {
    // After the certificate and before its key; after its key and before the end.
    for key_too in [false, true] {
        let (_temp, dir, ca) = kept();
        let next = dir.next_key(&dir.load().unwrap()).unwrap();
        let chain: Vec<_> = svid(&ca, &next, ID).chain_der.iter().map(der).collect();
        files::write_public(&dir.file("svid.pem"), pem(&chain).as_bytes()).unwrap();
        if key_too {
            files::write_secret(&dir.file("key.pem"), next.pem.as_bytes()).unwrap();
        }
        let renewed = dir.load().unwrap();
        let after = dir.next_key(&renewed).unwrap();
        assert_ne!(after.csr(), next.csr(), "an SVID is asked for with the key that has one");
        assert_eq!(dir.load().unwrap().as_peer(), renewed.as_peer(), "the key in use is gone");
        assert_eq!(dir.next_key(&renewed).unwrap().csr(), after.csr(), "it is the same renewal");
    }
}

/// It could not be read back, and nobody would be spoken to any more.
#[test]
fn an_svid_that_names_no_brokers_is_not_kept() {
    let (_temp, dir, ca) = kept();
    let old = dir.load().unwrap();
    for brokers in [vec![], vec!["broker".to_owned()]] {
        let next = dir.next_key(&old).unwrap();
        let renewed = Svid { brokers, ..svid(&ca, &next, ID) };
        let refused = dir.keep(&renewed, &next, Keep::After(&old)).unwrap_err();
        assert!(refused.to_string().contains("identity.toml"), "{refused}");
        assert_eq!(dir.load().unwrap().as_peer(), old.as_peer());
        assert_eq!(dir.brokers().unwrap().0[0].as_str(), "spiffe://a.test/dayfly/broker");
    }
}

#[test]
fn a59_a_key_that_does_not_belong_to_the_certificate_is_refused() {
    let (_temp, dir, ca) = kept();
    let other = NewKey::generate().unwrap();
    files::write_secret(&dir.file("key.pem"), other.pem.as_bytes()).unwrap();
    assert!(matches!(dir.load(), Err(IdentityError::Invalid { .. })));
    // Nor is an SVID kept that is for another key, or another ID.
    let (mine, theirs) = (NewKey::generate().unwrap(), svid(&ca, &other, ID));
    let before = ca.identity(ID);
    assert!(dir.keep(&theirs, &mine, Keep::After(&before)).is_err());
    let somebody = svid(&ca, &mine, "spiffe://a.test/somebody");
    assert!(dir.keep(&somebody, &mine, Keep::After(&before)).is_err());
}
