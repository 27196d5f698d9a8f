//! What is asked of the operating system at the start.
//!
//! Open files: each client and each connection behind takes one. What the settings allow at
//! the most is asked for; where the system gives less, the operator is told before the day on
//! which clients are refused. Small pages: memory that is touched here and there shall not
//! cost 2 MiB each time.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use forebay_postgres::BoundedBy;

use crate::config::Config;

/// Listeners, the admin pages, the log, name look-ups, cancel requests.
const OURS: u64 = 256;
/// Connections to each server or service whose budget is found out later.
const EACH_DESTINATION: u64 = 500;

/// How many files the program may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Granted {
    /// As many as the settings may need.
    Enough,
    /// Fewer.
    Only(u64),
}

/// Asks for what a program with this configuration needs, and logs what is not granted. Returns
/// how many PostgreSQL clients there is room for, where that is fewer than are configured.
pub(crate) fn prepare(config: &Config) -> Option<u32> {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "the system keeps its huge pages");
    }
    let needed = needed(config);
    match allow(needed) {
        Ok(Granted::Enough) => None,
        Ok(Granted::Only(limit)) => {
            let room = room(config, limit, needed);
            tracing::warn!(
                limit,
                needed,
                room,
                "the system lets this program open fewer files than `max_clients` may need: raise \
             the limit (`LimitNOFILE=` for systemd, `ulimit -n` in a shell), or lower \
             `max_clients`"
            );
            room
        }
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be read or raised");
            None
        }
    }
}

/// PostgreSQL clients for which `limit` files are enough, where all that may be open takes
/// `needed`: what is ours, servers and services keep their part, and clients beyond are told
/// that there are too many, instead of waiting for a file.
fn room(config: &Config, limit: u64, needed: u64) -> Option<u32> {
    let clients = config.postgres.as_ref()?.max_clients;
    let missing = u32::try_from(needed.saturating_sub(limit)).unwrap_or(u32::MAX);
    (missing > 0).then(|| clients.saturating_sub(missing).max(1))
}

fn needed(config: &Config) -> u64 {
    let postgres = config.postgres.as_ref().map_or(0, |postgres| {
        let budgets = postgres.servers.values().map(|server| match server.bounded_by {
            BoundedBy::Budget => server.budget.map_or(EACH_DESTINATION, u64::from),
            BoundedBy::Pools => EACH_DESTINATION,
        });
        u64::from(postgres.max_clients) + budgets.sum::<u64>()
    });
    let http = config.http.as_ref().map_or(0, |http| {
        u64::from(http.max_clients)
            + EACH_DESTINATION * u64::try_from(http.destinations.len()).unwrap_or(u64::MAX)
    });
    postgres.saturating_add(http).saturating_add(OURS)
}

/// The soft limit is ours to raise, the hard one only with a privilege.
fn allow(needed: u64) -> nix::Result<Granted> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= needed {
        return Ok(Granted::Enough);
    }
    if hard < needed && setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok() {
        return Ok(Granted::Enough);
    }
    let limit = needed.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    Ok(if limit == needed { Granted::Enough } else { Granted::Only(limit) })
}

#[cfg(test)]
mod tests {
    use forebay_postgres::PostgresSettings;

    use super::*;

    #[test]
    fn clients_have_what_others_leave_of_the_files() {
        let postgres = PostgresSettings { max_clients: 3_000, ..PostgresSettings::default() };
        let config = Config { postgres: Some(postgres), ..Config::default() };
        let needed = needed(&config);
        assert_eq!(needed, 3_000 + OURS);
        assert_eq!(room(&config, needed, needed), None);
        assert_eq!(room(&config, 1_024, needed), Some(768));
        assert_eq!(room(&config, 64, needed), Some(1), "somebody may always come");
    }
}
