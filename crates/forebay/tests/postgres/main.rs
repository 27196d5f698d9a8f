//! The PostgreSQL gateway beside a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod authentication;
mod begins;
mod bench;
mod by_chance;
mod cancelling;
mod client;
mod console;
mod departures;
mod differential;
mod failures;
mod guarded;
mod hostile;
mod leftovers;
mod naming;
mod notifications;
mod overlap;
mod parameters;
mod pins;
mod pipelines;
mod policies;
mod replication;
mod sessions;
mod sql_names;
mod stale_plans;
mod statements;
mod statuses;
mod timeouts;
mod traps_cancel_and_copy;
mod traps_failures;
mod traps_sessions;
mod traps_statements;
mod vanishing;
mod work;
