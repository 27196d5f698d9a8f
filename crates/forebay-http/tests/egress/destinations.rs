//! Connections to services: how many, to where, for how long, and what is spoken on them.

mod addresses;
mod patience;
mod probes;
mod service;
mod streams;
mod tls;
