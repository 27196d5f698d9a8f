//! What became of reloads, for the views.

use std::time::{SystemTime, UNIX_EPOCH};

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use serde::Serialize;

use super::ReloadError;

/// The configuration of the program, as far as views show it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConfigurationSnapshot {
    /// The same on instances that run the same configuration; 48 bits.
    pub hash: u64,
    /// When what is in force was read, seconds since 1970.
    pub since: f64,
    /// Reloads since start that succeeded.
    pub reloaded: u64,
    /// Reloads since start that failed and changed nothing.
    pub failed: u64,
    /// What the last reload failed for, if it did.
    pub last_error: Option<String>,
    /// Keys that changed and count after a restart only.
    pub needs_restart: Vec<String>,
}

/// Remembers what became of reloads.
#[derive(Debug, Default)]
pub struct Record(Mutex<ConfigurationSnapshot>);

impl Record {
    /// The program starts with a configuration.
    pub(super) fn starts_with(&self, hash: u64) {
        let mut now = self.0.lock();
        (now.hash, now.since) = (hash, wall());
    }

    pub(super) fn succeeded(&self, hash: u64, needs_restart: &[String]) {
        let mut now = self.0.lock();
        (now.hash, now.since) = (hash, wall());
        now.reloaded += 1;
        now.last_error = None;
        now.needs_restart = needs_restart.to_vec();
    }

    pub(super) fn failed(&self, error: &ReloadError) {
        let mut now = self.0.lock();
        now.failed += 1;
        now.last_error = Some(error.to_string());
    }

    /// As it is now.
    pub fn snapshot(&self) -> ConfigurationSnapshot {
        self.0.lock().clone()
    }
}

fn wall() -> f64 {
    let now: SystemTime = time::wall_now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
