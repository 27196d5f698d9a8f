//! What a statement's text tells, and no more than it can: its tags, its shape without
//! literals, and whether it provably leaves no trace in the session. Text alone proves only
//! cleanliness, never dirt, so everything unknown counts as dirt.

pub(crate) mod alike;
mod channel;
pub(crate) mod effect;
pub(crate) mod names;
pub(crate) mod parkable;
mod setting;
pub(crate) mod shape;
pub(crate) mod suspects;
pub(crate) mod tags;
pub(crate) mod token;
pub(crate) mod transaction;
