//! The egress gateway between real sockets: agents on one side, TLS services on the other.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod abuse;
mod arrivals;
mod bench;
mod credentials;
mod destinations;
mod grants;
mod hostile;
mod hygiene;
mod issuers;
mod kinds;
mod leaving;
mod limits;
mod once;
mod origin;
mod overlap;
mod planted;
mod raw;
mod refusals;
mod reload;
mod reuse;
mod smuggling;
mod streaming;
mod tenancy;
mod trailers;
mod upgrades;
mod ways;
