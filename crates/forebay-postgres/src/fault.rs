//! What a client is told when something goes wrong: severity, SQLSTATE, message, detail and
//! hint, one variant for each situation. 08 and 57P0x are for connections that are lost;
//! "try again here" is 53300, or clients' pools would throw good connections away.

use std::time::Duration;

use bytes::BytesMut;
use forebay_pool::policy::Policy;
use forebay_pool::{CheckoutError, Refusal};

use crate::auth::scram::ScramError;
use crate::auth::{Barred, Method};
use crate::held::Full;
use crate::listener::ListenError;
use crate::own::Nonsense;
use crate::server::ServerFailure;
use crate::wire::backend::{self, ServerError, Severity};
use crate::wire::{self, Malformed};

/// Why a connection was closed whose server did not end a statement in time, as PgBouncer says it.
pub(crate) const QUERY_TIMEOUT: &str = "query timeout";

/// A situation, in the client's terms.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Protocol(#[from] Malformed),
    #[error("expected a different message: got `{}` {state}", char::from(*.tag).escape_default())]
    Unexpected { tag: u8, state: &'static str },
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    UnsupportedProtocol { major: u32, minor: u32 },
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    #[error("invalid startup option `{0}`: write `-c name=value`")]
    StartupOption(String),
    #[error("password authentication failed for user \"{0}\"")]
    WrongPassword(String),
    #[error("this server accepts encrypted connections only")]
    TlsRequired,
    #[error("pg_hba.conf rejects connection for {0}")]
    Rejected(Barred),
    #[error("no pg_hba.conf entry for {0}")]
    NoHbaEntry(Barred),
    #[error("authentication method \"{0}\" is not supported")]
    MethodUnsupported(String),
    #[error("a password in clear text is accepted over TLS only")]
    CleartextWithoutTls,
    #[error("connection requires a valid client certificate")]
    NoCertificate,
    #[error("{method} authentication failed for user \"{user}\"")]
    NotThatName { method: Method, user: String },
    #[error("{0}")]
    Scram(#[from] ScramError),
    #[error("invalid value for parameter \"replication\": \"{0}\"")]
    ReplicationValue(String),
    #[error("replication needs a connection of its own, and `{database}` is pooled by transaction")]
    ReplicationMode { database: String },
    #[error("sorry, too many replication connections already: {limit}")]
    TooManyReplications { limit: u32 },
    #[error("cannot connect to the server for replication: {0}")]
    NoReplication(String),
    #[error("database \"{0}\" does not exist")]
    UnknownDatabase(String),
    /// As PgBouncer says it, and with its code.
    #[error("not allowed")]
    NoOperator { user: String, database: &'static str },
    #[error("sorry, too many clients already")]
    TooManyClients,
    #[error("no more connections allowed ({limit})")]
    TooManyOf { limit: &'static str },
    #[error("database does not allow connections: {0}")]
    Disabled(String),
    #[error("terminating connection due to administrator command")]
    Killed,
    #[error("a client may have {limit} prepared statements: close those that are done with")]
    TooManyStatements { limit: usize },
    #[error("{}", .0.text)]
    Refused(ServerError),
    #[error("message of {length} bytes is longer than the limit of {}", .limit.bytes())]
    TooLong { length: usize, limit: Limit },
    #[error("out of memory for messages that are not whole yet")]
    TooMuchHeld(Full),
    #[error("{0}")]
    Checkout(#[from] CheckoutError),
    /// It was parked, and its client goes on.
    #[error("the parked transaction got no server connection in time: {0}")]
    NotResumed(#[source] CheckoutError),
    /// It was parked, or about to be, and is of no use any more.
    #[error("the parked transaction cannot go on: its server connection was lost")]
    ParkedLost,
    /// It was parked, and what it had is not what it has got.
    #[error("the parked transaction could not be begun again: {0}")]
    NotBegunAgain(String),
    #[error("canceling statement due to user request")]
    Cancelled,
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    InFailedTransaction,
    #[error("prepared statement \"{0}\" does not exist")]
    NoStatement(String),
    #[error("unnamed prepared statement does not exist")]
    NoUnnamedStatement,
    #[error("portal \"{0}\" does not exist")]
    NoPortal(String),
    #[error("the server closed the connection unexpectedly")]
    ServerLost { outcome: Outcome },
    #[error("terminating connection because the server is shutting down")]
    Stopping,
    #[error("terminating connection because its {} is configured no more", .0.name())]
    Removed(Removed),
    #[error("canceling statement due to statement timeout")]
    QueryTimeout,
    #[error("canceling statement due to statement timeout")]
    QueryDisobeyed,
    #[error("terminating connection due to transaction timeout")]
    TransactionTimeout,
    #[error("terminating connection due to idle-in-transaction timeout")]
    IdleTransactionTimeout,
    #[error("terminating connection due to idle-session timeout")]
    ClientIdleTimeout,
    #[error("canceling authentication due to timeout")]
    LoginTimeout,
    #[error("the server's settings could not be restored: {0}")]
    Replay(String),
    #[error("{0}")]
    Nonsense(#[from] Nonsense),
    #[error("{0}")]
    Listen(#[from] ListenError),
}

/// What a reload took away from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    Database,
    User,
}

impl Removed {
    fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::User => "user",
        }
    }
}

/// What limits the length of a message, and to how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The setting.
    MaxMessage(usize),
    /// What a password or an answer of SASL can be.
    Login(usize),
    /// What a command of the console can be.
    Console(usize),
    /// What PostgreSQL takes.
    Protocol,
}

impl Limit {
    fn bytes(self) -> usize {
        match self {
            Self::MaxMessage(bytes) | Self::Login(bytes) | Self::Console(bytes) => bytes,
            Self::Protocol => wire::LONGEST,
        }
    }

    fn origin(self) -> &'static str {
        match self {
            Self::MaxMessage(_) => "The limit is `postgres.max_message`.",
            Self::Login(_) => "No message of a login is longer.",
            Self::Console(_) => "No message to the console is longer.",
            Self::Protocol => "PostgreSQL takes no longer message.",
        }
    }
}

/// Whether a retry is safe after a lost connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    NotSent,
    Unknown,
}

impl Fault {
    pub(crate) fn code(&self) -> String {
        let code = match self {
            Self::Protocol(_) | Self::Unexpected { .. } | Self::NoOperator { .. } => "08P01",
            Self::UnsupportedProtocol { .. } | Self::ReplicationMode { .. } => "0A000",
            Self::Scram(ScramError::Malformed(_)) => "08P01",
            Self::NoUser
            | Self::TlsRequired
            | Self::Rejected(_)
            | Self::NoHbaEntry(_)
            | Self::MethodUnsupported(_)
            | Self::CleartextWithoutTls
            | Self::NoCertificate
            | Self::NotThatName { .. }
            | Self::Scram(ScramError::Downgrade | ScramError::Binding) => "28000",
            Self::StartupOption(_) | Self::Nonsense(_) | Self::ReplicationValue(_) => "22023",
            Self::WrongPassword(_) | Self::Scram(ScramError::WrongPassword) => "28P01",
            Self::UnknownDatabase(_) => "3D000",
            Self::TooManyClients | Self::TooManyOf { .. } | Self::TooManyReplications { .. } => {
                "53300"
            }
            Self::Disabled(_) => "55000",
            Self::NoReplication(_) => "08001",
            Self::TooLong { .. } | Self::TooManyStatements { .. } => "54000",
            Self::TooMuchHeld(_) => "53200",
            Self::Cancelled | Self::QueryTimeout | Self::QueryDisobeyed | Self::LoginTimeout => {
                "57014"
            }
            Self::TransactionTimeout => "25P04",
            Self::IdleTransactionTimeout => "25P03",
            Self::ClientIdleTimeout => "57P05",
            Self::NotResumed(_) | Self::ParkedLost | Self::NotBegunAgain(_) => "40001",
            Self::InFailedTransaction => "25P02",
            Self::NoStatement(_) | Self::NoUnnamedStatement => "26000",
            Self::NoPortal(_) => "34000",
            Self::ServerLost { .. } => "08006",
            Self::Stopping | Self::Killed | Self::Removed(_) => "57P01",
            Self::Replay(_) => "08006",
            Self::Refused(said) => return said.code.clone(),
            Self::Checkout(error) => return checkout_code(error),
            Self::Listen(error) => return listen_code(error),
        };
        code.to_owned()
    }

    fn detail(&self) -> Option<String> {
        if let Self::ServerLost { outcome } = self {
            let detail = match outcome {
                Outcome::Unknown => "The outcome of the last statement is unknown.",
                Outcome::NotSent => "The last statement was not sent.",
            };
            return Some(detail.into());
        }
        if let Some(setting) = self.timeout() {
            let detail = format!("The limit is `{setting}` of the connection pooler.");
            return Some(if let Self::QueryDisobeyed = self {
                format!(
                    "{detail} The server did not obey within `cancel_wait_timeout`: the outcome \
                     of the statement is unknown."
                )
            } else {
                detail
            });
        }
        if let Self::TooLong { limit, .. } = self {
            return Some(limit.origin().into());
        }
        if let Self::TooMuchHeld(Full { limit }) = self {
            return Some(format!(
                "All clients together may hold {limit} bytes (`postgres.max_message_memory`)."
            ));
        }
        if let Self::Checkout(CheckoutError::Refused { why, .. }) = self {
            return Some(match policy(*why) {
                Some(policy) => format!("{}: {why}", policy.name()),
                None => why.to_string(),
            });
        }
        self.server_said()?.detail.clone()
    }

    fn hint(&self) -> Option<String> {
        if let Self::Checkout(
            CheckoutError::QueueFull { retry_after, .. }
            | CheckoutError::TimedOut { retry_after, .. }
            | CheckoutError::Unreachable { retry_after, .. },
        ) = self
        {
            return Some(after(*retry_after));
        }
        if let Self::Checkout(CheckoutError::Refused { retry_after, .. }) = self {
            return Some(retry_after.map_or_else(|| "retry=no".into(), after));
        }
        if let Self::Checkout(CheckoutError::Deadlock { held, .. }) = self {
            return Some(format!(
                "Roll back, and take connections in one order everywhere; or say how many a \
                 request holds at once, and it waits before it holds any: \
                 SET forebay.needs = {}.",
                held + 1
            ));
        }
        if let Self::NotResumed(_) | Self::ParkedLost | Self::NotBegunAgain(_) = self {
            return Some("The transaction has only read: roll back, and run it again.".into());
        }
        if let Self::CleartextWithoutTls = self {
            return Some("Connect with sslmode=require.".into());
        }
        if let Self::Nonsense(nonsense) = self {
            return Some(nonsense.hint.into());
        }
        if let Self::ReplicationMode { database } = self {
            return Some(format!(
                "Set `pool_mode = \"session\"` for it: [postgres.databases.{database}]."
            ));
        }
        if let Self::NoOperator { user, database } = self {
            return Some(format!(
                "Database \"{database}\" is the console: add \"{user}\" to `admin_users` or \
                 `stats_users` of [postgres]."
            ));
        }
        if let Self::TooManyReplications { .. } = self {
            return Some("The limit is `replication_connections` of the server.".into());
        }
        if let Self::Listen(error) = self
            && let Some(hint) = listen_hint(error)
        {
            return Some(hint.into());
        }
        self.server_said()?.hint.clone()
    }

    /// The setting that says how long it may take, where it took longer.
    fn timeout(&self) -> Option<&'static str> {
        if let Self::QueryTimeout | Self::QueryDisobeyed = self {
            Some("query_timeout")
        } else if let Self::TransactionTimeout = self {
            Some("transaction_timeout")
        } else if let Self::IdleTransactionTimeout = self {
            Some("idle_transaction_timeout")
        } else if let Self::ClientIdleTimeout = self {
            Some("client_idle_timeout")
        } else if let Self::LoginTimeout = self {
            Some("login_timeout")
        } else {
            None
        }
    }

    /// Why a session ended, in PgBouncer's words where it has some.
    pub(crate) fn reason(&self) -> String {
        self.known_reason().map_or_else(|| self.text(), str::to_owned)
    }

    fn known_reason(&self) -> Option<&'static str> {
        if let Self::Checkout(CheckoutError::TimedOut { .. }) = self {
            Some("query_wait_timeout")
        } else if let Self::ServerLost { .. } = self {
            Some("server conn crashed?")
        } else if let Self::Stopping = self {
            Some("server shutting down")
        } else if let Self::Killed = self {
            Some("admin forced disconnect")
        } else if let Self::QueryTimeout | Self::QueryDisobeyed = self {
            Some(QUERY_TIMEOUT)
        } else if let Self::TransactionTimeout = self {
            Some("transaction timeout")
        } else if let Self::IdleTransactionTimeout = self {
            Some("idle transaction timeout")
        } else if let Self::LoginTimeout = self {
            Some("client_login_timeout")
        } else if let Self::TooManyClients = self {
            Some("no more connections allowed (max_client_conn)")
        } else {
            self.timeout()
        }
    }

    fn text(&self) -> String {
        self.server_said().map_or_else(|| self.to_string(), |said| said.text.clone())
    }

    /// The server's own words, where it refused the login.
    fn server_said(&self) -> Option<&ServerError> {
        if let Self::Refused(said) = self {
            return Some(said);
        }
        if let Self::Listen(ListenError::Refused(said)) = self {
            return Some(said);
        }
        let Self::Checkout(CheckoutError::Denied { failure, .. }) = self else { return None };
        server_said(failure)
    }

    /// Writes it as an ErrorResponse.
    pub(crate) fn write(&self, out: &mut BytesMut, severity: Severity) {
        let (code, text, detail, hint) = (self.code(), self.text(), self.detail(), self.hint());
        backend::error_response(out, severity, &code, &text, detail.as_deref(), hint.as_deref());
    }

    /// Writes it for a client that is not logged in yet: nothing may go on.
    pub(crate) fn write_at_login(&self, out: &mut BytesMut) {
        if let Self::UnsupportedProtocol { major: ..3, .. } = self {
            // In the only way that such a client understands, as PostgreSQL does it.
            return backend::error_of_protocol_2(out, &self.text());
        }
        let unreachable = matches!(self, Self::Checkout(CheckoutError::Unreachable { .. }));
        if !unreachable {
            return self.write(out, Severity::Fatal);
        }
        let (text, hint) = (self.text(), self.hint());
        backend::error_response(out, Severity::Fatal, "08001", &text, None, hint.as_deref());
    }
}

fn after(wait: Duration) -> String {
    format!("retry-after-ms={}", wait.as_millis().max(1))
}

/// The policy that refuses, as the settings call it.
fn policy(why: Refusal) -> Option<Policy> {
    match why {
        Refusal::Shed { .. } => Some(Policy::Shedding),
        Refusal::Demand { .. } | Refusal::Requests { .. } => Some(Policy::Admission),
        Refusal::Late { .. } => Some(Policy::Deadline),
        Refusal::Stale => Some(Policy::Freshness),
        Refusal::Retries => Some(Policy::Retries),
        Refusal::Broken => Some(Policy::Breaker),
        // The engine may learn new reasons, which say for themselves what they are.
        _ => None,
    }
}

fn checkout_code(error: &CheckoutError) -> String {
    match error {
        CheckoutError::Denied { failure, .. } => {
            server_said(failure).map_or("08001".into(), |said| said.code.clone())
        }
        CheckoutError::Unreachable { .. } => "57P03".into(),
        CheckoutError::Closed { .. } => "57P01".into(),
        // Whatever else there will be means "not now", too.
        CheckoutError::QueueFull { .. } | CheckoutError::TimedOut { .. } | _ => "53300".into(),
    }
}

fn listen_code(error: &ListenError) -> String {
    let code = match error {
        ListenError::ChannelsOfClient { .. } | ListenError::ChannelsOfDatabase { .. } => "54000",
        ListenError::Connections { .. } => "53300",
        ListenError::Refused(said) => return said.code.clone(),
        ListenError::Unreachable { .. } => "57P03",
        ListenError::Lost { .. } => "08006",
        ListenError::Overflow { .. } => "53400",
        ListenError::Encoding => "0A000",
        ListenError::Stopping => "57P01",
    };
    code.to_owned()
}

fn listen_hint(error: &ListenError) -> Option<&'static str> {
    Some(match error {
        ListenError::ChannelsOfClient { .. } => {
            "The limit is `postgres.notifications.channels_per_client`."
        }
        ListenError::ChannelsOfDatabase { .. } => {
            "The limit is `postgres.notifications.channels_per_database`."
        }
        ListenError::Connections { .. } => "The limit is `postgres.notifications.connections`.",
        ListenError::Lost { .. } => {
            "Notifications may be missing: connect again, LISTEN, and look at what they told of."
        }
        ListenError::Overflow { .. } => {
            "Notifications are missing: read them sooner and keep transactions short, or raise \
             `postgres.notifications.queue`."
        }
        ListenError::Encoding => "Set client_encoding before LISTEN, and leave it.",
        ListenError::Refused(_) | ListenError::Unreachable { .. } | ListenError::Stopping => {
            return None;
        }
    })
}

/// What the server itself answered to a login, if it did.
fn server_said(failure: &forebay_pool::ConnectFailure) -> Option<&ServerError> {
    match failure.source.downcast_ref::<ServerFailure>()? {
        ServerFailure::Refused(said) => Some(said),
        ServerFailure::Io(_)
        | ServerFailure::Protocol(_)
        | ServerFailure::Tls(_)
        | ServerFailure::Unfit(_)
        | ServerFailure::Moving(_)
        | ServerFailure::Auth(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_pool::ClassName;

    use super::*;

    #[test]
    fn saturation_says_when_to_try_again() {
        let fault = Fault::Checkout(CheckoutError::QueueFull {
            destination: Arc::from("db"),
            class: ClassName::new("ai-read"),
            limit: 20,
            retry_after: Duration::from_millis(120),
        });
        let mut out = BytesMut::new();
        fault.write(&mut out, Severity::Error);
        let said = ServerError::read(&out[5..]);
        assert_eq!(said.code, "53300");
        assert_eq!(said.hint.as_deref(), Some("retry-after-ms=120"));
    }

    #[test]
    fn a_message_that_is_too_long_names_the_limit_that_it_met() {
        let said = |limit| said(&Fault::TooLong { length: 2_000_000_000, limit });
        let of_setting = said(Limit::MaxMessage(16));
        assert!(of_setting.text.ends_with("the limit of 16"), "{}", of_setting.text);
        assert!(of_setting.detail.unwrap().contains("postgres.max_message"));
        for limit in [Limit::Login(1_024), Limit::Protocol] {
            let said = said(limit);
            assert_eq!(said.code, "54000");
            assert!(!said.detail.unwrap().contains("max_message"), "{limit:?}");
        }
    }

    fn said(fault: &Fault) -> ServerError {
        let mut out = BytesMut::new();
        fault.write(&mut out, Severity::Error);
        ServerError::read(&out[5..])
    }

    #[test]
    fn a_refusal_names_its_policy_and_says_whether_to_try_again() {
        let refused = |why, retry_after| {
            let (destination, class) = (Arc::from("db"), ClassName::new("ai-read"));
            said(&CheckoutError::Refused { destination, class, why, retry_after }.into())
        };
        let shed = refused(Refusal::Shed { utilisation: 0.92 }, Some(Duration::from_millis(250)));
        assert_eq!(shed.code, "53300");
        assert_eq!(shed.hint.as_deref(), Some("retry-after-ms=250"));
        let detail = shed.detail.unwrap();
        assert!(detail.starts_with("shedding: it is 92 % busy"), "{detail}");
        let retries = refused(Refusal::Retries, None);
        assert_eq!(retries.hint.as_deref(), Some("retry=no"));
    }

    #[test]
    fn a_deadlock_names_the_feature_and_says_what_to_do() {
        let fault = Fault::Checkout(CheckoutError::Deadlock {
            destination: Arc::from("db"),
            class: ClassName::new("ai-read"),
            feature: Arc::from("/ask"),
            held: 1,
        });
        let said = said(&fault);
        assert_eq!(said.code, "53300");
        assert!(said.text.contains("`/ask`"), "{}", said.text);
        assert!(said.hint.unwrap().contains("SET forebay.needs = 2"));
    }
}
