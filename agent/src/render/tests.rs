//! What must be seen before it is signed. Requests are made here as JSON, so that what is read and
//! what is shown are held against bytes that neither has made.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;

fn bytes(json: &Json) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(json).unwrap()
}

fn sorted(mut members: Vec<Json>) -> Json {
    members.sort_by_cached_key(bytes);
    members.dedup();
    Json::Array(members)
}

fn small() -> Json {
    json!({
        "epoch": "00112233445566778899aabbccddeeff",
        "request_id": "01939b2c-8a00-7000-8000-000000000001",
        "filed_at_ms": "1733500000123",
        "workload": "spiffe://shop.test/agent/refunds-1",
        "holder_key": hex::encode(key().verifying_key().as_bytes()),
        "confirmation": "key",
        "audience": "spiffe://shop.test/gateway/orders",
        "scope": {
            "rights": [{"operation": "refund", "resource": "orders/prod/7"}],
            "constraints": [{"argument": "amount", "limit": {"at_most": "500"}}],
        },
        "task": "ticket-4711",
        "purpose": "support",
        "lifetime_seconds": "300",
        "uses": "2",
        "requirement": {
            "approvals": {"dba": "1"}, "max_lifetime_seconds": "600",
            "online": false, "evidence": false, "presence": false,
        },
    })
}

fn key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[7; 32])
}

fn constrained(value: &str) -> Json {
    let mut json = small();
    json["scope"]["constraints"][0]["limit"] = json!({"equals": {"text": value}});
    json
}

/// The lines of `text`, those put together again that were too long for one.
fn unfolded(text: &str) -> String {
    text.replace(&format!("\n{:>INDENT$}", "\u{21aa} "), "")
}

#[test]
fn a53_what_is_not_understood_in_full_is_not_shown() {
    let mut unknown = small();
    unknown["also"] = json!("drop every table");
    assert!(matches!(request(&bytes(&unknown)), Err(CannotShow::Request(_))));
    let twice = String::from_utf8(bytes(&small())).unwrap();
    let twice = twice.replacen("\"task\":", "\"task\":\"other\",\"task\":", 1);
    assert!(matches!(request(twice.as_bytes()), Err(CannotShow::Request(_))));
    let mut long = small();
    let values = |n: i32| json!({"text": format!("{n:0>256}")});
    let set = |n: i32| {
        let values: Vec<Json> = (0..32).map(values).collect();
        json!({"argument": format!("a{n}"), "limit": {"one_of": values}})
    };
    long["scope"]["constraints"] = sorted((0..16).map(set).collect());
    assert!(matches!(request(&bytes(&long)), Err(CannotShow::Request(_))));
    assert_eq!(quoted(&"x".repeat(2049)), Err(CannotShow::TooLong));
}

#[test]
fn a53_nothing_invisible_or_moving_reaches_the_terminal() {
    let hostile = "\u{202e}txt.exe\u{200b}\u{2066}\u{feff}\u{3164}\u{1b}[2J\r\u{7}\u{ad}\
        \u{e0041}e\u{301}\u{a0}";
    let shown = request(&bytes(&constrained(hostile))).unwrap();
    let said = quoted(&format!("{hostile}\nsecond line")).unwrap();
    for text in [shown.text(), said.as_str()] {
        let ours = |c: char| matches!(c, ' '..='~' | '\n' | '\u{21aa}');
        assert!(text.chars().all(ours), "{text}");
        assert!(text.contains("\\u{202e}txt.exe\\u{200b}\\u{2066}\\u{feff}\\u{3164}\\u{1b}[2J\\r"));
    }
}

/// On a terminal that obeys them, `x = "\u{5d0}12 34"` reads 34 12.
#[test]
fn a53_no_letter_turns_the_order_of_a_value_that_is_signed() {
    let turning =
        ["\u{5d0}", "\u{628}", "\u{661}", "\u{fb1d}", "\u{fe8f}", "\u{10840}", "\u{1e900}"];
    for turns in turning {
        let code = format!("\\u{{{:x}}}", u32::from(turns.chars().next().unwrap()));
        let value = format!("{turns}12 34");
        let mut one_of = small();
        let limit = json!({"one_of": sorted(vec![json!({"text": value}), json!({"text": "x"})])});
        one_of["scope"]["constraints"][0]["limit"] = limit;
        for json in [constrained(&value), one_of] {
            let shown = request(&bytes(&json)).unwrap();
            assert!(shown.text().contains(&format!("\"{code}12 34\"")), "{}", shown.text());
            assert!(!shown.text().contains(turns), "{}", shown.text());
        }
        // What is written to be read, and not signed, stays readable.
        assert!(quoted(&value).unwrap().contains(turns));
    }
}

#[test]
fn a53_a_value_cannot_pass_for_a_line_of_ours() {
    let fake = format!("x{}policy: nobody needs to approve", " ".repeat(150));
    let shown = request(&bytes(&constrained(&fake))).unwrap();
    assert!(unfolded(shown.text()).contains("\"x \\u{20}\\u{20}"), "{}", shown.text());
    for value in ["a\n  task     other", "a\" or \"b", &"y".repeat(250)] {
        let shown = request(&bytes(&constrained(value))).unwrap();
        let lines = shown.text().lines();
        let known = ["Request ", "  ", "The workload asks", "Policy demands"];
        for line in lines {
            assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        let text = unfolded(shown.text());
        let tasks = text.lines().filter(|line| line.trim_start().starts_with("task ")).count();
        assert_eq!(tasks, 1, "{text}");
        assert!(!text.contains("\"a\" or"), "{text}");
    }
    let said = quoted("fine\nRequest 00\n\n  digest  11").unwrap();
    assert_eq!(said, "  | fine\n  | Request 00\n  |\n  |   digest  11\n");
}

/// Nobody but the workload says on whose behalf it acts.
#[test]
fn a53_the_principal_stands_among_the_words_of_the_workload() {
    let mut json = small();
    json["principal"] = json!("alice");
    let shown = request(&bytes(&json)).unwrap();
    let (vouched, said) = shown.text().split_once("in names of its own choice").unwrap();
    assert!(!vouched.contains("alice"), "{vouched}");
    assert!(said.contains("  on behalf of    alice\n"), "{said}");
}

#[test]
fn a_request_and_a_decision_look_like_this() {
    let shown = request(&bytes(&small())).unwrap();
    let narrowing = Narrowing {
        lifetime: Some(std::time::Duration::from_secs(120)),
        uses: NonZeroU32::new(1),
        rights: None,
        constraints: BTreeSet::from([Constraint {
            argument: "amount".parse().unwrap(),
            limit: Limit::AtMost(100),
        }]),
    };
    let at = Timestamp::from_ms(1_733_500_060_000).unwrap();
    let reason = Some(("agreed with the customer", &Salt::new([0; 16])));
    let answer = Answer::Approve(narrowing);
    let decision = shown.decide("alice".parse().unwrap(), answer, reason, at).unwrap();
    insta::assert_snapshot!(format!("{}\n{}", shown.text(), decision.text()));
}

#[test]
fn a_narrowing_that_would_widen_is_not_shown() {
    let shown = request(&bytes(&small())).unwrap();
    let refused = |narrowing| {
        let decided = shown.decide(
            "alice".parse().unwrap(),
            Answer::Approve(narrowing),
            None,
            Timestamp::default(),
        );
        matches!(decided, Err(CannotShow::Decision(_)))
    };
    let right = |text: &str| {
        let (operation, resource) = text.split_once(' ').unwrap();
        dayfly_verifier::scope::Right {
            operation: operation.parse().unwrap(),
            resource: resource.parse().unwrap(),
        }
    };
    let only = |text| Some(BTreeSet::from([right(text)]));
    let longer = Some(std::time::Duration::from_secs(301));
    assert!(refused(Narrowing { lifetime: longer, ..Narrowing::default() }));
    assert!(refused(Narrowing { uses: NonZeroU32::new(3), ..Narrowing::default() }));
    assert!(refused(Narrowing { rights: only("refund orders/prod/8"), ..Narrowing::default() }));
    assert!(refused(Narrowing { rights: Some(BTreeSet::new()), ..Narrowing::default() }));
    assert!(!refused(Narrowing { rights: only("refund orders/prod/7"), ..Narrowing::default() }));
    assert!(!refused(Narrowing::default()));
}

/// Every member of `json` that is not a list or an object, with the way to it.
fn leaves(json: &Json, way: &str, found: &mut Vec<(String, Json)>) {
    match json {
        Json::Object(members) => {
            for (name, member) in members {
                leaves(member, &format!("{way}/{name}"), found);
            }
        }
        Json::Array(members) => {
            for (at, member) in members.iter().enumerate() {
                leaves(member, &format!("{way}/{at}"), found);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            found.push((way.to_owned(), json.clone()));
        }
    }
}

fn plain(text: &str) -> bool {
    let plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    text.chars().all(plain) && !text.starts_with(' ') && !text.contains("  ")
}

fn value() -> impl Strategy<Value = Json> {
    prop_oneof![
        any::<i64>().prop_map(|int| json!({"int": int.to_string()})),
        "[ -~]{0,120}".prop_map(|text| json!({"text": text})),
        ".{0,40}".prop_map(|text| json!({"text": text})),
        any::<bool>().prop_map(|bool| json!({"bool": bool})),
        any::<[u8; 32]>().prop_map(|hidden| json!({"hidden": hex::encode(hidden)})),
    ]
}

fn constraint() -> impl Strategy<Value = Json> {
    let one_of = proptest::collection::vec("[ -~]{0,60}", 1..9);
    let texts = |texts: Vec<String>| texts.iter().map(|text| json!({"text": text})).collect();
    let limit = prop_oneof![
        value().prop_map(|value| json!({"equals": value})),
        one_of.prop_map(move |values| json!({"one_of": sorted(texts(values))})),
        any::<i64>().prop_map(|most| json!({"at_most": most.to_string()})),
        any::<i64>().prop_map(|least| json!({"at_least": least.to_string()})),
    ];
    ("[a-z][a-z0-9_]{0,9}", limit)
        .prop_map(|(name, limit)| json!({"argument": name, "limit": limit}))
}

fn right() -> impl Strategy<Value = Json> {
    ("[a-z][a-z0-9._-]{0,9}", "[a-zA-Z0-9_:@-]{1,90}(/[a-z]{1,9}){0,3}(/\\*\\*)?")
        .prop_map(|(operation, resource)| json!({"operation": operation, "resource": resource}))
}

/// A random request, as JSON.
fn any_request() -> impl Strategy<Value = Json> {
    let scope = (
        proptest::collection::vec(right(), 1..5).prop_map(sorted),
        proptest::collection::vec(constraint(), 0..5).prop_map(sorted),
    );
    let approvals = proptest::collection::btree_map("[a-z][a-z-]{0,9}", 1..9u32, 0..4);
    let limits = (approvals, any::<u64>(), proptest::option::of(1..=u32::MAX));
    let optional = (proptest::option::of("[a-z]{1,9}"), proptest::option::of(1..=u32::MAX));
    let times = (0..253_402_300_799_999u64, any::<u64>());
    let names = ("[a-z0-9]{1,64}", "[a-z0-9]{1,64}", "spiffe://[a-z]{1,99}/[a-z]{1,99}");
    (scope, limits, optional, times, names, any::<[bool; 4]>()).prop_map(
        |(scope, limits, optional, times, names, flags)| {
            let mut json = small();
            json["scope"] = json!({"rights": scope.0, "constraints": scope.1});
            let approvals: Map<String, Json> =
                limits.0.into_iter().map(|(group, n)| (group, json!(n.to_string()))).collect();
            json["requirement"] = json!({
                "approvals": approvals, "max_lifetime_seconds": limits.1.to_string(),
                "online": flags[0], "evidence": flags[1], "presence": flags[2],
            });
            if let Some(uses) = limits.2 {
                json["requirement"]["max_uses"] = json!(uses.to_string());
            }
            if let Some(principal) = optional.0 {
                json["principal"] = json!(principal);
            }
            match optional.1 {
                Some(uses) => json["uses"] = json!(uses.to_string()),
                None => drop(json.as_object_mut().unwrap().remove("uses")),
            }
            json["filed_at_ms"] = json!(times.0.to_string());
            json["lifetime_seconds"] = json!(times.1.to_string());
            json["task"] = json!(names.0);
            json["purpose"] = json!(names.1);
            json["workload"] = json!(names.2);
            json["confirmation"] = json!(if flags[3] { "key" } else { "identity" });
            json
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn a53_every_leaf_of_what_is_signed_is_shown(json in any_request()) {
        let shown = request(&bytes(&json)).unwrap();
        let text = unfolded(shown.text());
        let mut found = vec![];
        leaves(&json, "", &mut found);
        prop_assert!(found.len() >= 16);
        for (way, leaf) in &found {
            match leaf {
                Json::String(leaf) if way == "/confirmation" => {
                    prop_assert!(leaf == "key" || leaf == "identity");
                }
                Json::String(leaf) if plain(leaf) => {
                    prop_assert!(text.contains(leaf), "{} {}", way, text);
                }
                Json::String(_) => {}
                // What is no text shows by what changes with it.
                Json::Bool(_) => {}
                Json::Null | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
                    prop_assert!(false, "{way} is {leaf}");
                }
            }
        }
    }

    #[test]
    fn a53_any_change_of_what_is_signed_shows(a in any_request(), b in any_request()) {
        let shown = request(&bytes(&a)).unwrap();
        let mut ways = vec![];
        leaves(&a, "", &mut ways);
        for (way, _) in ways {
            let (Some(was), Some(other)) = (a.pointer(&way), b.pointer(&way)) else { continue };
            let mut changed = a.clone();
            *changed.pointer_mut(&way).unwrap() = other.clone();
            // Where the change left the form, there is nothing to show.
            let Ok(second) = request(&bytes(&changed)) else { continue };
            // The digest always changes; what is asked is whether something else does.
            let blank = |shown: &Shown| {
                let text = shown.text().replace(&shown.digest.to_string(), "");
                text.replace(&shown.request.grant_id().to_string(), "")
            };
            prop_assert_eq!(was == other, blank(&shown) == blank(&second), "{}", way);
        }
        for way in ["online", "evidence", "presence"] {
            let mut changed = a.clone();
            let flag = &mut changed["requirement"][way];
            *flag = json!(!flag.as_bool().unwrap());
            let second = request(&bytes(&changed)).unwrap();
            let rest = |shown: &Shown| shown.text().lines().skip(2).collect::<String>();
            prop_assert_ne!(rest(&shown), rest(&second), "{}", way);
        }
    }

    #[test]
    fn a53_every_leaf_of_a_statement_is_shown(
        lifetime in proptest::option::of(1..=300u64), uses in proptest::option::of(1..=2u32),
        most in proptest::option::of(any::<i64>()), only in any::<bool>(), deny in any::<bool>(),
        reason in proptest::option::of("[a-z ]{1,40}"),
    ) {
        let shown = request(&bytes(&small())).unwrap();
        let narrowing = Narrowing {
            lifetime: lifetime.map(std::time::Duration::from_secs),
            uses: uses.and_then(NonZeroU32::new),
            rights: only.then(|| shown.request().scope.rights().cloned().collect()),
            constraints: most.into_iter().map(|most| Constraint {
                argument: "extra".parse().unwrap(), limit: Limit::AtMost(most),
            }).collect(),
        };
        let answer = if deny { Answer::Deny } else { Answer::Approve(narrowing) };
        let salt = Salt::new([3; 16]);
        let reason = reason.as_deref().map(|reason| (reason, &salt));
        let person: PersonId = "alice".parse().unwrap();
        let decision = shown.decide(person, answer, reason, Timestamp::default()).unwrap();
        let mut found = vec![];
        leaves(&serde_json::from_slice(decision.bytes()).unwrap(), "", &mut found);
        for (way, leaf) in found {
            let leaf = leaf.as_str().unwrap();
            let leaf = if way == "/decision" { leaf.to_uppercase() } else { leaf.to_owned() };
            prop_assert!(unfolded(decision.text()).contains(&leaf), "{} {}", way, leaf);
        }
    }
}
