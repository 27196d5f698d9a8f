//! Who may do what in the console: for each command, and nothing that is not allowed here.
//!
//! Knows names and ranks only. Always true: a command that is new is refused to all but admins
//! until somebody says otherwise.

use forebay_seam::net::Peer;
use nix::unistd::geteuid;

use super::command::Command;
use super::table::Reader;
use crate::settings::PostgresSettings;

/// Is `peer` a process of the user that we run as? The kernel says so for Unix sockets.
pub(crate) fn is_our_own(peer: Peer) -> bool {
    match peer {
        Peer::Unix { uid, .. } => uid == geteuid().as_raw(),
        Peer::Tcp(_) => false,
    }
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// Nothing.
    Nobody,
    /// Look.
    Stats,
    /// Look and change.
    Admin,
}

impl Rank {
    /// That of `user`, who has proved the name.
    pub(crate) fn of(user: &str, settings: &PostgresSettings) -> Self {
        let is_among = |users: &[String]| users.iter().any(|one| one == user);
        if is_among(&settings.admin_users) {
            Self::Admin
        } else if is_among(&settings.stats_users) {
            Self::Stats
        } else {
            Self::Nobody
        }
    }

    /// May one of this rank look at what `reader` may look at?
    pub(super) fn reads(self, reader: Reader) -> bool {
        match (self, reader) {
            (Self::Admin, Reader::Admin | Reader::Stats) | (Self::Stats, Reader::Stats) => true,
            (Self::Stats, Reader::Admin) | (Self::Nobody, Reader::Admin | Reader::Stats) => false,
        }
    }

    /// May one of this rank give `command`? Which views may be seen is asked for each besides.
    pub(super) fn gives(self, command: &Command) -> bool {
        match self {
            Self::Nobody => false,
            Self::Admin => true,
            Self::Stats => match command {
                Command::Look(_) => true,
                Command::Change(_) => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::command;

    #[test]
    fn an_admin_stays_one_who_is_also_among_those_who_look() {
        let settings = PostgresSettings {
            admin_users: vec!["ann".into()],
            stats_users: vec!["ann".into(), "bob".into()],
            ..PostgresSettings::default()
        };
        let ranks = ["ann", "bob", "eve", ""].map(|user| Rank::of(user, &settings));
        assert_eq!(ranks, [Rank::Admin, Rank::Stats, Rank::Nobody, Rank::Nobody]);
    }

    #[test]
    fn only_who_runs_us_on_this_machine_is_our_own() {
        let ours = geteuid().as_raw();
        let local = |uid| Peer::Unix { uid, gid: 0, pid: None };
        assert!(is_our_own(local(ours)));
        assert!(!is_our_own(local(ours + 1)));
        assert!(!is_our_own(Peer::Tcp("127.0.0.1:1".parse().unwrap())));
    }

    /// CVE-2026-6667: KILL_CLIENT was open to those who may only look.
    #[test]
    fn trap_51_each_command_is_allowed_by_itself() {
        let changes = [
            "RELOAD",
            "PAUSE",
            "PAUSE db",
            "RESUME",
            "DISABLE db",
            "ENABLE db",
            "RECONNECT",
            "KILL",
            "KILL db",
            "KILL_CLIENT 7",
            "SUSPEND",
            "SHUTDOWN",
            "SHUTDOWN WAIT_FOR_SERVERS",
            "SHUTDOWN WAIT_FOR_CLIENTS",
            "WAIT_CLOSE",
            "SET verbose = 3",
            "SET BUDGET main = 5",
            "RENEW main",
        ];
        for text in changes {
            let command = command::read(text).unwrap().remove(0);
            let may = [Rank::Nobody, Rank::Stats, Rank::Admin].map(|rank| rank.gives(&command));
            assert_eq!(may, [false, false, true], "{text}");
        }
        for text in ["SHOW POOLS", "SHOW timezone", "SET timezone = 'GMT'", "BEGIN"] {
            let command = command::read(text).unwrap().remove(0);
            let may = [Rank::Nobody, Rank::Stats, Rank::Admin].map(|rank| rank.gives(&command));
            assert_eq!(may, [false, true, true], "{text}");
        }
    }
}
