//! The HTTP egress gateway.
use std::sync::Arc;

use forebay_pool::overlap::Overlaps;
use forebay_seam::net::TcpListener;
use forebay_seam::task::Stop;
use forebay_seam::time::Instant;

pub mod settings;
pub mod stats;

pub use settings::HttpSettings;
pub use stats::HttpSnapshot;

/// Forwards the calls of agents to the services behind.
#[derive(Clone)]
pub struct Gateway {}

/// Why the settings cannot be carried out. `at` is the path of the key in the
/// configuration (`http.destinations.llm.url`), so that the program can say the line.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct SettingsError {
    /// Path of the key.
    pub at: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Gateway {
    /// Checks `settings` without opening anything (files of certificates are read).
    ///
    /// # Errors
    /// The first setting that cannot be carried out.
    pub fn check(_settings: &HttpSettings) -> Result<(), SettingsError> {
        todo!()
    }
    /// A gateway for `settings`; starts warming up. Inside a runtime.

    ///
    /// # Errors
    /// As [`Gateway::check`].
    pub fn new(_settings: HttpSettings, _overlaps: Arc<Overlaps>) -> Result<Self, SettingsError> {
        todo!()
    }
    /// Serves the clients that `listener` accepts, until `stop` is told; then accepts no more.
    pub async fn serve(&self, _listener: TcpListener, _stop: Stop) {
        todo!()
    }
    /// Waits until clients have finished what runs, at
    /// most until `deadline`; then closes every connection.
    pub async fn drain(&self, _deadline: Instant) {
        todo!()
    }
    /// Is every pool warm?
    pub fn is_ready(&self) -> bool {
        todo!()
    }
    /// One picture.
    pub fn snapshot(&self) -> HttpSnapshot {
        todo!()
    }
}
