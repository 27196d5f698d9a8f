//! What an operator sets for the PostgreSQL gateway.

mod auth;
mod fleet;
mod hosts;
mod line;
mod listen;
mod parking;
mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use forebay_pool::timetable::WindowSettings;
use forebay_pool::{ClassName, ClassSettings, Mode};
use forebay_seam::secret::SecretRef;
use schemars::JsonSchema;
use serde::Deserialize;

pub use auth::{AuthQuerySettings, ClientAuth};
pub use fleet::{FleetSettings, PeerSettings};
pub use forebay_seam::net::SocketMode;
pub use hosts::{BoundedBy, LoadBalance, Otherwise, ReplicaSettings, SessionAttrs};
pub use listen::Listen;
pub use parking::ParkingSettings;
pub use tls::{
    ChannelBinding, ClientTls, ClientTlsMode, ProtocolVersion, SslMode, SslNegotiation, TlsVersion,
};

/// `[postgres]`: where applications connect, who they are, and which servers are behind.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresSettings {
    /// Where applications connect: an address, or a list of them. `127.0.0.1:6432`, or a Unix
    /// socket: `unix:/run/forebay` for the socket `.s.PGSQL.PORT` there, with the port of the
    /// first TCP address (else 6432), or the path of the socket. Default 127.0.0.1:6432.
    pub listen: Listen,
    /// Whether other processes may listen at the same TCP addresses; the system then shares
    /// connections out among them (`SO_REUSEPORT`). Default false.
    pub reuse_port: bool,
    /// Whether each application's address is added to the name by which it calls itself
    /// (`application_name`): `web - 10.0.0.7:51234`. Default false.
    pub application_name_add_host: bool,
    /// Permissions of Unix sockets, in octal. Default `"0777"`.
    pub unix_socket_mode: SocketMode,
    /// The group that Unix sockets belong to. Default: the process's.
    pub unix_socket_group: Option<String>,
    /// How applications prove who they are. Default `scram-sha-256`.
    pub auth: ClientAuth,
    /// Rules in the syntax of pg_hba.conf, for `auth = "hba"`. Read again at a reload.
    pub hba_file: Option<PathBuf>,
    /// Maps of names in the syntax of pg_ident.conf, for certificates and Unix sockets. Read
    /// again at a reload.
    pub ident_file: Option<PathBuf>,
    /// Users and their secrets as in PgBouncer's userlist.txt: `"user" "secret"` on each line,
    /// a password, `md5…` or `SCRAM-SHA-256$…`. Read again at a reload.
    pub users_file: Option<PathBuf>,
    /// Where to look up users that are in no list. Default: nowhere.
    pub auth_query: Option<AuthQuerySettings>,
    /// Whether the method `password` may be used over plaintext TCP. Default false.
    pub cleartext_without_tls: bool,
    /// Whether `auth` may be `trust` or `any` where `listen` is not a loopback address: whoever
    /// reaches it is let in as whoever they say. Default false.
    pub trust_everywhere: bool,
    /// When a server connection goes back to the pool. Default `transaction`.
    pub pool_mode: PoolMode,
    /// TLS towards applications. Default: none.
    pub tls: Option<ClientTls>,
    /// Other instances behind the same address, for cancel requests. Default: none.
    pub fleet: Option<FleetSettings>,
    /// Connections from applications, at the most. Default 10000.
    pub max_clients: u32,
    /// How long an application may take to log in. Default 15s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub login_timeout: Duration,
    /// Server connections of each pair of a database and a user, at the most. Default: none,
    /// then all pairs share the budget of their server. Also per database and per user.
    pub pool_size: Option<u32>,
    /// Server connections of each pair that are kept open while clients of it are connected.
    /// Default 0. Also per database.
    pub min_pool_size: u32,
    /// Further server connections of a pair with a `pool_size`, once a client has waited for
    /// `reserve_pool_timeout`. Default 0. Also per database and per user.
    pub reserve_pool_size: u32,
    /// How long a client waits before the reserve is opened. Default 5s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub reserve_pool_timeout: Duration,
    /// Server connections of each database, of all users together; 0: no such limit. Default
    /// 0. Also per database, as `max_connections`.
    pub max_database_connections: u32,
    /// Server connections of each user, to all databases together; 0: no such limit. Default
    /// 0. Also per user, as `max_connections`.
    pub max_user_connections: u32,
    /// Clients of each database; 0: no such limit. Default 0. Also per database, as
    /// `max_client_connections`.
    pub max_database_client_connections: u32,
    /// Clients of each user; 0: no such limit. Default 0. Also per user, as
    /// `max_client_connections`.
    pub max_user_client_connections: u32,
    /// How long a statement may run; then it is cancelled (SQLSTATE 57014), and its client goes
    /// on. Databases and users may have limits of their own: of those that are set the smallest
    /// counts. 0s: for ever. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub query_timeout: Duration,
    /// How long a client may wait for a connection, whatever its class: it takes the place of
    /// every `checkout_timeout`. 0s: what the classes say. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub query_wait_timeout: Duration,
    /// How long a transaction may take, with its client's pauses; then it is rolled back, and
    /// the client is sent away (25P04). 0s: for ever. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub transaction_timeout: Duration,
    /// How long a client may be silent within a transaction; then that is rolled back, and the
    /// client is sent away (25P03). 0s: for ever. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub idle_transaction_timeout: Duration,
    /// How long a client may be silent outside of transactions before it is sent away (57P05).
    /// 0s: for ever. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub client_idle_timeout: Duration,
    /// How long a server may take to obey when a statement is cancelled that took too long;
    /// then the connection is closed, and the client is sent away. Default 10s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub cancel_wait_timeout: Duration,
    /// How long the console's SUSPEND waits for clients to read what was sent to them; then
    /// they are sent away. Default 10s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub suspend_timeout: Duration,
    /// Distinct prepared statements kept on each server connection. Default 500.
    pub max_prepared_statements: usize,
    /// The longest message that is held in memory whole, bytes. Longer rows, COPY data and
    /// simple queries stream through; a longer Parse is refused. Default 16777216 (16 MiB).
    pub max_message: usize,
    /// Memory for messages that are not whole yet, over all clients together, bytes; who
    /// would need more is sent away with 53200. A client's first 64 KiB are not counted.
    /// Default 268435456 (256 MiB).
    pub max_message_memory: usize,
    /// For how long the addresses of a server's name are good; then the name is asked for
    /// again. Default 15s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub dns_max_ttl: Duration,
    /// Whether silent TCP connections, to applications and to servers, are asked whether anybody
    /// is still there. Default true.
    pub tcp_keepalive: bool,
    /// After how much silence they are asked. Default 6s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub tcp_keepidle: Duration,
    /// The pause between two such questions. Default 3s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub tcp_keepintvl: Duration,
    /// Such questions without an answer after which a connection is dead. Default 3.
    pub tcp_keepcnt: u32,
    /// How long a peer may leave unacknowledged what was sent to it, on Linux; 0s: as long as
    /// the system lets it, about a quarter of an hour. Whoever merely reads nothing is not cut
    /// off: the limit is lifted while more than 16 KiB may be unread. Default 15s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub tcp_user_timeout: Duration,
    /// What clients in transaction pooling may listen to.
    pub notifications: NotificationSettings,
    /// Who may do everything in the console, the databases `pgbouncer` and `forebay`.
    /// Default: nobody.
    pub admin_users: Vec<String>,
    /// Who may look at everything in the console but file descriptors. Default: nobody.
    pub stats_users: Vec<String>,
    /// Over which time the console's averages are taken. Default 60s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub stats_period: Duration,
    /// The PostgreSQL servers, by a name of your choice.
    pub servers: BTreeMap<String, ServerSettings>,
    /// Database names that applications may ask for; `*` stands for every other name. Empty:
    /// every name, on the only server.
    pub databases: BTreeMap<String, DatabaseSettings>,
    /// Who may log in.
    pub users: BTreeMap<String, UserSettings>,
    /// Which work belongs to which class; the first rule that matches decides. Work that no
    /// rule and no tag names is `core`.
    pub rules: Vec<Rule>,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            listen: Listen::default(),
            reuse_port: false,
            application_name_add_host: false,
            unix_socket_mode: SocketMode::default(),
            unix_socket_group: None,
            auth: ClientAuth::default(),
            hba_file: None,
            ident_file: None,
            users_file: None,
            auth_query: None,
            cleartext_without_tls: false,
            trust_everywhere: false,
            pool_mode: PoolMode::default(),
            tls: None,
            fleet: None,
            max_clients: 10_000,
            login_timeout: Duration::from_secs(15),
            pool_size: None,
            min_pool_size: 0,
            reserve_pool_size: 0,
            reserve_pool_timeout: Duration::from_secs(5),
            max_database_connections: 0,
            max_user_connections: 0,
            max_database_client_connections: 0,
            max_user_client_connections: 0,
            query_timeout: Duration::ZERO,
            query_wait_timeout: Duration::ZERO,
            transaction_timeout: Duration::ZERO,
            idle_transaction_timeout: Duration::ZERO,
            client_idle_timeout: Duration::ZERO,
            cancel_wait_timeout: Duration::from_secs(10),
            suspend_timeout: Duration::from_secs(10),
            max_prepared_statements: 500,
            max_message: 16 << 20,
            max_message_memory: 256 << 20,
            dns_max_ttl: Duration::from_secs(15),
            tcp_keepalive: true,
            tcp_keepidle: Duration::from_secs(6),
            tcp_keepintvl: Duration::from_secs(3),
            tcp_keepcnt: 3,
            tcp_user_timeout: Duration::from_secs(15),
            notifications: NotificationSettings::default(),
            admin_users: Vec::new(),
            stats_users: Vec::new(),
            stats_period: Duration::from_secs(60),
            servers: BTreeMap::new(),
            databases: BTreeMap::new(),
            users: BTreeMap::new(),
            rules: Vec::new(),
        }
    }
}

impl PostgresSettings {
    /// What is configured for the database that applications call `name`: its own table, or
    /// that of all other names.
    pub fn database(&self, name: &str) -> Option<&DatabaseSettings> {
        self.databases.get(name).or_else(|| self.databases.get(DatabaseSettings::ALL_OTHERS))
    }
}

/// `[postgres.notifications]`: bounds of LISTEN in transaction pooling.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NotificationSettings {
    /// Notifications that may wait for one client, because it is in a transaction or does not
    /// read, bytes. Beyond that its session ends (SQLSTATE 53400): none is dropped silently.
    /// Default 1048576 (1 MiB).
    pub queue: usize,
    /// Channels that one client may listen to. Default 1000.
    pub channels_per_client: usize,
    /// Channels of one database that clients may listen to together. Default 10000.
    pub channels_per_database: usize,
    /// Connections to one server that listen, at the most: one for each database that is
    /// listened to. They are not part of `budget`. Default 10.
    pub connections: usize,
}

impl Default for NotificationSettings {
    fn default() -> Self {
        Self {
            queue: 1 << 20,
            channels_per_client: 1_000,
            channels_per_database: 10_000,
            connections: 10,
        }
    }
}

/// When a server connection goes back to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PoolMode {
    /// After each transaction.
    #[default]
    Transaction,
    /// When the application disconnects.
    Session,
}

/// `[postgres.servers.NAME]`: one physical server, or several of which one at a time (or all,
/// for replicas) is used; one budget.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// `host`, `host:port` or `[v6]:port`, or a Unix socket: `/var/run/postgresql` or
    /// `/var/run/postgresql/.s.PGSQL.5433`. The port defaults to 5432. This or `hosts`.
    #[serde(default)]
    pub address: String,
    /// Several of the same, to choose from by `target_session_attrs` and `load_balance_hosts`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Which of them connections may go to, as in libpq. Default `any`.
    #[serde(default)]
    pub target_session_attrs: SessionAttrs,
    /// In which order they are tried. Default `disable`: as they are written.
    #[serde(default)]
    pub load_balance_hosts: LoadBalance,
    /// How often each host is asked for its role, its timeline and how far it is behind, where
    /// there are several, or `max_lag` or `target_session_attrs` asks for it. Default 5s.
    #[serde(default = "hosts::watch_interval", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub watch_interval: Duration,
    /// A standby that is behind for longer is not used. Default: it may be behind.
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("format" = "humantime"))]
    pub max_lag: Option<Duration>,
    /// Which work goes to replicas. Default: none.
    #[serde(default)]
    pub replicas: Option<ReplicaSettings>,
    /// TLS towards the server, as in libpq. Default `prefer`.
    #[serde(default)]
    pub sslmode: SslMode,
    /// Certificates that may sign the server's, PEM; or `system`. Default: the system's.
    #[serde(default)]
    pub sslrootcert: Option<PathBuf>,
    /// Our own certificate for the server, PEM. Default: none. This and the other files of TLS
    /// are read anew when they change.
    #[serde(default)]
    pub sslcert: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(default)]
    pub sslkey: Option<PathBuf>,
    /// Certificates that were revoked, PEM: a list for each authority. Default: none.
    #[serde(default)]
    pub sslcrl: Option<PathBuf>,
    /// How TLS begins. Default `postgres`.
    #[serde(default)]
    pub sslnegotiation: SslNegotiation,
    /// The lowest version of TLS. Default 1.2.
    #[serde(default)]
    pub ssl_min_version: Option<TlsVersion>,
    /// The highest version of TLS. Default 1.3.
    #[serde(default)]
    pub ssl_max_version: Option<TlsVersion>,
    /// Whether logins are bound to the TLS session. Default `prefer`.
    #[serde(default)]
    pub channel_binding: ChannelBinding,
    /// The newest protocol that the server is asked for. Default 3.0.
    #[serde(default)]
    pub max_protocol_version: ProtocolVersion,
    /// Connections we may open there. Default: 70 % of what its `max_connections` leaves
    /// after the reserved ones, of several hosts that of the smallest; 10 until that could be
    /// read.
    #[serde(default)]
    pub budget: Option<u32>,
    /// What bounds our connections there. Default `budget`.
    #[serde(default)]
    pub bounded_by: BoundedBy,
    /// Replication connections that clients may have, where they are pooled by session. They
    /// are not part of `budget`: the server counts them by `max_wal_senders`. Default 4.
    #[serde(default = "replication_connections")]
    pub replication_connections: u32,
    /// Windows of time with a budget of their own. Default: none.
    #[serde(default)]
    pub timetable: Vec<WindowSettings>,
    /// Whether the budget follows observed demand, between what is kept warm and the largest
    /// budget that is configured. Default observe.
    #[serde(default)]
    pub forecast: Mode,
    /// Whether the budget shrinks while the server shows that it bears less: its cheapest
    /// frequent work takes twice its usual time, or it says that it is full. Default off.
    #[serde(default = "off")]
    pub evidence: Mode,
    /// Percent of the server's capacity for all AI classes together. Default 35.
    #[serde(default = "ai_share")]
    pub ai_share: u8,
    /// Percent of the budget opened at start and kept. Default 25.
    #[serde(default = "warm_up")]
    pub warm_up: u8,
    /// Idle connections are closed after this. Default 45s.
    #[serde(default = "idle_ttl", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub idle_ttl: Duration,
    /// Connections are replaced at this age, varied by 10 %. Default 30min.
    #[serde(default = "lifetime", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub lifetime: Duration,
    /// How often an idle connection is asked whether it still answers. Default 10s.
    #[serde(default = "probe_interval", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub probe_interval: Duration,
    /// How long one attempt to connect and log in may take. Default 5s.
    #[serde(default = "connect_timeout", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub connect_timeout: Duration,
    /// Requests of an AI class that may wait, as a multiple of the connections the class can
    /// get; further ones are told at once. Default 2.
    #[serde(default = "queue_factor")]
    pub queue_factor: u32,
    /// Percent of what a class can get that must be in use before it sheds expensive work, 1
    /// to 99. Default 80.
    #[serde(default = "shed_from")]
    pub shed_from: u8,
    /// A connection on lease for longer is told of, in the log, as an event and in the
    /// metrics. Default 15s.
    #[serde(default = "hold_limit", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub hold_limit: Duration,
    /// Operations known to hold a connection for longer (at the 95th percentile) do not
    /// borrow above the guarantee of their class, where `lending` is enforced. Default 1s.
    #[serde(default = "lend_max_hold", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub lend_max_hold: Duration,
    /// How it is proved that an idle transaction holds nothing, where a class parks such.
    #[serde(default)]
    pub parking: ParkingSettings,
    /// Classes whose unnamed statements are prepared under names of ours once their text has
    /// come a few times, which costs the server less; like all prepared statements they may get
    /// generic plans, see `plan_cache_mode` in PostgreSQL's manual. Default: none.
    #[serde(default)]
    pub name_unnamed: Vec<ClassName>,
    /// Workload classes; `core`, with `kind = "core"`, must be among them. Default: `core`
    /// (guarantee 50 %, waits 5s), `ai-read` (10 %, 500ms) and `ai-write` (10 %, ceiling half
    /// the AI share, 2s).
    #[serde(default)]
    pub classes: BTreeMap<ClassName, ClassSettings>,
}

fn replication_connections() -> u32 {
    4
}
fn off() -> Mode {
    Mode::Off
}
fn ai_share() -> u8 {
    35
}
fn warm_up() -> u8 {
    25
}
fn idle_ttl() -> Duration {
    Duration::from_secs(45)
}
fn lifetime() -> Duration {
    Duration::from_secs(30 * 60)
}
fn connect_timeout() -> Duration {
    Duration::from_secs(5)
}

fn queue_factor() -> u32 {
    2
}

fn shed_from() -> u8 {
    80
}
fn hold_limit() -> Duration {
    Duration::from_secs(15)
}
fn lend_max_hold() -> Duration {
    Duration::from_secs(1)
}
fn probe_interval() -> Duration {
    Duration::from_secs(10)
}

/// `[postgres.databases.NAME]`: a database name that applications may ask for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseSettings {
    /// Which server has it. Default: the only one.
    pub server: Option<String>,
    /// Its name there. Default: the same.
    pub database: Option<String>,
    /// When a server connection goes back to the pool. Default: as for the gateway.
    pub pool_mode: Option<PoolMode>,
    /// Server connections of each user to it, at the most. Default: as for the gateway.
    pub pool_size: Option<u32>,
    /// Server connections of each user that are kept open while it has clients; where
    /// `force_user` is set, always. Default: as for the gateway.
    pub min_pool_size: Option<u32>,
    /// Further ones of each user, for clients that have waited. Default: as for the gateway.
    pub reserve_pool_size: Option<u32>,
    /// Server connections of all users together; 0: no such limit. Default: as for the gateway.
    pub max_connections: Option<u32>,
    /// Clients of all users together; 0: no such limit. Default: as for the gateway.
    pub max_client_connections: Option<u32>,
    /// As whom to log in to the server, whoever the client is: all its users share these
    /// connections. Default: as the client's own user.
    pub force_user: Option<String>,
    /// The password of `force_user` there. Default: as configured for that user.
    pub password: Option<SecretRef>,
    /// What is run on each new server connection before a client gets it. Default: nothing.
    pub connect_query: Option<String>,
    /// Settings of PostgreSQL that its sessions begin with where the client asks for no others,
    /// such as `timezone`. Default: as the server says.
    pub parameters: BTreeMap<String, String>,
    /// As for the gateway, for this database. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub query_timeout: Duration,
    /// As for the gateway, for this database. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub transaction_timeout: Duration,
    /// As for the gateway, for this database. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub idle_transaction_timeout: Duration,
    /// As for the gateway, for this database. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub client_idle_timeout: Duration,
    /// As whom to look up its users. Default: `user` of `[postgres.auth_query]`.
    pub auth_user: Option<String>,
    /// What to ask to look up its users. Default: `query` of `[postgres.auth_query]`.
    pub auth_query: Option<String>,
    /// In which of our databases to look up its users. Default: `database` of
    /// `[postgres.auth_query]`.
    pub auth_database: Option<String>,
}

impl DatabaseSettings {
    /// The name under which all databases are configured that have no table of their own.
    pub const ALL_OTHERS: &str = "*";
}

/// `[postgres.users.NAME]`: a user that may log in.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserSettings {
    /// The password, or what `pg_authid` stores of it (`SCRAM-SHA-256$…`, `md5…`). Default: as
    /// in `users_file`.
    pub password: Option<SecretRef>,
    /// As whom to log in to the server. Default: the same user.
    pub server_user: Option<String>,
    /// The password there. Default: `password`; where that is a verifier, what clients prove it
    /// by.
    pub server_password: Option<SecretRef>,
    /// When a server connection of this user goes back to the pool. Default: as for the
    /// database.
    pub pool_mode: Option<PoolMode>,
    /// Server connections of this user to each database, at the most. Default: as for the
    /// database.
    pub pool_size: Option<u32>,
    /// Further ones, for clients that have waited. Default: as for the database.
    pub reserve_pool_size: Option<u32>,
    /// Server connections to all databases together; 0: no such limit. Default: as for the
    /// gateway.
    pub max_connections: Option<u32>,
    /// Clients of this user; 0: no such limit. Default: as for the gateway.
    pub max_client_connections: Option<u32>,
    /// The tenant whose HTTP calls belong to the same requests. Default: the tenant
    /// `default` while no tenants are configured, else none.
    pub tenant: Option<String>,
    /// As for the gateway, for this user. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub query_timeout: Duration,
    /// As for the gateway, for this user. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub transaction_timeout: Duration,
    /// As for the gateway, for this user. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub idle_transaction_timeout: Duration,
    /// As for the gateway, for this user. Default 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub client_idle_timeout: Duration,
}

/// `[[postgres.rules]]`: work that matches all conditions belongs to `class`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The user, `*` for any run of characters.
    #[serde(default)]
    pub user: Option<String>,
    /// The database the application asked for, `*` as above.
    #[serde(default)]
    pub database: Option<String>,
    /// The application_name, `*` as above.
    #[serde(default)]
    pub application_name: Option<String>,
    /// The class.
    pub class: ClassName,
}
