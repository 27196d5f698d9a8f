//! The configuration: one TOML file, read once, checked whole, then handed to the rooms.
//!
//! The settings themselves live beside what they set (`forebay_postgres::settings`,
//! `forebay_http::settings`, here those of the program). Knows how to say what is wrong and
//! where ([`Report`]); opens nothing and keeps nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use forebay_http::HttpSettings;
use forebay_postgres::PostgresSettings;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::pgbouncer::LoadError;

mod document;
mod holds;
mod loaded;
mod log;
mod problem;
pub mod reference;
mod rules;
mod shown;
pub mod summary;
pub(crate) mod wording;

pub use holds::{HoldSettings, ProgramSettings};
pub use loaded::Loaded;
pub use log::{LogFormat, LogSettings, SyslogFacility, SyslogSettings};
pub use problem::{Problem, Report};

use document::Document;
use loaded::Keys;

/// Everything that an operator sets.
///
/// The smallest that is of use is a server and a user:
///
/// ```toml
/// [postgres.servers.main]
/// address = "db.internal:5432"
/// [postgres.users]
/// app = { password = "env:APP_PASSWORD" }
/// ```
///
/// `${NAME}` in any text stands for an environment variable (`$${` for the two characters
/// themselves).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long running work may take to finish after SIGTERM or SIGINT, before it is cut
    /// off; a second signal cuts it off at once. Default 25s: Kubernetes kills at 30.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub stop_timeout: Duration,
    /// Threads that move bytes. Default: one for two cores. The kernel does most of the work
    /// in the same threads; with more of them, each finds less to do when it wakes, and
    /// wakes others more often.
    pub worker_threads: Option<usize>,
    /// The PostgreSQL gateway. Default: none.
    pub postgres: Option<PostgresSettings>,
    /// The HTTP egress gateway. Default: none.
    pub http: Option<HttpSettings>,
    /// Transactions that idle while their request calls out.
    pub holds: HoldSettings,
    /// What operators and their tools look at.
    pub admin: AdminSettings,
    /// What the program logs, and where.
    pub log: LogSettings,
    /// When the configuration is read again.
    pub reload: ReloadSettings,
    /// How one process takes over from another.
    pub restart: RestartSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stop_timeout: Duration::from_secs(25),
            worker_threads: None,
            postgres: None,
            http: None,
            holds: HoldSettings::default(),
            admin: AdminSettings::default(),
            log: LogSettings::default(),
            reload: ReloadSettings::default(),
            restart: RestartSettings::default(),
        }
    }
}

/// `[reload]`: when the configuration is read again, besides SIGHUP and by hand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadSettings {
    /// How often to look whether this file is another one, or one that it names (certificates,
    /// secrets, lists of users); a change counts when it is seen twice. `0s`: never. Default 5s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub watch: Duration,
}

impl Default for ReloadSettings {
    fn default() -> Self {
        Self { watch: Duration::from_secs(5) }
    }
}

/// `[restart]`: how the next process takes over from this one without refusing a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RestartSettings {
    /// A Unix socket where a process that is started with the same configuration asks for the
    /// listening sockets of the one that runs. Default: none.
    pub socket: Option<PathBuf>,
}

/// `[admin]`: metrics, health and state, by HTTP.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Where `/metrics`, `/healthz`, `/readyz` and `/api/v1/…` are; `/` lists them. It asks
    /// nobody who they are, also not those who change a budget. Default 127.0.0.1:6490.
    pub listen: SocketAddr,
    /// Names under which it may be called, without the port, such as `forebay.internal`. IP
    /// addresses and `localhost` always may; other names are refused, since a web page could
    /// point its own name here (DNS rebinding). Default: none.
    pub hosts: Vec<String>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 6490)), hosts: Vec::new() }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It can, but cannot be carried out.
    #[error("{0}")]
    Invalid(Report),
    /// It is PgBouncer's, and cannot be used.
    #[error(transparent)]
    PgBouncer(#[from] LoadError),
}

impl Config {
    /// Reads and checks `file`.
    ///
    /// # Errors
    /// All that is wrong with it, not only the first.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::read(file).map(|loaded| loaded.config)
    }

    /// Reads and checks `file`, so that it can be compared with another one.
    ///
    /// # Errors
    /// All that is wrong with it, not only the first.
    pub fn read(file: &Path) -> Result<Loaded, ConfigError> {
        let text = fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        let environment = |name: &str| std::env::var(name).ok();
        Self::parse_whole(file, &text, &environment).map_err(ConfigError::Invalid)
    }

    /// Checks `text`, which stands in `file`, with the variables of `environment`.
    ///
    /// # Errors
    /// All that is wrong with it, not only the first.
    pub fn parse(
        file: &Path,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Report> {
        Self::parse_whole(file, text, environment).map(|loaded| loaded.config)
    }

    /// As [`Config::parse`], so that it can be compared with another one.
    ///
    /// # Errors
    /// All that is wrong with it, not only the first.
    pub(crate) fn parse_whole(
        file: &Path,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Loaded, Report> {
        let mut document = Document::parse(text)
            .map_err(|(problems, hidden)| Report::new(file, text, problems, &hidden))?;
        let (replaced, mut problems) = document.replacements(environment);
        if !problems.is_empty() {
            return Err(Report::new(file, text, problems, document.hidden()));
        }
        document.fill_in(&replaced);
        let (config, found) = document.read::<Self>();
        problems.extend(found);
        if let Some(config) = config {
            let broken = rules::check(&config).into_iter().map(|problem| {
                let place = document.place(&problem.at);
                problem.spanning(place)
            });
            problems.extend(broken);
            if problems.is_empty() {
                let shown = problem::hide(text, document.hidden());
                let keys = Keys::of(&mut document, &shown);
                let mut files = vec![file.to_owned()];
                files.extend(keys.files.iter().cloned());
                return Ok(Loaded::new(config, files).with_keys(keys));
            }
        }
        Err(Report::new(file, text, problems, document.hidden()))
    }
}

#[cfg(test)]
mod tests;
