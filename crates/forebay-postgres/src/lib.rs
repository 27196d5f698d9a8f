//! The PostgreSQL gateway.
use std::sync::Arc;

use forebay_pool::Snapshot;
use forebay_pool::overlap::Overlaps;
use forebay_seam::net::TcpListener;
use forebay_seam::task::Stop;
use forebay_seam::time::Instant;
use serde::Serialize;

pub mod settings;
pub use settings::PostgresSettings;

/// Speaks PostgreSQL to applications, and to the servers behind.
#[derive(Clone)]
pub struct Gateway {}

/// Why the settings cannot be carried out. `at` is the path of the key in the
/// configuration (`postgres.servers.main.address`), so that the program can say the line.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct SettingsError {
    /// Path of the key.
    pub at: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// The gateway at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct PostgresSnapshot {
    /// Applications connected.
    pub clients: u32,
    /// Pools, one for each server.
    pub pools: Vec<Snapshot>,
}

impl Gateway {
    /// Checks `settings` without opening anything (files of certificates are read).
    ///
    /// # Errors
    /// The first setting that cannot be carried out.
    pub fn check(_settings: &PostgresSettings) -> Result<(), SettingsError> {
        todo!()
    }
    /// A gateway for `settings`; starts warming up. Inside a runtime. `default_tenant` is the
    /// tenant of users that name none.
    ///
    /// # Errors
    /// As [`Gateway::check`].
    pub fn new(
        _settings: PostgresSettings,
        _overlaps: Arc<Overlaps>,
        _default_tenant: Option<Arc<str>>,
    ) -> Result<Self, SettingsError> {
        todo!()
    }
    /// Serves the clients that `listener` accepts, until `stop` is told; then accepts no more.
    pub async fn serve(&self, _listener: TcpListener, _stop: Stop) {
        todo!()
    }
    /// Waits until clients have finished what runs (idle ones are sent away with 57P01), at
    /// most until `deadline`; then closes every connection.
    pub async fn drain(&self, _deadline: Instant) {
        todo!()
    }
    /// Is every pool warm?
    pub fn is_ready(&self) -> bool {
        todo!()
    }
    /// One picture.
    pub fn snapshot(&self) -> PostgresSnapshot {
        todo!()
    }
}
