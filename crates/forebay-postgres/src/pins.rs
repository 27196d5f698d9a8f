//! Clients that keep their server connection beyond a transaction, and why.
//!
//! A pin is a set of reasons, each there until what caused it has ended. Texts tell what may
//! begin or end one; what really holds, the server is asked when the client comes to rest
//! ([`QUESTION`]). Knows no sessions: those who keep a connection are told by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Instant};
use serde::Serialize;

/// Why a client keeps its server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PinReason {
    Listen,
    TemporaryTable,
    AdvisoryLock,
    HoldCursor,
    SqlPrepare,
    /// A setting whose name and value the text does not tell.
    Setting,
    SessionAuthorization,
}

impl PinReason {
    const ALL: [Self; 7] = [
        Self::Listen,
        Self::TemporaryTable,
        Self::AdvisoryLock,
        Self::HoldCursor,
        Self::SqlPrepare,
        Self::Setting,
        Self::SessionAuthorization,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::TemporaryTable => "temporary_table",
            Self::AdvisoryLock => "advisory_lock",
            Self::HoldCursor => "hold_cursor",
            Self::SqlPrepare => "sql_prepare",
            Self::Setting => "setting",
            Self::SessionAuthorization => "session_authorization",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Listen => 1,
            Self::TemporaryTable => 2,
            Self::AdvisoryLock => 4,
            Self::HoldCursor => 8,
            Self::SqlPrepare => 16,
            Self::Setting => 32,
            Self::SessionAuthorization => 64,
        }
    }
}

/// A set of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reasons(u8);

impl Reasons {
    pub(crate) fn insert(&mut self, reason: PinReason) {
        self.0 |= reason.bit();
    }

    pub(crate) fn remove(&mut self, reason: PinReason) {
        self.0 &= !reason.bit();
    }

    pub(crate) fn contains(self, reason: PinReason) -> bool {
        self.0 & reason.bit() != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = PinReason> {
        PinReason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }

    /// Those that the server names, of those that it knows.
    fn hear(&mut self, named: &str) {
        for reason in PinReason::ALL {
            match reason {
                PinReason::Listen
                | PinReason::TemporaryTable
                | PinReason::AdvisoryLock
                | PinReason::HoldCursor
                | PinReason::SqlPrepare => {
                    if named.split(',').any(|name| name == reason.name()) {
                        self.insert(reason);
                    } else {
                        self.remove(reason);
                    }
                }
                PinReason::Setting | PinReason::SessionAuthorization => {}
            }
        }
    }
}

/// Names the reasons that hold on the connection that is asked, in one column. Outside of
/// transactions only: there, advisory locks are the session's.
pub(crate) const QUESTION: &str = "SELECT pg_catalog.concat_ws(',', \
     CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) THEN 'listen' END, \
     CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid = 2615 AND refobjid = \
     pg_catalog.pg_my_temp_schema()) THEN 'temporary_table' END, \
     CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = \
     pg_catalog.pg_backend_pid()) THEN 'advisory_lock' END, \
     CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) THEN 'hold_cursor' \
     END, \
     CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE NOT \
     pg_catalog.starts_with(name, '__forebay_')) THEN 'sql_prepare' END)";

/// Whether the server has to be asked what holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Doubt {
    #[default]
    None,
    /// A reason may have ended.
    MayHaveEnded,
    /// One may have begun.
    MayHaveBegun,
}

/// Who listens for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Listening {
    /// Its own server connection, if anything.
    #[default]
    Own,
    /// The shared one, though its own has been told to listen, too.
    Shared,
}

/// What keeps one client's connection.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    pub(crate) held: Reasons,
    doubt: Doubt,
    listening: Listening,
    told: Option<Box<Told>>,
}

impl Pins {
    /// A statement that is sent may cause `reason`.
    pub(crate) fn foresee(&mut self, reason: PinReason) {
        self.held.insert(reason);
        self.doubt = Doubt::MayHaveBegun;
    }

    /// A connection that many share listens for the client.
    pub(crate) fn shares_listening(&mut self) {
        self.listening = Listening::Shared;
    }

    /// The server names what holds.
    pub(crate) fn hear(&mut self, named: &str) {
        let listens = self.held.contains(PinReason::Listen);
        self.held.hear(named);
        if self.listening == Listening::Shared && !listens {
            self.held.remove(PinReason::Listen);
        }
    }

    /// A statement that is sent may cause any reason, and end any.
    pub(crate) fn suspect(&mut self) {
        self.doubt = Doubt::MayHaveBegun;
    }

    /// A statement that is sent may end a reason.
    pub(crate) fn may_end(&mut self) {
        if self.doubt == Doubt::None {
            self.doubt = Doubt::MayHaveEnded;
        }
    }

    /// The server is asked.
    pub(crate) fn is_asked(&mut self) {
        self.doubt = Doubt::None;
    }

    /// Is the server to be asked, once the client rests?
    pub(crate) fn is_in_doubt(&self) -> bool {
        match self.doubt {
            Doubt::None => false,
            Doubt::MayHaveEnded => !self.held.is_empty(),
            Doubt::MayHaveBegun => true,
        }
    }

    /// The session is as good as new.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What is held is certain: `board` shows it. New reasons are returned, to be logged.
    pub(crate) fn tell(&mut self, board: &Arc<Board>, who: impl FnOnce() -> Keeper) -> Reasons {
        let told = self.told.as_ref().map_or(Reasons::default(), |told| told.reasons);
        if told == self.held {
            return Reasons::default();
        }
        let new = Reasons(self.held.0 & !told.0);
        self.told = match (self.told.take(), self.held.is_empty()) {
            (_, true) => None,
            (Some(mut told), false) => {
                told.change(self.held);
                Some(told)
            }
            (None, false) => Some(Box::new(Told::new(board, who(), self.held))),
        };
        let mut counts = board.counts.lock();
        for reason in new.iter() {
            *counts.entry(reason).or_default() += 1;
        }
        new
    }
}

/// Who keeps a connection.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) user: Arc<str>,
    pub(crate) database: Arc<str>,
    pub(crate) application: Arc<str>,
}

/// A client that keeps its server connection.
#[derive(Debug, Clone, Serialize)]
pub struct Pinned {
    /// Whom it logged in as.
    pub user: Arc<str>,
    /// The database that it asked for.
    pub database: Arc<str>,
    /// Its `application_name`.
    pub application: Arc<str>,
    /// Why, as in `forebay_pins_total`.
    pub reasons: Vec<&'static str>,
    /// For how long.
    pub seconds: u64,
}

/// All who keep a connection, and how often each reason came up.
#[derive(Debug, Default)]
pub(crate) struct Board {
    entries: Mutex<Entries>,
    counts: Mutex<BTreeMap<PinReason, u64>>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    by_id: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    who: Keeper,
    reasons: Reasons,
    since: Instant,
}

impl Board {
    /// How often each reason came up since start.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().iter().map(|(reason, n)| (reason.name(), *n)).collect()
    }

    /// Who keeps a connection now, the longest first.
    pub(crate) fn pinned(&self) -> Vec<Pinned> {
        let entries = self.entries.lock();
        let shown = entries.by_id.values().map(|entry| Pinned {
            user: Arc::clone(&entry.who.user),
            database: Arc::clone(&entry.who.database),
            application: Arc::clone(&entry.who.application),
            reasons: entry.reasons.iter().map(PinReason::name).collect(),
            seconds: entry.since.elapsed().as_secs(),
        });
        shown.collect()
    }
}

/// A client's entry on the board, until dropped.
#[derive(Debug)]
struct Told {
    board: Arc<Board>,
    id: u64,
    reasons: Reasons,
}

impl Told {
    fn new(board: &Arc<Board>, who: Keeper, reasons: Reasons) -> Self {
        let mut entries = board.entries.lock();
        let id = entries.next;
        entries.next += 1;
        entries.by_id.insert(id, Entry { who, reasons, since: time::now() });
        Self { board: Arc::clone(board), id, reasons }
    }

    fn change(&mut self, reasons: Reasons) {
        self.reasons = reasons;
        if let Some(entry) = self.board.entries.lock().by_id.get_mut(&self.id) {
            entry.reasons = reasons;
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.board.entries.lock().by_id.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> Keeper {
        Keeper { user: "u".into(), database: "d".into(), application: "a".into() }
    }

    #[test]
    fn each_reason_is_counted_once_and_shown_while_it_holds() {
        let (board, mut pins) = (Arc::<Board>::default(), Pins::default());
        pins.foresee(PinReason::Listen);
        assert!(pins.is_in_doubt());
        pins.is_asked();
        assert!(!pins.is_in_doubt());
        assert_eq!(pins.tell(&board, who).iter().count(), 1);
        pins.foresee(PinReason::HoldCursor);
        assert_eq!(pins.tell(&board, who).iter().collect::<Vec<_>>(), [PinReason::HoldCursor]);
        assert!(pins.tell(&board, who).is_empty());
        assert_eq!(board.pinned()[0].reasons, ["listen", "hold_cursor"]);
        pins.hear("hold_cursor");
        assert!(pins.tell(&board, who).is_empty());
        assert_eq!(board.pinned()[0].reasons, ["hold_cursor"]);
        pins.hear("");
        assert!(pins.tell(&board, who).is_empty() && board.pinned().is_empty());
        assert_eq!(board.counts(), BTreeMap::from([("hold_cursor", 1), ("listen", 1)]));
    }

    #[test]
    fn who_leaves_is_shown_no_longer() {
        let (board, mut pins) = (Arc::<Board>::default(), Pins::default());
        pins.foresee(PinReason::Setting);
        pins.hear("");
        assert!(pins.held.contains(PinReason::Setting), "the server is not asked for it");
        assert!(!pins.tell(&board, who).is_empty());
        drop(pins);
        assert!(board.pinned().is_empty());
    }

    #[test]
    fn nobody_is_asked_what_ended_where_nothing_was_held() {
        let mut pins = Pins::default();
        pins.may_end();
        assert!(!pins.is_in_doubt());
        pins.suspect();
        pins.may_end();
        assert!(pins.is_in_doubt());
    }
}
