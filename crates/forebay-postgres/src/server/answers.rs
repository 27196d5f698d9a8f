//! What a server still owes, in order, and what each of its messages therefore means.
//!
//! Each message we send that will be answered has an entry; answers that we give in the
//! server's place stand in the same line, so that real and synthesised ones keep their
//! order, and an error that makes the server skip to Sync skips ours as well.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::prepared::{Kind, Statement, StatementId};
use crate::sql::effect::{Effect, Effects};

/// Whether the client asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Client,
    /// Sent by us; its answer is not shown.
    Own,
}

/// What a message changed among the client's names, to be taken back if the server skips it.
#[derive(Debug)]
pub(crate) enum NameChange {
    Added(Bytes),
    Removed(Bytes, Arc<Statement>),
    /// The unnamed one that was there before.
    Unnamed(Option<Arc<Statement>>),
    /// Nothing: the name is taken, as the server will say.
    Taken(Bytes),
    /// Names that went, and statements that the server had before.
    Forgot {
        names: HashMap<Bytes, Arc<Statement>>,
        prepared: Vec<StatementId>,
    },
}

/// A statement that the client has.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) statement: Arc<Statement>,
    /// The client's name of it.
    pub(crate) name: Bytes,
}

impl Known {
    /// Is it what the server knows as the unnamed statement?
    pub(crate) fn is_unnamed(&self) -> bool {
        self.name.is_empty() && self.statement.kind == Kind::Own
    }
}

/// Which portal a Bind makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Portal {
    Unnamed,
    Named,
}

impl Portal {
    pub(crate) fn of(name: &[u8]) -> Self {
        if name.is_empty() { Self::Unnamed } else { Self::Named }
    }
}

/// An answer that is due.
#[derive(Debug)]
pub(crate) enum Awaited {
    /// ParseComplete. `prepared`: what the server has by name once it came; `displaced`: what it
    /// had as its unnamed statement before.
    Parse {
        origin: Origin,
        prepared: Option<Arc<Statement>>,
        change: Option<NameChange>,
        displaced: Option<StatementId>,
    },
    /// BindComplete.
    Bind { of: Option<Known>, portal: Portal },
    /// RowDescription or NoData, after ParameterDescription for a statement.
    Describe { of: Option<Known>, origin: Origin },
    /// The error of a Bind that the server is made to refuse, since the statement's rows are
    /// no longer what its client was told.
    OutdatedBind { of: Known },
    /// CommandComplete, EmptyQueryResponse or PortalSuspended, after rows.
    Execute { effect: Option<Effect>, change: Option<Box<NameChange>> },
    /// CloseComplete. `evicted`: what the server has no longer once it came.
    Close { origin: Origin, evicted: Option<StatementId> },
    /// CloseComplete for the unnamed statement; the one that there was.
    CloseUnnamed { before: Option<Arc<Statement>> },
    /// ParseComplete from us: the server has the statement already.
    OwnParseComplete { change: Option<NameChange> },
    /// CloseComplete from us: the name was the client's only.
    OwnCloseComplete { change: Option<NameChange> },
    /// ReadyForQuery of a Sync.
    Sync,
    /// Everything up to the ReadyForQuery of a simple query; effects of its statements, and the
    /// unnamed statement, which it destroys unless it is skipped.
    Query { effects: <Effects as IntoIterator>::IntoIter, before: Option<Arc<Statement>> },
    /// A simple query of ours; nothing of it is shown.
    OwnQuery(Purpose),
    /// Everything up to the ReadyForQuery of a function call.
    FunctionCall,
}

/// What a simple query of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The client's settings.
    Settings,
    /// The client's BEGIN, which was answered before.
    Begin,
    /// A query, for a transaction that had run one before it was parked.
    Queried,
    /// A setting of ours, for a SHOW in a transaction.
    Show,
    /// What the session holds at the end of a transaction.
    Rest,
    /// A transaction that has failed, as the client was told of its own.
    FailedBegin,
    /// The Sync of a batch that will be sent again.
    Heal,
    /// Whether the open transaction holds anything, or its end because it does not.
    Proof,
}

impl Awaited {
    /// The names that go, if this succeeds.
    pub(crate) fn forgets(&self) -> Option<&HashMap<Bytes, Arc<Statement>>> {
        let Self::Execute { change: Some(change), .. } = self else { return None };
        match &**change {
            NameChange::Forgot { names, .. } => Some(names),
            NameChange::Added(_)
            | NameChange::Removed(..)
            | NameChange::Unnamed(..)
            | NameChange::Taken(_) => None,
        }
    }

    /// Is it an answer that does not come from the server?
    pub(crate) fn is_ours_to_give(&self) -> bool {
        matches!(self, Self::OwnParseComplete { .. } | Self::OwnCloseComplete { .. })
    }

    /// Is it read whole, since it is for us?
    pub(crate) fn is_for_us(&self) -> bool {
        matches!(self, Self::OwnQuery(_) | Self::Describe { origin: Origin::Own, .. })
    }

    /// Is it an answer that the client does not see?
    pub(crate) fn is_hidden(&self) -> bool {
        matches!(
            self,
            Self::Parse { origin: Origin::Own, .. }
                | Self::Describe { origin: Origin::Own, .. }
                | Self::Close { origin: Origin::Own, .. }
        )
    }

    pub(crate) fn ends_with_ready(&self) -> bool {
        match self {
            Self::Sync | Self::Query { .. } | Self::OwnQuery(_) | Self::FunctionCall => true,
            Self::Parse { .. }
            | Self::Bind { .. }
            | Self::Describe { .. }
            | Self::OutdatedBind { .. }
            | Self::Execute { .. }
            | Self::Close { .. }
            | Self::CloseUnnamed { .. }
            | Self::OwnParseComplete { .. }
            | Self::OwnCloseComplete { .. } => false,
        }
    }
}
