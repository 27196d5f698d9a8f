//! What a server can take in all, as it says itself: read at a login, and anew at the first
//! login a minute later, since a restart may have changed it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_seam::net::Address;
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

/// Reads it at logins, and counts the connections that are ours: of each host by itself. Where
/// there are several, each of them must be able to take all that we open, since the others may
/// be away: what the smallest can take is told.
pub(crate) struct Surveyor {
    told: watch::Sender<Option<Capacity>>,
    hosts: Hosts,
}

type Hosts = Arc<Mutex<HashMap<Address, Surveyed>>>;

/// What is known of one host.
#[derive(Debug, Default)]
struct Surveyed {
    ours: u32,
    read_at: Option<Instant>,
    capacity: Option<Capacity>,
}

impl Surveyed {
    fn is_fresh(&self, now: Instant) -> bool {
        self.read_at.is_some_and(|at| now < at + FRESH)
    }
}

/// One connection of ours, until dropped.
pub(crate) struct Ours {
    hosts: Hosts,
    address: Address,
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(host) = self.hosts.lock().get_mut(&self.address) {
            host.ours = host.ours.saturating_sub(1);
        }
    }
}

impl Surveyor {
    /// What is read is told by `told`.
    pub(crate) fn new(told: watch::Sender<Option<Capacity>>) -> Self {
        Self { told, hosts: Arc::default() }
    }

    /// `server` has logged in: it is counted, and asked if its host was not lately.
    pub(crate) async fn survey(&self, server: &mut Server) -> Result<(), ServerFailure> {
        let address = server.key.door.address.clone();
        let is_due = self.enters(&address, time::now());
        server.ours = Some(Ours { hosts: Arc::clone(&self.hosts), address: address.clone() });
        if !is_due {
            return Ok(());
        }
        match server.ask(QUESTION).await {
            Ok(answer) => {
                if let Some(capacity) = self.learns(&address, answer.as_deref()) {
                    self.told.send_if_modified(|told| told.replace(capacity) != Some(capacity));
                }
                Ok(())
            }
            // Something that speaks PostgreSQL and is none: then nothing is known of it.
            Err(ServerFailure::Refused(said)) => {
                tracing::debug!(error = said.text, "the server does not say what it can take");
                Ok(())
            }
            Err(failure) => {
                if let Some(host) = self.hosts.lock().get_mut(&address) {
                    host.read_at = None;
                }
                Err(failure)
            }
        }
    }

    /// The servers are others: the next logins read them anew.
    pub(crate) fn forget(&self) {
        self.hosts.lock().values_mut().for_each(|host| host.read_at = None);
    }

    /// One more connection leads to `address`; is it due to be asked?
    fn enters(&self, address: &Address, now: Instant) -> bool {
        let mut hosts = self.hosts.lock();
        hosts.retain(|_, host| host.ours > 0 || host.is_fresh(now));
        let host = hosts.entry(address.clone()).or_default();
        host.ours += 1;
        let is_due = !host.is_fresh(now);
        if is_due {
            host.read_at = Some(now);
        }
        is_due
    }

    /// The host at `address` has answered: what the smallest of all can take, as far as known.
    fn learns(&self, address: &Address, answer: Option<&str>) -> Option<Capacity> {
        let mut hosts = self.hosts.lock();
        let host = hosts.get_mut(address)?;
        host.capacity = answer.and_then(|answer| read(answer, host.ours)).or(host.capacity);
        let known = hosts.values().filter_map(|host| host.capacity);
        known.min_by_key(|capacity| (capacity.all.saturating_sub(capacity.others), capacity.all))
    }
}

fn read(answer: &str, ours: u32) -> Option<Capacity> {
    let (all, open) = answer.split_once(' ')?;
    let others = open.parse::<u32>().ok()?.saturating_sub(ours);
    Some(Capacity { all: all.parse().ok()?, others })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn others_are_those_that_are_not_ours() {
        assert_eq!(read("97 12", 5), Some(Capacity { all: 97, others: 7 }));
        assert_eq!(read("97 2", 5), Some(Capacity { all: 97, others: 0 }));
        for nonsense in ["", "97", "x 1", "-3 1", "97 "] {
            assert_eq!(read(nonsense, 0), None, "{nonsense}");
        }
    }

    #[test]
    fn of_several_hosts_the_smallest_counts_and_each_has_its_own_others() {
        let surveyor = Surveyor::new(watch::Sender::new(None));
        let [large, small] = ["/large", "/small"].map(|path| Address::Unix(Path::new(path).into()));
        let now = time::now();
        assert!(surveyor.enters(&large, now) && surveyor.enters(&small, now));
        for _ in 0..4 {
            assert!(!surveyor.enters(&large, now), "it was asked just now");
        }
        let told = |address, answer| surveyor.learns(address, Some(answer));
        assert_eq!(told(&large, "197 12"), Some(Capacity { all: 197, others: 7 }));
        assert_eq!(told(&small, "97 12"), Some(Capacity { all: 97, others: 11 }));
        assert_eq!(told(&large, "197 5"), Some(Capacity { all: 97, others: 11 }));
        // One that we have left counts no longer.
        drop(Ours { hosts: Arc::clone(&surveyor.hosts), address: small.clone() });
        assert!(surveyor.enters(&large, now + FRESH));
        assert_eq!(told(&large, "197 6"), Some(Capacity { all: 197, others: 0 }));
    }
}
