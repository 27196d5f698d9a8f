//! Connection pools side by side, each lending connections that do nothing: what is left is
//! the cost of lending. `candidates` has the pools, `nothing_database` what sqlx asks of a
//! database before it lends a connection of it, `run` one measurement.

pub mod candidates;
mod nothing_database;
pub mod run;
