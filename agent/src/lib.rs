//! The client side of Dayfly: identity, requests, decisions, tokens, proofs.
//!
//! An agent asks for a right, waits for the people who decide, acts with a token at hand, and gives
//! the right back. It never acts on an answer that did not come.
//!
//! ```no_run
//! use std::path::Path;
//! use dayfly_agent::client::Client;
//! use dayfly_agent::grant::NotDone;
//! use dayfly_agent::ticket::Ask;
//! use dayfly_verifier::scope::Scope;
//!
//! # async fn refund() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Path::new("/var/lib/refunds/identity")).await?;
//! let scope = Scope::new(["refund orders/prod/o-17".parse()?], ["amount <= 500".parse()?])?;
//! let gateway = "spiffe://shop.test/gateway/orders".parse()?;
//! let ask = Ask::new(gateway, scope, "case-7".parse()?, "customer-support".parse()?);
//! let done = client.run(ask, async |grant, token| {
//!     // Call the service with `grant.headers(..)`; a further token is a `grant.token()` away.
//!     Ok::<_, std::io::Error>(())
//! });
//! match done.await {
//!     Ok(()) => {}
//!     Err(NotDone::NotRun(why)) => println!("{}", why.advice().message), // fit for a model
//!     Err(NotDone::Failed(error)) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | to | see |
//! |---|---|
//! | take a request up again after a restart | [`ticket::Ticket::save`], [`client::Client::hold`] |
//! | do several things under one grant | [`client::Client::acquire`], [`grant::Grant`] |
//! | give a grant back whatever happens | [`grant::Grant::guard`] |
//! | hand a narrower copy to another agent | [`grant::Grant::delegate`] |
//! | call a gateway over HTTP | [`uses::Use`], [`grant::Grant::headers`] |
//! | tell a no from a silence | [`errors::Error`] |
//! | test all of it | `testkit`, a feature |

pub mod files;
pub mod svid;
pub mod tls;

pub mod identity;
pub mod join;
pub mod session;

pub mod listen;

pub mod render;
pub mod sign;

pub mod errors;

pub mod case;
pub mod convert;
pub mod ticket;

pub mod client;
pub mod grant;
pub mod held;
pub mod uses;

#[cfg(feature = "testkit")]
pub mod testkit;

#[cfg(test)]
mod testing;
