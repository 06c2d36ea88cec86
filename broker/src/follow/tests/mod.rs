//! The feed from the journal to a gateway's view: over TCP, through relays that cut, with a
//! journal that does not answer, to readers that do not read.

mod cuts;
mod feed_keys;
mod instances;
mod keys;
mod seen;
mod stream;
mod world;
