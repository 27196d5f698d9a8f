//! What an operator does to a gateway that serves: PAUSE, RESUME, RECONNECT, KILL, KILL_CLIENT,
//! DISABLE, ENABLE, WAIT_CLOSE, SUSPEND, as PgBouncer's console has them.
//!
//! A command changes its state first and waits after that, so who gives it up while it waits
//! takes nothing back. Texts of errors are PgBouncer's. Always true: what is paused stays so
//! until RESUME, over reloads and whoever leaves.

use std::sync::Arc;
use std::time::Duration;

use forebay_seam::time;

use super::Gateway;
use super::doors::{ControlSnapshot, Flow};
use crate::route::Backend;
use crate::server::connector::Identity;

/// Why a command cannot be carried out. Nothing was changed, except where it says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// All databases are paused, or all of the gateway is suspended: RESUME ends it.
    #[error("already suspended/paused")]
    AlreadyPaused,
    /// There is nothing to resume.
    #[error("pooler is not paused/suspended")]
    NotPaused,
    /// Applications cannot ask for a database of this name.
    #[error("no such database: {0}")]
    NoDatabase(String),
    /// The database is not paused by itself.
    #[error("database {0} is not paused")]
    DatabaseNotPaused(String),
    /// No client has this number.
    #[error("client not found")]
    NoClient,
    /// While a database is paused its clients' buffers cannot be emptied.
    #[error("cannot suspend with paused databases")]
    PausedDatabases,
    /// RESUME came before all connections were closed: the pause is over.
    #[error("resumed before all server connections were closed")]
    Resumed,
}

impl Gateway {
    /// PAUSE: new work of `database`, or of all databases, waits, its patience running as
    /// ever; transactions finish, and each server connection is closed when it comes home.
    /// Clients that are pooled by session keep theirs until they leave. Ends when all are
    /// closed; the connections that listen for clients and those that replicate stay.
    ///
    /// # Errors
    /// When all is paused already, or there is no such database; [`ControlError::Resumed`]
    /// when somebody ended the pause meanwhile.
    ///
    /// # Cancel safety
    /// The pause holds from the first poll on, whether anybody waits for its end or not.
    pub async fn pause(&self, database: Option<&str>) -> Result<(), ControlError> {
        let doors = &self.inner.pairs.doors;
        match database {
            None => {
                doors.turn(Flow::Running, Flow::Paused).map_err(|_| ControlError::AlreadyPaused)?;
            }
            Some(name) => {
                self.may_command(name)?;
                doors.pause(name);
            }
        }
        tracing::info!(database, "PAUSE");
        self.review(database);
        let mut resumed = std::pin::pin!(self.is_resumed(database));
        for backend in self.inner.backends() {
            let closed =
                backend.pool.until(|pair| is_meant(database, pair), |count| count.all == 0);
            tokio::select! {
                biased;
                () = &mut resumed => return Err(ControlError::Resumed),
                () = closed => {}
            }
        }
        Ok(())
    }

    /// RESUME: who waits goes on; connections are opened one at a time at first, and twice as
    /// many after each that succeeds, so that those who waited do not come as one herd.
    ///
    /// # Errors
    /// When nothing was paused.
    pub fn resume(&self, database: Option<&str>) -> Result<(), ControlError> {
        let doors = &self.inner.pairs.doors;
        match database {
            None => {
                let was_paused = doors.turn(Flow::Paused, Flow::Running).is_ok();
                let was_still = doors.turn(Flow::Suspended, Flow::Running).is_ok();
                if !was_paused && !was_still {
                    return Err(ControlError::NotPaused);
                }
                if was_still {
                    self.inner.stillness.end();
                    self.inner.pairs.roll.wake_all();
                }
            }
            Some(name) => {
                if !doors.resume(name) {
                    self.is_known(name)?;
                    return Err(ControlError::DatabaseNotPaused(name.to_owned()));
                }
            }
        }
        tracing::info!(database, "RESUME");
        self.inner.resumed.notify_waiters();
        self.review(database);
        Ok(())
    }

    /// RECONNECT: each server connection of now is closed when it comes home, and at once where
    /// it rests. Of all databases, the hosts of every server are judged anew besides.
    ///
    /// # Errors
    /// When there is no such database.
    pub fn reconnect(&self, database: Option<&str>) -> Result<(), ControlError> {
        if let Some(name) = database {
            self.is_known(name)?;
        }
        tracing::info!(database, "RECONNECT");
        for backend in self.inner.backends() {
            if database.is_none() {
                backend.pool.connector().access().hosts.forget();
            }
            backend.pool.replace(|pair| is_meant(database, pair));
        }
        Ok(())
    }

    /// KILL: clients of `database`, or of all, are sent away with 57P01, server connections
    /// are closed, what runs on them is cancelled. The databases stay paused: each until its
    /// own RESUME.
    ///
    /// # Errors
    /// When all is paused or suspended already, or there is no such database.
    pub fn kill(&self, database: Option<&str>) -> Result<(), ControlError> {
        let pairs = &self.inner.pairs;
        match database {
            Some(name) => {
                self.may_command(name)?;
                pairs.doors.pause(name);
            }
            None => {
                self.may_command_all()?;
                for name in pairs.names_in_use() {
                    pairs.doors.pause(&name);
                }
            }
        }
        tracing::info!(database, "KILL");
        self.review(database);
        for backend in self.inner.backends() {
            backend.pool.replace(|pair| is_meant(database, pair));
        }
        pairs.roll.end_all_of(|name| database.is_none_or(|meant| meant == name));
        Ok(())
    }

    /// KILL_CLIENT: the client with this number is sent away with 57P01; its transaction is
    /// rolled back.
    ///
    /// # Errors
    /// When nobody has this number.
    pub fn kill_client(&self, id: u64) -> Result<(), ControlError> {
        if !self.inner.pairs.roll.end(id) {
            return Err(ControlError::NoClient);
        }
        tracing::info!(client = id, "KILL_CLIENT");
        Ok(())
    }

    /// DISABLE: `database` takes no new clients.
    ///
    /// # Errors
    /// When there is no such database.
    pub fn disable(&self, database: &str) -> Result<(), ControlError> {
        self.is_known(database)?;
        tracing::info!(database, "DISABLE");
        self.inner.pairs.doors.disable(database);
        Ok(())
    }

    /// ENABLE: `database` takes new clients again.
    ///
    /// # Errors
    /// When there is no such database.
    pub fn enable(&self, database: &str) -> Result<(), ControlError> {
        self.is_known(database)?;
        tracing::info!(database, "ENABLE");
        self.inner.pairs.doors.enable(database);
        Ok(())
    }

    /// WAIT_CLOSE: ends when every server connection that was to be replaced is closed
    /// ([`Gateway::reconnect`]).
    ///
    /// # Errors
    /// When there is no such database.
    ///
    /// # Cancel safety
    /// It only looks.
    pub async fn wait_close(&self, database: Option<&str>) -> Result<(), ControlError> {
        if let Some(name) = database {
            self.is_known(name)?;
        }
        for backend in self.inner.backends() {
            let replaced =
                backend.pool.until(|pair| is_meant(database, pair), |count| count.outdated == 0);
            replaced.await;
        }
        Ok(())
    }

    /// SUSPEND: nothing more is read from clients and servers, and nobody is accepted; ends
    /// when all that was read is written out. Clients whose buffers cannot be emptied within
    /// `patience` are sent away. Replication goes on. [`Gateway::resume`] ends it; PgBouncer
    /// does so when the console that asked for it leaves, which is for the console to do.
    ///
    /// # Errors
    /// When all is paused or suspended already, or a database is paused;
    /// [`ControlError::Resumed`] when somebody ended it meanwhile.
    ///
    /// # Cancel safety
    /// It is suspended from the first poll on, whether anybody waits or not.
    pub async fn suspend(&self, patience: Duration) -> Result<(), ControlError> {
        let (doors, roll) = (&self.inner.pairs.doors, &self.inner.pairs.roll);
        self.may_command_all()?;
        if doors.is_any_paused() {
            return Err(ControlError::PausedDatabases);
        }
        doors.turn(Flow::Running, Flow::Suspended).map_err(|_| ControlError::AlreadyPaused)?;
        tracing::info!("SUSPEND");
        let stillness = &self.inner.stillness;
        let round = stillness.begin();
        roll.wake_all();
        let reached = stillness.until(|now| {
            now.is_none_or(|now| now.get() != round) || roll.not_still_in(round).is_empty()
        });
        if time::timeout(patience, reached).await.is_err() {
            let late = roll.not_still_in(round);
            tracing::warn!(clients = late.len(), "sent away: they do not read what they asked for");
            late.iter().for_each(|client| client.end());
        }
        match doors.flow() {
            Flow::Suspended => Ok(()),
            Flow::Running | Flow::Paused => Err(ControlError::Resumed),
        }
    }

    /// Pools ask anew what the pairs of `database` may have.
    fn review(&self, database: Option<&str>) {
        for backend in self.inner.backends() {
            backend.pool.review(|pair| is_meant(database, pair));
        }
    }

    /// Ends when `database` is not paused any more.
    async fn is_resumed(&self, database: Option<&str>) {
        let doors = &self.inner.pairs.doors;
        loop {
            let mut resumed = std::pin::pin!(self.inner.resumed.notified());
            resumed.as_mut().enable();
            let holds = match database {
                None => doors.flow() == Flow::Paused,
                Some(name) => doors.is_paused_itself(name),
            };
            if !holds {
                return;
            }
            resumed.await;
        }
    }

    fn may_command_all(&self) -> Result<(), ControlError> {
        match self.inner.pairs.doors.flow() {
            Flow::Running => Ok(()),
            Flow::Paused | Flow::Suspended => Err(ControlError::AlreadyPaused),
        }
    }

    fn may_command(&self, database: &str) -> Result<(), ControlError> {
        self.may_command_all()?;
        self.is_known(database)
    }

    fn is_known(&self, database: &str) -> Result<(), ControlError> {
        match self.inner.pairs.knows(database) {
            true => Ok(()),
            false => Err(ControlError::NoDatabase(database.to_owned())),
        }
    }
}

fn is_meant(database: Option<&str>, pair: &Identity) -> bool {
    database.is_none_or(|name| *pair.name == *name)
}

impl super::Inner {
    /// What an operator has closed.
    pub(crate) fn control(&self) -> ControlSnapshot {
        self.pairs.doors.snapshot()
    }

    /// Every server that a client may have a connection to.
    fn backends(&self) -> Vec<Arc<Backend>> {
        self.plan().backends.values().map(Arc::clone).collect()
    }
}
