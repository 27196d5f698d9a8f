//! A connection on lease.

use std::time::Instant;

use crate::class::ClassId;
use crate::connect::Connector;
use crate::request::Request;
use std::marker::PhantomData;

/// What its user knows of a connection when it comes home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is known: the engine resets it before anyone else gets it.
    Unknown,
    /// As good as fresh: it serves the next caller at once.
    Clean,
    /// Beyond repair: it is closed.
    Broken,
}

/// A connection on lease; it comes home when dropped, at any await point.
#[must_use = "a lease dropped at once was a checkout for nothing"]
pub struct Lease<K: Connector> {
    _k: PhantomData<K>,
}

impl<K: Connector> Lease<K> {
    /// The connection.
    pub fn connection(&mut self) -> &mut K::Connection {
        todo!()
    }
    /// Its class.
    pub fn class(&self) -> ClassId {
        todo!()
    }
    /// Since when it is on lease.
    pub fn since(&self) -> Instant {
        todo!()
    }
    /// Binds the lease to `request`, learnt after the checkout.
    pub fn attach(&mut self, _request: Request) {
        todo!()
    }
    /// Gives it back in `condition`. Dropping gives it back as [`Condition::Unknown`].
    pub fn give_back(self, _condition: Condition) {
        todo!()
    }
}
