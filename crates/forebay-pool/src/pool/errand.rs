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
    Part,
    /// Its end was told.
    Done,
}

/// What an attempt to connect changed in what is known of the destination.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    None,
    /// It fails, or fails in another way.
    Trouble,
    /// It succeeds again.
    Over,
}

impl<K: Connector> Errand<K> {
    /// Opens a connection of `identity`.
    pub(super) async fn open(pool: Arc<Shared<K>>, conn: ConnId, identity: K::Identity) {
        let mut errand = Self { pool, conn, purpose: Purpose::Open };
        let patience = errand.pool.timings.lock().connect;
        let attempt = time::timeout(patience, errand.pool.connector.connect(&identity)).await;
        let outcome = attempt.unwrap_or_else(|_| {
            Err(ConnectFailure::new(FailureKind::Unreachable, ConnectError::TimedOut(patience)))
        });
        let failure = outcome.as_ref().err().cloned();
        let destination = Arc::clone(&errand.pool.destination);
        // A failure is said once, however often it comes, and that it is over.
        match (errand.was_opened(outcome), failure) {
            (News::None, _) => {}
            (News::Trouble, Some(error)) => {
                tracing::warn!(%destination, %identity, %error, "connect failed");
            }
            (News::Trouble | News::Over, _) => {
                tracing::info!(%destination, "connects succeed again");
            }
        }
    }

    /// Brings a connection back to a known state, or closes it.
    pub(super) async fn reset(pool: Arc<Shared<K>>, conn: ConnId, connection: K::Connection) {
        let mut errand = Self { pool, conn, purpose: Purpose::Reset };
        let patience = errand.pool.timings.lock().reset;
        let reset = errand.pool.connector.reset(connection);
        let connection = time::timeout(patience, reset).await.ok().flatten();
        errand.was_reset(connection);
    }

    /// Asks a connection whether it answers.
    pub(super) async fn probe(pool: Arc<Shared<K>>, conn: ConnId, connection: K::Connection) {
        let mut errand = Self { pool, conn, purpose: Purpose::Probe };
        let patience = errand.pool.timings.lock().connect;
        let probe = errand.pool.connector.probe(connection);
        let connection = time::timeout(patience, probe).await.ok().flatten();
        errand.was_probed(connection);
    }

    /// Closes a connection, and waits for the other side at most as long as a reset may take.
    pub(super) async fn part(pool: Arc<Shared<K>>, conn: ConnId, connection: K::Connection) {
        let mut errand = Self { pool, conn, purpose: Purpose::Part };
        let patience = errand.pool.timings.lock().reset;
        let close = errand.pool.connector.close(connection);
        drop(time::timeout(patience, close).await);
        errand.has_parted();
    }

    fn has_parted(&mut self) {
        self.purpose = Purpose::Done;
        let now = time::now();
        self.pool.act(|state, actions| state.ledger.parted(self.conn, now, actions));
        self.pool.one_left();
    }

    fn was_opened(&mut self, outcome: Result<K::Connection, ConnectFailure>) -> News {
        self.purpose = Purpose::Done;
        let now = time::now();
        let news = self.pool.act(|state, actions| {
            let said = outcome.as_ref().err().map(ToString::to_string);
            let news = match (&said, &state.last_failure) {
                (now, before) if now == before => News::None,
                (Some(_), _) => News::Trouble,
                (None, _) => News::Over,
            };
            state.last_failure = said;
            match outcome {
                Ok(connection) => {
                    state.shelf.put(self.conn, connection);
                    state.ledger.opened(self.conn, now, actions);
                }
                Err(failure) => {
                    if failure.kind == FailureKind::Busy {
                        state.wishes.was_busy();
                    }
                    state.ledger.open_failed(self.conn, failure, now, actions);
                }
            }
            news
        });
        self.pool.one_left();
        news
    }

    fn was_reset(&mut self, connection: Option<K::Connection>) {
        self.purpose = Purpose::Done;
        let now = time::now();
        self.pool.act(|state, actions| {
            let fitness =
                state.put_back(self.conn, connection, &self.pool.connector, Fitness::Unclean);
            state.ledger.cleaned(self.conn, fitness, now, actions);
        });
        self.pool.one_left();
    }

    fn was_probed(&mut self, connection: Option<K::Connection>) {
        self.purpose = Purpose::Done;
        let now = time::now();
        self.pool.act(|state, actions| {
            let fitness =
                state.put_back(self.conn, connection, &self.pool.connector, Fitness::Dead);
            state.ledger.probed(self.conn, fitness, now, actions);
        });
        self.pool.one_left();
    }
}

impl<K: Connector> Drop for Errand<K> {
    fn drop(&mut self) {
        match self.purpose {
            Purpose::Open => {
                let failure = ConnectFailure::new(FailureKind::Unreachable, ConnectError::Dropped);
                let _news = self.was_opened(Err(failure));
            }
            Purpose::Reset => self.was_reset(None),
            Purpose::Probe => self.was_probed(None),
            Purpose::Part => self.has_parted(),
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
