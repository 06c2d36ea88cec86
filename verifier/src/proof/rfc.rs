//! The examples of RFC 9449. They are signed with ES256, which is no algorithm of ours: they are
//! read as far as the name of the algorithm, and refused by it. With an Ed25519 key in the place of
//! theirs, what they say is checked to the end.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use super::{ActDigest, DpopProof, DpopWanted, ProofFault};
use crate::time::Timestamp;

/// The header of both examples.
const HEADER: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4\
    dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VO\
    SmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19";
/// Section 4.1, figure 2: a request for a token.
const TOKEN_REQUEST: (&str, &str) = (
    "eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUu\
     Y29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ",
    "2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg",
);
/// Section 7.1, figure 13: a request for a protected resource.
const RESOURCE_REQUEST: (&str, &str) = (
    "eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxl\
     Lm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0Ji\
     MHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9",
    "2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA",
);
/// The token of section 7.1.
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const ISSUED: u64 = 1_562_262_618;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

/// A proof of ours that says `claims`, byte for byte.
fn by_ed25519(claims: &str, alg: &str) -> String {
    let x = URL_SAFE_NO_PAD.encode(key().verifying_key().as_bytes());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
    let header = json!({ "typ": "dpop+jwt", "alg": alg, "jwk": jwk });
    let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(key().sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}

/// How a proof is judged for the request of section 7.1.
fn judged(proof: &str, method: &str, path: &str, token: &str, now: u64) -> Result<(), ProofFault> {
    let holder = key().verifying_key();
    let act = || {
        let [operation, resource] = ["get", "protectedresource"];
        let audience = "spiffe://example.org/resource".parse().unwrap();
        let (operation, resource) = (operation.parse().unwrap(), resource.parse().unwrap());
        ActDigest::of(&audience, &operation, &resource, &Default::default())
    };
    DpopProof::read(proof)?.check(&DpopWanted {
        holder: &holder,
        method,
        base: &"https://resource.example.org".parse().unwrap(),
        path,
        token,
        act: &act,
        act_required: false,
        now: Timestamp::from_secs(now).unwrap(),
    })
}

#[test]
fn the_examples_are_refused_by_the_name_of_their_algorithm() {
    for (claims, signature) in [TOKEN_REQUEST, RESOURCE_REQUEST] {
        let proof = format!("{HEADER}.{claims}.{signature}");
        let refused = DpopProof::read(&proof).err();
        assert_eq!(refused, Some(ProofFault::Algorithm));
        assert!(refused.unwrap().to_string().contains("EdDSA"));
    }
    // Whatever the algorithm, and however long its signatures are; `none` has none at all.
    for alg in ["ES256", "ES384", "RS256", "PS512", "HS256", "none", "None", "eddsa", "Ed25519", ""]
    {
        let proof = by_ed25519(RESOURCE_REQUEST.0, alg);
        let unsigned = &proof[..=proof.rfind('.').unwrap()];
        for proof in [proof.clone(), unsigned.to_owned(), format!("{unsigned}{}", "A".repeat(342))]
        {
            assert_eq!(DpopProof::read(&proof).err(), Some(ProofFault::Algorithm), "{alg}");
        }
    }
}

#[test]
fn what_the_example_of_a_protected_resource_says_is_checked_to_the_end() {
    let proof = by_ed25519(RESOURCE_REQUEST.0, "EdDSA");
    let (get, path) = ("GET", "/protectedresource");
    assert_eq!(judged(&proof, get, path, TOKEN, ISSUED), Ok(()), "its `ath` is that of its token");
    let other = TOKEN.replace('~', "-");
    assert_eq!(judged(&proof, get, path, &other, ISSUED), Err(ProofFault::Token));
    assert_eq!(judged(&proof, "get", path, TOKEN, ISSUED), Err(ProofFault::Method));
    assert_eq!(judged(&proof, get, "/protectedresource/", TOKEN, ISSUED), Err(ProofFault::Url));
    assert_eq!(judged(&proof, get, path, TOKEN, ISSUED + 31), Err(ProofFault::Time));
    // A proof without `ath` is one for a token endpoint, and none for a resource (section 4.3).
    let bare = by_ed25519(TOKEN_REQUEST.0, "EdDSA");
    assert_eq!(DpopProof::read(&bare).err(), Some(ProofFault::Claims));
}

/// Section 8: the same claims with the nonce of the server.
#[test]
fn the_nonce_of_the_example_is_read() {
    let claims = URL_SAFE_NO_PAD.decode(RESOURCE_REQUEST.0).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["nonce"] = "eyJ7S_zG.eyJH0-Z.HX4w-7v".into();
    let proof = by_ed25519(&URL_SAFE_NO_PAD.encode(claims.to_string()), "EdDSA");
    let proof = DpopProof::read(&proof).unwrap();
    assert_eq!(proof.nonce(), Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"));
}
