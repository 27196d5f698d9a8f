//! What commands do, once it is certain that they are allowed.
//!
//! Knows no messages. What changes something is logged with who asked for it.

use std::sync::Arc;

use super::command::{Changing, Command, Looking, Setting, Unreadable};
use super::table::{Column, Kind, Row, View};
use super::{Door, Rank, all_views, config, usage, views};
use crate::gateway::{ControlError, Gateway, Inner};

/// The column of a SHOW that is faked.
macro_rules! faked {
    ($name:literal) => {
        &[Column { name: $name, kind: Kind::Text, meaning: "Its value" }]
    };
}

/// What became of a command.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Rows of these columns.
    Rows { columns: &'static [Column], rows: Vec<Row> },
    /// It is done, and this is its tag.
    Done(String),
    /// It is done, and there is something to say of it.
    Noted { notice: &'static str, detail: Option<String>, tag: &'static str },
}

/// Why a command was not carried out. PgBouncer has one code for all of these.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("admin access needed")]
    NotAllowed,
    #[error("there is no server `{name}`: SHOW BUDGETS names them")]
    NoServer { name: String },
    #[error("{0}")]
    Argument(String),
    #[error("{0}")]
    NotChangeable(String),
    #[error("RELOAD failed, see logs for additional details: {0}")]
    Reload(String),
    #[error("{0} is not possible here")]
    NotHere(&'static str),
    #[error("{what} \"{name}\" does not exist")]
    Missing { what: &'static str, name: String },
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("cannot {doing} admin db: {name}")]
    Console { doing: &'static str, name: String },
    #[error("a database is required")]
    NoDatabase,
    #[error("a client id is required: SHOW CLIENTS has it as `id`")]
    NoClient,
    #[error("canceling statement due to user request")]
    Cancelled,
}

impl Refusal {
    /// The SQLSTATE.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Reload(_) => "F0000",
            Self::Cancelled => "57014",
            Self::Missing { what: "portal", .. } => "34000",
            Self::Missing { .. } => "26000",
            Self::Unreadable(_)
            | Self::NotAllowed
            | Self::NoServer { .. }
            | Self::Argument(_)
            | Self::NotChangeable(_)
            | Self::NotHere(_)
            | Self::Control(_)
            | Self::Console { .. }
            | Self::NoDatabase
            | Self::NoClient => "08P01",
        }
    }
}

/// One who gives commands.
#[derive(Clone)]
pub(super) struct Operator {
    pub(super) inner: Arc<Inner>,
    pub(super) user: Arc<str>,
    pub(super) door: Door,
    pub(super) rank: Rank,
}

impl Operator {
    /// What `command` shows, if it shows something.
    pub(super) fn columns(&self, command: &Command) -> Result<Option<&'static [Column]>, Refusal> {
        match command {
            Command::Look(Looking::Show { view, .. }) if view == "help" => Ok(None),
            Command::Look(Looking::Show { view, .. }) => Ok(Some(self.view(view)?.columns)),
            Command::Look(Looking::ShowSetting(setting)) => Ok(Some(faked(*setting))),
            Command::Look(Looking::SetIgnored | Looking::Transaction(_)) | Command::Change(_) => {
                Ok(None)
            }
        }
    }

    fn view(&self, name: &str) -> Result<&'static View, Refusal> {
        let view = all_views(&self.inner).find(|view| view.name == name);
        let view = view.ok_or_else(|| Unreadable::Unknown(format!("SHOW {name}")))?;
        if self.rank.reads(view.reader) { Ok(view) } else { Err(Refusal::NotAllowed) }
    }

    /// Carries `command` out.
    ///
    /// # Cancel safety
    /// Dropped, what has begun goes on, and nobody is told of its end.
    pub(super) async fn act(&self, command: &Command) -> Result<Outcome, Refusal> {
        if !self.rank.gives(command) {
            tracing::warn!(user = %self.user, %command, "a console command is not allowed");
            return Err(Refusal::NotAllowed);
        }
        match command {
            Command::Look(looking) => self.look(looking),
            Command::Change(changing) => self.change(changing).await,
        }
    }

    fn look(&self, looking: &Looking) -> Result<Outcome, Refusal> {
        match looking {
            Looking::Show { view, .. } if view == "help" => Ok(Outcome::Noted {
                notice: "Console usage",
                detail: Some(usage(&self.inner)),
                tag: "SHOW",
            }),
            Looking::Show { view, argument } => {
                let view = self.view(view)?;
                Ok(Outcome::Rows { columns: view.columns, rows: self.rows(view, argument)? })
            }
            Looking::ShowSetting(setting) => Ok(Outcome::Rows {
                columns: faked(*setting),
                rows: vec![vec![setting.value().into()]],
            }),
            Looking::SetIgnored => {
                Ok(Outcome::Noted { notice: "SET ignored", detail: None, tag: "SET" })
            }
            Looking::Transaction(verb) => Ok(Outcome::Done((*verb).to_owned())),
        }
    }

    async fn change(&self, command: &Changing) -> Result<Outcome, Refusal> {
        tracing::info!(
            user = %self.user, database = self.door.name(), %command, "a console command"
        );
        let gateway = Gateway::of(&self.inner);
        match command {
            Changing::SetBudget { server, budget } => {
                if !gateway.set_budget(server, *budget) {
                    return Err(Refusal::NoServer { name: server.clone() });
                }
                let budget = budget.map_or("default".to_owned(), |budget| budget.to_string());
                Ok(Outcome::Done(format!("SET BUDGET {server}={budget}")))
            }
            Changing::Renew { server } => {
                if !gateway.renew(server) {
                    return Err(Refusal::NoServer { name: server.clone() });
                }
                Ok(Outcome::Done("RENEW".to_owned()))
            }
            Changing::Set { key, value } => {
                let office = self.inner.office.get().ok_or(Refusal::NotHere("SET"))?;
                office.set(key, value).await.map_err(Refusal::NotChangeable)?;
                Ok(Outcome::Done(format!("SET {key}={value}")))
            }
            Changing::Reload => {
                let office = self.inner.office.get().ok_or(Refusal::NotHere("RELOAD"))?;
                office.reload().await.map_err(Refusal::Reload)?;
                Ok(Outcome::Done("RELOAD".to_owned()))
            }
            Changing::ShutDown(how) => {
                let office = self.inner.office.get().ok_or(Refusal::NotHere("SHUTDOWN"))?;
                office.shut_down(*how);
                Ok(Outcome::Done("SHUTDOWN".to_owned()))
            }
            Changing::Pause(name) => {
                gateway.pause(served("pause", name)?).await?;
                Ok(done(command))
            }
            Changing::Resume(name) => {
                gateway.resume(served("resume", name)?)?;
                Ok(done(command))
            }
            Changing::Reconnect(name) => {
                gateway.reconnect(served("reconnect", name)?)?;
                Ok(done(command))
            }
            Changing::Kill(name) => {
                gateway.kill(served("kill", name)?)?;
                Ok(done(command))
            }
            Changing::KillClient(id) => {
                let id = id.as_ref().ok_or(Refusal::NoClient)?;
                let id = id.parse().map_err(|_| ControlError::NoClient)?;
                gateway.kill_client(id)?;
                Ok(done(command))
            }
            Changing::Disable(name) => {
                gateway.disable(served("disable", name)?.ok_or(Refusal::NoDatabase)?)?;
                Ok(done(command))
            }
            Changing::Enable(name) => {
                gateway.enable(served("enable", name)?.ok_or(Refusal::NoDatabase)?)?;
                Ok(done(command))
            }
            Changing::WaitClose(name) => {
                gateway.wait_close(served("wait in", name)?).await?;
                Ok(done(command))
            }
            Changing::Suspend => {
                gateway.suspend(self.inner.plan().settings.suspend_timeout).await?;
                Ok(done(command))
            }
        }
    }

    fn rows(&self, view: &View, argument: &Option<String>) -> Result<Vec<Row>, Refusal> {
        if argument.is_some() && view.argument.is_empty() {
            let text = format!("SHOW {} takes no argument", view.name.to_uppercase());
            return Err(Refusal::Argument(text));
        }
        let office = self.inner.office.get();
        if view.name == "config" && self.door == Door::Forebay {
            return Ok(office.map(|office| office.settings()).unwrap_or_default());
        }
        if view.name == "version" {
            let version = match (self.door, office) {
                (Door::Forebay, Some(office)) => format!("Forebay {}", office.version()),
                (Door::PgBouncer, _) | (Door::Forebay, None) => {
                    format!("PgBouncer {}", super::PGBOUNCER_VERSION)
                }
            };
            return Ok(vec![vec![version.into()]]);
        }
        if view.name == "config" {
            let known = office.map(|office| office.pgbouncer_settings()).unwrap_or_default();
            return Ok(config::rows(&known, &self.inner.plan().settings));
        }
        if let Some(rows) = views::rows(&self.inner, view.name) {
            return Ok(rows);
        }
        let office = office.ok_or(Refusal::NotHere("this view"))?;
        office.rows(view, argument.as_deref()).map_err(Refusal::Argument)
    }
}

fn done(command: &Changing) -> Outcome {
    Outcome::Done(command.verb().to_owned())
}

/// The name of a database that has servers: the console itself has none to be told of.
fn served<'a>(doing: &'static str, name: &'a Option<String>) -> Result<Option<&'a str>, Refusal> {
    match name.as_deref() {
        Some(name) if Door::of(name).is_some() => {
            Err(Refusal::Console { doing, name: name.to_owned() })
        }
        name => Ok(name),
    }
}

fn faked(setting: Setting) -> &'static [Column] {
    match setting {
        Setting::ClientEncoding => faked!("client_encoding"),
        Setting::DefaultTransactionIsolation => faked!("default_transaction_isolation"),
        Setting::StandardConformingStrings => faked!("standard_conforming_strings"),
        Setting::DateStyle => faked!("datestyle"),
        Setting::TimeZone => faked!("timezone"),
    }
}
