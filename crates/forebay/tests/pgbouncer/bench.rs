//! A PostgreSQL that all tests share, and programs in front of it, each with a folder of its
//! own in which `@DIR@`, `@PORT@`, `@PORTHEX@` and `@SERVER@` of the files are filled in.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use forebay::demo::cluster::{Cluster, ClusterSettings};
use forebay::demo::postgres_binaries;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A program that takes longer for anything has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let settings = ClusterSettings {
            hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
            ..ClusterSettings::default()
        };
        let cluster = Cluster::start(&postgres_binaries::find().unwrap(), settings).unwrap();
        let made = psql(
            &format!("host=127.0.0.1 port={} user=forebay dbname=postgres", cluster.port()),
            "
            CREATE ROLE someuser LOGIN PASSWORD 'same_password_as_in_server';
            CREATE ROLE looker LOGIN SUPERUSER PASSWORD 'looks';
            CREATE ROLE queried LOGIN PASSWORD 'asked';
            ALTER ROLE forebay PASSWORD 'a password';
        ",
        );
        assert!(made.status.success(), "{made:?}");
        cluster
    })
}

/// What psql says to `statements`; its own settings and files are left out.
pub(crate) fn psql(to: &str, statements: &str) -> Output {
    let folder = postgres_binaries::find().unwrap().folder().to_owned();
    let beside = folder.join("psql");
    let mut command = Command::new(if beside.is_file() { beside } else { "psql".into() });
    command
        .env("PGCONNECT_TIMEOUT", "20")
        .env_remove("PGPASSWORD")
        .env("PGPASSFILE", "/nonexistent");
    for statement in statements.split(';').map(str::trim).filter(|text| !text.is_empty()) {
        command.arg("-c").arg(statement);
    }
    command.args(["-XAtqw", "-v", "ON_ERROR_STOP=1"]).arg(to).output().unwrap()
}

/// A folder with the files of this directory, filled in.
pub(crate) struct Folder {
    folder: TempDir,
    pub(crate) port: u16,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let this = Self { folder, port };
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pgbouncer");
        for file in fs::read_dir(files).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_none_or(|extension| extension != "rs") {
                this.write(
                    file.file_name().unwrap().to_str().unwrap(),
                    &fs::read_to_string(&file).unwrap(),
                );
            }
        }
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let text = text
            .replace("@DIR@", self.folder.path().to_str().unwrap())
            .replace("@PORTHEX@", &format!("{:x}", self.port))
            .replace("@PORT@", &self.port.to_string())
            .replace("@SERVER@", &cluster().port().to_string());
        fs::write(self.path(name), text).unwrap();
    }

    /// What `forebay` says to `arguments`.
    pub(crate) fn forebay(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_remove("FOREBAY_LOG").env_remove("FOREBAY_CONFIG");
        command
    }

    /// Runs `forebay` with `arguments` until it listens.
    pub(crate) fn run(&self, arguments: &[&str]) -> Running {
        let log = fs::File::create(self.path("stderr")).unwrap();
        let mut child = self.command(arguments).stderr(log).spawn().unwrap();
        until(|| {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{arguments:?} ended: {}", self.said());
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
        Running { child, log: self.path("stderr") }
    }

    /// Starts `forebay` with `arguments` beside one that runs, and lets it log into `log`.
    pub(crate) fn beside(&self, log: &str, arguments: &[&str]) -> Running {
        self.start(log, &mut self.command(arguments))
    }

    /// Starts `command` and lets it log into `log`.
    pub(crate) fn start(&self, log: &str, command: &mut Command) -> Running {
        let log = self.path(log);
        let stderr = fs::File::create(&log).unwrap();
        Running { child: command.stderr(stderr).spawn().unwrap(), log }
    }

    /// What the program has written to stderr.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// How to connect to the program as `user`.
    pub(crate) fn to(&self, database: &str, user: &str) -> String {
        format!("host=127.0.0.1 port={} dbname='{database}' user={user}", self.port)
    }
}

/// A program that runs; killed when dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end: the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        until(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Waits until it has logged `text`.
    pub(crate) fn logged(&self, text: &str) {
        until(|| fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text)));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("forebay could not be killed: {error}");
        }
        let mut log = String::new();
        if std::thread::panicking()
            && let Ok(mut file) = fs::File::open(&self.log)
            && file.read_to_string(&mut log).is_ok()
        {
            eprintln!("{log}");
        }
    }
}

/// Waits until `done` says so.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let looks = PATIENCE.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        if done() {
            return;
        }
        std::thread::sleep(LOOK);
    }
    panic!("it did not happen within {PATIENCE:?}");
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
