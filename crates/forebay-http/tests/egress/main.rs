//! The egress gateway between real sockets: agents on one side, TLS services on the other.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod bench;
mod credentials;
mod destinations;
mod hygiene;
mod limits;
mod origin;
mod overlap;
mod refusals;
mod reuse;
mod streaming;
mod tenancy;
