//! What a caller says when it asks for a connection. Only identity and class must be known;
//! whatever else is known makes the answer fairer.

use std::time::{Duration, Instant};

use crate::class::ClassId;
use crate::operation::Operation;
use crate::request::Request;

/// What a caller asks for; [`Ask::new`] and the fields that are known besides.
#[derive(Debug, Clone)]
pub struct Ask<I> {
    /// On whose behalf.
    pub identity: I,
    /// As which class.
    pub class: ClassId,
    /// For which request, where that is known.
    pub request: Option<Request>,
    /// For what kind of work, where that is known: what it costs is learnt by this.
    pub operation: Option<Operation>,
    /// The connection time it is declared to take; it pins what is learnt.
    pub cost: Option<Duration>,
    /// Whether it was tried before.
    pub attempt: Attempt,
    /// Connections that its request holds at the same time, at the most, where that is
    /// declared; what is learnt of its feature counts besides. 0: nothing is declared.
    pub needs: u32,
    /// Until when at the latest; the class's checkout timeout counts besides, unless it resumes.
    pub deadline: Option<Instant>,
    /// Whether it goes on with work that gave its connection back for a while.
    pub resumes: Resumes,
}

/// Whether a caller goes on with work that had a connection before, and gave it back while it
/// needed none (parking).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resumes {
    /// It begins.
    #[default]
    No,
    /// It goes on, and had its first connection then. It stands before new work, no policy
    /// refuses it, and its own deadline counts in place of its class's.
    Since(Instant),
}

impl<I> Ask<I> {
    /// A connection of `identity` for work of `class`.
    pub fn new(identity: I, class: ClassId) -> Self {
        Self {
            identity,
            class,
            request: None,
            operation: None,
            cost: None,
            attempt: Attempt::Unknown,
            needs: 0,
            deadline: None,
            resumes: Resumes::No,
        }
    }
}

/// Whether a caller tries for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attempt {
    /// Nobody says: a retry is recognised by its request and operation.
    #[default]
    Unknown,
    /// The first try.
    First,
    /// A try after one that failed.
    Retry,
}
