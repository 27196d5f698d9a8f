//! What the program gives the console: views of all that runs, the settings, reload and stop.
//!
//! Every view renders the picture that the metrics and the admin port render, so they cannot
//! disagree. Counts nothing itself.

mod recent;
pub mod reference;
mod rows;
mod views;

use std::sync::Arc;

use forebay_pool::Roster;
use forebay_pool::overlap::Overlaps;
use forebay_postgres::console::{Doing, KnownSetting, Office, Row, Shutdown, View};

use crate::events::Events;
use crate::pgbouncer::{self, Overrides, SetError};
use crate::reload::{Cause, Reloader};
use crate::run::{Ender, Ending};
use crate::suspects::Suspects;
use crate::view::{VERSION, Viewer};

pub use recent::Recent;
pub use views::VIEWS;

/// The program, as the console sees it.
pub struct Program {
    /// Takes its picture.
    pub viewer: Viewer,
    /// Transactions that idle.
    pub overlaps: Arc<Overlaps>,
    /// Clients that may hold a connection for a call.
    pub suspects: Arc<Suspects>,
    /// Requests under way.
    pub roster: Arc<Roster>,
    /// What happened last.
    pub recent: Recent,
    /// Reloads the configuration.
    pub reloader: Reloader,
    /// The gateways, for what no picture has.
    pub postgres: Option<forebay_postgres::Gateway>,
    /// As `postgres`.
    pub http: Option<forebay_http::Gateway>,
    /// Ends the program.
    pub ender: Ender,
    /// What `SET` changes, where it changes something.
    pub overrides: Option<Overrides>,
}

impl Program {
    /// Keeps what happens in `events` from now on, for SHOW EVENTS. Inside a runtime.
    pub fn remember(events: &Events) -> Recent {
        Recent::of(events)
    }
}

impl Office for Program {
    fn version(&self) -> &'static str {
        VERSION
    }

    fn views(&self) -> &'static [View] {
        VIEWS
    }

    fn rows(&self, view: &View, argument: Option<&str>) -> Result<Vec<Row>, String> {
        rows::of(self, view.name, argument)
    }

    fn settings(&self) -> Vec<Row> {
        rows::settings(&self.reloader.in_force())
    }

    fn pgbouncer_settings(&self) -> Vec<KnownSetting> {
        match &self.overrides {
            Some(overrides) => overrides.settings(),
            None => pgbouncer::reference::settings().collect(),
        }
    }

    fn set(&self, key: &str, value: &str) -> Doing<'_> {
        let changed = match &self.overrides {
            Some(overrides) => overrides.set(key, value).map(|before| (overrides, before)),
            None => Err(SetError::Refused("settings change in the file, and by RELOAD".into())),
        };
        Box::pin(async {
            let (overrides, before) = changed.map_err(|error| error.to_string())?;
            if let Err(error) = self.reloader.reload(Cause::Hand).await {
                overrides.take_back(before);
                return Err(SetError::Refused(error.to_string()).to_string());
            }
            Ok(())
        })
    }

    fn reload(&self) -> Doing<'_> {
        Box::pin(async {
            let reloaded = self.reloader.reload(Cause::Hand).await;
            reloaded.map(drop).map_err(|error| error.to_string())
        })
    }

    fn shut_down(&self, how: Shutdown) {
        self.ender.end(match how {
            Shutdown::Now => Ending::Now,
            Shutdown::WaitForServers => Ending::ServersReleased,
            Shutdown::WaitForClients => Ending::ClientsLeft,
        });
    }
}
