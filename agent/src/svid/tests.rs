//! Certificates that must not pass, one fault each.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::*;
use crate::testing::{Ca, NOW, uri};

fn now() -> Timestamp {
    Timestamp::from_secs(NOW).unwrap()
}

fn check(side: Side, change: impl FnOnce(&mut CertificateParams)) -> Result<Peer, SvidError> {
    let ca = Ca::new();
    let (leaf, _) = ca.leaf(change);
    ca.bundle().check(&[leaf], side, now())
}

#[test]
fn a_certificate_in_order_says_who_it_is_and_until_when() {
    for side in [Side::Client, Side::Server] {
        let peer = check(side, |_| {}).unwrap();
        assert_eq!(peer.id.as_str(), "spiffe://a.test/agent");
        assert_eq!(peer.until.as_secs(), NOW + 3600);
        assert!(peer.key.is_some(), "an Ed25519 key can be a holder key");
    }
}

#[test]
fn a34_exactly_one_uri_name() {
    let names = |names: &[&str]| {
        let names = names.iter().map(|name| uri(name)).collect::<Vec<_>>();
        check(Side::Client, |params| params.subject_alt_names = names)
    };
    assert_eq!(names(&[]), Err(SvidError::UriNames(0)));
    let two = ["spiffe://a.test/agent", "spiffe://a.test/admin"];
    assert_eq!(names(&two), Err(SvidError::UriNames(2)));
    assert_eq!(names(&[two[0], two[0]]), Err(SvidError::UriNames(2)));
    for bad in ["https://a.test/agent", "spiffe://a.test", "spiffe://A.test/x", "spiffe://a.test//"]
    {
        assert!(matches!(names(&[bad]), Err(SvidError::Id(_))), "{bad}");
    }
    let dns = rcgen::SanType::DnsName("a.test".try_into().unwrap());
    let only_dns = check(Side::Client, |params| params.subject_alt_names = vec![dns.clone()]);
    assert_eq!(only_dns, Err(SvidError::UriNames(0)));
    assert!(check(Side::Client, |params| params.subject_alt_names.push(dns)).is_ok());
}

#[test]
fn a34_a_certificate_of_an_authority_is_no_leaf_and_a_leaf_is_no_root() {
    let ca = Ca::new();
    let as_ca = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    };
    assert_eq!(check(Side::Client, as_ca), Err(SvidError::Authority));
    let (leaf, _) = ca.leaf(|_| {});
    assert!(TrustBundle::new("a.test", vec![leaf]).is_err());
    assert!(TrustBundle::new("a.test", vec![]).is_err());
}

#[test]
fn a34_key_usage_is_digital_signature_and_never_certificates() {
    let usage = |usages: &[KeyUsagePurpose]| {
        let usages = usages.to_vec();
        check(Side::Client, |params| params.key_usages = usages)
    };
    let sign = KeyUsagePurpose::DigitalSignature;
    for bad in [
        &[][..],
        &[KeyUsagePurpose::KeyAgreement],
        &[sign, KeyUsagePurpose::KeyCertSign],
        &[sign, KeyUsagePurpose::CrlSign],
    ] {
        assert_eq!(usage(bad), Err(SvidError::KeyUsage), "{bad:?}");
    }
    assert!(usage(&[sign, KeyUsagePurpose::KeyAgreement]).is_ok());
}

#[test]
fn a34_extended_key_usage_binds_the_side() {
    let only = |usage: ExtendedKeyUsagePurpose, side| {
        check(side, |params| params.extended_key_usages = vec![usage])
    };
    let wrong = |checked| matches!(checked, Err(SvidError::Path(_)));
    assert!(wrong(only(ExtendedKeyUsagePurpose::ServerAuth, Side::Client)));
    assert!(wrong(only(ExtendedKeyUsagePurpose::ClientAuth, Side::Server)));
    assert!(wrong(only(ExtendedKeyUsagePurpose::CodeSigning, Side::Client)));
    assert!(only(ExtendedKeyUsagePurpose::ClientAuth, Side::Client).is_ok());
}

#[test]
fn a34_only_the_roots_of_its_own_trust_domain_vouch_for_an_id() {
    let ca = Ca::new();
    // The authority of `a.test` signs an ID of another domain: its own domain's roots do not help.
    let (foreign, _) = ca.leaf(|p| p.subject_alt_names = vec![uri("spiffe://b.test/agent")]);
    let checked = ca.bundle().check(&[foreign], Side::Client, now());
    assert_eq!(checked, Err(SvidError::TrustDomain));
    // Another authority of the same name signs an ID of this domain.
    let (forged, _) = Ca::new().leaf(|_| {});
    let checked = ca.bundle().check(&[forged], Side::Client, now());
    assert!(matches!(checked, Err(SvidError::Path(_))), "{checked:?}");
}

#[test]
fn a34_the_forger_brings_its_own_root_along() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (forged, _) = other.leaf(|_| {});
    let checked = ca.bundle().check(&[forged, other.root.clone()], Side::Client, now());
    assert!(matches!(checked, Err(SvidError::Path(_))), "{checked:?}");
}

#[test]
fn a34_expired_or_not_valid_yet() {
    let ca = Ca::new();
    let (leaf, _) = ca.leaf(|_| {});
    let at = |secs| {
        let at = Timestamp::from_secs(secs).unwrap();
        ca.bundle().check(std::slice::from_ref(&leaf), Side::Client, at).map(drop)
    };
    assert_eq!(at(NOW - 61), Err(SvidError::Expired));
    assert_eq!(at(NOW + 3600), Err(SvidError::Expired));
    assert_eq!(at(NOW + 3601), Err(SvidError::Expired));
    assert_eq!(at(NOW + 3599), Ok(()));
}

#[test]
fn a34_what_is_no_certificate_and_chains_without_end() {
    let ca = Ca::new();
    let (leaf, _) = ca.leaf(|_| {});
    let check = |chain: &[CertificateDer<'_>]| ca.bundle().check(chain, Side::Client, now());
    assert_eq!(check(&[]), Err(SvidError::Malformed));
    let longer: Vec<u8> = leaf.iter().copied().chain([0]).collect();
    assert_eq!(check(&[longer.into()]), Err(SvidError::Malformed));
    for end in [0, 1, leaf.len() / 2, leaf.len() - 1] {
        assert_eq!(check(&[leaf[..end].to_vec().into()]), Err(SvidError::Malformed), "{end}");
    }
    assert_eq!(check(&vec![leaf; MAX_CHAIN + 1]), Err(SvidError::ChainTooLong));
}

#[test]
fn ids_for_brokers_are_known_by_whole_segments() {
    let is = |id: &str| id.parse::<SpiffeId>().unwrap().is_broker();
    assert!(is("spiffe://a.test/dayfly/broker") && is("spiffe://a.test/dayfly/broker/2"));
    assert!(!is("spiffe://a.test/dayfly/brokers") && !is("spiffe://a.test/x/dayfly/broker"));
    assert!(!is("spiffe://a.test/dayfly") && !is("spiffe://dayfly/broker"));
}

#[test]
fn the_digest_of_a_bundle_depends_on_where_each_root_ends() {
    let der = |bytes: &[u8]| CertificateDer::from(bytes.to_vec());
    let digests = [
        TrustBundle::digest(&[der(b"ab"), der(b"c")]),
        TrustBundle::digest(&[der(b"a"), der(b"bc")]),
        TrustBundle::digest(&[der(b"abc")]),
        TrustBundle::digest(&[der(b"c"), der(b"ab")]),
    ];
    let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len());
}
