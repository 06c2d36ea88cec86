//! The resource of the shop: orders in SQLite behind HTTP, guarded by the verifier's layer.
//!
//! It is what a service of a user looks like: one function says what a request means, the layer
//! does the rest, and the handlers take what they act on from [`Verified`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use dayfly_verifier::scope::Value;
use dayfly_verifier::tower::{BadCall, Guard, Received};
use dayfly_verifier::uses::Uses;
use dayfly_verifier::verify::{Call, Redeem, Verified, Verifier};
use rusqlite::Connection;
use serde_json::{Value as Document, json};

/// Orders, with what was paid and what was paid back, in cents.
pub(super) struct Orders(Mutex<Connection>);

impl Orders {
    /// Three orders, in this file, or else in memory.
    pub(super) fn open(file: Option<PathBuf>) -> rusqlite::Result<Arc<Self>> {
        let database = match file {
            Some(file) => Connection::open(file)?,
            None => Connection::open_in_memory()?,
        };
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS orders (
                 id TEXT PRIMARY KEY, paid INTEGER NOT NULL, refunded INTEGER NOT NULL
             ) STRICT;
             INSERT OR IGNORE INTO orders VALUES ('o-17', 120000, 0), ('o-18', 4500, 0), ('o-19', 99, 0);",
        )?;
        Ok(Arc::new(Self(Mutex::new(database))))
    }

    /// What was paid for an order and what was paid back.
    pub(super) fn read(&self, order: &str) -> rusqlite::Result<(i64, i64)> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        database.query_row("SELECT paid, refunded FROM orders WHERE id = ?1", [order], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    /// Pays back, and never more than was paid.
    fn refund(&self, order: &str, amount: i64) -> rusqlite::Result<bool> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = database.execute(
            "UPDATE orders SET refunded = refunded + ?2
             WHERE id = ?1 AND ?2 > 0 AND refunded + ?2 <= paid",
            (order, amount),
        )?;
        Ok(changed == 1)
    }
}

/// What a request means: `GET /orders/ID` reads an order, `POST /orders/ID/refund` pays back.
fn meaning(request: &Received<'_>) -> Result<Call, BadCall> {
    let (operation, order) = match (request.method().as_str(), &request.segments()?[..]) {
        ("GET", ["orders", order]) => ("read", *order),
        ("POST", ["orders", order, "refund"]) => ("refund", *order),
        _ => return Err(BadCall::Unknown),
    };
    Ok(Call {
        operation: operation.parse()?,
        resource: format!("orders/prod/{order}").parse()?,
        arguments: request.arguments()?,
    })
}

/// The service, guarded.
pub(super) fn service(
    orders: Arc<Orders>,
    verifier: Arc<Verifier>,
    broker: Arc<dyn Redeem>,
    uses: Arc<Uses>,
) -> Router {
    Router::new()
        .route("/orders/{order}", get(read))
        .route("/orders/{order}/refund", post(refund))
        .layer(Guard::new(verifier, meaning).asking(broker).telling(uses))
        .with_state(orders)
}

type Answer = Result<Json<Document>, StatusCode>;

async fn read(
    State(orders): State<Arc<Orders>>,
    Extension(verified): Extension<Verified>,
) -> Answer {
    let order = order(&verified)?;
    let (paid, refunded) = orders.read(order).map_err(|_| StatusCode::NOT_FOUND)?;
    Ok(Json(json!({ "order": order, "paid": paid, "refunded": refunded })))
}

async fn refund(
    State(orders): State<Arc<Orders>>,
    Extension(verified): Extension<Verified>,
) -> Answer {
    let order = order(&verified)?;
    let mut arguments = verified.call().arguments.iter();
    let amount = arguments.find(|(name, _)| name.as_str() == "amount").map(|(_, amount)| amount);
    let Some(Value::Int(amount)) = amount else { return Err(StatusCode::BAD_REQUEST) };
    match orders.refund(order, *amount) {
        Ok(true) => Ok(Json(json!({ "order": order, "refunded": amount }))),
        Ok(false) => Err(StatusCode::CONFLICT),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The order that was judged: the last segment of the resource.
fn order(verified: &Verified) -> Result<&str, StatusCode> {
    verified.call().resource.segments().last().ok_or(StatusCode::NOT_FOUND)
}
