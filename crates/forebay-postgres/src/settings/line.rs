//! How TCP connections are watched over: settings of PgBouncer's names.

use std::time::Duration;

use forebay_seam::net::{Keepalive, Tuning};

use super::PostgresSettings;

/// What Linux takes (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`, `MAX_TCP_KEEPCNT`).
const LONGEST_PAUSE: Duration = Duration::from_secs(32_767);
const MOST_QUESTIONS: u32 = 127;
/// Milliseconds in an `int`.
const LONGEST_TIMEOUT: Duration = Duration::from_millis(i32::MAX.cast_unsigned() as u64);

impl PostgresSettings {
    /// How connections to applications and to servers are watched over.
    pub(crate) fn tuning(&self) -> Tuning {
        let keepalive = self.tcp_keepalive.then_some(Keepalive {
            idle: self.tcp_keepidle,
            interval: self.tcp_keepintvl,
            retries: self.tcp_keepcnt,
        });
        let limit = self.tcp_user_timeout;
        Tuning { keepalive, user_timeout: (!limit.is_zero()).then_some(limit) }
    }

    /// Can the system do it?
    ///
    /// # Errors
    /// The key that it cannot, and what it can.
    pub(crate) fn check_tuning(&self) -> Result<(), (&'static str, String)> {
        let second = Duration::from_secs(1);
        for (key, pause) in
            [("tcp_keepidle", self.tcp_keepidle), ("tcp_keepintvl", self.tcp_keepintvl)]
        {
            if !(second..=LONGEST_PAUSE).contains(&pause) {
                return Err((key, "expected 1s to 32767s".into()));
            }
        }
        if !(1..=MOST_QUESTIONS).contains(&self.tcp_keepcnt) {
            return Err(("tcp_keepcnt", format!("expected 1 to {MOST_QUESTIONS}")));
        }
        if self.tcp_user_timeout > LONGEST_TIMEOUT {
            return Err(("tcp_user_timeout", "expected at most 24days; 0s: no limit".into()));
        }
        Ok(())
    }
}
