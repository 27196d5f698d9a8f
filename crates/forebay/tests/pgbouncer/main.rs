//! `forebay pgbouncer` with files as people write them, beside a real PostgreSQL, with psql as
//! the client. Each file also goes through `forebay migrate`, and must do the same then.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bench;
mod commands;
mod day;
mod files;
mod logs;
mod proofs;
mod restarts;
mod services;
mod settings;
