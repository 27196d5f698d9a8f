//! Why a text proves nothing: one name for each reason, the same in metrics, console and
//! documentation.

/// Declares the reasons with what stands in the documentation of them.
macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a transaction cannot be parked, as far as its texts tell.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Refusal {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Refusal {
            /// All of them, in the order of the documentation.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As metrics and the console call it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means, for the documentation.
            pub(crate) fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

refusals! {
    /// The statement is no SELECT: it may write, lock, set, notify or define something.
    NotASelect = "not_a_select",
    /// The text has several statements.
    SeveralStatements = "several_statements",
    /// `SELECT … INTO` makes a table.
    Into = "select_into",
    /// `FOR UPDATE`, `FOR SHARE` and their kin lock rows until the transaction ends.
    RowLocks = "row_locks",
    /// A `WITH` that inserts, updates, deletes or merges.
    WritingWith = "writing_with",
    /// It asks for something that is of this connection or this snapshot alone, such as
    /// `pg_backend_pid()` or `pg_current_snapshot()`: its answer would not hold after parking.
    ShowsConnection = "shows_connection",
    /// A function that reads what the text does not name, such as `table_to_xml`, or converts to
    /// a row type whose domains may call anything, such as `jsonb_populate_record`.
    ReadsUnnamed = "reads_unnamed",
    /// A backslash in a string without `E`, whose meaning hangs on a setting.
    Backslash = "backslash",
    /// A name with other characters than ASCII's, whose meaning hangs on the encodings.
    NonAsciiName = "non_ascii_name",
    /// A name of more than 63 bytes, which PostgreSQL cuts, or an empty one.
    NameLength = "name_length",
    /// The text is longer than 64 KiB.
    TooLong = "text_too_long",
    /// Parentheses and queries are nested more than 60 deep.
    TooDeep = "text_too_deep",
    /// Syntax that the proof does not know. What is not understood is refused.
    NotUnderstood = "not_understood",
    /// A function that is volatile: what it does shows nowhere.
    VolatileFunction = "volatile_function",
    /// A function of this name is the database's own, in whatever schema: it may do anything,
    /// however it is declared.
    OwnFunction = "own_function",
    /// No function of this name is there (any more).
    UnknownFunction = "unknown_function",
    /// An operator of this name calls a function that is the database's own, or volatile.
    OwnOperator = "own_operator",
    /// No operator of this name is there (any more).
    UnknownOperator = "unknown_operator",
    /// A type that the text names, or that a column has: its conversions or its checks are the
    /// database's own (a domain with a CHECK, a row type, a base type of an extension that is
    /// not allowed).
    OwnType = "own_type",
    /// No type of this name is there (any more).
    UnknownType = "unknown_type",
    /// A relation that is no table or materialised view: a view may change settings, a foreign
    /// table holds a transaction elsewhere.
    NotATable = "not_a_table",
    /// A temporary table, which is of one connection.
    TemporaryTable = "names_temporary_table",
    /// A table with row security: its policies call what they like.
    RowSecurity = "names_row_security",
    /// No relation of this name is there (any more).
    UnknownRelation = "unknown_relation",
    /// Functions of the database's own work without being named: of a cast, of a class of
    /// operators, of a text search template or parser.
    HiddenFunctions = "hidden_functions",
    /// The server's answer to our question is not what it has to be.
    NoAnswer = "no_answer",
}
