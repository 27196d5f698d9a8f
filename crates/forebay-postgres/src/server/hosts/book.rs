//! What is known of each host, and what follows from it: the order in which hosts are tried,
//! which of them are used, and whose connections are no longer lent.
//!
//! Knows no sockets and asks no clock: `now` is an argument. Always true: of hosts that belong
//! to one cluster and claim to be its primary, only one with the newest timeline that was ever
//! seen is used; a host in trouble is tried last until its pause is over, and never left out.

use std::time::{Duration, Instant};

use crate::server::role::{Fit, Role};
use crate::settings::SessionAttrs;

/// A host in trouble is tried last for so long: at first, and at most.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// So many failed attempts in a row mean that its connections are dead, whatever they seem.
const DEAD: u32 = 2;

/// A primary's line of history: the cluster it belongs to, and the timeline it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) cluster: String,
    pub(crate) timeline: u32,
}

/// What a host said of itself.
#[derive(Debug, Clone)]
pub(crate) struct Findings {
    pub(crate) role: Option<Role>,
    pub(crate) history: Option<History>,
    /// How far a standby is behind, where that was asked and is known.
    pub(crate) lag: Option<Duration>,
}

/// Why a host is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It cannot be reached, or does not take connections.
    Down,
    /// It takes no more connections.
    Full,
    /// It is not what is wanted.
    WrongRole,
    /// A primary that another one has replaced.
    Stale,
    /// A standby too far behind.
    Behind,
}

impl Trouble {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Full => "full",
            Self::WrongRole => "wrong-role",
            Self::Stale => "fenced",
            Self::Behind => "behind",
        }
    }
}

/// What may be done with a connection to a host that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Use(Fit),
    Refuse(Trouble),
}

/// Something that follows for connections of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// Connections to this host are replaced when they come home.
    Replace(usize),
    /// As [`Consequence::Replace`], and nothing more is sent on those that are lent.
    Fence(usize),
    /// It may be used again.
    Release(usize),
}

/// What is known of one host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) role: Option<Role>,
    pub(crate) timeline: Option<u32>,
    pub(crate) lag: Option<Duration>,
    /// What is wrong with it, and until when it is tried last for that.
    pub(crate) trouble: Option<(Trouble, Instant)>,
    /// Troubles in a row.
    failures: u32,
}

/// What a pool wants of its hosts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) attrs: SessionAttrs,
    pub(crate) max_lag: Option<Duration>,
}

/// What is known of all hosts of a server.
#[derive(Debug)]
pub(crate) struct Book {
    wanted: Wanted,
    pub(crate) hosts: Vec<Condition>,
    /// The newest history that a primary showed, and which host it was.
    newest: Option<(History, usize)>,
    /// The primary that is used.
    primary: Option<usize>,
    /// How often another host became the primary.
    pub(crate) failovers: u64,
    /// How often a stale primary was fenced.
    pub(crate) fenced: u64,
}

impl Book {
    pub(crate) fn new(wanted: Wanted, hosts: usize) -> Self {
        let hosts = vec![Condition::default(); hosts];
        Self { wanted, hosts, newest: None, primary: None, failovers: 0, fenced: 0 }
    }

    /// `order`, with hosts in trouble behind the others: those whose pause ends first before
    /// those whose pause ends later.
    pub(crate) fn sort(&self, order: &mut [usize], now: Instant) {
        order.sort_by_key(|host| {
            let trouble = self.hosts.get(*host).and_then(|host| host.trouble);
            trouble.map(|(_, until)| until).filter(|until| *until > now)
        });
    }

    /// A host could not be used for `why`.
    pub(crate) fn failed(&mut self, host: usize, why: Trouble, now: Instant) -> Vec<Consequence> {
        let Some(condition) = self.hosts.get_mut(host) else { return Vec::new() };
        let alone = condition.trouble.is_some_and(|(trouble, _)| trouble == why);
        condition.failures = if alone { condition.failures.saturating_add(1) } else { 1 };
        let pause = PAUSE_FIRST.saturating_mul(1 << condition.failures.saturating_sub(1).min(10));
        condition.trouble = Some((why, now + pause.min(PAUSE_MOST)));
        let is_first = !alone;
        match why {
            Trouble::Full => Vec::new(),
            Trouble::Down if condition.failures == DEAD => vec![Consequence::Replace(host)],
            Trouble::Down => Vec::new(),
            Trouble::WrongRole | Trouble::Behind if is_first => vec![Consequence::Replace(host)],
            Trouble::WrongRole | Trouble::Behind => Vec::new(),
            Trouble::Stale if is_first => {
                self.fenced += 1;
                vec![Consequence::Fence(host)]
            }
            Trouble::Stale => Vec::new(),
        }
    }

    /// A host answered, and said what it is.
    pub(crate) fn found(
        &mut self,
        host: usize,
        findings: Findings,
        now: Instant,
    ) -> (Verdict, Vec<Consequence>) {
        let Some(condition) = self.hosts.get_mut(host) else {
            return (Verdict::Refuse(Trouble::Down), Vec::new());
        };
        let Findings { role, history, lag } = findings;
        condition.role = role;
        if let Some(history) = &history {
            condition.timeline = Some(history.timeline);
        }
        condition.lag = lag;
        let mut consequences = Vec::new();
        if let Some(history) = history
            && self.is_stale(host, &history, now, &mut consequences)
        {
            consequences.extend(self.failed(host, Trouble::Stale, now));
            return (Verdict::Refuse(Trouble::Stale), consequences);
        }
        let is_behind = self.wanted.max_lag.is_some_and(|most| lag.is_some_and(|lag| lag > most));
        let trouble = match self.wanted.attrs.fit(role) {
            Fit::Not => Some(Trouble::WrongRole),
            Fit::Wanted | Fit::Acceptable if is_behind => Some(Trouble::Behind),
            Fit::Wanted | Fit::Acceptable => None,
        };
        if let Some(trouble) = trouble {
            consequences.extend(self.failed(host, trouble, now));
            return (Verdict::Refuse(trouble), consequences);
        }
        if let Some(condition) = self.hosts.get_mut(host) {
            let was = condition.trouble.take();
            condition.failures = 0;
            if was.is_some_and(|(trouble, _)| trouble == Trouble::Stale) {
                consequences.push(Consequence::Release(host));
            }
        }
        if self.wanted.attrs.is_of_the_primary() {
            let before = self.primary.replace(host);
            if before.is_some_and(|before| before != host) {
                self.failovers += 1;
            }
        }
        (Verdict::Use(self.wanted.attrs.fit(role)), consequences)
    }

    /// Has another host of the same cluster gone on from a point before `history`? If it is the
    /// newest, those who show an older one are stale from now on.
    fn is_stale(
        &mut self,
        host: usize,
        history: &History,
        now: Instant,
        consequences: &mut Vec<Consequence>,
    ) -> bool {
        let newer = match &self.newest {
            // Nothing can be said of two clusters. The host may have been made anew.
            Some((newest, whose)) if newest.cluster != history.cluster => *whose == host,
            Some((newest, _)) if newest.timeline > history.timeline => return true,
            Some((newest, _)) => newest.timeline < history.timeline,
            None => true,
        };
        if newer {
            self.newest = Some((history.clone(), host));
            let older = |other: &Condition| {
                other.role.is_some_and(|role| role != Role::Standby)
                    && other.timeline.is_some_and(|timeline| timeline < history.timeline)
            };
            let stale: Vec<_> = (0..self.hosts.len())
                .filter(|other| *other != host && self.hosts.get(*other).is_some_and(older))
                .collect();
            for other in stale {
                consequences.extend(self.failed(other, Trouble::Stale, now));
            }
        }
        false
    }

    /// Is there a host that can be used, as far as anybody knows?
    pub(crate) fn is_usable(&self) -> bool {
        self.hosts
            .iter()
            .any(|host| host.trouble.is_none_or(|(trouble, _)| trouble == Trouble::Full))
    }

    /// By hand: what was seen of timelines counts for nothing any more.
    pub(crate) fn forget(&mut self) {
        self.newest = None;
        for host in &mut self.hosts {
            host.trouble = None;
            host.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests;
