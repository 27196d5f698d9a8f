//! Another configuration while the program runs, without dropping anybody.
//!
//! The source is read and checked whole, the gateways prepare what can fail, and only then is
//! anything changed. Asked for by a signal, by hand or because a file changed, it is all the
//! same here. Always true: one reload at a time; whoever asks while one is under way gets the
//! next one, together with all others who asked meanwhile; a reload that fails changes nothing.

use std::sync::Arc;
use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use serde::Serialize;
use tokio::sync::Mutex as Turnstile;

use crate::config::{Config, ConfigError, Loaded};
use crate::events::Events;
use crate::logging::Level;

mod record;
mod restart;
mod watch;

pub use record::{ConfigurationSnapshot, Record};
pub use watch::watch;

/// Reads the configuration anew.
pub type Source = Arc<dyn Fn() -> Result<Loaded, ConfigError> + Send + Sync>;

/// What a reload came to.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Paths of the keys whose values changed.
    pub changed: Vec<String>,
    /// Those that count after a restart only, also of reloads before.
    pub needs_restart: Vec<String>,
    /// What the PostgreSQL gateway did.
    pub postgres: Option<forebay_postgres::Changes>,
    /// What the HTTP gateway did.
    pub http: Option<forebay_http::Changes>,
}

/// Why nothing has changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(Arc<ConfigError>),
    /// A gateway cannot carry its settings out.
    #[error("{at}: {reason}")]
    Settings {
        /// Path of the key.
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// The program ends.
    #[error("the program is stopping")]
    Stopping,
}

impl From<forebay_http::SettingsError> for ReloadError {
    fn from(error: forebay_http::SettingsError) -> Self {
        Self::Settings { at: error.at, reason: error.reason }
    }
}

impl From<forebay_postgres::SettingsError> for ReloadError {
    fn from(error: forebay_postgres::SettingsError) -> Self {
        Self::Settings { at: error.at, reason: error.reason }
    }
}

/// Who asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// SIGHUP.
    Signal,
    /// Somebody, on the admin port or the console.
    Hand,
    /// A file that the configuration was read from is another one.
    File,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::Hand => "by hand",
            Self::File => "a file changed",
        }
    }
}

/// What a reload changes.
pub struct Rooms {
    /// The PostgreSQL gateway, where one is configured.
    pub postgres: Option<forebay_postgres::Gateway>,
    /// The HTTP gateway, where one is configured.
    pub http: Option<forebay_http::Gateway>,
    /// What happens in their pools.
    pub events: Events,
    /// How much is logged.
    pub level: Level,
}

/// Reloads the configuration. Cheap to clone.
#[derive(Clone)]
pub struct Reloader {
    inside: Arc<Inside>,
}

struct Inside {
    source: Source,
    spawner: Spawner,
    rooms: Rooms,
    started_with: Loaded,
    in_force: Mutex<Arc<Loaded>>,
    /// Held while something is changed.
    alone: Mutex<()>,
    /// Reloads asked for since start.
    asked: Mutex<u64>,
    turnstile: Turnstile<Last>,
    record: Arc<Record>,
}

/// The last reload.
#[derive(Default)]
struct Last {
    /// It is the answer to those who had asked for so many.
    answers: u64,
    outcome: Option<Result<Outcome, ReloadError>>,
}

impl Reloader {
    /// Reloads from `source` what was started with `loaded`. Inside the runtime that serves.
    pub fn new(source: Source, loaded: Loaded, rooms: Rooms, record: Arc<Record>) -> Self {
        record.starts_with(loaded.hash());
        let inside = Inside {
            source,
            spawner: Spawner::current(),
            rooms,
            in_force: Mutex::new(Arc::new(loaded.clone())),
            started_with: loaded,
            alone: Mutex::default(),
            asked: Mutex::default(),
            turnstile: Turnstile::default(),
            record,
        };
        Self { inside: Arc::new(inside) }
    }

    /// The configuration in force.
    pub fn in_force(&self) -> Arc<Loaded> {
        Arc::clone(&self.inside.in_force.lock())
    }

    fn spawner(&self) -> &Spawner {
        &self.inside.spawner
    }

    /// How long running work may take to finish when the program is told to stop.
    pub fn stop_timeout(&self) -> Duration {
        self.in_force().config.stop_timeout
    }

    /// Reads the configuration and carries it out; when this returns, it is in force. From any
    /// runtime. What came of it is in the log, too.
    ///
    /// # Errors
    /// All that is wrong with it; nothing has changed then.
    ///
    /// # Cancel safety
    /// A reload that has begun goes on.
    pub async fn reload(&self, cause: Cause) -> Result<Outcome, ReloadError> {
        let inside = &self.inside;
        let mine = {
            let mut asked = inside.asked.lock();
            *asked += 1;
            *asked
        };
        let mut last = inside.turnstile.lock().await;
        if last.answers >= mine
            && let Some(outcome) = &last.outcome
        {
            return outcome.clone();
        }
        let answers = *inside.asked.lock();
        let working = Arc::clone(inside);
        let carried_out = inside.spawner.block(move || working.carry_out(cause)).await;
        let outcome = carried_out.unwrap_or(Err(ReloadError::Stopping));
        *last = Last { answers, outcome: Some(outcome.clone()) };
        outcome
    }
}

impl Inside {
    fn carry_out(&self, cause: Cause) -> Result<Outcome, ReloadError> {
        // Also the thread of a reload that nobody waits for any more.
        let _alone = self.alone.lock();
        let before = Arc::clone(&self.in_force.lock());
        let done = self.replace(&before);
        match &done {
            Ok((loaded, outcome)) => {
                *self.in_force.lock() = Arc::clone(loaded);
                self.record.succeeded(loaded.hash(), &outcome.needs_restart);
                tell(cause, outcome);
            }
            Err(error) => {
                self.record.failed(error);
                tracing::error!(
                    cause = cause.name(),
                    "the configuration was not reloaded, and all is as before:\n{error}"
                );
            }
        }
        done.map(|(_, outcome)| outcome)
    }

    fn replace(&self, before: &Loaded) -> Result<(Arc<Loaded>, Outcome), ReloadError> {
        let loaded = (self.source)().map_err(|error| ReloadError::Config(Arc::new(error)))?;
        let (rooms, config) = (&self.rooms, &loaded.config);
        // All that can fail comes before anything changes.
        let revision = match (&rooms.http, &config.http) {
            (Some(gateway), Some(settings)) => Some(gateway.revise(settings.clone())?),
            (Some(_) | None, _) => None,
        };
        let mut changes = None;
        if let (Some(gateway), Some(settings)) = (&rooms.postgres, &config.postgres) {
            let changed = gateway.apply(settings.clone(), default_tenant(config))?;
            for pool in changed.opened.iter().filter_map(|server| gateway.events_of(server)) {
                rooms.events.follow("postgres", pool);
            }
            changes = Some(changed);
        }
        let called = revision.map(forebay_http::Revision::carry_out).transpose()?;
        if let (Some(gateway), Some(called)) = (&rooms.http, &called) {
            let new = called.opened.iter().chain(&called.reconnected);
            for pool in new.filter_map(|destination| gateway.events_of(destination)) {
                rooms.events.follow("http", pool);
            }
        }
        // That it is a level was checked.
        drop(rooms.level.follow(&config.log));
        loaded.tell();
        let mut needs_restart = restart::needed(&self.started_with, &loaded);
        needs_restart.extend(changes.iter().flat_map(|changes| changes.needs_restart.clone()));
        needs_restart.sort_unstable();
        needs_restart.dedup();
        let changed = loaded.changed_since(before);
        let outcome = Outcome { changed, needs_restart, postgres: changes, http: called };
        Ok((Arc::new(loaded), outcome))
    }
}

fn tell(cause: Cause, outcome: &Outcome) {
    let cause = cause.name();
    let changed = outcome.changed.join(", ");
    let done = outcome.postgres.clone().unwrap_or_default();
    let called = outcome.http.clone().unwrap_or_default();
    tracing::info!(
        cause,
        changed,
        servers_opened = done.opened.join(", "),
        servers_reconnected = done.reconnected.join(", "),
        servers_closed = done.closed.join(", "),
        databases_gone = done.databases_gone.join(", "),
        users_gone = done.users_gone.join(", "),
        destinations_opened = called.opened.join(", "),
        destinations_reconnected = called.reconnected.join(", "),
        destinations_closed = called.closed.join(", "),
        "the configuration was reloaded"
    );
    if !outcome.needs_restart.is_empty() {
        let keys = outcome.needs_restart.join(", ");
        tracing::warn!(keys, "settings changed that count after a restart only");
    }
}

/// Without tenants every call is of the tenant `default`, and so is every user's work.
pub(crate) fn default_tenant(config: &Config) -> Option<Arc<str>> {
    let tenants = config.http.as_ref().map_or(0, |http| http.tenants.len());
    (tenants == 0).then(|| Arc::from("default"))
}
