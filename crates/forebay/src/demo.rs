//! `forebay demo`: the same agent workload without and with Forebay, measured side by side.

pub mod cluster;
mod keeper;
pub mod postgres_binaries;
