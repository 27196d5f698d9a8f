//! The PostgreSQL gateway beside a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bench;
mod cancelling;
mod client;
mod departures;
mod differential;
mod failures;
mod overlap;
mod policies;
mod sessions;
mod statements;
mod work;
