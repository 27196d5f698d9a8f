//! Connections to services: how many, to where, for how long, and what is spoken on them.

mod addresses;
mod farewells;
mod patience;
mod probes;
pub(crate) mod service;
mod streams;
mod tls;
