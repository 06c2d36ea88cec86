//! Conformance samples of the Biscuit project: none of them is a token of ours, and where the
//! container is inside the profile, signatures are judged as the library judges them.

use super::*;

const ROOT: &str = "1055c750b1a1505937af1537c626ba3263995c33a64758aaafb1275b0312e284";

/// A sample, and whether its signatures are good: `None` where its container is outside the
/// profile.
macro_rules! samples {
    ($($name:literal: $signed:expr,)*) => {
        [$(($name, include_bytes!(concat!("../../../tests/vectors/biscuit/", $name)).as_slice(),
            $signed)),*]
    };
}

#[test]
fn biscuit_samples_are_refused_and_their_signatures_judged_alike() {
    let samples: [(&str, &[u8], Option<bool>); 14] = samples! {
        "test001_basic.bc": Some(true),
        "test002_different_root_key.bc": Some(false),
        "test003_invalid_signature_format.bc": Some(false),
        "test004_random_block.bc": Some(false),
        "test005_invalid_signature.bc": Some(false),
        "test006_reordered_blocks.bc": Some(false),
        "test018_unbound_variables_in_rule.bc": Some(true),
        "test019_generating_ambient_from_variables.bc": Some(true),
        "test020_sealed.bc": None,
        "test024_third_party.bc": Some(true),
        "test026_public_keys_interning.bc": Some(true),
        "test029_reject_if.bc": Some(true),
        "test036_secp256r1.bc": Some(false),
        "test037_secp256r1_third_party.bc": Some(false),
    };
    let key = VerifyingKey::from_bytes(&hex::decode(ROOT).unwrap().try_into().unwrap()).unwrap();
    for (name, sample, signed) in samples {
        assert!(decode(sample).is_err(), "{name}");
        let container: schema::Biscuit = schema::read(sample).unwrap();
        let sealed = container.proof.final_signature.is_some();
        let ours = (!sealed).then(|| chain::check(&container, &key).is_ok());
        assert_eq!(ours, signed, "{name}");
        let root = PublicKey::from_bytes_hex(ROOT, Algorithm::Ed25519).unwrap();
        let p256 = name.contains("secp256r1");
        if let (Some(ours), false) = (ours, p256) {
            assert_eq!(ours, Biscuit::from(sample, root).is_ok(), "{name}");
        }
    }
    assert_eq!(decode(samples[8].1).err(), Some(Malformed::Sealed));
}
