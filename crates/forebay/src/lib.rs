//! Forebay, the program: configuration, wiring and views around the two gateways.
//!
//! Decides nothing about connections: [`config`] reads and checks what an operator sets,
//! [`run`] wires the gateways, [`view`] takes one picture of them, and [`admin`] and
//! [`metrics`] show it.

pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod logging;
pub mod metrics;
pub mod overlap_log;
pub mod run;
pub mod size;
pub mod view;
