//! The egress gateway between real sockets: agents on one side, TLS services on the other.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod bench;
mod credentials;
mod hygiene;
mod kinds;
mod limits;
mod origin;
mod overlap;
mod planted;
mod refusals;
mod reuse;
mod streaming;
mod tenancy;
