//! Work on a connection, in a task of the pool's own: open, reset, probe.
//!
//! Always true: the ledger hears of the end of each errand, even if the connector panics or
//! the runtime drops the task, so no seat is lost with it.

use std::sync::Arc;
use std::time::Duration;

use forebay_seam::time;

use crate::connect::{ConnectFailure, Connector, FailureKind};
use crate::ledger::Fitness;
use crate::slot::ConnId;

use super::Shared;

/// An errand under way.
pub(super) struct Errand<K: Connector> {
    pool: Arc<Shared<K>>,
    conn: ConnId,
    purpose: Purpose,
}

#[derive(Clone, Copy)]
enum Purpose {
    Open,
    Reset,
    Probe,
    /// Its end was told.
    Done,
}

impl<K: Connector> Errand<K> {
    /// Opens a connection of `identity`.
    pub(super) async fn open(pool: Arc<Shared<K>>, conn: ConnId, identity: K::Identity) {
        let mut errand = Self { pool, conn, purpose: Purpose::Open };
        let patience = errand.pool.timings.connect;
        let attempt = time::timeout(patience, errand.pool.connector.connect(&identity)).await;
        let outcome = attempt.unwrap_or_else(|_| {
            Err(ConnectFailure::new(FailureKind::Unreachable, ConnectError::TimedOut(patience)))
        });
        errand.log(&identity, outcome.as_ref().err());
        errand.was_opened(outcome);
    }

    /// Says a failure once, however often it comes, and that it is over.
    fn log(&self, identity: &K::Identity, failure: Option<&ConnectFailure>) {
        let destination = &self.pool.destination;
        let said = failure.map(ToString::to_string);
        let before = {
            let mut last = self.pool.last_failure.lock();
            if *last == said {
                return;
            }
            std::mem::replace(&mut *last, said)
        };
        match (before, failure) {
            (_, Some(error)) => tracing::warn!(%destination, %identity, %error, "connect failed"),
            (Some(_), None) => tracing::info!(%destination, "connects succeed again"),
            (None, None) => {}
        }
    }

    /// Brings a connection back to a known state, or closes it.
    pub(super) async fn reset(pool: Arc<Shared<K>>, conn: ConnId, connection: K::Connection) {
        let mut errand = Self { pool, conn, purpose: Purpose::Reset };
        let reset = errand.pool.connector.reset(connection);
        let connection = time::timeout(errand.pool.timings.reset, reset).await.ok().flatten();
        errand.was_reset(connection);
    }

    /// Asks a connection whether it answers.
    pub(super) async fn probe(pool: Arc<Shared<K>>, conn: ConnId, connection: K::Connection) {
        let mut errand = Self { pool, conn, purpose: Purpose::Probe };
        let probe = errand.pool.connector.probe(connection);
        let connection = time::timeout(errand.pool.timings.connect, probe).await.ok().flatten();
        errand.was_probed(connection);
    }

    fn was_opened(&mut self, outcome: Result<K::Connection, ConnectFailure>) {
        self.purpose = Purpose::Done;
        let now = time::now();
        self.pool.act(|state, actions| match outcome {
            Ok(connection) => {
                state.connections.insert(self.conn, connection);
                state.ledger.opened(self.conn, now, actions);
            }
            Err(failure) => state.ledger.open_failed(self.conn, failure, now, actions),
        });
    }

    fn was_reset(&mut self, connection: Option<K::Connection>) {
        self.purpose = Purpose::Done;
        let now = time::now();
        self.pool.act(|state, actions| {
            let fitness = state.put_back(self.conn, connection, Fitness::Unclean);
            state.ledger.cleaned(self.conn, fitness, now, actions);
        });
    }

    fn was_probed(&mut self, connection: Option<K::Connection>) {
        self.purpose = Purpose::Done;
        let now = time::now();
        self.pool.act(|state, actions| {
            let fitness = state.put_back(self.conn, connection, Fitness::Dead);
            state.ledger.probed(self.conn, fitness, now, actions);
        });
    }
}

impl<K: Connector> Drop for Errand<K> {
    fn drop(&mut self) {
        match self.purpose {
            Purpose::Open => {
                let failure = ConnectFailure::new(FailureKind::Unreachable, ConnectError::Dropped);
                self.was_opened(Err(failure));
            }
            Purpose::Reset => self.was_reset(None),
            Purpose::Probe => self.was_probed(None),
            Purpose::Done => {}
        }
    }
}

/// An attempt to connect that the connector did not end itself.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error("the attempt was broken off")]
    Dropped,
}
