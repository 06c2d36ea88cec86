//! The service that the agent calls: guarded as in production, reached without a network.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dayfly_agent::testkit::{GATEWAY, Kit};
use dayfly_verifier::scope::Value;
use dayfly_verifier::tower::{BadCall, Cut, Guard, Received};
use dayfly_verifier::verify::{Call, Verified};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, ServiceExt as _};

/// Where the shop answers.
pub(crate) const URL: &str = "https://orders.kit.test";

type Happens = Mutex<Option<Box<dyn Fn(&str) + Send + Sync>>>;

/// The shop.
#[derive(Clone)]
pub(crate) struct Shop {
    guard: Guard,
    paid: Arc<Mutex<BTreeMap<String, i64>>>,
    before: Arc<Happens>,
    after: Arc<Happens>,
}

impl Shop {
    pub(crate) fn open(kit: &Kit) -> Self {
        let verifier = kit.gateway(GATEWAY, URL).unwrap();
        let guard = Guard::new(verifier, meaning).asking(kit.uses());
        Self { guard, paid: Arc::default(), before: Arc::default(), after: Arc::default() }
    }

    /// What happens, unseen by the agent, as each of its calls arrives.
    pub(crate) fn before_each_refund(&self, happens: impl Fn(&str) + Send + Sync + 'static) {
        *self.before.lock().unwrap() = Some(Box::new(happens));
    }

    /// What happens after each of its calls that was allowed.
    pub(crate) fn after_each_refund(&self, happens: impl Fn(&str) + Send + Sync + 'static) {
        *self.after.lock().unwrap() = Some(Box::new(happens));
    }

    /// How much was paid back on an order.
    pub(crate) fn refunded(&self, order: &str) -> i64 {
        let resource = format!("orders/prod/{order}");
        self.paid.lock().unwrap().get(&resource).copied().unwrap_or(0)
    }

    pub(crate) async fn send(
        &self,
        method: &Method,
        url: &str,
        headers: HeaderMap,
        body: String,
    ) -> Response<Cut<Full<Bytes>>> {
        let order = url.split('/').nth_back(1).unwrap();
        if let Some(happens) = &*self.before.lock().unwrap() {
            happens(order);
        }
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.parse().unwrap();
        *request.headers_mut() = headers;
        let paid = Arc::clone(&self.paid);
        let handler = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let paid = Arc::clone(&paid);
            async move { Ok::<_, Infallible>(pay(&paid, &request)) }
        });
        let answer = self.guard.layer(handler).oneshot(request).await.unwrap();
        if let (true, Some(happens)) = (answer.status().is_success(), &*self.after.lock().unwrap())
        {
            happens(order);
        }
        answer
    }
}

/// Why the shop refused.
pub(crate) async fn reason(answer: Response<Cut<Full<Bytes>>>) -> String {
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    body.get("error").and_then(|error| error.as_str()).unwrap().to_owned()
}

fn meaning(request: &Received<'_>) -> Result<Call, BadCall> {
    let ["orders", order, "refund"] = request.segments()?[..] else { return Err(BadCall::Unknown) };
    Ok(Call {
        operation: "refund".parse()?,
        resource: format!("orders/prod/{order}").parse()?,
        arguments: request.arguments()?,
    })
}

fn pay(
    paid: &Mutex<BTreeMap<String, i64>>,
    request: &Request<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    let call = request.extensions().get::<Verified>().unwrap().call();
    let Some(Value::Int(amount)) = call.arguments.values().next() else { panic!() };
    let mut paid = paid.lock().unwrap();
    let sum = paid.entry(call.resource.to_string()).or_default();
    *sum = sum.checked_add(*amount).unwrap();
    Response::new(Full::default())
}
