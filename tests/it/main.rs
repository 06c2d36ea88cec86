//! The built binary and the rules of the house, from outside.

#![expect(unreachable_pub, reason = "a test has no outside")]

#[cfg(test)]
mod agent_cli;
#[cfg(test)]
mod approval;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod edges;
#[cfg(test)]
mod host;
#[cfg(test)]
mod identities;
#[cfg(test)]
mod parties;
#[cfg(test)]
mod path;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod waiting;
#[cfg(test)]
mod world;
