//! The operator service: bundles, lists, invitations. Who may call it at all is the guard's rule;
//! what is tested here is what the rules of the core refuse behind it.

use dayfly_proto::v1::operator_service_server::OperatorService as _;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::*;

/// The shop's bundle with one change.
fn changed(file: &str, from: &str, to: &str) -> Vec<v1::BundleFile> {
    let files = shop();
    let files = files.iter().map(|(name, content)| {
        let mut text = String::from_utf8(content.to_vec()).unwrap();
        if name == file {
            assert!(text.contains(from), "{file} does not hold {from:?}");
            text = text.replacen(from, to, 1);
        }
        v1::BundleFile { name: name.into(), content: text.into_bytes().into() }
    });
    files.collect()
}

fn tightened() -> Vec<v1::BundleFile> {
    let forbid = "@id(\"freeze\")\n@reason(\"no refunds today\")\n\
                  forbid (principal, action == Action::\"refund\", resource);\n";
    changed("policy.cedar", "// Amounts are in cents.\n", forbid)
}

impl World {
    async fn apply(
        &self,
        person: &str,
        files: Vec<v1::BundleFile>,
        dry_run: bool,
    ) -> Result<v1::ApplyBundleResponse, Status> {
        let message = v1::ApplyBundleRequest { files, signatures: Vec::new(), dry_run };
        let answer = self.operator().apply_bundle(self.by(person, message)).await?;
        Ok(answer.into_inner())
    }

    async fn list(&self, filter: v1::ListGrantsRequest) -> Vec<v1::AccessRequest> {
        let answer = self.operator().list_grants(self.by("olga", filter)).await;
        answer.unwrap().into_inner().requests
    }
}

#[tokio::test]
async fn a_bundle_that_is_refused_changes_nothing_and_tells_every_problem() {
    let world = World::new().await;
    let head = world.broker.sequencer.state().head;
    let misspelt = changed("policy.cedar", "@approvals(\"dba:1\")", "@approval(\"dba:1\")");
    for dry_run in [true, false] {
        let status = world.apply("olga", misspelt.clone(), dry_run).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID");
        for problem in ["`@approval` is not an annotation", "`@approvals` is missing"] {
            assert!(status.message().contains(problem), "{}", status.message());
        }
        // Nobody else than an operator, not even a policy admin.
        for person in ["caro", "ana"] {
            let status = world.apply(person, tightened(), dry_run).await.unwrap_err();
            assert_eq!(reason(&status), "NOT_FOUND", "{person}");
        }
        let files = tightened().into_iter().map(|file| (file.name, file.content.into()));
        let digest = BundleFiles::new(files).unwrap().digest();
        assert_eq!(world.broker.store.bundle(&digest).await, Ok(None), "it is not even kept");
        let missing = tightened()[1..].to_vec();
        assert_eq!(reason(&world.apply("olga", missing, dry_run).await.unwrap_err()), "INVALID");
    }
    let signed =
        v1::ApplyBundleRequest { files: tightened(), signatures: vec!["x".into()], dry_run: true };
    let answer = world.operator().apply_bundle(world.by("olga", signed)).await;
    assert_eq!(refused(answer), "INVALID");
    assert_eq!(world.broker.sequencer.state().head, head);
}

#[tokio::test]
async fn a_tightened_bundle_ends_live_grants_in_the_name_of_its_policy() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let refund = world.filing(&agent, 1, "refund orders/prod/o-17");
    let refund = world.file(&agent, refund).await.unwrap();
    let pending = world.filing(&agent, 2, "read orders/prod/o-17");
    let pending = world.file(&agent, pending).await.unwrap();
    let token = world.exchange(&agent, &refund.request_id, 1).await.unwrap();
    let head = world.broker.sequencer.state().head;

    let would = world.apply("olga", tightened(), true).await.unwrap();
    assert_eq!(world.broker.sequencer.state().head, head);
    let again = world.exchange(&agent, &refund.request_id, 1).await.unwrap();
    assert_eq!(again.token, token.token);

    let did = world.apply("olga", tightened(), false).await.unwrap();
    assert_eq!((did.bundle_digest, &did.drifted), (would.bundle_digest, &would.drifted));
    let [drifted] = &did.drifted[..] else { panic!("{:?}", did.drifted) };
    assert_eq!(drifted.grant_id, refund.grant_id);
    assert_eq!((drifted.policy.as_str(), drifted.reason.as_str()), ("freeze", "no refunds today"));
    for n in [1, 2] {
        let status = world.exchange(&agent, &refund.request_id, n).await.unwrap_err();
        assert_eq!(reason(&status), "DRIFTED", "{n}");
        assert!(status.message().contains("policy `freeze` refuses: no refunds today"));
    }
    // What it would still grant goes on.
    let state = world.broker.sequencer.state();
    let case = state.own(&agent.id, &pending.request_id.parse().unwrap()).unwrap();
    assert_eq!(case.standing(world.clock.now()), crate::core::case::Standing::Pending);
    // And new requests are judged by the new bundle.
    let late = world.filing(&agent, 3, "refund orders/prod/o-18");
    let late = world.file(&agent, late).await.unwrap();
    assert_eq!(late.because, "policy `freeze`: no refunds today");
    // The same bundle again changes nothing.
    let head = world.broker.sequencer.state().head;
    assert!(world.apply("olga", tightened(), false).await.unwrap().drifted.is_empty());
    assert_eq!(world.broker.sequencer.state().head, head);
}

#[tokio::test]
async fn a_list_shows_what_its_filter_admits() {
    let world = World::new().await;
    let (agent, other) = (world.agent("agent/a", 1), world.agent("agent/b", 2));
    let granted = world.filing(&agent, 1, "refund orders/prod/o-17");
    let granted = world.file(&agent, granted).await.unwrap();
    let pending = v1::RequestAccessRequest {
        task: "task-2".into(),
        ..world.filing(&other, 2, "read orders/prod/o-17")
    };
    let pending = world.file(&other, pending).await.unwrap();
    let ids = |requests: Vec<v1::AccessRequest>| -> std::collections::BTreeSet<String> {
        requests.into_iter().map(|request| request.grant_id).collect()
    };
    let only = |request: &v1::AccessRequest| [request.grant_id.clone()].into();
    let all = v1::ListGrantsRequest::default();
    assert_eq!(world.list(all.clone()).await.len(), 2);
    let standings = vec![v1::Standing::Pending.into()];
    let filter = v1::ListGrantsRequest { standings, ..all.clone() };
    assert_eq!(ids(world.list(filter).await), only(&pending));
    let filter = v1::ListGrantsRequest { workload: agent.id.to_string(), ..all.clone() };
    assert_eq!(ids(world.list(filter).await), only(&granted));
    let filter = v1::ListGrantsRequest { task: "task-2".into(), ..all.clone() };
    assert_eq!(ids(world.list(filter).await), only(&pending));
    for bad in [0, 99, -1] {
        let filter = v1::ListGrantsRequest { standings: vec![bad], ..all.clone() };
        let answer = world.operator().list_grants(world.by("olga", filter)).await;
        assert_eq!(refused(answer), "INVALID");
    }
}

#[tokio::test]
async fn an_invitation_is_for_an_id_of_the_trust_domain() {
    let world = World::new().await;
    let invite = async |id: &str| {
        let message = v1::CreateJoinRequest { spiffe_id: id.into() };
        world.operator().create_join(world.by("olga", message)).await
    };
    for bad in ["", "agent/a", "spiffe://other.test/agent/a", "spiffe://SHOP.test/agent/a"] {
        assert_eq!(refused(invite(bad).await), "INVALID", "{bad:?}");
    }
    let first = invite("spiffe://shop.test/agent/a").await.unwrap().into_inner();
    let second = invite("spiffe://shop.test/agent/a").await.unwrap().into_inner();
    assert!(first.join_string.starts_with("dayfly-join."));
    assert_ne!(first.join_string, second.join_string);
    assert_eq!(first.expires_at_ms, i64::try_from(START_MS).unwrap() + 600_000);
}

#[tokio::test]
async fn a12_an_invitation_is_on_record_and_is_for_no_person() {
    let world = World::new().await;
    let invite = async |id: &str, by: &str| {
        let message = v1::CreateJoinRequest { spiffe_id: id.into() };
        world.operator().create_join(world.by(by, message)).await
    };
    let head = world.broker.sequencer.state().head;
    for id in ["spiffe://shop.test/person/ana", "spiffe://shop.test/person/new"] {
        assert_eq!(refused(invite(id, "olga").await), "INVALID", "{id}");
    }
    assert_eq!(refused(invite("spiffe://shop.test/agent/a", "ana").await), "NOT_FOUND");
    assert_eq!(world.broker.sequencer.state().head, head, "nothing was recorded");
    invite("spiffe://shop.test/agent/a", "olga").await.unwrap();
    let state = world.broker.sequencer.state();
    let kin = state.kin(&"spiffe://shop.test/agent/a".parse().unwrap());
    assert!(kin.responsible.contains(&"olga".parse().unwrap()));
}

impl World {
    /// What `broker` says of how far its log is enforced, from now on.
    async fn enforcement(
        &self,
        broker: &Arc<Broker>,
    ) -> BoxStream<'static, Result<v1::WatchEnforcementResponse, Status>> {
        let seq = broker.sequencer.state().head.seq.0;
        let asked = self.by("olga", v1::WatchEnforcementRequest { seq });
        Operator(broker.clone()).watch_enforcement(asked).await.unwrap().into_inner()
    }
}

/// Whoever followed before a restart may have heard of nothing for as long as a minute, even where
/// nothing was live at the restart: what is granted after it can be used there.
#[tokio::test]
async fn after_a_restart_nothing_holds_everywhere_before_those_of_before_refuse() {
    let world = World::new().await;
    let told = world.enforcement(&world.broker).await.next().await.unwrap().unwrap();
    assert!(told.holds_everywhere && told.unseen_refuse_in_ms == 0, "{told:?}");
    let message = v1::CreateJoinRequest { spiffe_id: "spiffe://shop.test/agent/a".into() };
    world.operator().create_join(world.by("olga", message)).await.unwrap();
    let broker = world.beside().await;
    let told = world.enforcement(&broker).await.next().await.unwrap().unwrap();
    assert!(!told.holds_everywhere && told.unseen_refuse_in_ms == 60_000, "{told:?}");
    world.forward(60_000);
    let told = world.enforcement(&broker).await.next().await.unwrap().unwrap();
    assert!(told.holds_everywhere, "{told:?}");
}

/// Whoever follows a peer is not known here, and may have heard of nothing for as long as a minute.
#[tokio::test]
async fn with_peers_nothing_holds_everywhere_before_those_refuse_who_follow_them() {
    let world = World::new().await;
    let broker = world.with_a_peer().await;
    let mut telling = world.enforcement(&broker).await;
    let told = telling.next().await.unwrap().unwrap();
    assert!(!told.holds_everywhere && told.unseen_refuse_in_ms == 60_000, "{told:?}");
    world.forward(59_999);
    // One may be on its way that was made before.
    for _ in 0..2 {
        assert!(!telling.next().await.unwrap().unwrap().holds_everywhere);
    }
    world.forward(1);
    while !telling.next().await.unwrap().unwrap().holds_everywhere {}
}

/// What another broker recorded, and this one has yet to read, ends with the rest, and is named.
#[tokio::test]
async fn a_revocation_names_all_that_it_ends() {
    use v1::revocation_target::Target;
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let ask = |n| world.filing(&agent, n, "refund orders/prod/o-17");
    let beside = async |filing| {
        let other = world.beside().await;
        let asked = world.from(&agent.id, world.proven(&agent, filing));
        Access(other).request_access(asked).await.unwrap().into_inner().request.unwrap()
    };
    let revoke = async |target| {
        let target = Some(v1::RevocationTarget { target: Some(target) });
        let asked = v1::RevokeRequest { target, reason: "stolen".into() };
        let answer = world.operator().revoke(world.by("olga", asked)).await;
        answer.unwrap().into_inner().ended_grants
    };
    let targets = [
        Target::Workload(agent.id.to_string()),
        Target::Task("task-1".into()),
        Target::ResourcePrefix("orders/prod".into()),
    ];
    for (n, target) in (0..).step_by(3).zip(targets) {
        let over = world.file(&agent, ask(n)).await.unwrap();
        world.cancel(&agent, &over.request_id).await.unwrap();
        let here = world.file(&agent, ask(n + 1)).await.unwrap();
        let head = world.broker.sequencer.state().head;
        // This thread waits: nothing is read here meanwhile.
        let there = std::thread::scope(|scope| {
            let elsewhere = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(beside(ask(n + 2)))
            };
            scope.spawn(elsewhere).join().unwrap()
        });
        assert_eq!(world.broker.sequencer.state().head, head);
        let mut all = [here.grant_id, there.grant_id];
        all.sort();
        assert_eq!(revoke(target.clone()).await, all);
        assert!(revoke(target).await.is_empty());
    }
    let one = world.file(&agent, ask(9)).await.unwrap();
    let token = world.exchange(&agent, &one.request_id, 1).await.unwrap();
    assert!(revoke(Target::Token(token.token_id)).await.is_empty());
    assert_eq!(revoke(Target::Grant(one.grant_id.clone())).await, [one.grant_id]);
    // Ten justifications and eight reasons.
    assert_eq!(world.texts(), 18);
}

/// What is open is another at every moment: the operator who tightens policy does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_is_put_into_force_while_much_is_asked_for() {
    let world = World::new().await;
    let asking = async |name: &str, key: u8| {
        let agent = world.agent(name, key);
        for n in 0..=u8::MAX {
            let filing = world.filing(&agent, n, "read orders/prod/o-17");
            let filed = world.file(&agent, filing).await.unwrap();
            let _closed_by_then = world.cancel(&agent, &filed.request_id).await;
        }
    };
    let all = async {
        tokio::join!(
            asking("agent/a", 1),
            asking("agent/b", 2),
            asking("agent/c", 3),
            asking("agent/d", 4)
        )
    };
    tokio::select! {
        biased;
        _ = all => panic!("it was put into force only when nobody asked any more"),
        applied = world.apply("olga", tightened(), false) => assert!(applied.is_ok(), "{applied:?}"),
    }
}
