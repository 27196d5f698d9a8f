//! What a reload cannot change: sockets that are bound, threads that run, how log lines look.
//!
//! Everything else is reloaded, also what is added later: this list is the exception.

use crate::config::Loaded;

/// Keys, or beginnings of keys up to a dot, that count at the start only.
const AT_START: [&str; 12] = [
    "worker_threads",
    "admin",
    "restart",
    "log.format",
    "postgres.listen",
    "postgres.reuse_port",
    "postgres.unix_socket_mode",
    "postgres.unix_socket_group",
    "http.listen",
    "http.unix_socket_mode",
    "http.unix_socket_group",
    "http.max_clients",
];

/// The keys of `now` that differ from those of the start and need another one.
pub(super) fn needed(started_with: &Loaded, now: &Loaded) -> Vec<String> {
    let mut keys: Vec<_> =
        now.changed_since(started_with).into_iter().filter(|key| is_at_start(key)).collect();
    let gateways =
        |loaded: &Loaded| [loaded.config.postgres.is_some(), loaded.config.http.is_some()];
    for ((name, before), now) in
        ["postgres", "http"].into_iter().zip(gateways(started_with)).zip(gateways(now))
    {
        if before != now {
            keys.push(name.to_owned());
        }
    }
    keys
}

fn is_at_start(key: &str) -> bool {
    AT_START.iter().any(|first| {
        key.strip_prefix(first).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_needs_a_restart_with_all_that_is_below_it() {
        for key in ["worker_threads", "admin.listen", "admin.hosts[0]", "postgres.listen[1]"] {
            assert!(is_at_start(key), "{key}");
        }
        for key in ["postgres.listeners", "postgres.servers.listen.address", "log.level"] {
            assert!(!is_at_start(key), "{key}");
        }
    }
}
