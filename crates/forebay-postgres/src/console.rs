//! The console: databases that are no databases, where operators and their tools look at the
//! gateway and tell it what to do. `pgbouncer` speaks as PgBouncer does, `forebay` of our own
//! settings.
//!
//! A `Visit` is one operator: who may do what (`access`), what was said (`command`), what
//! it does (`acts`), what there is to see (`views`, `columns`), and how that is written
//! (`answer`). What is known to the program only, an [`Office`] gives. Always true: nothing
//! here waits for a server, so the console answers while one is frozen; no view has a secret.

mod access;
mod acts;
mod answer;
mod columns;
mod command;
mod config;
mod extended;
mod table;
mod views;
mod visit;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use forebay_seam::time;

use crate::cancel::key::Form;
use crate::comings;
use crate::gateway::{Inner, Plan};
use crate::stream::Stream;

pub(crate) use access::{Rank, is_our_own};
pub use command::Shutdown;
pub use table::{Cell, Column, Kind, Reader, Row, View};
pub(crate) use visit::Visit;

/// The version of PgBouncer whose console this is.
pub const PGBOUNCER_VERSION: &str = "1.25.2";
/// Averages over less would be noise.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

/// Which of the console's names a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// `pgbouncer`: as PgBouncer answers.
    PgBouncer,
    /// `forebay`.
    Forebay,
}

impl Door {
    const ALL: [Self; 2] = [Self::PgBouncer, Self::Forebay];

    /// That of `database`, if it is one.
    pub(crate) fn of(database: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|door| door.name() == database)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PgBouncer => "pgbouncer",
            Self::Forebay => "forebay",
        }
    }
}

/// One who has proved who it is and may be here.
pub(crate) struct Visitor {
    pub(crate) client: Stream,
    pub(crate) inbox: BytesMut,
    pub(crate) user: Arc<str>,
    pub(crate) door: Door,
    pub(crate) rank: Rank,
    pub(crate) application: Arc<str>,
    /// Which keys for cancel requests it takes.
    pub(crate) keys: Form,
}

/// A setting of PgBouncer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSetting {
    /// Its name.
    pub name: &'static str,
    /// What it is, where the program knows; else what of ours does the same is shown.
    pub value: Option<String>,
    /// What holds where nobody sets it; `None`: nothing does.
    pub default: Option<&'static str>,
    /// Whether `RELOAD` changes it.
    pub changeable: bool,
}

/// What an [`Office`] is doing.
pub type Doing<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// What the program knows and does that no gateway does.
pub trait Office: Send + Sync {
    /// The version of the program.
    fn version(&self) -> &'static str;

    /// Views of the whole program, besides those of PgBouncer.
    fn views(&self) -> &'static [View];

    /// The rows of one of [`Office::views`].
    ///
    /// # Errors
    /// What is wrong with `argument`.
    fn rows(&self, view: &View, argument: Option<&str>) -> Result<Vec<Row>, String>;

    /// All settings that are no secrets: key, value, default, and whether it can be changed
    /// while the program runs.
    fn settings(&self) -> Vec<Row>;

    /// Every setting of PgBouncer, in the order of its SHOW CONFIG.
    fn pgbouncer_settings(&self) -> Vec<KnownSetting>;

    /// Changes one of PgBouncer's settings until the next reload.
    ///
    /// # Errors
    /// Why that cannot be; nothing was changed then.
    fn set(&self, key: &str, value: &str) -> Doing<'_>;

    /// Reads the configuration anew and carries it out.
    ///
    /// # Errors
    /// What is wrong with it; nothing was changed then.
    fn reload(&self) -> Doing<'_>;

    /// Begins the end of the program.
    fn shut_down(&self, how: Shutdown);
}

/// Takes the samples that averages are made of, as long as there is a gateway.
pub(crate) async fn sample(gateway: Weak<Inner>) {
    loop {
        let Some(period) = gateway.upgrade().map(|inner| period(&inner.plan())) else { return };
        time::sleep(period).await;
        let Some(inner) = gateway.upgrade() else { return };
        inner.census.tallies.sample();
        comings::period_over(&inner.census.tallies, period);
    }
}

fn period(plan: &Plan) -> Duration {
    plan.settings.stats_period.max(SHORTEST_PERIOD)
}

/// All views: PgBouncer's, then those of the office.
fn all_views(inner: &Inner) -> impl Iterator<Item = &'static View> {
    columns::VIEWS.iter().chain(inner.office.get().map_or(&[][..], |office| office.views()))
}

/// What can be said here, as SHOW HELP tells.
fn usage(inner: &Inner) -> String {
    let mut usage = String::from("\n\tSHOW HELP");
    let mut length = usage.len();
    for view in all_views(inner) {
        let name = view.name.to_uppercase();
        if length > 60 || !view.argument.is_empty() {
            usage.push_str("\n\tSHOW ");
            length = 0;
        } else {
            usage.push('|');
        }
        usage.push_str(&name);
        length += name.len();
        if !view.argument.is_empty() {
            usage.push_str(" [");
            usage.push_str(view.argument);
            usage.push(']');
            length = usize::MAX;
        }
    }
    for command in COMMANDS {
        usage.push_str("\n\t");
        usage.push_str(command);
    }
    usage
}

/// What changes something.
const COMMANDS: [&str; 15] = [
    "SET key = arg",
    "SET BUDGET <server> = <number>|DEFAULT",
    "RENEW <server>",
    "RELOAD",
    "PAUSE [<db>]",
    "RESUME [<db>]",
    "DISABLE <db>",
    "ENABLE <db>",
    "RECONNECT [<db>]",
    "KILL [<db>]",
    "KILL_CLIENT <client_id>",
    "SUSPEND",
    "SHUTDOWN",
    "SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS",
    "WAIT_CLOSE [<db>]",
];

/// PgBouncer's views as Markdown, for the documentation.
pub fn pgbouncer_views() -> &'static [View] {
    columns::VIEWS
}
