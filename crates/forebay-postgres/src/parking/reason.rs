//! Why a transaction is not parked: one name for each reason, the same in metrics, console and
//! documentation.

use crate::sql::parkable::Refusal;

/// Declares the reasons with what stands in the documentation of them.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a transaction that was looked at keeps its connection. Names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Reason {
            /// A statement is none of those that hold nothing.
            Text(Refusal),
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// As in metrics, console and log.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    Self::Text(refusal) => refusal.name(),
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means, for people.
            pub(crate) fn meaning(self) -> &'static str {
                match self {
                    Self::Text(refusal) => refusal.meaning(),
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

reasons! {
    /// It was not begun by a plain BEGIN that was seen.
    NoBegin = "no_begin",
    /// It has more statements, or more text, than are kept.
    TooMuchText = "too_much_text",
    /// A statement of which only a part was seen.
    LongStatement = "long_statement",
    /// A function was called without SQL.
    FunctionCall = "function_call",
    /// A portal has rows left, was never executed, or has a name and was not closed.
    OpenPortal = "open_portal",
    /// The client keeps its connection: it is pooled by session, or pinned.
    KeepsConnection = "keeps_connection",
    /// The server has given the transaction an id: it has written, or locked rows.
    TransactionId = "transaction_id",
    /// A snapshot is kept, by a cursor or because it was exported.
    Snapshot = "snapshot",
    /// Its isolation level is above read committed.
    Isolation = "isolation",
    /// It has a lock that others could wait for.
    Lock = "lock",
    /// It has an advisory lock.
    AdvisoryLock = "advisory_lock",
    /// It has read a view.
    View = "view",
    /// It has read a foreign table.
    ForeignTable = "foreign_table",
    /// It has used a temporary table.
    TemporaryTable = "temporary_table",
    /// It has read a table with row security.
    RowSecurity = "row_security",
    /// It has used a relation that is no plain table.
    Relation = "relation",
    /// It has a cursor.
    Cursor = "cursor",
    /// It, or its session, has a setting that we do not bring along.
    Setting = "setting",
    /// Connections lead to several hosts or addresses, which may not be equally far.
    SeveralHosts = "several_hosts",
    /// The server does not show what the transaction holds.
    Unseen = "unseen",
    /// There was no connection to look from, or no answer in time.
    NoWitness = "no_witness",
    /// The server's proof cannot be used.
    Closed = "closed",
}

impl Reason {
    /// May the same transaction be parked in the same pause all the same?
    pub(crate) fn may_pass(self) -> bool {
        self == Self::NoWitness
    }
}
