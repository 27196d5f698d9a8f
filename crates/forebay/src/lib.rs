//! Forebay, the program: configuration, wiring and views around the two gateways.
//!
//! Decides nothing about connections: [`config`] reads and checks what an operator sets,
//! [`run`] wires the gateways, [`view`] takes one picture of them, [`events`] hears what
//! happens in them, and [`admin`], [`metrics`] and the log show it.

pub mod admin;
pub mod cli;
pub mod config;
pub mod console;
pub mod demo;
pub mod events;
pub mod handover;
pub mod holds;
mod log_limit;
pub mod logging;
pub mod metrics;
mod overlap_log;
pub mod pgbouncer;
pub mod pressure;
pub mod reload;
mod report;
pub mod run;
pub mod size;
pub mod suspects;
mod system;
pub mod view;
