//! The keys of connection strings in `[databases]`, `[users]` and `[peers]`, and what becomes
//! of each.

use super::setting::{Fate, POOL_MODES};
use super::value;
use Fate::{Becomes, Instead, Resembles};
use Kind::{Choice, Number, Port, Text};

/// A key of a connection string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) fate: Fate,
}

/// What its value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Port,
    /// Also seconds. Negative where it is as if it were not there.
    Number,
    Choice(&'static [&'static str]),
}

impl Kind {
    /// # Errors
    /// What would be right.
    pub(super) fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::Text => Ok(()),
            Self::Number => value::pair_number(text).map(drop),
            Self::Port => match text.parse::<u16>() {
                Ok(port) if port > 0 => Ok(()),
                _ => Err("expected a port, from 1 to 65535".to_owned()),
            },
            Self::Choice(names) => match value::choice(text, names) {
                Some(_) => Ok(()),
                None => Err(format!("expected one of {}", names.join(", "))),
            },
        }
    }
}

const fn parameter(name: &'static str, kind: Kind, fate: Fate) -> Parameter {
    Parameter { name, kind, fate }
}

const PARAMETERS: Fate = Becomes("postgres.databases.NAME.parameters");
const WAITS: Fate = Instead("the `query_wait_timeout` of [pgbouncer] counts");

/// Keys of a line in `[databases]`.
pub(super) const OF_DATABASES: &[Parameter] = &[
    parameter("dbname", Text, Becomes("postgres.databases.NAME.database")),
    parameter(
        "host",
        Text,
        Resembles {
            key: "postgres.servers.NAME.hosts",
            differs: "a host that does not answer is skipped",
        },
    ),
    parameter("port", Port, Becomes("postgres.servers.NAME.hosts")),
    parameter("user", Text, Becomes("postgres.databases.NAME.force_user")),
    parameter("password", Text, Becomes("postgres.databases.NAME.password")),
    parameter("auth_user", Text, Becomes("postgres.databases.NAME.auth_user")),
    parameter("auth_dbname", Text, Becomes("postgres.databases.NAME.auth_database")),
    parameter("auth_query", Text, Becomes("postgres.databases.NAME.auth_query")),
    parameter("client_encoding", Text, PARAMETERS),
    parameter("datestyle", Text, PARAMETERS),
    parameter("timezone", Text, PARAMETERS),
    parameter("application_name", Text, PARAMETERS),
    parameter("pool_size", Number, Becomes("postgres.databases.NAME.pool_size")),
    parameter("min_pool_size", Number, Becomes("postgres.databases.NAME.min_pool_size")),
    parameter("reserve_pool_size", Number, Becomes("postgres.databases.NAME.reserve_pool_size")),
    parameter("reserve_pool", Number, Becomes("postgres.databases.NAME.reserve_pool_size")),
    parameter("max_db_connections", Number, Becomes("postgres.databases.NAME.max_connections")),
    parameter(
        "max_db_client_connections",
        Number,
        Becomes("postgres.databases.NAME.max_client_connections"),
    ),
    parameter("server_lifetime", Number, Becomes("postgres.servers.NAME.lifetime")),
    parameter(
        "pool_mode",
        Choice(POOL_MODES),
        Resembles {
            key: "postgres.databases.NAME.pool_mode",
            differs: "`statement` is `transaction`",
        },
    ),
    parameter(
        "load_balance_hosts",
        Choice(&["disable", "round-robin"]),
        Becomes("postgres.servers.NAME.load_balance_hosts"),
    ),
    parameter(
        "target_session_attrs",
        Choice(&["any", "read-write", "read-only", "primary", "standby"]),
        Becomes("postgres.servers.NAME.target_session_attrs"),
    ),
    parameter("query_wait_timeout", Number, WAITS),
    parameter("connect_query", Text, Becomes("postgres.databases.NAME.connect_query")),
];

/// Keys of a line in `[users]`.
pub(super) const OF_USERS: &[Parameter] = &[
    parameter(
        "pool_mode",
        Choice(POOL_MODES),
        Resembles { key: "postgres.users.NAME.pool_mode", differs: "`statement` is `transaction`" },
    ),
    parameter("pool_size", Number, Becomes("postgres.users.NAME.pool_size")),
    parameter("reserve_pool_size", Number, Becomes("postgres.users.NAME.reserve_pool_size")),
    parameter("max_user_connections", Number, Becomes("postgres.users.NAME.max_connections")),
    parameter(
        "max_user_client_connections",
        Number,
        Becomes("postgres.users.NAME.max_client_connections"),
    ),
    parameter("query_timeout", Number, Becomes("postgres.users.NAME.query_timeout")),
    parameter("query_wait_timeout", Number, WAITS),
    parameter(
        "idle_transaction_timeout",
        Number,
        Becomes("postgres.users.NAME.idle_transaction_timeout"),
    ),
    parameter("transaction_timeout", Number, Becomes("postgres.users.NAME.transaction_timeout")),
    parameter("client_idle_timeout", Number, Becomes("postgres.users.NAME.client_idle_timeout")),
];

const PEERS: Fate = Becomes("postgres.fleet.peers");

/// Keys of a line in `[peers]`.
pub(super) const OF_PEERS: &[Parameter] = &[
    parameter("host", Text, PEERS),
    parameter("port", Port, PEERS),
    parameter("pool_size", Number, Instead("a cancel request is sent at once")),
];
