//! The PostgreSQL that the demo works on: a private cluster, or one that exists already, in
//! which each side of each scenario gets a database of its own.
//!
//! Only databases made here are ever dropped. What a side's clients opened is counted by
//! the server (`pg_stat_database.sessions`), on a connection to another database.

use std::fmt;

use forebay_seam::sync::Mutex;
use forebay_seam::{net, random};
use tokio::io::AsyncReadExt;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use super::cluster::{Cluster, ClusterError, ClusterSettings};
use super::issuer::hex;
use super::postgres_binaries::{self, NotFound};
use super::progress::tell;
use super::watch::Watch;

/// Counts of sessions came with PostgreSQL 14.
const OLDEST: i32 = 140_000;
/// Sessions that making a database takes in it.
const OWN_SESSIONS: i64 = 1;
/// What the workload needs.
const TABLES: &str = "
CREATE TABLE accounts AS
    SELECT id, 'user' || id || '@example.com' AS email FROM generate_series(1, 10000) AS id;
ALTER TABLE accounts ADD PRIMARY KEY (id);
CREATE TABLE documents AS
    SELECT id, repeat('so ', 200) AS body FROM generate_series(1, 5000) AS id;
ALTER TABLE documents ADD PRIMARY KEY (id);
CREATE TABLE steps (id bigserial PRIMARY KEY, agent int NOT NULL, answer text NOT NULL);
ANALYZE";

/// Why there is no database to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// No PostgreSQL on this machine.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The private cluster failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// `--dsn` cannot be used.
    #[error("--dsn cannot be used: {0}")]
    Dsn(String),
    /// The server refused something.
    #[error("PostgreSQL says: {}", told(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// It cannot be reached.
    #[error("cannot reach PostgreSQL: {0}")]
    Network(#[from] std::io::Error),
}

/// The whole of what the server or the driver said.
pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => {
            let source = std::error::Error::source(error);
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
    }
}

/// The server.
pub(crate) struct Server {
    origin: Origin,
    config: Config,
    version: String,
    made: Mutex<Vec<String>>,
}

/// Whose server it is.
enum Origin {
    Private { cluster: Box<Cluster> },
    Existing,
}

/// A database for one side.
#[derive(Clone)]
pub(crate) struct Database {
    name: String,
    config: Config,
}

/// A client with the task that drives it, which ends when the client is dropped.
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl std::ops::Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Not left to finish what runs: whoever drops a session wants it closed.
        self.driver.abort();
    }
}

/// Opens a session as `config` says, without TLS.
pub(crate) async fn connect(config: &Config) -> Result<Session, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    // Its errors reach the client too.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok(Session { client, driver })
}

/// Cancels what runs in `session`, which was opened as `config` says, and waits until the
/// server has done so: it signals its process twice (`signal_child` of PostgreSQL), and the
/// second signal would hit what the session does next.
pub(crate) async fn cancel(session: &Session, config: &Config) -> Result<(), DatabaseError> {
    let Some((host, port)) = tcp(config) else { return Ok(()) };
    let addresses = net::resolve(&host, port).await?;
    let mut stream = net::connect(&addresses).await?;
    session.cancel_token().cancel_query_raw(&mut stream, NoTls).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

impl Server {
    /// A private cluster, with what of PostgreSQL is on this machine.
    pub(crate) async fn private() -> Result<Self, DatabaseError> {
        let start = || {
            let binaries = postgres_binaries::find()?;
            Ok::<_, DatabaseError>(Cluster::start(&binaries, ClusterSettings::default())?)
        };
        let cluster = spawn_blocking(start).await.map_err(|error| {
            DatabaseError::Dsn(format!("starting a private cluster ended early: {error}"))
        })??;
        let config = cluster.dsn().parse()?;
        Self::of(Origin::Private { cluster: Box::new(cluster) }, config).await
    }

    /// The server that `dsn` names.
    pub(crate) async fn existing(dsn: &str) -> Result<Self, DatabaseError> {
        let config: Config = dsn.parse().map_err(|error| DatabaseError::Dsn(told(&error)))?;
        if tcp(&config).is_none() {
            let wanted = "name a host reached by TCP, postgres://user:password@host:5432/postgres";
            return Err(DatabaseError::Dsn(wanted.to_owned()));
        }
        Self::of(Origin::Existing, config).await.map_err(|error| match error {
            DatabaseError::Postgres(error) => DatabaseError::Dsn(told(&error)),
            DatabaseError::NotFound(_)
            | DatabaseError::Cluster(_)
            | DatabaseError::Dsn(_)
            | DatabaseError::Network(_) => error,
        })
    }

    async fn of(origin: Origin, config: Config) -> Result<Self, DatabaseError> {
        let session = connect(&config).await?;
        let setting = async |name| -> Result<String, tokio_postgres::Error> {
            Ok(session.query_one(&format!("SHOW {name}"), &[]).await?.get(0))
        };
        if setting("server_version_num").await?.parse().unwrap_or(0) < OLDEST {
            return Err(DatabaseError::Dsn("the demo needs PostgreSQL 14 or later".to_owned()));
        }
        let version = setting("server_version").await?;
        Ok(Self { origin, config, version, made: Mutex::default() })
    }

    /// A new database with the workload's tables.
    pub(crate) async fn create(&self) -> Result<Database, DatabaseError> {
        let name = format!("forebay_demo_{}", hex(random::bytes()));
        self.made.lock().push(name.clone());
        let maintenance = connect(&self.config).await?;
        maintenance.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let mut config = self.config.clone();
        config.dbname(&name);
        connect(&config).await?.batch_execute(TABLES).await?;
        Ok(Database { name, config })
    }

    /// Sessions that others than [`Self::create`] opened in `database` so far, as the server
    /// counted them; it learns of a session about a second after its start, or at its end.
    pub(crate) async fn sessions(&self, database: &Database) -> Result<u64, DatabaseError> {
        let maintenance = connect(&self.config).await?;
        let question = "SELECT sessions FROM pg_stat_database WHERE datname = $1";
        let row = maintenance.query_one(question, &[&database.name]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0) - OWN_SESSIONS).unwrap_or(0))
    }

    /// Looks at the sessions in `database`, from outside of it.
    pub(crate) async fn watch(&self, database: &Database) -> Result<Watch, DatabaseError> {
        Ok(Watch::new(connect(&self.config).await?, &database.name))
    }

    /// How a person connects to `database` directly. The password only where it is ours.
    pub(crate) fn dsn(&self, database: &Database) -> String {
        let user = self.config.get_user().unwrap_or_default();
        let (address, name) = (database.address(), &database.name);
        match &self.origin {
            Origin::Private { cluster } => {
                format!("postgres://{user}:{}@{address}/{name}", cluster.password())
            }
            Origin::Existing => format!("postgres://{user}@{address}/{name}"),
        }
    }

    /// Drops what was made. A private cluster goes with `self`.
    pub(crate) async fn close(self) {
        let made = std::mem::take(&mut *self.made.lock());
        if matches!(self.origin, Origin::Private { .. }) {
            return;
        }
        for name in made {
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            let dropped = async { connect(&self.config).await?.batch_execute(&drop).await };
            if let Err(error) = dropped.await {
                tell(&format!("could not drop database {name}: {}", told(&error)));
            }
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.version)?;
        match self.origin {
            Origin::Private { .. } => f.write_str(" in a private cluster, fsync off"),
            Origin::Existing => f.write_str(" of --dsn"),
        }
    }
}

impl Database {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How clients connect to it directly.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Host and port of its server.
    pub(crate) fn place(&self) -> (String, u16) {
        tcp(&self.config).unwrap_or_default()
    }

    /// `host:port` of its server.
    pub(crate) fn address(&self) -> String {
        let (host, port) = self.place();
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// The first host of `config` that is reached by TCP, with its port.
fn tcp(config: &Config) -> Option<(String, u16)> {
    let ports = config.get_ports();
    config.get_hosts().iter().enumerate().find_map(|(place, host)| match host {
        Host::Tcp(name) => {
            Some((name.clone(), ports.get(place).or(ports.first()).copied().unwrap_or(5432)))
        }
        #[cfg(unix)]
        Host::Unix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dsn_without_a_tcp_host_says_what_is_wanted() {
        for dsn in ["postgres:///postgres", "host=/run/postgresql", "nonsense"] {
            let Err(error) = Server::existing(dsn).await else { panic!("{dsn} was taken") };
            assert!(error.to_string().contains("--dsn"), "{error}");
        }
    }

    #[test]
    fn the_first_host_that_is_reached_by_tcp_counts() {
        let config: Config = "host=/tmp,db.internal port=1,2".parse().unwrap();
        assert_eq!(tcp(&config), Some(("db.internal".to_owned(), 2)));
        let config: Config = "postgres://a@::1/x".parse().unwrap_or_default();
        assert!(tcp(&config).is_none_or(|(_, port)| port == 5432));
    }
}
