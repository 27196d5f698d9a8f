//! The PostgreSQL gateway: speaks PostgreSQL to applications and to the servers behind, and
//! takes every connection from the engine ([`forebay_pool`]).
//!
//! A query's journey: [`gateway`] accepts → `greeting` (startup, TLS, who is it) → `session`
//! → `session::outward` (the client's messages) → `session::link` (class, request, checkout)
//! → `session::inward` (the server's answers) → the lease goes home.

mod auth;
mod cancel;
mod census;
mod comings;
pub mod console;
mod fault;
#[cfg(test)]
mod fuzz;
pub mod gateway;
mod greeting;
mod held;
mod idlers;
mod line;
mod listener;
mod operations;
mod own;
mod params;
mod parking;
mod pins;
mod prepared;
mod replicas;
mod replication;
mod route;
mod server;
mod session;
pub mod settings;
mod sql;
mod stream;
mod tally;
mod timeouts;
mod tls;
mod welcome;
mod wire;

pub use gateway::{Changes, Gateway, PostgresSnapshot, SettingsError};
pub use idlers::IdleClient;
pub use listener::NotificationCounts;
pub use parking::{ParkingCounts, ParkingSnapshot, Unparkable};
pub use pins::Pinned;
pub use server::hosts::{HostSnapshot, HostsSnapshot};
pub use settings::{BoundedBy, PostgresSettings};
pub use timeouts::TimeoutCounts;
