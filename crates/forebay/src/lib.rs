//! Forebay, the program: configuration, wiring and views around the two gateways.

pub mod config;
