//! What the format must hold, with the library's own builder and authorizer as the reference.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow is a failed test")]

mod golden;
mod hostile;
mod laws;
mod python;
mod reference;
mod traps;
mod vectors;

use std::collections::BTreeSet;
use std::time::Duration;

use biscuit_auth::builder::{Algorithm, AuthorizerBuilder, Fact, Term};
use biscuit_auth::{AuthorizerLimits, Biscuit, KeyPair, PrivateKey, PublicKey};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::*;
use crate::id::{Epoch, GrantId, RequestDigest, Seq, TokenId};
use crate::scope::{Arguments, Constraint, Limit, Right, Scope, Value};
use crate::time::Timestamp;
use crate::verify::holder::{check_audience, check_caveats, check_ended, check_scope};

const GATEWAY: &str = "spiffe://shop.test/gateway/orders";
const ISSUED: u64 = 1_800_000_000;

fn signer() -> LocalSigner {
    LocalSigner::new(KeyId(3), &[7; 32], Zeroizing::new([8; 32]))
}

fn root() -> VerifyingKey {
    signer().public()
}

/// The `n`th holder.
fn holder(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[100 + n; 32])
}

fn holder_key(n: u8) -> HolderKey {
    HolderKey::from_slice(&holder(n).verifying_key().to_bytes()).unwrap()
}

/// The `n`th fresh secret.
fn fresh(n: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([200 + n; 32])
}

fn right(operation: &str, resource: &str) -> Right {
    Right { operation: operation.parse().unwrap(), resource: resource.parse().unwrap() }
}

fn constraint(argument: &str, limit: Limit) -> Constraint {
    Constraint { argument: argument.parse().unwrap(), limit }
}

fn record() -> Record {
    Record { epoch: Epoch::new([1; 16]), seq: Seq(42) }
}

/// Claims with one right, bound to the first holder.
fn claims() -> Claims {
    Claims {
        token: TokenId::new([2; 16]),
        grant: GrantId::new([3; 16]),
        request: RequestDigest::new([4; 32]),
        task: "ticket-17".parse().unwrap(),
        subject: "spiffe://shop.test/agent/refunds".parse().unwrap(),
        principal: None,
        audience: GATEWAY.parse().unwrap(),
        scope: Scope::new([right("refund", "orders/prod/**")], []).unwrap(),
        holder: Confirmation::Key(holder_key(0)),
        issued_at: Timestamp::from_secs(ISSUED).unwrap(),
        expires_at: Timestamp::from_secs(ISSUED + 120).unwrap(),
        online: false,
        counted: false,
        key: KeyId(3),
    }
}

/// Claims with every field and every kind of constraint.
fn full_claims() -> Claims {
    let text = |text: &str| Value::text(text).unwrap();
    let scope = Scope::new(
        [right("read", "orders/prod/o-17"), right("refund", "orders/prod/**"), right("read", "a")],
        [
            constraint("amount", Limit::AtMost(500)),
            constraint("amount", Limit::AtLeast(-1)),
            constraint("currency", Limit::OneOf(BTreeSet::from([text("usd"), text("eur")]))),
            constraint("code", Limit::OneOf(BTreeSet::from([Value::Int(7), Value::Int(-7)]))),
            constraint("order_id", Limit::Equals(text("o-17"))),
            constraint("dry", Limit::Equals(Value::Bool(false))),
            constraint("iban", Limit::Equals(Value::Hidden([9; 32]))),
        ],
    );
    Claims {
        principal: Some("alice".parse().unwrap()),
        scope: scope.unwrap(),
        online: true,
        counted: true,
        ..claims()
    }
}

fn minted(claims: &Claims) -> Decoded {
    Decoded::read(mint(claims, &record(), &signer()).unwrap().expose()).unwrap()
}

fn decode(bytes: &[u8]) -> Result<Decoded, Malformed> {
    Decoded::read(&URL_SAFE_NO_PAD.encode(bytes))
}

fn bytes(token: &Decoded) -> Vec<u8> {
    prost::Message::encode_to_vec(&token.container)
}

/// Whether a container would be let in: inside the profile, with every signature good.
fn accepted(container: &schema::Biscuit) -> bool {
    decode(&prost::Message::encode_to_vec(container))
        .is_ok_and(|token| token.check(&root()).is_ok())
}

fn library_root() -> PublicKey {
    PublicKey::from_bytes(root().as_bytes(), Algorithm::Ed25519).unwrap()
}

fn library_key(secret: &[u8; 32]) -> KeyPair {
    KeyPair::from(&PrivateKey::from_bytes(secret, Algorithm::Ed25519).unwrap())
}

/// The token as the library reads it, its signatures checked.
fn library(token: &Decoded) -> Result<Biscuit, biscuit_auth::error::Token> {
    Biscuit::from(bytes(token), library_root())
}

/// One call at a gateway.
#[derive(Debug, Clone)]
struct Call {
    time: Timestamp,
    gateway: crate::spiffe::SpiffeId,
    operation: crate::resource::Operation,
    resource: crate::resource::Resource,
    arguments: Arguments,
    /// The holder that was proven, as the authority block speaks of it.
    proven: Confirmation,
}

/// What a gateway makes of a call, by its very checks. Who is proven is said here alone: the
/// authority block speaks of the first holder, and the gateway proves the present one.
fn ours(content: &Content, call: &Call) -> bool {
    let claims = &content.claims;
    let Call { time, gateway, operation, resource, arguments, proven } = call.clone();
    let call = crate::verify::Call { operation, resource, arguments };
    check_ended(claims, time).is_ok()
        && check_audience(claims, &gateway).is_ok()
        && proven == claims.holder
        && check_scope(claims, &call).is_ok()
        && check_caveats(content, &gateway, &call, time).is_ok()
}

/// What the library's authorizer says of it, told each ambient fact once.
fn theirs(token: &Biscuit, claims: &Claims, call: &Call) -> bool {
    let value = |value: &Value| match value {
        Value::Int(int) => Term::Integer(*int),
        Value::Text(text) => Term::Str(text.to_string()),
        Value::Bool(bool) => Term::Bool(*bool),
        Value::Hidden(digest) => Term::Bytes(digest.to_vec()),
    };
    let text = |text: &str| Term::Str(text.to_owned());
    let proven = match call.proven {
        Confirmation::Key(key) => Term::Bytes(key.as_bytes().to_vec()),
        Confirmation::Identity => text(claims.subject.as_str()),
    };
    let mut facts = vec![
        Fact::new("time".into(), vec![Term::Date(call.time.as_secs())]),
        Fact::new("gateway".into(), vec![text(call.gateway.as_str())]),
        Fact::new("operation".into(), vec![text(call.operation.as_str())]),
        Fact::new("resource".into(), vec![text(call.resource.as_str())]),
        Fact::new("task".into(), vec![text(claims.task.as_str())]),
        Fact::new("proven".into(), vec![proven]),
    ];
    for (name, argument) in &call.arguments {
        facts.push(Fact::new("arg".into(), vec![text(name.as_str()), value(argument)]));
    }
    let mut authorizer = AuthorizerBuilder::new().policy("allow if true").unwrap();
    for fact in facts {
        authorizer = authorizer.fact(fact).unwrap();
    }
    // A limit that is hit says nothing of the token: long enough for the busiest machine.
    let limits = AuthorizerLimits { max_time: Duration::from_secs(20), ..Default::default() };
    let mut authorizer = authorizer.set_limits(limits).build(token).unwrap();
    match authorizer.authorize() {
        Ok(_) => true,
        Err(biscuit_auth::error::Token::RunLimit(limit)) => panic!("the reference hit {limit:?}"),
        Err(_) => false,
    }
}
