//! What a protocol brings to the engine: how to open a connection, whether it still lives,
//! and how to make it fit for the next owner. The engine knows no more about it.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use crate::terms::Terms;

/// A protocol's side of a pool.
///
/// # Cancel safety
/// The engine runs `connect`, `probe` and `reset` in tasks of its own: the caller who asked
/// may vanish, they go on. Each is dropped at its deadline (settings), which must do no
/// harm beyond losing that connection.
pub trait Connector: Send + Sync + 'static {
    /// On whose behalf a connection is opened; it belongs to that identity for life.
    type Identity: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static;
    /// A live connection.
    type Connection: Send + 'static;

    /// Opens a connection of `identity`, authenticated and ready.
    ///
    /// # Errors
    /// Why there is none; its [`FailureKind`] decides what the pool does next.
    ///
    /// # Cancel safety
    /// Runs in a task of the pool, whoever asked for the connection. Dropped after
    /// `connect_timeout` (5 s), it must leave no half-open connection behind.
    fn connect(
        &self,
        identity: &Self::Identity,
    ) -> impl Future<Output = Result<Self::Connection, ConnectFailure>> + Send;

    /// What `identity` may have of the pool. Asked when it comes, and for all that are known by
    /// [`Pool::review`](crate::Pool::review). Runs under the pool's lock, so it never waits.
    /// By default as much as it can get.
    fn terms(&self, _identity: &Self::Identity) -> Terms {
        Terms::default()
    }

    /// Closes a connection and ends when the other side has let it go. By default at once.
    ///
    /// # Cancel safety
    /// Runs in a task of the pool. Dropped after `reset_timeout` (1 s), the connection is
    /// closed all the same.
    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send {
        async move { drop(connection) }
    }

    /// A look at a connection that rested in the pool: has the other side closed it? Runs
    /// under the pool's lock, so it never waits and makes no system call unless data came.
    fn is_open(&self, connection: &mut Self::Connection) -> bool;

    /// Does it still lead where connections should lead? One that does not is closed where it
    /// rests or comes home, which says nothing about others. Runs under the pool's lock, before
    /// each lease and after it, so it neither waits nor makes a system call. By default all do.
    fn is_current(&self, _connection: &mut Self::Connection) -> bool {
        true
    }

    /// Asks the other side whether it still answers. `None`: it does not, or not well.
    ///
    /// # Cancel safety
    /// Runs in a task of the pool. Dropped after `connect_timeout` (5 s), the connection is
    /// lost with it.
    fn probe(
        &self,
        connection: Self::Connection,
    ) -> impl Future<Output = Option<Self::Connection>> + Send;

    /// Brings a connection in unknown state back to the state of a fresh one. `None`: that
    /// could not be proved, and it was closed.
    ///
    /// Its last owner may have left in the middle of anything: something may still run on the
    /// other side, and half an answer may be on its way.
    ///
    /// # Cancel safety
    /// Runs in a task of the pool, after the lease was dropped. Dropped after `reset_timeout`
    /// (1 s), the connection is lost with it.
    fn reset(
        &self,
        connection: Self::Connection,
    ) -> impl Future<Output = Option<Self::Connection>> + Send;
}

/// Why a connection could not be opened, in the terms that decide what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Nobody answers there: refused, unreachable, timed out, broken protocol. The
    /// destination is down; opening backs off.
    Unreachable,
    /// Something answers there, and it is not, or not yet, what we want: its role moves from
    /// one server to another. Opening backs off; those who wait go on until their deadline.
    Moving,
    /// It answers, and has no place for us now. The destination is busy, not down.
    Busy,
    /// It answers, and will not have this identity: wrong password, no such database. Others
    /// are not affected.
    Denied,
}

/// A failed attempt to connect: how it counts, and what the other side said.
#[derive(Debug, Clone)]
pub struct ConnectFailure {
    /// How it counts.
    pub kind: FailureKind,
    /// What happened, in the protocol's own type (the gateway finds it by `downcast_ref`).
    pub source: Arc<dyn Error + Send + Sync>,
}

impl ConnectFailure {
    /// A failure that counts as `kind`, caused by `source`.
    pub fn new(kind: FailureKind, source: impl Error + Send + Sync + 'static) -> Self {
        Self { kind, source: Arc::new(source) }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl Error for ConnectFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}
