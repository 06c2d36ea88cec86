//! A workload and a broker that says what a test wants it to say.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow is a failed test")]

mod fake;

use std::collections::VecDeque;
use std::net::SocketAddr;

use dayfly_verifier::claims::{Claims, Record};
use dayfly_verifier::id::{Epoch, GrantId, KeyId, RequestDigest, Seq, TokenId};
use dayfly_verifier::wire::{LocalSigner, mint};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Endpoint;
use zeroize::Zeroizing;

use self::fake::{Fake, Script, Told, serve};
use super::*;
use crate::case::Standing;
use crate::errors::{Ended, Reason, Refusal};
use crate::session::OpenError;
use crate::ticket::tests::{NOW, ask, ticket};

const CALLER: &str = "spiffe://shop.test/agent/refunds";

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(NOW).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

fn client(at: SocketAddr) -> Client {
    let channel = Endpoint::from_shared(format!("http://{at}")).unwrap().connect_lazy();
    Client::over(channel, CALLER.parse().unwrap(), Arc::new(Fixed))
        .patient_for(Duration::from_millis(300))
}

const EPOCH: Epoch = Epoch::new([1; 16]);

fn grant(ticket: &Ticket) -> GrantId {
    GrantId::derive(&EPOCH, &CALLER.parse().unwrap(), ticket.id())
}

fn request(ticket: &Ticket, standing: v1::Standing) -> v1::AccessRequest {
    let terms = v1::Terms {
        from_ms: NOW as i64,
        until_ms: NOW as i64 + 300_000,
        scope: ticket.filing().unwrap().scope,
        ..Default::default()
    };
    v1::AccessRequest {
        request_id: ticket.id().to_string(),
        grant_id: grant(ticket).to_string(),
        digest: "00".repeat(32),
        standing: standing.into(),
        pending_until_ms: NOW as i64 + 300_000,
        terms: (standing == v1::Standing::Granted).then_some(terms),
        ..Default::default()
    }
}

fn told(changes: Vec<v1::AccessRequest>) -> Result<Told, Status> {
    Ok(Told { changes, stays_open: false })
}

async fn wait(ticket: &Ticket, watches: Vec<Result<Told, Status>>) -> Result<Case, Error> {
    let fake = Fake::of(Script { watches: watches.into(), ..Script::default() });
    let (at, _running) = serve(fake, None).await;
    client(at).wait(ticket, Some(Duration::from_secs(20)), |_| {}).await
}

#[tokio::test]
async fn every_end_but_a_grant_is_an_error() {
    use v1::Standing::*;
    let ticket = ticket();
    for standing in
        [RefusedByPolicy, Denied, Expired, Cancelled, Completed, Revoked, Drifted, Lapsed]
    {
        let changes = vec![request(&ticket, Pending), request(&ticket, standing)];
        let ended = wait(&ticket, vec![told(changes)]).await;
        assert!(matches!(ended, Err(Error::Ended(Ended { .. }))), "{standing:?}");
    }
    let case = wait(&ticket, vec![told(vec![request(&ticket, Granted)])]).await.unwrap();
    assert_eq!(case.standing, Standing::Granted);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_never_a_grant() {
    let ticket = ticket();
    let granted = request(&ticket, v1::Standing::Granted);
    let other =
        v1::AccessRequest { request_id: self::ticket().id().to_string(), ..granted.clone() };
    let without_terms = v1::AccessRequest { terms: None, ..granted.clone() };
    let unspecified = v1::AccessRequest { standing: 0, ..granted.clone() };
    let unknown = v1::AccessRequest { standing: 77, ..granted };
    for bad in [other, without_terms, unspecified, unknown] {
        let answer = wait(&ticket, vec![told(vec![bad])]).await;
        assert!(matches!(answer, Err(Error::CouldNotAsk(OpenError::Answer(_)))));
    }
}

#[tokio::test]
async fn waiting_goes_on_over_ended_streams_and_faults() {
    let ticket = ticket();
    let pending = || told(vec![request(&ticket, v1::Standing::Pending)]);
    let watches = vec![
        pending(),
        told(vec![]),
        Err(Status::unavailable("restarting")),
        pending(),
        told(vec![request(&ticket, v1::Standing::Granted)]),
    ];
    assert!(wait(&ticket, watches).await.is_ok());
    let refused = wait(&ticket, vec![pending(), Err(Status::not_found("no such request"))]).await;
    assert!(matches!(refused, Err(Error::Refused(_))));
}

#[tokio::test]
async fn waiting_goes_on_over_a_restart_of_the_broker() {
    let ticket = ticket();
    let pending = request(&ticket, v1::Standing::Pending);
    let watches = VecDeque::from([Ok(Told { changes: vec![pending], stays_open: true })]);
    let (at, running) = serve(Fake::of(Script { watches, ..Script::default() }), None).await;
    let (told_once, seen) = oneshot::channel();
    let waiting = tokio::spawn({
        let (client, ticket) = (client(at), again_of(&ticket));
        async move {
            let mut told_once = Some(told_once);
            let seen = |_: &Case| {
                if let Some(told_once) = told_once.take() {
                    told_once.send(()).unwrap();
                }
            };
            client.wait(&ticket, Some(Duration::from_secs(20)), seen).await
        }
    });
    seen.await.unwrap();
    drop(running);
    let watches = VecDeque::from([told(vec![request(&ticket, v1::Standing::Granted)])]);
    let (_, _running) = serve(Fake::of(Script { watches, ..Script::default() }), Some(at)).await;
    assert_eq!(waiting.await.unwrap().unwrap().standing, Standing::Granted);
}

#[tokio::test]
async fn what_was_filed_is_waited_for_longer_than_a_call_is_patient() {
    let ticket = ticket();
    let absent = || Err(Status::unavailable("restarting"));
    let script = Script {
        files: VecDeque::from([Ok(request(&ticket, v1::Standing::Pending))]),
        watches: VecDeque::from([
            absent(),
            absent(),
            absent(),
            absent(),
            told(vec![request(&ticket, v1::Standing::Granted)]),
        ]),
        ..Script::default()
    };
    let (at, _running) = serve(Fake::of(script), None).await;
    client(at).hold(ticket).await.unwrap();
}

/// The same ticket in another process.
fn again_of(ticket: &Ticket) -> Ticket {
    serde_json::from_str(&serde_json::to_string(ticket).unwrap()).unwrap()
}

#[tokio::test]
async fn the_end_of_patience_is_pending_and_an_absent_broker_is_unknown() {
    let ticket = ticket();
    let pending = request(&ticket, v1::Standing::Pending);
    let watches = VecDeque::from([Ok(Told { changes: vec![pending], stays_open: true })]);
    let (at, _running) = serve(Fake::of(Script { watches, ..Script::default() }), None).await;
    let waited = client(at).wait(&ticket, Some(Duration::from_millis(300)), |_| {}).await;
    assert!(matches!(waited, Err(Error::StillPending)));

    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = client(nowhere);
    let exchange = client.draw_exchange().unwrap();
    assert!(matches!(client.file(&ticket).await, Err(Error::CouldNotAsk(_))));
    assert!(matches!(client.exchange(&ticket, &exchange).await, Err(Error::CouldNotAsk(_))));
    assert!(matches!(client.wait(&ticket, None, |_| {}).await, Err(Error::CouldNotAsk(_))));
    let done = client.complete(&ticket, Outcome::Succeeded).await;
    assert!(matches!(done, Err(Error::CouldNotAsk(_))));
}

/// The request must have expired by now, and the connection is alive.
#[tokio::test]
async fn a_broker_that_tells_no_end_is_not_waited_for_without_end() {
    let ticket = ticket();
    let mut late = request(&ticket, v1::Standing::Pending);
    late.pending_until_ms = NOW as i64 - 60_000;
    let watches = VecDeque::from([Ok(Told { changes: vec![late], stays_open: true })]);
    let (at, _running) = serve(Fake::of(Script { watches, ..Script::default() }), None).await;
    let client = client(at);
    let waiting = client.wait(&ticket, None, |_| {});
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(matches!(waited, Ok(Err(Error::CouldNotAsk(_)))));
}

/// The answer to an exchange with a token of these claims.
fn answer(claims: &Claims) -> v1::ExchangeResponse {
    let signer = LocalSigner::new(KeyId(1), &[7; 32], Zeroizing::new([8; 32]));
    let record = Record { epoch: EPOCH, seq: Seq(1) };
    v1::ExchangeResponse {
        token: mint(claims, &record, &signer).unwrap().expose().to_owned(),
        token_id: claims.token.to_string(),
        expires_at_ms: claims.expires_at.as_ms() as i64,
        grant_id: claims.grant.to_string(),
    }
}

fn claims(ticket: &Ticket) -> Claims {
    Claims {
        token: TokenId::new([2; 16]),
        grant: grant(ticket),
        request: RequestDigest::new([4; 32]),
        task: ask().task,
        subject: CALLER.parse().unwrap(),
        principal: ask().principal,
        audience: ask().audience,
        scope: ask().scope,
        holder: Confirmation::Key(ticket.holder_key().unwrap()),
        issued_at: Timestamp::from_ms(NOW).unwrap(),
        expires_at: Timestamp::from_ms(NOW + 120_000).unwrap(),
        online: false,
        counted: false,
        key: KeyId(1),
    }
}

#[tokio::test]
async fn an_exchange_is_retried_under_its_id_with_a_proof_of_the_holder() {
    let ticket = ticket();
    let exchanges = VecDeque::from([
        Err(Status::unavailable("restarting")),
        Err(Status::unknown("cut")),
        Ok(answer(&claims(&ticket))),
    ]);
    let fake = Fake::of(Script { exchanges, ..Script::default() });
    let (at, _running) = serve(fake.clone(), None).await;
    let client = client(at).patient_for(Duration::from_secs(20));
    let exchange = client.draw_exchange().unwrap();
    let held = client.exchange(&ticket, &exchange).await.unwrap();
    assert!(held.claims == claims(&ticket) && held.is_fresh(client.now()));
    assert!(!held.is_fresh(client.now().plus(Duration::from_secs(80))));

    let sent = std::mem::take(&mut fake.0.lock().unwrap().exchanged);
    assert_eq!(sent.len(), 3);
    for sent in sent {
        assert_eq!(sent.exchange_id, exchange.to_string());
        let proof = sent.proof.unwrap();
        let proof = HolderProof {
            at: Timestamp::from_ms(proof.at_ms as u64).unwrap(),
            signature: proof.signature.as_ref().try_into().unwrap(),
        };
        let caller = CALLER.parse().unwrap();
        let call = HolderCall {
            method: "dayfly.v1.AccessService/Exchange",
            request: ticket.id(),
            caller: &caller,
            filing: None,
        };
        let key = ticket.holder_key().unwrap();
        assert_eq!(proof.check(&key, &call, client.now()), Ok(()));
    }
}

#[tokio::test]
async fn a_token_that_was_not_asked_for_is_no_answer() {
    let ticket = ticket();
    let good = claims(&ticket);
    let stranger = Confirmation::Key(self::ticket().holder_key().unwrap());
    let gateway = "spiffe://shop.test/gateway/other".parse().unwrap();
    let named = v1::ExchangeResponse { grant_id: "00".repeat(16), ..answer(&good) };
    for bad in [
        answer(&Claims { holder: stranger, ..good.clone() }),
        answer(&Claims { holder: Confirmation::Identity, ..good.clone() }),
        answer(&Claims { audience: gateway, ..good.clone() }),
        answer(&Claims { grant: grant(&self::ticket()), ..good.clone() }),
        v1::ExchangeResponse { token: "x".into(), ..answer(&good) },
        v1::ExchangeResponse { expires_at_ms: 0, ..answer(&good) },
        named,
    ] {
        let exchanges = VecDeque::from([Ok(bad)]);
        let (at, _running) = serve(Fake::of(Script { exchanges, ..Script::default() }), None).await;
        let exchange = client(at).draw_exchange().unwrap();
        let answer = client(at).exchange(&ticket, &exchange).await;
        assert!(matches!(answer, Err(Error::CouldNotAsk(OpenError::Answer(_)))));
    }
}

/// A token, and a key, can be taken back alone; the grant goes on.
#[tokio::test]
async fn a_token_that_was_taken_back_before_it_came_does_not_end_its_grant() {
    let ticket = ticket();
    let granted = request(&ticket, v1::Standing::Granted);
    let case = Case::read(Some(granted), Some(ticket.id())).unwrap();
    let good = answer(&claims(&ticket));
    let fake = Fake::of(Script::default());
    let (at, _running) = serve(fake.clone(), None).await;
    let grant = Grant::new(client(at), ticket, &case).unwrap();
    assert!(matches!(grant.token().await, Err(Error::CouldNotAsk(_))));
    let revoked = || Err(Refusal::new(Reason::Revoked, "it was revoked").to_status(None));
    fake.0.lock().unwrap().exchanges = VecDeque::from([revoked(), Ok(good)]);
    assert!(grant.token().await.is_ok());

    let sent = std::mem::take(&mut fake.0.lock().unwrap().exchanged);
    let [.., again, new] = &sent[..] else { panic!("{} exchanges", sent.len()) };
    assert_eq!(again.exchange_id, sent[0].exchange_id, "it was to be asked for again");
    assert_ne!(new.exchange_id, again.exchange_id);
}

/// What is said of another exchange is said of the grant.
#[tokio::test]
async fn a_grant_that_was_taken_back_is_over_whatever_was_asked_before() {
    let ticket = ticket();
    let granted = request(&ticket, v1::Standing::Granted);
    let case = Case::read(Some(granted), Some(ticket.id())).unwrap();
    let fake = Fake::of(Script::default());
    let (at, _running) = serve(fake.clone(), None).await;
    let grant = Grant::new(client(at), ticket, &case).unwrap();
    assert!(matches!(grant.token().await, Err(Error::CouldNotAsk(_))));
    let revoked = || Err(Refusal::new(Reason::Revoked, "it was revoked").to_status(None));
    fake.0.lock().unwrap().exchanges = VecDeque::from([revoked(), revoked()]);
    for _ in 0..2 {
        assert_eq!(grant.token().await.err().unwrap().reason(), Some(Reason::Revoked));
    }
    assert!(fake.0.lock().unwrap().exchanges.is_empty());
}

/// A gateway refuses a token that was taken back alone; the grant has another one to give.
#[tokio::test]
async fn a_token_that_a_gateway_refused_is_not_given_again() {
    let ticket = ticket();
    let granted = request(&ticket, v1::Standing::Granted);
    let case = Case::read(Some(granted), Some(ticket.id())).unwrap();
    let first = claims(&ticket);
    let second = Claims { token: TokenId::new([9; 16]), ..first.clone() };
    let exchanges = VecDeque::from([Ok(answer(&first)), Ok(answer(&second))]);
    let fake = Fake::of(Script { exchanges, ..Script::default() });
    let (at, _running) = serve(fake.clone(), None).await;
    let grant = Grant::new(client(at), ticket, &case).unwrap();
    let refused = grant.token().await.unwrap();
    assert!(grant.token().await.unwrap().claims == first, "it was exchanged needlessly");
    grant.refused(&refused).await;
    assert!(grant.token().await.unwrap().claims == second);
    // One that is no longer given anyway takes nothing from the one that is.
    grant.refused(&refused).await;
    assert!(grant.token().await.unwrap().claims == second);
    let sent = std::mem::take(&mut fake.0.lock().unwrap().exchanged);
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0].exchange_id, sent[1].exchange_id);
}

/// A host whose clock is off is refused until it is right again.
#[tokio::test]
async fn a_grant_is_given_back_over_a_refusal_that_passes() {
    let ticket = ticket();
    let granted = request(&ticket, v1::Standing::Granted);
    let case = Case::read(Some(granted), Some(ticket.id())).unwrap();
    let off = || Err(Refusal::new(Reason::ProofTime, "the clocks differ").to_status(None));
    let ended = Ok(request(&ticket, v1::Standing::Completed));
    let completes = VecDeque::from([off(), off(), ended]);
    let fake = Fake::of(Script { completes, ..Script::default() });
    let all_told = Arc::clone(&fake.0.lock().unwrap().all_completed);
    let (at, _running) = serve(fake.clone(), None).await;
    let guard = Grant::new(client(at), ticket, &case).unwrap().guard();
    assert!(matches!(guard.complete(Outcome::Succeeded).await, Err(Error::Refused(_))));
    tokio::time::timeout(Duration::from_secs(20), all_told.notified()).await.unwrap();
}

#[tokio::test]
async fn a_filing_is_proven_over_what_is_sent() {
    let ticket = ticket();
    let pending = request(&ticket, v1::Standing::Pending);
    let fake = Fake::of(Script { files: VecDeque::from([Ok(pending)]), ..Script::default() });
    let (at, _running) = serve(fake.clone(), None).await;
    client(at).file(&ticket).await.unwrap();
    let mut sent = fake.0.lock().unwrap().filed.pop().unwrap();
    let proof = sent.proof.take().unwrap();
    let proof = HolderProof {
        at: Timestamp::from_ms(proof.at_ms as u64).unwrap(),
        signature: proof.signature.as_ref().try_into().unwrap(),
    };
    let caller = CALLER.parse().unwrap();
    let check = |sent: &v1::RequestAccessRequest| {
        let digest = Sha256::digest(sent.encode_to_vec()).into();
        let call = HolderCall {
            method: "dayfly.v1.AccessService/RequestAccess",
            request: ticket.id(),
            caller: &caller,
            filing: Some(&digest),
        };
        proof.check(&ticket.holder_key().unwrap(), &call, Timestamp::from_ms(NOW).unwrap())
    };
    assert_eq!(check(&sent), Ok(()));
    sent.uses += 1;
    assert!(check(&sent).is_err());
}
