//! The one door through which time, sockets, randomness and locks come in.
//!
//! Everything in Forebay that could make two runs differ passes here, so that the same
//! engine runs under a paused clock, under a model checker (`--cfg forebay_model` swaps
//! [`sync`] for shuttle's) and, later, in a simulated network (by swapping [`net`]).
//! `clippy.toml` refuses the originals everywhere else.

#[cfg(not(forebay_model))]
pub mod fresh;
pub mod net;
pub mod random;
pub mod secret;
pub mod sync;
pub mod task;
pub mod time;
