//! A private PostgreSQL: its own folder, its own port on loopback, gone when dropped.
//!
//! PostgreSQL refuses to run as root, so root starts it as `postgres` or `nobody`. Nothing
//! is synced to disk: what is in here is worth nothing after the run. Everything blocks;
//! start it outside of async code or where a second does not matter. Always true: whoever
//! has a [`Cluster`] has a server that answered, unless it was stopped since; when this
//! process is killed, its keeper ends the server and removes the folder.

mod replica;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use tempfile::TempDir;

use super::keeper::Keeper;
use super::postgres_binaries::Binaries;

/// How often a starting or stopping server is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// A port that was free may be taken before the server has it.
const PORTS_TRIED: u32 = 5;
/// A unix socket's path has room for about this many bytes (`sun_path`), less its own name.
const SOCKET_FOLDER_MAX: usize = 80;

/// The superuser.
const USER: &str = "forebay";

/// What a cluster should be like.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Connections it takes. Default 100.
    pub max_connections: u32,
    /// Further settings of `postgresql.conf`, such as `("ssl", "on")`.
    pub settings: Vec<(String, String)>,
    /// Lines put in front of `pg_hba.conf`. Without any, everybody logs in by SCRAM.
    pub hba: Vec<String>,
    /// Files put into the data folder (name, content), such as `server.key`; only the
    /// server may read them.
    pub files: Vec<(String, String)>,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { max_connections: 100, settings: Vec::new(), hba: Vec::new(), files: Vec::new() }
    }
}

/// A private PostgreSQL server.
pub struct Cluster {
    server: Option<Running>,
    folder: TempDir,
    binaries: Binaries,
    owner: Option<Owner>,
    settings: ClusterSettings,
    port: u16,
    password: String,
}

struct Running {
    child: Child,
    /// Dropped after the child was ended.
    _keeper: Keeper,
}

/// The user that the server runs as, where it is not ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// PostgreSQL refuses root, and there is nobody else.
    #[error(
        "PostgreSQL does not run as root, and this machine has neither a user `postgres` nor \
         `nobody`: run as another user, or name a server with --dsn"
    )]
    NobodyToRunAs,
    /// A file or a process of ours could not be made.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("{program} failed ({status}):\n{output}")]
    Initdb {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// The server ended at start, or did not answer in time.
    #[error("PostgreSQL did not start ({reason}); its log says:\n{log}")]
    Start {
        /// What was seen.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// The server did not stop in time.
    #[error("PostgreSQL did not stop within {}s", PATIENCE.as_secs())]
    Stop,
}

impl Cluster {
    /// Makes a cluster with the programs in `binaries`, and starts it. Blocks for a second
    /// or two.
    ///
    /// # Errors
    /// What went wrong, with the words of the program that failed. Nothing is left behind.
    pub fn start(binaries: &Binaries, settings: ClusterSettings) -> Result<Self, ClusterError> {
        let owner = owner()?;
        let mut cluster = Self {
            server: None,
            folder: folder(owner)?,
            binaries: binaries.clone(),
            owner,
            settings,
            port: 0,
            password: password(),
        };
        cluster.initdb()?;
        cluster.configure()?;
        let mut tries = 1;
        loop {
            cluster.port = free_port().map_err(system("find a free port"))?;
            match cluster.launch() {
                Err(ClusterError::Start { log, .. })
                    if tries < PORTS_TRIED && log.contains("Address already in use") =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(cluster),
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser.
    pub fn user(&self) -> &str {
        USER
    }

    /// The superuser's password: random, worth nothing outside this machine.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The database that is there from the start.
    pub fn database(&self) -> &str {
        "postgres"
    }

    /// How a client connects as the superuser.
    pub fn dsn(&self) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// The folder of everything that belongs to it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the server wrote into its log.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The process id of the server, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.child.id())
    }

    /// Stops the server; clients are sent away with 57P01. Its data stays.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub fn stop(&mut self) -> Result<(), ClusterError> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        if end(&mut server.child, Signal::SIGINT) {
            return Ok(());
        }
        self.server = Some(server);
        Err(ClusterError::Stop)
    }

    /// Starts the server again, after stopping it where it runs: same port, same data.
    ///
    /// # Errors
    /// When it does not stop, or does not start.
    pub fn restart(&mut self) -> Result<(), ClusterError> {
        self.stop()?;
        self.launch()
    }

    fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// One of PostgreSQL's programs, as the right user, in its own process group: Ctrl-C is
    /// for us, and we end our children in order.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.program(name));
        command.current_dir(self.folder()).stdin(Stdio::null()).process_group(0);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PG") {
                command.env_remove(variable);
            }
        }
        if let Some(Owner { uid, gid }) = self.owner {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn initdb(&self) -> Result<(), ClusterError> {
        self.put(&self.folder().join("password"), &self.password)?;
        let mut command = self.program("initdb");
        command.arg("-D").arg(self.data()).args(["-U", USER, "--pwfile=password", "--no-sync"]);
        command.args(["--auth=scram-sha-256", "-E", "UTF8", "--locale=C"]);
        let output = command.output().map_err(system("run initdb"))?;
        if output.status.success() {
            return fs::remove_file(self.folder().join("password"))
                .map_err(system("remove initdb's password file"));
        }
        let said = [output.stdout, output.stderr].concat();
        Err(ClusterError::Initdb {
            program: self.binaries.program("initdb"),
            status: output.status,
            output: String::from_utf8_lossy(&said).into_owned(),
        })
    }

    fn configure(&self) -> Result<(), ClusterError> {
        let mut text = String::from("\n");
        let fixed = [
            ("listen_addresses", "127.0.0.1"),
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
            ("password_encryption", "scram-sha-256"),
        ];
        let sockets = self.folder().to_string_lossy();
        let sockets = if sockets.len() > SOCKET_FOLDER_MAX { "" } else { &sockets };
        let given = self.settings.settings.iter().map(|(name, value)| (&**name, &**value));
        let pairs = fixed.into_iter().chain([("unix_socket_directories", sockets)]).chain(given);
        for (name, value) in pairs {
            writeln!(text, "{name} = '{}'", value.replace('\'', "''")).ok();
        }
        writeln!(text, "max_connections = {}", self.settings.max_connections).ok();
        let append = |file: &str| OpenOptions::new().append(true).open(self.data().join(file));
        append("postgresql.conf")
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(system("write postgresql.conf"))?;
        if !self.settings.hba.is_empty() {
            let hba = self.data().join("pg_hba.conf");
            let rest = fs::read_to_string(&hba).map_err(system("read pg_hba.conf"))?;
            self.put(&hba, &format!("{}\n{rest}", self.settings.hba.join("\n")))?;
        }
        for (name, content) in &self.settings.files {
            self.put(&self.data().join(name), content)?;
        }
        Ok(())
    }

    /// A file that only the server may read.
    fn put(&self, path: &Path, content: &str) -> Result<(), ClusterError> {
        let write = || {
            fs::write(path, content)?;
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            give(path, self.owner)
        };
        write().map_err(system(&format!("write {}", path.display())))
    }

    fn launch(&mut self) -> Result<(), ClusterError> {
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.map_err(system("open PostgreSQL's log"))?;
        let errors = log.try_clone().map_err(system("open PostgreSQL's log"))?;
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let child = command.stdout(log).stderr(errors).spawn().map_err(system("run postgres"))?;
        let mut child = Unkept(Some(child));
        let id = child.0.as_ref().map_or(0, Child::id);
        let keeper = Keeper::of(id, "QUIT", self.folder()).map_err(system("run /bin/sh"))?;
        let ready = self.await_ready(&mut child);
        let Some(child) = child.0.take() else { return ready };
        let running = Running { child, _keeper: keeper };
        match ready {
            Ok(()) => self.server = Some(running),
            Err(_) => drop(running),
        }
        ready
    }

    /// As pg_ctl does it: the eighth line of postmaster.pid says `ready`, and the first that it
    /// is this process's, and not what a killed one has left.
    fn await_ready(&self, child: &mut Unkept) -> Result<(), ClusterError> {
        let failed = |reason: String| ClusterError::Start { reason, log: tail(&self.log(), 20) };
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            if let Some(child) = &mut child.0
                && let Some(status) = child.try_wait().map_err(system("wait for postgres"))?
            {
                return Err(failed(status.to_string()));
            }
            let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let (id, mut lines) = (child.0.as_ref().map(Child::id), state.lines());
            let is_its_own =
                id.is_some() && lines.next().and_then(|id| id.trim().parse().ok()) == id;
            if is_its_own && lines.nth(6).is_some_and(|line| line.trim() == "ready") {
                return Ok(());
            }
            thread::sleep(LOOK);
            waited += LOOK;
        }
        Err(failed(format!("not ready after {}s", PATIENCE.as_secs())))
    }
}

/// A child that has no owner yet: ended when dropped.
struct Unkept(Option<Child>);

impl Drop for Unkept {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            end(&mut child, Signal::SIGQUIT);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child, Signal::SIGQUIT);
    }
}

/// Ends `child` by `signal`, by SIGKILL after its time. Was `signal` enough?
fn end(child: &mut Child, signal: Signal) -> bool {
    if let Ok(id) = i32::try_from(child.id())
        && matches!(child.try_wait(), Ok(None))
    {
        kill(Pid::from_raw(id), signal).ok();
    }
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        thread::sleep(LOOK);
        waited += LOOK;
    }
    if signal == Signal::SIGQUIT {
        drop(child.kill());
        drop(child.wait());
    }
    false
}

/// Whom root starts the server as.
pub(super) fn owner() -> Result<Option<Owner>, ClusterError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(|user| Some(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
        .ok_or(ClusterError::NobodyToRunAs)
}

pub(super) fn give(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    match owner {
        Some(Owner { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// A folder of the server's own, where its user can reach it.
pub(super) fn folder(owner: Option<Owner>) -> Result<TempDir, ClusterError> {
    let usual = std::env::temp_dir();
    let open = |folder: &Path| {
        fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o001 != 0)
    };
    let parent = match owner {
        Some(_) if !usual.ancestors().all(open) => PathBuf::from("/tmp"),
        _ => usual,
    };
    let folder = tempfile::Builder::new()
        .prefix("forebay-")
        .tempdir_in(parent)
        .map_err(system("make a temporary folder"))?;
    give(folder.path(), owner).map_err(system("give the temporary folder to PostgreSQL's user"))?;
    Ok(folder)
}

fn password() -> String {
    forebay_seam::random::bytes::<16>().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

pub(super) fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn system(what: &str) -> impl FnOnce(io::Error) -> ClusterError + use<> {
    let what = what.to_owned();
    move |source| ClusterError::System { what, source }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
