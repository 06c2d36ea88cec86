//! The world in which Dayfly is tested: brokers, people, gateways and agents on loopback.
//!
//! A [`World`](world::World) is a broker in this process, with a clock that is moved by hand and
//! randomness from a seed. A [`Site`](site::Site) is the built binary, in processes of its own.
//! Both are founded on a [`Shop`](shop::Shop): the example bundle, with people whose keys are at
//! hand. A [`Running`](running::Running) is a broker in this process by this machine's clock.

#![expect(clippy::unwrap_used, reason = "a world that cannot be set up fails its test")]

pub mod clock;
pub mod running;
pub mod shop;
pub mod site;
pub mod sizes;
pub mod world;
