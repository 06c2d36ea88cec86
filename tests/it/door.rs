//! `revoke --wait` against gateways that are processes of their own: what it says of one that
//! hears nothing, and of one that is stopped, is held against what these do.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dayfly_verifier::time::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::guarded::Opening;
use crate::parties::{Agent, Gateway, Use, now};
use crate::process::Process;
use crate::world::{SHOP, World};

const STALENESS: Duration = Duration::from_secs(5);

/// An instance of `gateway/orders` that reaches the broker at `broker`.
fn start(world: &World, instance: &str, broker: SocketAddr) -> Process {
    let identity = identity_through(world, instance, broker);
    let opening = Opening { instance: instance.into(), ..Opening::usual(STALENESS) };
    Process::start(world, &format!("{SHOP}/gateway/orders"), &identity, &opening)
}

/// The identity of the orders gateway, with `broker` as the address of the broker.
fn identity_through(world: &World, name: &str, broker: SocketAddr) -> PathBuf {
    let (from, to) = (world.identity("gateway/orders"), world.path(&format!("id-at-{name}")));
    let copied = Command::new("cp").arg("-a").arg(from).arg(&to).status().unwrap();
    assert!(copied.success());
    let names = to.join("identity.toml");
    let text = std::fs::read_to_string(&names).unwrap();
    assert!(text.contains(&world.address().to_string()));
    std::fs::write(&names, text.replace(&world.address().to_string(), &broker.to_string()))
        .unwrap();
    to
}

/// A wire to `target` on which nothing moves any more once it is held; connections stay open.
async fn wire(target: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (hold, held) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut held = held.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(target).await else { return };
                let moving = async {
                    let _over = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                };
                let holding = async { drop(held.wait_for(|held| *held).await) };
                let over = tokio::select! {
                    () = moving => true,
                    () = holding => false,
                };
                if !over {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (address, hold)
}

/// What `dayfly revoke --wait` said, each line with the moment by which it was read.
struct Said {
    code: Option<i32>,
    progress: Vec<(Timestamp, String)>,
    result: String,
}

/// Runs it as the operator.
async fn revoke_and_wait(world: &World, target: &[&str]) -> Said {
    let args = [&["revoke", "--wait"], target].concat();
    let mut command = world.command(Some(&world.identity("person/olga")), &args, &[]);
    tokio::task::spawn_blocking(move || {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let progress = lines.map_while(Result::ok).map(|line| (now(), line)).collect();
        let mut result = String::new();
        child.stdout.take().unwrap().read_to_string(&mut result).unwrap();
        Said { code: child.wait().unwrap().code(), progress, result }
    })
    .await
    .unwrap()
}

/// The text between two others.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(found, _)| found)
}

/// Within which time a line says that the instance refuses by itself.
fn claimed(line: &str, instance: &str) -> Option<Duration> {
    let about = line.split("; ").find(|part| part.contains(&format!("/{instance} ")))?;
    let seconds = about.split_once("refuses by itself in ")?.1.strip_suffix(" s")?;
    Some(Duration::from_secs_f64(seconds.parse().unwrap()))
}

/// Holds what was said against what the late one did: when it was asked, and what it answered.
fn hold_to_account(said: &Said, asked: &[(Timestamp, u16)], everywhere: Timestamp) {
    let told = format!("{:?}\n{}", said.progress, said.result);

    assert_eq!(said.code, Some(0), "{told}");
    let since: Timestamp =
        between(&said.result, "holds everywhere since ", ", after ").unwrap().parse().unwrap();
    assert!(since <= everywhere, "{told}");
    assert!(said.result.contains("effective on 1 of 3"), "{told}");
    for instance in ["late", "stopped"] {
        let silent = format!("gateway/orders/{instance} silent for ");
        assert!(said.result.contains(&silent), "{told}");
    }

    let (revoked, _) = said.progress.iter().find(|(_, line)| line.contains("revoked as")).unwrap();
    let accepted: Vec<_> =
        asked.iter().filter(|(_, status)| *status == 200).map(|(at, _)| *at).collect();
    let last = accepted.iter().copied().max().unwrap();
    assert!(last >= *revoked, "the late one was never late: this shows nothing. {told}");
    assert!(last <= since, "accepted at {last}, {told}");
    let claims: Vec<_> = (said.progress.iter())
        .filter_map(|(read_at, line)| Some(read_at.plus(claimed(line, "late")?)))
        .collect();
    assert!(claims.len() > 1, "{told}");
    for refuses_by in claims {
        assert!(last <= refuses_by, "accepted at {last}, to refuse by {refuses_by}. {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_what_revoke_wait_says_is_what_gateways_do() {
    let world = World::start("");
    let (through, hold) = wire(world.address()).await;
    let prompt = start(&world, "prompt", world.address());
    let stopped = start(&world, "stopped", world.address());
    let late = Arc::new(start(&world, "late", through));
    let agent = Agent::new(&world, "agent/support").await;
    let (request, exchanged) = agent.reading(&world).await;
    let (key, token) = (agent.key.clone(), exchanged.token);
    let read = Use { key: &key, token: &token, order: "o-17", refund: None };
    for process in [&prompt, &stopped, &*late] {
        read.until(&process.gateway, 200).await;
    }

    // From here on, one hears nothing, and one does nothing.
    hold.send_replace(true);
    stopped.stop();
    let (asked, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let asking = tokio::spawn({
        let (asked, over, late) = (asked.clone(), over.clone(), late.clone());
        let (key, token) = (key.clone(), token.clone());
        async move {
            let read = Use { key: &key, token: &token, order: "o-17", refund: None };
            loop {
                let (last, started) = (over.load(Ordering::SeqCst), now());
                let got = read.at(&late.gateway).await;
                asked.lock().unwrap().push((started, got.status));
                if last && got.status != 200 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let said = revoke_and_wait(&world, &["--grant", &request.grant_id]).await;
    let everywhere = now();
    over.store(true, Ordering::SeqCst);
    let refused = tokio::time::timeout(4 * STALENESS, asking).await;
    refused.expect("it never refused").unwrap();
    hold_to_account(&said, &asked.lock().unwrap(), everywhere);

    // What was sent to the stopped one while it stood still is refused when it goes on.
    let sent = tokio::spawn({
        let (key, token) = (key.clone(), token.clone());
        let gateway = Gateway::elsewhere(stopped.gateway.address, &stopped.gateway.audience);
        async move {
            let read = Use { key: &key, token: &token, order: "o-17", refund: None };
            read.at(&gateway).await
        }
    });
    // On a connection that stands and has been written to, whichever comes first.
    tokio::time::sleep(Duration::from_millis(50)).await;
    stopped.go_on();
    let first = sent.await.unwrap();
    assert_ne!(first.status, 200, "{first:?}");
    for process in [&prompt, &stopped] {
        let got = read.until(&process.gateway, 401).await;
        assert!(got.head.contains("revoked") || got.body.contains("revoked"), "{got:?}");
    }
}
