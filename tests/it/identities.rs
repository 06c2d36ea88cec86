//! A broker in this process, whose clock is moved by hand: what happens when certificates age.

use std::time::Duration;

use dayfly_agent::session::{OpenError, Session};
use dayfly_proto::v1::GetStatusRequest;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_tests::shop::{AGENT, Shop};
use dayfly_tests::world::World;
use tonic::Code;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a17_a_stolen_identity_shows_when_both_renew() {
    let mut world = World::start(3).await;
    let dir = world.join(AGENT).await;
    let stolen = dir.with_file_name("stolen");
    std::fs::create_dir(&stolen).unwrap();
    for file in std::fs::read_dir(&dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), stolen.join(file.file_name())).unwrap();
    }
    let owner = Session::open(&dir, world.clock.clone()).await.unwrap();
    let thief = Session::open(&stolen, world.clock.clone()).await.unwrap();
    world.clock.forward(Duration::from_secs(30 * 60));
    thief.renew().await.unwrap();
    let refused = owner.renew().await.unwrap_err();
    assert!(refused.to_string().contains("locked"), "{refused}");
    let refused = thief.renew().await.unwrap_err();
    assert!(refused.to_string().contains("locked"), "{refused}");
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
