//! What refuses a bundle.

use super::*;

/// One change to the shop, and the one problem that it must cause.
fn refused(file: &str, from: &str, to: &str, problem: &str) {
    let found = problems("shop", file, from, to);
    assert!(found.iter().any(|found| found.contains(problem)), "{to:?}: {found:#?}");
    assert!(found.iter().all(|found| !found.contains(char::is_control)), "{found:#?}");
}

#[test]
fn the_examples_load_and_their_address_is_that_of_their_files() {
    for name in ["shop", "minimal"] {
        let files = BundleFiles::read(&example(name)).unwrap();
        let bundle = Bundle::load(&files).map_err(told).unwrap();
        assert_eq!(bundle.digest(), files.digest());
        assert!(bundle.purposes().count() > 0);
    }
}

#[test]
fn an_annotation_that_is_unknown_misspelt_empty_or_misplaced_refuses_the_bundle() {
    let refused = |from: &str, to: &str, problem: &str| refused("policy.cedar", from, to, problem);
    let approvals = "@approvals(\"dba:1\")";
    let missing = "`@approvals` is missing";
    refused(approvals, "", missing);
    refused(approvals, "@approval(\"dba:1\")", "`@approval` is not an annotation that we know");
    refused(approvals, "@approval(\"dba:1\")", missing);
    refused(approvals, "@Approvals(\"dba:1\")", "`@Approvals` is not an annotation");
    let form = "`@approvals` must be \"none\", or groups with counts";
    for value in ["", " ", "None", "dba", "dba;1", ",", "dba:1,", "none, dba:1"] {
        refused(approvals, &format!("@approvals(\"{value}\")"), form);
    }
    refused(approvals, "@approvals", form);
    let count = "`@approvals` must count from 1 to 16";
    for value in ["dba:0", "dba:-1", "dba:+1", "dba:", "dba: 1", "dba:1x", "dba:17", "dba:٣"] {
        refused(approvals, &format!("@approvals(\"{value}\")"), count);
    }
    refused(approvals, "@approvals(\"dba:4294967297\")", count);
    refused(approvals, "@approvals(\"dbas:1\")", "names `dbas`, which is not a group of people");
    refused(approvals, "@approvals(\"agents:1\")", "names `agents`, which is not a group of");
    refused(approvals, "@approvals(\"d\\nb:1\")", "must name groups of people.toml");
    refused(approvals, "@approvals(\"dba:1, dba:1\")", "must not name a group twice");
    refused(approvals, "@approvals(\"dba:1\") @approvals(\"none\")", "duplicate");
    refused(approvals, "@approvals(\"dba:1\") @reason(\"x\")", "stands only on a forbid");
    refused(approvals, &format!("{approvals} @online(\"yes\")"), "`@online` takes no value");
    for later in ["evidence", "presence"] {
        let later = format!("@approvals(\"dba:1\") @{later}");
        refused(approvals, &later, "is not supported by this version");
    }
    let reason = "@reason(\"card data is not open to workloads\")";
    refused(reason, "", "`@reason` is missing");
    for value in ["", " ", "a\\nb", "\\u{1b}[2J", &"x".repeat(513)] {
        refused(reason, &format!("@reason(\"{value}\")"), "`@reason` must be a sentence");
    }
    for permit in ["approvals(\"none\")", "max_ttl(\"1m\")", "max_uses(\"1\")", "online"] {
        refused(reason, &format!("{reason} @{permit}"), "stands only on a permit");
    }
}

#[test]
fn a_limit_that_is_none_refuses_the_bundle() {
    let refused = |from: &str, to: &str, problem: &str| refused("policy.cedar", from, to, problem);
    let wrong = "`@max_ttl` must be a time such as";
    let values = ["", "0m", "5", "m", "5 m", "-5m", "5d", "1.5h", "13h", "99999999999999999999s"];
    for value in values.into_iter().chain(["721m", "43201s", "٣m", "5m "]) {
        refused("@max_ttl(\"15m\")", &format!("@max_ttl(\"{value}\")"), wrong);
    }
    let wrong = "`@max_uses` must count from 1";
    for value in ["", "0", "-1", "+1", "1.0", "many", "4294967296", " 1"] {
        refused("@max_uses(\"5\")", &format!("@max_uses(\"{value}\")"), wrong);
    }
}

#[test]
fn policies_need_names_of_their_own() {
    let refused =
        |to: &str, problem: &str| refused("policy.cedar", "@id(\"no-cards\")", to, problem);
    let wrong = "`@id` must be 1 to 64";
    for name in ["", "@id", "@id(\"\")", "@id(\"a b\")", "@id(\"default\")", "@id(\"error\")"] {
        refused(name, wrong);
    }
    refused("@id(\"staging\")", "another policy has the same `@id`");
}

#[test]
fn policies_name_only_what_is_declared() {
    let refused = |from: &str, to: &str, problem: &str| refused("policy.cedar", from, to, problem);
    let cards = "resource in Resource::\"orders/prod/cards\"";
    refused(cards, "resource in Resource::\"orders/prod/card\"", "is not declared in resources");
    refused(cards, "resource in Resource::\"orders/prod/**\"", "is not declared in resources");
    let agents = "principal in Group::\"agents\"";
    refused(agents, "principal in Group::\"agent\"", "is not declared in people.toml or");
    let id = "principal == Workload::\"spiffe://shop.test/agents/x\"";
    refused(agents, id, "is not declared in workloads.toml");
    let held = "context.held.task >= 8";
    let erin = "context has principal && context.principal == Person::\"erin\"";
    refused(held, erin, "is not declared in people.toml");
    refused("Action::\"update\"", "Action::\"updates\"", "Action::\"updates\"");
}

#[test]
fn what_the_schema_does_not_allow_refuses_the_bundle() {
    refused("policy.cedar", "context.held.task >= 8", "context.held.tasks >= 8", "tasks");
    refused("policy.cedar", "context.held.task >= 8", "context.purpose >= 8", "line 9");
    refused("policy.cedar", "context.held.task >= 8", "context.uses >= 8", "uses");
    refused("policy.cedar", "permit (", "permit [", "line 6: unexpected token `[`");
    // A policy that can never apply is a mistake, not a rule.
    refused("policy.cedar", "context.held.task >= 8", "false", "impossible");
    refused(
        "policy.cedar",
        "resource in Resource::\"orders/prod/cards\"",
        "resource == ?resource",
        "templates",
    );
    refused(
        "policy.cedar",
        "context.held.task >= 8",
        "Resource::\"exports/customers\".environment == \"x\"",
        "level",
    );
    refused("schema.cedarschema", "entity Group;", "entity Group", "line 3");
    refused("schema.cedarschema", "  task: String,\n", "", "action `read`: does not take what");
    refused("schema.cedarschema", "  lifetime: Long,", "  lifetime: String,", "does not take what");
    refused("schema.cedarschema", "uses?: Long", "uses: Long", "does not take what the broker");
    refused("schema.cedarschema", "args: {", "more: Long, args: {", "does not take what");
    refused("schema.cedarschema", "refund, export", "export", "refund");
    refused("schema.cedarschema", "  environment: String,\n", "", "environment");
    refused("schema.cedarschema", "entity Workload in [Group];", "entity Workload;", "Group");
    refused("resources.toml", "environment = \"production\", ", "", "environment");
    refused("resources.toml", "environment = \"production\"", "environment = 1", "environment");
}

#[test]
fn people_share_nothing_and_are_no_workloads() {
    let refused = |from: &str, to: &str, problem: &str| refused("people.toml", from, to, problem);
    let ana = "[\"spiffe://shop.test/person/ana\"]";
    refused(ana, "[\"spiffe://shop.test/person/ben\"]", "person.ben.ids: must not hold what `ana`");
    refused(ana, "[]", "person.ana.ids: must name at least one SPIFFE ID");
    refused(ana, "[\"spiffe://shop.test/agent/ana\"]", "must not match an ID of the person `ana`");
    refused(ana, "[\"spiffe://shop.test/gateway/orders\"]", "must not be an ID of the person");
    refused(ana, "[\"ana\"]", "person.ana.ids[0]: must begin with `spiffe://`");
    let key = "AAAAC3NzaC1lZDI1NTE5AAAAIFyZWczm/VoXbjnLmQ8epotAyf15RrJU12w/jjz56Wcu";
    let bens = "AAAAC3NzaC1lZDI1NTE5AAAAIO5ZceRzvJd411wpHCvzzgfAUEvbBuFw2+rlGJHG2bxP";
    refused(key, bens, "person.ben.keys: must not hold what `ana` has too");
    refused(key, &key[..60], "person.ana.keys[0]: must be an OpenSSH public key");
    refused("groups = [\"dba\"]", "groups = [\"dbas\"]", "`dbas` is not one of the groups");
    refused("groups = [\"dba\"]", "groups = [\"dba\", \"dba\"]", "groups[1]: must not name the");
    refused("\"operator\", ", "\"admin\", ", "person.olga.roles: `admin` is none of operator");
    refused("\"operator\", ", "\"operator\", \"operator\", ", "must not name the same one twice");
    refused("[person.ana]", "[person.ben]", "duplicate key");
    refused("[person.ana]", "[person.\"a b\"]", "person.a b: must be 1 to 64");
    refused("[person.ana]\n", "[person.ana]\nkey = []\n", "unknown field `key`");
}

#[test]
fn a_group_with_too_few_people_refuses_the_bundle() {
    let asks = "`@approvals` asks for more distinct people than have keys";
    let refused = |file: &str, from: &str, to: &str| refused(file, from, to, asks);
    refused("policy.cedar", "\"dba:1\"", "\"dba:3\"");
    refused("people.toml", "groups = [\"security\"]", "groups = []");
    // Nobody signs without a key.
    let key = "AAAAC3NzaC1lZDI1NTE5AAAAIHDxH5AAM8w/pJfJ7LC3CfvahoBFIktRMXYgfPnRp8UY caro";
    refused("people.toml", &format!("keys = [\"ssh-ed25519 {key}\"]"), "");
    // Dan is in both groups, but he is one person.
    refused("policy.cedar", "\"dba:1, security:1\"", "\"dba:2, finance:2\"");
}

#[test]
fn workloads_and_resources_are_checked_against_people() {
    let workloads =
        |from: &str, to: &str, problem: &str| refused("workloads.toml", from, to, problem);
    workloads("owners = [\"dan\"]", "owners = [\"dana\"]", "workload[0].owners: `dana` is not a");
    workloads("owners = [\"dan\"]\n", "", "missing field `owners`");
    workloads("operators = [\"dan\"]", "operators = [\"d\"]", "workload[1].operators: `d` is not");
    workloads("groups = [\"agents\"]", "groups = [\"x\"]", "`x` is not one of the groups");
    workloads("\"exporters\"]", "\"exporters\", \"dba\"]", "`dba` is a group of people.toml too");
    workloads("/agent/**", "/**/x", "workload[0].ids: path segments may only hold");
    let resources =
        |from: &str, to: &str, problem: &str| refused("resources.toml", from, to, problem);
    resources("orders/staging/**", "orders/prod", "must not be declared twice");
    resources("orders/staging/**", "orders//x", "resource[2].pattern: must not have an empty");
    resources("[\"delete\"]", "[\"drop\"]", "resource[2].destructive: `drop` is not one of its");
    resources("[\"export\"]", "[]", "resource[3].operations: must name at least one");
    resources("gateway/exports\"", "gateway/\"", "resource[3].gateway: must not have an empty");
    resources("\"testing\"]", "\"testing\", \"testing\"]", "purposes[4]: must not name the same");
    let sensitive = "operations = [\"export\"]\nsensitive = [\"rows\"]";
    resources("operations = [\"export\"]", sensitive, "sensitive arguments are not supported");
}

#[test]
fn every_problem_is_told_with_file_and_place() {
    let files = changed(
        "shop",
        &[
            ("people.toml", "\"operator\"", "\"admin\""),
            ("workloads.toml", "[\"pete\"]", "[\"bea\"]"),
            ("policy.cedar", "@max_ttl(\"1h\")", "@max_tll(\"1h\")"),
            ("policy.cedar", "@max_uses(\"3\")", "@max_uses(\"0\")"),
        ],
    );
    assert_eq!(
        told(Bundle::load(&files).unwrap_err()),
        [
            "people.toml person.olga.roles: `admin` is none of operator, auditor, policy-admin",
            "workloads.toml workload[1].owners: `bea` is not a person of people.toml",
            "policy.cedar line 3 (`staging`): `@max_tll` is not an annotation that we know",
            "policy.cedar line 48 (`refund-large`): `@max_uses` must count from 1 to 10000, \
             in digits",
        ]
    );
}
