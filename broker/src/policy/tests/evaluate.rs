//! What a bundle refuses, and what it demands.

use std::num::NonZeroU32;
use std::time::Duration;

use super::ask::{Ask, basis, demands};
use super::*;
use crate::core::verdict::{Holdings, Outcome};
use crate::policy::evaluate::{Question, default_uses, evaluate, examine};

fn shop() -> Bundle {
    Bundle::load(&BundleFiles::read(&example("shop")).unwrap()).unwrap()
}

const BOUNDED: &[&str] = &["amount <= 5000"];

#[test]
fn what_is_not_declared_is_refused_before_any_policy_is_asked() {
    let shop = &shop();
    let refused = |ask: Ask, reason: &str| {
        assert_eq!(ask.refused(shop), ("default".to_owned(), reason.to_owned()));
    };
    refused(Ask::shop(&["read orders/dev/1"]), "`orders/dev/1` is not a declared resource");
    refused(Ask::shop(&["read orders/**"]), "`orders/**` is not a declared resource");
    refused(Ask::shop(&["read orders"]), "`orders` is not a declared resource");
    refused(
        Ask::shop(&["read orders/production"]),
        "`orders/production` is not a declared resource",
    );
    let gateway = "`spiffe://shop.test/gateway/orders` does not guard `orders/staging`";
    refused(Ask::shop(&["read orders/prod/1", "read orders/staging/1"]), gateway);
    refused(Ask::shop(&["export orders/prod/1"]), "`export` is not an operation of `orders/prod`");
    refused(Ask { purpose: "fun", ..Ask::shop(&["read orders/prod/1"]) }, "`fun` is not a purpose");
    let erin = Ask { principal: Some("erin"), ..Ask::shop(&["read orders/prod/1"]) };
    refused(erin, "`erin` is not a person");
    for workload in ["spiffe://shop.test/agents/a", "spiffe://shop.test/person/ana"] {
        let stranger = Ask { workload: workload.into(), ..Ask::shop(&["read orders/prod/1"]) };
        refused(stranger, &format!("`{workload}` is not a workload"));
    }
    // What is declared alone declares nothing below it.
    for resource in ["exports/customers/**", "exports/customers/2026"] {
        let right = format!("export {resource}");
        let mut below = Ask::shop(&[right.as_str()]);
        below.audience = "spiffe://shop.test/gateway/exports".into();
        refused(below, &format!("`{resource}` is not a declared resource"));
    }
}

#[test]
fn no_match_is_no() {
    let shop = &shop();
    let default = ("default".to_owned(), "no policy permits it".to_owned());
    let mut exporter = Ask::shop(&["read orders/prod/1"]);
    exporter.workload = "spiffe://shop.test/job/export".into();
    assert_eq!(exporter.refused(shop), default);
    let incident =
        Ask { purpose: "incident", ..Ask::shop(&["refund orders/prod/1"]).wher(BOUNDED) };
    assert_eq!(incident.refused(shop), default);
    let none = with_policies("// Nothing.").unwrap();
    assert_eq!(Ask::files(&["read files/1"]).refused(&none), default);
}

#[test]
fn a_forbid_wins_and_says_why() {
    let shop = &shop();
    let ask = Ask::shop(&["refund orders/prod/1"]);
    let (policy, reason) = ask.clone().refused(shop);
    assert_eq!(policy, "refund-limit");
    assert!(reason.contains("must be bounded to 1000.00 or less"));
    for loose in [
        &["amount <= 100001"][..],
        &["amount >= 1"],
        &["order_id = \"o-17\""],
        &["amount in [1, 200000]"],
        &["amount = 100001"],
    ] {
        assert_eq!(ask.clone().wher(loose).refused(shop).0, "refund-limit", "{loose:?}");
    }
    let mut many = Ask::shop(&["read orders/prod/1"]);
    many.held.task = 8;
    assert_eq!(many.refused(shop).0, "no-hoarding");
    many.held.task = 7;
    assert_eq!(many.permitted(shop), demands(&[("dba", 1)], 900, None));
}

#[test]
fn what_is_permitted_demands_what_its_policy_says() {
    let shop = &shop();
    let refund = Ask::shop(&["refund orders/prod/1"]);
    let small = demands(&[], 600, Some(1));
    let large = demands(&[("dba", 1), ("security", 1)], 600, Some(3));
    for bounded in [BOUNDED, &["amount = 5000"], &["amount in [1, 5000]"]] {
        assert_eq!(refund.clone().wher(bounded).permitted(shop), small, "{bounded:?}");
    }
    let both = ["amount <= 90000", "amount <= 5000", "order_id = \"o-17\""];
    assert_eq!(refund.clone().wher(&both).permitted(shop), small);
    assert_eq!(refund.wher(&["amount <= 5001"]).permitted(shop), large);
    let change = demands(&[("dba", 1), ("security", 1)], 600, Some(5));
    assert_eq!(Ask::shop(&["delete orders/prod/1"]).permitted(shop), change);
    // Rights of several policies: all that each demands, the least that each allows.
    let two = Ask::shop(&["read orders/prod/1", "refund orders/prod/1"]).wher(BOUNDED);
    assert_eq!(two.permitted(shop), demands(&[("dba", 1)], 600, Some(1)));
}

#[test]
fn a_subtree_is_refused_for_what_is_forbidden_below_it() {
    let shop = &shop();
    for whole in ["read orders/prod/**", "read orders/prod/cards/**", "read orders/prod/cards/1"] {
        assert_eq!(Ask::shop(&[whole]).refused(shop).0, "no-cards", "{whole}");
    }
    assert!(Ask::shop(&["read orders/prod/customers/**"]).permitted(shop).max_uses.is_none());
    // Segments, not characters.
    assert!(Ask::shop(&["read orders/prod/cards-old/1"]).permitted(shop).max_uses.is_none());
}

/// A policy for one resource must not open what lies below it.
#[test]
fn a_subtree_is_asked_for_what_is_not_declared_too() {
    let files = |resource: &str| {
        let policy = format!(
            "@id(\"x\") @approvals(\"none\") permit (principal, action, resource {resource});"
        );
        with_policies(&policy).unwrap()
    };
    let only_base = files("== Resource::\"files\"");
    assert_eq!(Ask::files(&["read files/**"]).refused(&only_base).0, "default");
    assert_eq!(Ask::files(&["read files/1/**"]).refused(&only_base).0, "default");
    assert_eq!(Ask::files(&["read files/1"]).refused(&only_base).0, "default");
    assert!(Ask::files(&["read files"]).permitted(&only_base).approvals.is_empty());
    let below = files("in Resource::\"files\"");
    assert!(Ask::files(&["read files/**"]).permitted(&below).approvals.is_empty());
}

/// What was asked before is remembered, and must not be told for another question.
#[test]
fn whatever_part_a_policy_reads_it_is_asked_again_when_that_is_another() {
    let policy = |reads: &str| {
        let permit = format!(
            "@id(\"x\") @approvals(\"none\") permit (principal, action, resource) when {{ {reads} }};"
        );
        with_policies(&permit).unwrap()
    };
    let ask = Ask { task: "task-1", uses: NonZeroU32::new(1), ..Ask::files(&["read files/1"]) };
    let ask = Ask { lifetime: Some(60), ..ask };
    let later = Ask { now_ms: 120_000, ..ask.clone() };
    let mut holds = ask.clone();
    holds.held.workload = 1;
    let mut other = ask.clone();
    other.workload.push('b');
    let mut elsewhere = ask.clone();
    elsewhere.audience.push('b');
    let mut writes = ask.clone();
    writes.rights = vec!["write files/1".into()];
    let cases = [
        ("context.now.minute_of_day < 1", later),
        ("context[\"now\"][\"minute_of_day\"] < 1", Ask { now_ms: 60_000, ..ask.clone() }),
        ("context.held.workload < 1", holds),
        ("context.task == \"task-1\"", Ask { task: "task-2", ..ask.clone() }),
        ("context.lifetime <= 60", Ask { lifetime: Some(61), ..ask.clone() }),
        ("context has uses && context.uses <= 1", Ask { uses: NonZeroU32::new(2), ..ask.clone() }),
        ("!(context has principal)", Ask { principal: Some("ana"), ..ask.clone() }),
        ("principal == Workload::\"spiffe://example.test/agent/a\"", other),
        ("true", elsewhere),
        ("true", Ask { purpose: "fun", ..ask.clone() }),
        ("action == Action::\"read\"", writes),
    ];
    for (reads, other) in cases {
        let bundle = policy(reads);
        for _ in 0..2 {
            assert!(ask.permitted(&bundle).approvals.is_empty(), "{reads}");
            assert_eq!(other.refused(&bundle).0, "default", "{reads}");
        }
    }
}

/// The same words mean another request where the default is another, or what is too much is cut.
#[test]
fn a_remembered_answer_is_about_the_default_and_the_cut_too() {
    let policies = "@id(\"x\") @approvals(\"none\") @max_ttl(\"5m\") \
                    permit (principal, action, resource) when { context.lifetime <= 600 };";
    let bundle = with_policies(policies).unwrap();
    Ask::files(&["read files/1"]).with(|question, held| {
        let permits = |question: &Question<'_>| {
            let outcome = evaluate(&bundle, question, basis(held)).outcome;
            matches!(outcome, Outcome::Permitted(_))
        };
        for _ in 0..2 {
            assert!(permits(question));
            assert!(!permits(&Question { default_lease: Duration::from_secs(601), ..*question }));
            let more = Question { lifetime: Some(Duration::from_secs(400)), ..*question };
            assert!(!permits(&more));
            assert!(permits(&Question { exactly: false, ..more }));
        }
    });
}

/// Cedar skips a forbid that errs, and would allow.
#[test]
fn a_policy_that_errs_denies_whether_it_permits_or_forbids() {
    let huge = "9223372036854775807";
    let permit = "@id(\"all\") @approvals(\"none\") permit (principal, action, resource);";
    let forbid = format!(
        "{permit} @id(\"no\") @reason(\"no\") forbid (principal, action, resource) \
         when {{ context.lifetime * {huge} > 0 }};"
    );
    let bundle = with_policies(&forbid).unwrap();
    let ask = Ask::files(&["read files/1"]);
    let error = ("error".to_owned(), "the policy `no` could not be evaluated".to_owned());
    assert_eq!(ask.refused(&bundle), error);
    // The same forbid, without the error, does not match: so the error is what refuses.
    let harmless = forbid.replace(huge, "0");
    assert!(ask.permitted(&with_policies(&harmless).unwrap()).approvals.is_empty());
    let other = format!(
        "{permit} @id(\"no\") @approvals(\"none\") permit (principal, action, resource) \
         when {{ context.lifetime * {huge} > 0 }};"
    );
    assert_eq!(ask.refused(&with_policies(&other).unwrap()), error);
}

#[test]
fn arguments_that_no_value_satisfies_or_that_the_schema_lacks_are_refused() {
    let shop = &shop();
    let refund = |constraints: &[&str]| Ask::shop(&["refund orders/prod/1"]).wher(constraints);
    for empty in [
        &["amount <= 1", "amount >= 2"][..],
        &["amount = 1", "amount = 2"],
        &["amount in [1, 2]", "amount in [3, 4]"],
        &["amount in [1, 2]", "amount >= 3"],
        &["amount = \"a\"", "amount <= 5000"],
    ] {
        let reason = "the constraints on `amount` leave no value that is allowed";
        assert_eq!(refund(empty).refused(shop), ("default".into(), reason.into()), "{empty:?}");
    }
    let hidden = format!("order_id = hex:{}", "00".repeat(32));
    assert_eq!(refund(&["amount <= 1", &hidden]).refused(shop).0, "default");
    for unknown in [["amount <= 1", "note = \"x\""], ["amount <= 1", "order_id = 17"]] {
        let reason = "an argument, or its type, is not in the schema of the bundle";
        assert_eq!(refund(&unknown).refused(shop), ("error".into(), reason.into()));
    }
}

#[test]
fn more_than_is_allowed_is_refused_by_the_policy_that_set_the_limit() {
    let shop = &shop();
    let large = Ask::shop(&["refund orders/prod/1"]).wher(&["amount <= 9000"]);
    let longer = Ask { lifetime: Some(601), ..large.clone() };
    let reason = "a lease may last at most 600 seconds";
    assert_eq!(longer.refused(shop), ("refund-large".into(), reason.into()));
    let three = NonZeroU32::new(3).unwrap();
    let refused = Ask { uses: three.checked_add(1), ..large.clone() }.refused(shop);
    assert_eq!(refused, ("refund-large".into(), "there may be at most 3 uses".into()));
    // What was filed is not refused for its defaults: it is cut.
    large.with(|question, held| {
        let lifetime = Some(Duration::from_secs(3600));
        let question = Question { lifetime, exactly: false, ..*question };
        let verdict = evaluate(shop, &question, basis(held));
        assert!(matches!(verdict.outcome, Outcome::Permitted(_)));
    });
    let most = Ask { lifetime: Some(600), uses: Some(three), ..large };
    assert_eq!(most.permitted(shop).max_uses, Some(three));
    // Without a limit of its own: an hour.
    let read = Ask::files(&["read files/1"]);
    let bundle = minimal(&[]);
    assert_eq!(read.permitted(&bundle), demands(&[], 3600, None));
    assert_eq!(Ask { lifetime: Some(3601), ..read }.refused(&bundle).0, "default");
}

#[test]
fn what_destroys_is_for_one_use_unless_policy_says_how_many() {
    let destructive = ("resources.toml", "\"write\"]", "\"write\"]\ndestructive = [\"write\"]");
    let bundle = minimal(&[destructive]);
    let write = Ask::files(&["write files/1"]);
    assert_eq!(write.permitted(&bundle), demands(&[("owners", 1)], 900, Some(1)));
    assert_eq!(Ask::files(&["read files/1"]).permitted(&bundle).max_uses, None);
    // Beside a right that destroys, every right is counted.
    let both = Ask::files(&["read files/1", "write files/2"]);
    assert_eq!(both.permitted(&bundle), demands(&[("owners", 1)], 900, Some(1)));
    let twice = NonZeroU32::new(2);
    assert_eq!(Ask { uses: twice, ..write.clone() }.refused(&bundle).0, "default");
    for (ask, default) in [(&write, Some(NonZeroU32::MIN)), (&Ask::files(&["read files/1"]), None)]
    {
        assert_eq!(ask.with(|question, _| default_uses(&bundle, question.scope)), default);
    }
    let five = ("policy.cedar", "@max_ttl(\"15m\")", "@max_ttl(\"15m\") @max_uses(\"5\")");
    assert_eq!(write.permitted(&minimal(&[destructive, five])).max_uses, NonZeroU32::new(5));
}

/// A number that policy gives to reading is not one that it gives to destroying.
#[test]
fn the_one_use_of_what_destroys_is_not_raised_by_a_right_beside_it() {
    let destructive = ("resources.toml", "\"write\"]", "\"write\"]\ndestructive = [\"write\"]");
    let read = "@approvals(\"none\") @max_uses(\"100\")";
    let bundle = minimal(&[destructive, ("policy.cedar", "@approvals(\"none\")", read)]);
    let hundred = NonZeroU32::new(100);
    assert_eq!(Ask::files(&["read files/1"]).permitted(&bundle).max_uses, hundred);
    let rights = ["read files/1", "write files/1", "read files/2"];
    for rights in [&rights[..2], &rights[1..], &rights[..]] {
        let both = Ask::files(rights);
        assert_eq!(both.permitted(&bundle).max_uses, Some(NonZeroU32::MIN), "{rights:?}");
        let refused = Ask { uses: hundred, ..both.clone() }.refused(&bundle);
        assert_eq!(refused, ("default".into(), "there may be at most 1 uses".into()));
        // Each point says what holds there, and what was filed before is cut to it.
        let said = both.with(|question, held| examine(&bundle, question, held)).unwrap();
        for found in said {
            let Outcome::Permitted(demand) = found.outcome else { panic!("{found:?}") };
            let most =
                if found.operation.as_str() == "write" { NonZeroU32::new(1) } else { hundred };
            assert_eq!(demand.max_uses, most);
        }
    }
}

#[test]
fn windows_across_midnight_and_weekdays_are_utc() {
    let policy = "@id(\"night\") @approvals(\"none\") permit (principal, action, resource) \
        when { (context.now.minute_of_day >= 1320 || context.now.minute_of_day < 120) && \
               context.now.weekday != \"sunday\" };";
    let bundle = with_policies(policy).unwrap();
    // 2026-01-31 was a Saturday.
    let at = |time: u64| Ask {
        now_ms: 1_769_817_600_000 + time * 60_000,
        ..Ask::files(&["read files/1"])
    };
    for (minute, allowed) in [
        (60, true),
        (119, true),
        (120, false),
        (1319, false),
        (1320, true),
        (1439, true),
        (1440, false),
    ] {
        let permitted = matches!(at(minute).outcome(&bundle), Outcome::Permitted(_));
        assert_eq!(permitted, allowed, "{minute}");
    }
}

#[test]
fn principal_groups_holdings_and_uses_reach_the_policies() {
    let when = |condition: &str| {
        let policy = format!(
            "@id(\"x\") @approvals(\"none\") permit (principal, action, resource) \
             when {{ {condition} }};"
        );
        with_policies(&policy).unwrap()
    };
    let ask = Ask::files(&["read files/1"]);
    let for_ana = Ask { principal: Some("ana"), ..ask.clone() };
    let ana = when("context has principal && context.principal in Group::\"owners\"");
    assert_eq!(ask.refused(&ana).0, "default");
    for_ana.permitted(&ana);
    let held = when("context.held == {workload: 1, task: 2, owner: 3}");
    assert_eq!(ask.refused(&held).0, "default");
    Ask { held: Holdings { workload: 1, task: 2, owner: 3 }, ..ask.clone() }.permitted(&held);
    let few = when("context has uses && context.uses <= 2 && context.lifetime <= 60");
    assert_eq!(ask.refused(&few).0, "default");
    let two = NonZeroU32::new(2);
    Ask { uses: two, lifetime: Some(60), ..ask.clone() }.permitted(&few);
    assert_eq!(Ask { uses: two, lifetime: Some(61), ..ask.clone() }.refused(&few).0, "default");
    let task = when("context.task == \"task-1\" && context.purpose == \"work\"");
    ask.permitted(&task);
}

#[test]
fn a_request_for_too_much_at_once_is_refused() {
    let many: String = (0..200)
        .map(|n| {
            format!(
                "[[resource]]\npattern = \"files/{n}\"\noperations = [\"read\"]\n\
                 gateway = \"spiffe://example.test/gateway/files\"\n"
            )
        })
        .collect();
    let whole = "[[resource]]\npattern = \"files/**\"";
    let bundle = minimal(&[("resources.toml", whole, &format!("{many}{whole}"))]);
    let refused = Ask::files(&["read files/**"]).refused(&bundle);
    assert_eq!(refused, ("default".into(), "it reaches more than 256 declared resources".into()));
    Ask::files(&["read files/7", "read files/8/**"]).permitted(&bundle);
}

#[test]
fn an_examination_names_the_policies_at_every_point() {
    let shop = shop();
    let findings = Ask::shop(&["read orders/prod/**"])
        .with(|question, held| examine(&shop, question, held).unwrap());
    let told: Vec<_> = findings
        .iter()
        .map(|finding| (finding.resource.as_str(), finding.policies.join(" ")))
        .collect();
    assert_eq!(
        told,
        [
            ("orders/prod", "read-orders".to_owned()),
            ("orders/prod/**", "read-orders".to_owned()),
            ("orders/prod/cards", "no-cards".to_owned()),
            ("orders/prod/cards/**", "no-cards".to_owned()),
        ]
    );
}

/// A limit cuts a request down into the reach of another policy: what is demanded is what that
/// one demands, too, and a grant of it is allowed what it is given.
#[test]
fn what_policy_cuts_is_asked_about_as_it_was_cut() {
    let policies = |few: &str| {
        let any = "principal, action, resource";
        format!(
            "@id(\"long\") @approvals(\"none\") @max_ttl(\"2m\") @max_uses(\"3\") permit ({any}) \
             when {{ context.lifetime > 120 || !(context has uses) }};\n{few} ({any}) \
             when {{ context.lifetime <= 120 && context has uses && context.uses <= 3 }};"
        )
    };
    let ask = Ask::files(&["read files/report"]);
    let strict = "@id(\"few\") @approvals(\"none\") @max_ttl(\"1m\") @max_uses(\"2\") permit";
    let bundle = with_policies(&policies(strict)).unwrap();
    let demanded = ask.permitted(&bundle);
    assert_eq!(demanded, demands(&[], 60, Some(2)));
    let cut = Ask { lifetime: Some(60), uses: NonZeroU32::new(2), ..ask.clone() };
    assert_eq!(cut.permitted(&bundle), demands(&[], 60, Some(2)));
    let forbid = "@id(\"no\") @reason(\"not so few\") forbid";
    let bundle = with_policies(&policies(forbid)).unwrap();
    assert_eq!(ask.refused(&bundle).0, "no");
    // What says how much it wants is not cut.
    let exact = Ask { lifetime: Some(300), ..ask };
    assert_eq!(exact.refused(&bundle).0, "long");
}
