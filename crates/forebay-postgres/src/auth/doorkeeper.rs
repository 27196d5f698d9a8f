//! What all logins of the process share, whatever the configuration.

use forebay_seam::random;

use super::hashing::Hashing;
use super::throttle::Throttle;

/// Shared by all logins.
pub(crate) struct Doorkeeper {
    /// Makes what is asked of users who do not exist.
    pub(super) nobody: [u8; 32],
    pub(super) hashing: Hashing,
    pub(super) throttle: Throttle,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        Self { nobody: random::bytes(), hashing: Hashing::default(), throttle: Throttle::default() }
    }
}

impl Doorkeeper {
    /// Iterations of hashing since the start, as a measure of the work.
    pub(crate) fn hash_iterations(&self) -> u64 {
        self.hashing.iterations()
    }

    /// Logins since the start that were turned away because too many like them failed.
    pub(crate) fn throttled(&self) -> u64 {
        self.throttle.turned_away()
    }
}
