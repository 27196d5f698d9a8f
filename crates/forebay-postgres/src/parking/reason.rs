//! Why a transaction is not parked.

use crate::sql::parkable::Refusal;

/// Why a transaction that was looked at keeps its connection. Names are stable: they stand in
/// metrics and in docs/parking.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// A statement is none of those that hold nothing.
    Text(Refusal),
    /// It was not begun by a plain BEGIN that we have seen.
    NoBegin,
    /// More text than is kept.
    TooMuchText,
    /// A statement of which only the beginning was seen.
    LongStatement,
    /// A function was called without SQL.
    FunctionCall,
    /// A portal is open that has rows left, or was never executed.
    OpenPortal,
    /// The client keeps its connection: it is pooled by session, or pinned.
    KeepsConnection,
    /// A cancel request is on its way.
    CancelUnderWay,
    /// The server has given the transaction an id: it has written, or locked rows.
    TransactionId,
    /// A snapshot is kept: a cursor, or one that was exported.
    Snapshot,
    /// Its isolation level is above read committed.
    Isolation,
    /// A lock that others could wait for.
    Lock,
    AdvisoryLock,
    View,
    ForeignTable,
    TemporaryTable,
    RowSecurity,
    /// Some relation that is no plain table.
    Relation,
    Cursor,
    /// A setting that we do not follow.
    Setting,
    /// The server does not show what the transaction holds.
    Unseen,
    /// There is no connection to look from, or its answer did not come in time.
    NoWitness,
    /// Parking is closed for the server.
    Closed,
}

impl Reason {
    /// As in metrics, console and log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text(refusal) => refusal.name(),
            Self::NoBegin => "no_begin",
            Self::TooMuchText => "too_much_text",
            Self::LongStatement => "long_statement",
            Self::FunctionCall => "function_call",
            Self::OpenPortal => "open_portal",
            Self::KeepsConnection => "keeps_connection",
            Self::CancelUnderWay => "cancel_under_way",
            Self::TransactionId => "transaction_id",
            Self::Snapshot => "snapshot",
            Self::Isolation => "isolation",
            Self::Lock => "lock",
            Self::AdvisoryLock => "advisory_lock",
            Self::View => "view",
            Self::ForeignTable => "foreign_table",
            Self::TemporaryTable => "temporary_table",
            Self::RowSecurity => "row_security",
            Self::Relation => "relation",
            Self::Cursor => "cursor",
            Self::Setting => "setting",
            Self::Unseen => "unseen",
            Self::NoWitness => "no_witness",
            Self::Closed => "closed",
        }
    }

    /// May the same transaction be parked later all the same?
    pub(crate) fn may_pass(self) -> bool {
        matches!(self, Self::CancelUnderWay | Self::NoWitness | Self::OpenPortal)
    }
}
