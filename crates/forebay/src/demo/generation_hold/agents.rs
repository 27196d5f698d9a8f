//! The agents: programs on SQLAlchemy and Django, unchanged, from PyPI, in an interpreter that
//! has them; which, unless `--python` names one, is a virtual environment of the demo's own.
//!
//! Always true: whatever ends this process, the programs end too, and what was installed is
//! removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use forebay_seam::time;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// How long installing may take.
const INSTALLING: Duration = Duration::from_secs(300);
/// How long a program may take to begin, and to end beyond its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// The programs and what they share; the first three are run.
const FILES: [(&str, &str); 5] = [
    ("orm.py", include_str!("orm.py")),
    ("orm_async.py", include_str!("orm_async.py")),
    ("views.py", include_str!("views.py")),
    ("crew.py", include_str!("crew.py")),
    ("tables.py", include_str!("tables.py")),
];
const REQUIREMENTS: &str = include_str!("requirements.txt");
/// Programs among [`FILES`].
pub(super) const PROGRAMS: usize = 3;
/// Agents run on other machines than what is measured; here, after everything else.
const NICE: &str = "19";

/// An interpreter, and the programs in a folder.
pub(super) struct Python {
    interpreter: PathBuf,
    folder: TempDir,
}

/// What one run's agents are told.
pub(super) struct Told<'a> {
    /// Their database.
    pub(super) database: &'a Config,
    /// Their application_name.
    pub(super) application: &'a str,
    /// The model, through Forebay.
    pub(super) model: &'a str,
    /// What they show there.
    pub(super) key: &'a str,
    /// How many there are, all programs together.
    pub(super) agents: usize,
    /// Within which time they begin.
    pub(super) ramp: Duration,
    /// How long they are measured after that.
    pub(super) measured: Duration,
    /// Whether the pooler follows prepared statements.
    pub(super) prepared: Prepared,
}

/// Prepared statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepared {
    /// As the driver has them by default.
    Default,
    /// None: this pooler would lose them.
    Never,
}

/// All programs of one run, begun and waiting for the word.
pub(super) struct Crew {
    programs: Vec<Program>,
    length: Duration,
}

struct Program {
    name: &'static str,
    /// Where its stderr goes.
    complaints: PathBuf,
    /// Ended when dropped.
    _child: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

/// What became of the tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    /// Ended well in the measured time.
    pub(crate) done: u64,
    /// Failed at any time.
    pub(crate) failed: u64,
    /// What the first kinds of failures said.
    pub(crate) samples: Vec<String>,
}

#[derive(Deserialize)]
struct Said {
    done: u64,
    failed: u64,
    samples: Vec<String>,
}

/// Why the agents cannot work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentsError {
    /// A file or a process could not be made.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// Nothing was installed.
    #[error(
        "cannot install the agents' packages ({reason}): the demo needs python3 with venv, and \
         PyPI; or name an interpreter that has SQLAlchemy, Django, psycopg and httpx with --python"
    )]
    Install {
        /// What the installer said at its end.
        reason: String,
    },
    /// A program did not say what it should.
    #[error("the agents' program {name} ended early; it said:\n{said}")]
    Program {
        /// Which.
        name: &'static str,
        /// The end of its stderr.
        said: String,
    },
}

impl Python {
    /// The interpreter `named`, or one of our own with everything installed.
    pub(super) async fn ready(named: Option<&Path>) -> Result<Self, AgentsError> {
        let folder = tempfile::Builder::new().prefix("forebay-agents-").tempdir();
        let folder = folder.map_err(system("make a temporary folder"))?;
        for (name, text) in FILES {
            fs::write(folder.path().join(name), text).map_err(system("write the programs"))?;
        }
        let interpreter = match named {
            Some(named) => named.to_owned(),
            None => install(folder.path()).await?,
        };
        Ok(Self { interpreter, folder })
    }

    /// Begins all programs, which then wait.
    pub(super) async fn crew(&self, told: &Told<'_>) -> Result<Crew, AgentsError> {
        let mut programs = Vec::new();
        for (place, (name, _)) in FILES.into_iter().take(PROGRAMS).enumerate() {
            let agents = told.agents / PROGRAMS + usize::from(place < told.agents % PROGRAMS);
            programs.push(self.program(name, agents, told)?);
        }
        for program in &mut programs {
            let mut line = String::new();
            let ready = time::timeout(PATIENCE, program.says.read_line(&mut line)).await;
            if !matches!(ready, Ok(Ok(_))) || line.trim() != "ready" {
                return Err(program.failed());
            }
        }
        Ok(Crew { programs, length: told.ramp + told.measured })
    }

    fn program(
        &self,
        name: &'static str,
        agents: usize,
        told: &Told<'_>,
    ) -> Result<Program, AgentsError> {
        let config = told.database;
        let host = config.get_hosts().iter().find_map(|host| match host {
            Host::Tcp(name) => Some(name.as_str()),
            #[cfg(unix)]
            Host::Unix(_) => None,
        });
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let password = String::from_utf8_lossy(config.get_password().unwrap_or(b"")).into_owned();
        let complaints = self.folder.path().join(name).with_extension("err");
        let stderr = fs::File::create(&complaints).map_err(system("write the programs' log"))?;
        let mut child = Command::new("nice")
            .args(["-n", NICE])
            .arg(&self.interpreter)
            .arg(self.folder.path().join(name))
            .env("PGHOST", host.unwrap_or("127.0.0.1"))
            .env("PGPORT", port.to_string())
            .env("PGUSER", config.get_user().unwrap_or_default())
            .env("PGPASSWORD", password)
            .env("PGDATABASE", config.get_dbname().unwrap_or_default())
            .env("PGAPPNAME", told.application)
            .env("MODEL_URL", told.model)
            .env("MODEL_KEY", told.key)
            .env("AGENTS", agents.to_string())
            .env("RAMP_SECONDS", told.ramp.as_secs_f64().to_string())
            .env("MEASURED_SECONDS", told.measured.as_secs_f64().to_string())
            .env("PREPARED", if told.prepared == Prepared::Default { "default" } else { "never" })
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(system("run the agents' programs"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(system("speak with the agents' programs")(
                io::ErrorKind::BrokenPipe.into(),
            ));
        };
        let says = BufReader::new(stdout);
        Ok(Program { name, complaints, _child: child, told: stdin, says })
    }
}

impl Crew {
    /// Gives the word, and what came of it.
    pub(super) async fn work(mut self) -> Result<Tasks, AgentsError> {
        for program in &mut self.programs {
            // One that has ended is noticed below.
            program.told.write_all(b"go\n").await.ok();
        }
        let mut tasks = Tasks::default();
        for program in &mut self.programs {
            let mut line = String::new();
            let end = time::timeout(self.length + PATIENCE, program.says.read_line(&mut line));
            let said: Option<Said> = match end.await {
                Ok(Ok(_)) => serde_json::from_str(&line).ok(),
                Ok(Err(_)) | Err(_) => None,
            };
            let Some(said) = said else { return Err(program.failed()) };
            tasks.done += said.done;
            tasks.failed += said.failed;
            tasks.samples.extend(said.samples);
        }
        Ok(tasks)
    }
}

impl Program {
    /// What it said last.
    fn failed(&self) -> AgentsError {
        let said = fs::read_to_string(&self.complaints).unwrap_or_default();
        AgentsError::Program { name: self.name, said: last(&said, 15) }
    }
}

/// A virtual environment in `folder` with what the programs need; its interpreter.
async fn install(folder: &Path) -> Result<PathBuf, AgentsError> {
    let place = folder.join("venv");
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).map_err(system("write the programs"))?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(&place);
    done(venv).await?;
    let interpreter = place.join("bin").join("python");
    let mut pip = Command::new(&interpreter);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    pip.arg(&requirements);
    done(pip).await?;
    Ok(interpreter)
}

/// Runs `command` to its good end.
async fn done(mut command: Command) -> Result<(), AgentsError> {
    command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    let refused = |reason| AgentsError::Install { reason };
    match time::timeout(INSTALLING, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(refused(last(&String::from_utf8_lossy(&output.stderr), 3))),
        Ok(Err(error)) => Err(refused(error.to_string())),
        Err(_) => Err(refused(format!("not done after {}s", INSTALLING.as_secs()))),
    }
}

fn last(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

fn system(what: &'static str) -> impl Fn(io::Error) -> AgentsError {
    move |source| AgentsError::System { what, source }
}
