//! A broker in this process, whose clock is moved by hand: what happens when certificates age.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_agent::session::{OpenError, Session};
use dayfly_proto::v1::access_service_client::AccessServiceClient;
use dayfly_proto::v1::audit_service_client::AuditServiceClient;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::{
    ApplyBundleRequest, BundleFile, GetStatusRequest, ListMyGrantsRequest, TailRequest,
};
use dayfly_tests::shop::{AGENT, Shop};
use dayfly_tests::world::World;
use dayfly_verifier::time::Clock as _;
use tonic::{Code, Status};

use crate::world::get;

const STRANGER: &str = "spiffe://shop.test/stranger/x";

async fn status(session: &Session) -> Result<(), Code> {
    let mut operator = OperatorServiceClient::new(session.channel());
    operator.get_status(GetStatusRequest {}).await.map(drop).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_is_renewed_in_the_second_half_of_its_life_and_not_before() {
    let mut world = World::start(1).await;
    let dir = world.join(&Shop::person("olga")).await;
    let open = async || Session::open(&dir, world.clock.clone()).await;
    let first = open().await.unwrap().identity().until();
    world.clock.forward(Duration::from_secs(29 * 60));
    assert_eq!(open().await.unwrap().identity().until(), first);
    world.clock.forward(Duration::from_secs(60));
    let renewed = open().await.unwrap();
    assert_eq!(renewed.identity().until().since(first), Duration::from_secs(30 * 60));
    assert_eq!(status(&renewed).await, Ok(()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a35_an_identity_whose_hour_is_over_is_refused_by_itself_and_by_the_broker() {
    let mut world = World::start(2).await;
    let dir = world.join(&Shop::person("olga")).await;
    let session = Session::open(&dir, world.clock.clone()).await.unwrap();
    assert_eq!(status(&session).await, Ok(()));
    world.clock.forward(Duration::from_secs(60 * 60));
    assert!(status(&session).await.is_err(), "the open connection goes on");
    let ended = Session::open(&dir, world.clock.clone()).await.unwrap_err();
    assert!(matches!(ended, OpenError::Ended(..)), "{ended}");
    world.stop().await;
}

/// Puts the shop's bundle into force as an operator, with `to` in the place of `from`.
async fn apply(world: &World, operator: &Session, from: &str, to: &str) {
    let mut files = Vec::new();
    for file in std::fs::read_dir(&world.shop.bundle).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap().replace(from, to);
        files.push(BundleFile { name, content: text.into_bytes().into() });
    }
    let request = ApplyBundleRequest { files, signatures: Vec::new(), dry_run: false };
    OperatorServiceClient::new(operator.channel()).apply_bundle(request).await.unwrap();
}

/// A copy of an identity directory, as a thief would have it.
fn copied(dir: &Path) -> PathBuf {
    let stolen = dir.with_file_name("stolen");
    std::fs::create_dir(&stolen).unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), stolen.join(file.file_name())).unwrap();
    }
    stolen
}

/// What becomes of a call that any listed workload may make.
async fn ask(session: &Session) -> Result<(), Status> {
    let mut access = AccessServiceClient::new(session.channel());
    access.list_my_grants(ListMyGrantsRequest::default()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a17_a_stolen_identity_shows_when_both_renew() {
    let mut world = World::start(3).await;
    let dir = world.join(AGENT).await;
    let stolen = copied(&dir);
    let owner = Session::open(&dir, world.clock.clone()).await.unwrap();
    let thief = Session::open(&stolen, world.clock.clone()).await.unwrap();
    world.clock.forward(Duration::from_secs(30 * 60));
    thief.renew().await.unwrap();
    ask(&thief).await.unwrap();
    let refused = owner.renew().await.unwrap_err();
    assert!(refused.to_string().contains("locked"), "{refused}");
    // The connection that is open is cut, and the next one is told why.
    let refused = loop {
        match ask(&thief).await.map_err(OpenError::from_status) {
            Err(OpenError::Refused(_, why)) => break why,
            Err(_) => {}
            Ok(()) => panic!("a locked ID is served"),
        }
    };
    assert!(refused.contains("locked"), "{refused}");
    assert!(thief.renew().await.is_err());

    // The owner joins anew, and that lifts the lock for nobody else.
    let anew = dir.with_file_name("anew");
    world.join_in(AGENT, &anew).await;
    let anew = Session::open(&anew, world.clock.clone()).await.unwrap();
    ask(&anew).await.unwrap();
    for dir in [&stolen, &dir] {
        let refused = Session::open(dir, world.clock.clone()).await.unwrap_err();
        assert!(matches!(refused, OpenError::Refused(..)), "{refused}");
    }
    ask(&thief).await.unwrap_err();
    // Neither does a broker that starts anew know less.
    world.stop().await;
    world.serve().await;
    assert!(Session::open(&stolen, world.clock.clone()).await.is_err());
    ask(&anew).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a17_who_is_listed_no_more_is_not_renewed() {
    let mut world = World::start(6).await;
    let (agent, stranger) = (world.session(AGENT).await, world.session(STRANGER).await);
    world.clock.forward(Duration::from_secs(30 * 60));
    let refused = stranger.renew().await.unwrap_err();
    assert!(matches!(&refused, OpenError::Status(s) if s.code() == Code::NotFound), "{refused}");
    agent.renew().await.unwrap();
    let early = agent.renew().await.unwrap_err();
    assert!(early.to_string().contains("a quarter of its life"), "{early}");

    let olga = world.session(&Shop::person("olga")).await;
    apply(&world, &olga, "agent/**", "other/**").await;
    world.clock.forward(Duration::from_secs(30 * 60));
    let refused = agent.renew().await.unwrap_err();
    assert!(matches!(&refused, OpenError::Status(s) if s.code() == Code::NotFound), "{refused}");
    world.stop().await;
}

/// A role that is taken away ends the streams that it allowed, though nothing happens on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_streams_end_with_the_role_that_allowed_them() {
    let mut world = World::start(7).await;
    let [olga, pete] = ["olga", "pete"].map(Shop::person);
    let (olga, pete) = (world.session(&olga).await, world.session(&pete).await);
    let mut audit = AuditServiceClient::new(pete.channel());
    let tail = TailRequest { after_seq: 0, once: false };
    let mut tailed = audit.tail(tail).await.unwrap().into_inner();
    assert!(tailed.message().await.unwrap().is_some());
    apply(&world, &olga, r#""policy-admin", "auditor""#, r#""policy-admin""#).await;
    let ended: Result<(), Status> = async {
        while tailed.message().await?.is_some() {}
        Ok(())
    }
    .await;
    assert_eq!(ended.unwrap_err().code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_with_one_directory_renew_once() {
    let mut world = World::start(4).await;
    let dir = world.join(AGENT).await;
    let open = async || Session::open(&dir, world.clock.clone()).await.unwrap();
    let (one, two) = (open().await, open().await);
    world.clock.forward(Duration::from_secs(30 * 60));
    let (first, second) = tokio::join!(one.renew(), two.renew());
    first.unwrap();
    second.unwrap();
    assert_eq!(one.identity().as_peer(), two.identity().as_peer());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_a_restart_of_the_broker() {
    let mut world = World::start(5).await;
    let session = world.session(&Shop::person("olga")).await;
    assert_eq!(status(&session).await, Ok(()));
    world.stop().await;
    assert!(status(&session).await.is_err());
    world.serve().await;
    assert_eq!(status(&session).await, Ok(()));
    world.stop().await;
}

/// The end of a lock is counted from the time of the broker, whatever this machine's clock says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_lasts_as_long_as_was_asked_for_by_the_brokers_clock() {
    let mut world = World::start(9).await;
    let olga = world.join(&Shop::person("olga")).await;
    world.clock.forward(Duration::from_secs(15 * 60));
    let now = world.clock.now();
    let mut lock = tokio::process::Command::new(env!("CARGO_BIN_EXE_dayfly"));
    lock.args(["--output", "json", "lock", "--task", "case-7", "--for", "10m", "--identity"]);
    let locked = lock.arg(&olga).output().await.unwrap();
    assert_eq!(locked.status.code(), Some(0), "{locked:?}");
    let said: serde_json::Value = serde_json::from_slice(&locked.stdout).unwrap();
    let until = now.plus(Duration::from_secs(600)).as_ms();
    assert_eq!(said["until_ms"], until, "{said}");
    world.stop().await;
}

/// However long the last entry is ago, nobody is told that gateways are as stale as that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_says_it_is_ready_has_confirmed_its_head() {
    let mut world = World::start(10).await;
    for _ in 0..2 {
        world.stop().await;
        world.clock.forward(Duration::from_secs(700));
        world.serve().await;
        let http = world.http();
        let told = tokio::task::spawn_blocking(move || {
            let ready = || get(http, "/readyz").is_some_and(|page| page.contains(" 200 "));
            let ready = std::iter::repeat_with(ready).take(10_000).any(|ready| ready);
            assert!(ready, "it never is");
            get(http, "/metrics").unwrap()
        });
        let told = told.await.unwrap();
        assert!(told.contains("\ndayfly_heartbeat_age_seconds 0.0\n"), "{told}");
    }
    world.stop().await;
}
