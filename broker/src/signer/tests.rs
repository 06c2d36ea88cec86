use dayfly_verifier::claims::Claims;
use zeroize::Zeroizing;

use super::*;
use crate::core::event::Event;
use crate::journal::samples;

/// What the log would hold of the sample token.
fn minted(key: u32) -> Recorded<Minted> {
    let claims = samples::events().into_iter().find_map(|event| {
        let Event::TokenRecorded { claims, .. } = event else { return None };
        Some(claims)
    });
    let claims = Claims { key: KeyId(key), ..claims.unwrap() };
    let record =
        dayfly_verifier::claims::Record { epoch: samples::EPOCH, seq: dayfly_verifier::id::Seq(7) };
    Recorded::sample(Minted { claims, record })
}

fn key(id: u32, not_after: u64) -> TokenKey {
    let random = Zeroizing::new([u8::try_from(id).unwrap(); 64]);
    TokenKey::generate(KeyId(id), samples::time(not_after), &random).unwrap()
}

#[test]
fn a_key_that_ended_or_is_not_there_signs_nothing() {
    let signer = Signer::new([key(1, 1_000)]);
    let ended = signer.sign(&minted(1), samples::time(1_000));
    assert!(matches!(ended, Err(SignerError::Ended(KeyId(1)))));
    let absent = signer.sign(&minted(2), samples::time(0));
    assert!(matches!(absent, Err(SignerError::NoSuchKey(KeyId(2)))));
    assert_eq!(signer.present(|_| false), None);
}

#[test]
fn the_newest_key_that_may_sign_is_the_present_one() {
    let signer = Signer::new([key(1, 9_000), key(2, 2_000)]);
    signer.add(key(3, 1_000));
    let present = |refused: &[u32]| {
        let may = |key: &TokenKey| !refused.contains(&key.id().0);
        signer.present(may).map(|(id, end)| (id.0, end))
    };
    assert_eq!(present(&[]), Some((3, samples::time(1_000))));
    assert_eq!(present(&[3]), Some((2, samples::time(2_000))));
    assert_eq!(present(&[3, 2]), Some((1, samples::time(9_000))));
    assert_eq!(present(&[1, 2, 3]), None);
}

#[test]
fn the_first_key_of_a_number_stays() {
    let signer = Signer::new([key(1, 1_000_000)]);
    let bytes = || signer.sign(&minted(1), samples::time(0)).unwrap().expose().to_owned();
    let before = bytes();
    let other = Zeroizing::new([9; 64]);
    signer.add(TokenKey::generate(KeyId(1), samples::time(1_000_000), &other).unwrap());
    assert_eq!(bytes(), before);
}

#[test]
fn another_signer_with_the_same_key_gives_the_same_bytes() {
    let sign = |id| {
        let signer = Signer::new([key(id, 1_000_000)]);
        signer.sign(&minted(id), samples::time(0)).unwrap().expose().to_owned()
    };
    assert_eq!(sign(1), sign(1));
    assert!(sign(1) != sign(2));
}

#[test]
fn a41_a_key_file_is_for_its_owner_alone_and_is_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token-1.key");
    key(1, 1_000).write(&path).unwrap();
    assert!(key(1, 1_000).write(&path).is_err(), "never over another");
    let read = TokenKey::read(&path).unwrap();
    assert_eq!((read.id(), read.public()), (KeyId(1), key(1, 1_000).public()));
    let link = dir.path().join("link.key");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(TokenKey::read(&link).is_err());
    let secret = "ab".repeat(31);
    std::fs::write(&path, format!("key = 1\nprivate = \"{secret}\"")).unwrap();
    let refused = TokenKey::read(&path).err().unwrap().to_string();
    assert!(!refused.contains(&secret), "{refused}");
    let mut open = std::fs::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o640);
    key(1, 1_000).write(&dir.path().join("other.key")).unwrap();
    std::fs::set_permissions(dir.path().join("other.key"), open).unwrap();
    assert!(TokenKey::read(&dir.path().join("other.key")).is_err());
}
