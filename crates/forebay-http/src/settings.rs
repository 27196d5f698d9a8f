//! What an operator sets for the HTTP egress gateway.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use forebay_pool::timetable::WindowSettings;
use forebay_pool::{ClassName, ClassSettings, Mode};
use forebay_seam::net::SocketMode;
use schemars::JsonSchema;
use serde::Deserialize;

mod connections;
mod credential;
mod listen;
mod tenant;

pub use connections::{ConnectionSettings, ProtocolSetting};
pub use credential::{ClientAuthentication, CredentialSettings};
pub use listen::{AgentTls, Listen};
pub use tenant::{AgentSettings, TenantSettings};

/// `[http]`: where agents send their calls, and which services are behind.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Where agents send their calls: an address, or a list of them, such as
    /// `["127.0.0.1:6480", "unix:/run/forebay/http.sock"]`. Each speaks HTTP/1.1 and HTTP/2.
    /// Default 127.0.0.1:6480.
    pub listen: Listen,
    /// Permissions of the Unix sockets, as for chmod. Default "0777": whoever connects is
    /// asked who it is.
    pub unix_socket_mode: SocketMode,
    /// The group that gets the Unix sockets. Default: the group of the process.
    pub unix_socket_group: Option<String>,
    /// TLS towards agents, at the TCP addresses. Default: none.
    pub tls: Option<AgentTls>,
    /// Connections from agents, at the most. Default 10000.
    pub max_clients: u32,
    /// Calls under way on one HTTP/2 connection of an agent's, at the most: it is told, and keeps
    /// others back. Counts for connections that come from then on. Default 100.
    pub max_concurrent_streams: u32,
    /// Who may call, by tenant. Empty: everybody who reaches the port, as tenant `default`.
    pub tenants: BTreeMap<String, TenantSettings>,
    /// The services, by the name that stands first in the path: `/NAME/…`.
    pub destinations: BTreeMap<String, DestinationSettings>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: Listen::default(),
            unix_socket_mode: SocketMode::default(),
            unix_socket_group: None,
            tls: None,
            max_clients: 10_000,
            max_concurrent_streams: 100,
            tenants: BTreeMap::new(),
            destinations: BTreeMap::new(),
        }
    }
}

/// `[http.destinations.NAME]`: one service, one budget.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationSettings {
    /// Where it is: `https://host[:port][/base]`.
    pub url: String,
    /// Host names that stand for it, with or without a port: a call whose `Host` (or
    /// `:authority`, or absolute URI) is one of them is for it, with its whole path. Default:
    /// none, and its name comes first in the path.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Certificates that may sign the service's, PEM. Default: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What the service's documentation allows us to open. The budget is 70 % of it.
    #[serde(default)]
    pub documented_limit: Option<u32>,
    /// Connections we may open there. Default: 70 % of `documented_limit`, or 50.
    #[serde(default)]
    pub budget: Option<u32>,
    /// Windows of time with a budget of their own. Default: none.
    #[serde(default)]
    pub timetable: Vec<WindowSettings>,
    /// Whether the budget follows observed demand, between what is kept warm and the largest
    /// budget that is configured. Default observe.
    #[serde(default)]
    pub forecast: Mode,
    /// Percent of the budget opened at start and kept, at least one connection, for those
    /// whose credentials are configured (in turn) or who need none. 0: none. Default 25.
    #[serde(default = "warm_up")]
    pub warm_up: u8,
    /// Idle connections are closed after this, and sooner where the service is seen to close
    /// them sooner. Default 45s.
    #[serde(default = "idle_ttl", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub idle_ttl: Duration,
    /// Connections are replaced at this age, varied by 10 %. Default 30min.
    #[serde(default = "lifetime", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub lifetime: Duration,
    /// How often an idle connection is looked at: is it still open? Default 10s.
    #[serde(default = "probe_interval", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub probe_interval: Duration,
    /// How long connecting and the TLS handshake may take. Default 5s.
    #[serde(default = "connect_timeout", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub connect_timeout: Duration,
    /// How long a call may wait for a connection. Default 5s.
    #[serde(default = "checkout_timeout", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub checkout_timeout: Duration,
    /// How long the service may take until its answer begins. Default 5min: models think.
    #[serde(default = "first_byte_timeout", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub first_byte_timeout: Duration,
    /// How long a call may take in all, from when it is sent to the end of its answer. Streams
    /// (server-sent events, gRPC, WebSocket and their kin) are not bound by it. Default: any
    /// time.
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("format" = "humantime"))]
    pub total_timeout: Option<Duration>,
    /// How long the service may pause within an answer, and the agent within what it sends or
    /// reads. Default 5min.
    #[serde(default = "chunk_timeout", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub chunk_timeout: Duration,
    /// Which calls are sent once more when the connection ends without a byte of an answer.
    /// Default `idempotent`.
    #[serde(default)]
    pub retry: RetrySettings,
    /// How connections are opened, shared, kept and given up.
    #[serde(default)]
    pub connections: ConnectionSettings,
    /// Let callers with different credentials use each other's connections. Only for
    /// credentials that each call carries by itself: not for `basic` and
    /// `client-certificate`. Default false.
    #[serde(default)]
    pub share_connections: bool,
    /// The credentials that we add, the same for every tenant. Default: none, and the
    /// agent's own pass through.
    #[serde(default)]
    pub auth: Option<CredentialSettings>,
    /// Credentials of single tenants, before `auth`.
    #[serde(default)]
    pub tenants: BTreeMap<String, CredentialSettings>,
    /// Credentials of single agents, by tenant and agent, before those of their tenant:
    /// `[http.destinations.NAME.agents.TENANT.AGENT]`.
    #[serde(default)]
    pub agents: BTreeMap<String, BTreeMap<String, CredentialSettings>>,
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
    /// Workload classes. Default: one, with the whole budget. Calls belong to `core`, or to
    /// the first class where there is no `core`; an agent may choose another one of kind
    /// `ai` by `x-forebay-class`, and so lower its rank, never raise it.
    #[serde(default)]
    pub classes: BTreeMap<ClassName, ClassSettings>,
    /// How much may be asked of it in which time.
    #[serde(default)]
    pub limits: LimitSettings,
}

/// Which calls are sent a second time when the connection to the service ends before a byte of
/// the answer has come, within the budget for retries of the class. A call of which nothing was
/// sent is always sent again; a body of more than 64 KiB never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetrySettings {
    /// None of those that the service may have begun.
    Unsent,
    /// Those whose method may be carried out twice without harm (GET, HEAD, OPTIONS, TRACE,
    /// PUT, DELETE: RFC 9110, 9.2.2).
    #[default]
    Idempotent,
    /// Those, and any with an `Idempotency-Key`, by which the service knows it again.
    IdempotencyKey,
}

/// `[http.destinations.NAME.limits]`: how much may be asked of a service in which time, by
/// everybody together and by each tenant.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// What the limits may do: `off`, `observe` (count what they would refuse) or `enforce`.
    /// Default `observe`.
    pub mode: Mode,
    /// Calls in each window, of everybody together. Default: no such limit.
    pub requests: Option<u64>,
    /// Tokens in each window, of everybody together. Default: no such limit.
    pub tokens: Option<u64>,
    /// How long a window is. Default 1min.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub per: Duration,
    /// Percent of a limit that may go at once. Default 100.
    pub burst: u32,
    /// Heed what the service itself announces in its answers: what it has left, and when it
    /// wants to be asked again. Default true.
    pub follow: bool,
    /// The limits of each tenant, besides those of everybody together.
    pub each_tenant: TenantLimitSettings,
    /// Single tenants; what is not said here is as for each.
    pub tenants: BTreeMap<String, TenantLimitSettings>,
}

/// What one tenant may ask of a service.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimitSettings {
    /// Calls in each window. Default: no such limit.
    pub requests: Option<u64>,
    /// Tokens in each window. Default: no such limit.
    pub tokens: Option<u64>,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            requests: None,
            tokens: None,
            per: Duration::from_secs(60),
            burst: 100,
            follow: true,
            each_tenant: TenantLimitSettings::default(),
            tenants: BTreeMap::new(),
        }
    }
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
fn checkout_timeout() -> Duration {
    Duration::from_secs(5)
}
fn first_byte_timeout() -> Duration {
    Duration::from_secs(300)
}
fn chunk_timeout() -> Duration {
    Duration::from_secs(300)
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
