//! Fixed bytes: a token written today is read for ever, and the library writes the same.

use super::*;

const GOLDEN: [(&str, &str); 4] = [
    ("minimal", include_str!("../../../tests/vectors/token/minimal.txt")),
    ("full", include_str!("../../../tests/vectors/token/full.txt")),
    ("attenuated", include_str!("../../../tests/vectors/token/attenuated.txt")),
    ("delegated", include_str!("../../../tests/vectors/token/delegated.txt")),
];

fn caveats() -> Vec<Caveat> {
    vec![
        Caveat::Before(Timestamp::from_secs(ISSUED + 60).unwrap()),
        Caveat::Operation(BTreeSet::from(["refund".parse().unwrap()])),
        Caveat::Below("orders/prod/eu".parse().unwrap()),
        Caveat::Argument(constraint("amount", Limit::AtMost(100))),
        Caveat::Gateway(BTreeSet::from([GATEWAY.parse().unwrap()])),
        Caveat::Task(["ticket-17", "ticket-18"].map(|t| t.parse().unwrap()).into()),
        Caveat::Resource(BTreeSet::from(["orders/prod/eu/1".parse().unwrap()])),
    ]
}

fn written(name: &str) -> Token {
    match name {
        "minimal" => mint(&claims(), &record(), &signer()).unwrap(),
        "full" => mint(&full_claims(), &record(), &signer()).unwrap(),
        "attenuated" => attenuate(&minted(&claims()), &caveats(), &fresh(1)).unwrap(),
        "delegated" => {
            let attenuated = Decoded::read(written("attenuated").expose()).unwrap();
            let to = holder_key(1);
            let delegated = delegate(&attenuated, &holder(0), &to, &caveats()[3..4], &fresh(2));
            let delegated = Decoded::read(delegated.unwrap().expose()).unwrap();
            attenuate(&delegated, &caveats()[..2], &fresh(3)).unwrap()
        }
        _ => unreachable!("not a golden token"),
    }
}

#[test]
fn tokens_have_the_bytes_that_they_always_had() {
    for (name, golden) in GOLDEN {
        assert_eq!(written(name).expose(), golden.trim_end(), "{name}");
        let token = Decoded::read(golden.trim_end()).unwrap();
        assert!(token.check(&root()).is_ok(), "{name}");
    }
}

#[test]
fn minting_again_yields_the_same_bytes_and_other_claims_other_keys() {
    let token = |claims: &Claims, record: &Record| {
        bytes(&Decoded::read(mint(claims, record, &signer()).unwrap().expose()).unwrap())
    };
    let first = token(&claims(), &record());
    assert_eq!(first, token(&claims(), &record()));
    let later = Record { seq: Seq(43), ..record() };
    let (a, b) = (decode(&first).unwrap(), decode(&token(&claims(), &later)).unwrap());
    assert!(a.container.proof != b.container.proof);
}

#[test]
fn what_a_token_says_comes_back() {
    for claims in [claims(), full_claims(), Claims { holder: Confirmation::Identity, ..claims() }] {
        let token = minted(&claims).check(&root()).unwrap();
        assert!(token.content().claims == claims && token.content().record == record());
        assert_eq!(token.content().holder(), claims.holder);
        assert_eq!(token.content().block_ids().count(), 1);
    }
    let token = Decoded::read(written("delegated").expose()).unwrap().check(&root()).unwrap();
    let content = token.content();
    assert_eq!(content.holder(), Confirmation::Key(holder_key(1)));
    assert_eq!(content.links[0].caveats, caveats());
    assert_eq!(content.links[2].caveats, caveats()[..2]);
    assert_eq!(content.delegates().count(), 1);
    assert_eq!(content.block_ids().collect::<BTreeSet<_>>().len(), 4);
}

/// The template in Datalog, as `FORMAT.md` prints it.
#[test]
fn the_library_builds_the_same_bytes_from_the_template() {
    let claims = full_claims();
    let text = |text: &str| text.to_owned();
    let block = biscuit_auth::macros::biscuit!(
        r#"
        format(1);
        record({epoch}, {seq});
        key(3);
        token({token});
        grant({grant});
        request({request});
        for_task({task});
        subject({subject});
        principal({principal});
        audience({audience});
        holder({holder});
        issued({issued});
        expires({expires});
        online(true);
        counted(true);
        right("read", "a");
        right("read", "orders/prod/o-17");
        right_below("refund", "orders/prod/");
        check if time($t), $t < {expires};
        check if gateway({audience});
        check if proven({holder});
        check if operation($o), resource($r), right($o, $r)
            or operation($o), resource($r), right_below($o, $p), $r.starts_with($p);
        check if arg("amount", $v), $v <= 500;
        check if arg("amount", $v), $v >= -1;
        check if arg("code", $v), {-7, 7}.contains($v);
        check if arg("currency", $v), {"eur", "usd"}.contains($v);
        check if arg("dry", false);
        check if arg("iban", {iban});
        check if arg("order_id", "o-17");
        "#,
        epoch = vec![1u8; 16],
        seq = 42,
        token = vec![2u8; 16],
        grant = vec![3u8; 16],
        request = vec![4u8; 32],
        task = text("ticket-17"),
        subject = text("spiffe://shop.test/agent/refunds"),
        principal = text("alice"),
        audience = text(GATEWAY),
        holder = holder_key(0).as_bytes().to_vec(),
        issued = Term::Date(ISSUED),
        expires = Term::Date(ISSUED + 120),
        iban = vec![9u8; 32],
    );
    let ours = minted(&claims);
    let next: [u8; 32] = ours.container.proof.next_secret.clone().unwrap().try_into().unwrap();
    let theirs = block
        .root_key_id(3)
        .build_with_key_pair(
            &library_key(&[7; 32]),
            biscuit_auth::datalog::SymbolTable::default(),
            &library_key(&next),
        )
        .unwrap();
    assert_eq!(hex::encode(bytes(&ours)), hex::encode(theirs.to_vec().unwrap()));
}

#[test]
fn claims_that_no_token_can_hold_are_refused_before_they_are_recorded() {
    let half = Timestamp::from_ms(ISSUED * 1000 + 500).unwrap();
    let long = (0..16).map(|n| right("read", &format!("{n}/{}", "x".repeat(250))));
    for bad in [
        Claims { issued_at: half, ..claims() },
        Claims { expires_at: half, ..claims() },
        Claims { expires_at: claims().issued_at, ..claims() },
        Claims { scope: Scope::new(long, []).unwrap(), ..claims() },
    ] {
        assert!(fits(&bad, &record()).is_err());
        assert!(mint(&bad, &record(), &signer()).is_err());
    }
    assert!(fits(&claims(), &Record { seq: Seq(u64::MAX), ..record() }).is_err());
    assert!(mint(&Claims { key: KeyId(4), ..claims() }, &record(), &signer()).is_err());
    assert!(fits(&full_claims(), &record()).is_ok());
}
