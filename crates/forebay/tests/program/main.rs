//! The program as its users meet it: the real binary, real sockets, real signals.

#![allow(clippy::unwrap_used, reason = "tests may")]

mod admin;
mod check;
mod reloading;
mod running;
mod secrets;
mod sockets;
mod stopping;
mod streams;
