//! Forebay itself, as everybody runs it: a child process with a configuration file.
//!
//! Ended by SIGTERM, and by force when dropped or when this process dies. Its figures come
//! from its own admin port.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use forebay_seam::time;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_postgres::Config;

use super::call::{self, CallError};
use super::database::Database;
use super::keeper::Keeper;

mod configuration;

pub(crate) use configuration::*;

/// How long it may take to be ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(50);
/// A running Forebay.
pub(crate) struct Forebay {
    child: Child,
    ports: Ports,
    user: Login,
    file: PathBuf,
    _keeper: Keeper,
    /// Removed last.
    _folder: TempDir,
}

#[derive(Clone, Copy)]
struct Ports {
    postgres: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
}

/// How the product logs in at Forebay.
struct Login {
    password: String,
    database: String,
}

/// Why Forebay does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    /// A file or a process could not be made.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// It ended, or did not get ready.
    #[error("Forebay did not start ({reason}); it said:\n{log}")]
    Start {
        /// What was seen.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// Its admin port said something else than expected.
    #[error("Forebay's snapshot cannot be read: {0}")]
    Snapshot(String),
}

impl From<CallError> for GatewayError {
    fn from(error: CallError) -> Self {
        Self::Snapshot(error.to_string())
    }
}

/// What the demo reads of `/api/v1/snapshot`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Seen {
    overlaps: Vec<SeenOverlap>,
    postgres: Option<SeenPostgres>,
}

#[derive(Debug, Deserialize)]
struct SeenPostgres {
    pools: Vec<SeenPool>,
    parking: BTreeMap<String, SeenParkings>,
}

#[derive(Debug, Deserialize)]
struct SeenPool {
    features: Vec<Feature>,
    classes: Vec<SeenClass>,
}

#[derive(Debug, Deserialize)]
struct SeenClass {
    class: String,
    queue_full: u64,
    policies: Vec<SeenPolicy>,
}

#[derive(Debug, Deserialize)]
struct SeenPolicy {
    policy: String,
    acted: u64,
}

/// What Forebay learnt of a feature of the product.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Feature {
    /// Its name, as the comments say it.
    pub(crate) feature: String,
    /// Requests that are over; the rest is learnt from them.
    pub(crate) requests: u64,
    /// Leases of one of its requests.
    pub(crate) leases: Figure,
    /// Leases of one of its requests at the same time.
    pub(crate) peak: Figure,
}

/// What requests of a feature have in common.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Figure {
    /// On average.
    pub(crate) mean: f64,
}

#[derive(Debug, Deserialize)]
struct SeenOverlap {
    begun: u64,
}

/// What Forebay did with transactions that wait: of one server, or of all.
#[derive(Debug, Default, Deserialize)]
struct SeenParkings {
    classes: Vec<SeenParking>,
}

/// What Forebay parked.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct SeenParking {
    /// Transactions parked.
    parks: u64,
    /// Those that could have been, where it only observes.
    could_park: u64,
    /// Parked ones for which no connection came in time.
    pub(crate) lost: u64,
}

impl SeenParking {
    /// Transactions parked, or that could have been.
    pub(crate) fn helped(self) -> u64 {
        self.parks + self.could_park
    }
}

impl Seen {
    /// What was parked, all servers and classes together.
    pub(crate) fn parking(&self) -> SeenParking {
        let servers = self.postgres.iter().flat_map(|postgres| postgres.parking.values());
        servers.flat_map(|server| &server.classes).fold(SeenParking::default(), |sum, class| {
            SeenParking {
                parks: sum.parks + class.parks,
                could_park: sum.could_park + class.could_park,
                lost: sum.lost + class.lost,
            }
        })
    }

    /// Transactions found open and idle beside a call of the same request.
    pub(crate) fn holds(&self) -> u64 {
        self.overlaps.iter().map(|overlap| overlap.begun).sum()
    }

    /// What it learnt of the features that its database's clients named.
    pub(crate) fn features(&self) -> impl Iterator<Item = &Feature> {
        self.pools().flat_map(|pool| &pool.features)
    }

    /// How often it turned callers of `class` away or let them wait, by the policy that said
    /// so; `queue` is the bound of the line.
    pub(crate) fn verdicts(&self, class: &str) -> BTreeMap<String, u64> {
        let mut verdicts = BTreeMap::new();
        for class in self.pools().flat_map(|pool| &pool.classes).filter(|c| c.class == class) {
            let policies = class.policies.iter().map(|policy| (&*policy.policy, policy.acted));
            for (policy, acted) in policies.chain([("queue", class.queue_full)]) {
                if acted > 0 {
                    *verdicts.entry(policy.to_owned()).or_default() += acted;
                }
            }
        }
        verdicts
    }

    fn pools(&self) -> impl Iterator<Item = &SeenPool> {
        self.postgres.iter().flat_map(|postgres| &postgres.pools)
    }
}

impl Forebay {
    /// Starts it in front of `database` and what else `front` says, and waits until it is
    /// ready.
    pub(crate) async fn start(
        database: &Database,
        front: &Front<'_>,
    ) -> Result<Self, GatewayError> {
        let system = |what| move |source| GatewayError::System { what, source };
        let folder = tempfile::Builder::new().prefix("forebay-demo-").tempdir();
        let folder = folder.map_err(system("make a temporary folder"))?;
        let ports = Ports::free().map_err(system("find free ports"))?;
        let user = Login {
            password: super::issuer::hex(forebay_seam::random::bytes()),
            database: database.name().to_owned(),
        };
        let text = front.configuration(ports, &user, database, folder.path());
        let text = text.map_err(system("write ca.pem"))?;
        let file = folder.path().join("forebay.toml");
        write_private(&file, &text).map_err(system("write forebay.toml"))?;

        let log = folder.path().join("forebay.log");
        let output = File::create(&log).map_err(system("write forebay.log"))?;
        let program = std::env::current_exe().map_err(system("find this program"))?;
        let child = Command::new(program)
            .arg("run")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(system("write forebay.log"))?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(system("run Forebay"))?;
        let id = child.id().unwrap_or_default();
        let keeper = Keeper::of(id, "TERM", folder.path()).map_err(system("run /bin/sh"))?;
        let mut forebay = Self { child, ports, user, file, _keeper: keeper, _folder: folder };
        match time::timeout(PATIENCE, forebay.ready()).await {
            Ok(Ok(())) => Ok(forebay),
            Ok(Err(reason)) => Err(GatewayError::Start { reason, log: tail(&log) }),
            Err(_) => {
                let reason = format!("not ready after {}s", PATIENCE.as_secs());
                Err(GatewayError::Start { reason, log: tail(&log) })
            }
        }
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// How it ended, if it did.
    async fn ready(&mut self) -> Result<(), String> {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(status.to_string());
            }
            if call::get(self.ports.admin, "/readyz").await.is_ok() {
                return Ok(());
            }
            time::sleep(LOOK).await;
        }
    }

    /// Where agents send their calls.
    pub(crate) fn http(&self) -> SocketAddr {
        self.ports.http
    }

    /// Where operators look.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.ports.admin
    }

    /// Its configuration.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// How the product's clients connect.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        config.host(self.ports.postgres.ip().to_string()).port(self.ports.postgres.port());
        config.user(USER).password(&self.user.password).dbname(&self.user.database);
        config
    }

    /// The same as a URL.
    pub(crate) fn dsn(&self) -> String {
        let Login { password, database } = &self.user;
        format!("postgres://{USER}:{password}@{}/{database}", self.ports.postgres)
    }

    /// What it saw so far.
    pub(crate) async fn seen(&self) -> Result<Seen, GatewayError> {
        let text = call::get(self.ports.admin, "/api/v1/snapshot").await?;
        serde_json::from_slice(&text).map_err(|error| GatewayError::Snapshot(error.to_string()))
    }

    /// Stops it by SIGTERM.
    pub(crate) async fn stop(mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            kill(Pid::from_raw(id), Signal::SIGTERM).ok();
        }
        // Dropped, it is ended by force.
        time::timeout(PATIENCE, self.child.wait()).await.ok();
    }
}

impl Ports {
    fn free() -> io::Result<Self> {
        let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        // All at once, so that they differ.
        let listeners = [any()?, any()?, any()?];
        let [postgres, http, admin] = listeners.map(|listener| listener.local_addr());
        Ok(Self { postgres: postgres?, http: http?, admin: admin? })
    }
}

/// Writes a file that holds secrets.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}
