//! What a server can take in all, as it says itself: read at a login, and anew at the first
//! login a minute later, since a restart may have changed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Instant};
use tokio::sync::watch;

use super::{Server, ServerFailure};

/// What was read counts for so long.
const FRESH: Duration = Duration::from_secs(60);

/// `max_connections` less those kept for superusers and (since 16) for reserved roles, and how
/// many connections there are. Everybody may read both; a few workers of the server's own are
/// among the second.
const QUESTION: &str = "SELECT (SELECT pg_catalog.sum(CASE name WHEN 'max_connections' THEN \
     setting::int ELSE -setting::int END) FROM pg_catalog.pg_settings WHERE name IN \
     ('max_connections', 'superuser_reserved_connections', 'reserved_connections')) || ' ' || \
     (SELECT pg_catalog.sum(numbackends) FROM pg_catalog.pg_stat_database)";

/// What a server can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Connections that it leaves to ordinary users.
    pub(crate) all: u32,
    /// Those of them that others than we had when it was read.
    pub(crate) others: u32,
}

/// Reads it at logins, and counts the connections that are ours.
pub(crate) struct Surveyor {
    told: watch::Sender<Option<Capacity>>,
    read_at: Mutex<Option<Instant>>,
    ours: Arc<AtomicU32>,
}

/// One connection of ours, until dropped.
pub(crate) struct Ours(Arc<AtomicU32>);

impl Drop for Ours {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Surveyor {
    /// What is read is told by `told`.
    pub(crate) fn new(told: watch::Sender<Option<Capacity>>) -> Self {
        Self { told, read_at: Mutex::default(), ours: Arc::default() }
    }

    /// `server` has logged in: it is counted, and asked if nobody was lately.
    pub(crate) async fn survey(&self, server: &mut Server) -> Result<(), ServerFailure> {
        self.ours.fetch_add(1, Ordering::Relaxed);
        server.ours = Some(Ours(Arc::clone(&self.ours)));
        if !self.is_due() {
            return Ok(());
        }
        match server.ask(QUESTION).await {
            Ok(answer) => {
                let ours = self.ours.load(Ordering::Relaxed);
                let capacity = answer.as_deref().and_then(|answer| read(answer, ours));
                self.told.send_if_modified(|told| {
                    let differs = capacity.is_some() && *told != capacity;
                    *told = capacity.or(*told);
                    differs
                });
                Ok(())
            }
            // Something that speaks PostgreSQL and is none: then nothing is known of it.
            Err(ServerFailure::Refused(said)) => {
                tracing::debug!(error = said.text, "the server does not say what it can take");
                Ok(())
            }
            Err(failure) => {
                *self.read_at.lock() = None;
                Err(failure)
            }
        }
    }

    /// The server is another one: the next login reads it anew.
    pub(crate) fn forget(&self) {
        *self.read_at.lock() = None;
    }

    fn is_due(&self) -> bool {
        let now = time::now();
        let mut read_at = self.read_at.lock();
        let due = read_at.is_none_or(|at| at + FRESH <= now);
        if due {
            *read_at = Some(now);
        }
        due
    }
}

fn read(answer: &str, ours: u32) -> Option<Capacity> {
    let (all, open) = answer.split_once(' ')?;
    let others = open.parse::<u32>().ok()?.saturating_sub(ours);
    Some(Capacity { all: all.parse().ok()?, others })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_those_that_are_not_ours() {
        assert_eq!(read("97 12", 5), Some(Capacity { all: 97, others: 7 }));
        assert_eq!(read("97 2", 5), Some(Capacity { all: 97, others: 0 }));
        for nonsense in ["", "97", "x 1", "-3 1", "97 "] {
            assert_eq!(read(nonsense, 0), None, "{nonsense}");
        }
    }
}
