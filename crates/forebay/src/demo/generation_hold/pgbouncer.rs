//! PgBouncer, where this machine has one: what the same agents get from it, in the same run.
//!
//! Transaction pooling, one pool for each database that its file names. Ended when dropped,
//! or when this process dies.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use forebay_seam::{net, time};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_postgres::Config;

use crate::demo::cluster::{self, ClusterError};
use crate::demo::database::Database;
use crate::demo::keeper::Keeper;

/// Where it may be beside PATH: Debian's package puts it among the daemons.
const USUAL: [&str; 2] = ["/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer"];
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried.
const LOOK: Duration = Duration::from_millis(20);
/// The one user, who is believed: this is about pools.
const USER: &str = "shop";

/// The program.
#[derive(Debug, Clone)]
pub(super) struct Installed {
    program: PathBuf,
    /// As it says itself.
    pub(super) version: String,
    /// Whether it follows named prepared statements in transaction pooling: since 1.21.
    pub(super) follows_prepared: bool,
}

/// One of its databases: a pool of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pool {
    /// As clients name it.
    pub(super) name: &'static str,
    /// Server connections.
    pub(super) size: usize,
}

/// A running PgBouncer.
pub(super) struct PgBouncer {
    address: SocketAddr,
    _child: Child,
    _keeper: Keeper,
    /// Removed last.
    _folder: TempDir,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PgBouncerError {
    /// Nobody to run it as, or no folder for it.
    #[error(transparent)]
    Owner(#[from] ClusterError),
    /// A file or the process could not be made.
    #[error("cannot start PgBouncer: {0}")]
    System(#[from] io::Error),
    /// It ended, or never listened.
    #[error("PgBouncer does not listen; its log says:\n{0}")]
    Start(String),
}

/// The PgBouncer of this machine, if it has one.
pub(super) fn find() -> Option<Installed> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|folder| folder.join("pgbouncer"));
    let program = places.chain(USUAL.map(PathBuf::from)).find(|place| place.is_file())?;
    let said = std::process::Command::new(&program).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout);
    let version = said.lines().next()?.trim().to_owned();
    let mut numbers = version.split([' ', '.']).filter_map(|part| part.parse::<u32>().ok());
    let numbers = (numbers.next()?, numbers.next()?);
    Some(Installed { program, version, follows_prepared: numbers >= (1, 21) })
}

impl Installed {
    /// Starts it in front of `database`.
    pub(super) async fn start(
        &self,
        database: &Database,
        pools: &[Pool],
    ) -> Result<PgBouncer, PgBouncerError> {
        let owner = cluster::owner()?;
        let folder = cluster::folder(owner)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster::free_port()?));
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, self.configuration(database, pools, address))?;
        cluster::give(&file, owner)?;
        let log = folder.path().join("pgbouncer.log");
        let output = fs::File::create(&log)?;
        let mut command = Command::new(&self.program);
        if let Some(owner) = owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        let mut child = command
            .arg(&file)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let keeper = Keeper::of(child.id().unwrap_or_default(), "TERM", folder.path())?;
        let listening = async {
            while net::connect(&[address]).await.is_err() {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return false;
                }
                time::sleep(LOOK).await;
            }
            true
        };
        match time::timeout(PATIENCE, listening).await {
            Ok(true) => Ok(PgBouncer { address, _child: child, _keeper: keeper, _folder: folder }),
            Ok(false) | Err(_) => Err(PgBouncerError::Start(end_of(&log))),
        }
    }

    /// Its file. Nobody waits in vain: clients are bounded by the run, not by a timeout.
    fn configuration(&self, database: &Database, pools: &[Pool], address: SocketAddr) -> String {
        let config = database.config();
        let (host, port) = database.place();
        let user = config.get_user().unwrap_or("postgres");
        let password = String::from_utf8_lossy(config.get_password().unwrap_or(b"")).into_owned();
        let mut lines = vec!["[databases]".to_owned()];
        for Pool { name, size } in pools {
            lines.push(format!(
                "{name} = host={host} port={port} dbname={} user={user} password={} \
                 pool_size={size}",
                database.name(),
                quoted(&password),
            ));
        }
        lines.extend([
            "[pgbouncer]".to_owned(),
            format!("listen_addr = {}", address.ip()),
            format!("listen_port = {}", address.port()),
            "unix_socket_dir =".to_owned(),
            "auth_type = any".to_owned(),
            "pool_mode = transaction".to_owned(),
            "max_client_conn = 1000".to_owned(),
            "log_connections = 0".to_owned(),
            "log_disconnections = 0".to_owned(),
        ]);
        if self.follows_prepared {
            lines.push("max_prepared_statements = 500".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

impl PgBouncer {
    /// How clients connect to the pool called `name`.
    pub(super) fn config(&self, name: &str) -> Config {
        let mut config = Config::new();
        config.host(self.address.ip().to_string()).port(self.address.port());
        config.user(USER).password("none").dbname(name);
        config
    }
}

/// As PgBouncer's connection strings quote: a quote is doubled.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
}
